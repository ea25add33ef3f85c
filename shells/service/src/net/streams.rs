//! The behaviour that opens and accepts streams. Both go directly between the connection's task and the
//! stream's user, past the swarm: no shared queue in which one peer's streams displace another's.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use cluster_core::PeerId;
use futures::future::{Ready, ready};
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p::core::{Endpoint, Multiaddr};
use libp2p::swarm::handler::{
    ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
    Stream, StreamUpgradeError, SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use tokio::sync::{mpsc, oneshot};

use super::links::Links;
use super::peer_id_of;

/// Openings queued for a connection's task. A connection carries fewer streams than that.
const OPENINGS_MAX: usize = 512;

/// Maximum wait for a peer to agree to a stream.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// Protocol of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Protocol {
    /// Core messages, in one direction.
    Core = 0,
    /// One call, see `rpc`.
    Rpc = 1,
    /// One snapshot transfer.
    Snapshot = 2,
}

impl Protocol {
    pub(super) const ALL: [Self; 3] = [Self::Core, Self::Rpc, Self::Snapshot];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Core => "/ipfs-cluster/core/1",
            Self::Rpc => "/ipfs-cluster/rpc/1",
            Self::Snapshot => "/ipfs-cluster/snapshot/1",
        }
    }
}

/// Request to open a stream.
pub(super) struct Opening {
    pub(super) protocol: Protocol,
    pub(super) reply: oneshot::Sender<Result<Stream, String>>,
}

/// Callback for streams that peers open. Called by the connection's task, so it must not block.
pub(super) type Accept = Arc<dyn Fn(PeerId, Protocol, Stream) + Send + Sync>;

/// Upgrade that accepts any of the protocols.
pub(super) struct Inbound;

impl UpgradeInfo for Inbound {
    type Info = &'static str;
    type InfoIter = std::array::IntoIter<&'static str, 3>;

    fn protocol_info(&self) -> Self::InfoIter {
        Protocol::ALL.map(Protocol::name).into_iter()
    }
}

impl InboundUpgrade<Stream> for Inbound {
    type Output = (Protocol, Stream);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, name: &'static str) -> Self::Future {
        let protocol = Protocol::ALL.into_iter().find(|protocol| protocol.name() == name);
        ready(Ok((protocol.unwrap_or(Protocol::Rpc), stream)))
    }
}

/// Upgrade that asks for one protocol.
pub(super) struct Outbound(Protocol);

impl UpgradeInfo for Outbound {
    type Info = &'static str;
    type InfoIter = std::iter::Once<&'static str>;

    fn protocol_info(&self) -> Self::InfoIter {
        std::iter::once(self.0.name())
    }
}

impl OutboundUpgrade<Stream> for Outbound {
    type Output = Stream;
    type Error = Infallible;
    type Future = Ready<Result<Stream, Infallible>>;

    fn upgrade_outbound(self, stream: Stream, _: &'static str) -> Self::Future {
        ready(Ok(stream))
    }
}

/// Handler of one connection.
pub(super) struct Handler {
    peer: PeerId,
    openings: mpsc::Receiver<Opening>,
    accept: Accept,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Infallible;
    type ToBehaviour = Infallible;
    type InboundProtocol = Inbound;
    type OutboundProtocol = Outbound;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = oneshot::Sender<Result<Stream, String>>;

    fn listen_protocol(&self) -> SubstreamProtocol<Inbound> {
        SubstreamProtocol::new(Inbound, ()).with_timeout(OPEN_TIMEOUT)
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Outbound, Self::OutboundOpenInfo, Infallible>> {
        while let Poll::Ready(Some(opening)) = self.openings.poll_recv(context) {
            if opening.reply.is_closed() {
                continue;
            }
            let protocol = SubstreamProtocol::new(Outbound(opening.protocol), opening.reply);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
                protocol: protocol.with_timeout(OPEN_TIMEOUT),
            });
        }
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, event: Infallible) {
        match event {}
    }

    #[allow(
        clippy::wildcard_enum_match_arm,
        reason = "libp2p's enum, of which streams are all that matters here"
    )]
    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Inbound, Outbound, (), Self::OutboundOpenInfo>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, .. }) => {
                (self.accept)(self.peer.clone(), protocol.0, protocol.1);
            }
            // A requester that no longer waits drops the stream, which resets it.
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, info }) => {
                drop(info.send(Ok(protocol)));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
                let why = match error {
                    StreamUpgradeError::Timeout => "the peer does not answer".to_owned(),
                    StreamUpgradeError::Apply(never) => match never {},
                    StreamUpgradeError::NegotiationFailed => {
                        "the peer does not speak this protocol".to_owned()
                    }
                    StreamUpgradeError::Io(error) => error.to_string(),
                };
                drop(info.send(Err(why)));
            }
            _ => {}
        }
    }
}

/// Keeps [`Links`] up to date with the connections.
pub(super) struct Behaviour {
    links: Arc<Links>,
    accept: Accept,
    /// Connections that another behaviour may still deny.
    fresh: HashMap<ConnectionId, mpsc::Sender<Opening>>,
}

impl Behaviour {
    pub(super) fn new(links: Arc<Links>, accept: Accept) -> Self {
        Self {
            links,
            accept,
            fresh: HashMap::new(),
        }
    }

    fn handler(&mut self, id: ConnectionId, peer: libp2p::PeerId) -> Handler {
        let (sender, openings) = mpsc::channel(OPENINGS_MAX);
        self.fresh.insert(id, sender);
        Handler {
            peer: peer_id_of(&peer),
            openings,
            accept: Arc::clone(&self.accept),
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: libp2p::PeerId,
        _local: &Multiaddr,
        _remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(id, peer))
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: libp2p::PeerId,
        _address: &Multiaddr,
        _role: Endpoint,
        _port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(id, peer))
    }

    #[allow(
        clippy::wildcard_enum_match_arm,
        reason = "libp2p's enum, of which connections are all that matters here"
    )]
    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(made) => {
                if let Some(openings) = self.fresh.remove(&made.connection_id) {
                    self.links
                        .add(peer_id_of(&made.peer_id), made.connection_id, openings);
                }
            }
            FromSwarm::ConnectionClosed(lost) => {
                self.links.remove(&peer_id_of(&lost.peer_id), lost.connection_id);
            }
            FromSwarm::DialFailure(failed) => drop(self.fresh.remove(&failed.connection_id)),
            FromSwarm::ListenFailure(failed) => drop(self.fresh.remove(&failed.connection_id)),
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        _peer: libp2p::PeerId,
        _id: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}
