//! Distribution of an upload's blocks to the peers that will hold them.

use std::sync::Arc;
use std::time::Duration;

use cluster_core::PeerId;
use cluster_ipfs::Block;
use cluster_ipfs::backend::{Cause, Error as IpfsError};
use futures::stream::{self, StreamExt};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::GcHold;
use crate::cluster::rpc::{self, Answer, blocks};
use crate::cluster::{Cluster, Error};
use crate::metrics;
use crate::net::CallError;

/// Approximate size of a frame of blocks: large compared to its overhead.
const FRAME_BYTES: usize = 1 << 20;
/// Maximum number of blocks in a frame.
const FRAME_BLOCKS: usize = 1024;
/// Maximum number of frames queued for one peer, so about as many MiB: how far a slower peer may fall behind.
const FRAMES_WAITING: usize = 8;
/// Time without progress after which a peer is given up. Writing 8 MiB takes a slow disk a second or two.
const STALL: Duration = Duration::from_secs(30);

type Group = Arc<[Block]>;

/// The transfers of one upload.
pub(super) struct Transfers {
    transfers: Vec<Transfer>,
    failures: Vec<String>,
    needed: usize,
}

struct Transfer {
    peer: PeerId,
    groups: mpsc::Sender<Group>,
    done: JoinHandle<Result<(), Error>>,
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.done.abort();
    }
}

impl Transfers {
    /// Starts the transfers. `needed` of the peers must store all blocks. `is_verified` means that the
    /// blocks come from an [`Adder`](cluster_ipfs::unixfs::Adder), so that their hashes need no check.
    pub(super) fn start(cluster: &Cluster, peers: Vec<PeerId>, needed: usize, is_verified: bool) -> Self {
        let needed = needed.min(peers.len()).max(1);
        let transfers = peers.into_iter().map(|peer| {
            let (groups, incoming) = mpsc::channel(FRAMES_WAITING);
            let cluster = cluster.clone();
            let to = peer.clone();
            let done = tokio::spawn(async move {
                if to == *cluster.peer() {
                    store(&cluster, incoming, is_verified).await
                } else {
                    send(&cluster, &to, incoming).await
                }
            });
            Transfer { peer, groups, done }
        });
        Self {
            transfers: transfers.collect(),
            failures: Vec::new(),
            needed,
        }
    }

    /// Sends the blocks to all peers as they arrive. After `complete` returns the peers that have stored
    /// all of them; if its sender is dropped, the upload was cancelled.
    ///
    /// # Errors
    /// Too few peers are left, or the upload was cancelled.
    pub(super) async fn run(
        mut self,
        mut blocks: mpsc::Receiver<Block>,
        complete: oneshot::Receiver<()>,
    ) -> Result<Vec<PeerId>, Error> {
        let mut group = Vec::new();
        let mut bytes = 0;
        while let Some(block) = blocks.recv().await {
            bytes += block.data.len();
            group.push(block);
            if bytes >= FRAME_BYTES || group.len() >= FRAME_BLOCKS {
                bytes = 0;
                self.send_to_all(std::mem::take(&mut group).into()).await?;
            }
        }
        if !group.is_empty() {
            self.send_to_all(group.into()).await?;
        }
        if complete.await.is_err() {
            return Err(Error::Peer("the upload was cancelled".to_owned()));
        }
        // An empty group marks the end.
        self.send_to_all(Vec::new().into()).await?;
        let mut holders = Vec::new();
        for mut transfer in std::mem::take(&mut self.transfers) {
            match (&mut transfer.done).await {
                Ok(Ok(())) => holders.push(transfer.peer.clone()),
                Ok(Err(error)) => self.failures.push(format!("{}: {error}", transfer.peer)),
                Err(_) => self.failures.push(format!("{}: stopped", transfer.peer)),
            }
        }
        self.check_left(holders.len())?;
        Ok(holders)
    }

    async fn send_to_all(&mut self, group: Group) -> Result<(), Error> {
        let mut at = 0;
        while at < self.transfers.len() {
            let sent = timeout(STALL, self.transfers[at].groups.send(group.clone())).await;
            if matches!(sent, Ok(Ok(()))) {
                at += 1;
                continue;
            }
            let mut transfer = self.transfers.remove(at);
            let why = match sent {
                Err(_) => format!("it accepted no blocks for {STALL:?}"),
                Ok(_) => match (&mut transfer.done).await {
                    Ok(Err(error)) => error.to_string(),
                    Ok(Ok(())) | Err(_) => "stopped".to_owned(),
                },
            };
            tracing::warn!(peer = %transfer.peer, %why, "an upload continues without a peer");
            self.failures.push(format!("{}: {why}", transfer.peer));
            self.check_left(self.transfers.len())?;
        }
        Ok(())
    }

    fn check_left(&self, left: usize) -> Result<(), Error> {
        if left >= self.needed {
            return Ok(());
        }
        let why = self.failures.join("; ");
        let needed = self.needed;
        Err(Error::Ipfs(format!(
            "{left} of the peers have the blocks, {needed} are needed, so nothing was pinned: {why}"
        )))
    }
}

/// Stores the blocks at this peer, without copying them.
async fn store(cluster: &Cluster, groups: mpsc::Receiver<Group>, is_verified: bool) -> Result<(), Error> {
    let given_up = || IpfsError::new(Cause::Cancelled, "block/put", "the upload was cancelled");
    let blocks = stream::unfold(Some(groups), move |groups| async move {
        let mut groups = groups?;
        match groups.recv().await {
            // The end marker.
            Some(group) if group.is_empty() => None,
            Some(group) => Some((group.iter().cloned().map(Ok).collect::<Vec<_>>(), Some(groups))),
            None => Some((vec![Err(given_up())], None)),
        }
    });
    let blocks = blocks.flat_map(stream::iter);
    let _hold = GcHold::new(&cluster.inner.backend);
    let backend = &cluster.inner.backend;
    if is_verified {
        metrics::block_put(backend.put_verified(blocks)).await?;
    } else {
        metrics::block_put(backend.put_blocks(blocks)).await?;
    }
    Ok(())
}

/// Sends the blocks to another peer, which stores them.
async fn send(cluster: &Cluster, peer: &PeerId, mut groups: mpsc::Receiver<Group>) -> Result<(), Error> {
    let (mut sender, mut call) = rpc::upload(&cluster.inner.net, peer).await?;
    let sending = async move {
        while let Some(group) = groups.recv().await {
            if group.is_empty() {
                sender.end().await?;
                return Ok(true);
            }
            sender.send_pieces(&blocks::encode(&group)).await?;
        }
        Ok::<_, CallError>(false)
    };
    let sent = sending.await;
    if let Ok(false) = sent {
        return Err(Error::Peer("the upload was cancelled".to_owned()));
    }
    // A peer that closes the call has probably sent an error before.
    let answer = rpc::next(&mut call, peer, cluster.inner.answer_timeout).await?;
    sent?;
    match answer {
        Some(Answer::Stored { .. }) => Ok(()),
        Some(_) | None => Err(rpc::unexpected(peer)),
    }
}
