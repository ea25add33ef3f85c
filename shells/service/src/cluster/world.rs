//! Interfaces of the operations to this peer's state machine and the network. The daemon implements them
//! with the real ones, tests in memory.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use cluster_api::BandwidthByProtocol;
use cluster_core::{Cid, Members, Metric, PeerId, Refusal, Reply, Request, Timestamp};
use futures::future::BoxFuture;

use crate::store::Reader;

/// This peer's state machine.
pub trait Core: Send + Sync + 'static {
    /// Submits a request, which is answered exactly once.
    fn request(&self, request: Request) -> BoxFuture<'static, Result<Reply, Refusal>>;
    /// Returns the members; `None` if this peer is shutting down.
    fn members(&self) -> BoxFuture<'static, Option<Members>>;
    /// Returns whether this peer leads or has a leader; `None` if this peer is shutting down.
    fn has_leader(&self) -> BoxFuture<'static, Option<bool>>;
    /// Returns the CIDs with an operation running at the IPFS node, with `true` for an unpin.
    fn running(&self) -> BoxFuture<'static, Option<Vec<(Cid, bool)>>>;
    /// Returns the names of all metrics.
    fn metric_names(&self) -> BoxFuture<'static, Option<Vec<String>>>;
    /// Returns the latest valid metric of each peer under a name.
    fn metrics(&self, name: &str) -> BoxFuture<'static, Option<Vec<Sample>>>;
    /// Returns the expired metrics, newest first.
    fn alerts(&self) -> BoxFuture<'static, Option<Vec<Alert>>>;
}

/// A metric of a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The peer that sent it.
    pub peer: PeerId,
    /// The metric.
    pub metric: Metric,
    /// Time of receipt.
    pub received_at: Timestamp,
}

/// A metric that expired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// Its last sample.
    pub sample: Sample,
    /// Time of expiry.
    pub triggered_at: Timestamp,
}

/// One end of a call: ordered chunks in both directions. Dropping it ends the call at the other end. The
/// errors are for people.
pub trait Channel: Send {
    /// Sends a chunk, when the other end has read enough of those before.
    fn send(&mut self, chunk: Bytes) -> BoxFuture<'_, Result<(), String>>;
    /// Sends a chunk that is split into pieces.
    fn send_pieces(&mut self, pieces: Vec<Bytes>) -> BoxFuture<'_, Result<(), String>> {
        self.send(pieces.concat().into())
    }
    /// Returns the next chunk; `None` after the other end has called [`Channel::finish`].
    fn next(&mut self) -> BoxFuture<'_, Option<Result<Bytes, String>>>;
    /// Ends this direction. The called peer reports an error of the call.
    fn finish(&mut self, outcome: Result<(), String>) -> BoxFuture<'_, Result<(), String>>;
}

/// The connections to the other peers.
pub trait Network: Send + Sync + 'static {
    /// Starts a call, which is answered by the peer's [`Cluster::serve_call`](super::Cluster::serve_call).
    /// With `upload`, chunks follow the request.
    fn call(
        &self,
        peer: &PeerId,
        request: Bytes,
        upload: bool,
    ) -> BoxFuture<'static, Result<Box<dyn Channel>, String>>;
    /// Prepares a peer for membership: stores its addresses, and makes it leave the cluster that it may
    /// have bootstrapped by itself, if that is empty. Fails if the peer cannot be reached or belongs to
    /// another cluster.
    fn introduce(&self, peer: &PeerId, addresses: Vec<String>) -> BoxFuture<'static, Result<(), String>>;
    /// Returns this peer's addresses, each ending in `/p2p/<id>`.
    fn addresses(&self) -> Vec<String>;
    /// Returns the known addresses of other peers, each ending in `/p2p/<id>`.
    fn peer_addresses(&self) -> Vec<String>;
    /// Returns the connected peers.
    fn connected(&self) -> Vec<PeerId>;
    /// Returns the bytes transferred so far, by protocol.
    fn bandwidth(&self) -> BandwidthByProtocol;
}

/// The interfaces of one peer.
#[derive(Clone)]
pub struct World {
    /// This peer's state machine.
    pub core: Arc<dyn Core>,
    /// This peer's database.
    pub reader: Reader,
    /// Its connections.
    pub network: Arc<dyn Network>,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("World")
    }
}
