//! Kubo's RPC API (`/api/v0`) as far as all commands share it: failures, lines of JSON, streamed results.

use std::fmt::Display;
use std::future::Future;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt};
use http_body_util::Full;
use hyper::body::Frame;
use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::{json, stream_error};

/// Results between a command and its connection; more would only delay the back-pressure of a slow reader.
const SINK_LINES: usize = 32;

/// Pieces of at most this many bytes that are ready together are joined into one frame. Larger ones are
/// better not copied.
const JOINED_MAX: usize = 16 * 1024;

/// Failure of a command, or refusal of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// `None`: the command failed. Otherwise the request itself is wrong, which is answered as plain text.
    status: Option<StatusCode>,
    message: String,
}

/// The body of an answer that reports a failed command.
#[derive(Serialize)]
struct ErrorBody<'a> {
    #[serde(rename = "Message")]
    message: &'a str,
    #[serde(rename = "Code")]
    code: u8,
    #[serde(rename = "Type")]
    kind: &'static str,
}

impl Failure {
    /// The command was understood and failed.
    pub fn failed(message: impl Display) -> Self {
        Self {
            status: None,
            message: message.to_string(),
        }
    }

    /// The request cannot be understood.
    pub fn bad_request(message: impl Display) -> Self {
        Self::plain(StatusCode::BAD_REQUEST, message)
    }

    /// Refused before any command was started.
    pub fn plain(status: StatusCode, message: impl Display) -> Self {
        Self {
            status: Some(status),
            message: message.to_string(),
        }
    }

    /// The time limit that the client set has passed, in Go's words.
    pub fn deadline() -> Self {
        Self::failed("context deadline exceeded")
    }

    /// Returns the same failure with `context` before its message.
    #[must_use]
    pub fn with_prefix(self, context: &str) -> Self {
        Self {
            message: format!("{context}{}", self.message),
            ..self
        }
    }

    /// Returns the message of the error.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Returns the answer: 500 with a JSON object, or plain text with the status of a refusal.
    pub fn into_response(self) -> Response<Full<Bytes>> {
        if let Some(status) = self.status {
            return plain_text(status, &self.message);
        }
        let body = ErrorBody {
            message: &self.message,
            code: 0,
            kind: "error",
        };
        let mut response = Response::new(Full::new(json_line(&body)));
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

/// Returns an answer outside the commands: plain text with a line end, as Go's `http.Error` writes it.
pub fn plain_text(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(format!("{text}\n"))));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    headers.insert(header::CONTENT_TYPE, kind);
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}

/// Returns the message of an answer that reports a failed command; `None` if `body` is of another form.
pub fn error_message(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Message {
        #[serde(rename = "Message")]
        message: String,
    }
    serde_json::from_slice(body)
        .ok()
        .map(|Message { message }| message)
}

/// Encodes a result as a line of JSON with Go's escaping.
pub fn json_line(value: &impl Serialize) -> Bytes {
    let mut line = Vec::with_capacity(128);
    if let Err(error) = json::write(&mut line, value) {
        // Results are plain structures. Readers skip empty lines.
        tracing::error!(%error, "a result cannot be written as JSON");
        line.clear();
    }
    line.push(b'\n');
    line.into()
}

/// Splits a body into arguments, one per line. Empty lines are left out.
pub fn argument_lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let lines = text.split(|byte| *byte == b'\n');
    lines
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .filter(|line| !line.is_empty())
}

/// Reads a boolean option as Kubo does: present without a value means true.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "" | "1" | "t" | "true" => Some(true),
        "0" | "f" | "false" => Some(false),
        _ => None,
    }
}

/// A stream of results: encoded lines or pieces of content, ended by at most one failure.
pub type Pieces = BoxStream<'static, Result<Bytes, Failure>>;

/// Returns the frames of pieces that were ready together: small ones joined, then the trailer of a failure.
pub fn frames(pieces: Vec<Result<Bytes, Failure>>) -> Vec<Frame<Bytes>> {
    let mut frames = Vec::new();
    let mut joined = Vec::new();
    let flush = |joined: &mut Vec<u8>, frames: &mut Vec<Frame<Bytes>>| {
        if !joined.is_empty() {
            frames.push(Frame::data(std::mem::take(joined).into()));
        }
    };
    let single = pieces.len() == 1;
    for piece in pieces {
        match piece {
            Ok(piece) if piece.is_empty() => {}
            Ok(piece) if single || piece.len() > JOINED_MAX => {
                flush(&mut joined, &mut frames);
                frames.push(Frame::data(piece));
            }
            Ok(line) => joined.extend_from_slice(&line),
            Err(failure) => {
                flush(&mut joined, &mut frames);
                frames.push(stream_error::trailer(failure.message()));
                return frames;
            }
        }
    }
    flush(&mut joined, &mut frames);
    frames
}

/// Receives the results of a running command.
#[derive(Debug, Clone)]
pub struct LineSender(mpsc::Sender<Bytes>);

impl LineSender {
    /// Sends a result, waiting for room.
    ///
    /// # Errors
    /// The client has gone.
    pub async fn send(&self, value: &impl Serialize) -> Result<(), Failure> {
        let sent = self.0.send(json_line(value)).await;
        sent.map_err(|_| Failure::failed("context canceled"))
    }

    /// Sends a result if there is room: for progress, which the next report replaces.
    pub fn try_send(&self, value: &impl Serialize) {
        // A full sink means that the reader has older reports to read still.
        let _ = self.0.try_send(json_line(value));
    }
}

/// Runs a command that reports results while it works, as far as the stream is polled. Dropping the stream
/// stops it.
pub fn stream_lines<F, W>(work: F) -> Pieces
where
    F: FnOnce(LineSender) -> W,
    W: Future<Output = Result<(), Failure>> + Send + 'static,
{
    struct Running {
        lines: mpsc::Receiver<Bytes>,
        work: Option<BoxFuture<'static, Result<(), Failure>>>,
        failure: Option<Failure>,
    }
    let (sender, lines) = mpsc::channel(SINK_LINES);
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
        // Results that were sent before the end come before the failure.
        if let Some(line) = running.lines.recv().await {
            return Some((Ok(line), running));
        }
        running.failure.take().map(|failure| (Err(failure), running))
    });
    lines.boxed()
}
