//! Filtering of the node's responses, line by line, while they are forwarded.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Response, header};
use bytes::{Bytes, BytesMut};
use cluster_http::rpc::Failure;
use cluster_http::stream_error::{self, STREAM_ERROR};
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use http_body_util::{BodyStream, StreamBody};
use hyper::body::Frame;

use super::kubo_response::failed;

/// Maximum length of a line in bytes, which holds an escaped path of 4096 bytes and some numbers.
const LINE_MAX: usize = 64 * 1024;

/// Reads the lines of a response.
pub(super) trait LineFilter: Send + 'static {
    /// Handles a line with its line feed, and returns what is forwarded of it. After an error nothing more is
    /// forwarded.
    fn line(&mut self, line: Bytes) -> impl Future<Output = Result<Option<Bytes>, Failure>> + Send;

    /// Called when the response has ended without an error.
    fn end(&mut self) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// One item of the forwarded response.
enum Piece {
    Data(Bytes),
    /// The node's own trailers.
    Trailers(HeaderMap),
    Failed(Failure),
}

struct State<W> {
    frames: BodyStream<Body>,
    /// The incomplete next line.
    buffer: BytesMut,
    filter: W,
    /// Error to report once the data before it has been forwarded.
    failed: Option<Failure>,
    trailers: Option<HeaderMap>,
    ended: bool,
}

/// Passes the lines of a response through `filter`. Waits for the first, because an error before it
/// becomes an error status.
pub(super) async fn filter_lines(response: Response<Body>, filter: impl LineFilter) -> Response<Body> {
    let (mut head, body) = response.into_parts();
    let state = State {
        frames: BodyStream::new(body),
        buffer: BytesMut::new(),
        filter,
        failed: None,
        trailers: None,
        ended: false,
    };
    let mut pieces: BoxStream<'static, Result<Piece, axum::Error>> = stream::try_unfold(state, next).boxed();
    let first = pieces.next().await;
    if let Some(Ok(Piece::Failed(failure))) = first {
        return failed(failure);
    }
    let frames = stream::iter(first).chain(pieces).map_ok(|piece| match piece {
        Piece::Data(data) => Frame::data(data),
        Piece::Trailers(trailers) => Frame::trailers(trailers),
        Piece::Failed(failure) => stream_error::trailer(failure.message()),
    });
    head.headers.remove(header::CONTENT_LENGTH);
    head.headers
        .insert(header::TRAILER, HeaderValue::from_static("X-Stream-Error"));
    Response::from_parts(head, Body::new(StreamBody::new(frames)))
}

async fn next<W: LineFilter>(mut state: State<W>) -> Result<Option<(Piece, State<W>)>, axum::Error> {
    loop {
        if let Some(failure) = state.failed.take() {
            state.ended = true;
            return Ok(Some((Piece::Failed(failure), state)));
        }
        if state.ended {
            return Ok(None);
        }
        let seen = state.lines().await;
        if !seen.is_empty() {
            return Ok(Some((Piece::Data(seen.into()), state)));
        }
        if state.failed.is_some() {
            continue;
        }
        match state.frames.try_next().await? {
            Some(frame) => match frame.into_data() {
                Ok(data) => state.buffer.extend_from_slice(&data),
                Err(frame) => state.trailers = frame.into_trailers().ok(),
            },
            None => return Ok(state.end().await.map(|piece| (piece, state))),
        }
    }
}

impl<W: LineFilter> State<W> {
    /// Handles all complete lines, and returns what is forwarded of them.
    async fn lines(&mut self) -> Vec<u8> {
        let mut seen = Vec::new();
        while let Some(end) = memchr::memchr(b'\n', &self.buffer) {
            let line = self.buffer.split_to(end + 1).freeze();
            match self.filter.line(line).await {
                Ok(line) => seen.extend_from_slice(&line.unwrap_or_default()),
                Err(failure) => {
                    self.failed = Some(failure);
                    return seen;
                }
            }
        }
        if self.buffer.len() > LINE_MAX {
            let why = format!("the IPFS node answers with a line of more than {LINE_MAX} bytes");
            self.failed = Some(Failure::failed(why));
        }
        seen
    }

    async fn end(&mut self) -> Option<Piece> {
        self.ended = true;
        let error = |trailers: &HeaderMap| trailers.get(STREAM_ERROR).is_some_and(|error| !error.is_empty());
        if self.trailers.as_ref().is_some_and(error) {
            return self.trailers.take().map(Piece::Trailers);
        }
        let rest = self.buffer.split().freeze();
        let mut passed = None;
        if !rest.is_empty() {
            match self.filter.line(rest).await {
                Ok(line) => passed = line,
                Err(failure) => return Some(Piece::Failed(failure)),
            }
        }
        match self.filter.end().await {
            Ok(()) => passed
                .map(Piece::Data)
                .or_else(|| self.trailers.take().map(Piece::Trailers)),
            Err(failure) => Some(Piece::Failed(failure)),
        }
    }
}
