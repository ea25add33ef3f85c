//! Access control and CORS headers for answers that the proxy makes itself.
//!
//! The node decides which web pages may use it and which clients need a password, and answers made here
//! must not be more generous. So a request that may come from a page, or that has credentials, is first
//! checked against the node, with a command that has no effect.

use std::time::Duration;

use axum::body::Body;
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Request, Response, StatusCode};
use cluster_http::rpc::Failure;
use cluster_ipfs::api::RequestBody;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::call::credentials;
use super::kubo_response::failed;
use super::upstream::Upstream;
use super::{ProxyConfig, empty};
use crate::http::server::StartError;

/// Time limit of a check; a node that does not answer in time counts as down.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// Time for which the cached headers are kept after the node could not be reached.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// Headers that decide whether a page may read a response.
const CORS: [HeaderName; 3] = [
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::VARY,
];

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Refuses a request for a public host name on a loopback address: DNS rebinding. The node could not check
/// this, because the requests that it gets from the proxy are for its own address.
pub(super) fn refuse_public_host(host: &str) -> Response<Body> {
    let why = format!("requests for {host:?} are refused on a loopback address: use 127.0.0.1 or localhost");
    failed(Failure::plain(StatusCode::FORBIDDEN, why))
}

/// The node's access rules, checked per request, and the headers cached from it.
pub(super) struct NodeAccess {
    upstream: Upstream,
    path: String,
    wanted: Vec<HeaderName>,
    ttl: Duration,
    known: Mutex<CachedHeaders>,
}

/// The last response to [`NodeAccess::path`], as far as it is needed.
#[derive(Clone, Default)]
struct CachedHeaders {
    /// Headers to add to all answers.
    headers: HeaderMap,
    /// Set if the node refused a request without credentials.
    closed: bool,
    /// Expiry of this entry; `None` before the first request.
    until: Option<Instant>,
}

/// Headers to add to one answer.
#[derive(Debug, Default)]
pub(super) struct ExtraHeaders(HeaderMap);

impl ExtraHeaders {
    pub(super) fn append_to(self, headers: &mut HeaderMap) {
        for (name, value) in &self.0 {
            headers.append(name.clone(), value.clone());
        }
    }
}

impl NodeAccess {
    pub(super) fn new(upstream: Upstream, config: &ProxyConfig) -> Result<Self, StartError> {
        let extra = config.extract_headers_extra.iter().map(|name| {
            let bad = || {
                StartError::Upstream(format!(
                    "api.ipfsproxy.extract_headers_extra: {name:?} is not a valid HTTP header"
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
            upstream,
            path: config.extract_headers_path.clone(),
            wanted: wanted.collect::<Result<_, _>>()?,
            ttl: config.extract_headers_ttl,
            known: Mutex::new(CachedHeaders::default()),
        })
    }

    /// Returns the headers to add to the answer if the node would answer this request, or else the node's
    /// refusal.
    pub(super) async fn admit(&self, request: &Request<RequestBody>) -> Result<ExtraHeaders, Response<Body>> {
        let known = self.known().await;
        let mut extra = known.headers.clone();
        let asked = access_headers(request.headers());
        if asked.is_empty() && !known.closed {
            return Ok(ExtraHeaders(extra));
        }
        match self.ask("/api/v0/version", asked).await {
            Some(answer) if answer.status() == StatusCode::OK => {
                for name in CORS {
                    for value in answer.headers().get_all(&name) {
                        extra.append(name.clone(), value.clone());
                    }
                }
                Ok(ExtraHeaders(extra))
            }
            Some(refusal) => Err(refusal),
            None => {
                let why = "the IPFS node, which decides on this request, cannot be reached\n";
                let mut response = Response::new(Body::from(why));
                *response.status_mut() = StatusCode::BAD_GATEWAY;
                let text = HeaderValue::from_static("text/plain; charset=utf-8");
                response.headers_mut().insert(header::CONTENT_TYPE, text);
                Err(response)
            }
        }
    }

    async fn known(&self) -> CachedHeaders {
        let mut known = self.known.lock().await;
        if known.until.is_some_and(|until| Instant::now() < until) {
            return known.clone();
        }
        let hold = |ttl: Duration| Instant::now().checked_add(ttl).unwrap_or_else(never);
        let Some(answer) = self.ask(&self.path, HeaderMap::new()).await else {
            // Expired headers are better than none.
            known.until = Some(hold(RETRY_PAUSE));
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
        known.until = Some(if self.ttl.is_zero() {
            never()
        } else {
            hold(self.ttl)
        });
        known.clone()
    }

    async fn ask(&self, path: &str, headers: HeaderMap) -> Option<Response<Body>> {
        let mut request = Request::post(path).body(empty()).ok()?;
        *request.headers_mut() = headers;
        timeout(CHECK_TIMEOUT, self.upstream.send(request))
            .await
            .ok()?
            .ok()
    }
}

/// Returns a time that is never reached.
fn never() -> Instant {
    Instant::now() + Duration::from_secs(100 * 365 * 24 * 60 * 60)
}

/// Returns the headers from which Kubo recognises pages and authenticates clients; empty if the request has
/// none.
fn access_headers(headers: &HeaderMap) -> HeaderMap {
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
