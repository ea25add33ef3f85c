//! The three things that the operations stand on: this peer's state machine, its database, and the network.
//! The daemon binds them to the real ones, tests to small ones in memory.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use cluster_api::BandwidthByProtocol;
use cluster_core::{Cid, Local, Members, Metric, PeerId, Pin, Refusal, Reply, Request, Timestamp};
use futures::future::BoxFuture;

/// This peer's state machine.
pub trait Core: Send + Sync + 'static {
    /// One request, answered exactly once.
    fn request(&self, request: Request) -> BoxFuture<'static, Result<Reply, Refusal>>;
    /// Who belongs to the cluster; `None` when this peer is shutting down.
    fn members(&self) -> BoxFuture<'static, Option<Members>>;
    /// Whether this peer leads, or hears from who does.
    fn has_leader(&self) -> BoxFuture<'static, Option<bool>>;
    /// What runs at the IPFS node: the CIDs, with whether they are being unpinned.
    fn running(&self) -> BoxFuture<'static, Option<Vec<(Cid, bool)>>>;
    /// The names under which there are metrics.
    fn metric_names(&self) -> BoxFuture<'static, Option<Vec<String>>>;
    /// The latest valid metric of each peer under a name.
    fn metrics(&self, name: &str) -> BoxFuture<'static, Option<Vec<Sample>>>;
    /// Metrics that ran out, newest first.
    fn alerts(&self) -> BoxFuture<'static, Option<Vec<Alert>>>;
}

/// A metric with whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Whose.
    pub peer: PeerId,
    /// What.
    pub metric: Metric,
    /// When it came.
    pub received_at: Timestamp,
}

/// A metric that was not renewed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// The last that came.
    pub sample: Sample,
    /// When it was missed.
    pub triggered_at: Timestamp,
}

/// This peer's database. Reads block the thread for as long as the disk takes.
pub trait Store: Send + Sync + 'static {
    /// The pin of a CID.
    fn pin(&self, cid: &Cid) -> Result<Option<Pin>, StoreError>;
    /// The local state of a CID.
    fn local(&self, cid: &Cid) -> Result<Option<Local>, StoreError>;
    /// Everything as it is now, however long it is read.
    fn snapshot(&self) -> Arc<dyn Snapshot>;
}

/// The database as it was at one moment.
pub trait Snapshot: Send + Sync + 'static {
    /// Up to `limit` pins after `after`, in CID order.
    fn pins(&self, after: Option<&Cid>, limit: usize) -> Result<Vec<Pin>, StoreError>;
    /// Up to `limit` local states after `after`, in CID order.
    fn locals(&self, after: Option<&Cid>, limit: usize) -> Result<Vec<(Cid, Local)>, StoreError>;
}

/// Why the database could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the database cannot be read: {0}")]
pub struct StoreError(pub String);

/// One call, from either side: chunks in both directions, in order. Dropping it ends the call at the other
/// side. The errors are for people.
pub trait Channel: Send {
    /// Sends a chunk, as soon as the other side has taken enough of those before.
    fn send(&mut self, chunk: Bytes) -> BoxFuture<'_, Result<(), String>>;
    /// As [`Channel::send`], for a chunk in pieces.
    fn send_pieces(&mut self, pieces: Vec<Bytes>) -> BoxFuture<'_, Result<(), String>> {
        self.send(pieces.concat().into())
    }
    /// The next chunk; `None` when the other side has said that this was all.
    fn next(&mut self) -> BoxFuture<'_, Option<Result<Bytes, String>>>;
    /// Says that all is sent, or, from the side that was called, why the call failed.
    fn finish(&mut self, outcome: Result<(), String>) -> BoxFuture<'_, Result<(), String>>;
}

/// The other peers.
pub trait Network: Send + Sync + 'static {
    /// Starts a call, which reaches the peer's [`Cluster::serve_call`](super::Cluster::serve_call). With
    /// `upload`, chunks follow the request.
    fn call(
        &self,
        peer: &PeerId,
        request: Bytes,
        upload: bool,
    ) -> BoxFuture<'static, Result<Box<dyn Channel>, String>>;
    /// Makes it possible that a peer becomes a member: takes note of where it is, and has it give up the
    /// cluster that it may have founded by itself, as long as that is empty. A peer that is not there may
    /// come later. The error says that it belongs to another cluster.
    fn introduce(&self, peer: &PeerId, addresses: Vec<String>) -> BoxFuture<'static, Result<(), String>>;
    /// Where this peer listens, each address ending in `/p2p/<id>`.
    fn addresses(&self) -> Vec<String>;
    /// Where the others are known to be, each address ending in `/p2p/<id>`.
    fn peer_addresses(&self) -> Vec<String>;
    /// Who is connected now.
    fn connected(&self) -> Vec<PeerId>;
    /// What has been carried so far.
    fn bandwidth(&self) -> BandwidthByProtocol;
}

/// All three.
#[derive(Clone)]
pub struct World {
    /// The state machine.
    pub core: Arc<dyn Core>,
    /// The database.
    pub store: Arc<dyn Store>,
    /// The network.
    pub network: Arc<dyn Network>,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("World")
    }
}
