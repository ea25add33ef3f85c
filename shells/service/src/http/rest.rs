//! The servers of the REST API and of the pinning service API: authentication, CORS, access log and redirects
//! around the routes.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::header::{HeaderName, HeaderValue, LOCATION};
use axum::http::{Request, Response, StatusCode, Uri};
use cluster_http::LimitedBody;
use futures::future::BoxFuture;
use hyper::body::Incoming;
use tower::ServiceExt;

use super::access_log::AccessLog;
use super::auth::Auth;
use super::connection::TrackedBody;
use super::cors::Cors;
use super::scopes::ErrorBody;
use super::server::{Client, Limits, Respond, Server, Service, StartError, listen_tls};
use super::{HttpConfig, Observed, metrics, pinning_service, refusals, routes};
use crate::cluster::Cluster;

/// State shared by all requests.
struct Shared {
    router: Router,
    /// Label in metrics.
    api: &'static str,
    /// Builds the answer to a request that is refused before it is routed.
    error: ErrorBody,
    auth: Arc<Auth>,
    cors: Cors,
    headers: Vec<(HeaderName, HeaderValue)>,
    access: AccessLog,
}

/// Starts serving the REST API. All addresses are bound before this returns.
///
/// # Errors
/// An address cannot be bound, the access log cannot be opened, or a configured header is invalid.
pub async fn serve(cluster: Cluster, observed: Observed, config: HttpConfig) -> Result<Server, StartError> {
    let router = |auth| routes::router(cluster.clone(), observed, auth);
    serve_router(Service::Rest, &cluster, router, routes::error, config).await
}

/// Starts serving the pinning service API.
///
/// # Errors
/// As for [`serve`].
pub async fn serve_pinning_service(cluster: Cluster, config: HttpConfig) -> Result<Server, StartError> {
    let router = |auth| pinning_service::router(cluster.clone(), auth);
    serve_router(
        Service::PinningService,
        &cluster,
        router,
        pinning_service::error,
        config,
    )
    .await
}

async fn serve_router(
    service: Service,
    cluster: &Cluster,
    router: impl FnOnce(Arc<Auth>) -> Router,
    error: ErrorBody,
    config: HttpConfig,
) -> Result<Server, StartError> {
    let users = config.credentials.clone();
    let auth = Arc::new(Auth::new(cluster.clone(), users, config.require_credentials));
    let access = match &config.log_file {
        None => AccessLog::default(),
        Some(path) => AccessLog::to_file(path).map_err(|source| StartError::AccessLog {
            path: path.display().to_string(),
            source,
        })?,
    };
    let shared = Shared {
        router: metrics::measured(service, router(auth.clone())),
        api: service.label(),
        error,
        auth,
        cors: Cors::new(config.cors.clone()),
        headers: headers(&config)?,
        access,
    };
    let limits = Limits {
        service,
        read_header_timeout: config.read_header_timeout,
        idle_timeout: config.idle_timeout,
        max_header_bytes: config.max_header_bytes,
    };
    listen_tls(&config.listen, limits, config.tls, Arc::new(shared)).await
}

impl HttpConfig {
    /// Validates the configured headers, without binding an address.
    ///
    /// # Errors
    /// A configured header is invalid.
    pub fn check(&self) -> Result<(), StartError> {
        headers(self).map(drop)
    }
}

fn headers(config: &HttpConfig) -> Result<Vec<(HeaderName, HeaderValue)>, StartError> {
    let all = config
        .headers
        .iter()
        .flat_map(|(name, values)| values.iter().map(move |value| (name, value)));
    all.map(|(name, value)| {
        let bad = || StartError::Header(format!("{name}: {value}"));
        let name: HeaderName = name.parse().map_err(|_| bad())?;
        Ok((name, value.parse().map_err(|_| bad())?))
    })
    .collect()
}

impl Respond for Shared {
    fn respond(
        self: Arc<Self>,
        client: Client,
        mut request: Request<TrackedBody<Incoming>>,
    ) -> BoxFuture<'static, Response<Body>> {
        Box::pin(async move {
            let mut line = self.access.begin(client.address, &request);
            let response = match self.auth.admit(&request) {
                Err(denied) => {
                    refusals::note(self.api, denied.label(), &denied.why());
                    with_headers(&self, denied.response(self.error))
                }
                Ok(caller) => {
                    // A browser sends a password only to the host name it was entered for, so an
                    // authenticated request needs no check against DNS rebinding.
                    let check_host = client.on_loopback && caller.name().is_none();
                    if let (Some(line), Some(name)) = (&mut line, caller.name()) {
                        line.set_user(name);
                    }
                    request.extensions_mut().insert(caller);
                    match self.cors.refusal(&request, check_host) {
                        Some(why) => {
                            self.count_refusal("web_page");
                            with_headers(&self, (self.error)(StatusCode::FORBIDDEN, &why))
                        }
                        None => respond(&self, request).await,
                    }
                }
            };
            match line {
                Some(line) => line.track(response),
                None => response,
            }
        })
    }
}

impl Shared {
    /// Counts a request that does not reach its route.
    fn count_refusal(&self, reason: &str) {
        metrics::count_refusal(self.api, reason);
    }
}

/// Answers an authenticated request: a CORS preflight, a redirect if the path has surplus slashes, or
/// its route.
async fn respond(shared: &Shared, request: Request<TrackedBody<Incoming>>) -> Response<Body> {
    if let Some(preflight) = shared.cors.preflight(&request) {
        return preflight;
    }
    let page = shared.cors.page_access(&request);
    let mut response = match without_slashes(request.uri()) {
        Some(location) => redirect(location),
        None => {
            let request = LimitedBody::of(request).map(Body::new);
            match shared.router.clone().oneshot(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            }
        }
    };
    shared.cors.add_headers(page.as_ref(), &mut response);
    with_headers(shared, response)
}

fn with_headers(shared: &Shared, mut response: Response<Body>) -> Response<Body> {
    for (name, value) in &shared.headers {
        response.headers_mut().append(name.clone(), value.clone());
    }
    response
}

/// Returns the URI with repeated slashes of its path merged and the one at its end removed, if that changes
/// it.
fn without_slashes(uri: &Uri) -> Option<HeaderValue> {
    // A location that begins with two slashes would name another host: there is one before each part.
    let parts = uri.path().split('/').filter(|part| !part.is_empty());
    let path: String = parts.flat_map(|part| ["/", part]).collect();
    if path == uri.path() || uri.path() == "/" {
        return None;
    }
    let path = if path.is_empty() { "/" } else { &path };
    let location = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    HeaderValue::from_str(&location).ok()
}

fn redirect(location: HeaderValue) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    response.headers_mut().insert(LOCATION, location);
    response
}
