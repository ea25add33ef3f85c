//! Raw leaves of pins, which `pin/verify` does not look at: it reads the links of each block, and knows
//! without reading that a raw one has none. `refs` lists the blocks of a pin, and fails if it misses one that
//! it reads; `block/stat` says of each raw leaf whether it is stored, without reading it.

use std::time::Instant;

use futures::stream::{self, StreamExt};
use serde::Deserialize;

use super::super::lines::Lines;
use super::super::pins::Listing;
use super::super::query::Query;
use super::super::transport::Limit;
use super::super::{Client, parse_cid};
use super::PIECE_TIME;
use crate::backend::{Cause, Error};
use crate::{Cid, PinMode, Scrubbed};

/// Multicodec of raw blocks.
const RAW: u64 = 0x55;

/// Multihash code of blocks that are part of their CID.
const IDENTITY: u64 = 0;

/// Number of leaves that are looked up together.
const BATCH: usize = 256;

/// Number of lookups at once.
const LOOKUPS: usize = 16;

#[derive(Deserialize)]
struct RefLine {
    #[serde(rename = "Ref", default)]
    name: String,
    #[serde(rename = "Err", default)]
    error: String,
}

#[derive(Deserialize)]
struct Ignored {}

/// A pass over the leaves of all pins.
#[derive(Debug)]
pub(super) struct Leaves {
    client: Client,
    pins: Listing,
    /// Pin whose blocks are being listed.
    open: Option<(Cid, Lines)>,
    /// Number of pins whose check has begun.
    begun: u64,
}

impl Leaves {
    pub(super) fn new(client: &Client) -> Self {
        Self {
            client: client.clone(),
            pins: client.listing(),
            open: None,
            begun: 0,
        }
    }

    /// Checks for a short time; pins that lack leaves are unpinned and added to `found`. Returns the
    /// position, `None` at the end.
    ///
    /// # Errors
    /// The daemon cannot be reached, refuses, or ends an answer early.
    pub(super) async fn check(
        &mut self,
        start: Instant,
        found: &mut Scrubbed,
    ) -> Result<Option<String>, Error> {
        while start.elapsed() < PIECE_TIME {
            let (pin, leaves, lacks_inner) = match self.open.take() {
                Some((pin, lines)) => self.read(pin, lines).await?,
                None => {
                    let Some((pin, mode)) = self.pins.next().await? else {
                        return Ok(None);
                    };
                    self.begun += 1;
                    if mode == PinMode::Recursive && pin.codec() != RAW {
                        self.open = Some((pin, self.list(&pin).await?));
                        continue;
                    }
                    (pin, vec![pin], false)
                }
            };
            if lacks_inner || self.lacks(leaves).await? {
                self.open = None;
                tracing::error!("the pin {pin} lacks blocks at the kubo daemon; it is pinned again");
                self.client.unpin(&pin).await?;
                found.incomplete.push(pin);
            }
        }
        Ok(Some(format!("leaves of pin {}", self.begun)))
    }

    async fn list(&self, pin: &Cid) -> Result<Lines, Error> {
        let query = Query::new()
            .with("arg", pin.to_string())
            .with("recursive", "true")
            .with("unique", "true")
            .with("offline", "true");
        let limit = Limit::Idle(self.client.config.repo_gc_timeout);
        self.client.transport.lines("refs", query.as_str(), limit).await
    }

    /// Reads the next leaves of a pin, which stays open unless they are the last. Returns them with the pin,
    /// and whether a block is missing.
    async fn read(&mut self, pin: Cid, mut lines: Lines) -> Result<(Cid, Vec<Cid>, bool), Error> {
        let mut leaves = Vec::new();
        lines.progressed();
        while leaves.len() < BATCH {
            let Some(line) = lines.next::<RefLine>().await? else {
                return Ok((pin, leaves, false));
            };
            lines.progressed();
            if !line.error.is_empty() {
                let error = Error::from_message("refs", line.error);
                return if is_missing(&error) {
                    Ok((pin, Vec::new(), true))
                } else {
                    Err(error)
                };
            }
            let cid = parse_cid("refs", &line.name)?;
            if cid.codec() == RAW && cid.hash().code() != IDENTITY {
                leaves.push(cid);
            }
        }
        self.open = Some((pin, lines));
        Ok((pin, leaves, false))
    }

    /// Returns whether one of these blocks is not stored.
    async fn lacks(&self, leaves: Vec<Cid>) -> Result<bool, Error> {
        let client = &self.client;
        let lookups = leaves.into_iter().map(|leaf| async move {
            let query = Query::new().with("arg", leaf.to_string()).with("offline", "true");
            let limit = client.config.request_timeout;
            match client.transport.object("block/stat", query.as_str(), limit).await {
                Ok(Ignored {}) => Ok(false),
                Err(error) if is_missing(&error) => Ok(true),
                Err(error) => Err(error),
            }
        });
        let mut lookups = stream::iter(lookups).buffer_unordered(LOOKUPS);
        while let Some(is_missing) = lookups.next().await {
            if is_missing? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Returns whether an error says that a block is not stored: of one block, or of some below a node.
fn is_missing(error: &Error) -> bool {
    let texts = ["could not find", "failed to fetch all nodes"];
    error.cause() == Cause::Refused && texts.iter().any(|text| error.message().contains(text))
}
