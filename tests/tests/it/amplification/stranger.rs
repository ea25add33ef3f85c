//! Misbehaving libp2p and bitswap node, connected to the swarm port.

use std::future::poll_fn;
use std::task::Poll;

use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::core::Endpoint;
use libp2p::core::muxing::{StreamMuxerBox, StreamMuxerExt, SubstreamBox};
use libp2p::core::transport::{DialOpts, PortUse, Transport};
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::{Multiaddr, PeerId, noise, tcp, yamux};
use tokio::sync::{mpsc, oneshot};

/// Protocol negotiation that precedes bitswap's first frame on a stream.
const NEGOTIATION: &[u8] = b"\x13/multistream/1.0.0\n\x14/ipfs/bitswap/1.2.0\n";

/// Connection with a new identity. It never reads what the peer sends.
pub(super) struct Stranger {
    opening: mpsc::UnboundedSender<oneshot::Sender<SubstreamBox>>,
}

impl Stranger {
    /// Connects to a port of this machine.
    pub(super) async fn connect(port: u16) -> Result<Self, String> {
        let keypair = Keypair::generate_ed25519();
        let noise = noise::Config::new(&keypair).expect("an ed25519 key signs");
        let mut transport = tcp::tokio::Transport::new(tcp::Config::new())
            .upgrade(Version::V1Lazy)
            .authenticate(noise)
            .multiplex(yamux::Config::default())
            .boxed();
        let address: Multiaddr = format!("/ip4/127.0.0.1/tcp/{port}").parse().expect("is one");
        let options = DialOpts {
            role: Endpoint::Dialer,
            port_use: PortUse::New,
        };
        let dial = transport
            .dial(address, options)
            .map_err(|error| error.to_string())?;
        let (_, muxer): (PeerId, StreamMuxerBox) = dial.await.map_err(|error| error.to_string())?;
        let (opening, requests) = mpsc::unbounded_channel();
        tokio::spawn(drive(muxer, requests));
        Ok(Self { opening })
    }

    /// Opens a stream for bitswap; `None` once the connection is closed.
    pub(super) async fn open(&self) -> Option<SubstreamBox> {
        let (reply, stream) = oneshot::channel();
        self.opening.send(reply).ok()?;
        let mut stream = stream.await.ok()?;
        stream.write_all(NEGOTIATION).await.ok()?;
        stream.flush().await.ok()?;
        Some(stream)
    }

    /// Sends bytes on a new stream; `None` once the connection is closed.
    pub(super) async fn send(&self, bytes: &[u8]) -> Option<SubstreamBox> {
        let mut stream = self.open().await?;
        stream.write_all(bytes).await.ok()?;
        stream.flush().await.ok()?;
        Some(stream)
    }

    /// Waits until the peer has closed the connection.
    pub(super) async fn closed(&self) {
        self.opening.closed().await;
    }

    /// Closes the stream once the peer has processed everything sent on it.
    pub(super) async fn finish(mut stream: SubstreamBox) {
        drop(stream.close().await);
        drop(stream.read_to_end(&mut Vec::new()).await);
    }
}

/// Drives the connection. Accepts the peer's streams, and keeps them without reading.
async fn drive(
    mut muxer: StreamMuxerBox,
    mut requests: mpsc::UnboundedReceiver<oneshot::Sender<SubstreamBox>>,
) {
    let mut request = None;
    poll_fn(move |cx| {
        while let Poll::Ready(inbound) = muxer.poll_inbound_unpin(cx) {
            let Ok(mut stream) = inbound else {
                return Poll::Ready(());
            };
            tokio::spawn(async move {
                drop(stream.write_all(NEGOTIATION).await);
                drop(stream.flush().await);
                std::future::pending::<()>().await;
            });
        }
        loop {
            if request.is_none() {
                match requests.poll_recv(cx) {
                    Poll::Ready(Some(next)) => request = Some(next),
                    Poll::Ready(None) => return Poll::Ready(()),
                    Poll::Pending => break,
                }
            }
            match muxer.poll_outbound_unpin(cx) {
                Poll::Ready(Ok(stream)) => {
                    if let Some(request) = request.take() {
                        drop(request.send(stream));
                    }
                }
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => break,
            }
        }
        while let Poll::Ready(event) = muxer.poll_unpin(cx) {
            if event.is_err() {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    })
    .await;
}

fn varint(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(u8::try_from(number & 0x7f).expect("seven bits") | 0x80);
        number >>= 7;
    }
    bytes.push(u8::try_from(number).expect("seven bits"));
    bytes
}

/// Encodes a bytes field of a protobuf message.
pub(super) fn field(number: u8, value: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2][..], &varint(value.len()), value].concat()
}

/// Encodes a bitswap message with a wantlist, after the negotiation of the stream.
pub(super) fn wantlist(entries: &[u8]) -> Vec<u8> {
    let message = field(1, entries);
    [varint(message.len()), message].concat()
}

/// Encodes a want of a block, with a response if it is missing.
pub(super) fn want(cid: &[u8]) -> Vec<u8> {
    field(1, &[&field(1, cid)[..], &[0x10, 1, 0x28, 1]].concat())
}

/// Encodes the cancel of a want.
pub(super) fn cancel(cid: &[u8]) -> Vec<u8> {
    field(1, &[&field(1, cid)[..], &[0x18, 1]].concat())
}

/// Encodes the start of a frame of 4 MiB, the largest allowed.
pub(super) fn frame_start() -> Vec<u8> {
    varint(4 << 20)
}
