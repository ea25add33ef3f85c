//! A socket with separate timeouts for request headers and for idle connections.
//!
//! hyper has one timeout for a request's headers, which also runs while a connection is idle; the Go peer
//! has two. The phase of the current request is shared between the socket and the bodies of the request and
//! of its response.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// A client that reads nothing of its response for this long is disconnected: a listing holds resources.
const WRITE_STALL: Duration = Duration::from_secs(300);

/// No request is in progress.
const IDLE: u8 = 0;
/// The headers of a request are arriving.
const HEADERS: u8 = 1;
/// A request is in progress.
const BUSY: u8 = 2;
/// Either the response is complete, or the request has been read to its end.
const HALF_DONE: u8 = 3;
/// The response is complete but the request was not read to its end: the next bytes may be the rest of it.
const UNREAD: u8 = 4;

/// The phase of a connection's current request.
#[derive(Clone)]
pub(super) struct RequestPhase {
    state: Arc<State>,
}

struct State {
    phase: AtomicU8,
    /// Start of the phase, in milliseconds since the connection was opened.
    since: AtomicU64,
    start: Instant,
}

impl RequestPhase {
    pub(super) fn new() -> Self {
        let state = State {
            phase: AtomicU8::new(IDLE),
            since: AtomicU64::new(0),
            start: Instant::now(),
        };
        Self {
            state: Arc::new(state),
        }
    }

    fn get(&self) -> u8 {
        self.state.phase.load(Ordering::Acquire)
    }

    fn set(&self, phase: u8) {
        self.state.phase.store(phase, Ordering::Release);
        self.stamp();
    }

    fn stamp(&self) {
        let millis = u64::try_from(self.state.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.state.since.store(millis, Ordering::Release);
    }

    fn since(&self) -> Instant {
        self.state.start + Duration::from_millis(self.state.since.load(Ordering::Acquire))
    }

    /// Records that a request has begun. Its body, and that of the response, record when they end.
    pub(super) fn begin<B: HttpBody>(
        &self,
        request: Request<B>,
    ) -> (Request<TrackedBody<B>>, PendingResponse) {
        self.set(BUSY);
        let tracker = |complete| BodyTracker {
            phase: self.clone(),
            complete,
        };
        let request = request.map(|body| TrackedBody {
            tracker: tracker(body.is_end_stream()),
            body,
        });
        (
            request,
            PendingResponse {
                tracker: tracker(true),
            },
        )
    }
}

/// One half of an exchange. A response that breaks off ends the connection anyway, so only the request's
/// half may be incomplete.
struct BodyTracker {
    phase: RequestPhase,
    complete: bool,
}

impl Drop for BodyTracker {
    fn drop(&mut self) {
        let next = |phase: u8| match (phase, self.complete) {
            (BUSY, true) => Some(HALF_DONE),
            (HALF_DONE, true) => Some(IDLE),
            (BUSY | HALF_DONE, false) => Some(UNREAD),
            _ => None,
        };
        let phase = &self.phase.state.phase;
        if phase
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, next)
            .is_ok()
        {
            self.phase.stamp();
        }
    }
}

/// A response that has not begun.
pub(super) struct PendingResponse {
    tracker: BodyTracker,
}

impl PendingResponse {
    /// Makes the body record its end.
    pub(super) fn track(self, response: Response<Body>) -> Response<TrackedBody<Body>> {
        response.map(|body| TrackedBody {
            body,
            tracker: self.tracker,
        })
    }
}

/// A body that records its end in the connection's phase.
pub(super) struct TrackedBody<B> {
    body: B,
    tracker: BodyTracker,
}

impl<B: HttpBody + Unpin> HttpBody for TrackedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let polled = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if polled.is_none() || self.body.is_end_stream() {
            self.tracker.complete = true;
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A socket that enforces the timeouts.
pub(super) struct TimedStream<S> {
    stream: S,
    phase: RequestPhase,
    first: bool,
    header_timeout: Duration,
    idle_timeout: Duration,
    reading: Timer,
    writing: Timer,
    stalled: Option<Instant>,
}

impl<S> TimedStream<S> {
    pub(super) fn new(
        stream: S,
        phase: RequestPhase,
        header_timeout: Duration,
        idle_timeout: Duration,
    ) -> Self {
        Self {
            first: true,
            stream,
            phase,
            header_timeout,
            idle_timeout,
            reading: Timer::new(),
            writing: Timer::new(),
            stalled: None,
        }
    }
}

/// A timer that is reset as rarely as possible, because resetting one for every request is expensive.
struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Timer {
    fn new() -> Self {
        Self { sleep: None }
    }

    /// Waits until `deadline`. May wake the task earlier without being ready.
    fn poll(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if sleep.deadline() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

impl<S> TimedStream<S> {
    /// Returns the deadline of the next bytes, and whether missing it is an error. There is none while a
    /// request is in progress, but then this returns a time to check again, because the phase may end without
    /// a poll.
    fn deadline(&self) -> Option<(Instant, bool)> {
        let limit = |from: Instant, timeout: Duration, is_late| {
            (!timeout.is_zero()).then(|| (from + timeout, is_late))
        };
        match self.phase.get() {
            HEADERS => limit(self.phase.since(), self.header_timeout, true),
            // The first request has the same time as the headers of later ones.
            IDLE if self.first => limit(self.phase.since(), self.header_timeout, true),
            IDLE | UNREAD => limit(self.phase.since(), self.idle_timeout, true),
            _ => limit(Instant::now(), self.idle_timeout, false),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TimedStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let idle = this.phase.get() == IDLE;
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(cx, buf);
        if idle && buf.filled().len() > before {
            this.phase.set(HEADERS);
            this.first = false;
        }
        if polled.is_ready() {
            return polled;
        }
        let Some((deadline, is_late)) = this.deadline() else {
            return Poll::Pending;
        };
        match this.reading.poll(cx, deadline) {
            Poll::Ready(()) if is_late => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Ready(()) | Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TimedStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.fail_if_stalled(cx, polled)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write_vectored(cx, pieces);
        this.fail_if_stalled(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<S> TimedStream<S> {
    /// Fails the write when nothing could be written for [`WRITE_STALL`].
    fn fail_if_stalled<T>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.stalled = None;
            return polled;
        }
        let since = *self.stalled.get_or_insert_with(Instant::now);
        self.writing
            .poll(cx, since + WRITE_STALL)
            .map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}
