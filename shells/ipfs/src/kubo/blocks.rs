//! Storing and reading single blocks.

use crate::Cid;
use bytes::Bytes;
use futures::Stream;
use serde::Deserialize;

use super::block_upload::{Feed, Prefix, boundary};
use super::query::Query;
use super::transport::Limit;
use super::{Client, parse_cid};
use crate::Block;
use crate::backend::{Cause, Error, Stored};

/// Maximum size of a block that is read into memory, in bytes. Bitswap transfers at most 2 MiB;
/// `allow-big-block` permits larger ones.
const BLOCK_MAX: usize = 16 * 1024 * 1024;

#[derive(Deserialize)]
struct PutLine {
    #[serde(rename = "Key")]
    key: String,
}

impl Client {
    /// Stores blocks as they come, holding one at a time, and checks that the node stored exactly those.
    /// Blocks are not pinned.
    /// # Errors
    /// The first error item of `blocks`; the node cannot be reached, refuses a block, or stored other blocks
    /// than were sent; or it accepts no block for `request_timeout`.
    pub async fn put_blocks<S>(&self, blocks: S) -> Result<Stored, Error>
    where
        S: Stream<Item = Result<Block, Error>> + Send + 'static,
    {
        let feed = Feed::new(blocks, self.supports_many_blocks().await?);
        let mut stored = Stored::default();
        // One request has one hash function and codec, so a change of either starts another.
        while let Some(prefix) = feed.next_prefix().await? {
            let done = self.put_run(&feed, prefix).await;
            // The error of the source explains a broken upload best.
            if let Some(error) = feed.take_error() {
                return Err(error);
            }
            let done = done?;
            stored.blocks += done.blocks;
            stored.bytes += done.bytes;
        }
        Ok(stored)
    }

    /// Returns whether `block/put` accepts many blocks. js-ipfs stores the first and ignores the others.
    async fn supports_many_blocks(&self) -> Result<bool, Error> {
        let ask = || async { Ok(!self.id().await?.agent.starts_with("js-ipfs/")) };
        self.many_blocks.get_or_try_init(ask).await.copied()
    }

    async fn put_run(&self, feed: &Feed, prefix: Prefix) -> Result<Stored, Error> {
        let query = Query::new()
            .with("allow-big-block", "true")
            .with("cid-codec", prefix.codec_name()?)
            .with("mhlen", prefix.hash_len.to_string())
            .with("mhtype", prefix.hash_name()?)
            .with("pin", "false");
        let boundary = boundary();
        let content_type = format!("multipart/form-data; boundary={boundary}");
        let body = feed.body(prefix, &boundary);
        let send = async {
            let response = self
                .transport
                .send("block/put", query.as_str(), Some(&content_type), body)
                .await?;
            let deadline = Limit::Idle(self.config.request_timeout).start();
            let mut lines = super::lines::Lines::new("block/put", response.into_body(), deadline);
            let mut answered = feed.tally();
            while let Some(line) = lines.next::<PutLine>().await? {
                lines.progressed();
                answered.add(parse_cid("block/put", &line.key)?.hash());
            }
            Ok(answered)
        };
        let answered = tokio::select! {
            done = send => done?,
            stalled = feed.wait_for_stall(self.config.request_timeout) => return Err(stalled),
        };
        let (sent, stored) = feed.finish_run();
        if answered == sent {
            return Ok(stored);
        }
        let message = format!(
            "{} blocks were sent, the node answers that it stored {}{}",
            sent.count(),
            answered.count(),
            if answered.count() == sent.count() {
                ", but others"
            } else {
                ""
            },
        );
        Err(Error::new(Cause::BadAnswer, "block/put", message))
    }

    /// Returns the bytes of a block, from the node's store or, if the node is online, from its peers.
    ///
    /// # Errors
    /// The node cannot be reached, does not have the block in time, or the block exceeds 16 MiB.
    pub async fn get_block(&self, cid: &Cid) -> Result<Bytes, Error> {
        let query = Query::new().with("arg", cid.to_string());
        let limit = self.config.request_timeout;
        self.transport
            .bytes("block/get", query.as_str(), limit, BLOCK_MAX)
            .await
    }
}
