//! Access control: allowed methods and origins, and rejection of requests that web pages make without their
//! user's knowledge.

use cluster_http::web_origin;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};

use super::reply::{Body, plain};

/// Origins of Kubo's companion extensions for browsers.
const EXTENSIONS: [&str; 2] = [
    "chrome-extension://nibjojkomfdiaoajekhjakgkdhaomnch",
    "chrome-extension://hjoieblefckbooibpepigmacodalfndh",
];

const HEADERS_ALLOWED: [&str; 4] = ["origin", "accept", "content-type", "x-requested-with"];

/// The origins whose pages may use the API.
#[derive(Debug, Clone)]
pub(super) struct Gate {
    origins: Vec<String>,
}

impl Gate {
    /// Creates a gate that allows pages served from this machine at the API's own `port`, if it has one.
    pub(super) fn new(port: Option<u16>) -> Self {
        let hosts = ["127.0.0.1", "[::1]", "localhost"];
        let at = |port| hosts.map(|host| ["http", "https"].map(|it| format!("{it}://{host}:{port}")));
        let local = port.into_iter().flat_map(at).flatten();
        Gate {
            origins: local.chain(EXTENSIONS.map(str::to_owned)).collect(),
        }
    }

    /// Returns the answer to a request that is not a call or is not allowed.
    pub(super) fn refuse<B>(&self, request: &Request<B>) -> Option<Response<Body>> {
        let headers = request.headers();
        if request.method() == Method::OPTIONS {
            return Some(match headers.get(header::ACCESS_CONTROL_REQUEST_METHOD) {
                Some(method) => self.preflight(headers, method),
                None => allow(empty(StatusCode::NO_CONTENT)),
            });
        }
        if request.method() != Method::POST {
            return Some(allow(plain(
                StatusCode::METHOD_NOT_ALLOWED,
                "405 - Method Not Allowed",
            )));
        }
        (!self.may_call(headers)).then(|| plain(StatusCode::FORBIDDEN, "403 - Forbidden"))
    }

    fn may_call(&self, headers: &HeaderMap) -> bool {
        let pages = web_origin::origins(headers);
        if !pages.is_empty() {
            return pages
                .iter()
                .all(|page| page.as_ref().is_some_and(|page| self.is_known(page)));
        }
        let agent = headers
            .get(header::USER_AGENT)
            .map(HeaderValue::as_bytes)
            .unwrap_or_default();
        !agent.starts_with(b"Mozilla") || memchr::memmem::find(agent, b"Electron").is_some()
    }

    fn allows(&self, origin: &HeaderValue) -> bool {
        origin
            .to_str()
            .is_ok_and(|origin| self.is_known(&origin.to_ascii_lowercase()))
    }

    fn is_known(&self, origin: &str) -> bool {
        self.origins.iter().any(|known| known == origin)
    }

    fn preflight(&self, headers: &HeaderMap, method: &HeaderValue) -> Response<Body> {
        let mut response = empty(StatusCode::NO_CONTENT);
        let answer = response.headers_mut();
        answer.insert(
            header::VARY,
            HeaderValue::from_static("Origin, Access-Control-Request-Method, Access-Control-Request-Headers"),
        );
        let asked = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS);
        let headers_fit = asked.is_none_or(|asked| {
            asked.to_str().is_ok_and(|asked| {
                asked
                    .split(',')
                    .all(|name| HEADERS_ALLOWED.contains(&name.trim().to_ascii_lowercase().as_str()))
            })
        });
        let Some(origin) = headers.get(header::ORIGIN) else {
            return response;
        };
        if self.allows(origin) && method == "POST" && headers_fit {
            answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, method.clone());
            if let Some(asked) = asked {
                answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
            }
        }
        response
    }

    /// Adds the CORS headers of an answer to a call from `origin`.
    pub(super) fn add_cors_headers(&self, origin: Option<&HeaderValue>, response: &mut Response<Body>) {
        let headers = response.headers_mut();
        headers.insert(header::VARY, HeaderValue::from_static("Origin"));
        if let Some(origin) = origin
            && self.allows(origin)
        {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        }
    }
}

fn allow(mut response: Response<Body>) -> Response<Body> {
    const ALLOW: HeaderName = header::ALLOW;
    response
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static("OPTIONS, POST"));
    response
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::default());
    *response.status_mut() = status;
    response
}
