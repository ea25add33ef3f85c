//! Bitswap's streams in the swarm. Every inbound stream is accepted: Kubo opens one per message, and a
//! behaviour that drops some of a burst loses blocks.

use super::Bitswap;
use crate::swarm::addresses::{Reach, reach};
use libp2p::PeerId;
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p::core::{ConnectedPoint, Endpoint, Multiaddr};
use libp2p::swarm::handler::{
    ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
    NotifyHandler, Stream, StreamProtocol, StreamUpgradeError, SubstreamProtocol, THandlerInEvent,
    THandlerOutEvent, ToSwarm,
};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll, Waker};
use tokio::sync::oneshot;

/// Names of the protocol versions, best first.
pub(crate) const PROTOCOLS: [&str; 4] = [
    "/ipfs/bitswap/1.2.0",
    "/ipfs/bitswap/1.1.0",
    "/ipfs/bitswap/1.0.0",
    "/ipfs/bitswap",
];

/// Version of the protocol that a peer speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Dialect {
    /// 1.0.0: blocks without CIDs.
    Bare,
    /// 1.1.0: blocks with the prefixes of their CIDs.
    Prefixed,
    /// 1.2.0: presences as well.
    Presences,
}

/// Failure to open a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OpenError {
    /// The peer does not support bitswap.
    Unsupported,
    /// The connection failed.
    Failed,
}

pub(crate) type Opened = Result<(Stream, Dialect), OpenError>;

/// Request to a handler for an outbound stream.
#[derive(Debug)]
pub(crate) struct Open(oneshot::Sender<Opened>);

#[derive(Debug, Clone, Copy)]
pub(crate) struct Upgrade;

impl UpgradeInfo for Upgrade {
    type Info = StreamProtocol;
    type InfoIter = [StreamProtocol; 4];

    fn protocol_info(&self) -> Self::InfoIter {
        PROTOCOLS.map(StreamProtocol::new)
    }
}

fn dialect(protocol: &StreamProtocol) -> Dialect {
    match protocol.as_ref() {
        "/ipfs/bitswap/1.2.0" => Dialect::Presences,
        "/ipfs/bitswap/1.1.0" => Dialect::Prefixed,
        _ => Dialect::Bare,
    }
}

impl InboundUpgrade<Stream> for Upgrade {
    type Output = Stream;
    type Error = Infallible;
    type Future = Ready<Result<Stream, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, _: StreamProtocol) -> Self::Future {
        ready(Ok(stream))
    }
}

impl OutboundUpgrade<Stream> for Upgrade {
    type Output = (Stream, Dialect);
    type Error = Infallible;
    type Future = Ready<Result<(Stream, Dialect), Infallible>>;

    fn upgrade_outbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        let dialect = dialect(&protocol);
        ready(Ok((stream, dialect)))
    }
}

/// Handler of one connection.
pub(crate) struct Handler {
    peer: PeerId,
    bitswap: Bitswap,
    opening: VecDeque<oneshot::Sender<Opened>>,
    waker: Option<Waker>,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Open;
    type ToBehaviour = Infallible;
    type InboundProtocol = Upgrade;
    type OutboundProtocol = Upgrade;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = oneshot::Sender<Opened>;

    fn listen_protocol(&self) -> SubstreamProtocol<Upgrade> {
        SubstreamProtocol::new(Upgrade, ())
    }

    /// Connections are kept, however idle: any of these peers may have a block wanted later. The swarm's task
    /// closes those that nothing uses when there are many.
    fn connection_keep_alive(&self) -> bool {
        true
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Upgrade, Self::OutboundOpenInfo, Infallible>> {
        match self.opening.pop_front() {
            Some(opened) => Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
                protocol: SubstreamProtocol::new(Upgrade, opened),
            }),
            None => {
                self.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn on_behaviour_event(&mut self, Open(opened): Open) {
        self.opening.push_back(opened);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "libp2p's events; the rest concern other protocols"
    )]
    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Upgrade, Upgrade, (), Self::OutboundOpenInfo>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, .. }) => {
                self.bitswap.accept(self.peer, protocol);
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, info }) => {
                // The requester may be gone; the stream is closed then.
                let _ = info.send(Ok(protocol));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
                let error = match error {
                    StreamUpgradeError::NegotiationFailed => OpenError::Unsupported,
                    StreamUpgradeError::Timeout | StreamUpgradeError::Io(_) => OpenError::Failed,
                    StreamUpgradeError::Apply(never) => match never {},
                };
                let _ = info.send(Err(error));
            }
            _ => {}
        }
    }
}

/// Behaviour in the swarm.
pub(crate) struct Behaviour {
    bitswap: Bitswap,
    opening: VecDeque<(PeerId, oneshot::Sender<Opened>)>,
    waker: Option<Waker>,
}

impl Behaviour {
    pub(crate) fn new(bitswap: Bitswap) -> Behaviour {
        Behaviour {
            bitswap,
            opening: VecDeque::new(),
            waker: None,
        }
    }

    /// Opens a stream to a connected peer. If the connection is gone, the sender is dropped.
    pub(crate) fn open(&mut self, peer: PeerId, opened: oneshot::Sender<Opened>) {
        self.opening.push_back((peer, opened));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn handler(&self, peer: PeerId) -> Handler {
        Handler {
            peer,
            bitswap: self.bitswap.clone(),
            opening: VecDeque::new(),
            waker: None,
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(self.handler(peer))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(self.handler(peer))
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "libp2p's events; the rest concern other protocols"
    )]
    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(established) if established.other_established == 0 => {
                let remote = match established.endpoint {
                    ConnectedPoint::Dialer { address, .. } => address,
                    ConnectedPoint::Listener { send_back_addr, .. } => send_back_addr,
                };
                let is_local = matches!(reach(remote), Reach::Private | Reach::Loopback);
                self.bitswap.peer_connected(established.peer_id, is_local);
            }
            FromSwarm::ConnectionClosed(closed) if closed.remaining_established == 0 => {
                self.bitswap.peer_disconnected(closed.peer_id);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        match self.opening.pop_front() {
            Some((peer_id, opened)) => Poll::Ready(ToSwarm::NotifyHandler {
                peer_id,
                handler: NotifyHandler::Any,
                event: Open(opened),
            }),
            None => {
                self.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}
