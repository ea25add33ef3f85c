//! What browsers need of answers that the node does not make, and what keeps web pages out.
//!
//! The node decides which pages may use it and who needs a password. Answers made here must not be more
//! generous: a request that may come from a page, or that brings credentials, is tried at the node first,
//! with a command that does nothing.

use std::time::Duration;

use axum::body::Body;
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Request, Response, StatusCode};
use cluster_ipfs::api::RequestBody;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::behind::Behind;
use super::call::credentials;
use super::reply::Failure;
use super::{ProxyConfig, empty};
use crate::http::server::StartError;

/// A node that does not say its version in this time is down, for this purpose.
const ANSWER: Duration = Duration::from_secs(5);

/// When the node could not be asked, requests go on with what is known for so long.
const AGAIN: Duration = Duration::from_secs(5);

/// What says whether a page may read an answer.
const CORS: [HeaderName; 3] = [
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::VARY,
];

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Refuses a request to an address of this machine under a public name, as a page sends it whose name was
/// made to resolve to this machine. Not even the node's own rules can be asked about such a page.
pub(super) fn foreign_host(host: &str) -> Response<Body> {
    let why = format!(
        "requests for {host:?} are not answered on an address of this machine only: use 127.0.0.1 or \
         localhost"
    );
    Failure::plain(StatusCode::FORBIDDEN, why).into_response()
}

/// The node's rules for whoever calls.
pub(super) struct Browsers {
    behind: Behind,
    path: String,
    wanted: Vec<HeaderName>,
    ttl: Duration,
    known: Mutex<Known>,
}

/// What the node said last.
#[derive(Clone, Default)]
struct Known {
    /// Headers for all answers.
    headers: HeaderMap,
    /// Whether it answers nobody without credentials.
    closed: bool,
    /// Until when this holds; `None` before it was asked.
    until: Option<Instant>,
}

/// Headers to put on an answer.
#[derive(Debug, Default)]
pub(super) struct Marks(HeaderMap);

impl Marks {
    pub(super) fn put_on(self, headers: &mut HeaderMap) {
        for (name, value) in &self.0 {
            headers.append(name.clone(), value.clone());
        }
    }
}

impl Browsers {
    pub(super) fn new(behind: Behind, config: &ProxyConfig) -> Result<Self, StartError> {
        let extra = config.extract_headers_extra.iter().map(|name| {
            let bad = || {
                StartError::Behind(format!(
                    "api.ipfsproxy.extract_headers_extra: {name:?} is no header"
                ))
            };
            name.parse::<HeaderName>().map_err(|_| bad())
        });
        let own = [
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            header::ACCESS_CONTROL_ALLOW_HEADERS,
        ];
        let wanted = own.into_iter().map(Ok).chain(extra);
        Ok(Self {
            behind,
            path: config.extract_headers_path.clone(),
            wanted: wanted.collect::<Result<_, _>>()?,
            ttl: config.extract_headers_ttl,
            known: Mutex::new(Known::default()),
        })
    }

    /// Whether the node would answer this request, and what goes on the answer if so; otherwise the node's
    /// refusal.
    pub(super) async fn admit(&self, request: &Request<RequestBody>) -> Result<Marks, Response<Body>> {
        let known = self.known().await;
        let mut marks = known.headers.clone();
        let asked = about(request.headers());
        if asked.is_empty() && !known.closed {
            return Ok(Marks(marks));
        }
        match self.ask("/api/v0/version", asked).await {
            Some(answer) if answer.status() == StatusCode::OK => {
                for name in CORS {
                    for value in answer.headers().get_all(&name) {
                        marks.append(name.clone(), value.clone());
                    }
                }
                Ok(Marks(marks))
            }
            Some(refusal) => Err(refusal),
            None => {
                let mut response = Response::new(Body::from("the IPFS node that decides on this is away\n"));
                *response.status_mut() = StatusCode::BAD_GATEWAY;
                let text = HeaderValue::from_static("text/plain; charset=utf-8");
                response.headers_mut().insert(header::CONTENT_TYPE, text);
                Err(response)
            }
        }
    }

    async fn known(&self) -> Known {
        let mut known = self.known.lock().await;
        if known.until.is_some_and(|until| Instant::now() < until) {
            return known.clone();
        }
        let hold = |ttl: Duration| Instant::now().checked_add(ttl).unwrap_or_else(far);
        let Some(answer) = self.ask(&self.path, HeaderMap::new()).await else {
            // What was known is better than nothing.
            known.until = Some(hold(AGAIN));
            return known.clone();
        };
        known.closed = [StatusCode::FORBIDDEN, StatusCode::UNAUTHORIZED].contains(&answer.status());
        if answer.status() == StatusCode::OK {
            known.headers = HeaderMap::new();
            for name in &self.wanted {
                for value in answer.headers().get_all(name) {
                    known.headers.append(name.clone(), value.clone());
                }
            }
        }
        known.until = Some(if self.ttl.is_zero() { far() } else { hold(self.ttl) });
        known.clone()
    }

    async fn ask(&self, path: &str, headers: HeaderMap) -> Option<Response<Body>> {
        let mut request = Request::post(path).body(empty()).ok()?;
        *request.headers_mut() = headers;
        timeout(ANSWER, self.behind.send(request)).await.ok()?.ok()
    }
}

/// As good as for ever.
fn far() -> Instant {
    Instant::now() + Duration::from_secs(100 * 365 * 24 * 60 * 60)
}

/// The headers by which Kubo tells pages from programs, and friends from strangers; none when a request has
/// nothing to decide on.
fn about(headers: &HeaderMap) -> HeaderMap {
    let mut asked = credentials(headers);
    for name in [header::ORIGIN, header::REFERER, SEC_FETCH_SITE] {
        if let Some(value) = headers.get(&name) {
            asked.insert(name, value.clone());
        }
    }
    if let Some(agent) = headers.get(header::USER_AGENT)
        && agent.as_bytes().starts_with(b"Mozilla")
    {
        asked.insert(header::USER_AGENT, agent.clone());
    }
    asked
}
