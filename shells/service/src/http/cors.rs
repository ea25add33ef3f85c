//! Web pages of other origins: the answers of the Go peer's library, `rs/cors`.

use axum::body::Body;
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderName, HeaderValue,
    ORIGIN, VARY,
};
use axum::http::{Method, Request, Response, StatusCode};

use super::CorsConfig;

/// What the library allows when nothing is configured.
const HEADERS: [&str; 4] = ["origin", "accept", "content-type", "x-requested-with"];

/// The rules.
pub(super) struct Cors {
    config: CorsConfig,
    headers: Vec<String>,
}

impl Cors {
    pub(super) fn new(config: CorsConfig) -> Self {
        let headers = if config.headers.is_empty() {
            HEADERS.iter().map(|name| (*name).to_owned()).collect()
        } else {
            let named = config.headers.iter().map(|name| name.to_ascii_lowercase());
            named.chain(["origin".to_owned()]).collect()
        };
        Self { config, headers }
    }

    /// The answer to a page's question whether it may.
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
        let origin = self
            .origin(request)
            .filter(|_| self.allows_method(method) && self.allows_headers(asked));
        if let Some(origin) = origin {
            out.insert(ACCESS_CONTROL_ALLOW_ORIGIN, self.shown(origin));
            out.insert(ACCESS_CONTROL_ALLOW_METHODS, method.clone());
            if let Some(asked) = asked.filter(|asked| !asked.is_empty()) {
                out.insert(ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
            }
            self.allow_credentials(out);
            let seconds = self.config.max_age.as_secs();
            if seconds > 0 {
                out.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from(seconds));
            }
        }
        Some(response)
    }

    /// The page's origin, when it may use the API.
    pub(super) fn origin<B>(&self, request: &Request<B>) -> Option<HeaderValue> {
        let origin = request.headers().get(ORIGIN)?;
        let text = origin.to_str().ok()?.to_ascii_lowercase();
        let allowed = self.config.origins.iter().any(|pattern| {
            let pattern = pattern.to_ascii_lowercase();
            match pattern.split_once('*') {
                None => pattern == text,
                Some((before, after)) => {
                    text.len() >= before.len() + after.len()
                        && text.starts_with(before)
                        && text.ends_with(after)
                }
            }
        });
        allowed.then(|| origin.clone())
    }

    /// Adds what a page needs in order to read an answer.
    pub(super) fn decorate(&self, origin: Option<HeaderValue>, response: &mut Response<Body>) {
        let out = response.headers_mut();
        out.append(VARY, HeaderValue::from(ORIGIN));
        let Some(origin) = origin else { return };
        out.insert(ACCESS_CONTROL_ALLOW_ORIGIN, self.shown(origin));
        if let Ok(exposed) = HeaderValue::from_str(&self.config.exposed.join(", "))
            && !exposed.is_empty()
        {
            out.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
        }
        self.allow_credentials(out);
    }

    fn shown(&self, origin: HeaderValue) -> HeaderValue {
        let all = self.config.origins.iter().any(|pattern| pattern == "*");
        // Browsers refuse `*` together with credentials.
        if all && !self.config.credentials {
            HeaderValue::from_static("*")
        } else {
            origin
        }
    }

    fn allow_credentials(&self, out: &mut HeaderMap) {
        if self.config.credentials {
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
