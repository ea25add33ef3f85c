//! [`Backend`](super::Backend) calls on the embedded node.

use std::time::Duration;

use crate::Cid;
use bytes::Bytes;
use futures::future::join_all;
use futures::stream::{BoxStream, FuturesUnordered, Stream, StreamExt, TryStreamExt};
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use tokio::time::timeout;

use super::{Cause, Collected, Error, Identity, PinRequest, PinState, RepoStat, Stored};
use crate::steps::Recorder;
use crate::unixfs::Name;
use crate::{Block, Node, PinFilter, PinMode, Progress};

/// Time limit of calls that answer at once or wait for other peers; the default of Kubo's
/// `ipfs_request_timeout`.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// Origins dialled for one pin.
const ORIGINS_MAX: usize = 10;

/// Bytes of one group of blocks, which are checked and stored together: one database write per group.
const GROUP_BYTES: usize = 2 * 1024 * 1024;

/// Concurrent groups of one call: one is checked while another is written and a third is received.
const GROUPS: usize = 3;

/// Blocks of one group; more gain nothing.
const GROUP_BLOCKS: usize = 1024;

impl Error {
    /// Wraps an error of the embedded node, under Kubo's name of the request.
    pub(crate) fn embedded(request: &str, error: crate::Error) -> Self {
        let cause = match &error {
            crate::Error::Full { .. } => Cause::StorageFull,
            crate::Error::Closed => Cause::Cancelled,
            crate::Error::Store(_) | crate::Error::Io { .. } | crate::Error::Locked(_) => Cause::Unreachable,
            crate::Error::Dial { .. } | crate::Error::NotConnected(_) | crate::Error::NoConnection(_) => {
                Cause::Unreachable
            }
            crate::Error::NotFound(_)
            | crate::Error::Damaged(_)
            | crate::Error::DamagedBlock { .. }
            | crate::Error::Mismatch(_)
            | crate::Error::TooLarge { .. }
            | crate::Error::UnsupportedHash(_)
            | crate::Error::NotPinned(_)
            | crate::Error::Pinned { .. }
            | crate::Error::Invalid(_)
            | crate::Error::Unsupported(_)
            | crate::Error::Malformed { .. }
            | crate::Error::NoLink { .. }
            | crate::Error::NoName(_)
            | crate::Error::NameLookup(_)
            | crate::Error::IsDirectory
            | crate::Error::TooMuchMemory { .. }
            | crate::Error::Busy(_) => Cause::Refused,
        };
        Error::new(cause, request, error.to_string())
    }
}

async fn limited<T>(request: &str, call: impl Future<Output = Result<T, crate::Error>>) -> Result<T, Error> {
    match timeout(REQUEST_TIMEOUT, call).await {
        Ok(done) => done.map_err(|error| Error::embedded(request, error)),
        Err(_) => {
            let message = format!("no answer within {REQUEST_TIMEOUT:?}");
            Err(Error::new(Cause::TimedOut, request, message))
        }
    }
}

pub(super) fn id(node: &Node) -> Identity {
    let id = node.id();
    Identity {
        id: id.peer_id,
        addresses: id.addresses,
        agent: id.agent_version,
    }
}

pub(super) async fn pin(
    node: &Node,
    pin: &PinRequest,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<(), Error> {
    let recorder = Recorder::current();
    let connect = async {
        let origins = pin.origins.iter().take(ORIGINS_MAX);
        join_all(origins.map(async |origin| {
            let step = recorder.begin("swarm.dial");
            step.set_text("ipfs.peer", &peer_of(origin));
            step.end_with(node.connect(origin.clone()).await)
        }))
        .await;
        std::future::pending::<std::convert::Infallible>().await
    };
    // `update_from` is not needed: the walk does not fetch blocks that are stored already.
    let add = node.pin(pin.cid, pin.mode, pin.name.clone(), progress);
    tokio::select! {
        // Recording an already complete pin ends at once, without dialling.
        biased;
        done = add => done.map_err(|error| Error::embedded("pin/add", error)),
        never = connect => match never {},
    }
}

/// Returns the peer id of an address as text; empty without one.
fn peer_of(address: &Multiaddr) -> String {
    match address.iter().last() {
        Some(Protocol::P2p(peer)) => peer.to_string(),
        _ => String::new(),
    }
}

pub(super) async fn unpin(node: &Node, cid: &Cid) -> Result<(), Error> {
    match node.unpin(cid).await {
        Ok(PinMode::Recursive | PinMode::Direct) | Err(crate::Error::NotPinned(_)) => Ok(()),
        Err(error) => Err(Error::embedded("pin/rm", error)),
    }
}

pub(super) fn pin_state(node: &Node, cid: &Cid) -> Result<PinState, Error> {
    let held = node
        .pin_of(cid)
        .map_err(|error| Error::embedded("pin/ls", error))?;
    // An incomplete pin is reported as unpinned, so that it is pinned again, which fetches the blocks.
    let whole = held.filter(|held| !node.is_broken(&held.cid));
    Ok(whole.map_or(PinState::Unpinned, |held| PinState::Pinned(held.mode)))
}

pub(super) async fn verify_pin(node: &Node, cid: &Cid) -> Result<u64, Error> {
    let verified = node.verify_pin(cid).await;
    verified.map_err(|error| Error::embedded("pin/verify", error))
}

pub(super) fn pins(node: &Node) -> BoxStream<'static, Result<(Cid, PinMode), Error>> {
    let (listed, node) = (node.pins(PinFilter::default()), node.clone());
    listed
        .filter(move |pin| {
            let broken = pin.as_ref().is_ok_and(|pin| node.is_broken(&pin.cid));
            std::future::ready(!broken)
        })
        .map(|pin| match pin {
            Ok(pin) => Ok((pin.cid, pin.mode)),
            Err(error) => Err(Error::embedded("pin/ls", error)),
        })
        .boxed()
}

pub(super) fn repo_stat(node: &Node) -> Result<RepoStat, Error> {
    let stat = node.stat().map_err(|error| Error::embedded("repo/stat", error))?;
    Ok(RepoStat {
        size: stat.repo_size,
        storage_max: stat.storage_fits,
    })
}

pub(super) fn repo_objects(node: &Node) -> Result<u64, Error> {
    let stat = node.stat().map_err(|error| Error::embedded("repo/stat", error))?;
    Ok(stat.num_objects)
}

pub(super) fn repo_gc(node: &Node) -> BoxStream<'static, Result<Collected, Error>> {
    node.gc()
        .map_ok(|step| match step {
            crate::Collected::Removed(cid) => Collected::Removed(cid),
            crate::Collected::Freed { bytes } => Collected::Freed(bytes),
        })
        .map_err(|error| Error::embedded("repo/gc", error))
        .boxed()
}

pub(super) async fn resolve(node: &Node, path: &Name) -> Result<Cid, Error> {
    let path = limited("resolve", node.resolve_names(path)).await?;
    if path.segments.is_empty() {
        return Ok(path.root);
    }
    limited("resolve", node.resolve(&path))
        .await
        .map(|resolved| resolved.cid)
}

/// Source of blocks to store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BlockSource {
    /// An adder of this process, which computed their CIDs.
    Adder,
    /// Any other source; blocks must be verified.
    Untrusted,
}

pub(super) async fn put_blocks(
    node: &Node,
    blocks: impl Stream<Item = Result<Block, Error>> + Send,
    source: BlockSource,
) -> Result<Stored, Error> {
    let mut blocks = std::pin::pin!(blocks);
    let mut stored = Stored::default();
    let mut group = Vec::new();
    let mut group_bytes = 0;
    let mut writes = FuturesUnordered::new();
    loop {
        let next = tokio::select! {
            biased;
            Some(written) = writes.next() => {
                let () = written?;
                continue;
            }
            next = blocks.try_next(), if writes.len() < GROUPS => next?,
        };
        let last = next.is_none();
        if let Some(block) = next {
            stored.blocks += 1;
            stored.bytes += block.data.len() as u64;
            group_bytes += block.data.len();
            group.push(block);
        }
        if group_bytes >= GROUP_BYTES || group.len() >= GROUP_BLOCKS || (last && !group.is_empty()) {
            writes.push(put_group(node, std::mem::take(&mut group), source));
            group_bytes = 0;
        }
        if last {
            break;
        }
    }
    while let Some(written) = writes.next().await {
        written?;
    }
    node.sync()
        .await
        .map_err(|error| Error::embedded("block/put", error))?;
    Ok(stored)
}

async fn put_group(node: &Node, group: Vec<Block>, source: BlockSource) -> Result<(), Error> {
    let put = match source {
        BlockSource::Adder => node.put_verified(group).await,
        BlockSource::Untrusted => node.put_many(group).await,
    };
    put.map_err(|error| Error::embedded("block/put", error))
}

pub(super) async fn get_block(node: &Node, cid: &Cid) -> Result<Bytes, Error> {
    limited("block/get", node.get(*cid)).await
}

pub(super) async fn connect(node: &Node, address: &Multiaddr) -> Result<(), Error> {
    limited("swarm/connect", node.connect(address.clone())).await
}
