//! Limits on reading request bodies: a client that falls silent loses its place, and the rest of a body whose
//! request is answered early is drained for a while.
//!
//! Many clients look at the answer only when they have sent everything, and a client that still sends when
//! its connection closes may lose the answer to a reset ("broken pipe"). So the unwanted rest of a body is
//! read and dropped, within limits, while the answer is sent.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, SizeHint};
use hyper::{Request, header};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep_until, timeout};

/// Time that a client may send nothing while its body is awaited. The default of nginx.
const SILENCE: Duration = Duration::from_secs(60);

/// Time limit of draining the rest of a body after the answer.
const DRAIN: Duration = Duration::from_secs(5);

/// Size limit of draining, in bytes: on any network that carries as much within [`DRAIN`], the answer has
/// arrived long before.
const DRAIN_BYTES: usize = 256 << 20;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Error of a body whose client sent nothing for too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client sent nothing of its upload for {} seconds", SILENCE.as_secs())]
pub struct Silent;

/// Extension of a request: whether its body was ended with [`Silent`].
#[derive(Debug, Clone, Default)]
pub struct SilenceFlag(Arc<AtomicBool>);

impl SilenceFlag {
    /// Checks whether the client fell silent.
    ///
    /// # Errors
    /// [`Silent`] if so.
    pub fn check(&self) -> Result<(), Silent> {
        if self.0.load(Ordering::Acquire) {
            Err(Silent)
        } else {
            Ok(())
        }
    }
}

/// Body of a request with these limits.
#[derive(Debug)]
pub struct LimitedBody<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
{
    body: Option<B>,
    /// Timer that runs while the body is awaited.
    silence: Option<Pin<Box<Sleep>>>,
    silence_flag: SilenceFlag,
    /// Place among the running uploads; freed when the body has been read.
    place: Option<OwnedSemaphorePermit>,
    /// True to drain the rest of the body. With `Expect: 100-continue` not before the first read, which
    /// would make the client start sending.
    drains: bool,
}

impl<B> LimitedBody<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
{
    /// Applies the limits to the body of a request.
    pub fn of(request: Request<B>) -> Request<Self> {
        let silence_flag = SilenceFlag::default();
        let drains = !request.headers().contains_key(header::EXPECT);
        let mut request = request.map(|body| LimitedBody {
            body: Some(body),
            silence: None,
            silence_flag: silence_flag.clone(),
            place: None,
            drains,
        });
        request.extensions_mut().insert(silence_flag);
        request
    }

    /// Holds a place until the body has been read.
    pub fn hold(&mut self, place: OwnedSemaphorePermit) {
        self.place = Some(place);
    }
}

impl<B> Body for LimitedBody<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let Some(body) = &mut this.body else {
            return Poll::Ready(None);
        };
        this.drains = true;
        if let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(cx) {
            this.silence = None;
            if frame.is_none() || body.is_end_stream() {
                this.body = None;
                this.place = None;
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let silence = this
            .silence
            .get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + SILENCE)));
        if silence.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        this.silence_flag.0.store(true, Ordering::Release);
        // Not drained.
        this.body = None;
        this.place = None;
        Poll::Ready(Some(Err(Silent.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let none = || SizeHint::with_exact(0);
        self.body.as_ref().map_or_else(none, Body::size_hint)
    }
}

impl<B> Drop for LimitedBody<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
{
    fn drop(&mut self) {
        let rest = self
            .body
            .take()
            .filter(|body| self.drains && !body.is_end_stream());
        let (Some(mut rest), Ok(runtime)) = (rest, tokio::runtime::Handle::try_current()) else {
            return;
        };
        runtime.spawn(async move {
            let read_on = async {
                let mut left = DRAIN_BYTES;
                while let Some(Ok(frame)) = rest.frame().await {
                    let length = frame.data_ref().map_or(0, Bytes::len);
                    match left.checked_sub(length) {
                        Some(fewer) => left = fewer,
                        None => return,
                    }
                }
            };
            let _ = timeout(DRAIN, read_on).await;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt;
    use futures::stream;
    use http_body_util::StreamBody;
    use std::convert::Infallible;
    use tokio::sync::mpsc;

    type Sender = mpsc::Sender<Bytes>;

    fn body() -> (
        Sender,
        impl Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static,
    ) {
        let (sender, receiver) = mpsc::channel(1);
        let pieces = stream::unfold(receiver, |mut receiver: mpsc::Receiver<Bytes>| async move {
            receiver
                .recv()
                .await
                .map(|piece| (Ok(Frame::data(piece)), receiver))
        });
        (sender, StreamBody::new(pieces.boxed()))
    }

    #[tokio::test(start_paused = true)]
    async fn silent_client_loses_its_place() {
        let (sender, body) = body();
        let mut request = LimitedBody::of(Request::new(body));
        sender.send(Bytes::from_static(b"x")).await.unwrap();
        let first = request.body_mut().frame().await.unwrap().unwrap();
        assert_eq!(first.into_data().unwrap(), "x");
        let asked = Instant::now();
        let error = request.body_mut().frame().await.unwrap().unwrap_err();
        assert_eq!(asked.elapsed().as_secs(), SILENCE.as_secs());
        assert!(error.to_string().contains("sent nothing"), "{error}");
        assert_eq!(
            request.extensions().get::<SilenceFlag>().unwrap().check(),
            Err(Silent)
        );
        assert!(request.body_mut().frame().await.is_none());
    }

    #[tokio::test]
    async fn rest_of_a_dropped_body_is_drained() {
        let (sender, body) = body();
        drop(LimitedBody::of(Request::new(body)));
        for _ in 0..100 {
            sender.send(Bytes::from_static(&[0; 1000])).await.unwrap();
        }
    }

    #[tokio::test]
    async fn draining_ends_after_a_number_of_bytes() {
        let (sender, body) = body();
        drop(LimitedBody::of(Request::new(body)));
        let piece = Bytes::from(vec![0; 1 << 20]);
        let mut taken = 0;
        while sender.send(piece.clone()).await.is_ok() {
            taken += piece.len();
        }
        assert!(
            (DRAIN_BYTES..=DRAIN_BYTES + 4 * piece.len()).contains(&taken),
            "{taken}"
        );
    }

    #[tokio::test]
    async fn unread_body_of_an_expecting_client_is_not_drained() {
        let (sender, body) = body();
        let request = Request::builder()
            .header("Expect", "100-continue")
            .body(body)
            .unwrap();
        drop(LimitedBody::of(request));
        sender.closed().await;
    }
}
