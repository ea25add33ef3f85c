//! Transport below the streams: TCP, the secret hello, Noise and yamux; and checks of listen addresses.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::time::Duration;

use cluster_ipfs::handshakes::LimitedTransport;
use futures::io::BufReader;
use futures::{AsyncRead, AsyncWrite};
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::Boxed;
use libp2p::core::transport::timeout::TransportTimeout;
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade};
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId, Transport, dns, noise, tcp, yamux};

use super::error::StartError;
use super::hello::{self, Keys};

/// Time limit of the handshake, from the first packet to an encrypted connection. Also closes connections
/// that send garbage.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Incoming connections in the handshake. Each costs some 140 KiB. In a flood the oldest of the busiest
/// address gives way to a newcomer.
const HANDSHAKES_MAX: usize = 256;

/// Streams of one connection, of both sides together. yamux closes a connection that exceeds it, so it is
/// far above what the limits on calls allow: 256 each way, and a handful of long-lived ones.
const STREAMS_MAX: usize = 1_024;

/// Read-ahead of a connection: one message of Noise, which is otherwise read in eight pieces.
const READ_AHEAD: usize = 64 << 10;

/// Builds the transport. Peers without a common secret are refused before Noise.
pub(super) fn build(keypair: &Keypair, secrets: Keys) -> Result<Boxed<(PeerId, StreamMuxerBox)>, StartError> {
    let noise = noise::Config::new(keypair).map_err(|error| StartError::Identity(error.to_string()))?;
    let mut yamux = yamux::Config::default();
    yamux.set_max_num_streams(STREAMS_MAX);
    let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true));
    let transport = dns::tokio::Transport::system(tcp)?.and_then(move |socket, point| async move {
        let dialed = point.is_dialer();
        connect(socket, dialed, &secrets, noise, yamux).await
    });
    Ok(LimitedTransport::new(
        TransportTimeout::new(transport, HANDSHAKE_TIMEOUT),
        HANDSHAKES_MAX,
    )
    .boxed())
}

/// Runs the handshake. Noise and yamux are fixed, so that nothing has to be negotiated on the way.
async fn connect(
    socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    dialed: bool,
    secrets: &Keys,
    noise: noise::Config,
    yamux: yamux::Config,
) -> io::Result<(PeerId, StreamMuxerBox)> {
    const NOISE: &str = "/noise";
    const YAMUX: &str = "/yamux/1.0.0";
    let mut socket = BufReader::with_capacity(READ_AHEAD, socket);
    if dialed {
        let prologue = hello::dial(&mut socket, secrets)
            .await
            .map_err(io::Error::other)?;
        let noise = noise.with_prologue(prologue);
        let (peer, io) = noise
            .upgrade_outbound(socket, NOISE)
            .await
            .map_err(io::Error::other)?;
        Ok((
            peer,
            StreamMuxerBox::new(yamux.upgrade_outbound(io, YAMUX).await?),
        ))
    } else {
        let prologue = hello::answer(&mut socket, secrets)
            .await
            .map_err(io::Error::other)?;
        let noise = noise.with_prologue(prologue);
        let (peer, io) = noise
            .upgrade_inbound(socket, NOISE)
            .await
            .map_err(io::Error::other)?;
        Ok((peer, StreamMuxerBox::new(yamux.upgrade_inbound(io, YAMUX).await?)))
    }
}

/// Filters the addresses that can be listened on. A Go peer's configuration lists a QUIC address by
/// default, and such a configuration must keep working.
pub(super) fn usable_listen_addresses(configured: &[Multiaddr]) -> Result<Vec<Multiaddr>, StartError> {
    let is_quic = |address: &Multiaddr| {
        address
            .iter()
            .any(|part| matches!(part, Protocol::Quic | Protocol::QuicV1 | Protocol::Udp(_)))
    };
    let (skipped, usable): (Vec<_>, Vec<_>) = configured.iter().cloned().partition(is_quic);
    for address in &skipped {
        tracing::warn!(%address, "not listening on this address: peers talk over TCP only");
    }
    if usable.is_empty() {
        let skipped: Vec<String> = skipped.iter().map(ToString::to_string).collect();
        return Err(StartError::NoAddress(skipped.join(", ")));
    }
    usable.iter().try_for_each(check_free)?;
    Ok(usable)
}

/// Checks that no process listens there. libp2p listens with `SO_REUSEPORT`, with which a second daemon of
/// the same user would get the same port and every other connection; a plain bind detects it.
fn check_free(address: &Multiaddr) -> Result<(), StartError> {
    let failed = |why: String| StartError::Listen {
        address: address.to_string(),
        why,
    };
    let parts: Vec<Protocol<'_>> = address.iter().collect();
    let socket = match parts.as_slice() {
        [Protocol::Ip4(ip), Protocol::Tcp(port)] => SocketAddr::new(IpAddr::V4(*ip), *port),
        [Protocol::Ip6(ip), Protocol::Tcp(port)] => SocketAddr::new(IpAddr::V6(*ip), *port),
        _ => {
            let why = "not an address like /ip4/0.0.0.0/tcp/9096 or /ip6/::/tcp/9096";
            return Err(failed(why.to_owned()));
        }
    };
    // A dual-stack socket would collide with an IPv4 one on the same port, which libp2p's does not.
    if socket.port() == 0 || socket.is_ipv6() && socket.ip().is_unspecified() {
        return Ok(());
    }
    TcpListener::bind(socket)
        .map(drop)
        .map_err(|error| failed(listen_hint(&error)))
}

/// Returns the text of a listen error, with advice.
pub(super) fn listen_hint(error: &io::Error) -> String {
    #[allow(
        clippy::wildcard_enum_match_arm,
        reason = "std's enum: everything else speaks for itself"
    )]
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => {
            ": another process has this port; stop it, or change cluster.listen_multiaddress"
        }
        io::ErrorKind::AddrNotAvailable => ": this machine has no such address",
        io::ErrorKind::PermissionDenied => ": ports below 1024 need special rights",
        _ => "",
    };
    format!("{error}{hint}")
}
