//! Access of web pages (CORS): the pages that may use the API, and the response headers for browsers, as the
//! Go peer's library `rs/cors` writes them.
//!
//! One difference: an origin that is matched by `*` alone may only read what is readable without credentials:
//! it never gets credentials, and its requests cannot change anything. The wildcard is the default, and the
//! library reflects any origin for it, so that any page could read with the password that a browser
//! remembers.

use axum::body::Body;
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderName, HeaderValue,
    ORIGIN, VARY,
};
use axum::http::{Method, Request, Response, StatusCode};
use cluster_http::web_origin;

use super::CorsConfig;

/// Headers that the library allows by default.
const HEADERS: [&str; 4] = ["origin", "accept", "content-type", "x-requested-with"];

/// The configured rules.
pub(super) struct Cors {
    config: CorsConfig,
    headers: Vec<String>,
    /// Configured origins in lower case, without `*` alone.
    trusted: Vec<String>,
}

/// Access granted to a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PageAccess {
    /// Full access: the origin is configured.
    Trusted(HeaderValue),
    /// Read access: all origins have it.
    Anybody,
}

impl Cors {
    pub(super) fn new(config: CorsConfig) -> Self {
        let headers = if config.headers.is_empty() {
            HEADERS.iter().map(|name| (*name).to_owned()).collect()
        } else {
            let named = config.headers.iter().map(|name| name.to_ascii_lowercase());
            named.chain(["origin".to_owned()]).collect()
        };
        let trusted = config.origins.iter().filter(|origin| *origin != "*");
        Self {
            trusted: trusted.map(|origin| origin.to_ascii_lowercase()).collect(),
            config,
            headers,
        }
    }

    /// Returns the reason to refuse a request that a web page made, or may have made, without its user's
    /// consent: a write from a page of another origin; with `check_host`, also any request for a public
    /// host name (DNS rebinding).
    pub(super) fn refusal<B>(&self, request: &Request<B>, check_host: bool) -> Option<String> {
        let headers = request.headers();
        if check_host
            && let Some(host) = web_origin::public_host(headers)
            && !self.trusts_host(&host)
        {
            return Some(format!(
                "requests for {host:?} are refused on a loopback address: use 127.0.0.1 or localhost, or add \
                 the origin of {host:?} to cors_allowed_origins"
            ));
        }
        if [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method()) {
            return None;
        }
        let may = |page: &Option<String>| {
            let known = page.as_ref();
            known.is_some_and(|page| self.trusts(page) || web_origin::is_same_origin(page, headers))
        };
        let page = web_origin::origins(headers).into_iter().find(|page| !may(page))?;
        let page = page.map_or("another origin".to_owned(), |page| format!("{page:?}"));
        Some(format!(
            "web pages of {page} may change nothing here: add their origin to cors_allowed_origins (* is not \
             enough)"
        ))
    }

    /// Returns whether an origin (in lower case) is configured. One `*` in a pattern stands for any text.
    fn trusts(&self, origin: &str) -> bool {
        self.trusted.iter().any(|pattern| match pattern.split_once('*') {
            None => pattern == origin,
            Some((before, after)) => {
                origin.len() >= before.len() + after.len()
                    && origin.starts_with(before)
                    && origin.ends_with(after)
            }
        })
    }

    /// Returns whether a host name is that of a configured origin, with any scheme and port.
    fn trusts_host(&self, name: &str) -> bool {
        self.trusted.iter().any(|origin| {
            let authority = origin.split_once("://").map_or(origin.as_str(), |(_, it)| it);
            let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
            host == name
        })
    }

    /// Returns the response if the request is a CORS preflight.
    pub(super) fn preflight<B>(&self, request: &Request<B>) -> Option<Response<Body>> {
        let method = request.headers().get(ACCESS_CONTROL_REQUEST_METHOD);
        let method = method.filter(|_| request.method() == Method::OPTIONS)?;
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let out = response.headers_mut();
        for name in [
            ORIGIN,
            ACCESS_CONTROL_REQUEST_METHOD,
            ACCESS_CONTROL_REQUEST_HEADERS,
        ] {
            out.append(VARY, HeaderValue::from(name));
        }
        let asked = request.headers().get(ACCESS_CONTROL_REQUEST_HEADERS);
        let page = self.page_access(request).filter(|page| {
            let reads = method == "GET" || method == "HEAD";
            let may = reads || matches!(page, PageAccess::Trusted(_));
            may && self.allows_method(method) && self.allows_headers(asked)
        });
        if let Some(page) = page {
            self.allow(&page, out);
            out.insert(ACCESS_CONTROL_ALLOW_METHODS, method.clone());
            if let Some(asked) = asked.filter(|asked| !asked.is_empty()) {
                out.insert(ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
            }
            let seconds = self.config.max_age.as_secs();
            if seconds > 0 {
                out.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from(seconds));
            }
        }
        Some(response)
    }

    /// Returns the access of the page that sent the request; `None` for requests of programs, and of pages
    /// without any.
    pub(super) fn page_access<B>(&self, request: &Request<B>) -> Option<PageAccess> {
        let origin = request.headers().get(ORIGIN)?;
        let text = origin.to_str().ok()?.to_ascii_lowercase();
        if self.trusts(&text) {
            return Some(PageAccess::Trusted(origin.clone()));
        }
        let all = self.config.origins.iter().any(|pattern| pattern == "*");
        all.then_some(PageAccess::Anybody)
    }

    /// Adds the headers that let a page read a response.
    pub(super) fn add_headers(&self, page: Option<&PageAccess>, response: &mut Response<Body>) {
        let out = response.headers_mut();
        out.append(VARY, HeaderValue::from(ORIGIN));
        let Some(page) = page else { return };
        if let Ok(exposed) = HeaderValue::from_str(&self.config.exposed.join(", "))
            && !exposed.is_empty()
        {
            out.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
        }
        self.allow(page, out);
    }

    fn allow(&self, page: &PageAccess, out: &mut HeaderMap) {
        let origin = match page {
            PageAccess::Trusted(origin) => origin.clone(),
            PageAccess::Anybody => HeaderValue::from_static("*"),
        };
        out.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if self.config.credentials && *page != PageAccess::Anybody {
            out.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
    }

    fn allows_method(&self, method: &HeaderValue) -> bool {
        let asked = method.as_bytes();
        asked == b"OPTIONS"
            || self
                .config
                .methods
                .iter()
                .any(|method| method.as_bytes().eq_ignore_ascii_case(asked))
    }

    fn allows_headers(&self, asked: Option<&HeaderValue>) -> bool {
        let Some(asked) = asked else { return true };
        let Ok(asked) = asked.to_str() else { return false };
        let mut names = asked.split(',').map(str::trim).filter(|name| !name.is_empty());
        names.all(|name| {
            let known = name.parse::<HeaderName>().is_ok();
            known
                && self
                    .headers
                    .iter()
                    .any(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(name))
        })
    }
}
