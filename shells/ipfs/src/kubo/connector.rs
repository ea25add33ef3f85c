//! HTTP connections to one daemon, over TCP or a Unix socket.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Buf;
use hyper::body::{Body, Incoming};
use hyper::{Request, Response, Uri};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::UnixStream;

use super::config::Endpoint;

/// Time limit of connecting: a daemon on the same machine or network that is slower is down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Idle connections kept: as many as pins usually run at once.
const IDLE_MAX: usize = 64;

/// Time after which idle connections are closed; shorter than the idle limit of servers and proxies.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// The connections to one daemon, for requests with one type of body.
#[derive(Debug)]
pub(super) enum Http<B> {
    Tcp(Client<HttpConnector, B>),
    Unix(Client<UnixConnector, B>),
}

impl<B> Http<B>
where
    B: Body<Data: Buf + Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + Unpin + 'static,
{
    /// Returns the client, which connects with the first request, and the host to name in request URIs.
    pub(super) fn new(endpoint: Endpoint) -> (Self, String) {
        let mut builder = Client::builder(TokioExecutor::new());
        builder
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_MAX);
        match endpoint {
            Endpoint::Tcp(host) => {
                let mut connector = HttpConnector::new();
                connector.set_nodelay(true);
                connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
                (Http::Tcp(builder.build(connector)), host)
            }
            Endpoint::Unix(path) => {
                let connector = UnixConnector { path };
                (Http::Unix(builder.build(connector)), "ipfs".to_owned())
            }
        }
    }

    /// Sends a request and waits for the head of the answer.
    pub(super) async fn request(&self, request: Request<B>) -> Result<Response<Incoming>, Error> {
        match self {
            Http::Tcp(client) => client.request(request).await,
            Http::Unix(client) => client.request(request).await,
        }
    }
}

/// Connects every request to the same socket, whatever host its URI names.
#[derive(Debug, Clone)]
pub(super) struct UnixConnector {
    path: PathBuf,
}

impl tower::Service<Uri> for UnixConnector {
    type Response = TokioIo<UnixStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let path = self.path.clone();
        Box::pin(async move {
            match tokio::time::timeout(CONNECT_TIMEOUT, UnixStream::connect(&path)).await {
                Ok(connected) => connected.map(TokioIo::new),
                Err(_) => Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the socket does not accept",
                )),
            }
        })
    }
}
