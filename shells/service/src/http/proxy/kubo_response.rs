//! Responses in Kubo's formats.

use axum::body::Body;
use axum::http::Response;
use axum::http::header::{self, HeaderName, HeaderValue};
use bytes::Bytes;
use cluster_http::rpc::{self, Failure, json_line};
use cluster_http::stream_error;
use futures::stream::{self, Stream, StreamExt};
use http_body_util::StreamBody;
use hyper::StatusCode;
use serde::Serialize;

use crate::cluster::Error;
use crate::http::refusals;
use crate::http::server::Service;

/// Maximum number of lines sent in one chunk when they are ready at once; a line usually has less than 1 KiB.
const LINES_PER_CHUNK: usize = 128;

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Limit { ref why, .. } => {
                refusals::note_limit(Service::Proxy, &error);
                Self::plain(StatusCode::FORBIDDEN, why)
            }
            Error::Closed
            | Error::Invalid(_)
            | Error::Ipfs(_)
            | Error::Peer(_)
            | Error::Refused(_)
            | Error::Store(_)
            | Error::Unsupported(_) => Self::failed(error),
        }
    }
}

/// The answer to a call that failed before its first result.
pub(super) fn failed(failure: Failure) -> Response<Body> {
    let mut response = failure.into_response().map(Body::new);
    if response.status() == StatusCode::INTERNAL_SERVER_ERROR {
        announce_trailer(&mut response);
    }
    response
}

/// Returns a response with one JSON object.
pub(super) fn json_object(value: &impl Serialize) -> Response<Body> {
    json(Body::from(json_line(value)))
}

fn json(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    announce_trailer(&mut response);
    response
}

fn announce_trailer(response: &mut Response<Body>) {
    let headers = response.headers_mut();
    headers.insert(header::TRAILER, HeaderValue::from_static("X-Stream-Error"));
}

/// Streams pieces of JSON. Waits for the first, because an error before it becomes an error status.
pub(super) async fn json_stream(
    pieces: impl Stream<Item = Result<Bytes, Failure>> + Send + 'static,
) -> Result<Response<Body>, Failure> {
    let mut chunks = pieces.ready_chunks(LINES_PER_CHUNK).boxed();
    let first = chunks.next().await.unwrap_or_default();
    if let Some(Err(failure)) = first.first() {
        return Err(failure.clone());
    }
    let chunks = stream::iter([first]).chain(chunks);
    let frames = chunks.flat_map(|pieces| stream::iter(rpc::frames(pieces)));
    Ok(json(Body::new(StreamBody::new(stream_error::end_at_trailer(
        frames,
    )))))
}

/// Streams JSON objects, one a line.
pub(super) async fn json_lines(
    lines: impl Stream<Item = Result<Bytes, Failure>> + Send + 'static,
) -> Result<Response<Body>, Failure> {
    const CHUNKED: HeaderName = HeaderName::from_static("x-chunked-output");
    let mut response = json_stream(lines).await?;
    response
        .headers_mut()
        .insert(CHUNKED, HeaderValue::from_static("1"));
    Ok(response)
}
