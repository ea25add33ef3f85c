//! The IPFS proxy: serves the API of the Kubo daemon behind it, but the cluster pins what clients pin there.
//!
//! Commands that pin, unpin, list pins or report on the repository are answered here; the rest is forwarded
//! to the node as a stream, in both directions. Commands that add content are forwarded too: the proxy
//! reads in the node's response what the node has pinned, and the cluster pins that before the response
//! ends. So options, answers and errors are the node's own.

mod body_timeouts;
mod call;
mod forward;
mod kubo_response;
mod line_filter;
mod node_access;
mod pin_ls;
mod pin_progress;
mod pins;
mod repo;
#[cfg(test)]
mod tests;
mod uploads;
mod upstream;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::header::{self, HeaderValue};
use axum::http::{Method, Request, Response, StatusCode};
use cluster_http::rpc::Failure;
use cluster_http::web_origin;
use cluster_http::{LimitedBody, ListenAddress};
use cluster_ipfs::api::RequestBody;
use cluster_ipfs::unixfs::Name;
use futures::future::BoxFuture;
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use tokio::sync::Semaphore;

use self::call::{Call, Command};
use self::kubo_response::failed;
use self::node_access::NodeAccess;
pub use self::upstream::Upstream;
use super::access_log::AccessLog;
use super::auth::{Auth, Caller};
use super::connection::TrackedBody;
use super::scopes::{self, ErrorBody};
use super::server::{Client, Limits, Respond, Server, Service, StartError, listen};
use super::{metrics, refusals};
use crate::cluster::Cluster;
use crate::trace::{ServerRequest, ServerSpan};

/// Maximum number of requests whose bodies are still being read. Half of the proxy's connections, so that
/// uploads of slow or silent clients leave room for other requests.
const UPLOADS_MAX: usize = 2048;

/// Settings of the IPFS proxy.
#[derive(Debug, Clone)]
pub struct ProxyConfig {
    /// Addresses to listen on. Port 0 picks a free one.
    pub listen: Vec<ListenAddress>,
    /// Demands tokens of the cluster's credentials, which the node behind the proxy does not see.
    pub require_credentials: bool,
    /// Access log file; if absent, requests go to the peer's log at level debug.
    pub log_file: Option<PathBuf>,
    /// Time for a whole request to arrive; zero for no limit, as with the other times.
    pub read_timeout: Duration,
    /// Time for a request's headers to arrive.
    pub read_header_timeout: Duration,
    /// Time for the client to read the response.
    pub write_timeout: Duration,
    /// Time after which a connection without a request is closed.
    pub idle_timeout: Duration,
    /// Approximate limit of a request's headers, in bytes; values below 4096 count as 4096.
    pub max_header_bytes: usize,
    /// Headers to copy from the node to answers made here, besides those that browsers need.
    pub extract_headers_extra: Vec<String>,
    /// Path of the request to the node whose response has these headers.
    pub extract_headers_path: String,
    /// Time for which they are cached; zero for no limit.
    pub extract_headers_ttl: Duration,
}

/// Starts serving the proxy. All addresses are bound before this returns.
///
/// # Errors
/// An address cannot be bound, the log file cannot be opened, or an extra header is invalid.
pub async fn serve_proxy(
    cluster: Cluster,
    upstream: Upstream,
    config: ProxyConfig,
) -> Result<Server, StartError> {
    let log = match &config.log_file {
        None => AccessLog::default(),
        Some(path) => AccessLog::to_file(path).map_err(|source| StartError::AccessLog {
            path: path.display().to_string(),
            source,
        })?,
    };
    let server = format!("ipfs-cluster/ipfsproxy/{}", cluster.version());
    let auth = config
        .require_credentials
        .then(|| Arc::new(Auth::new(cluster.clone(), None, true)));
    let proxy = Proxy {
        cluster,
        auth,
        access: Arc::new(NodeAccess::new(upstream.clone(), &config)?),
        upstream,
        log,
        server: HeaderValue::from_str(&server).unwrap_or(HeaderValue::from_static("ipfs-cluster/ipfsproxy")),
        uploads: Arc::new(Semaphore::new(UPLOADS_MAX)),
        read_timeout: config.read_timeout,
        write_timeout: config.write_timeout,
    };
    let limits = Limits {
        service: Service::Proxy,
        read_header_timeout: config.read_header_timeout,
        idle_timeout: config.idle_timeout,
        max_header_bytes: config.max_header_bytes,
    };
    listen(&config.listen, limits, Arc::new(proxy)).await
}

/// Label of requests that are forwarded to the node.
const FORWARDED: &str = "forwarded";

/// State shared by all requests, with the operations as the caller of one of them may use them.
#[derive(Clone)]
struct Proxy {
    cluster: Cluster,
    /// `None` if no credentials are demanded.
    auth: Option<Arc<Auth>>,
    upstream: Upstream,
    access: Arc<NodeAccess>,
    log: AccessLog,
    server: HeaderValue,
    uploads: Arc<Semaphore>,
    read_timeout: Duration,
    write_timeout: Duration,
}

impl Respond for Proxy {
    fn respond(
        self: Arc<Self>,
        client: Client,
        mut request: Request<TrackedBody<Incoming>>,
    ) -> BoxFuture<'static, Response<Body>> {
        Box::pin(async move {
            let mut line = self.log.begin(client.address, &request);
            let admitted = self.admit(&mut request);
            let caller = admitted.as_ref().ok().and_then(Option::as_ref);
            if let (Some(line), Some(name)) = (&mut line, caller.and_then(Caller::name)) {
                line.set_user(name);
            }
            let acting = Self {
                cluster: caller.map_or(self.cluster.clone(), |caller| caller.acting(&self.cluster)),
                ..Self::clone(&self)
            };
            let mut request = LimitedBody::of(request);
            let host = web_origin::public_host(request.headers()).filter(|_| client.on_loopback);
            let response = match (host, self.reserve_upload(request.body_mut())) {
                _ if let Err(refusal) = admitted => *refusal,
                (Some(host), _) => node_access::refuse_public_host(&host),
                (None, Ok(())) => {
                    let request = request.map(|body| body_timeouts::limit_arrival(body, self.read_timeout));
                    acting.answer(client.address, request).await
                }
                (None, Err(busy)) => failed(busy),
            };
            let response = response.map(|body| body_timeouts::limit_delivery(body, self.write_timeout));
            match line {
                Some(line) => line.track(response),
                None => response,
            }
        })
    }
}

impl Proxy {
    /// Checks the credentials, if they are demanded, and takes them from the request: they are not the
    /// node's. Returns the caller. Preflight requests, which carry no credentials, are admitted.
    fn admit<B>(&self, request: &mut Request<B>) -> Result<Option<Caller>, Box<Response<Body>>> {
        let Some(auth) = &self.auth else { return Ok(None) };
        if request.method() == Method::OPTIONS {
            return Ok(None);
        }
        let api = Service::Proxy.label();
        let error: ErrorBody = |status, why| failed(Failure::plain(status, why));
        let caller = auth.authenticate(request.headers()).map_err(|denied| {
            refusals::note(api, denied.label(), &denied.why());
            Box::new(denied.response(error))
        })?;
        let path = request.uri().path();
        scopes::require(&caller, scopes::of_command(path), api)
            .and_then(|()| scopes::require_unrestricted(&caller, path, api))
            .map_err(|why| Box::new(error(StatusCode::FORBIDDEN, &why)))?;
        request.headers_mut().remove(header::AUTHORIZATION);
        Ok(Some(caller))
    }

    /// Reserves an upload slot for a request with a body, until the body has been read.
    fn reserve_upload(&self, body: &mut LimitedBody<TrackedBody<Incoming>>) -> Result<(), Failure> {
        if !body.is_end_stream() {
            let place = self.uploads.clone().try_acquire_owned().map_err(|_| {
                let why = format!("at most {UPLOADS_MAX} uploads can run at once; try again later");
                Failure::plain(StatusCode::SERVICE_UNAVAILABLE, why)
            })?;
            body.hold(place);
        }
        Ok(())
    }

    async fn answer(&self, client: Option<SocketAddr>, request: Request<RequestBody>) -> Response<Body> {
        let (start, method) = (Instant::now(), request.method().clone());
        let found = Command::find(request.uri().path());
        let route = found.as_ref().map_or(FORWARDED, |(command, _)| command.name());
        let span = ServerSpan::begin(ServerRequest {
            api: Service::Proxy.label(),
            method: metrics::known_method(&method),
            route,
            headers: request.headers(),
            path: request.uri().path(),
        });
        // Boxed, since the span would hold the large future twice.
        let answering = Box::pin(self.answer_or_forward(client, request));
        let response = span.answer(answering).await;
        metrics::count("proxy", route, &method, response.status(), start);
        response
    }

    async fn answer_or_forward(
        &self,
        client: Option<SocketAddr>,
        request: Request<RequestBody>,
    ) -> Response<Body> {
        let hijacked = [Method::POST, Method::GET, Method::PUT].contains(request.method());
        match Command::find(request.uri().path()).filter(|_| hijacked) {
            None => forward::pass(&self.upstream, client, request).await,
            Some((command @ (Command::Add | Command::Put(_)), _)) => {
                uploads::answer(self, command, client, request).await
            }
            Some((command, first)) => self.answer_here(command, first, request).await,
        }
    }

    /// Answers a command that is not forwarded, as the node would.
    async fn answer_here(
        &self,
        command: Command,
        first: Option<Name>,
        request: Request<RequestBody>,
    ) -> Response<Body> {
        let extra = match self.access.admit(&request).await {
            Ok(extra) => extra,
            Err(refusal) => return refusal,
        };
        let done = match Call::read(command, first, request).await {
            Ok(call) => self.run(command, call).await,
            Err(failure) => Err(failure),
        };
        let mut response = done.unwrap_or_else(failed);
        extra.append_to(response.headers_mut());
        response.headers_mut().insert(header::SERVER, self.server.clone());
        response
    }

    async fn run(&self, command: Command, call: Call) -> Result<Response<Body>, Failure> {
        match command {
            Command::PinAdd => pins::add(self, call).await,
            Command::PinRm => pins::rm(self, call).await,
            Command::PinLs => pin_ls::ls(self, call).await,
            Command::PinUpdate => pins::update(self, call).await,
            Command::RepoStat => repo::stat(self, call).await,
            Command::RepoGc => repo::gc(self, call).await,
            // These are forwarded to the node.
            Command::Add | Command::Put(_) => Err(Failure::failed("this command is answered by the node")),
        }
    }
}

/// Returns the body of a request that the proxy itself makes.
fn empty() -> RequestBody {
    http_body_util::Empty::new()
        .map_err(|never| match never {})
        .boxed()
}
