//! Typed client of the REST API.
//!
//! Several hosts may be given: if one cannot be reached the next is tried, and the host that responded is
//! tried first from then on. A request that a host may have received is never sent again.

mod connect;
mod early_response;
mod endpoint;
mod error;
mod fetch;
mod lines;
mod methods;
mod tls;
mod upload;

pub use error::ClientError;
pub use fetch::{FetchError, fetch_text};
pub use lines::{Answer, Lines};
pub use upload::{Progress, Upload, UploadError};

use base64::Engine;
use connect::{Body, Connection};
use endpoint::Endpoint;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, USER_AGENT, WARNING};
use hyper::{Method, Request, Response};
use lines::Reply;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tls::Tls;
use tokio::time::Instant;

/// A request and its outcome, as passed to an [`Observer`].
#[derive(Debug, Clone)]
pub struct Exchange {
    /// HTTP method.
    pub method: Method,
    /// Complete URL.
    pub url: String,
    /// Status line, or the reason of the failure; empty while the request is running.
    pub outcome: String,
}

impl Exchange {
    fn broken(&self, error: &(dyn std::error::Error + 'static)) -> ClientError {
        let (method, url) = (self.method.to_string(), self.url.clone());
        ClientError::Broken {
            method,
            url,
            reason: chain(error),
        }
    }

    fn timed_out(&self, limit: Duration) -> ClientError {
        ClientError::TimedOut {
            method: self.method.to_string(),
            url: self.url.clone(),
            limit,
        }
    }

    fn nonsense(&self, reason: &dyn fmt::Display) -> ClientError {
        let (method, url) = (self.method.to_string(), self.url.clone());
        ClientError::Nonsense {
            method,
            url,
            reason: reason.to_string(),
        }
    }
}

/// Joins the causes of an error. The outermost text of the HTTP libraries says only that there is a cause.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes =
        std::iter::successors(error.source(), |e| e.source()).map(|e| without_number(&e.to_string()));
    let mut texts: Vec<_> = causes.collect();
    texts.dedup();
    if texts.is_empty() {
        without_number(&error.to_string())
    } else {
        texts.join(": ")
    }
}

/// Strips ` (os error N)`, which the standard library appends to a system error.
fn without_number(text: &str) -> String {
    match text.split_once(" (os error") {
        Some((before, _)) => before.to_lowercase(),
        None => text.to_owned(),
    }
}

/// Callback for each request, when it was answered or failed.
pub type Observer = Arc<dyn Fn(&Exchange) + Send + Sync>;

/// Callback for the text of each `Warning` header of a response.
pub type Warned = Arc<dyn Fn(&str) + Send + Sync>;

/// Connection options of a [`Client`].
#[derive(Clone, Default)]
pub struct Options {
    /// Time limit of one request, body included; no limit if absent.
    pub timeout: Option<Duration>,
    /// User and password for HTTP basic authentication.
    pub credentials: Option<(String, String)>,
    /// Token of a credential, or a JWT; sent instead of `credentials`.
    pub token: Option<String>,
    /// Use HTTPS for every TCP host.
    pub https: bool,
    /// Accept any certificate. An attacker who can redirect connections can then read them.
    pub no_check_certificate: bool,
    /// Linearizable reads (`consistent=true`): before it lists pins or their status, the peer waits until it
    /// has applied all writes acknowledged before the request. An error without a quorum.
    pub consistent: bool,
    /// Receives the `Warning` headers, which mark possibly stale data.
    pub warned: Option<Warned>,
    /// Receives every request and its outcome.
    pub observer: Option<Observer>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("timeout", &self.timeout)
            .field("https", &self.https)
            .finish()
    }
}

/// A host and its connections.
struct Host {
    endpoint: Endpoint,
    scheme: &'static str,
    connection: Connection,
}

/// Client of the REST API of one or several peers.
///
/// # Errors
/// All request methods return [`ClientError::Unreachable`] if no host accepts a connection,
/// [`ClientError::Broken`] if the connection fails later, [`ClientError::TimedOut`] after
/// [`Options::timeout`], [`ClientError::Nonsense`] for a response of another form, and [`ClientError::Api`]
/// for an error of the service. Its code is 400 for invalid parameters, 401 for missing credentials, 403 for
/// a missing scope, 429 if the peer is overloaded, 503 if there is no leader or the result is unknown, and
/// 500 for failures of IPFS nodes or other peers.
pub struct Client {
    hosts: Vec<Host>,
    /// Index of the host that responded last.
    preferred: AtomicUsize,
    timeout: Option<Duration>,
    authorization: Option<HeaderValue>,
    consistent: bool,
    observer: Option<Observer>,
    warned: Option<Warned>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.hosts.iter().map(|host| host.endpoint.to_string()))
            .finish()
    }
}

/// Method, path and content type of a request.
struct Ask {
    method: Method,
    path: String,
    content_type: Option<HeaderValue>,
}

impl Client {
    /// Creates a client of `hosts`: a comma-separated list of multiaddresses (`/ip4/127.0.0.1/tcp/9094`,
    /// `/dns4/…`, `/unix/…`) or `host:port`. Connections are opened by the first request.
    ///
    /// # Errors
    /// [`ClientError::BadHost`] for an unusable address; [`ClientError::BadToken`] for an invalid token;
    /// [`ClientError::Tls`] if TLS is requested and this machine's trusted certificates cannot be loaded.
    pub fn new(hosts: &str, options: Options) -> Result<Self, ClientError> {
        let endpoints = Endpoint::parse_list(hosts)?;
        let wants_tls = |endpoint: &Endpoint| match endpoint {
            Endpoint::Tcp { tls, .. } => *tls || options.https,
            Endpoint::Unix(_) => false,
        };
        let tls = match endpoints.iter().any(wants_tls) {
            true => Some(Tls::new(!options.no_check_certificate)?),
            false => None,
        };
        let basic = options.credentials.map(|(user, password)| {
            let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
            format!("Basic {encoded}")
        });
        let authorization = options.token.map(|token| format!("Bearer {token}")).or(basic);
        let authorization = authorization.map(|text| HeaderValue::from_str(&text)).transpose();
        let mut authorization = authorization.map_err(|_| ClientError::BadToken)?;
        if let Some(value) = &mut authorization {
            value.set_sensitive(true);
        }
        Ok(Self {
            hosts: endpoints
                .into_iter()
                .map(|endpoint| {
                    let tls = tls.clone().filter(|_| wants_tls(&endpoint));
                    let scheme = if tls.is_some() { "https" } else { "http" };
                    let connection = Connection::new(&endpoint, tls);
                    Host {
                        endpoint,
                        scheme,
                        connection,
                    }
                })
                .collect(),
            preferred: AtomicUsize::new(0),
            timeout: options.timeout,
            authorization,
            consistent: options.consistent,
            observer: options.observer,
            warned: options.warned,
        })
    }

    async fn ask(&self, method: Method, path: String) -> Result<Reply, ClientError> {
        self.send(
            Ask {
                method,
                path,
                content_type: None,
            },
            |_| Empty::new().map_err(|e| match e {}).boxed_unsync(),
        )
        .await
    }

    /// Sends a request to the first reachable host. `body` is called once per attempt; after a successful
    /// connect there is no further attempt.
    async fn send(&self, ask: Ask, body: impl Fn(usize) -> Body) -> Result<Reply, ClientError> {
        let deadline = self.timeout.map(|limit| (Instant::now() + limit, limit));
        let first = self.preferred.load(Ordering::Relaxed);
        let mut failures = Vec::new();
        for turn in 0..self.hosts.len() {
            let index = (first + turn) % self.hosts.len();
            let Host {
                endpoint,
                scheme,
                connection,
            } = &self.hosts[index];
            let url = format!("{scheme}://{}{}", endpoint.authority(), ask.path);
            let mut exchange = Exchange {
                method: ask.method.clone(),
                url,
                outcome: String::new(),
            };
            let request = self.request(&ask, &exchange, endpoint, body(turn))?;
            let sent = connection.send(request);
            let answered = match deadline {
                None => sent.await,
                Some((at, limit)) => match tokio::time::timeout_at(at, sent).await {
                    Ok(answered) => answered,
                    Err(_) => return Err(self.observed(&mut exchange, "timed out").timed_out(limit)),
                },
            };
            match answered {
                Ok(response) => {
                    self.preferred.store(index, Ordering::Relaxed);
                    self.observed(&mut exchange, &response.status().to_string());
                    self.pass_on_warnings(&response);
                    let failed = response.status().is_client_error() || response.status().is_server_error();
                    let reply = Reply {
                        exchange,
                        response,
                        deadline,
                    };
                    return if failed {
                        Err(reply.error().await)
                    } else {
                        Ok(reply)
                    };
                }
                Err(error) => {
                    let reason = chain(&error);
                    self.observed(&mut exchange, &reason);
                    if !error.is_connect() {
                        return Err(exchange.broken(&error));
                    }
                    failures.push(format!("{endpoint}: {reason}"));
                }
            }
        }
        Err(ClientError::Unreachable(format!(
            "cannot reach the cluster's REST API at {}. Is ipfs-cluster-service running there? \
             Another address can be given with --host, as in --host /ip4/127.0.0.1/tcp/9094",
            failures.join(", ")
        )))
    }

    fn request(
        &self,
        ask: &Ask,
        exchange: &Exchange,
        endpoint: &Endpoint,
        body: Body,
    ) -> Result<Request<Body>, ClientError> {
        let mut builder = Request::builder()
            .method(ask.method.clone())
            .uri(&exchange.url)
            .header(HOST, endpoint.authority())
            .header(
                USER_AGENT,
                concat!("ipfs-cluster-api/", env!("CARGO_PKG_VERSION")),
            )
            // Announces that trailers are read: a stream reports its error in one.
            .header(HeaderName::from_static("te"), "trailers");
        if let Some(authorization) = &self.authorization {
            builder = builder.header(AUTHORIZATION, authorization);
        }
        if let Some(content_type) = &ask.content_type {
            builder = builder.header(CONTENT_TYPE, content_type);
        }
        builder.body(body).map_err(|e| exchange.broken(&e))
    }

    fn pass_on_warnings(&self, response: &Response<Incoming>) {
        let Some(warned) = &self.warned else { return };
        for value in response.headers().get_all(WARNING) {
            let text = String::from_utf8_lossy(value.as_bytes());
            // `110 agent "text"`, where the text may have escaped quotes.
            let quoted = text.split_once('"').and_then(|(_, rest)| rest.rsplit_once('"'));
            warned(&quoted.map_or(text.to_string(), |(inside, _)| inside.replace('\\', "")));
        }
    }

    fn observed<'a>(&self, exchange: &'a mut Exchange, outcome: &str) -> &'a Exchange {
        exchange.outcome = outcome.to_owned();
        if let Some(observer) = &self.observer {
            observer(exchange);
        }
        exchange
    }
}
