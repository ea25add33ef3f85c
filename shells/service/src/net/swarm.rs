//! The task that owns the swarm: connections, dialling, addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU8;
use std::sync::Arc;
use std::time::Duration;

use cluster_core::PeerId;
use futures::StreamExt;
use libp2p::core::ConnectedPoint;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{DialError, ListenError, NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, Swarm, connection_limits, identify, ping};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::address_book::is_loopback;
use super::dial::Redial;
use super::hello;
use super::losses::LossLog;
use super::shared::Shared;
use super::start::announce_addresses;
use super::streams;
use super::{libp2p_id_of, outbox, peer_id_of};

/// Maximum number of tasks waiting for a connection to one peer at the same time.
const WAITERS_MAX: usize = 1_024;

/// Connections kept per peer: two, because both may dial at once.
const CONNECTIONS_PER_PEER: usize = 2;

/// Interval of traffic samples.
const TICK: Duration = Duration::from_secs(1);

/// Addresses of a peer that are dialled in parallel.
const DIALS_AT_ONCE: NonZeroU8 = NonZeroU8::new(8).unwrap();

/// Command to the task.
pub(super) enum Command {
    /// The members have changed to these.
    Members(Arc<BTreeSet<PeerId>>),
    /// New addresses of this peer are known: dial them if it is a member.
    AddressesAdded(PeerId),
    /// Connect to this peer, and reply.
    Dial {
        peer: PeerId,
        reply: oneshot::Sender<Result<(), String>>,
    },
}

/// The behaviours of a connection.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    pub(super) limits: connection_limits::Behaviour,
    pub(super) identify: identify::Behaviour,
    pub(super) ping: ping::Behaviour,
    // Last, so that a connection that another behaviour denies does not become a link.
    pub(super) streams: streams::Behaviour,
}

/// State of the task.
pub(super) struct SwarmTask {
    swarm: Swarm<Behaviour>,
    shared: Arc<Shared>,
    commands: mpsc::Receiver<Command>,
    members: Arc<BTreeSet<PeerId>>,
    redial: Redial,
    waiters: BTreeMap<PeerId, Vec<oneshot::Sender<Result<(), String>>>>,
    /// Remote address of each connected peer.
    remotes: BTreeMap<PeerId, Multiaddr>,
    /// Addresses announced by connected non-members, which may become members.
    announced: BTreeMap<PeerId, Vec<Multiaddr>>,
}

impl SwarmTask {
    pub(super) fn new(
        swarm: Swarm<Behaviour>,
        shared: Arc<Shared>,
        commands: mpsc::Receiver<Command>,
    ) -> Self {
        Self {
            swarm,
            shared,
            commands,
            members: Arc::default(),
            redial: Redial::default(),
            waiters: BTreeMap::new(),
            remotes: BTreeMap::new(),
            announced: BTreeMap::new(),
        }
    }

    /// Runs until the network is shut down.
    pub(super) async fn run(mut self) {
        let mut ticks: Interval = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last_tick = Instant::now();
        loop {
            let next_dial = self.redial.next();
            let dial = async move {
                match next_dial {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                event = self.swarm.select_next_some() => self.on_event(event),
                command = self.commands.recv() => match command {
                    Some(command) => self.on_command(command),
                    None => return,
                },
                () = dial => {
                    for peer in self.redial.take_due(Instant::now()) {
                        self.dial(&peer);
                    }
                }
                now = ticks.tick() => {
                    self.shared.meters.tick(now - last_tick);
                    last_tick = now;
                }
            }
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Members(members) => self.set_members(members),
            Command::AddressesAdded(peer) => {
                if self.redial.is_trying(&peer) {
                    self.redial.soon(peer, Instant::now(), 0.0);
                }
            }
            Command::Dial { peer, reply } => {
                if self.shared.links.is_up(&peer) {
                    drop(reply.send(Ok(())));
                    return;
                }
                let waiters = self.waiters.entry(peer.clone()).or_default();
                waiters.retain(|waiter| !waiter.is_closed());
                if waiters.len() >= WAITERS_MAX {
                    drop(reply.send(Err(format!(
                        "{WAITERS_MAX} others wait for a connection to it already"
                    ))));
                    return;
                }
                waiters.push(reply);
                self.dial(&peer);
            }
        }
    }

    fn set_members(&mut self, members: Arc<BTreeSet<PeerId>>) {
        let before = std::mem::replace(&mut self.members, members);
        for gone in before.difference(&self.members) {
            self.redial.stop(gone);
            self.shared.set_failure(gone, None);
            if let Some(id) = libp2p_id_of(gone) {
                self.swarm.behaviour_mut().limits.remove_peer_id(&id);
            }
        }
        let now = Instant::now();
        let added: Vec<PeerId> = self.members.difference(&before).cloned().collect();
        for peer in added.into_iter().filter(|peer| *peer != self.shared.me) {
            if let Some(id) = libp2p_id_of(&peer) {
                self.swarm.behaviour_mut().limits.bypass_peer_id(&id);
            }
            outbox::ensure(&self.shared, &peer);
            if let Some(addresses) = self.announced.remove(&peer) {
                self.learn(&peer, addresses);
            }
            if !self.shared.links.is_up(&peer) {
                self.redial.soon(peer, now, rand::random_range(0.0..1.0));
            }
        }
    }

    /// Dials a peer, unless a dial is in progress. Failure comes as an event, or at once.
    fn dial(&mut self, peer: &PeerId) {
        let addresses = self
            .shared
            .book
            .lock()
            .expect("no panic while locked")
            .addresses(peer);
        let Some(id) = libp2p_id_of(peer) else {
            return self.dial_failed(peer, "its id is not one of libp2p's");
        };
        if addresses.is_empty() {
            return self.dial_failed(peer, "no address of it is known");
        }
        let options = DialOpts::peer_id(id)
            .condition(PeerCondition::DisconnectedAndNotDialing)
            .override_dial_concurrency_factor(DIALS_AT_ONCE)
            .addresses(addresses)
            // With the listening port as source port, dials would collide with earlier connections that are
            // still closing.
            .allocate_new_port()
            .build();
        match self.swarm.dial(options) {
            Ok(()) | Err(DialError::DialPeerConditionFalse(_)) => {}
            Err(error) => self.dial_failed(peer, &error.to_string()),
        }
    }

    fn dial_failed(&mut self, peer: &PeerId, why: &str) {
        if self.shared.links.is_up(peer) {
            return;
        }
        self.redial
            .failed(peer, Instant::now(), rand::random_range(0.0..1.0));
        for waiter in self.waiters.remove(peer).unwrap_or_default() {
            drop(waiter.send(Err(why.to_owned())));
        }
        self.shared.set_failure(peer, Some(why));
        // Another reason is logged as well: a peer that starts refuses connections before it refuses our
        // secret.
        let news = || self.shared.losses.should_log(format!("{peer} {why}"), "dial");
        if self.members.contains(peer) && news() {
            tracing::info!(%peer, "cannot connect, trying again: {why}");
        }
    }

    #[allow(
        clippy::wildcard_enum_match_arm,
        reason = "libp2p's enum: the rest is of no consequence here"
    )]
    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::ConnectionEstablished {
                peer_id, endpoint, ..
            } => self.connected(peer_id, &endpoint),
            SwarmEvent::ConnectionClosed {
                peer_id,
                num_established: 0,
                cause,
                ..
            } => {
                let why = cause.map_or_else(|| "closed".to_owned(), |cause| cause.to_string());
                self.disconnected(&peer_id_of(&peer_id), &why);
            }
            SwarmEvent::OutgoingConnectionError {
                peer_id: Some(peer_id),
                error,
                ..
            } => {
                self.dial_failed(&peer_id_of(&peer_id), &describe(&error));
            }
            SwarmEvent::IncomingConnectionError {
                send_back_addr,
                error,
                ..
            } => {
                self.handshake_failed(&send_back_addr, &error);
            }
            SwarmEvent::NewListenAddr { .. } | SwarmEvent::ExpiredListenAddr { .. } => {
                let listening: Vec<Multiaddr> = self.swarm.listeners().cloned().collect();
                announce_addresses(&mut self.swarm, &self.shared.announce, &listening);
                *self.shared.listening.write().expect("no panic while locked") = listening;
            }
            SwarmEvent::ListenerClosed {
                addresses, reason, ..
            } => {
                tracing::error!(
                    ?addresses,
                    ?reason,
                    "a listener closed: other peers cannot connect there"
                );
            }
            SwarmEvent::ListenerError { error, .. } => tracing::warn!("a listener failed to accept: {error}"),
            SwarmEvent::Behaviour(BehaviourEvent::Identify(event)) => self.identified(event),
            SwarmEvent::Behaviour(BehaviourEvent::Ping(event)) => {
                if let Err(ping::Failure::Timeout | ping::Failure::Other { .. }) = event.result {
                    tracing::debug!(peer = %event.peer, "no answer to a ping, hanging up");
                    self.swarm.close_connection(event.connection);
                }
            }
            _ => {}
        }
    }

    fn connected(&mut self, id: libp2p::PeerId, endpoint: &ConnectedPoint) {
        let peer = peer_id_of(&id);
        tracing::debug!(%peer, address = %endpoint.get_remote_address(), "connected");
        self.redial.stop(&peer);
        self.shared.set_failure(&peer, None);
        self.remotes
            .insert(peer.clone(), endpoint.get_remote_address().clone());
        for waiter in self.waiters.remove(&peer).unwrap_or_default() {
            drop(waiter.send(Ok(())));
        }
        for surplus in self.shared.links.surplus(&peer, CONNECTIONS_PER_PEER) {
            self.swarm.close_connection(surplus);
        }
    }

    fn disconnected(&mut self, peer: &PeerId, why: &str) {
        tracing::debug!(%peer, "disconnected: {why}");
        self.remotes.remove(peer);
        self.announced.remove(peer);
        if self.members.contains(peer) {
            self.shared.core.unreachable(peer);
            self.redial
                .soon(peer.clone(), Instant::now(), rand::random_range(0.0..1.0));
        }
    }

    fn identified(&mut self, event: identify::Event) {
        let identify::Event::Received { peer_id, info, .. } = event else {
            return;
        };
        let peer = peer_id_of(&peer_id);
        let knows = self
            .shared
            .book
            .lock()
            .expect("no panic while locked")
            .contains(&peer);
        if self.members.contains(&peer) || knows {
            self.learn(&peer, info.listen_addrs);
        } else if self.remotes.contains_key(&peer) {
            self.announced.insert(peer, info.listen_addrs);
        }
    }

    /// Stores the addresses that a connected peer announced.
    fn learn(&self, peer: &PeerId, addresses: Vec<Multiaddr>) {
        let near = self.remotes.get(peer).is_some_and(is_loopback);
        let changed = self
            .shared
            .book
            .lock()
            .expect("no panic while locked")
            .learn(peer, addresses, near);
        if changed {
            self.shared.book_changes.send_modify(|change| *change += 1);
        }
    }

    fn handshake_failed(&self, from: &Multiaddr, error: &ListenError) {
        LossLog::count(&self.shared.losses.handshakes);
        // The port differs between attempts.
        let host = from
            .iter()
            .next()
            .map(|host| host.to_string())
            .unwrap_or_default();
        let about_secrets = hello::Error::within(error).is_some_and(hello::Error::is_about_secrets);
        let complaint = if about_secrets { "secret" } else { "handshake" };
        if self.shared.losses.should_log(host, complaint) {
            tracing::warn!(
                address = %from,
                "a connection failed before it was known whose it is: {}",
                cause(error)
            );
        }
    }
}

/// Describes a dial error address by address, without libp2p's nesting.
fn describe(error: &DialError) -> String {
    let DialError::Transport(attempts) = error else {
        return error.to_string();
    };
    let reasons = attempts
        .iter()
        .map(|(address, error)| format!("{address}: {}", cause(error)));
    reasons.collect::<Vec<_>>().join(", ")
}

/// Returns the root cause of an error.
fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    if let Some(error) = hello::Error::within(error) {
        return error.to_string();
    }
    let mut reason = error;
    while let Some(source) = reason.source() {
        reason = source;
    }
    reason.to_string()
}
