//! Bodies of answers, with the limits of time that hold while they are sent.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream::{self, BoxStream, StreamExt};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::Response;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep_until};

/// Error that ends an answer: hyper closes the connection, so that no client takes a part for the whole.
pub(super) type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// Body of every answer.
pub(super) type Body = UnsyncBoxBody<Bytes, BodyError>;

/// Content in order.
pub(super) type Content = BoxStream<'static, Result<Bytes, crate::Error>>;

/// Time limit until the head of an answer, and between two pieces of it; Kubo's.
pub(super) const PIECE_TIMEOUT: Duration = Duration::from_secs(30);

/// Time limit of a whole answer; Kubo's.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3600);

/// Bytes of content read before the head of an answer: an error in them yields a status.
pub(super) const CHECKED: usize = 64 << 10;

/// Returns a body without content.
pub(super) fn empty() -> Body {
    Full::default().map_err(|never| match never {}).boxed_unsync()
}

/// Returns a body of these bytes.
pub(super) fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::from(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// Returns a body of streamed content.
pub(super) fn streamed(content: Content) -> Body {
    let frames = content.map(|piece| piece.map(Frame::data).map_err(BodyError::from));
    BodyExt::boxed_unsync(StreamBody::new(frames))
}

/// Waits for the first `bytes` of content, or its end, so that a failure until then gets an error status.
pub(super) async fn started(content: Content, bytes: usize) -> Result<Content, crate::Error> {
    // It may end here, and be asked again by the answer.
    let mut content = content.fuse();
    let mut first = BytesMut::new();
    let mut single = None;
    while first.len() < bytes {
        match content.next().await.transpose()? {
            None => break,
            Some(piece) if first.is_empty() && piece.len() >= bytes => {
                single = Some(piece);
                break;
            }
            Some(piece) => first.extend_from_slice(&piece),
        }
    }
    let first = single.unwrap_or_else(|| first.freeze());
    let first = (!first.is_empty()).then_some(Ok(first));
    Ok(stream::iter(first).chain(content).boxed())
}

/// Limits the time between the pieces of an answer and of all of it, and holds its place until the end.
pub(super) fn limited(response: Response<Body>, place: OwnedSemaphorePermit) -> Response<Body> {
    let now = Instant::now();
    response.map(|body| {
        let body = LimitedAnswer {
            body,
            waiting: Box::pin(sleep_until(now + PIECE_TIMEOUT)),
            is_waiting: false,
            end: now + ANSWER_TIMEOUT,
            _place: place,
        };
        BodyExt::boxed_unsync(body)
    })
}

struct LimitedAnswer {
    body: Body,
    waiting: Pin<Box<Sleep>>,
    is_waiting: bool,
    end: Instant,
    _place: OwnedSemaphorePermit,
}

/// Error of an answer that took too long.
#[derive(Debug, thiserror::Error)]
#[error("the answer was cut off: {0}")]
struct CutOff(&'static str);

impl HttpBody for LimitedAnswer {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if Instant::now() >= this.end {
            return Poll::Ready(Some(Err(CutOff("it took longer than an hour").into())));
        }
        match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(frame) => {
                this.is_waiting = false;
                Poll::Ready(frame)
            }
            Poll::Pending => {
                if !this.is_waiting {
                    this.is_waiting = true;
                    this.waiting.as_mut().reset(Instant::now() + PIECE_TIMEOUT);
                }
                let late = this.waiting.as_mut().poll(cx);
                late.map(|()| Some(Err(CutOff("no peer sent the next block in time").into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tokio::sync::Semaphore;

    #[tokio::test(start_paused = true)]
    async fn stalled_content_ends_with_an_error_and_frees_its_place() {
        let places = Arc::new(Semaphore::new(1));
        let place = places.clone().acquire_owned().await.unwrap();
        let content = stream::iter([Ok(Bytes::from_static(b"start"))]).chain(stream::pending());
        let mut response = limited(Response::new(streamed(content.boxed())), place);
        let first = response.body_mut().frame().await.unwrap().unwrap();
        assert_eq!(first.into_data().unwrap(), "start");
        let error = response.body_mut().frame().await.unwrap().unwrap_err();
        assert!(error.to_string().contains("in time"), "{error}");
        drop(response);
        assert_eq!(places.available_permits(), 1);
    }

    #[tokio::test]
    async fn a_failure_at_the_start_is_reported_before_the_head() {
        let failing = || stream::iter([Ok(Bytes::from_static(b"abc")), Err(crate::Error::Closed)]).boxed();
        assert!(started(failing(), 4).await.is_err());
        let mut late = started(failing(), 3).await.unwrap();
        assert_eq!(late.next().await.unwrap().unwrap(), "abc");
        assert!(late.next().await.unwrap().is_err());
    }
}
