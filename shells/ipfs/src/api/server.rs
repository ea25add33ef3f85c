//! HTTP server: accepts connections and dispatches requests to commands.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use cluster_http::rpc::Failure;
use cluster_http::{Accepted, AllowTrailers, LimitedBody, Listener, Stream};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};

use super::access::Gate;
use super::commands::{self, Lookup};
use super::reply::{Body, Reply, failed, plain};
use super::request::{Call, RequestBody};
use super::request_log::RequestLog;
use crate::Node;
use crate::unixfs::Name;

/// Maximum number of connections, of at most some 100 KiB of buffers each. Further ones wait in the kernel's
/// queue.
const CONNECTIONS_MAX: usize = 1024;

/// Maximum number of concurrent calls that read content from the body, such as `add`: each may hold some 10
/// MiB. Half of the connections, so that silent or slow uploads leave room for other calls.
const UPLOADS_MAX: usize = 512;

/// Time limit of reading a request's header: clients on the same machine or network send it at once.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// Time that running calls have to end after the shutdown began.
const DRAIN: Duration = Duration::from_secs(5);

/// Serves `/api/v0` for `node` on `listener` until `shutdown` completes; running calls then have five seconds
/// to end.
pub async fn serve(node: Node, listener: Listener, shutdown: impl Future<Output = ()> + Send) {
    let api = Api::new(node, listener.address().port());
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let graceful = GracefulShutdown::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let Accepted { stream, place, .. } = tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept(&places, "IPFS API") => accepted,
        };
        let connection = graceful.watch(connection(api.clone(), stream));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to the ipfs api ended");
            }
            drop(place);
        });
    }
    drop(listener);
    if timeout(DRAIN, graceful.shutdown()).await.is_err() {
        tracing::warn!("calls to the ipfs api were cut off by the shutdown");
    }
}

/// The API without a listener, for requests received elsewhere. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Api {
    node: Node,
    gate: Arc<Gate>,
    uploads: Arc<Semaphore>,
    log: Arc<RequestLog>,
}

fn connection(
    api: Api,
    stream: Stream,
) -> impl hyper_util::server::graceful::GracefulConnection<Error = hyper::Error> + Send {
    let service = service_fn(move |request: Request<Incoming>| {
        let api = api.clone();
        let request = LimitedBody::of(request).map(BodyExt::boxed);
        async move { Ok::<_, Infallible>(api.answer(request).await) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .title_case_headers(true)
        .serve_connection(TokioIo::new(AllowTrailers::new(stream)), service)
}

impl Api {
    /// Creates the API of `node`, for programs, and for web pages served from `port` of this machine.
    pub fn new(node: Node, port: Option<u16>) -> Self {
        Api {
            node,
            gate: Arc::new(Gate::new(port)),
            uploads: Arc::new(Semaphore::new(UPLOADS_MAX)),
            log: Arc::new(RequestLog::new()),
        }
    }

    /// Answers one request. Dropping the answer's body stops the command.
    pub async fn answer(&self, request: Request<RequestBody>) -> Response<Body> {
        let Some(path) = request.uri().path().strip_prefix("/api/v0/").map(str::to_owned) else {
            return answer_other_path(request.uri().path());
        };
        if let Some(refusal) = self.gate.refuse(&request) {
            return refusal;
        }
        let origin = request.headers().get(header::ORIGIN).cloned();
        let mut response = match commands::find(&path) {
            Lookup::Command(command, first) => self.call(command, first, request).await,
            Lookup::Unknown => plain(StatusCode::NOT_FOUND, "404 page not found"),
        };
        self.gate.add_cors_headers(origin.as_ref(), &mut response);
        response
    }

    async fn call(
        &self,
        command: &'static commands::Command,
        first: Option<Name>,
        request: Request<RequestBody>,
    ) -> Response<Body> {
        match self.run(command, first, request).await {
            Ok((reply, deadline)) => reply.into_response(deadline).await,
            Err(failure) => failed(failure),
        }
    }

    async fn run(
        &self,
        command: &'static commands::Command,
        first: Option<Name>,
        request: Request<RequestBody>,
    ) -> Result<(Reply, Option<Instant>), Failure> {
        // Clients that ask for the end of the node expect the next call to fail.
        if self.node.is_ending() {
            let why = "the node is shutting down";
            return Err(Failure::plain(StatusCode::SERVICE_UNAVAILABLE, why));
        }
        let mut call = Call::read((&self.node, &self.log), command, first, request).await?;
        let running = self.log.begin(&call);
        if command.file {
            let place = self.uploads.clone().try_acquire_owned();
            call.place = Some(place.map_err(|_| busy())?);
        }
        let deadline = call
            .timeout()?
            .and_then(|limit| Instant::now().checked_add(limit));
        let reply = match deadline {
            Some(deadline) => timeout_at(deadline, (command.run)(call))
                .await
                .map_err(|_| Failure::deadline())??,
            None => (command.run)(call).await?,
        };
        Ok((reply.holding(running), deadline))
    }
}

/// Returns the refusal of a call beyond [`UPLOADS_MAX`].
fn busy() -> Failure {
    let why = format!("{UPLOADS_MAX} uploads are running, which is the most; try again later");
    Failure::plain(StatusCode::SERVICE_UNAVAILABLE, why)
}

/// Answers the paths outside the commands that programs ask Kubo for.
fn answer_other_path(path: &str) -> Response<Body> {
    if path == "/version" {
        let text = format!(
            "Commit: {}\nClient Version: {}",
            super::PROGRAM,
            super::API_VERSION
        );
        return plain(StatusCode::OK, &text);
    }
    plain(StatusCode::NOT_FOUND, "404 page not found")
}
