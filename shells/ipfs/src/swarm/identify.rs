//! Identify in the swarm. Peers in this node's local networks learn its listen addresses, all others only the
//! external addresses, which are reachable for them.
//!
//! `libp2p-identify` can only hide the listen addresses from everybody, so this behaviour has two of it and
//! chooses by the remote address of a connection.

use super::addresses::{Reach, reach};
use super::delegation::delegate_connections;
use libp2p::Multiaddr;
use libp2p::identify::{self, Event};
use libp2p::identity::Keypair;
use libp2p::swarm::{ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, ToSwarm};
use std::collections::HashSet;
use std::task::{Context, Poll};

/// Version of the protocol family.
const FAMILY: &str = "ipfs/0.1.0";

/// Behaviour with a behaviour for each kind of peer.
pub(super) struct Identify {
    local: identify::Behaviour,
    public: identify::Behaviour,
    /// Connections with peers in the local networks.
    local_connections: HashSet<ConnectionId>,
}

impl Identify {
    pub(super) fn new(keypair: &Keypair) -> Identify {
        // No cache: addresses of peers are dialled only where this node's policy allows it. No signed record:
        // this library signs one in a format of its own, and js-libp2p drops the message with it.
        let config = || {
            identify::Config::new(FAMILY.into(), keypair.public())
                .with_agent_version(super::AGENT.into())
                .with_push_listen_addr_updates(true)
                .with_cache_size(0)
        };
        Identify {
            local: identify::Behaviour::new(config()),
            public: identify::Behaviour::new(config().with_hide_listen_addrs(true)),
            local_connections: HashSet::new(),
        }
    }

    /// Returns the behaviour for a connection.
    fn of(&mut self, id: ConnectionId) -> &mut identify::Behaviour {
        match self.local_connections.contains(&id) {
            true => &mut self.local,
            false => &mut self.public,
        }
    }

    /// Returns the behaviour for a new connection.
    fn of_new(&mut self, id: ConnectionId, remote: &Multiaddr) -> &mut identify::Behaviour {
        if is_local(remote) {
            self.local_connections.insert(id);
        }
        self.of(id)
    }
}

/// Returns whether a peer with this remote address is in a local network.
fn is_local(remote: &Multiaddr) -> bool {
    match reach(remote) {
        Reach::Private | Reach::Loopback => true,
        Reach::Public | Reach::Nowhere => false,
    }
}

impl NetworkBehaviour for Identify {
    type ConnectionHandler = THandler<identify::Behaviour>;
    type ToSwarm = Event;

    delegate_connections!(self, |id, remote| self.of_new(id, remote), |id| self.of(id));

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "libp2p's events; the rest concern no single connection"
    )]
    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(established) => {
                self.of(established.connection_id).on_swarm_event(event);
            }
            FromSwarm::ConnectionClosed(closed) => {
                self.of(closed.connection_id).on_swarm_event(event);
                self.local_connections.remove(&closed.connection_id);
            }
            FromSwarm::AddressChange(change) => self.of(change.connection_id).on_swarm_event(event),
            // Denied by another behaviour, or lost before it was reported.
            FromSwarm::DialFailure(failure) => {
                self.local_connections.remove(&failure.connection_id);
            }
            FromSwarm::ListenFailure(failure) => {
                self.local_connections.remove(&failure.connection_id);
            }
            other => {
                self.local.on_swarm_event(other);
                self.public.on_swarm_event(other);
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Event, THandlerInEvent<Self>>> {
        if let Poll::Ready(event) = self.local.poll(cx) {
            return Poll::Ready(event);
        }
        self.public.poll(cx)
    }
}
