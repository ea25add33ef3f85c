//! The libp2p swarm of the node: listening, dialling, connections and redialling.
//!
//! One task drives the swarm. [`Network`] is its handle: commands go to the task by a channel, and what it
//! observes is shared in `SharedView`. Bitswap itself is in [`crate::bitswap`]; here it is one behaviour of
//! the swarm.

mod admission;
mod identity;
mod kept_peers;
mod muxer;
mod peer_budget;

pub(crate) use identity::{load_or_create, save_private};
pub(crate) use peer_budget::{Account, Charge, Pool};

use crate::bitswap::{self, Bitswap, OpenRequest, PROTOCOLS};
use crate::handshakes::LimitedTransport;
use crate::store::lock;
use crate::{ConnectedPeer, Error, Identity};
use admission::Admission;
use futures::StreamExt;
use kept_peers::KeptPeers;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::Boxed;
use libp2p::core::transport::timeout::TransportTimeout;
use libp2p::core::upgrade::Version;
use libp2p::core::{ConnectedPoint, Transport};
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, dns, identify, noise, ping, tcp};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// Start of the agent version of every release of the embedded node.
pub const AGENT_NAME: &str = "cluster-ipfs/";

/// Agent version that the embedded node announces.
pub const AGENT: &str = concat!("cluster-ipfs/", env!("CARGO_PKG_VERSION"));

/// Limit on concurrent incoming handshakes: as many as connections from strangers. Each costs some 70 KiB.
const HANDSHAKES_MAX: usize = 128;
/// Time limit from the first packet to a connection on which streams can be opened.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Capacity of the queue of commands to the swarm.
const COMMANDS: usize = 256;
/// Timeout of idle connections. Bitswap keeps its connections alive, so this is for all others.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
/// Time limit of a dial by [`crate::Node::connect`].
const DIAL_TIMEOUT: Duration = Duration::from_secs(30);
/// Interval of checking for lost peers.
const REDIAL_TICK: Duration = Duration::from_millis(250);

#[derive(NetworkBehaviour)]
struct Behaviour {
    admission: Admission,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    bitswap: bitswap::Behaviour,
}

type Done = oneshot::Sender<Result<(), Error>>;

enum Command {
    Connect(PeerId, Multiaddr, Done),
    Keep(PeerId, Vec<Multiaddr>),
    /// Closes all connections with the peer; with an address, only if one of them is with that address.
    Disconnect(PeerId, Option<Multiaddr>, Done),
}

/// State of the network that is visible outside its task.
#[derive(Debug, Default)]
struct SharedView {
    listening: Vec<Multiaddr>,
    peers: BTreeMap<PeerId, ConnectedPeer>,
    /// Identify messages of connected peers; the protocol limits a message to a few KiB.
    identified: HashMap<PeerId, Identity>,
}

/// Handle of the network's task.
#[derive(Debug)]
pub(crate) struct Network {
    commands: mpsc::Sender<Command>,
    shared: Arc<Mutex<SharedView>>,
    pub(crate) bitswap: Bitswap,
}

struct Task {
    swarm: Swarm<Behaviour>,
    pool: Arc<Pool>,
    /// Remote address of each connection.
    remotes: HashMap<ConnectionId, (PeerId, Multiaddr)>,
    shared: Arc<Mutex<SharedView>>,
    kept_peers: KeptPeers,
    dialling: HashMap<ConnectionId, (PeerId, Done)>,
}

impl Network {
    /// Starts listening and the task, which ends when the token is cancelled.
    pub(crate) async fn start(
        keypair: Keypair,
        listen: &[Multiaddr],
        store: crate::store::Store,
        closed: CancellationToken,
    ) -> Result<Network, Error> {
        let (open, opening) = mpsc::channel(COMMANDS);
        let pool = Arc::new(Pool::default());
        let bitswap = Bitswap::start(store, pool.clone(), open, closed.clone());
        let mut swarm = build(&keypair, &pool, bitswap.clone())?;
        for address in listen {
            let listening = swarm.listen_on(address.clone());
            listening.map_err(|error| listen_error(address, &error.to_string()))?;
        }
        let shared: Arc<Mutex<SharedView>> = Arc::default();
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let mut task = Task {
            swarm,
            pool,
            remotes: HashMap::new(),
            shared: shared.clone(),
            kept_peers: KeptPeers::default(),
            dialling: HashMap::new(),
        };
        task.await_listeners(listen).await?;
        tokio::spawn(closed.run_until_cancelled_owned(task.run(receiver, opening)));
        Ok(Network {
            commands,
            shared,
            bitswap,
        })
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

    async fn ask(&self, command: impl FnOnce(Done) -> Command) -> Result<(), Error> {
        let (done, result) = oneshot::channel();
        self.commands
            .send(command(done))
            .await
            .map_err(|_| Error::Closed)?;
        result.await.map_err(|_| Error::Closed)?
    }
}

fn listen_error(address: &Multiaddr, why: &str) -> Error {
    Error::invalid(format!("cannot listen on {address} for ipfs peers: {why}"))
}

/// Splits an address into its peer id and the rest.
fn split(mut address: Multiaddr) -> Result<(PeerId, Multiaddr), Error> {
    match address.pop() {
        Some(Protocol::P2p(peer)) => Ok((peer, address)),
        _ => Err(Error::invalid(
            "invalid p2p multiaddr: it must end in /p2p/ and a peer id",
        )),
    }
}

/// Returns the transport: TCP, encryption, and multiplexing whose buffers are charged to the peer.
fn transport(keypair: &Keypair, pool: Arc<Pool>) -> std::io::Result<Boxed<(PeerId, StreamMuxerBox)>> {
    let tcp = tcp::tokio::Transport::new(tcp::Config::new().nodelay(true));
    let noise = noise::Config::new(keypair).map_err(std::io::Error::other)?;
    let transport = dns::tokio::Transport::system(tcp)?
        .upgrade(Version::V1Lazy)
        .authenticate(noise)
        .multiplex_ext(move |peer, _| muxer::Upgrade(pool.account(*peer)))
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    Ok(LimitedTransport::new(
        TransportTimeout::new(transport, HANDSHAKE_TIMEOUT),
        HANDSHAKES_MAX,
    )
    .boxed())
}

fn build(keypair: &Keypair, pool: &Arc<Pool>, bitswap: Bitswap) -> Result<Swarm<Behaviour>, Error> {
    let transport = transport(keypair, pool.clone());
    let transport = transport.map_err(|error| Error::io("starting the ipfs network", error))?;
    let behaviour = Behaviour {
        admission: Admission::default(),
        identify: identify::Behaviour::new(
            identify::Config::new("/ipfs/0.1.0".into(), keypair.public()).with_agent_version(AGENT.into()),
        ),
        ping: ping::Behaviour::default(),
        bitswap: bitswap::Behaviour::new(bitswap),
    };
    let config = libp2p::swarm::Config::with_tokio_executor().with_idle_connection_timeout(IDLE_TIMEOUT);
    let peer = keypair.public().to_peer_id();
    Ok(Swarm::new(transport, behaviour, peer, config))
}

/// Converts a peer's identify message to the type of this node's own identity.
fn identity_of(peer_id: PeerId, info: identify::Info) -> Identity {
    let addresses = info.listen_addrs.into_iter();
    let mut protocols: Vec<String> = info.protocols.iter().map(ToString::to_string).collect();
    protocols.sort();
    Identity {
        peer_id,
        public_key: info.public_key,
        addresses: addresses
            .filter_map(|address| address.with_p2p(peer_id).ok())
            .collect(),
        agent_version: info.agent_version,
        protocols,
    }
}

/// Returns the protocols of this node, sorted.
pub(crate) fn protocols() -> Vec<String> {
    let others = ["/ipfs/id/1.0.0", "/ipfs/id/push/1.0.0", "/ipfs/ping/1.0.0"];
    let mut all: Vec<String> = PROTOCOLS.into_iter().chain(others).map(str::to_owned).collect();
    all.sort();
    all
}

impl Task {
    /// Waits until each listener has its first address, so that the port is known once the node is open.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "libp2p's events; the rest is handled as always"
    )]
    async fn await_listeners(&mut self, listen: &[Multiaddr]) -> Result<(), Error> {
        let mut left = listen.len();
        let mut listeners = std::collections::HashSet::new();
        while left > 0 {
            match self.swarm.select_next_some().await {
                SwarmEvent::NewListenAddr { listener_id, address } => {
                    lock(&self.shared).listening.push(address);
                    if listeners.insert(listener_id) {
                        left -= 1;
                    }
                }
                SwarmEvent::ListenerClosed {
                    addresses, reason, ..
                } => {
                    let address = addresses
                        .first()
                        .or(listen.first())
                        .cloned()
                        .unwrap_or_else(Multiaddr::empty);
                    let why = reason
                        .err()
                        .map_or_else(|| "closed".to_owned(), |error| error.to_string());
                    return Err(listen_error(&address, &why));
                }
                other => self.handle_event(other),
            }
        }
        Ok(())
    }

    async fn run(mut self, mut commands: mpsc::Receiver<Command>, mut opening: mpsc::Receiver<OpenRequest>) {
        let mut tick = tokio::time::interval(REDIAL_TICK);
        loop {
            tokio::select! {
                event = self.swarm.select_next_some() => self.handle_event(event),
                Some((peer, opened)) = opening.recv() => {
                    self.swarm.behaviour_mut().bitswap.open(peer, opened);
                }
                command = commands.recv() => match command {
                    Some(command) => self.handle_command(command),
                    None => return,
                },
                _ = tick.tick() => self.redial_due(),
            }
        }
    }

    fn handle_command(&mut self, command: Command) {
        match command {
            Command::Connect(peer, address, done) => {
                if self.swarm.is_connected(&peer) {
                    self.keep(peer, vec![address]);
                    let _ = done.send(Ok(()));
                    return;
                }
                let options = DialOpts::peer_id(peer).addresses(vec![address.clone()]);
                let options = options.condition(PeerCondition::NotDialing).build();
                let id = options.connection_id();
                match self.swarm.dial(options) {
                    Ok(()) => {
                        self.dialling.insert(id, (peer, done));
                        self.kept_peers.add_candidate(id, peer, address);
                    }
                    Err(error) => {
                        let _ = done.send(Err(Error::Dial {
                            peer,
                            why: error.to_string(),
                        }));
                    }
                }
            }
            Command::Keep(peer, addresses) => self.keep(peer, addresses),
            Command::Disconnect(peer, address, done) => {
                let _ = done.send(self.disconnect(peer, address));
            }
        }
    }

    fn disconnect(&mut self, peer: PeerId, address: Option<Multiaddr>) -> Result<(), Error> {
        if let Some(address) = address
            && !self
                .remotes
                .values()
                .any(|remote| *remote == (peer, address.clone()))
        {
            return Err(Error::NoConnection(address));
        }
        self.kept_peers.drop_peer(&peer);
        self.swarm.behaviour_mut().admission.release(&peer);
        self.pool.set_exempt(peer, false);
        let closed = self.swarm.disconnect_peer_id(peer);
        closed.map_err(|()| Error::NotConnected(peer))
    }

    fn keep(&mut self, peer: PeerId, addresses: Vec<Multiaddr>) {
        if peer == *self.swarm.local_peer_id() {
            return;
        }
        let plain = addresses.into_iter().map(|address| match split(address.clone()) {
            Ok((_, rest)) => rest,
            Err(_) => address,
        });
        if self.kept_peers.keep(peer, plain.collect(), Instant::now()) {
            // Strangers must not be able to use up the places of kept peers.
            self.swarm.behaviour_mut().admission.keep(peer);
            self.pool.set_exempt(peer, true);
        }
    }

    fn redial_due(&mut self) {
        for (peer, addresses) in self.kept_peers.due(Instant::now()) {
            if !self.swarm.is_connected(&peer) {
                let options = DialOpts::peer_id(peer).addresses(addresses);
                let options = options
                    .condition(PeerCondition::DisconnectedAndNotDialing)
                    .build();
                // A dial that cannot start is retried later, like one that fails.
                if let Err(error) = self.swarm.dial(options) {
                    tracing::debug!(%peer, %error, "dialling an ipfs peer failed");
                }
            }
        }
    }

    fn connected(&mut self, peer_id: PeerId, connection_id: ConnectionId, endpoint: ConnectedPoint) {
        let (address, inbound) = match endpoint {
            ConnectedPoint::Dialer { address, .. } => (address, false),
            ConnectedPoint::Listener { send_back_addr, .. } => (send_back_addr, true),
        };
        // Dialled addresses may end in the peer's id.
        let plain = split(address.clone()).map_or_else(|_| address.clone(), |(_, plain)| plain);
        self.remotes.insert(connection_id, (peer_id, plain));
        let peer = ConnectedPeer {
            peer_id,
            address,
            inbound,
            agent_version: None,
        };
        lock(&self.shared).peers.insert(peer_id, peer);
        self.kept_peers.connected(&peer_id);
        if let Some((_, done)) = self.dialling.remove(&connection_id) {
            let _ = done.send(Ok(()));
            if let Some(address) = self.kept_peers.take_candidate(connection_id) {
                self.keep(peer_id, vec![address]);
                self.kept_peers.connected(&peer_id);
            }
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "libp2p's events; the rest needs no answer"
    )]
    fn handle_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::NewListenAddr { address, .. } => lock(&self.shared).listening.push(address),
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                lock(&self.shared).listening.retain(|known| *known != address);
            }
            SwarmEvent::ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            } => self.connected(peer_id, connection_id, endpoint),
            SwarmEvent::ConnectionClosed {
                peer_id,
                connection_id,
                num_established,
                ..
            } => {
                self.remotes.remove(&connection_id);
                if num_established > 0 {
                    return;
                }
                let mut shared = lock(&self.shared);
                shared.peers.remove(&peer_id);
                shared.identified.remove(&peer_id);
                drop(shared);
                self.kept_peers.lost(&peer_id, Instant::now());
            }
            SwarmEvent::OutgoingConnectionError {
                connection_id, error, ..
            } => {
                let _ = self.kept_peers.take_candidate(connection_id);
                if let Some((peer, done)) = self.dialling.remove(&connection_id) {
                    let connected = self.swarm.is_connected(&peer);
                    let why = Error::Dial {
                        peer,
                        why: error.to_string(),
                    };
                    let _ = done.send(if connected { Ok(()) } else { Err(why) });
                }
            }
            SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received {
                peer_id,
                info,
                ..
            })) => {
                lock(&self.shared)
                    .identified
                    .insert(peer_id, identity_of(peer_id, info));
            }
            _ => {}
        }
    }
}
