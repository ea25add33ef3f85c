//! HTTP client for servers of the public network: delegated routers and trustless gateways.
//!
//! Addresses of gateways come from strangers, so names that resolve to addresses outside of the allowed
//! scopes are refused: otherwise a stranger could make this node send requests into its local network. Bodies
//! are limited, redirects are never followed.

use crate::swarm::addresses::{Reach, Scope, reach_of_ip};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, HeaderName, USER_AGENT};
use hyper::{HeaderMap, Method, Request, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::timeout;
use tower::Service;

/// Time limit of establishing a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time limit until the headers of a response.
const HEADERS_TIMEOUT: Duration = Duration::from_secs(10);
/// Time limit between two parts of a body.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time after which an unused connection is closed.
const POOL_TIMEOUT: Duration = Duration::from_secs(30);
/// Limit on unused connections per host.
const POOL_PER_HOST: usize = 4;

/// Failure of a request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    /// No connection, or the connection was lost.
    #[error("{0}")]
    Connection(String),
    /// The request has an invalid part.
    #[error("invalid request: {0}")]
    Request(#[from] hyper::http::Error),
    /// The server was too slow.
    #[error("the server does not answer in time")]
    TimedOut,
    /// The body is longer than the limit.
    #[error("the response has more than {0} bytes")]
    TooLong(usize),
}

/// Resolver of names that keeps only addresses of the allowed scopes.
#[derive(Debug, Clone)]
struct CheckedResolver {
    inner: GaiResolver,
    /// `None`: any address, for hosts that the operator has configured.
    scopes: Option<Vec<Scope>>,
}

/// Returns whether an IP address belongs to one of the scopes.
pub(crate) fn is_allowed(address: SocketAddr, scopes: &[Scope]) -> bool {
    let allows = |scope: &Scope| match (scope, reach_of_ip(address.ip())) {
        (Scope::Public, Reach::Public) | (Scope::Local | Scope::Machine, Reach::Private) => true,
        (Scope::Machine, Reach::Loopback) => true,
        (Scope::Public, Reach::Private | Reach::Loopback)
        | (Scope::Local | Scope::Machine, Reach::Public)
        | (Scope::Local, Reach::Loopback)
        | (_, Reach::Nowhere) => false,
    };
    scopes.iter().any(allows)
}

type Resolved = std::vec::IntoIter<SocketAddr>;

impl Service<Name> for CheckedResolver {
    type Response = Resolved;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Resolved, std::io::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), std::io::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let scopes = self.scopes.clone();
        let shown = name.to_string();
        let resolving = self.inner.call(name);
        Box::pin(async move {
            let mut found: Vec<SocketAddr> = resolving.await?.collect();
            if let Some(scopes) = scopes {
                found.retain(|address| is_allowed(*address, &scopes));
            }
            if found.is_empty() {
                let text = format!("{shown} has no address that this node may connect to");
                return Err(std::io::Error::other(text));
            }
            Ok(found.into_iter())
        })
    }
}

/// Client with a pool of connections; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct HttpClient {
    client: Client<HttpsConnector<HttpConnector<CheckedResolver>>, Full<Bytes>>,
}

/// Response whose body is not read yet.
pub(crate) struct Response {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    body: Incoming,
}

impl HttpClient {
    /// Creates a client for hosts whose addresses are in the scopes, or for all hosts.
    ///
    /// # Errors
    /// The certificates of the machine cannot be read.
    pub(crate) fn new(scopes: Option<Vec<Scope>>) -> std::io::Result<HttpClient> {
        let resolver = CheckedResolver {
            inner: GaiResolver::new(),
            scopes,
        };
        let mut connector = HttpConnector::new_with_resolver(resolver);
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let provider = rustls::crypto::ring::default_provider();
        let connector = HttpsConnectorBuilder::new()
            .with_provider_and_native_roots(provider)?
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_TIMEOUT)
            .pool_max_idle_per_host(POOL_PER_HOST)
            .build(connector);
        Ok(HttpClient { client })
    }

    /// Sends a request, and returns once the headers of the response are received.
    pub(crate) async fn send(
        &self,
        method: Method,
        uri: Uri,
        headers: &[(HeaderName, &str)],
        body: Bytes,
    ) -> Result<Response, HttpError> {
        let mut request = Request::builder()
            .method(method)
            .uri(uri)
            .header(USER_AGENT, crate::AGENT);
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        let sending = self.client.request(request.body(Full::new(body))?);
        let response = timeout(HEADERS_TIMEOUT, sending).await;
        let response = response.map_err(|_| HttpError::TimedOut)?;
        let response = response.map_err(|error| HttpError::Connection(describe(&error)))?;
        let (parts, body) = response.into_parts();
        Ok(Response {
            status: parts.status,
            headers: parts.headers,
            body,
        })
    }

    /// Requests a representation of a resource.
    pub(crate) async fn get(&self, uri: Uri, accept: &str) -> Result<Response, HttpError> {
        self.send(Method::GET, uri, &[(ACCEPT, accept)], Bytes::new())
            .await
    }
}

/// Returns the error with its causes, which hyper's text leaves out.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

impl Response {
    /// Returns the next part of the body, `None` at its end.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, HttpError> {
        loop {
            let frame = timeout(IDLE_TIMEOUT, self.body.frame()).await;
            let Some(frame) = frame.map_err(|_| HttpError::TimedOut)? else {
                return Ok(None);
            };
            let frame = frame.map_err(|error| HttpError::Connection(describe(&error)))?;
            // Trailers are of no interest.
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
    }

    /// Returns the whole body, of at most `max` bytes.
    pub(crate) async fn bytes(mut self, max: usize) -> Result<Bytes, HttpError> {
        let mut body = BytesMut::new();
        while let Some(part) = self.chunk().await? {
            if body.len() + part.len() > max {
                return Err(HttpError::TooLong(max));
            }
            body.extend_from_slice(&part);
        }
        Ok(body.freeze())
    }
}
