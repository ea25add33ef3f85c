//! AutoNAT v2 server: tells other nodes whether an address of theirs can be reached, by dialling it.
//!
//! `libp2p-autonat` dials whatever address a client names, any number of times. Here only public, direct
//! addresses are dialled, and within limits: strangers must not use this node to reach its own network, or to
//! flood somebody else. A client that names an address other than its own must send data first, which that
//! crate takes care of.

use super::delegation::delegate_connections;
use super::dial_limits::AskedDials;
use libp2p::autonat::v2::server;
use libp2p::core::Endpoint;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};
use std::task::{Context, Poll};

/// AutoNAT v2 server with limits.
#[derive(Default)]
pub(super) struct DialBack {
    inner: server::Behaviour,
    dials: AskedDials,
}

impl NetworkBehaviour for DialBack {
    type ConnectionHandler = THandler<server::Behaviour>;
    type ToSwarm = server::Event;

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
        self.inner.on_swarm_event(event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<server::Event, THandlerInEvent<Self>>> {
        let next = self.inner.poll(cx);
        self.dials.note(&next);
        next
    }
}

#[cfg(test)]
mod tests {
    use super::super::dial_limits::{CLIENT_DIALS_MAX, DIALS_MAX};
    use super::*;

    #[test]
    fn only_public_addresses_are_dialled_back_and_not_too_often() {
        let mut server = DialBack::default();
        let public = || vec!["/ip4/1.2.3.4/tcp/4001".parse::<Multiaddr>().unwrap()];
        let mut dial = |number, peer, addresses: Vec<Multiaddr>| {
            let id = ConnectionId::new_unchecked(number);
            server.dials.asked.insert(id);
            server
                .handle_pending_outbound_connection(id, Some(peer), &addresses, Endpoint::Dialer)
                .is_ok()
        };
        let client = PeerId::random();
        for (number, refused) in [
            "/ip4/10.0.0.1/tcp/4001",
            "/ip4/127.0.0.1/tcp/4001",
            "/dns4/localhost/tcp/4001",
            "/ip4/1.2.3.4/tcp/4001/p2p/12D3KooWKnDdG3iXw9eTFijk3EWSunZcFi54Zka4wmtqtt6rPxc8/p2p-circuit",
        ]
        .into_iter()
        .enumerate()
        {
            assert!(!dial(number, client, vec![refused.parse().unwrap()]), "{refused}");
        }
        assert!((0..CLIENT_DIALS_MAX).all(|number| dial(number, client, public())));
        assert!(!dial(0, client, public()));
        let others = (CLIENT_DIALS_MAX..DIALS_MAX).all(|number| dial(number, PeerId::random(), public()));
        assert!(others && !dial(0, PeerId::random(), public()));
        // Dials of others are not its business.
        let id = ConnectionId::new_unchecked(1);
        let other = server.handle_pending_outbound_connection(id, None, &[], Endpoint::Dialer);
        assert!(other.is_ok());
    }
}
