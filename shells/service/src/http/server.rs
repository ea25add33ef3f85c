//! HTTP/1.1 listeners and connections, shared by the REST API and the IPFS proxy.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONNECTION, HeaderValue};
use axum::http::{Request, Response};
use cluster_http::{Accepted, AllowTrailers, ListenAddress, Listener, Stream};
use futures::future::BoxFuture;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::connection::{RequestPhase, TimedStream, TrackedBody};
use super::tls::Tls;

/// Maximum number of open connections over all addresses; more wait to be accepted. Each costs some 30 KiB.
const CONNECTIONS_MAX: usize = 4096;

/// Allowance of Go's HTTP library over the configured size of headers.
const HEADER_SLOP: usize = 4096;

/// A running API server.
#[derive(Debug)]
pub struct Server {
    addresses: Vec<ListenAddress>,
    stop: CancellationToken,
    running: JoinSet<()>,
}

/// Error of starting an API.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be bound.
    #[error("{}", listen_error(.service, .address, .source))]
    Listen {
        /// The API that needs it.
        service: Service,
        /// Address that cannot be bound.
        address: ListenAddress,
        /// Error of the operating system.
        source: io::Error,
    },
    /// A configured header is invalid.
    #[error("headers: {0:?} is not a valid HTTP header")]
    Header(String),
    /// No address to listen on is configured.
    #[error("{}: give at least one address, such as {}", .0.key(), .0.example())]
    NoAddress(Service),
    /// The access log cannot be opened.
    #[error("cannot write {path}: {source}")]
    AccessLog {
        /// Path of the access log.
        path: String,
        /// Error of the operating system.
        source: io::Error,
    },
    /// The IPFS node that the proxy forwards to cannot be used, or a setting for it is invalid.
    #[error("{0}")]
    Upstream(String),
}

/// An API of the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// The API of `ipfs-cluster-ctl`.
    Rest,
    /// The API that looks like a Kubo daemon.
    Proxy,
    /// The pinning service API.
    PinningService,
    /// Metrics for Prometheus.
    Metrics,
}

impl Service {
    fn name(self) -> &'static str {
        match self {
            Self::Rest => "REST API",
            Self::Proxy => "IPFS proxy",
            Self::PinningService => "pinning service API",
            Self::Metrics => "metrics",
        }
    }

    /// Returns the label of the API in metrics.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Rest => "rest",
            Self::Proxy => "proxy",
            Self::PinningService => "pinsvc",
            Self::Metrics => "metrics",
        }
    }

    fn key(self) -> &'static str {
        match self {
            Self::Rest => "http_listen_multiaddress",
            Self::Proxy => "api.ipfsproxy.listen_multiaddress",
            Self::PinningService => "api.pinsvcapi.http_listen_multiaddress",
            Self::Metrics => "observations.metrics.prometheus_endpoint",
        }
    }

    fn example(self) -> &'static str {
        match self {
            Self::Rest => "/ip4/127.0.0.1/tcp/9094",
            Self::Proxy => "/ip4/127.0.0.1/tcp/9095",
            Self::PinningService => "/ip4/127.0.0.1/tcp/9097",
            Self::Metrics => "/ip4/127.0.0.1/tcp/8888",
        }
    }
}

fn listen_error(service: &Service, address: &ListenAddress, source: &io::Error) -> String {
    let (name, key) = (service.name(), service.key());
    if source.kind() == io::ErrorKind::AddrInUse {
        let what = match address {
            ListenAddress::Tcp(_) => "port",
            ListenAddress::Unix(_) => "socket",
        };
        return format!(
            "cannot serve the {name} on {address}: the {what} is in use, probably by another peer; \
             stop that one or set another {key}"
        );
    }
    format!("cannot serve the {name} on {address}: {source}")
}

/// The remote end of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Client {
    /// `None` on a Unix socket.
    pub(super) address: Option<SocketAddr>,
    /// True if the listener is bound to a loopback address, which a web page reaches only by DNS rebinding.
    pub(super) on_loopback: bool,
}

/// Handler of the requests of a [`Server`].
pub(super) trait Respond: Send + Sync + 'static {
    /// Answers one request of `client`.
    fn respond(
        self: Arc<Self>,
        client: Client,
        request: Request<TrackedBody<Incoming>>,
    ) -> BoxFuture<'static, Response<Body>>;
}

/// Limits of a server's connections.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    pub(super) service: Service,
    /// Time for a request's headers to arrive; zero for no limit, as with `idle_timeout`.
    pub(super) read_header_timeout: Duration,
    pub(super) idle_timeout: Duration,
    pub(super) max_header_bytes: usize,
}

/// Checks that all of these addresses can be bound, and releases them.
///
/// # Errors
/// An address cannot be bound, or there is none.
pub async fn check_addresses(service: Service, listen: &[ListenAddress]) -> Result<(), StartError> {
    bind(service, listen).await.map(drop)
}

async fn bind(service: Service, listen: &[ListenAddress]) -> Result<Vec<Listener>, StartError> {
    if listen.is_empty() {
        return Err(StartError::NoAddress(service));
    }
    let mut listeners = Vec::with_capacity(listen.len());
    for address in listen {
        let bound = Listener::bind(address).await;
        listeners.push(bound.map_err(|source| StartError::Listen {
            service,
            address: address.clone(),
            source,
        })?);
    }
    Ok(listeners)
}

/// Starts serving `respond` over plain HTTP. All addresses are bound before this returns.
pub(super) async fn listen(
    listen: &[ListenAddress],
    limits: Limits,
    respond: Arc<impl Respond>,
) -> Result<Server, StartError> {
    listen_tls(listen, limits, None, respond).await
}

/// Starts serving `respond`; over TLS if there is a certificate.
pub(super) async fn listen_tls(
    listen: &[ListenAddress],
    limits: Limits,
    tls: Option<Tls>,
    respond: Arc<impl Respond>,
) -> Result<Server, StartError> {
    let service = limits.service;
    let listeners = bind(service, listen).await?;
    let addresses = listeners
        .iter()
        .map(|listener| listener.address().clone())
        .collect();
    let stop = CancellationToken::new();
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut running = JoinSet::new();
    for listener in listeners {
        running.spawn(accept(
            listener,
            tls.clone(),
            respond.clone(),
            limits.clone(),
            stop.clone(),
            permits.clone(),
        ));
    }
    Ok(Server {
        addresses,
        stop,
        running,
    })
}

impl Server {
    /// Returns the bound addresses, in the order of the configuration.
    pub fn addresses(&self) -> &[ListenAddress] {
        &self.addresses
    }

    /// Accepts no more connections or requests, and waits up to `patience` until the open requests are
    /// answered.
    pub async fn shutdown(mut self, patience: Duration) {
        self.stop.cancel();
        let done = async { while self.running.join_next().await.is_some() {} };
        if tokio::time::timeout(patience, done).await.is_err() {
            tracing::warn!(?patience, "some requests were cut off by the shutdown");
        }
    }
}

async fn accept(
    listener: Listener,
    tls: Option<Tls>,
    respond: Arc<impl Respond>,
    limits: Limits,
    stop: CancellationToken,
    permits: Arc<Semaphore>,
) {
    let mut connections = JoinSet::new();
    let on_loopback = listener.address().port().is_some() && listener.address().is_local();
    loop {
        let Accepted {
            stream,
            client,
            place,
        } = tokio::select! {
            accepted = listener.accept(&permits, limits.service.name()) => accepted,
            () = stop.cancelled() => break,
        };
        let client = Client {
            address: client,
            on_loopback,
        };
        let (respond, limits, stop) = (respond.clone(), limits.clone(), stop.clone());
        let tls = tls.clone();
        connections.spawn(async move {
            match (tls, stream) {
                (Some(tls), Stream::Left(tcp)) => serve_tls(&tls, tcp, client, respond, limits, stop).await,
                // A Unix socket needs no encryption, and its clients use plain HTTP.
                (Some(_) | None, stream) => serve_connection(stream, client, respond, limits, stop).await,
            }
            drop(place);
        });
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn serve_tls(
    tls: &Tls,
    stream: TcpStream,
    client: Client,
    respond: Arc<impl Respond>,
    limits: Limits,
    stop: CancellationToken,
) {
    let stream = tokio::select! {
        stream = tls.accept(stream) => stream,
        () = stop.cancelled() => return,
    };
    match stream {
        Ok(stream) => serve_connection(stream, client, respond, limits, stop).await,
        Err(error) => {
            let service = limits.service.name();
            tracing::debug!(%error, "a client of the {service} did not complete the TLS handshake");
        }
    }
}

async fn serve_connection(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    client: Client,
    respond: Arc<impl Respond>,
    limits: Limits,
    stop: CancellationToken,
) {
    let phase = RequestPhase::new();
    let io = TimedStream::new(
        // An error in the middle of a stream is reported in trailers.
        AllowTrailers::new(stream),
        phase.clone(),
        limits.read_header_timeout,
        limits.idle_timeout,
    );
    let service = service_fn(move |request| {
        let (request, response) = phase.begin(request);
        let answer = respond.clone().respond(client, request);
        async move { Ok::<_, Infallible>(response.track(answer.await)) }
    });
    let serving = http1::Builder::new()
        .max_header_size(limits.max_header_bytes.max(4096) + HEADER_SLOP)
        // `TimedStream` implements both timeouts.
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(io), service);
    let mut serving = std::pin::pin!(serving);
    let done = tokio::select! {
        done = &mut serving => done,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = done {
        tracing::debug!(%error, "a connection to the {} broke off", limits.service.name());
    }
}

/// Closes the connection after this response.
pub(super) fn close_after(response: &mut Response<Body>) {
    response
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
}
