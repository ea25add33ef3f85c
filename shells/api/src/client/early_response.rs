//! Connection wrapper that delivers a response sent before the request body was complete.
//!
//! A server that refuses an upload responds and closes; further writes of the client then fail with a reset.
//! hyper gives up at the first failed write and would lose the response, which is already in the receive
//! buffer.

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

/// Discards writes after the remote closed. The read side returns the response or the error.
pub(super) struct EarlyResponse<T>(T);

impl<T> EarlyResponse<T> {
    pub(super) fn new(io: T) -> Self {
        Self(io)
    }
}

/// Returns whether the error means that the remote no longer reads.
fn closed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted
    )
}

/// Turns a write of `length` bytes that failed because the remote closed into a success.
fn swallowed(written: Poll<io::Result<usize>>, length: usize) -> Poll<io::Result<usize>> {
    match written {
        Poll::Ready(Err(error)) if closed(&error) => Poll::Ready(Ok(length)),
        Poll::Ready(done) => Poll::Ready(done),
        Poll::Pending => Poll::Pending,
    }
}

impl<T: Read + Unpin> Read for EarlyResponse<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl<T: Write + Unpin> Write for EarlyResponse<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        swallowed(Pin::new(&mut self.0).poll_write(cx, data), data.len())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = data.iter().map(|slice| slice.len()).sum();
        swallowed(Pin::new(&mut self.0).poll_write_vectored(cx, data), length)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl<T> Connection for EarlyResponse<T> {
    /// HTTP/1.1 without a proxy.
    fn connected(&self) -> Connected {
        Connected::new()
    }
}
