//! Responses in Kubo's formats.

use std::convert::Infallible;
use std::fmt::Display;
use std::future::Future;

use axum::body::Body;
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Response, StatusCode};
use bytes::Bytes;
use cluster_ipfs::api::ErrorBody;
use futures::stream::{self, BoxStream, Stream, StreamExt};
use http_body_util::StreamBody;
use hyper::body::Frame;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::cluster::Error;
use crate::http::answer::{STREAM_ERROR, push};

/// Capacity of the channel between a command and the connection; more would only delay a slow reader's
/// back-pressure.
const SINK: usize = 32;

/// Maximum of lines sent in one chunk when they are ready at once; a line usually has less than 1 KiB.
const LINES_PER_CHUNK: usize = 128;

/// Longer texts are useless in a header.
const TRAILER_MAX: usize = 2048;

/// Error of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// Status of an error answered as plain text, because the request itself is wrong; `None` if the
    /// command failed.
    plain: Option<StatusCode>,
    message: String,
}

impl Failure {
    /// Returns the error of a command that was understood and failed.
    pub(super) fn failed(message: impl Display) -> Self {
        Self {
            plain: None,
            message: message.to_string(),
        }
    }

    /// Returns the error of a request that cannot be parsed.
    pub(super) fn bad_request(message: impl Display) -> Self {
        Self::plain(StatusCode::BAD_REQUEST, message)
    }

    /// Returns an error answered as plain text, with this status.
    pub(super) fn plain(status: StatusCode, message: impl Display) -> Self {
        Self {
            plain: Some(status),
            message: message.to_string(),
        }
    }

    /// Prefixes the message.
    pub(super) fn prefixed(self, what: &str) -> Self {
        Self {
            message: format!("{what}{}", self.message),
            ..self
        }
    }

    pub(super) fn message(&self) -> &str {
        &self.message
    }

    pub(super) fn into_response(self) -> Response<Body> {
        if let Some(status) = self.plain {
            let mut response = Response::new(Body::from(format!("{}\n", self.message)));
            *response.status_mut() = status;
            let headers = response.headers_mut();
            let text = HeaderValue::from_static("text/plain; charset=utf-8");
            headers.insert(header::CONTENT_TYPE, text);
            let nosniff = HeaderValue::from_static("nosniff");
            headers.insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
            return response;
        }
        let body = ErrorBody::failed(&self.message);
        let mut response = json_object(&body);
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::failed(error)
    }
}

/// Returns one value as a line of JSON.
pub(super) fn line(value: &impl Serialize) -> Bytes {
    let mut line = Vec::with_capacity(128);
    push(&mut line, value);
    line.into()
}

/// Returns a response with one JSON object.
pub(super) fn json_object(value: &impl Serialize) -> Response<Body> {
    json(Body::from(line(value)))
}

fn json(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::TRAILER, HeaderValue::from_static("X-Stream-Error"));
    response
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
    let frames = chunks.flat_map(|items| stream::iter(frames(items)));
    let frames = frames.scan(false, |ended, frame| {
        let go_on = !*ended;
        *ended |= frame.is_trailers();
        std::future::ready(go_on.then_some(Ok::<_, Infallible>(frame)))
    });
    Ok(json(Body::new(StreamBody::new(frames))))
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

/// Joins what is ready at once into one frame, followed by the error that ends the stream.
fn frames(items: Vec<Result<Bytes, Failure>>) -> Vec<Frame<Bytes>> {
    let mut joined = Vec::new();
    for item in items {
        match item {
            Ok(line) => joined.extend_from_slice(&line),
            Err(failure) => {
                let data = (!joined.is_empty()).then(|| Frame::data(Bytes::from(joined)));
                return data.into_iter().chain([trailer(failure.message())]).collect();
            }
        }
    }
    if joined.is_empty() {
        return Vec::new();
    }
    vec![Frame::data(joined.into())]
}

/// Returns the trailer that reports an error in the middle of a response.
pub(super) fn trailer(message: &str) -> Frame<Bytes> {
    let line: String = message
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(TRAILER_MAX)
        .collect();
    let value = HeaderValue::from_str(&line).or_else(|_| HeaderValue::from_bytes(line.as_bytes()));
    let value = value.unwrap_or(HeaderValue::from_static("an error occurred"));
    Frame::trailers(HeaderMap::from_iter([(STREAM_ERROR, value)]))
}

/// Sender of a running command's output lines.
#[derive(Clone)]
pub(super) struct Sink(mpsc::Sender<Result<Bytes, Failure>>);

impl Sink {
    /// Sends a line; waits while the channel is full.
    pub(super) async fn send(&self, value: &impl Serialize) -> Result<(), Failure> {
        let sent = self.0.send(Ok(line(value))).await;
        sent.map_err(|_| Failure::failed("context canceled"))
    }
}

/// Runs a command that streams its output. Dropping the stream aborts it.
pub(super) fn stream_output<W>(work: impl FnOnce(Sink) -> W) -> BoxStream<'static, Result<Bytes, Failure>>
where
    W: Future<Output = Result<(), Failure>> + Send + 'static,
{
    let (out, lines) = mpsc::channel(SINK);
    let work = work(Sink(out.clone()));
    let task = AbortOnDropHandle::new(tokio::spawn(async move {
        if let Err(failure) = work.await {
            let _ = out.send(Err(failure)).await;
        }
    }));
    stream::unfold((lines, task), |(mut lines, task)| async move {
        Some((lines.recv().await?, (lines, task)))
    })
    .boxed()
}
