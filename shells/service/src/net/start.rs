//! Builds and starts the swarm and its shared state.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU8, AtomicU64};
use std::sync::{Arc, Mutex, OnceLock, RwLock};
use std::time::Duration;

use futures::StreamExt;
use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::core::transport::{ListenerId, TransportError};
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, Swarm, identify, ping};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::accept::acceptor;
use super::address_book::AddressBook;
use super::admission::Admission;
use super::announce::Announce;
use super::error::StartError;
use super::events::{NetEvents, core_events};
use super::hello::Keys;
use super::links::Links;
use super::shared::Shared;
use super::swarm::{Behaviour, SwarmTask};
use super::transport::{self, listen_hint};
use super::{Net, NetConfig, peer_id_of, streams};

/// Connections of all non-members together.
const STRANGERS_MAX: u32 = 128;

/// Connections of one non-member.
const PER_STRANGER_MAX: u32 = 4;

/// Time after which a connection without streams is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Interval of pings. A peer whose machine vanished is disconnected after this and [`PING_TIMEOUT`]. Every
/// two peers are connected, so a hundred of them send 660 pings a second.
const PING_INTERVAL: Duration = Duration::from_secs(15);

/// Long, because a ping queues behind the other traffic of the connection.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Maximum wait for the system to report the addresses that it listens on.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(5);

/// Commands queued for the swarm's task.
const COMMANDS_MAX: usize = 1_024;

/// Calls queued: as many as may be open, so that none is refused here.
const CALLS_MAX: usize = 1_024 + 64;

/// Snapshots queued, likewise.
const SNAPSHOTS_MAX: usize = 8;

/// Starts the network. See [`Net::start`].
pub(super) async fn start(config: NetConfig) -> Result<(Net, NetEvents), StartError> {
    let listen = transport::usable_listen_addresses(&config.listen)?;
    let links = Arc::new(Links::new());
    let cell = Arc::new(OnceLock::new());
    let announce = Announce::new(config.announce, config.no_announce);
    let streams = streams::Behaviour::new(Arc::clone(&links), acceptor(Arc::clone(&cell)));
    let behaviour = behaviour(&config.keypair, &announce, streams);
    let swarm_config = libp2p::swarm::Config::with_tokio_executor()
        .with_idle_connection_timeout(IDLE_TIMEOUT)
        // A stream is opened together with its first bytes, which saves a round trip.
        .with_substream_upgrade_protocol_override(Version::V1Lazy);
    let id = config.keypair.public().to_peer_id();
    let secrets = Keys::new(config.secret, &config.accepted_secrets);
    let transport = transport::build(&config.keypair, secrets)?;
    let mut swarm = Swarm::new(transport, behaviour, id, swarm_config);
    listen_on(&mut swarm, listen).await?;
    let listening: Vec<Multiaddr> = swarm.listeners().cloned().collect();
    announce_addresses(&mut swarm, &announce, &listening);

    let (core, core_events) = core_events();
    let (commands, command_receiver) = mpsc::channel(COMMANDS_MAX);
    let (calls, call_receiver) = mpsc::channel(CALLS_MAX);
    let (snapshots, snapshot_receiver) = mpsc::channel(SNAPSHOTS_MAX);
    let book_changes = watch::Sender::new(0);
    let mut book = AddressBook::default();
    for (peer, addresses) in config.known_peers {
        book.add(&peer, addresses);
    }
    let events = NetEvents {
        core: core_events,
        calls: call_receiver,
        snapshots: snapshot_receiver,
        addresses: book_changes.subscribe(),
    };
    let shared = Arc::new(Shared {
        me: peer_id_of(&id),
        cluster: RwLock::new(config.cluster),
        own_version: config.version,
        version: AtomicU8::new(cluster_core::FIRST_VERSION),
        open_methods: config.open_methods,
        links,
        members: watch::Sender::new(Arc::default()),
        outboxes: RwLock::new(BTreeMap::new()),
        inboxes: Mutex::new(BTreeMap::new()),
        book: Mutex::new(book),
        book_changes,
        listening: RwLock::new(listening),
        announce,
        commands,
        core,
        calls,
        snapshots,
        inbound: Arc::new(Admission::default()),
        outbound: Arc::new(Admission::default()),
        meters: Default::default(),
        losses: Default::default(),
        failures: Default::default(),
        tasks: TaskTracker::new(),
        runtime: tokio::runtime::Handle::current(),
        stop: CancellationToken::new(),
        numbers: AtomicU64::new(0),
    });
    drop(cell.set(Arc::downgrade(&shared)));
    shared.spawn(SwarmTask::new(swarm, Arc::clone(&shared), command_receiver).run());
    let reporter = Arc::clone(&shared);
    shared.spawn(async move { reporter.core.report_unreachable().await });
    Ok((Net { shared }, events))
}

/// Makes identify announce this peer's addresses, given those listened on.
pub(super) fn announce_addresses(swarm: &mut Swarm<Behaviour>, announce: &Announce, listening: &[Multiaddr]) {
    if !announce.differs() {
        return;
    }
    let announced = announce.addresses(listening);
    let before: Vec<Multiaddr> = swarm.external_addresses().cloned().collect();
    for gone in before.iter().filter(|address| !announced.contains(address)) {
        swarm.remove_external_address(gone);
    }
    for new in announced.into_iter().filter(|address| !before.contains(address)) {
        swarm.add_external_address(new);
    }
}

fn behaviour(keypair: &Keypair, announce: &Announce, streams: streams::Behaviour) -> Behaviour {
    let limits = ConnectionLimits::default()
        .with_max_established_incoming(Some(STRANGERS_MAX))
        .with_max_established_per_peer(Some(PER_STRANGER_MAX));
    let identify = identify::Config::new("/ipfs-cluster/id/1".to_owned(), keypair.public())
        .with_agent_version(concat!("ipfs-cluster-service/", env!("CARGO_PKG_VERSION")).to_owned())
        .with_hide_listen_addrs(announce.differs())
        .with_push_listen_addr_updates(true)
        .with_cache_size(0);
    let ping = ping::Config::new()
        .with_interval(PING_INTERVAL)
        .with_timeout(PING_TIMEOUT);
    Behaviour {
        limits: connection_limits::Behaviour::new(limits),
        identify: identify::Behaviour::new(identify),
        ping: ping::Behaviour::new(ping),
        streams,
    }
}

/// Listens, and waits until the addresses are known.
async fn listen_on(swarm: &mut Swarm<Behaviour>, addresses: Vec<Multiaddr>) -> Result<(), StartError> {
    let mut waiting: BTreeMap<String, (ListenerId, Multiaddr)> = BTreeMap::new();
    for address in addresses {
        let id = swarm
            .listen_on(address.clone())
            .map_err(|error| listen_failed(&address, error))?;
        waiting.insert(address.to_string(), (id, address));
    }
    let deadline = tokio::time::Instant::now() + LISTEN_TIMEOUT;
    while let Some((listener, address)) = waiting.values().next().cloned() {
        let failed = |why: String| StartError::Listen {
            address: address.to_string(),
            why,
        };
        #[allow(
            clippy::wildcard_enum_match_arm,
            reason = "libp2p's enum: nothing else happens this early"
        )]
        match tokio::time::timeout_at(deadline, swarm.select_next_some()).await {
            Ok(SwarmEvent::NewListenAddr { listener_id, .. }) => {
                waiting.retain(|_, (id, _)| *id != listener_id);
            }
            Ok(SwarmEvent::ListenerClosed {
                listener_id, reason, ..
            }) if listener_id == listener => {
                let why =
                    reason.map_or_else(|error| listen_hint(&error), |()| "it closed at once".to_owned());
                return Err(failed(why));
            }
            Ok(_) => {}
            Err(_) => return Err(failed("no network interface has an address for it".to_owned())),
        }
    }
    Ok(())
}

fn listen_failed(address: &Multiaddr, error: TransportError<io::Error>) -> StartError {
    let why = match error {
        TransportError::MultiaddrNotSupported(_) => "this kind of address is not supported".to_owned(),
        TransportError::Other(error) => listen_hint(&error),
    };
    StartError::Listen {
        address: address.to_string(),
        why,
    }
}
