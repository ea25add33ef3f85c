//! The libp2p swarm of the node: listening, dialling, connections and redialling, the DHTs.
//!
//! One task drives the swarm ([`task`]). [`Network`] is its handle: commands go to the task by a channel, and
//! what it observes is shared in `SharedView`. Bitswap itself is in [`crate::bitswap`]; here it is one
//! behaviour of the swarm. What is looked up in the DHT, and when, is decided by [`crate::routing`].

pub(crate) mod addresses;
mod admission;
mod announced;
mod behaviour;
mod delegation;
pub(crate) mod dht;
mod dial_back;
mod dial_limits;
mod hole_punching;
mod identify;
mod identity;
mod kept_peers;
mod known_servers;
mod muxer;
mod peer_budget;
mod port_mapping;
mod reachability;
mod security;
mod task;
mod traffic;
mod trimming;

pub(crate) use identity::{load_or_create, save_private};
pub(crate) use peer_budget::{Account, Charge, Pool};
pub use traffic::TrafficStat;

use crate::bitswap::{Bitswap, PROTOCOLS};
use crate::settings::PublicNetwork;
use crate::store::lock;
use crate::{ConnectedPeer, Error, Identity};
use addresses::{Reach, Scope, ip_of, reach_of_ip};
use dht::{Lookup, StoredRecords};
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use task::Task;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use traffic::Traffic;

/// Start of the agent version of every release of the embedded node.
pub const AGENT_NAME: &str = "cluster-ipfs/";

/// Agent version that the embedded node announces.
pub const AGENT: &str = concat!("cluster-ipfs/", env!("CARGO_PKG_VERSION"));

/// Capacity of the queue of commands to the swarm.
const COMMANDS: usize = 256;
/// Time limit of a dial by [`crate::Node::connect`].
const DIAL_TIMEOUT: Duration = Duration::from_secs(30);

type Done = oneshot::Sender<Result<(), Error>>;

enum Command {
    Connect(PeerId, Multiaddr, Done),
    Keep(PeerId, Vec<Multiaddr>),
    /// Closes all connections with the peer; with an address, only if one of them is with that address.
    Disconnect(PeerId, Option<Multiaddr>, Done),
    /// Dials a peer that is not kept, at these addresses only.
    Dial(PeerId, Vec<Multiaddr>, Done),
    /// Starts a lookup in the DHTs.
    Find(Lookup, Done),
    /// Stores a valid value among the records that this node serves.
    StoreValue(Vec<u8>, Vec<u8>),
    /// Stops keeping a peer, and leaves its connections open.
    Release(PeerId),
    /// Replaces the bootstrap peers through which the DHTs are joined.
    Bootstrap(Vec<Multiaddr>),
    /// Lists the peers in the routing tables.
    Tables(oneshot::Sender<Vec<RoutingTable>>),
}

/// Protocol of a DHT, and the peers in its routing table.
pub(crate) type RoutingTable = (&'static str, Vec<PeerId>);

/// State of one DHT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DhtState {
    /// Protocol: `/ipfs/kad/1.0.0` of the public DHT, or `/ipfs/lan/kad/1.0.0` of the local one.
    pub protocol: &'static str,
    /// True for the public DHT.
    pub is_public: bool,
    /// Number of peers in the routing table.
    pub peers: usize,
    /// True if the requests of others are served.
    pub is_server: bool,
    /// Number of provider records stored for others.
    pub provider_records: usize,
    /// Number of values stored for others.
    pub value_records: usize,
}

/// State of the network that is visible outside its task.
#[derive(Debug, Default)]
struct SharedView {
    listening: Vec<Multiaddr>,
    /// Addresses confirmed to be reachable from outside, and relayed ones.
    external: Vec<Multiaddr>,
    peers: BTreeMap<PeerId, ConnectedPeer>,
    /// Identify messages of connected peers; the protocol limits a message to a few KiB.
    identified: HashMap<PeerId, Identity>,
    /// State of each DHT that is in use.
    dhts: Vec<DhtState>,
}

/// Handle of the network's task.
pub(crate) struct Network {
    commands: mpsc::Sender<Command>,
    shared: Arc<Mutex<SharedView>>,
    settings: Arc<PublicNetwork>,
    /// Scope of the addresses of the local DHT.
    local_scope: Scope,
    streams: libp2p_stream::Control,
    pub(crate) bitswap: Bitswap,
    traffic: Arc<Traffic>,
}

/// Settings of the network.
pub(crate) struct Setup {
    pub(crate) keypair: Keypair,
    pub(crate) listen: Vec<Multiaddr>,
    pub(crate) settings: Arc<PublicNetwork>,
    /// Folder in which known DHT servers are saved.
    pub(crate) folder: PathBuf,
    /// Peers through which the DHTs are joined.
    pub(crate) bootstrap: Vec<Multiaddr>,
    /// Records that other peers have stored here.
    pub(crate) records: StoredRecords,
    pub(crate) traffic: Arc<Traffic>,
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Network")
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}

impl Network {
    /// Starts listening and the task, which ends when the token is cancelled.
    pub(crate) async fn start(
        setup: Setup,
        store: crate::store::Store,
        closed: CancellationToken,
    ) -> Result<Network, Error> {
        let (open, opening) = mpsc::channel(COMMANDS);
        let pool = Arc::new(Pool::default());
        let bitswap = Bitswap::start(store, pool.clone(), open, closed.clone());
        let settings = setup.settings.clone();
        // Their ports may not be known yet.
        let is_loopback = |address: &Multiaddr| ip_of(address).map(reach_of_ip) == Some(Reach::Loopback);
        let local_scope = match !setup.listen.is_empty() && setup.listen.iter().all(is_loopback) {
            true => Scope::Machine,
            false => Scope::Local,
        };
        let shared: Arc<Mutex<SharedView>> = Arc::default();
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let (listen, traffic) = (setup.listen.clone(), setup.traffic.clone());
        let mut task = Task::new(bitswap.clone(), pool, shared.clone(), setup, local_scope)?;
        let streams = task.streams();
        task.await_listeners(&listen).await?;
        tokio::spawn(closed.clone().run_until_cancelled_owned(measure(traffic.clone())));
        tokio::spawn(closed.run_until_cancelled_owned(task.run(receiver, opening)));
        Ok(Network {
            commands,
            shared,
            settings,
            local_scope,
            streams,
            bitswap,
            traffic,
        })
    }

    /// Returns the bytes that the connections carried.
    pub(crate) fn traffic(&self) -> TrafficStat {
        self.traffic.stat()
    }

    /// Returns the bytes that the connections with a peer carried.
    pub(crate) fn traffic_of(&self, peer: &PeerId) -> TrafficStat {
        self.traffic.stat_of(peer)
    }

    pub(crate) fn listening(&self) -> Vec<Multiaddr> {
        lock(&self.shared).listening.clone()
    }

    pub(crate) fn peers(&self) -> Vec<ConnectedPeer> {
        let shared = lock(&self.shared);
        let peer = |peer: &ConnectedPeer| ConnectedPeer {
            agent_version: shared
                .identified
                .get(&peer.peer_id)
                .map(|identity| identity.agent_version.clone()),
            ..peer.clone()
        };
        shared.peers.values().map(peer).collect()
    }

    pub(crate) fn is_connected(&self, peer: &PeerId) -> bool {
        lock(&self.shared).peers.contains_key(peer)
    }

    /// Returns the identify message of a connected peer, once received.
    pub(crate) fn identified(&self, peer: &PeerId) -> Option<Identity> {
        lock(&self.shared).identified.get(peer).cloned()
    }

    pub(crate) async fn connect(&self, address: Multiaddr) -> Result<(), Error> {
        let (peer, address) = split(address)?;
        let asked = self.ask(|done| Command::Connect(peer, address, done));
        match tokio::time::timeout(DIAL_TIMEOUT, asked).await {
            Ok(result) => result,
            Err(_) => Err(Error::Dial {
                peer,
                why: format!("no answer in {DIAL_TIMEOUT:?}"),
            }),
        }
    }

    pub(crate) async fn disconnect(&self, peer: PeerId, address: Option<Multiaddr>) -> Result<(), Error> {
        self.ask(|done| Command::Disconnect(peer, address, done)).await
    }

    pub(crate) async fn keep(&self, peer: PeerId, addresses: Vec<Multiaddr>) -> Result<(), Error> {
        self.commands
            .send(Command::Keep(peer, addresses))
            .await
            .map_err(|_| Error::Closed)
    }

    /// Returns the addresses that are announced to peers of a scope.
    pub(crate) fn announced(&self, scope: Scope) -> Vec<Multiaddr> {
        let shared = lock(&self.shared);
        announced::announced(&self.settings, &shared.listening, &shared.external, scope)
    }

    /// Returns the addresses confirmed to be reachable from outside, and relayed ones.
    pub(crate) fn external(&self) -> Vec<Multiaddr> {
        lock(&self.shared).external.clone()
    }

    /// Returns the scope of the local DHT.
    pub(crate) fn local_scope(&self) -> Scope {
        self.local_scope
    }

    /// Returns the state of each DHT that is in use, the public one first.
    pub(crate) fn dhts(&self) -> Vec<DhtState> {
        lock(&self.shared).dhts.clone()
    }

    /// Returns a handle that opens streams to peers.
    pub(crate) fn streams(&self) -> libp2p_stream::Control {
        self.streams.clone()
    }

    /// Connects to a peer at these addresses, without keeping the connection.
    pub(crate) async fn dial(&self, peer: PeerId, addresses: Vec<Multiaddr>) -> Result<(), Error> {
        self.ask(|done| Command::Dial(peer, addresses, done)).await
    }

    /// Starts a lookup in the DHTs that are in use.
    pub(crate) async fn find(&self, lookup: Lookup) -> Result<(), Error> {
        self.ask(|done| Command::Find(lookup, done)).await
    }

    /// Stores a valid value among the records that this node serves.
    pub(crate) async fn store_value(&self, key: Vec<u8>, value: Vec<u8>) -> Result<(), Error> {
        let sent = self.commands.send(Command::StoreValue(key, value)).await;
        sent.map_err(|_| Error::Closed)
    }

    /// Stops keeping a peer, and leaves its connections open.
    pub(crate) async fn release(&self, peer: PeerId) -> Result<(), Error> {
        let sent = self.commands.send(Command::Release(peer)).await;
        sent.map_err(|_| Error::Closed)
    }

    /// Replaces the bootstrap peers.
    pub(crate) async fn use_bootstrap(&self, peers: Vec<Multiaddr>) -> Result<(), Error> {
        let sent = self.commands.send(Command::Bootstrap(peers)).await;
        sent.map_err(|_| Error::Closed)
    }

    /// Returns the peers in the routing table of each DHT, the public one first.
    pub(crate) async fn routing_tables(&self) -> Result<Vec<RoutingTable>, Error> {
        let (done, tables) = oneshot::channel();
        let sent = self.commands.send(Command::Tables(done)).await;
        sent.map_err(|_| Error::Closed)?;
        tables.await.map_err(|_| Error::Closed)
    }

    async fn ask(&self, command: impl FnOnce(Done) -> Command) -> Result<(), Error> {
        let (done, result) = oneshot::channel();
        self.commands
            .send(command(done))
            .await
            .map_err(|_| Error::Closed)?;
        result.await.map_err(|_| Error::Closed)?
    }
}

/// Measures the rates of the traffic, without end.
async fn measure(traffic: Arc<Traffic>) {
    let mut interval = tokio::time::interval(traffic::INTERVAL);
    loop {
        interval.tick().await;
        traffic.measure();
    }
}

fn listen_error(address: &Multiaddr, why: &str) -> Error {
    Error::invalid(format!("cannot listen on {address} for ipfs peers: {why}"))
}

/// Splits an address into its peer id and the rest.
pub(crate) fn split(mut address: Multiaddr) -> Result<(PeerId, Multiaddr), Error> {
    match address.pop() {
        Some(Protocol::P2p(peer)) => Ok((peer, address)),
        _ => Err(Error::invalid(
            "invalid p2p multiaddr: it must end in /p2p/ and a peer id",
        )),
    }
}

/// Returns the protocols of this node that do not depend on its reachability, sorted.
pub(crate) fn protocols() -> Vec<String> {
    let others = [
        "/ipfs/id/1.0.0",
        "/ipfs/id/push/1.0.0",
        "/ipfs/ping/1.0.0",
        "/libp2p/circuit/relay/0.2.0/stop",
    ];
    let mut all: Vec<String> = PROTOCOLS.into_iter().chain(others).map(str::to_owned).collect();
    all.sort();
    all
}
