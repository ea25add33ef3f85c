//! Listener of the gateway: accepts connections, limits their number and the requests at once.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use cluster_http::{Accepted, Listener, Stream, WriteStall};
use hyper::Request;
use hyper::body::Incoming;
use hyper::header::HeaderName;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulConnection, GracefulShutdown};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::failure::Refusal;
use super::media_type::Sniffed;
use super::{Gateway, Settings, handler, headers, reply};
use crate::Node;

/// Header with the path of the content.
pub(super) const X_IPFS_PATH: HeaderName = HeaderName::from_static("x-ipfs-path");
/// Header with the CID of each segment of the path.
pub(super) const X_IPFS_ROOTS: HeaderName = HeaderName::from_static("x-ipfs-roots");

/// Maximum number of connections, most of which are idle. Further ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 4096;

/// Maximum number of answers at once, each of which holds some blocks. Further requests are refused.
const ANSWERS_MAX: usize = 1024;

/// Time limit of reading a request's header, and of waiting for the next one on a connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(60);

/// Time after which a client that reads nothing of an answer is disconnected.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// Time that running answers have to end after the shutdown began.
const DRAIN: Duration = Duration::from_secs(5);

/// Serves `/ipfs/`, `/ipns/` and `/routing/v1/` for `node` on `listener` until `shutdown` completes; running
/// answers then have five seconds to end.
pub async fn serve(
    node: Node,
    settings: Settings,
    listener: Listener,
    shutdown: impl Future<Output = ()> + Send,
) {
    let node = if settings.no_fetch { node.offline() } else { node };
    let gateway = Arc::new(Gateway {
        node,
        settings,
        sniffed: Sniffed::default(),
    });
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let answers = Arc::new(Semaphore::new(ANSWERS_MAX));
    let graceful = GracefulShutdown::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let Accepted { stream, place, .. } = tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept(&places, "IPFS gateway") => accepted,
        };
        let connection = graceful.watch(connection(gateway.clone(), answers.clone(), stream));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to the ipfs gateway ended");
            }
            drop(place);
        });
    }
    drop(listener);
    if timeout(DRAIN, graceful.shutdown()).await.is_err() {
        tracing::warn!("answers of the ipfs gateway were cut off by the shutdown");
    }
}

fn connection(
    gateway: Arc<Gateway>,
    answers: Arc<Semaphore>,
    stream: Stream,
) -> impl GracefulConnection<Error = hyper::Error> + Send {
    let service = service_fn(move |request: Request<Incoming>| {
        let (gateway, place) = (gateway.clone(), answers.clone().try_acquire_owned());
        async move {
            let (request, _) = request.into_parts();
            let Ok(place) = place else {
                let why = format!("{ANSWERS_MAX} requests are being answered, which is the most");
                let mut response = Refusal::busy(why).into_response();
                headers::add_common(response.headers_mut());
                return Ok::<_, Infallible>(response);
            };
            let response = Box::pin(handler::answer(&gateway, &request)).await;
            Ok(reply::limited(response, place))
        }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(WriteStall::new(stream, STALL_TIMEOUT)), service)
}
