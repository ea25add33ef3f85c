//! Requests to URLs outside of the cluster: files to add, and other pinning services.

use super::connect::Connection;
use super::endpoint::{Endpoint, Family};
use super::tls::Tls;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, HeaderValue, LOCATION};
use hyper::{Request, Response};
use url::{Position, Url};

/// Redirects followed, as in Go's client.
const REDIRECTS_MAX: usize = 10;
/// Bytes of an answer that is read as text.
const TEXT_MAX: usize = 16 << 20;
/// Bytes of an error's text that are shown.
const ERROR_MAX: usize = 4096;

/// Failed request to a URL.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The URL cannot be requested, or redirects to one that cannot.
    #[error("{0}")]
    Url(String),
    /// The connection failed, or the answer is too large or no text.
    #[error("{0}")]
    Broken(String),
    /// Another status than success.
    #[error("answered {status}{}{body}", if body.is_empty() { "" } else { ": " })]
    Status {
        /// HTTP status.
        status: hyper::StatusCode,
        /// Start of the answer.
        body: String,
    },
}

/// Requests a URL and returns the answer as text. `token` is sent as bearer token, to its origin only.
///
/// # Errors
/// There is no answer, or none of success.
pub async fn fetch_text(url: &str, token: Option<&str>) -> Result<String, FetchError> {
    text(fetch(url, token).await?.into_body(), TEXT_MAX).await
}

/// Requests a URL, following redirects.
pub(super) async fn fetch(url: &str, token: Option<&str>) -> Result<Response<Incoming>, FetchError> {
    let mut url = Url::parse(url).map_err(|e| FetchError::Url(e.to_string()))?;
    let origin = url.origin();
    for _ in 0..=REDIRECTS_MAX {
        let response = get(&url, token.filter(|_| url.origin() == origin)).await?;
        let status = response.status();
        let location = response.headers().get(LOCATION).filter(|_| {
            // 304 and 305 have no target to follow.
            matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
        });
        if let Some(location) = location {
            url = target(&url, &String::from_utf8_lossy(location.as_bytes()))?;
            continue;
        }
        if status.is_success() {
            return Ok(response);
        }
        let body = text(response.into_body(), ERROR_MAX).await.unwrap_or_default();
        let body = body.trim().to_owned();
        return Err(FetchError::Status { status, body });
    }
    Err(FetchError::Url(format!(
        "redirects more than {REDIRECTS_MAX} times"
    )))
}

fn target(url: &Url, location: &str) -> Result<Url, FetchError> {
    let refused = |why: String| FetchError::Url(why);
    let next = url
        .join(location)
        .map_err(|e| refused(format!("redirects to {location:?}: {e}")))?;
    match next.scheme() {
        "http" | "https" => Ok(next),
        _ => Err(refused(format!(
            "redirects to {next}, which is neither http nor https"
        ))),
    }
}

async fn get(url: &Url, token: Option<&str>) -> Result<Response<Incoming>, FetchError> {
    let refused = |why: &dyn std::fmt::Display| FetchError::Url(why.to_string());
    let host = url.host_str().ok_or_else(|| refused(&"it names no host"))?;
    let secure = url.scheme() == "https";
    let endpoint = Endpoint::Tcp {
        host: host.trim_matches(['[', ']']).to_owned(),
        port: url.port_or_known_default().unwrap_or(80),
        family: Family::Any,
        tls: secure,
    };
    let tls = secure
        .then(|| Tls::new(true))
        .transpose()
        .map_err(|e| refused(&e))?;
    let body = Empty::new().map_err(|e| match e {}).boxed_unsync();
    let mut request = Request::get(&url[..Position::AfterQuery]);
    if let Some(token) = token {
        let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| refused(&"the token has characters that a header cannot carry"))?;
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    }
    let request = request.body(body).map_err(|e| refused(&e))?;
    let answered = Connection::new(&endpoint, tls).send(request).await;
    answered.map_err(|e| FetchError::Broken(super::chain(&e)))
}

async fn text(body: Incoming, max: usize) -> Result<String, FetchError> {
    let broken = |why: String| FetchError::Broken(why);
    let collected = Limited::new(body, max).collect().await;
    let bytes = collected.map_err(|e| broken(e.to_string()))?.to_bytes();
    String::from_utf8(bytes.into()).map_err(|_| broken("the answer is not UTF-8".to_owned()))
}
