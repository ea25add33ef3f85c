//! Answers in the format of Kubo's API.

use std::convert::Infallible;
use std::future::Future;

use bytes::Bytes;
use cluster_http::rpc::{self, Failure, LineSender, Pieces, json_line};
use cluster_http::stream_error;
use futures::stream::{self, Stream, StreamExt};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;
use tokio::time::{Instant, timeout_at};

use super::API_VERSION;

/// Body of every answer.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Maximum number of ready lines joined into one chunk; a line is usually below 1 KiB.
const LINES_PER_CHUNK: usize = 128;

/// Maximum number of ready pieces of content per chunk. They have up to 1 MiB each and are held until sent.
const PIECES_PER_CHUNK: usize = 2;

const EXPOSED: HeaderValue = HeaderValue::from_static("X-Stream-Output, X-Chunked-Output, X-Content-Length");

impl From<crate::Error> for Failure {
    fn from(error: crate::Error) -> Self {
        Failure::failed(error)
    }
}

/// Answer of a command.
pub(super) enum Reply {
    /// A single object.
    Once(Bytes),
    /// A stream of objects.
    Objects(Pieces),
    /// A stream of bytes.
    Content {
        kind: &'static str,
        length: Option<u64>,
        pieces: Pieces,
    },
}

impl Reply {
    /// Creates an answer of one object.
    pub(super) fn once(value: &impl Serialize) -> Result<Self, Failure> {
        Ok(Reply::Once(json_line(value)))
    }

    /// Creates an answer of one object per item.
    pub(super) fn objects<T: Serialize + 'static>(
        items: impl Stream<Item = Result<T, Failure>> + Send + 'static,
    ) -> Result<Self, Failure> {
        Ok(Reply::Objects(
            items.map(|item| item.map(|item| json_line(&item))).boxed(),
        ))
    }

    /// Keeps a value until the answer has been sent.
    pub(super) fn holding(self, held: impl Send + 'static) -> Self {
        let hold = |pieces: Pieces| {
            let piece = move |piece| {
                let _ = &held;
                piece
            };
            pieces.map(piece).boxed()
        };
        match self {
            Reply::Once(line) => Reply::Once(line),
            Reply::Objects(lines) => Reply::Objects(hold(lines)),
            Reply::Content { kind, length, pieces } => Reply::Content {
                kind,
                length,
                pieces: hold(pieces),
            },
        }
    }

    /// Returns the head and body of the answer. Waits for the first item, so that a failure before it yields
    /// an error status.
    pub(super) async fn into_response(self, deadline: Option<Instant>) -> Response<Body> {
        let (kind, mark, length, pieces) = match self {
            Reply::Once(line) => (
                "application/json",
                None,
                None,
                stream::once(std::future::ready(Ok(line))).boxed(),
            ),
            Reply::Objects(lines) => ("application/json", Some("x-chunked-output"), None, lines),
            Reply::Content { kind, length, pieces } => (kind, Some("x-stream-output"), length, pieces),
        };
        let at_once = if mark == Some("x-stream-output") {
            PIECES_PER_CHUNK
        } else {
            LINES_PER_CHUNK
        };
        let mut chunks = until(pieces, deadline).ready_chunks(at_once);
        let first = chunks.next().await.unwrap_or_default();
        if let Some(Err(failure)) = first.first() {
            return failed(failure.clone());
        }
        let chunks = stream::once(std::future::ready(first)).chain(chunks);
        let frames = chunks.flat_map(|pieces| stream::iter(rpc::frames(pieces)));
        let frames = stream_error::end_at_trailer(frames);
        let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
        command_headers(response.headers_mut(), kind, mark);
        if let Some(length) = length {
            response.headers_mut().insert("x-content-length", length.into());
        }
        response
    }
}

/// Ends a stream with an error at the deadline.
fn until(pieces: Pieces, deadline: Option<Instant>) -> Pieces {
    let Some(deadline) = deadline else { return pieces };
    stream::unfold(Some(pieces), move |pieces| async move {
        let mut pieces = pieces?;
        match timeout_at(deadline, pieces.next()).await {
            Ok(item) => item.map(|item| (item, Some(pieces))),
            Err(_) => Some((Err(Failure::deadline()), None)),
        }
    })
    .boxed()
}

fn command_headers(headers: &mut HeaderMap, kind: &'static str, mark: Option<&'static str>) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, EXPOSED);
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Ok(server) = HeaderValue::from_str(&format!("kubo/{API_VERSION}")) {
        headers.insert(header::SERVER, server);
    }
    headers.insert(header::TRAILER, HeaderValue::from_static("X-Stream-Error"));
    if let Some(mark) = mark {
        headers.insert(mark, HeaderValue::from_static("1"));
    }
}

/// Returns the answer to a call that failed before its first result.
pub(super) fn failed(failure: Failure) -> Response<Body> {
    let mut response = failure.into_response().map(BodyExt::boxed_unsync);
    if response.status() == StatusCode::INTERNAL_SERVER_ERROR {
        command_headers(response.headers_mut(), "application/json", None);
    }
    response
}

/// Returns plain text, as an answer outside of the commands.
pub(super) fn plain(status: StatusCode, text: &str) -> Response<Body> {
    rpc::plain_text(status, text).map(BodyExt::boxed_unsync)
}

/// Runs a command that sends lines while it works. Dropping the answer stops it.
pub(super) fn stream_lines<F, W>(work: F) -> Result<Reply, Failure>
where
    F: FnOnce(LineSender) -> W,
    W: Future<Output = Result<(), Failure>> + Send + 'static,
{
    Ok(Reply::Objects(rpc::stream_lines(work)))
}
