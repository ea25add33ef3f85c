//! Encryption of connections over TCP and relays: Noise, and TLS 1.3, which servers of the public DHT must
//! offer too. QUIC has its own.
//!
//! Noise is offered first, because js-libp2p has no TLS by default.

use futures::future::{BoxFuture, Either};
use futures::{AsyncRead, AsyncWrite, FutureExt, TryFutureExt};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo};
use libp2p::identity::Keypair;
use libp2p::tls::TlsStream;
use libp2p::{PeerId, noise, tls};
use std::io;
use std::iter::{Chain, Once};

/// Both protocols, with the identity of this node.
#[derive(Clone)]
pub(super) struct Security {
    noise: noise::Config,
    tls: tls::Config,
}

/// An encrypted connection, and the identity that the peer has proved.
type Authenticated<C> = (PeerId, Either<noise::Output<C>, TlsStream<C>>);
type Handshake<C> = BoxFuture<'static, io::Result<Authenticated<C>>>;

impl Security {
    /// # Errors
    /// A certificate for the key cannot be generated.
    pub(super) fn new(keypair: &Keypair) -> io::Result<Security> {
        Ok(Security {
            noise: noise::Config::new(keypair).map_err(io::Error::other)?,
            tls: tls::Config::new(keypair).map_err(io::Error::other)?,
        })
    }

    fn is_tls(&self, protocol: &str) -> bool {
        self.tls.protocol_info().any(|name| name == protocol)
    }
}

impl UpgradeInfo for Security {
    type Info = &'static str;
    type InfoIter = Chain<Once<&'static str>, Once<&'static str>>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.noise.protocol_info().chain(self.tls.protocol_info())
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin + Send + 'static> InboundConnectionUpgrade<C> for Security {
    type Output = Authenticated<C>;
    type Error = io::Error;
    type Future = Handshake<C>;

    fn upgrade_inbound(self, socket: C, protocol: &'static str) -> Self::Future {
        if self.is_tls(protocol) {
            let handshake = self.tls.upgrade_inbound(socket, protocol);
            let handshake = handshake.map_ok(|(peer, stream)| (peer, Either::Right(stream)));
            handshake.map_err(io::Error::other).boxed()
        } else {
            let handshake = self.noise.upgrade_inbound(socket, protocol);
            let handshake = handshake.map_ok(|(peer, stream)| (peer, Either::Left(stream)));
            handshake.map_err(io::Error::other).boxed()
        }
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin + Send + 'static> OutboundConnectionUpgrade<C> for Security {
    type Output = Authenticated<C>;
    type Error = io::Error;
    type Future = Handshake<C>;

    fn upgrade_outbound(self, socket: C, protocol: &'static str) -> Self::Future {
        if self.is_tls(protocol) {
            let handshake = self.tls.upgrade_outbound(socket, protocol);
            let handshake = handshake.map_ok(|(peer, stream)| (peer, Either::Right(stream)));
            handshake.map_err(io::Error::other).boxed()
        } else {
            let handshake = self.noise.upgrade_outbound(socket, protocol);
            let handshake = handshake.map_ok(|(peer, stream)| (peer, Either::Left(stream)));
            handshake.map_err(io::Error::other).boxed()
        }
    }
}
