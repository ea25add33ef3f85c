//! Answers in Kubo's shape.

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

/// Lines between what makes them and the connection; more would only delay a slow reader's back-pressure.
const SINK: usize = 32;

/// Lines put into one chunk when they are there at once; a line is below 1 KiB as a rule.
const LINES_PER_CHUNK: usize = 128;

/// Longer texts are of no use in a header.
const TRAILER_MAX: usize = 2048;

/// Why a call fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// `None`: the command failed; otherwise the request itself is wrong, which is answered as plain text.
    plain: Option<StatusCode>,
    message: String,
}

impl Failure {
    /// The command was understood and failed.
    pub(super) fn failed(message: impl Display) -> Self {
        Self {
            plain: None,
            message: message.to_string(),
        }
    }

    /// The request cannot be understood.
    pub(super) fn bad_request(message: impl Display) -> Self {
        Self::plain(StatusCode::BAD_REQUEST, message)
    }

    /// An answer that no command gives.
    pub(super) fn plain(status: StatusCode, message: impl Display) -> Self {
        Self {
            plain: Some(status),
            message: message.to_string(),
        }
    }

    /// The same failure with words before it.
    pub(super) fn within(self, what: &str) -> Self {
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
        let mut response = once(&body);
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::failed(error)
    }
}

/// One value as a line of JSON.
pub(super) fn line(value: &impl Serialize) -> Bytes {
    let mut line = Vec::with_capacity(128);
    push(&mut line, value);
    line.into()
}

/// One object.
pub(super) fn once(value: &impl Serialize) -> Response<Body> {
    json(Body::from(line(value)))
}

fn json(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::TRAILER, HeaderValue::from_static("X-Stream-Error"));
    response
}

/// Pieces of JSON as they come. Waits for the first, because a failure before it is a status.
pub(super) async fn pieces(
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

/// Objects as they come, a line each.
pub(super) async fn objects(
    lines: impl Stream<Item = Result<Bytes, Failure>> + Send + 'static,
) -> Result<Response<Body>, Failure> {
    const CHUNKED: HeaderName = HeaderName::from_static("x-chunked-output");
    let mut response = pieces(lines).await?;
    response
        .headers_mut()
        .insert(CHUNKED, HeaderValue::from_static("1"));
    Ok(response)
}

/// What is ready together goes together: the bytes, then the failure that ends them.
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

/// What ends an answer that began well.
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

/// Where a running command puts its lines.
#[derive(Clone)]
pub(super) struct Sink(mpsc::Sender<Result<Bytes, Failure>>);

impl Sink {
    /// Waits for room.
    pub(super) async fn send(&self, value: &impl Serialize) -> Result<(), Failure> {
        let sent = self.0.send(Ok(line(value))).await;
        sent.map_err(|_| Failure::failed("context canceled"))
    }
}

/// Runs a command that tells its results while it works. Dropping the stream stops it.
pub(super) fn running<W>(work: impl FnOnce(Sink) -> W) -> BoxStream<'static, Result<Bytes, Failure>>
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
