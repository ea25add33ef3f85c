//! One request: its host, its path and the format of the answer.

use std::time::Duration;

use hyper::header::{self, HeaderMap};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use tokio::time::timeout;

use super::content_path::{ContentPath, Namespace, escape, escape_in_query};
use super::failure::Refusal;
use super::format::{self, Format, Requested};
use super::headers;
use super::hosts::{Destination, Origin};
use super::reply::{Body, PIECE_TIMEOUT, empty};
use super::{Gateway, archive, block, car, hosts, record, redirects, routing, unixfs};
use crate::node::Trace;
use crate::unixfs::Name;
use crate::{Cid, DagPath, Error};

/// A request for content.
pub(super) struct Asked<'r> {
    /// True if the answer has no body.
    pub(super) head: bool,
    pub(super) headers: &'r HeaderMap,
    pub(super) query: Query,
    /// Path of the URL, escaped, as the client sent it.
    pub(super) url_path: String,
    pub(super) origin: Origin,
    pub(super) path: ContentPath,
    pub(super) format: Requested,
}

/// Parameters of a URL.
#[derive(Debug, Clone, Default)]
pub(super) struct Query {
    raw: Option<String>,
    pairs: Vec<(String, String)>,
}

impl Query {
    pub(super) fn parse(raw: Option<&str>) -> Query {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let pairs = cluster_http::query::pairs(raw.unwrap_or_default());
        Query {
            raw: raw.map(str::to_owned),
            pairs: pairs.map(|(name, value)| (text(name), text(value))).collect(),
        }
    }

    /// Returns the first value of a parameter that is not empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.pairs.iter().find(|(known, _)| known == name);
        found
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.pairs.iter().any(|(known, _)| known == name)
    }

    /// Returns the query with its question mark; nothing without parameters.
    pub(super) fn suffix(&self) -> String {
        self.raw.as_ref().map(|raw| format!("?{raw}")).unwrap_or_default()
    }
}

/// Resolved content.
pub(super) struct Target {
    /// CID of each segment of the path.
    pub(super) roots: Vec<Cid>,
    pub(super) cid: Cid,
    /// Rest of the path, inside the block of `cid`.
    pub(super) remainder: Vec<Name>,
    pub(super) mutable: bool,
    /// Time for which the name in the path resolves to the content.
    pub(super) ttl: Option<Duration>,
}

/// Answers a request.
pub(super) async fn answer(gateway: &Gateway, request: &Parts) -> Response<Body> {
    let answered = match request.method {
        Method::GET | Method::HEAD => timeout(PIECE_TIMEOUT, route(gateway, request))
            .await
            .unwrap_or_else(|_| Err(Refusal::timeout())),
        Method::OPTIONS => Ok(Response::new(empty())),
        _ => {
            let text = "only GET, HEAD and OPTIONS are allowed";
            Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, text))
        }
    };
    let mut response = answered.unwrap_or_else(Refusal::into_response);
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        headers::set(response.headers_mut(), header::ALLOW, "GET, HEAD, OPTIONS");
    }
    headers::add_common(response.headers_mut());
    response
}

async fn route(gateway: &Gateway, request: &Parts) -> Result<Response<Body>, Refusal> {
    let query = Query::parse(request.uri.query());
    let url_path = request.uri.path();
    if let Some(rest) = url_path.strip_prefix("/routing/v1/") {
        return routing::answer(gateway, rest, &query, &request.headers).await;
    }
    if let Some(uri) = query.get("uri") {
        return protocol_redirect(uri);
    }
    let (path, origin) = match hosts::destination(gateway, request).await? {
        Destination::Redirect(location) => return Ok(redirect(StatusCode::MOVED_PERMANENTLY, &location)),
        Destination::Content { path, origin } => (path, origin),
    };
    if !(path.starts_with("/ipfs/") || path.starts_with("/ipns/")) {
        return Err(Refusal::new(StatusCode::NOT_FOUND, "404 page not found"));
    }
    if let Some(response) = namespace_redirect(&path, &query)? {
        return Ok(response);
    }
    let asked = Asked {
        head: request.method == Method::HEAD,
        headers: &request.headers,
        url_path: url_path.to_owned(),
        path: ContentPath::parse(&path)?,
        format: format::requested(query.get("format"), &request.headers)?,
        origin,
        query,
    };
    check_service_worker(&asked)?;
    if let Some(response) = canonical_name_redirect(&asked) {
        return Ok(response);
    }
    let mut response = content(gateway, &asked).await?;
    let headers = response.headers_mut();
    headers::set(headers, super::server::X_IPFS_PATH, &asked.path.to_string());
    if let Some(location) = content_location(&asked) {
        headers::set(headers, header::CONTENT_LOCATION, &location);
    }
    Ok(response)
}

/// Answers a request for content.
async fn content(gateway: &Gateway, asked: &Asked<'_>) -> Result<Response<Body>, Refusal> {
    let only_cached = asked.headers.get(header::CACHE_CONTROL);
    if only_cached.is_some_and(|value| value.as_bytes() == b"only-if-cached") {
        let local = Gateway {
            node: gateway.node.offline(),
            ..gateway.clone()
        };
        let answer = Box::pin(available(&local, asked)).await;
        return answer.map_err(|refusal| match refusal.is_not_found() {
            true => Refusal::new(
                StatusCode::PRECONDITION_FAILED,
                format!("{:?} not in local datastore", asked.path.to_string()),
            ),
            false => refusal,
        });
    }
    Box::pin(available(gateway, asked)).await
}

async fn available(gateway: &Gateway, asked: &Asked<'_>) -> Result<Response<Body>, Refusal> {
    if asked.format.format == Some(Format::IpnsRecord) {
        return record::answer(gateway, asked).await;
    }
    let (path, ttl) = resolve_name(gateway, asked).await?;
    if asked.format.format == Some(Format::Car) {
        return car::answer(gateway, asked, path, ttl).await;
    }
    let trace = match gateway.node.trace(&path).await {
        Ok(trace) => trace,
        // Only where the content has an origin of its own may it redirect (web-redirects-file, section 3).
        Err(Error::NoLink { .. }) if asked.origin.is_isolated() && asked.format.format.is_none() => {
            return redirects::answer(gateway, asked, &path, ttl).await;
        }
        Err(error) => return Err(error.into()),
    };
    let target = Target::new(trace, asked.path.is_mutable(), ttl);
    resolved(gateway, asked, &target).await
}

impl Target {
    pub(super) fn new(trace: Trace, mutable: bool, ttl: Option<Duration>) -> Target {
        Target {
            roots: trace.roots,
            cid: trace.resolved.cid,
            remainder: trace.resolved.remainder,
            mutable,
            ttl,
        }
    }

    /// Adds the headers that depend on the path.
    pub(super) fn add_headers(&self, headers: &mut HeaderMap, etag: &str) {
        let roots: Vec<String> = self.roots.iter().map(Cid::to_string).collect();
        headers::set(headers, super::server::X_IPFS_ROOTS, &roots.join(","));
        headers::set(headers, header::ETAG, etag);
        if let Some(value) = headers::cache_control(self.mutable, self.ttl) {
            headers::set(headers, header::CACHE_CONTROL, &value);
        }
    }
}

/// Answers a request whose path exists.
pub(super) async fn resolved(
    gateway: &Gateway,
    asked: &Asked<'_>,
    target: &Target,
) -> Result<Response<Body>, Refusal> {
    let format = asked.format.format;
    let plain = headers::etag(&target.cid, format.map(Format::name));
    let content = headers::cache_control(target.mutable, target.ttl);
    let page = headers::page_cache_control(target.mutable, target.ttl);
    for (etag, cache_control) in [
        (plain, content),
        (headers::listing_etag(&target.cid), page),
        (headers::node_etag(&target.cid), None),
    ] {
        if headers::matches(asked.headers, &etag) {
            return Ok(not_modified(&etag, cache_control.as_deref()));
        }
    }
    match format {
        None | Some(Format::Json | Format::Cbor) => unixfs::answer(gateway, asked, target).await,
        Some(Format::Raw) => block::raw(gateway, asked, target).await,
        Some(Format::DagJson | Format::DagCbor) => block::node(gateway, asked, target).await,
        Some(Format::Tar) => archive::answer(gateway, asked, target).await,
        // Answered before the path was resolved.
        Some(Format::Car | Format::IpnsRecord) => Err(Refusal::bad_request("unsupported format")),
    }
}

/// Returns the answer to a client that has the content already.
pub(super) fn not_modified(etag: &str, cache_control: Option<&str>) -> Response<Body> {
    let mut response = Response::new(empty());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    headers::set(response.headers_mut(), header::ETAG, etag);
    if let Some(value) = cache_control {
        headers::set(response.headers_mut(), header::CACHE_CONTROL, value);
    }
    response
}

pub(super) fn redirect(status: StatusCode, location: &str) -> Response<Body> {
    let mut response = Response::new(empty());
    *response.status_mut() = status;
    headers::set(response.headers_mut(), header::LOCATION, location);
    response
}

/// Resolves the name that the path begins with, if any.
pub(super) async fn resolve_name(
    gateway: &Gateway,
    asked: &Asked<'_>,
) -> Result<(DagPath, Option<Duration>), Refusal> {
    let path = &asked.path;
    if path.namespace == Namespace::Ipfs {
        let root = path.root.parse::<DagPath>();
        let root = root
            .map_err(|error| Refusal::bad_request(error.to_string()))?
            .root;
        let segments = path.segments.clone();
        return Ok((DagPath { root, segments }, None));
    }
    let name = format!("/ipns/{}", path.root);
    let found = gateway
        .node
        .resolve_name(&name, true, crate::Lookup::Cached)
        .await;
    let found = found.map_err(|error| {
        let text = format!("failed to resolve {name}: {error}");
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, text)
    })?;
    let mut resolved: DagPath = found.path.parse().map_err(Refusal::from)?;
    resolved.segments.extend(path.segments.iter().cloned());
    Ok((resolved, found.ttl))
}

/// Redirects `?uri=ipfs://…`, as which browsers open links when a page registered the scheme.
fn protocol_redirect(uri: &str) -> Result<Response<Body>, Refusal> {
    let (scheme, rest) = uri.split_once("://").unwrap_or((uri, ""));
    if scheme != "ipfs" && scheme != "ipns" {
        return Err(Refusal::bad_request(
            "invalid uri: its scheme is neither ipfs nor ipns",
        ));
    }
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let escaped: Vec<String> = path.split('/').map(escape).collect();
    let query = match query {
        "" => String::new(),
        query => format!("?{}", escape(query)),
    };
    let location = format!("/{scheme}/{}{query}", escaped.join("/"));
    Ok(redirect(StatusCode::MOVED_PERMANENTLY, &location))
}

/// Redirects `/ipfs/ipfs/…` and `/ipfs/ipns/…` to the path that was meant.
fn namespace_redirect(path: &str, query: &Query) -> Result<Option<Response<Body>>, Refusal> {
    let Some(meant) = path
        .strip_prefix("/ipfs")
        .filter(|rest| rest.starts_with("/ipfs/") || rest.starts_with("/ipns/"))
    else {
        return Ok(None);
    };
    ContentPath::parse(meant)?;
    let location = format!("{meant}{}", query.suffix());
    Ok(Some(redirect(StatusCode::MOVED_PERMANENTLY, &location)))
}

/// Refuses scripts that would see the requests of all other content on this host.
fn check_service_worker(asked: &Asked<'_>) -> Result<(), Refusal> {
    let registers = asked.headers.get("service-worker");
    let registers = registers.is_some_and(|value| value.as_bytes() == b"script");
    if registers && asked.path.segments.is_empty() {
        let why = "navigator.serviceWorker: registration is not allowed for this scope";
        return Err(Refusal::bad_request(why));
    }
    Ok(())
}

/// Redirects names of keys to their form in base36.
fn canonical_name_redirect(asked: &Asked<'_>) -> Option<Response<Body>> {
    if asked.path.namespace != Namespace::Ipns || asked.origin.is_isolated() {
        return None;
    }
    let name = crate::ipns::format_name(&crate::ipns::parse_name(&asked.path.root)?);
    if name == asked.path.root {
        return None;
    }
    let segments = asked.path.segments.iter().map(|it| format!("/{}", escape(it)));
    let slash = if asked.path.slash { "/" } else { "" };
    let location = format!(
        "/ipns/{name}{}{slash}{}",
        segments.collect::<String>(),
        asked.query.suffix()
    );
    Some(redirect(StatusCode::FOUND, &location))
}

/// Returns the URL of the answer's format, where the format was negotiated by `Accept`: for caches.
fn content_location(asked: &Asked<'_>) -> Option<String> {
    let format = asked.format.format?.name();
    if asked.query.get("format") == Some(format) {
        return None;
    }
    let mut pairs: Vec<(String, String)> = asked.query.pairs.clone();
    pairs.retain(|(name, _)| name != "format");
    pairs.push(("format".to_owned(), format.to_owned()));
    for (name, value) in &asked.format.parameters {
        let name = format!("{format}-{name}");
        if !asked.query.has(&name) {
            pairs.push((name, value.clone()));
        }
    }
    let pairs: Vec<String> = pairs
        .iter()
        .map(|(name, value)| format!("{}={}", escape_in_query(name), escape_in_query(value)))
        .collect();
    Some(format!("{}?{}", asked.url_path, pairs.join("&")))
}
