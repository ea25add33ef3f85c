//! Bodies on their way: with a time limit, and without leaving the other side in the middle of a sentence.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use cluster_ipfs::api::RequestBody;
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, timeout};

use crate::http::connection::Watched;

/// What is left of an upload after the answer is read for so long: a client that is still sending when the
/// connection closes may never see the answer.
const DRAIN: Duration = Duration::from_secs(5);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A request's body. It must arrive within `limit`, unless that is zero.
pub(super) fn limited(body: Watched<Incoming>, limit: Duration) -> RequestBody {
    let body = Leftover { body: Some(body) };
    if limit.is_zero() {
        return body.map_err(Into::into).boxed();
    }
    let late = "the request did not arrive within read_timeout";
    Timed::new(body, limit, late).boxed()
}

/// An answer's body. It must be taken within `limit`, unless that is zero.
pub(super) fn taken_within(body: Body, limit: Duration) -> Body {
    if limit.is_zero() {
        return body;
    }
    Body::new(Timed::new(
        body,
        limit,
        "the answer was not taken within write_timeout",
    ))
}

/// A body whose rest is read and forgotten when nobody wants it any more.
struct Leftover {
    body: Option<Watched<Incoming>>,
}

impl HttpBody for Leftover {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let polled = ready!(Pin::new(&mut *body).poll_frame(cx));
        if polled.is_none() || body.is_end_stream() {
            self.body = None;
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let none = || SizeHint::with_exact(0);
        self.body.as_ref().map_or_else(none, HttpBody::size_hint)
    }
}

impl Drop for Leftover {
    fn drop(&mut self) {
        let Some(mut body) = self.body.take().filter(|body| !body.is_end_stream()) else {
            return;
        };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let drained = async { while let Some(Ok(_)) = body.frame().await {} };
                // A client that goes on sending for longer does not wait for an answer.
                let _ = timeout(DRAIN, drained).await;
            });
        }
    }
}

/// A body that fails when it is not through at a certain time.
struct Timed<B> {
    body: B,
    sleep: Pin<Box<Sleep>>,
    late: &'static str,
}

impl<B> Timed<B> {
    fn new(body: B, limit: Duration, late: &'static str) -> Self {
        Self {
            body,
            sleep: Box::pin(tokio::time::sleep_until(Instant::now() + limit)),
            late,
        }
    }
}

impl<B: HttpBody<Data = Bytes> + Unpin> HttpBody for Timed<B>
where
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.sleep.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err(self.late.into())));
        }
        Pin::new(&mut self.body)
            .poll_frame(cx)
            .map(|polled| polled.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
