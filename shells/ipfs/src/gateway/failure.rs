//! Answers to requests that cannot be served.

use http_body_util::{BodyExt, Full};
use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};

use super::reply::Body;

/// Seconds after which a refused client may try again, when the gateway is busy.
pub(super) const RETRY_AFTER: u32 = 60;

/// The refusal of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) text: String,
    /// Size of the content, in bytes, if a range of it was not satisfiable.
    pub(super) size: Option<u64>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, text: impl Into<String>) -> Refusal {
        Refusal {
            status,
            text: text.into(),
            size: None,
        }
    }

    pub(super) fn bad_request(text: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, text)
    }

    pub(super) fn timeout() -> Refusal {
        let text = "the content was not found in time: no connected peer sent it";
        Refusal::new(StatusCode::GATEWAY_TIMEOUT, text)
    }

    pub(super) fn busy(text: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::TOO_MANY_REQUESTS, text)
    }

    /// Returns whether the path does not exist, rather than that it cannot be read.
    pub(super) fn is_not_found(&self) -> bool {
        self.status == StatusCode::NOT_FOUND
    }

    /// Returns the answer: the reason as plain text.
    pub(super) fn into_response(self) -> Response<Body> {
        let text = Full::from(format!("{}\n", self.text));
        let mut response = Response::new(text.map_err(|never| match never {}).boxed_unsync());
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        let kind = HeaderValue::from_static("text/plain; charset=utf-8");
        headers.insert(header::CONTENT_TYPE, kind);
        let nosniff = HeaderValue::from_static("nosniff");
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
        if matches!(
            self.status,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
        ) {
            headers.insert(header::RETRY_AFTER, RETRY_AFTER.into());
        }
        if let Some(size) = self.size
            && let Ok(range) = HeaderValue::from_str(&format!("bytes */{size}"))
        {
            headers.insert(header::CONTENT_RANGE, range);
        }
        response
    }
}

impl From<crate::Error> for Refusal {
    fn from(error: crate::Error) -> Refusal {
        use crate::Error;
        let status = match &error {
            Error::NotFound(_) | Error::NoLink { .. } => StatusCode::NOT_FOUND,
            Error::TooMuchMemory { .. } => StatusCode::GONE,
            Error::Busy(_) | Error::Closed => StatusCode::SERVICE_UNAVAILABLE,
            Error::Unsupported(_) => StatusCode::NOT_IMPLEMENTED,
            Error::Locked(_)
            | Error::Damaged(_)
            | Error::DamagedBlock { .. }
            | Error::Store(_)
            | Error::Full { .. }
            | Error::Mismatch(_)
            | Error::TooLarge { .. }
            | Error::UnsupportedHash(_)
            | Error::NotPinned(_)
            | Error::Pinned { .. }
            | Error::Invalid(_)
            | Error::Malformed { .. }
            | Error::NoName(_)
            | Error::NameLookup(_)
            | Error::IsDirectory
            | Error::Dial { .. }
            | Error::NotConnected(_)
            | Error::NoConnection(_)
            | Error::Io { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Refusal::new(status, error.to_string())
    }
}
