//! Limits the connections of strangers. Kept peers are exempt.
//!
//! `libp2p-connection-limits` does not fit: it keeps an entry for every peer that was ever connected, and
//! strangers can create any number of identities; and it does not distinguish sources.

use crate::handshakes::{Source, source_of};
use libp2p::core::transport::PortUse;
use libp2p::core::{ConnectedPoint, Endpoint};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent,
    ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId};
use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::hash::Hash;
use std::task::{Context, Poll};

/// Limit on connections that strangers open to this node. Their memory is limited by [`super::peer_budget`].
const INCOMING_MAX: usize = 128;
/// Limit on connections opened by one source: half of all, so that no single source can take all places.
const PER_SOURCE_MAX: usize = 64;
/// Limit on connections with one peer: two after dialling each other simultaneously, and some that are
/// closing.
const PER_PEER_MAX: usize = 4;

/// Error of a connection beyond a limit.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{limit} connections {of} are open already")]
struct Exceeded {
    limit: usize,
    of: &'static str,
}

/// Behaviour that accepts or refuses connections.
#[derive(Debug, Default)]
pub(super) struct Admission {
    kept: HashSet<PeerId>,
    /// Connections opened by strangers.
    incoming: HashMap<ConnectionId, Source>,
    by_source: HashMap<Source, usize>,
    by_peer: HashMap<PeerId, usize>,
}

fn increment<K: Hash + Eq>(counts: &mut HashMap<K, usize>, key: K) {
    *counts.entry(key).or_default() += 1;
}

fn decrement<K: Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

impl Admission {
    /// Exempts a peer from all limits.
    pub(super) fn keep(&mut self, peer: PeerId) {
        self.kept.insert(peer);
    }

    /// Revokes the exemption of a peer.
    pub(super) fn release(&mut self, peer: &PeerId) {
        self.kept.remove(peer);
    }

    fn check(&self, peer: &PeerId, source: Option<Source>) -> Result<(), Exceeded> {
        if self.kept.contains(peer) {
            return Ok(());
        }
        let of_source = source.map_or(0, |source| self.by_source.get(&source).copied().unwrap_or(0));
        let limits = [
            (
                source.map_or(0, |_| self.incoming.len()),
                INCOMING_MAX,
                "of strangers",
            ),
            (of_source, PER_SOURCE_MAX, "from this address"),
            (
                self.by_peer.get(peer).copied().unwrap_or(0),
                PER_PEER_MAX,
                "with this peer",
            ),
        ];
        match limits.into_iter().find(|(open, limit, _)| open >= limit) {
            Some((_, limit, of)) => Err(Exceeded { limit, of }),
            None => Ok(()),
        }
    }

    fn established(&mut self, id: ConnectionId, peer: PeerId, source: Option<Source>) {
        increment(&mut self.by_peer, peer);
        if let Some(source) = source
            && !self.kept.contains(&peer)
        {
            self.incoming.insert(id, source);
            increment(&mut self.by_source, source);
        }
    }

    fn closed(&mut self, id: ConnectionId, peer: &PeerId) {
        decrement(&mut self.by_peer, peer);
        if let Some(source) = self.incoming.remove(&id) {
            decrement(&mut self.by_source, &source);
        }
    }
}

impl NetworkBehaviour for Admission {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let source = Some(source_of(remote));
        self.check(&peer, source).map_err(ConnectionDenied::new)?;
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.check(&peer, None).map_err(ConnectionDenied::new)?;
        Ok(dummy::ConnectionHandler)
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "libp2p's events; the rest changes no count"
    )]
    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(established) => {
                let source = match established.endpoint {
                    ConnectedPoint::Listener { send_back_addr, .. } => Some(source_of(send_back_addr)),
                    ConnectedPoint::Dialer { .. } => None,
                };
                self.established(established.connection_id, established.peer_id, source);
            }
            FromSwarm::ConnectionClosed(closed) => self.closed(closed.connection_id, &closed.peer_id),
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_are_limited_by_peer_source_and_total_until_closed() {
        let mut admission = Admission::default();
        let mut open = Vec::new();
        for number in 0..INCOMING_MAX {
            let (source, peer) = ((number / PER_SOURCE_MAX) as Source, PeerId::random());
            assert_eq!(admission.check(&peer, Some(source)), Ok(()));
            let id = ConnectionId::new_unchecked(number);
            admission.established(id, peer, Some(source));
            open.push((id, peer));
            let more = admission.check(&PeerId::random(), Some(source));
            assert_eq!(more.is_err(), (number + 1) % PER_SOURCE_MAX == 0, "{number}");
        }
        let newcomer = PeerId::random();
        assert_eq!(
            admission.check(&newcomer, Some(99)).unwrap_err().of,
            "of strangers"
        );
        assert_eq!(admission.check(&newcomer, None), Ok(()), "this node may dial");
        admission.keep(newcomer);
        assert_eq!(
            admission.check(&newcomer, Some(0)),
            Ok(()),
            "kept peers are exempt"
        );
        for (id, peer) in open {
            admission.closed(id, &peer);
        }
        assert!(
            admission.incoming.is_empty() && admission.by_source.is_empty() && admission.by_peer.is_empty()
        );
        let peer = PeerId::random();
        for number in 0..PER_PEER_MAX {
            assert_eq!(admission.check(&peer, Some(1)), Ok(()));
            admission.established(ConnectionId::new_unchecked(number), peer, Some(1));
        }
        assert_eq!(admission.check(&peer, Some(1)).unwrap_err().of, "with this peer");
    }
}
