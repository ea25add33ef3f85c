//! Metrics over HTTP: the route and the listener for Prometheus, and the measuring of requests.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{MatchedPath, Request};
use axum::http::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use axum::http::{self, Method, Response, StatusCode};
use axum::middleware::Next;
use axum::{Extension, Router, middleware};
use cluster_http::ListenAddress;
use futures::future::BoxFuture;
use hyper::body::Incoming;

use super::connection::TrackedBody;
use super::server::{Client, Limits, Respond, Server, Service, StartError, listen};
use super::{Observed, answer};
use crate::metrics::{CONTENT_TYPE as FORMAT, Observer, metrics};
use crate::trace::{ServerRequest, ServerSpan};

/// Label of requests without a route.
const NO_ROUTE: &str = "none";

/// Time for the headers of a scrape to arrive.
const HEADERS_TIMEOUT: Duration = Duration::from_secs(5);

/// Time after which a connection without a scrape is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);

/// Limit of the headers of a scrape, in bytes.
const HEADERS_MAX: usize = 8192;

/// Answers `GET /metrics`.
pub(super) async fn scrape(Extension(observed): Extension<Observed>) -> Response<Body> {
    match &observed.observer {
        Some(observer) => in_format(observer.scrape().await),
        None => in_format(metrics().encode()),
    }
}

fn in_format(text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(FORMAT));
    response
}

/// Adds the measuring and tracing of requests to all routes of an API.
pub(super) fn measured(service: Service, router: Router) -> Router {
    let api = service.label();
    router.layer(middleware::from_fn(move |request, next| {
        measure(api, request, next)
    }))
}

/// Counts a request that is refused before it reaches its route.
pub(super) fn count_refusal(api: &str, reason: &str) {
    metrics().http_refused.with_label_values(&[api, reason]).inc();
}

/// Counts a request and the time until its response begins, and traces it.
async fn measure(api: &'static str, request: Request, next: Next) -> Response<Body> {
    let start = Instant::now();
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let method = request.method().clone();
    let route = matched.as_ref().map_or(NO_ROUTE, MatchedPath::as_str);
    let span = ServerSpan::begin(ServerRequest {
        api,
        method: known_method(&method),
        route,
        headers: request.headers(),
        path: request.uri().path(),
    });
    let response = span.answer(next.run(request)).await;
    count(api, route, &method, response.status(), start);
    response
}

/// Returns the name of a method, `other` for those that clients make up.
pub(super) fn known_method(method: &Method) -> &'static str {
    let known = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"];
    let found = known.into_iter().find(|known| method.as_str() == *known);
    found.unwrap_or("other")
}

/// Returns the class of a status. Each class has a histogram, so that single statuses would be too many.
fn class(status: StatusCode) -> &'static str {
    match status.as_u16() / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        5 => "5xx",
        _ => "other",
    }
}

/// Counts a request.
pub(super) fn count(api: &str, route: &str, method: &Method, status: StatusCode, start: Instant) {
    let labels = [api, route, known_method(method), status.as_str()];
    let metrics = metrics();
    metrics.http_requests.with_label_values(&labels).inc();
    let labels = [api, route, class(status)];
    let duration = metrics.http_duration.with_label_values(&labels);
    duration.observe(start.elapsed().as_secs_f64());
}

/// The listener for Prometheus.
struct Scrapes {
    observer: Observer,
}

impl Respond for Scrapes {
    fn respond(
        self: Arc<Self>,
        _client: Client,
        request: http::Request<TrackedBody<Incoming>>,
    ) -> BoxFuture<'static, Response<Body>> {
        Box::pin(async move {
            if request.uri().path() != "/metrics" {
                return answer::error(StatusCode::NOT_FOUND, "not found: the metrics are at /metrics");
            }
            if ![Method::GET, Method::HEAD].contains(request.method()) {
                let mut refusal = answer::error(StatusCode::METHOD_NOT_ALLOWED, "method not allowed");
                let methods = HeaderValue::from_static("GET,HEAD");
                refusal.headers_mut().insert(ALLOW, methods);
                return refusal;
            }
            in_format(self.observer.scrape().await)
        })
    }
}

/// Starts serving the metrics alone, for Prometheus. All addresses are bound before this returns.
///
/// # Errors
/// An address cannot be bound.
pub async fn serve_metrics(observer: Observer, addresses: &[ListenAddress]) -> Result<Server, StartError> {
    let limits = Limits {
        service: Service::Metrics,
        read_header_timeout: HEADERS_TIMEOUT,
        idle_timeout: IDLE_TIMEOUT,
        max_header_bytes: HEADERS_MAX,
    };
    listen(addresses, limits, Arc::new(Scrapes { observer })).await
}
