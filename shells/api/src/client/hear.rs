//! A connection whose answer is heard even when it comes before the request was sent whole.
//!
//! A server that refuses an upload answers and closes, and what the client still sends is answered with a
//! reset. hyper gives up at the first failed write, and the reason for the refusal, which lies in the receive
//! buffer already, would be lost.

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

/// Swallows what is written after the other side closed; the read side says how it ended: with the answer,
/// or with the error.
pub(super) struct HearAnswer<T>(T);

impl<T> HearAnswer<T> {
    pub(super) fn new(io: T) -> Self {
        Self(io)
    }
}

/// The other side does not read any more.
fn closed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted
    )
}

/// What a write of so much becomes.
fn swallowed(written: Poll<io::Result<usize>>, length: usize) -> Poll<io::Result<usize>> {
    match written {
        Poll::Ready(Err(error)) if closed(&error) => Poll::Ready(Ok(length)),
        Poll::Ready(done) => Poll::Ready(done),
        Poll::Pending => Poll::Pending,
    }
}

impl<T: Read + Unpin> Read for HearAnswer<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl<T: Write + Unpin> Write for HearAnswer<T> {
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

impl<T> Connection for HearAnswer<T> {
    /// HTTP/1.1, straight to the server.
    fn connected(&self) -> Connected {
        Connected::new()
    }
}
