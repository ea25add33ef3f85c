//! Answers of the node that are looked at on their way, a line at a time.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Response, header};
use bytes::{Bytes, BytesMut};
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use http_body_util::{BodyStream, StreamBody};
use hyper::body::Frame;

use super::reply::{Failure, trailer};
use crate::http::answer::STREAM_ERROR;

/// A line holds a path of 4096 bytes, escaped, and some numbers.
const LINE_MAX: usize = 64 * 1024;

/// Who looks.
pub(super) trait Watcher: Send + 'static {
    /// Sees a line, with its end, and says what is passed on of it. After a failure nothing more is.
    fn line(&mut self, line: Bytes) -> impl Future<Output = Result<Option<Bytes>, Failure>> + Send;

    /// The node has said all and told of no error.
    fn end(&mut self) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// What comes out.
enum Piece {
    Data(Bytes),
    /// The node's own end.
    Trailers(HeaderMap),
    Failed(Failure),
}

struct State<W> {
    frames: BodyStream<Body>,
    /// What has come of the next line.
    buffer: BytesMut,
    watcher: W,
    /// Why nothing more comes, once what came before is out.
    failed: Option<Failure>,
    trailers: Option<HeaderMap>,
    ended: bool,
}

/// Shows an answer's lines to `watcher`. Waits for the first, because a failure before it is a status.
pub(super) async fn watch(response: Response<Body>, watcher: impl Watcher) -> Response<Body> {
    let (mut head, body) = response.into_parts();
    let state = State {
        frames: BodyStream::new(body),
        buffer: BytesMut::new(),
        watcher,
        failed: None,
        trailers: None,
        ended: false,
    };
    let mut pieces: BoxStream<'static, Result<Piece, axum::Error>> = stream::try_unfold(state, next).boxed();
    let first = pieces.next().await;
    if let Some(Ok(Piece::Failed(failure))) = first {
        return failure.into_response();
    }
    let frames = stream::iter(first).chain(pieces).map_ok(|piece| match piece {
        Piece::Data(data) => Frame::data(data),
        Piece::Trailers(trailers) => Frame::trailers(trailers),
        Piece::Failed(failure) => trailer(failure.message()),
    });
    head.headers.remove(header::CONTENT_LENGTH);
    head.headers
        .insert(header::TRAILER, HeaderValue::from_static("X-Stream-Error"));
    Response::from_parts(head, Body::new(StreamBody::new(frames)))
}

async fn next<W: Watcher>(mut state: State<W>) -> Result<Option<(Piece, State<W>)>, axum::Error> {
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

impl<W: Watcher> State<W> {
    /// Shows all lines that are complete, and returns what is passed on of them.
    async fn lines(&mut self) -> Vec<u8> {
        let mut seen = Vec::new();
        while let Some(end) = memchr::memchr(b'\n', &self.buffer) {
            let line = self.buffer.split_to(end + 1).freeze();
            match self.watcher.line(line).await {
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
            match self.watcher.line(rest).await {
                Ok(line) => passed = line,
                Err(failure) => return Some(Piece::Failed(failure)),
            }
        }
        match self.watcher.end().await {
            Ok(()) => passed
                .map(Piece::Data)
                .or_else(|| self.trailers.take().map(Piece::Trailers)),
            Err(failure) => Some(Piece::Failed(failure)),
        }
    }
}
