//! The task that drives the swarm: its start, its loop, and the dispatch of commands and events.

mod commands;
mod connections;
mod routing;

use self::connections::Remote;
use super::addresses::{ADDRESSES_MAX, Scope, is_relayed};
use super::behaviour::{Behaviour, BehaviourEvent, build};
use super::dht::{Dht, Queries};
use super::kept_peers::KeptPeers;
use super::known_servers::KnownServers;
use super::peer_budget::Pool;
use super::trimming::{Purpose, TRIM_INTERVAL};
use super::{Command, Done, Setup, SharedView, listen_error};
use crate::Error;
use crate::bitswap::{Bitswap, OpenRequest};
use crate::settings::PublicNetwork;
use crate::store::lock;
use futures::StreamExt;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{ConnectionId, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, identify, mdns};
use std::collections::{HashMap, HashSet};
use std::net::Ipv6Addr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Interval of checking for lost peers, abandoned lookups and connections.
const TICK: Duration = Duration::from_millis(250);
/// Interval of the steps of removing expired records.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(1);
/// Time after the start, and interval, of deciding whether relays are needed.
const RELAY_INTERVAL: Duration = Duration::from_secs(30);
/// Interval of refreshing the routing tables, section 2.3 of the Kademlia paper: a node that looks up nothing
/// would find only dead peers in them later. `libp2p-kad` does it at once while there are few peers.
const REFRESH_INTERVAL: Duration = Duration::from_secs(3600);

/// Times of the periodic work.
struct Schedule {
    trim: Instant,
    expire: Instant,
    relays: Instant,
    refresh: Instant,
}

/// Owner of the swarm.
pub(super) struct Task {
    swarm: Swarm<Behaviour>,
    settings: Arc<PublicNetwork>,
    pool: Arc<Pool>,
    bitswap: Bitswap,
    remotes: HashMap<ConnectionId, Remote>,
    shared: Arc<Mutex<SharedView>>,
    kept_peers: KeptPeers,
    dialling: HashMap<ConnectionId, (PeerId, Purpose, Done)>,
    queries: Queries,
    servers: KnownServers,
    schedule: Schedule,
    /// Relays with a reservation, or that are asked for one.
    relays: HashSet<PeerId>,
    /// Number of listeners that were started.
    listeners: usize,
}

/// Returns whether the address stands for all IPv6 addresses of the machine.
fn is_any_v6(address: &Multiaddr) -> bool {
    address.iter().next() == Some(Protocol::Ip6(Ipv6Addr::UNSPECIFIED))
}

impl Task {
    /// Creates the task of a swarm that listens.
    pub(super) fn new(
        bitswap: Bitswap,
        pool: Arc<Pool>,
        shared: Arc<Mutex<SharedView>>,
        setup: Setup,
        local_scope: Scope,
    ) -> Result<Task, Error> {
        let (settings, listen) = (setup.settings.clone(), setup.listen.clone());
        let servers = KnownServers::load(&setup.folder, &settings, &setup.bootstrap);
        let mut swarm = build(setup, &pool, bitswap.clone(), local_scope)?;
        if !settings.private {
            for address in &settings.announce {
                swarm.add_external_address(address.clone());
            }
        }
        let mut listeners = 0;
        for address in &listen {
            match swarm.listen_on(address.clone()) {
                Ok(_) => listeners += 1,
                // The default addresses of both families are configured on machines that have only one.
                Err(error) if is_any_v6(address) => {
                    tracing::info!(%address, %error, "not listening on IPv6 for ipfs peers");
                }
                Err(error) => return Err(listen_error(address, &error.to_string())),
            }
        }
        let now = Instant::now();
        Ok(Task {
            swarm,
            settings,
            pool,
            bitswap,
            remotes: HashMap::new(),
            shared,
            kept_peers: KeptPeers::default(),
            dialling: HashMap::new(),
            queries: Queries::default(),
            servers,
            schedule: Schedule {
                trim: now + TRIM_INTERVAL,
                expire: now + EXPIRY_INTERVAL,
                relays: now + RELAY_INTERVAL,
                refresh: now + REFRESH_INTERVAL,
            },
            relays: HashSet::new(),
            listeners,
        })
    }

    /// Returns a handle that opens streams to peers.
    pub(super) fn streams(&self) -> libp2p_stream::Control {
        self.swarm.behaviour().streams.new_control()
    }

    /// Waits until each listener has its first address, so that the port is known once the node is open.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "libp2p's events; the rest is handled as always"
    )]
    pub(super) async fn await_listeners(&mut self, listen: &[Multiaddr]) -> Result<(), Error> {
        let mut left = self.listeners;
        let mut listeners = HashSet::new();
        while left > 0 {
            match self.swarm.select_next_some().await {
                SwarmEvent::NewListenAddr { listener_id, address } => {
                    self.listening(address);
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

    pub(super) async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut opening: mpsc::Receiver<OpenRequest>,
    ) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.choose_modes();
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
                _ = tick.tick() => self.tick(Instant::now()),
            }
        }
    }

    fn tick(&mut self, now: Instant) {
        self.redial_due();
        for dht in self.swarm.behaviour_mut().dhts() {
            self.queries.finish_early(dht, now);
        }
        self.join_dht(now);
        self.publish_dht_state();
        if now >= self.schedule.trim {
            self.schedule.trim = now + TRIM_INTERVAL;
            self.trim(now);
        }
        if now >= self.schedule.expire {
            self.schedule.expire = now + EXPIRY_INTERVAL;
            for dht in self.swarm.behaviour_mut().dhts() {
                dht.kad().store_mut().expire(now);
            }
        }
        if now >= self.schedule.relays {
            self.schedule.relays = now + RELAY_INTERVAL;
            self.use_relays();
        }
        if now >= self.schedule.refresh {
            self.schedule.refresh = now + REFRESH_INTERVAL;
            self.swarm.behaviour_mut().dhts().for_each(Dht::refresh);
        }
    }

    fn listening(&self, address: Multiaddr) {
        if !is_relayed(&address) {
            lock(&self.shared).listening.push(address);
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "libp2p's events; the rest needs no answer"
    )]
    fn handle_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::NewListenAddr { address, .. } => self.listening(address),
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                lock(&self.shared).listening.retain(|known| *known != address);
            }
            SwarmEvent::ListenerClosed { addresses, .. } => {
                for address in addresses {
                    let parts = address.iter();
                    for part in parts.take(ADDRESSES_MAX) {
                        if let Protocol::P2p(relay) = part {
                            self.relays.remove(&relay);
                        }
                    }
                }
            }
            SwarmEvent::ExternalAddrConfirmed { .. } | SwarmEvent::ExternalAddrExpired { .. } => {
                self.choose_modes();
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
            } => self.closed(peer_id, connection_id, num_established),
            SwarmEvent::OutgoingConnectionError {
                connection_id,
                peer_id,
                error,
            } => self.dial_failed(connection_id, peer_id, &error),
            SwarmEvent::Behaviour(event) => self.handle_behaviour(event),
            _ => {}
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "libp2p's events; the rest needs no answer"
    )]
    fn handle_behaviour(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Identify(identify::Event::Received {
                peer_id,
                connection_id,
                info,
            }) => self.identified(peer_id, connection_id, info),
            BehaviourEvent::PublicDht(event) => self.handle_dht(Scope::Public, event),
            BehaviourEvent::LocalDht(event) => {
                let scope = self.swarm.behaviour().local_dht.as_ref().map(Dht::scope);
                self.handle_dht(scope.unwrap_or(Scope::Local), event);
            }
            BehaviourEvent::Mdns(mdns::Event::Discovered(found)) => self.discovered(found),
            _ => {}
        }
    }
}
