//! A typed client of the REST API.
//!
//! Several hosts may be given: a host that cannot be reached hands over to the next, and the one that
//! answered is asked first from then on. A request that may have been received is never sent twice.

mod connect;
mod endpoint;
mod error;
mod hear;
mod lines;
mod methods;
mod tls;
mod upload;

pub use error::ClientError;
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

/// One request with how it went, for whoever watches.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// The HTTP method.
    pub method: Method,
    /// The whole URL.
    pub url: String,
    /// The status, or why there is none; empty while there is neither.
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

/// The causes of an error: what libraries put in front of them says only that there was one.
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

/// The text of a system's error without the number that the standard library adds.
fn without_number(text: &str) -> String {
    match text.split_once(" (os error") {
        Some((before, _)) => before.to_lowercase(),
        None => text.to_owned(),
    }
}

/// Is told of every request when it was answered or failed.
pub type Observer = Arc<dyn Fn(&Exchange) + Send + Sync>;

/// Is told of warnings that come with an answer, as text for a person.
pub type Warned = Arc<dyn Fn(&str) + Send + Sync>;

/// How to talk to the service.
#[derive(Clone, Default)]
pub struct Options {
    /// How long one request may take, body included; no limit if absent.
    pub timeout: Option<Duration>,
    /// User and password for HTTP basic authentication.
    pub credentials: Option<(String, String)>,
    /// Use HTTPS with every host that is reached over TCP.
    pub https: bool,
    /// Take any certificate: whoever can redirect a connection can then read along.
    pub no_check_certificate: bool,
    /// Have the peer that is asked wait, before it shows pins or their status, until it has all that was
    /// acknowledged anywhere before. Without a majority of the cluster that is an error.
    pub consistent: bool,
    /// Is told what a listing or a value says about itself: that it may be old (`Warning` headers).
    pub warned: Option<Warned>,
    /// Is told of every request.
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

/// One of the hosts.
struct Host {
    endpoint: Endpoint,
    scheme: &'static str,
    connection: Connection,
}

/// A client of the REST API of one or several peers.
pub struct Client {
    hosts: Vec<Host>,
    /// The host that answered last.
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

/// A request that is yet to be sent.
struct Ask {
    method: Method,
    path: String,
    content_type: Option<HeaderValue>,
}

impl Client {
    /// A client of `hosts`: a comma-separated list of multiaddresses (`/ip4/127.0.0.1/tcp/9094`,
    /// `/dns4/…`, `/unix/…`) or `host:port`. Nothing is connected yet.
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
        let authorization = options.credentials.map(|(user, password)| {
            let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
            HeaderValue::from_str(&format!("Basic {encoded}")).map(|mut value| {
                value.set_sensitive(true);
                value
            })
        });
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
            // Base64 has no characters that a header could not hold.
            authorization: authorization.and_then(Result::ok),
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

    /// Sends a request to the first host that can be reached. `body` is called once for each attempt, and
    /// an attempt that has connected is the last.
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
            // Says that the error at the end of a stream will be read.
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
