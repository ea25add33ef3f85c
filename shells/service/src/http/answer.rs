//! Responses of the REST API: one JSON value, an error, or a stream of lines.

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, TRAILER, WARNING};
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse;
use bytes::Bytes;
use cluster_core::{CredentialError, DrainError, Refusal};
use cluster_http::json;
use cluster_http::stream_error::{end_at_trailer, trailer};
use futures::stream::{self, Stream, StreamExt};
use http_body_util::StreamBody;
use hyper::body::Frame;
use serde::Serialize;

use super::refusals;
use super::server::Service;
use crate::cluster::Error;

/// Pages of a stream that are written as JSON at the same time.
const PAGES_AT_ONCE: usize = 2;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Name of the trailer with the error that ended a stream.
const STREAM_ERROR: HeaderValue = HeaderValue::from_static("X-Stream-Error");

/// Answer of a handler; an error is answered as by [`failed`].
pub(super) type Answer = Result<Response<Body>, Error>;

impl IntoResponse for Error {
    fn into_response(self) -> Response<Body> {
        failed(&self)
    }
}

/// Returns the error for a request that cannot be parsed.
pub(super) fn invalid(why: impl ToString) -> Error {
    Error::Invalid(why.to_string())
}

/// Returns an error response with a JSON body.
pub(super) fn error(status: StatusCode, message: impl Into<String>) -> Response<Body> {
    let body = cluster_api::Error {
        code: status.as_u16(),
        message: message.into(),
    };
    let mut response = json(&body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    if status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// Returns the response to a request that cannot be parsed.
pub(super) fn bad_request(message: impl std::fmt::Display) -> Response<Body> {
    error(StatusCode::BAD_REQUEST, message.to_string())
}

/// Returns the response to a failed operation.
pub(super) fn failed(failure: &Error) -> Response<Body> {
    refusals::note_limit(Service::Rest, failure);
    error(status(failure), failure.to_string())
}

/// Maps an error to the HTTP status by which a program decides what to do.
pub(super) fn status(failure: &Error) -> StatusCode {
    match failure {
        Error::Invalid(_) => StatusCode::BAD_REQUEST,
        Error::Limit { .. } => StatusCode::FORBIDDEN,
        Error::Unsupported(_) => StatusCode::NOT_IMPLEMENTED,
        Error::Refused(refusal) => match refusal {
            Refusal::Busy => StatusCode::TOO_MANY_REQUESTS,
            Refusal::NoLeader | Refusal::NotMember | Refusal::Unknown | Refusal::Unreadable(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Refusal::Credential(CredentialError::Missing)
            | Refusal::Drain(DrainError::Missing)
            | Refusal::Rebalance(_)
            | Refusal::NotFound => StatusCode::NOT_FOUND,
            Refusal::Credential(CredentialError::Exists(_) | CredentialError::Full)
            | Refusal::Drain(DrainError::Full) => StatusCode::CONFLICT,
            Refusal::TooLarge(_) => StatusCode::BAD_REQUEST,
            Refusal::Conflict(_) | Refusal::IpfsFailed(_) | Refusal::NotEnoughPeers { .. } => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        },
        Error::Ipfs(_) | Error::Peer(_) | Error::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
        Error::Closed => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// Returns a response with one JSON value.
pub(super) fn json<T: Serialize>(value: &T) -> Response<Body> {
    let mut body = Vec::with_capacity(512);
    push(&mut body, value);
    of_bytes(body.into())
}

/// Returns a response with a body that is JSON already.
pub(super) fn of_bytes(body: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

/// Returns the value as JSON, or the error response.
pub(super) fn result<T: Serialize>(outcome: Result<T, Error>) -> Response<Body> {
    outcome.map(|value| json(&value)).into_response()
}

/// Returns an empty response, 204 No Content.
pub(super) fn no_content() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

/// Appends a value and a line feed. The API's types always serialise, so nothing can fail.
pub(super) fn push<T: Serialize>(out: &mut Vec<u8>, value: &T) {
    let start = out.len();
    if let Err(error) = json::write(&mut *out, value) {
        tracing::error!(%error, "a value cannot be written as JSON");
        out.truncate(start);
        return;
    }
    out.push(b'\n');
}

/// Streams the items, one a line. An empty stream is answered with 204, an error before the first item with
/// an error status, and one after it in the trailer.
pub(super) async fn lines<T: Serialize + Send + 'static>(
    pages: impl Stream<Item = Result<Vec<T>, Error>> + Send + 'static,
) -> Response<Body> {
    let written = pages.map(|page| {
        // In a task of its own, so that pages are read, written as JSON and sent at the same time.
        tokio::spawn(async move {
            page.map(|items| {
                let mut bytes = Vec::with_capacity(items.len() * 512);
                items.iter().for_each(|item| push(&mut bytes, item));
                Bytes::from(bytes)
            })
        })
    });
    let written = written.buffered(PAGES_AT_ONCE);
    let mut pages = Box::pin(written.map(|page| page.unwrap_or(Err(Error::Closed))));
    loop {
        match pages.next().await {
            None => {
                let mut response = no_content();
                response.headers_mut().insert(TRAILER, STREAM_ERROR);
                return response;
            }
            Some(Err(failure)) => return failed(&failure),
            Some(Ok(bytes)) if bytes.is_empty() => {}
            Some(Ok(bytes)) => {
                let rest = pages.map(|page| page.map_err(|failure| failure.to_string()));
                return streamed(stream::iter([Ok(bytes)]).chain(rest));
            }
        }
    }
}

/// Streams all items as one array. An error in the middle is reported in the trailer, and the array is not
/// closed.
pub(super) async fn array<T: Send + 'static, U: Serialize + 'static>(
    pages: impl Stream<Item = Result<Vec<T>, Error>> + Send + 'static,
    shown: fn(T) -> U,
) -> Response<Body> {
    let mut pages = Box::pin(pages);
    let first = match pages.next().await.transpose() {
        Ok(first) => first.unwrap_or_default(),
        Err(failure) => return failed(&failure),
    };
    let mut is_first = true;
    let mut written = move |items: Vec<T>| {
        let mut bytes = Vec::with_capacity(items.len() * 512);
        for item in items {
            if !std::mem::take(&mut is_first) {
                bytes.push(b',');
            }
            push(&mut bytes, &shown(item));
        }
        Bytes::from(bytes)
    };
    let pages = stream::iter([Ok(first)]).chain(pages);
    let pieces = pages.map(move |page| page.map(&mut written).map_err(|failure| failure.to_string()));
    let bracket = |text: &'static str| stream::iter([Ok(Bytes::from_static(text.as_bytes()))]);
    streamed(bracket("[").chain(pieces).chain(bracket("]\n")))
}

/// Adds a warning header: the response may be stale.
pub(super) fn with_warning(mut response: Response<Body>, why: &'static str) -> Response<Body> {
    // 110 is HTTP's code for "stale".
    if let Ok(value) = HeaderValue::from_str(&format!("110 ipfs-cluster \"{why}\"")) {
        response.headers_mut().insert(WARNING, value);
    }
    response
}

/// Streams these pieces; the trailer reports the error that ended them, or is empty.
pub(super) fn streamed(pieces: impl Stream<Item = Result<Bytes, String>> + Send + 'static) -> Response<Body> {
    let frames = pieces.map(|piece| match piece {
        Ok(bytes) => Frame::data(bytes),
        Err(why) => trailer(&why),
    });
    let frames = frames.chain(stream::once(std::future::ready(trailer(""))));
    let mut response = Response::new(Body::new(StreamBody::new(end_at_trailer(frames))));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, JSON);
    headers.insert(TRAILER, STREAM_ERROR);
    response
}
