//! Connections: their opening and closing, trimming, neighbours in the local network, and relays.

use super::Task;
use crate::store::lock;
use crate::swarm::addresses::{Reach, Scope, is_relayed, reach};
use crate::swarm::split;
use crate::swarm::trimming::{self, Candidate, Purpose};
use crate::{ConnectedPeer, Error};
use libp2p::core::ConnectedPoint;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{ConnectionId, DialError};
use libp2p::{Multiaddr, PeerId};
use std::time::Instant;

/// Limit on nodes that are dialled because mDNS found them.
const LAN_PEERS_MAX: usize = 32;
/// Limit on relays on which this node reserves a place while it is not reachable.
const RELAYS_MAX: usize = 2;
/// Protocol of relays that grant reservations.
const RELAY_PROTOCOL: &str = "/libp2p/circuit/relay/0.2.0/hop";

/// A connection.
pub(super) struct Remote {
    pub(super) peer: PeerId,
    pub(super) address: Multiaddr,
    pub(super) opened: Instant,
    pub(super) purpose: Purpose,
}

impl Task {
    pub(super) fn connected(
        &mut self,
        peer_id: PeerId,
        connection_id: ConnectionId,
        endpoint: ConnectedPoint,
    ) {
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

    pub(super) fn closed(&mut self, peer_id: PeerId, connection_id: ConnectionId, remaining: u32) {
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

    pub(super) fn dial_failed(
        &mut self,
        connection_id: ConnectionId,
        peer: Option<PeerId>,
        error: &DialError,
    ) {
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

    /// Closes the connections that are not needed.
    pub(super) fn trim(&mut self, now: Instant) {
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

    /// Connects to nodes that mDNS found in the local network.
    pub(super) fn discovered(&mut self, found: Vec<(PeerId, Multiaddr)>) {
        for (peer, address) in found.into_iter().take(LAN_PEERS_MAX) {
            let plain = split(address.clone()).map_or(address, |(_, plain)| plain);
            if Scope::Local.contains(&plain) && self.remotes.len() < self.settings.connections_high_water {
                self.try_dial(peer, vec![plain]);
            }
        }
    }

    /// Reserves places on relays while no direct address is confirmed.
    pub(super) fn use_relays(&mut self) {
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
}
