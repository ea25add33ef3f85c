//! Makes a hyper server send trailers to every client.
//!
//! hyper sends trailers only to clients that ask with `TE: trailers`. Go's and Node's clients do not ask, yet
//! read them, and trailers are the only way to report an error in a stream that has begun. [`AllowTrailers`]
//! wraps the socket and adds the header to each request that hyper reads.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Header inserted after each request line.
const HEADER: &[u8] = b"te: trailers\r\n";

/// Bytes kept of a header line. Only the headers that frame the body matter, and those are shorter.
const LINE_MAX: usize = 256;

/// A connection that adds `TE: trailers` to every request read from it. HTTP/1 only; input that does not look
/// like HTTP/1 passes unchanged.
#[derive(Debug)]
pub struct AllowTrailers<T> {
    io: T,
    scanner: Scanner,
    /// Scanned input that did not fit the reader's buffer.
    pending: BytesMut,
}

impl<T> AllowTrailers<T> {
    /// Wraps a connection of which nothing has been read yet.
    pub fn new(io: T) -> Self {
        AllowTrailers {
            io,
            scanner: Scanner::new(),
            pending: BytesMut::new(),
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for AllowTrailers<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.pending.is_empty() {
            let before = buf.filled().len();
            futures::ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
            let Some(changed) = this.scanner.scan(&buf.filled()[before..]) else {
                return Poll::Ready(Ok(()));
            };
            buf.set_filled(before);
            this.pending = changed;
        }
        let fits = this.pending.len().min(buf.remaining());
        buf.put_slice(&this.pending[..fits]);
        this.pending.advance(fits);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for AllowTrailers<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Position of the scanner in the stream of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ScanState {
    RequestLine,
    Header,
    /// Within a body; bytes left.
    Body(u64),
    ChunkSize,
    /// Within a chunk; bytes left, including its line end.
    Chunk(u64),
    Trailer,
    /// Unknown framing: the rest of the connection passes unchanged.
    Opaque,
}

/// Tracks the framing of HTTP/1 requests.
#[derive(Debug)]
struct Scanner {
    state: ScanState,
    /// First bytes of the current line, up to `LINE_MAX`.
    line: Vec<u8>,
    length: Option<u64>,
    chunked: bool,
}

impl Scanner {
    fn new() -> Self {
        Scanner {
            state: ScanState::RequestLine,
            line: Vec::new(),
            length: None,
            chunked: false,
        }
    }

    /// Scans `input`; returns it with the header inserted, or `None` if nothing has to be inserted.
    fn scan(&mut self, input: &[u8]) -> Option<BytesMut> {
        let mut changed: Option<BytesMut> = None;
        let mut copied = 0;
        let mut next = 0;
        while next < input.len() {
            match self.state {
                ScanState::Opaque => break,
                ScanState::Body(left) => {
                    let taken = skip(left, input.len() - next);
                    next += taken;
                    let left = left - taken as u64;
                    self.state = if left == 0 {
                        ScanState::RequestLine
                    } else {
                        ScanState::Body(left)
                    };
                }
                ScanState::Chunk(left) => {
                    let taken = skip(left, input.len() - next);
                    next += taken;
                    let left = left - taken as u64;
                    self.state = if left == 0 {
                        ScanState::ChunkSize
                    } else {
                        ScanState::Chunk(left)
                    };
                }
                ScanState::RequestLine | ScanState::Header | ScanState::ChunkSize | ScanState::Trailer => {
                    let rest = &input[next..];
                    let end = rest.iter().position(|byte| *byte == b'\n');
                    let piece = &rest[..end.unwrap_or(rest.len())];
                    let room = LINE_MAX - self.line.len();
                    self.line.extend_from_slice(&piece[..piece.len().min(room)]);
                    next += piece.len();
                    if end.is_none() {
                        break;
                    }
                    next += 1;
                    if self.end_line() {
                        let out = changed.get_or_insert_with(BytesMut::new);
                        out.extend_from_slice(&input[copied..next]);
                        out.extend_from_slice(HEADER);
                        copied = next;
                    }
                }
            }
        }
        if let Some(out) = &mut changed {
            out.extend_from_slice(&input[copied..]);
        }
        changed
    }

    /// Processes a complete line; returns whether to insert the header after it.
    fn end_line(&mut self) -> bool {
        // Taken and put back, to reuse its memory.
        let mut line = std::mem::take(&mut self.line);
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        let behind_it = self.follow(&line);
        line.clear();
        self.line = line;
        behind_it
    }

    fn follow(&mut self, line: &[u8]) -> bool {
        match self.state {
            ScanState::RequestLine => {
                // Empty lines before a request are legal.
                if line.is_empty() {
                    return false;
                }
                (self.length, self.chunked) = (None, false);
                self.state = if line.starts_with(b"CONNECT ") {
                    ScanState::Opaque
                } else {
                    ScanState::Header
                };
                return self.state == ScanState::Header;
            }
            ScanState::Header if line.is_empty() => {
                self.state = match (self.chunked, self.length) {
                    (true, _) => ScanState::ChunkSize,
                    (false, None | Some(0)) => ScanState::RequestLine,
                    (false, Some(length)) => ScanState::Body(length),
                };
            }
            ScanState::Header => self.header(line),
            ScanState::ChunkSize => self.state = chunk(line),
            ScanState::Trailer if line.is_empty() => self.state = ScanState::RequestLine,
            ScanState::Trailer | ScanState::Body(_) | ScanState::Chunk(_) | ScanState::Opaque => {}
        }
        false
    }

    fn header(&mut self, line: &[u8]) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            self.state = ScanState::Opaque;
            return;
        };
        let (name, value) = (line[..colon].trim_ascii(), line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.chunked = value.eq_ignore_ascii_case(b"chunked");
            if !self.chunked {
                self.state = ScanState::Opaque;
            }
        } else if name.eq_ignore_ascii_case(b"content-length") {
            let length = std::str::from_utf8(value)
                .ok()
                .and_then(|value| value.parse().ok());
            match length {
                Some(length) if self.length.is_none_or(|known| known == length) => self.length = Some(length),
                Some(_) | None => self.state = ScanState::Opaque,
            }
        }
    }
}

/// Returns how many of the `available` bytes belong to a body with `left` bytes remaining.
fn skip(left: u64, available: usize) -> usize {
    usize::try_from(left).map_or(available, |left| left.min(available))
}

/// Returns the state after a line with a chunk's size.
fn chunk(line: &[u8]) -> ScanState {
    let digits = line
        .split(|byte| *byte == b';')
        .next()
        .unwrap_or_default()
        .trim_ascii();
    let size = std::str::from_utf8(digits)
        .ok()
        .and_then(|digits| u64::from_str_radix(digits, 16).ok());
    match size.map(|size| (size, size.checked_add(2))) {
        Some((0, _)) => ScanState::Trailer,
        Some((_, Some(with_end))) => ScanState::Chunk(with_end),
        Some((_, None)) | None => ScanState::Opaque,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Scans `input` in pieces of `step` bytes.
    fn scanned(input: &[u8], step: usize) -> Vec<u8> {
        let mut scanner = Scanner::new();
        let mut out = Vec::new();
        for piece in input.chunks(step) {
            match scanner.scan(piece) {
                Some(changed) => out.extend_from_slice(&changed),
                None => out.extend_from_slice(piece),
            }
        }
        out
    }

    #[test]
    fn every_request_gets_the_header_for_any_split_of_the_input() {
        let get = "GET /a HTTP/1.1\r\nHost: x\r\n\r\n";
        let sized = "POST /b HTTP/1.1\r\ncontent-length: 20\r\n\r\nGET / HTTP/1.1\r\n\r\n..";
        let chunked = "POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\
                       12;x=y\r\nGET / HTTP/1.1\r\n\r\n\r\n0\r\nx: y\r\n\r\n";
        let input = [get, sized, chunked, "\r\n", get].concat();
        let with = |request: &str| request.replacen("\r\n", "\r\nte: trailers\r\n", 1);
        let expected = [
            with(get),
            with(sized),
            with(chunked),
            "\r\n".to_owned(),
            with(get),
        ]
        .concat();
        for step in [1, 2, 3, 7, 50, 1000] {
            let out = scanned(input.as_bytes(), step);
            assert_eq!(String::from_utf8_lossy(&out), expected, "in pieces of {step}");
        }
    }

    #[test]
    fn input_after_unknown_framing_passes_unchanged() {
        let head = "POST /b HTTP/1.1\r\nte: trailers\r\n";
        for (request, rest) in [
            (
                "POST /b HTTP/1.1\r\n",
                "Transfer-Encoding: gzip\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            ),
            (
                "POST /b HTTP/1.1\r\n",
                "Content-Length: 1\r\nContent-Length: 2\r\n\r\nGET / HTTP/1.1\r\n",
            ),
            (
                "POST /b HTTP/1.1\r\n",
                "Transfer-Encoding: chunked\r\n\r\nzz\r\nGET / HTTP/1.1\r\n",
            ),
        ] {
            let out = scanned(format!("{request}{rest}").as_bytes(), 5);
            assert_eq!(String::from_utf8_lossy(&out), format!("{head}{rest}"));
        }
    }

    proptest! {
        #[test]
        fn no_input_is_lost_or_reordered(
            input in proptest::collection::vec(any::<u8>(), 0..300),
            step in 1usize..50,
        ) {
            let out = scanned(&input, step);
            let text = out.windows(HEADER.len()).position(|window| window == HEADER);
            if text.is_none() {
                prop_assert_eq!(&out, &input);
            } else {
                let mut rest = out;
                while let Some(start) = rest.windows(HEADER.len()).position(|window| window == HEADER) {
                    rest.drain(start..start + HEADER.len());
                }
                prop_assert_eq!(rest, input);
            }
        }
    }
}
