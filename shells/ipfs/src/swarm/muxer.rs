//! yamux multiplexer whose buffered bytes are charged to the peer's [`Account`].
//!
//! yamux grants each stream a window of 256 KiB, and a connection has up to [`STREAMS_MAX`] streams, which
//! Kubo needs: it opens one for each message. That makes 128 MiB for each connection, and libp2p's wrapper
//! lets windows grow up to 1 GiB. Here the windows are fixed, and their use is counted: the socket below
//! yamux adds each data frame's bytes to its stream, and the stream above subtracts them as they are read.
//! While the account has no room, the socket is not read.

use super::peer_budget::{Account, PEER_MAX, STALL_MAX};
use crate::store::lock;
use futures::{AsyncRead, AsyncWrite, ready};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::time::{Instant, Sleep};
use yamux::{Connection, ConnectionError, Mode};

/// Limit on streams of one connection, of both sides together; yamux closes the connection of a peer that
/// exceeds it. Kubo sends up to 1 MiB of blocks at once in messages of 16 KiB or more, each on its own
/// stream, and this node's pins may request that several times over.
const STREAMS_MAX: usize = 512;
/// Cost of a stream besides its content, in bytes: the buffers of the protocol's negotiation, a task.
const STREAM_BYTES: usize = 8 << 10;
/// Cost of a connection besides its streams, in bytes: three messages of Noise, and the socket's task.
const CONNECTION_BYTES: usize = 256 << 10;
/// Limit on streams that the peer has opened and the swarm has not accepted yet; further ones are reset.
const INBOUND_MAX: usize = 256;
/// Interval at which a paused connection checks whether the pool has room again.
const RECHECK: Duration = Duration::from_millis(100);

/// Upgrade of an encrypted connection with one peer.
#[derive(Clone)]
pub(super) struct Upgrade(pub(super) Arc<Account>);

/// Bytes that yamux buffers for each stream of one connection.
struct Buffered {
    account: Arc<Account>,
    streams: Mutex<HashMap<u32, usize>>,
}

impl Buffered {
    fn new(account: Arc<Account>) -> Buffered {
        account.add(CONNECTION_BYTES);
        Buffered {
            account,
            streams: Mutex::default(),
        }
    }

    fn opened(&self, stream: u32) {
        let mut streams = lock(&self.streams);
        if streams.len() < STREAMS_MAX && streams.insert(stream, 0).is_none() {
            self.account.add(STREAM_BYTES);
        }
    }

    /// Counts received bytes of a stream. yamux drops those for a stream that is gone.
    fn received(&self, stream: u32, bytes: usize) {
        if let Some(buffered) = lock(&self.streams).get_mut(&stream) {
            *buffered += bytes;
            self.account.add(bytes);
        }
    }

    fn read(&self, stream: u32, bytes: usize) {
        if let Some(buffered) = lock(&self.streams).get_mut(&stream) {
            let bytes = bytes.min(*buffered);
            *buffered -= bytes;
            self.account.release(bytes);
        }
    }

    fn closed(&self, stream: u32) {
        let buffered = lock(&self.streams).remove(&stream);
        if let Some(buffered) = buffered {
            self.account.release(buffered + STREAM_BYTES);
        }
    }
}

impl Drop for Buffered {
    fn drop(&mut self) {
        let streams = std::mem::take(&mut *lock(&self.streams));
        let buffered: usize = streams.values().map(|buffered| buffered + STREAM_BYTES).sum();
        self.account.release(buffered + CONNECTION_BYTES);
    }
}

/// Tracks the frames of yamux in the bytes from the socket.
#[derive(Default)]
struct Frames {
    header: [u8; 12],
    /// Bytes of the header received.
    filled: usize,
    /// Stream of the data frame being received, and its missing bytes.
    body: Option<(u32, usize)>,
}

impl Frames {
    const DATA: u8 = 0;
    const SYN: u16 = 1;

    fn feed(&mut self, mut bytes: &[u8], buffered: &Buffered) {
        while !bytes.is_empty() {
            if let Some((stream, missing)) = self.body {
                let part = missing.min(bytes.len());
                buffered.received(stream, part);
                bytes = &bytes[part..];
                self.body = (part < missing).then_some((stream, missing - part));
                continue;
            }
            let part = (self.header.len() - self.filled).min(bytes.len());
            self.header[self.filled..self.filled + part].copy_from_slice(&bytes[..part]);
            self.filled += part;
            bytes = &bytes[part..];
            if self.filled == self.header.len() {
                self.filled = 0;
                self.begin(buffered);
            }
        }
    }

    fn begin(&mut self, buffered: &Buffered) {
        let [_, kind, flags @ .., a, b, c, d, e, f, g, h] = self.header;
        let stream = u32::from_be_bytes([a, b, c, d]);
        let length = u32::from_be_bytes([e, f, g, h]) as usize;
        if u16::from_be_bytes(flags) & Self::SYN != 0 && stream != 0 {
            buffered.opened(stream);
        }
        if kind == Self::DATA && length > 0 {
            self.body = Some((stream, length));
        }
    }
}

/// Socket below yamux that counts received frames and pauses when the account has no room.
struct Metered<C> {
    socket: C,
    frames: Frames,
    buffered: Arc<Buffered>,
    /// Time when reading was paused for lack of room, and the timer of the next check.
    paused: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl<C> Metered<C> {
    /// Returns `Ready` once there is room.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let account = &self.buffered.account;
        if account.has_room() {
            self.paused = None;
            return Poll::Ready(Ok(()));
        }
        account.wake_when_room(cx.waker());
        let now = Instant::now();
        let (since, recheck) = self
            .paused
            .get_or_insert_with(|| (now, Box::pin(tokio::time::sleep(RECHECK))));
        if now.duration_since(*since) >= STALL_MAX {
            return Poll::Ready(Err(stall_error(account)));
        }
        if recheck.as_mut().poll(cx).is_ready() {
            recheck.as_mut().reset(now + RECHECK);
            // Registers the timer again.
            let _ = recheck.as_mut().poll(cx);
        }
        // Room may have become available before the waker was registered.
        if account.has_room() {
            self.paused = None;
            return Poll::Ready(Ok(()));
        }
        Poll::Pending
    }
}

fn stall_error(account: &Account) -> io::Error {
    let (peer, held) = (account.peer(), account.held());
    let why = format!(
        "nothing could be read for {STALL_MAX:?}: this node holds {held} bytes for the peer, of {PEER_MAX} \
         at most, and the peer does not take its answers or finish its messages"
    );
    if account.pool().should_log(peer, std::time::Instant::now()) {
        tracing::warn!(%peer, "closing a connection of an ipfs peer: {why}");
    }
    io::Error::other(why)
}

impl<C: AsyncRead + Unpin> AsyncRead for Metered<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        ready!(this.poll_room(cx))?;
        let read = ready!(Pin::new(&mut this.socket).poll_read(cx, buffer))?;
        this.paused = None;
        this.frames.feed(&buffer[..read], &this.buffered);
        Poll::Ready(Ok(read))
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Metered<C> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_close(cx)
    }
}

/// A multiplexed connection.
pub(super) struct Muxer<C> {
    connection: Connection<Metered<C>>,
    buffered: Arc<Buffered>,
    inbound: VecDeque<Stream>,
    waker: Option<Waker>,
}

impl<C: AsyncRead + AsyncWrite + Unpin + Send + 'static> Muxer<C> {
    fn new(socket: C, account: Arc<Account>, mode: Mode) -> Muxer<C> {
        let mut config = yamux::Config::default();
        config.set_max_num_streams(STREAMS_MAX);
        // One stream may use all that the account allows: full speed on paths with high latency.
        let window = STREAMS_MAX * yamux::DEFAULT_CREDIT as usize + PEER_MAX;
        config.set_max_connection_receive_window(Some(window));
        let buffered = Arc::new(Buffered::new(account));
        let metered = Metered {
            socket,
            frames: Frames::default(),
            buffered: buffered.clone(),
            paused: None,
        };
        Muxer {
            connection: Connection::new(metered, config, mode),
            buffered,
            inbound: VecDeque::new(),
            waker: None,
        }
    }

    fn stream(&self, stream: yamux::Stream) -> Stream {
        let id = stream.id().val();
        // Known already if the peer has opened it.
        self.buffered.opened(id);
        Stream {
            stream,
            id,
            buffered: self.buffered.clone(),
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        match ready!(self.connection.poll_next_inbound(cx)) {
            Some(Ok(stream)) => Poll::Ready(Ok(self.stream(stream))),
            Some(Err(error)) => Poll::Ready(Err(failed(error))),
            None => Poll::Ready(Err(failed(ConnectionError::Closed))),
        }
    }
}

fn failed(error: ConnectionError) -> io::Error {
    if let ConnectionError::Io(error) = error {
        return error;
    }
    io::Error::other(error)
}

impl<C: AsyncRead + AsyncWrite + Unpin + Send + 'static> StreamMuxer for Muxer<C> {
    type Substream = Stream;
    type Error = io::Error;

    fn poll_inbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        if let Some(stream) = self.inbound.pop_front() {
            return Poll::Ready(Ok(stream));
        }
        if let Poll::Ready(next) = self.poll_next(cx) {
            return Poll::Ready(next);
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn poll_outbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        let stream = ready!(self.connection.poll_new_outbound(cx)).map_err(failed)?;
        Poll::Ready(Ok(self.stream(stream)))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.connection.poll_close(cx).map_err(failed)
    }

    /// Drives the connection. Streams that the peer opens in the meantime wait for [`Muxer::poll_inbound`].
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<StreamMuxerEvent>> {
        let stream = ready!(self.poll_next(cx))?;
        if self.inbound.len() < INBOUND_MAX {
            self.inbound.push_back(stream);
            if let Some(waker) = self.waker.take() {
                waker.wake();
            }
        }
        // Lets other tasks run between two streams.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// A stream of a connection.
pub(super) struct Stream {
    stream: yamux::Stream,
    id: u32,
    buffered: Arc<Buffered>,
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        self.buffered.read(self.id, read);
        Poll::Ready(Ok(read))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.buffered.closed(self.id);
    }
}

impl UpgradeInfo for Upgrade {
    type Info = &'static str;
    type InfoIter = std::iter::Once<&'static str>;

    fn protocol_info(&self) -> Self::InfoIter {
        std::iter::once("/yamux/1.0.0")
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin + Send + 'static> InboundConnectionUpgrade<C> for Upgrade {
    type Output = Muxer<C>;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<Muxer<C>>>;

    fn upgrade_inbound(self, socket: C, _: &'static str) -> Self::Future {
        std::future::ready(Ok(Muxer::new(socket, self.0, Mode::Server)))
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin + Send + 'static> OutboundConnectionUpgrade<C> for Upgrade {
    type Output = Muxer<C>;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<Muxer<C>>>;

    fn upgrade_outbound(self, socket: C, _: &'static str) -> Self::Future {
        std::future::ready(Ok(Muxer::new(socket, self.0, Mode::Client)))
    }
}
