//! The task that drives the swarm.

use super::addresses::{ADDRESSES_MAX, Reach, Scope, dialable, is_relayed, reach};
use super::behaviour::{Behaviour, BehaviourEvent, build};
use super::dht::{Dht, Lookup, Queries, Records};
use super::kept_peers::KeptPeers;
use super::known_servers::KnownServers;
use super::peer_budget::Pool;
use super::trimming::{self, Candidate, Purpose, TRIM_INTERVAL};
use super::{Command, DhtState, Done, Setup, SharedView, listen_error, split};
use crate::bitswap::{Bitswap, OpenRequest};
use crate::settings::PublicNetwork;
use crate::store::lock;
use crate::{ConnectedPeer, Error, Identity, ipns};
use futures::StreamExt;
use jiff::Timestamp;
use libp2p::core::ConnectedPoint;
use libp2p::kad::store::RecordStore;
use libp2p::kad::{Event as DhtEvent, InboundRequest, Record, RecordKey};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, identify, mdns};
use std::collections::{HashMap, HashSet};
use std::net::Ipv6Addr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Interval of checking for lost peers, abandoned lookups and connections.
const TICK: Duration = Duration::from_millis(250);
/// Limit on dials that callers wait for.
const DIALS_MAX: usize = 256;
/// Interval of removing expired records.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(600);
/// Limit on nodes that are dialled because mDNS found them.
const LAN_PEERS_MAX: usize = 32;
/// Limit on relays on which this node reserves a place while it is not reachable.
const RELAYS_MAX: usize = 2;
/// Time after the start, and interval, of deciding whether relays are needed.
const RELAY_INTERVAL: Duration = Duration::from_secs(60);
/// Protocol of relays that grant reservations.
const RELAY_PROTOCOL: &str = "/libp2p/circuit/relay/0.2.0/hop";

/// A connection.
struct Remote {
    peer: PeerId,
    address: Multiaddr,
    opened: Instant,
    purpose: Purpose,
}

/// Times of the periodic work.
struct Schedule {
    trim: Instant,
    expire: Instant,
    relays: Instant,
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

impl Task {
    /// Creates the task of a swarm that listens.
    pub(super) fn new(
        bitswap: Bitswap,
        pool: Arc<Pool>,
        shared: Arc<Mutex<SharedView>>,
        setup: &Setup,
        local_scope: Scope,
    ) -> Result<Task, Error> {
        let settings = setup.settings.clone();
        let mut swarm = build(
            &setup.keypair,
            &pool,
            bitswap.clone(),
            (&settings, setup.traffic.clone()),
            local_scope,
        )?;
        if !settings.private {
            for address in &settings.announce {
                swarm.add_external_address(address.clone());
            }
        }
        let mut listeners = 0;
        for address in &setup.listen {
            match swarm.listen_on(address.clone()) {
                Ok(_) => listeners += 1,
                // The default addresses of both families are configured on machines that have only one.
                Err(error) if is_any_v6(address) => {
                    tracing::info!(%address, %error, "not listening on IPv6 for ipfs peers");
                }
                Err(error) => return Err(listen_error(address, &error.to_string())),
            }
        }
        let servers = KnownServers::load(&setup.folder, &settings, &setup.bootstrap);
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
            self.queries.finish_abandoned(dht);
        }
        self.join_dht(now);
        if now >= self.schedule.trim {
            self.schedule.trim = now + TRIM_INTERVAL;
            self.trim(now);
            self.publish_dht_state();
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
                if self.dial(options, peer, Purpose::Asked, done) {
                    self.kept_peers.add_candidate(id, peer, address);
                }
            }
            Command::Keep(peer, addresses) => self.keep(peer, addresses),
            Command::Disconnect(peer, address, done) => {
                let _ = done.send(self.disconnect(peer, address));
            }
            Command::Dial(peer, addresses, done) => {
                if self.swarm.is_connected(&peer) {
                    let _ = done.send(Ok(()));
                    return;
                }
                let options = DialOpts::peer_id(peer).addresses(addresses);
                let options = options.condition(PeerCondition::Always).build();
                self.dial(options, peer, Purpose::Provider, done);
            }
            Command::Find(lookup, done) => {
                let _ = done.send(self.start_lookup(lookup));
            }
            Command::StoreValue(key, value) => {
                for dht in self.swarm.behaviour_mut().dhts() {
                    store_value(dht, key.clone(), value.clone());
                }
            }
            Command::Release(peer) => self.release(peer),
            Command::Bootstrap(peers) => self.servers.use_bootstrap(&peers),
            Command::Tables(tables) => {
                let _ = tables.send(self.swarm.behaviour_mut().routing_tables());
            }
        }
    }

    /// Starts a dial; returns `false` if it cannot start.
    fn dial(&mut self, options: DialOpts, peer: PeerId, purpose: Purpose, done: Done) -> bool {
        if self.dialling.len() >= DIALS_MAX {
            let _ = done.send(Err(Error::Busy("too many ipfs peers are being dialled")));
            return false;
        }
        let id = options.connection_id();
        match self.swarm.dial(options) {
            Ok(()) => {
                self.dialling.insert(id, (peer, purpose, done));
                true
            }
            Err(error) => {
                let why = error.to_string();
                let _ = done.send(Err(Error::Dial { peer, why }));
                false
            }
        }
    }

    fn start_lookup(&mut self, lookup: Lookup) -> Result<(), Error> {
        if !self.queries.has_room() {
            return Err(Error::Busy("too many lookups are running in the dht"));
        }
        for dht in self.swarm.behaviour_mut().dhts() {
            // Without others, a server may still have the records itself.
            let is_local = dht.is_server() && matches!(lookup, Lookup::Providers(..) | Lookup::Values(..));
            if dht.table_len() > 0 || is_local {
                self.queries.start(dht, lookup.clone());
                // Records are stored in the local DHT only while there is no public one, as by Kubo.
                if matches!(lookup, Lookup::Closest(..)) {
                    break;
                }
            }
        }
        Ok(())
    }

    fn disconnect(&mut self, peer: PeerId, address: Option<Multiaddr>) -> Result<(), Error> {
        if let Some(address) = address
            && !self
                .remotes
                .values()
                .any(|remote| remote.peer == peer && remote.address == address)
        {
            return Err(Error::NoConnection(address));
        }
        self.release(peer);
        let closed = self.swarm.disconnect_peer_id(peer);
        closed.map_err(|()| Error::NotConnected(peer))
    }

    /// Stops keeping a peer.
    fn release(&mut self, peer: PeerId) {
        self.kept_peers.drop_peer(&peer);
        self.swarm.behaviour_mut().admission.release(&peer);
        self.bitswap.set_trusted(peer, false);
        self.pool.set_exempt(peer, false);
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
            self.bitswap.set_trusted(peer, true);
            self.pool.set_exempt(peer, true);
        }
    }

    fn redial_due(&mut self) {
        for (peer, addresses) in self.kept_peers.due(Instant::now()) {
            self.try_dial(peer, addresses);
        }
    }

    /// Dials a peer without a caller that waits for it. A dial that cannot start is retried later, like one
    /// that fails.
    fn try_dial(&mut self, peer: PeerId, addresses: Vec<Multiaddr>) {
        if self.swarm.is_connected(&peer) || peer == *self.swarm.local_peer_id() {
            return;
        }
        let options = DialOpts::peer_id(peer).addresses(addresses);
        let options = options
            .condition(PeerCondition::DisconnectedAndNotDialing)
            .build();
        if let Err(error) = self.swarm.dial(options) {
            tracing::debug!(%peer, %error, "dialling an ipfs peer failed");
        }
    }

    /// Dials known DHT servers while a routing table is nearly empty.
    fn join_dht(&mut self, now: Instant) {
        let sizes: Vec<usize> = self.swarm.behaviour_mut().dhts().map(Dht::table_len).collect();
        let Some(smallest) = sizes.iter().copied().min() else {
            return;
        };
        for (peer, addresses) in self.servers.due(smallest, now) {
            self.try_dial(peer, addresses);
        }
        if self.servers.is_save_due(now) {
            let mut table = Vec::new();
            for dht in self.swarm.behaviour_mut().dhts() {
                table.extend(dht.table());
            }
            self.servers.save(table);
        }
    }

    /// Closes the connections that are not needed.
    fn trim(&mut self, now: Instant) {
        let candidate = |(id, remote): (&ConnectionId, &Remote)| Candidate {
            id: *id,
            opened: remote.opened,
            purpose: remote.purpose,
            is_protected: self.kept_peers.contains(&remote.peer) || self.bitswap.is_in_use(&remote.peer),
        };
        let all = self.remotes.iter().map(candidate).collect();
        let (low, high) = (
            self.settings.connections_low_water,
            self.settings.connections_high_water,
        );
        for id in trimming::surplus(all, low, high, now) {
            self.swarm.close_connection(id);
        }
    }

    /// Serves the public DHT while an address is confirmed that strangers can reach directly, and the local
    /// one always, unless the settings forbid it.
    fn choose_modes(&mut self) {
        let may_serve = self.settings.effective_routing().may_serve();
        let direct = |address: &&Multiaddr| reach(address) == Reach::Public && !is_relayed(address);
        let is_reachable = self.swarm.external_addresses().any(|address| direct(&address));
        let behaviour = self.swarm.behaviour_mut();
        if let Some(dht) = behaviour.public_dht.as_mut() {
            dht.serve(may_serve && is_reachable);
        }
        if let Some(dht) = behaviour.local_dht.as_mut() {
            dht.serve(may_serve);
        }
        self.publish_dht_state();
    }

    fn publish_dht_state(&mut self) {
        let state = |dht: &mut Dht| {
            let (provider_records, value_records) = dht.kad().store_mut().len();
            DhtState {
                protocol: dht.protocol(),
                is_public: dht.scope() == Scope::Public,
                peers: dht.table_len(),
                is_server: dht.is_server(),
                provider_records,
                value_records,
            }
        };
        let dhts = self.swarm.behaviour_mut().dhts().map(state).collect();
        let external = self.swarm.external_addresses().cloned().collect();
        let mut shared = lock(&self.shared);
        shared.dhts = dhts;
        shared.external = external;
    }

    /// Reserves places on relays while no direct address is confirmed.
    fn use_relays(&mut self) {
        let direct = |address: &Multiaddr| reach(address) == Reach::Public && !is_relayed(address);
        if self.settings.private || self.swarm.external_addresses().any(direct) {
            return;
        }
        let shared = lock(&self.shared);
        let grants = |remote: &&Remote| {
            let identity = shared.identified.get(&remote.peer);
            identity.is_some_and(|known| known.protocols.iter().any(|name| name == RELAY_PROTOCOL))
        };
        let usable = self.remotes.values().filter(|remote| direct(&remote.address));
        let usable = usable
            .filter(grants)
            .filter(|remote| !self.relays.contains(&remote.peer));
        let room = RELAYS_MAX.saturating_sub(self.relays.len());
        let chosen: Vec<(PeerId, Multiaddr)> = usable
            .take(room)
            .map(|remote| (remote.peer, remote.address.clone()))
            .collect();
        drop(shared);
        for (peer, address) in chosen {
            let circuit = address.with(Protocol::P2p(peer)).with(Protocol::P2pCircuit);
            match self.swarm.listen_on(circuit) {
                Ok(_) => {
                    self.relays.insert(peer);
                }
                Err(error) => tracing::debug!(%peer, %error, "no place on this relay"),
            }
        }
    }

    fn listening(&self, address: Multiaddr) {
        if !is_relayed(&address) {
            lock(&self.shared).listening.push(address);
        }
    }

    fn connected(&mut self, peer_id: PeerId, connection_id: ConnectionId, endpoint: ConnectedPoint) {
        let (address, inbound) = match endpoint {
            ConnectedPoint::Dialer { address, .. } => (address, false),
            ConnectedPoint::Listener { send_back_addr, .. } => (send_back_addr, true),
        };
        // Dialled addresses may end in the peer's id.
        let plain = split(address.clone()).map_or_else(|_| address.clone(), |(_, plain)| plain);
        let dialled = self.dialling.remove(&connection_id);
        let purpose = match (&dialled, inbound) {
            (Some((_, purpose, _)), _) => *purpose,
            (None, true) => Purpose::Inbound,
            (None, false) => Purpose::Lookup,
        };
        let remote = Remote {
            peer: peer_id,
            address: plain,
            opened: Instant::now(),
            purpose,
        };
        self.remotes.insert(connection_id, remote);
        let peer = ConnectedPeer {
            peer_id,
            address,
            inbound,
            agent_version: None,
        };
        lock(&self.shared).peers.insert(peer_id, peer);
        self.kept_peers.connected(&peer_id);
        if let Some((_, _, done)) = dialled {
            let _ = done.send(Ok(()));
            if let Some(address) = self.kept_peers.take_candidate(connection_id) {
                self.keep(peer_id, vec![address]);
                self.kept_peers.connected(&peer_id);
            }
        }
    }

    fn closed(&mut self, peer_id: PeerId, connection_id: ConnectionId, remaining: u32) {
        self.remotes.remove(&connection_id);
        if remaining > 0 {
            return;
        }
        let mut shared = lock(&self.shared);
        shared.peers.remove(&peer_id);
        shared.identified.remove(&peer_id);
        drop(shared);
        self.kept_peers.lost(&peer_id, Instant::now());
    }

    fn dial_failed(&mut self, connection_id: ConnectionId, peer: Option<PeerId>, error: &DialError) {
        let _ = self.kept_peers.take_candidate(connection_id);
        if let Some((peer, _, done)) = self.dialling.remove(&connection_id) {
            let connected = self.swarm.is_connected(&peer);
            let why = Error::Dial {
                peer,
                why: error.to_string(),
            };
            let _ = done.send(if connected { Ok(()) } else { Err(why) });
        }
        let Some(peer) = peer else { return };
        if matches!(error, DialError::Transport(_) | DialError::WrongPeerId { .. })
            && !self.swarm.is_connected(&peer)
        {
            for dht in self.swarm.behaviour_mut().dhts() {
                dht.remove(&peer);
            }
        }
    }

    /// Records an identify message, and updates the routing tables.
    fn identified(&mut self, peer: PeerId, connection: ConnectionId, info: identify::Info) {
        if let Some(remote) = self.remotes.get(&connection) {
            for dht in self.swarm.behaviour_mut().dhts() {
                let serves = info.protocols.iter().any(|name| name.as_ref() == dht.protocol());
                // A peer of the public network must not name targets in the local one.
                if serves && dht.scope().contains(&remote.address) {
                    dht.add_server(&peer, &info.listen_addrs);
                } else if !serves {
                    dht.remove(&peer);
                }
            }
        }
        lock(&self.shared)
            .identified
            .insert(peer, identity_of(peer, info));
    }

    /// Stores a record that a peer sends, if it is valid.
    fn handle_dht(&mut self, scope: Scope, event: DhtEvent) {
        let Some(dht) = self.swarm.behaviour_mut().dhts().find(|dht| dht.scope() == scope) else {
            return;
        };
        let DhtEvent::InboundRequest { request } = event else {
            return self.queries.handle(dht, event);
        };
        match request {
            InboundRequest::AddProvider {
                record: Some(mut record),
            } => {
                record.addresses = dialable(std::mem::take(&mut record.addresses), &[scope]);
                // Without room it is refused; the provider sends it to 19 others as well.
                let _ = dht.kad().store_mut().add_provider(record);
            }
            InboundRequest::PutRecord {
                record: Some(record), ..
            } => {
                if is_newer_name(&record, dht.kad().store_mut()) {
                    // Without room it is refused, as above.
                    let _ = dht.kad().store_mut().put(record);
                }
            }
            InboundRequest::AddProvider { record: None }
            | InboundRequest::PutRecord { record: None, .. }
            | InboundRequest::FindNode { .. }
            | InboundRequest::GetProvider { .. }
            | InboundRequest::GetRecord { .. } => {}
        }
    }

    /// Connects to nodes that mDNS found in the local network.
    fn discovered(&mut self, found: Vec<(PeerId, Multiaddr)>) {
        for (peer, address) in found.into_iter().take(LAN_PEERS_MAX) {
            let plain = split(address.clone()).map_or(address, |(_, plain)| plain);
            if Scope::Local.contains(&plain) && self.remotes.len() < self.settings.connections_high_water {
                self.try_dial(peer, vec![plain]);
            }
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

/// Returns whether a received value is a valid IPNS record that replaces the stored one.
fn is_newer_name(received: &Record, stored: &Records) -> bool {
    let name = received.key.as_ref().strip_prefix(b"/ipns/");
    let Some(name) = name.and_then(|bytes| PeerId::from_bytes(bytes).ok()) else {
        return false;
    };
    let Ok(new) = ipns::Record::verified(&name, &received.value, Timestamp::now()) else {
        return false;
    };
    let old = stored.get(&received.key);
    let old = old.and_then(|old| ipns::Record::parse(&old.value).ok());
    old.is_none_or(|old| new.replaces(&old))
}

/// Stores a value among those that this node serves.
fn store_value(dht: &mut Dht, key: Vec<u8>, value: Vec<u8>) {
    let record = Record::new(RecordKey::from(key), value);
    if let Err(error) = dht.kad().store_mut().put(record) {
        tracing::warn!(%error, "a value was not stored among the records of the dht");
    }
}
