//! The network between peers: libp2p over TCP, encrypted, among peers that share a secret. Three protocols,
//! each on its own streams: the core's messages (one long-lived stream in each direction), calls (one
//! stream each), and snapshots (one stream each). Payloads are opaque here: the driver and `cluster`
//! interpret them.

mod accept;
mod address_book;
mod admission;
mod announce;
mod dial;
mod error;
mod events;
mod frame;
mod hello;
mod inbox;
mod links;
mod losses;
mod outbox;
mod rpc;
mod shared;
mod snapshot;
mod start;
mod streams;
mod swarm;
#[cfg(test)]
mod tests;
mod traffic;
mod transport;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cluster_core::{ClusterId, Envelope, PeerId};
use libp2p::multiaddr::Protocol;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use error::{CallError, SnapshotError, StartError};
pub use events::{CoreEvent, CoreEvents, NetEvents};
pub use libp2p::Multiaddr;
pub use libp2p::identity::Keypair;
pub use losses::Losses;
pub use rpc::{
    Body, CHUNK_MAX, Call, CallSender, Deadline, Incoming, REQUEST_MAX, Responder, STRANGER_REQUEST_MAX,
    decode_value, encode_within,
};
pub use snapshot::{IncomingSnapshot, SNAPSHOT_CHUNK_MAX, SnapshotHeader};
pub use traffic::Traffic;

use shared::Shared;
use swarm::Command;

/// Maximum number of secrets that may be accepted besides a peer's own.
pub const ACCEPTED_SECRETS_MAX: usize = hello::SECRETS_MAX - 1;

/// Maximum wait of [`Net::shutdown`] for the network's tasks to end.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// Settings of the network.
#[derive(Clone)]
pub struct NetConfig {
    /// This peer's identity, Ed25519 or RSA.
    pub keypair: Keypair,
    /// The cluster's secret: connections from peers without it are refused before Noise.
    pub secret: Option<[u8; 32]>,
    /// Further secrets with which others may connect, and with which this peer connects to those that do
    /// not know the one above. At most [`ACCEPTED_SECRETS_MAX`] are used.
    pub accepted_secrets: Vec<Option<[u8; 32]>>,
    /// TCP addresses to listen on; QUIC addresses are skipped with a warning.
    pub listen: Vec<Multiaddr>,
    /// Addresses to announce instead of those listened on, if not empty.
    pub announce: Vec<Multiaddr>,
    /// Addresses never to announce, whether listened on or in `announce`.
    pub no_announce: Vec<Multiaddr>,
    /// Highest protocol version that this peer reads, and announces.
    pub version: u8,
    /// Cluster whose peers to talk to; [`ClusterId::UNKNOWN`] for none until [`Net::set_cluster`].
    pub cluster: ClusterId,
    /// Addresses from the peerstore file and the configuration.
    pub known_peers: BTreeMap<PeerId, Vec<Multiaddr>>,
    /// Methods open to non-members, such as joining. Their callers may even believe to be in another
    /// cluster.
    pub open_methods: BTreeSet<String>,
}

impl fmt::Debug for NetConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            keypair,
            secret,
            accepted_secrets,
            listen,
            announce,
            no_announce,
            version,
            cluster,
            known_peers,
            open_methods,
        } = self;
        f.debug_struct("NetConfig")
            .field("peer", &keypair.public().to_peer_id())
            .field("secret", &secret.map(|_| "…"))
            .field("accepted_secrets", &accepted_secrets.len())
            .field("listen", listen)
            .field("announce", announce)
            .field("no_announce", no_announce)
            .field("version", version)
            .field("cluster", cluster)
            .field("known_peers", known_peers)
            .field("open_methods", open_methods)
            .finish()
    }
}

/// Handle to the running network, cheap to clone.
#[derive(Clone)]
pub struct Net {
    shared: Arc<Shared>,
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Net").field(&self.shared.me).finish()
    }
}

impl Net {
    /// Starts listening and runs on the current tokio runtime until [`Net::shutdown`]. There are no members
    /// yet.
    ///
    /// # Errors
    /// [`StartError`] when no configured address can be listened on, or the identity or the resolver cannot
    /// be used.
    pub async fn start(config: NetConfig) -> Result<(Self, NetEvents), StartError> {
        start::start(config).await
    }

    /// Returns this peer's id.
    pub fn peer_id(&self) -> &PeerId {
        &self.shared.me
    }

    /// Sends a message, best effort and without waiting: without a connection, or when its queue is full,
    /// [`CoreEvent::Unreachable`] follows.
    pub fn send(&self, to: &PeerId, envelope: &Envelope) {
        outbox::send(&self.shared, to, envelope);
    }

    /// Replaces the set of members. Members are kept connected, and only they may send messages and
    /// snapshots and call methods that are not open. A peer that has just joined must know some members
    /// here before their messages are accepted.
    pub async fn set_members(&self, members: BTreeSet<PeerId>) {
        let members = Arc::new(members);
        self.shared.members.send_replace(Arc::clone(&members));
        // Fails only after a shutdown.
        drop(self.shared.commands.send(Command::Members(members)).await);
    }

    /// Sets the cluster that this peer belongs to, once it has joined one. Open streams stay open.
    pub fn set_cluster(&self, cluster: ClusterId) {
        *self.shared.cluster.write().expect("no panic while locked") = cluster;
    }

    /// Raises the protocol version that all members read; peers that do not read it are refused from here
    /// on. Returns `false` if it was as high already.
    pub fn set_version(&self, version: u8) -> bool {
        self.shared
            .version
            .fetch_max(version, std::sync::atomic::Ordering::Relaxed)
            < version
    }

    /// Counts and logs a call of an open method by a non-member that got nothing from it.
    pub fn note_refused_call(&self, from: &PeerId) {
        if let Some(why) = self.shared.reason_to_refuse(from, &self.shared.origin()) {
            self.shared.note_refusal(from, "discovery", &why);
        }
    }

    /// Returns the cluster that this peer belongs to; [`ClusterId::UNKNOWN`] until it has joined one.
    pub fn cluster(&self) -> ClusterId {
        self.shared.cluster()
    }

    /// Returns the last failure to reach a member or to have it accept this peer's messages; `None` after a
    /// success.
    pub fn last_failure(&self, peer: &PeerId) -> Option<String> {
        let failures = self.shared.failures.lock().expect("no panic while locked");
        failures.get(peer).cloned()
    }

    /// Adds addresses of a peer; a member that is not connected is dialled there at once.
    pub async fn add_addresses(&self, peer: &PeerId, addresses: Vec<Multiaddr>) {
        let changed = self
            .shared
            .book
            .lock()
            .expect("no panic while locked")
            .add(peer, addresses);
        if changed {
            self.shared.book_changes.send_modify(|change| *change += 1);
            drop(
                self.shared
                    .commands
                    .send(Command::AddressesAdded(peer.clone()))
                    .await,
            );
        }
    }

    /// Forgets the addresses of a peer, which need not exist.
    pub fn forget_addresses(&self, peer: &PeerId) {
        self.shared
            .book
            .lock()
            .expect("no panic while locked")
            .remove(peer);
    }

    /// Returns the announced addresses of this peer, each with its `/p2p/…`.
    pub fn addresses(&self) -> Vec<Multiaddr> {
        let listening = self.shared.listening.read().expect("no panic while locked");
        let own = self.shared.announce.addresses(&listening);
        own.into_iter()
            .map(|address| with_peer(address, &self.shared.me))
            .collect()
    }

    /// Returns the connected peers, members or not.
    pub fn connected(&self) -> BTreeSet<PeerId> {
        self.shared.links.peers()
    }

    /// Returns the known addresses of a peer, those it announced itself first. Without `/p2p/…`.
    pub fn known_addresses(&self, peer: &PeerId) -> Vec<Multiaddr> {
        self.shared
            .book
            .lock()
            .expect("no panic while locked")
            .addresses(peer)
    }

    /// Returns the known addresses of all peers, each with its `/p2p/…`.
    pub fn peerstore(&self) -> BTreeMap<PeerId, Vec<Multiaddr>> {
        let mut all = self.shared.book.lock().expect("no panic while locked").all();
        for (peer, addresses) in &mut all {
            *addresses = addresses
                .drain(..)
                .map(|address| with_peer(address, peer))
                .collect();
        }
        all
    }

    /// Bytes moved, by protocol.
    pub fn traffic(&self) -> Vec<(&'static str, Traffic)> {
        self.shared.meters.read()
    }

    /// Counts of messages, streams and connections refused or lost since the start.
    pub fn losses(&self) -> Losses {
        self.shared.losses.read()
    }

    /// Calls a method, after dialling the peer if it is not connected.
    ///
    /// # Errors
    /// [`CallError`] when the peer cannot be reached, refuses the call, or does not answer in time.
    pub async fn call(
        &self,
        peer: &PeerId,
        method: &str,
        request: &[u8],
        deadline: Deadline,
    ) -> Result<Call, CallError> {
        let opened = rpc::open(&self.shared, peer, method, request, deadline, false).await?;
        Ok(opened.1)
    }

    /// Calls a method that takes an upload besides its request. Chunks and answers flow independently: a
    /// method that answers during the upload needs its answers read.
    ///
    /// # Errors
    /// As [`Net::call`].
    pub async fn upload(
        &self,
        peer: &PeerId,
        method: &str,
        request: &[u8],
        deadline: Deadline,
    ) -> Result<(CallSender, Call), CallError> {
        match rpc::open(&self.shared, peer, method, request, deadline, true).await? {
            (Some(sender), call) => Ok((sender, call)),
            (None, _) => Err(CallError::Invalid(format!("{method} accepts no upload"))),
        }
    }

    /// Calls a method that takes one value and returns one.
    ///
    /// # Errors
    /// As [`Net::call`], and [`CallError::Invalid`] when the request is longer than [`REQUEST_MAX`] or the
    /// answer cannot be decoded.
    pub async fn ask<Q: Serialize, A: DeserializeOwned>(
        &self,
        peer: &PeerId,
        method: &str,
        question: &Q,
        deadline: Deadline,
    ) -> Result<A, CallError> {
        let request = encode_within(question, REQUEST_MAX)?;
        decode_value(&self.call(peer, method, &request, deadline).await?.only().await?)
    }

    /// Sends a snapshot: its header, and its pins in chunks of at most [`SNAPSHOT_CHUNK_MAX`] bytes.
    /// Returns when the receiver has confirmed that it has staged all of it.
    ///
    /// # Errors
    /// [`SnapshotError`] when the peer cannot be reached, rejects it, or the transfer breaks off, and when
    /// `chunks` fails.
    pub async fn send_snapshot<E: Display>(
        &self,
        to: &PeerId,
        header: SnapshotHeader,
        chunks: impl futures::Stream<Item = Result<Bytes, E>> + Send,
    ) -> Result<(), SnapshotError> {
        snapshot::send(&self.shared, to, header, chunks).await
    }

    /// Closes all connections and ends all tasks. Requests in progress fail.
    pub async fn shutdown(&self) {
        self.shared.stop.cancel();
        self.shared.tasks.close();
        if tokio::time::timeout(SHUTDOWN_TIMEOUT, self.shared.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!("some of the network's tasks did not end within {SHUTDOWN_TIMEOUT:?}");
        }
    }
}

/// Converts libp2p's peer id to the core's.
fn peer_id_of(id: &libp2p::PeerId) -> PeerId {
    PeerId::from_bytes(&id.to_bytes()).expect("libp2p's peer ids are multihashes of at most 44 bytes")
}

/// Converts the core's peer id to libp2p's; `None` if it is no valid multihash.
fn libp2p_id_of(peer: &PeerId) -> Option<libp2p::PeerId> {
    libp2p::PeerId::from_bytes(peer.as_bytes()).ok()
}

fn with_peer(address: Multiaddr, peer: &PeerId) -> Multiaddr {
    let address = address_book::without_peer(address);
    match libp2p_id_of(peer) {
        Some(id) => address.with(Protocol::P2p(id)),
        None => address,
    }
}
