//! Delegation of connections, for behaviours that wrap others.

/// Implements the methods of `NetworkBehaviour` about single connections, but for the choice of addresses to
/// dial, by those of a wrapped behaviour. The first expression returns it for a new connection, by its id and
/// remote address; the second one for an existing connection.
macro_rules! delegate_connections {
    ($self:ident, |$id:ident, $remote:ident| $new:expr, |$known_id:ident| $known:expr) => {
        fn handle_established_inbound_connection(
            &mut $self,
            $id: ::libp2p::swarm::ConnectionId,
            peer: ::libp2p::PeerId,
            local: &::libp2p::Multiaddr,
            $remote: &::libp2p::Multiaddr,
        ) -> Result<::libp2p::swarm::THandler<Self>, ::libp2p::swarm::ConnectionDenied> {
            $new.handle_established_inbound_connection($id, peer, local, $remote)
        }

        fn handle_established_outbound_connection(
            &mut $self,
            $id: ::libp2p::swarm::ConnectionId,
            peer: ::libp2p::PeerId,
            $remote: &::libp2p::Multiaddr,
            role: ::libp2p::core::Endpoint,
            port_use: ::libp2p::core::transport::PortUse,
        ) -> Result<::libp2p::swarm::THandler<Self>, ::libp2p::swarm::ConnectionDenied> {
            $new.handle_established_outbound_connection($id, peer, $remote, role, port_use)
        }

        fn on_connection_handler_event(
            &mut $self,
            peer: ::libp2p::PeerId,
            $known_id: ::libp2p::swarm::ConnectionId,
            event: ::libp2p::swarm::THandlerOutEvent<Self>,
        ) {
            $known.on_connection_handler_event(peer, $known_id, event);
        }
    };
}
pub(super) use delegate_connections;
