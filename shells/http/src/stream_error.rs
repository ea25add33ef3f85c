//! Failures of an answer whose status and first bytes have been sent already: they are reported in the
//! trailer `X-Stream-Error`, as Go's cluster and Kubo do.

use std::convert::Infallible;

use bytes::Bytes;
use futures::stream::{Stream, StreamExt};
use hyper::body::Frame;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};

/// The trailer with the error message; empty or absent after a complete answer.
pub const STREAM_ERROR: HeaderName = HeaderName::from_static("x-stream-error");

/// Characters of an error message that are sent; clients limit the size of headers.
const MESSAGE_MAX: usize = 2048;

/// Returns the frame that ends a body with this error. Control characters become spaces.
pub fn trailer(message: &str) -> Frame<Bytes> {
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    let line: String = message.chars().map(printable).take(MESSAGE_MAX).collect();
    let value = HeaderValue::from_str(&line).or_else(|_| HeaderValue::from_bytes(line.as_bytes()));
    let value = value.unwrap_or(HeaderValue::from_static("an error occurred"));
    Frame::trailers(HeaderMap::from_iter([(STREAM_ERROR, value)]))
}

/// Ends a body at its first trailer; what would follow is not polled for.
pub fn end_at_trailer(
    frames: impl Stream<Item = Frame<Bytes>>,
) -> impl Stream<Item = Result<Frame<Bytes>, Infallible>> {
    frames.scan(false, |ended, frame| {
        let proceed = !*ended;
        *ended |= frame.is_trailers();
        std::future::ready(proceed.then_some(Ok(frame)))
    })
}
