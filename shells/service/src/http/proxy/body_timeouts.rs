//! Time limits of request and response bodies.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use cluster_http::LimitedBody;
use cluster_ipfs::api::RequestBody;
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};

use crate::http::connection::TrackedBody;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Limits the time for a request's body to arrive; zero for no limit.
pub(super) fn limit_arrival(body: LimitedBody<TrackedBody<Incoming>>, limit: Duration) -> RequestBody {
    if limit.is_zero() {
        return body.boxed();
    }
    let late = "the request did not arrive within read_timeout";
    Timed::new(body, limit, late).boxed()
}

/// Limits the time for a client to read a response's body; zero for no limit.
pub(super) fn limit_delivery(body: Body, limit: Duration) -> Body {
    if limit.is_zero() {
        return body;
    }
    Body::new(Timed::new(
        body,
        limit,
        "the client did not read the answer within write_timeout",
    ))
}

/// A body that fails if it has not ended when `sleep` fires.
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
