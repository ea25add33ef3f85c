//! Hole punching (DCUtR): replaces a relayed connection by a direct one, which both sides dial at once.
//!
//! `libp2p-dcutr` dials whatever addresses the other side names. Here they must be public and direct, and
//! dials are limited: strangers must not use this node to reach its own network, or to flood somebody else.

use super::delegation::delegate_connections;
use super::dial_limits::{AskedDials, are_public};
use libp2p::core::Endpoint;
use libp2p::dcutr::{Behaviour, Event};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};
use std::task::{Context, Poll};

/// DCUtR with limits.
pub(super) struct HolePunching {
    inner: Behaviour,
    dials: AskedDials,
}

impl HolePunching {
    pub(super) fn new(local: PeerId) -> HolePunching {
        HolePunching {
            inner: Behaviour::new(local),
            dials: AskedDials::default(),
        }
    }
}

impl NetworkBehaviour for HolePunching {
    type ConnectionHandler = THandler<Behaviour>;
    type ToSwarm = Event;

    delegate_connections!(self, |id, remote| self.inner, |id| self.inner);

    fn handle_pending_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        _role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.dials.check(id, peer, addresses)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        // What peers in the local network observe is of no use to others, and another node with these rules
        // would refuse all addresses for it.
        if let FromSwarm::NewExternalAddrCandidate(candidate) = &event
            && !are_public(std::slice::from_ref(candidate.addr))
        {
            return;
        }
        self.inner.on_swarm_event(event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Event, THandlerInEvent<Self>>> {
        let next = self.inner.poll(cx);
        self.dials.note(&next);
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_dialled_at_the_request_of_a_peer() {
        let mut punching = HolePunching::new(PeerId::random());
        let mut dial = |number, addresses: &[&str]| {
            let id = ConnectionId::new_unchecked(number);
            punching.dials.asked.insert(id);
            let addresses: Vec<Multiaddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
            let peer = Some(PeerId::random());
            punching
                .handle_pending_outbound_connection(id, peer, &addresses, Endpoint::Dialer)
                .is_ok()
        };
        assert!(dial(1, &["/ip4/1.2.3.4/tcp/1", "/ip4/1.2.3.4/udp/1/quic-v1"]));
        assert!(!dial(2, &["/ip4/1.2.3.4/tcp/1", "/ip4/192.168.1.1/tcp/80"]));
        assert!(!dial(3, &[]));
    }
}
