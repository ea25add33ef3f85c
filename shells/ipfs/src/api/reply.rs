//! Answers in the format of Kubo's API.

use std::convert::Infallible;
use std::fmt::Display;
use std::future::Future;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, Stream, StreamExt};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::API_VERSION;
use super::kubo_types::ErrorBody;

/// Body of every answer.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Maximal number of ready lines joined into one chunk; a line is usually below 1 KiB.
const LINES_PER_CHUNK: usize = 128;

/// Maximal number of ready pieces of content per chunk. They have up to 1 MiB each and are held until sent.
const PIECES_PER_CHUNK: usize = 2;

/// Lines buffered between a producer and the connection; more would only delay back-pressure.
const SINK: usize = 32;

const STREAM_ERROR: HeaderName = HeaderName::from_static("x-stream-error");
const EXPOSED: HeaderValue = HeaderValue::from_static("X-Stream-Output, X-Chunked-Output, X-Content-Length");

/// Failure of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// Status of an invalid request, answered as plain text. `None`: the command itself failed.
    plain: Option<StatusCode>,
    message: String,
}

impl Failure {
    /// Creates the failure of a valid command.
    pub(super) fn failed(message: impl Display) -> Self {
        Failure {
            plain: None,
            message: message.to_string(),
        }
    }

    /// Creates the failure of an invalid request.
    pub(super) fn bad_request(message: impl Display) -> Self {
        Failure {
            plain: Some(StatusCode::BAD_REQUEST),
            message: message.to_string(),
        }
    }

    /// Creates the failure of a call beyond the limit on concurrent `uploads`.
    pub(super) fn busy(uploads: usize) -> Self {
        Failure {
            plain: Some(StatusCode::SERVICE_UNAVAILABLE),
            message: format!("{uploads} uploads are running, which is the most; try again later"),
        }
    }

    /// Prefixes the message.
    pub(super) fn with_prefix(self, what: &str) -> Self {
        Failure {
            message: format!("{what}{}", self.message),
            ..self
        }
    }

    pub(super) fn message(&self) -> &str {
        &self.message
    }

    pub(super) fn deadline() -> Self {
        Failure::failed("context deadline exceeded")
    }

    pub(super) fn into_response(self) -> Response<Body> {
        if let Some(status) = self.plain {
            return plain(status, &self.message);
        }
        let body = ErrorBody::failed(&self.message);
        let mut response = Response::new(Full::new(json_line(&body)).boxed_unsync());
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        command_headers(response.headers_mut(), "application/json", None);
        response
    }
}

impl From<crate::Error> for Failure {
    fn from(error: crate::Error) -> Self {
        Failure::failed(error)
    }
}

/// A stream of serialised lines.
pub(super) type Lines = BoxStream<'static, Result<Bytes, Failure>>;

/// Answer of a command.
pub(super) enum Reply {
    /// A single object.
    Once(Bytes),
    /// A stream of objects.
    Objects(Lines),
    /// A stream of bytes.
    Content {
        kind: &'static str,
        length: Option<u64>,
        pieces: Lines,
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
            return failure.clone().into_response();
        }
        let frames = stream::once(std::future::ready(first))
            .chain(chunks)
            .flat_map(frames);
        // Nothing is sent after an error, and its source is not polled again.
        let frames = frames.scan(false, |ended, frame| {
            let go_on = !*ended;
            *ended |= frame.is_trailers();
            std::future::ready(go_on.then_some(Ok(frame)))
        });
        let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
        command_headers(response.headers_mut(), kind, mark);
        if let Some(length) = length {
            response.headers_mut().insert("x-content-length", length.into());
        }
        response
    }
}

/// Returns the frames of items that were ready together: their bytes, then the error that ends them.
fn frames(items: Vec<Result<Bytes, Failure>>) -> impl Stream<Item = Frame<Bytes>> {
    let mut frames = Vec::new();
    let mut joined = Vec::new();
    let mut trailer = None;
    let single = items.len() == 1;
    for item in items {
        match item {
            // Avoid copying content, which comes in large pieces.
            Ok(piece) if single || piece.len() > 16 * 1024 => {
                flush(&mut joined, &mut frames);
                frames.push(Frame::data(piece));
            }
            Ok(line) => joined.extend_from_slice(&line),
            Err(failure) => {
                let mut trailers = HeaderMap::new();
                trailers.insert(STREAM_ERROR, header_text(failure.message()));
                trailer = Some(Frame::trailers(trailers));
                break;
            }
        }
    }
    flush(&mut joined, &mut frames);
    stream::iter(
        frames
            .into_iter()
            .filter(|frame| frame.data_ref().is_none_or(|data| !data.is_empty()))
            .chain(trailer),
    )
}

fn flush(joined: &mut Vec<u8>, frames: &mut Vec<Frame<Bytes>>) {
    if !joined.is_empty() {
        frames.push(Frame::data(std::mem::take(joined).into()));
    }
}

/// Converts a message to a header value: one line of visible text.
fn header_text(message: &str) -> HeaderValue {
    let line: String = message
        .chars()
        .map(|it| if it.is_control() { ' ' } else { it })
        .collect();
    HeaderValue::from_str(&line)
        .or_else(|_| HeaderValue::from_bytes(line.as_bytes()))
        .unwrap_or_else(|_| HeaderValue::from_static("an error occurred"))
}

/// Ends a stream with an error at the deadline.
fn until(pieces: Lines, deadline: Option<Instant>) -> Lines {
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

/// Returns an answer outside the commands: plain text with a line end, like Go's `http.Error`.
pub(super) fn plain(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(format!("{text}\n"))).boxed_unsync());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}

/// Serialises JSON like Go: one line, with the characters special in HTML escaped.
pub(super) fn json_line(value: &impl Serialize) -> Bytes {
    // Serialising plain data cannot fail; readers skip an empty line.
    let mut text = serde_json::to_string(value).unwrap_or_default();
    // Outside of strings JSON has none of these characters.
    for (raw, escaped) in [
        ('<', "\\u003c"),
        ('>', "\\u003e"),
        ('&', "\\u0026"),
        ('\u{2028}', "\\u2028"),
        ('\u{2029}', "\\u2029"),
    ] {
        if text.contains(raw) {
            text = text.replace(raw, escaped);
        }
    }
    text.push('\n');
    text.into()
}

/// Sending half of a running command's lines.
#[derive(Clone)]
pub(super) struct LineSender(mpsc::Sender<Bytes>);

impl LineSender {
    /// Sends a line, waiting for room.
    pub(super) async fn send(&self, value: &impl Serialize) -> Result<(), Failure> {
        let sent = self.0.send(json_line(value)).await;
        sent.map_err(|_| Failure::failed("context canceled"))
    }

    /// Sends a line if there is room; for progress lines, which the next one supersedes.
    pub(super) fn try_send(&self, value: &impl Serialize) {
        // A full sink means that the reader has yet to read earlier progress.
        let _ = self.0.try_send(json_line(value));
    }
}

/// Runs a command that sends lines while it works. Dropping the answer stops it.
pub(super) fn stream_lines<F, W>(work: F) -> Result<Reply, Failure>
where
    F: FnOnce(LineSender) -> W,
    W: Future<Output = Result<(), Failure>> + Send + 'static,
{
    struct Running {
        lines: mpsc::Receiver<Bytes>,
        work: Option<BoxFuture<'static, Result<(), Failure>>>,
        failure: Option<Failure>,
    }
    let (sender, lines) = mpsc::channel(SINK);
    let work: BoxFuture<'static, _> = Box::pin(work(LineSender(sender)));
    let start = Running {
        lines,
        work: Some(work),
        failure: None,
    };
    let lines = stream::unfold(start, |mut running| async move {
        while let Some(work) = &mut running.work {
            tokio::select! {
                biased;
                Some(line) = running.lines.recv() => return Some((Ok(line), running)),
                done = work => {
                    running.failure = done.err();
                    running.work = None;
                }
            }
        }
        // Lines sent before the end precede the failure.
        if let Some(line) = running.lines.recv().await {
            return Some((Ok(line), running));
        }
        running.failure.take().map(|failure| (Err(failure), running))
    });
    Ok(Reply::Objects(lines.boxed()))
}
