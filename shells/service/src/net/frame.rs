//! Framing of streams: four bytes of length, one of kind, the payload.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::traffic::Meter;

/// Maximum size of a frame's payload, in bytes: one pin of a snapshot, which the first release accepted up to
/// the 8 MiB of a request's body, with its encoding overhead.
pub(super) const FRAME_MAX: usize = 16 << 20;

/// Bytes of length and kind.
const HEADER: usize = 5;

/// Size from which payloads are written to the stream without a copy.
const WRITE_THROUGH: usize = 16 << 10;

/// Step in which a payload's buffer grows, so that a length alone never costs memory.
const GROW_STEP: usize = 256 << 10;

/// Kind of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// First frame: origin and purpose of the stream.
    Head = 0,
    /// A piece of content.
    Data = 1,
    /// Last frame: success.
    End = 2,
    /// Last frame: it was tried and failed; the payload is the reason.
    Failed = 3,
    /// Last frame: it was not tried; the payload is the reason.
    Refused = 4,
    /// A part of a message that a `Data` frame completes.
    Part = 5,
}

impl Kind {
    fn parse(byte: u8) -> io::Result<Self> {
        match byte {
            0 => Ok(Self::Head),
            1 => Ok(Self::Data),
            2 => Ok(Self::End),
            3 => Ok(Self::Failed),
            4 => Ok(Self::Refused),
            5 => Ok(Self::Part),
            other => Err(invalid(format!("unknown kind of frame {other}"))),
        }
    }
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    pub(super) payload: Bytes,
}

impl Frame {
    /// Returns the payload as text for people, cut to a readable length.
    pub(super) fn text(&self) -> String {
        const TEXT_MAX: usize = 4 << 10;
        let cut = self.payload.len().min(TEXT_MAX);
        String::from_utf8_lossy(&self.payload[..cut]).into_owned()
    }
}

/// Returns an error for bytes that violate the protocol.
pub(super) fn invalid(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.into())
}

/// Writes frames.
pub(super) struct FrameWriter<W> {
    io: W,
    buffer: Vec<u8>,
    meter: Arc<Meter>,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    pub(super) fn new(io: W, meter: Arc<Meter>) -> Self {
        Self {
            io,
            buffer: Vec::new(),
            meter,
        }
    }

    /// Bytes in the buffer, until [`FrameWriter::flush`].
    pub(super) fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// Appends a frame to the buffer, whose size the caller bounds.
    pub(super) fn push(&mut self, kind: Kind, payload: &[u8]) {
        self.header(kind, payload.len());
        self.buffer.extend_from_slice(payload);
    }

    /// Sends a frame, after the contents of the buffer.
    pub(super) async fn send(&mut self, kind: Kind, payload: &[u8]) -> io::Result<()> {
        self.send_pieces(kind, &[payload]).await
    }

    /// As [`FrameWriter::send`], for a payload in pieces.
    pub(super) async fn send_pieces(&mut self, kind: Kind, pieces: &[impl AsRef<[u8]>]) -> io::Result<()> {
        let length = pieces.iter().map(|piece| piece.as_ref().len()).sum();
        if length > FRAME_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("a frame of {length} bytes, at most {FRAME_MAX} are allowed"),
            ));
        }
        self.header(kind, length);
        for piece in pieces.iter().map(AsRef::as_ref) {
            if piece.len() < WRITE_THROUGH {
                self.buffer.extend_from_slice(piece);
            } else {
                self.write_buffer().await?;
                self.io.write_all(piece).await?;
                self.meter.add_sent(piece.len());
            }
        }
        self.flush().await
    }

    /// Sends the contents of the buffer.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        self.write_buffer().await?;
        self.io.flush().await
    }

    /// Sends the contents of the buffer and closes the stream for writing.
    pub(super) async fn close(&mut self) -> io::Result<()> {
        self.write_buffer().await?;
        self.io.close().await
    }

    fn header(&mut self, kind: Kind, length: usize) {
        let length = u32::try_from(length).expect("payloads are checked against FRAME_MAX");
        self.buffer.extend_from_slice(&length.to_be_bytes());
        self.buffer.push(kind as u8);
    }

    async fn write_buffer(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.io.write_all(&self.buffer).await?;
        self.meter.add_sent(self.buffer.len());
        self.buffer.clear();
        Ok(())
    }
}

/// A frame whose payload has not arrived completely.
struct Partial {
    kind: Kind,
    length: usize,
    payload: Vec<u8>,
    filled: usize,
}

/// Reads frames. [`FrameReader::next`] is cancel-safe.
pub(super) struct FrameReader<R> {
    io: R,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    limit: usize,
    partial: Option<Partial>,
    meter: Arc<Meter>,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads ahead up to `buffer` bytes, and accepts payloads of up to `limit` bytes.
    pub(super) fn new(io: R, buffer: usize, limit: usize, meter: Arc<Meter>) -> Self {
        let buffer = vec![0; buffer.max(HEADER)].into_boxed_slice();
        Self {
            io,
            buffer,
            start: 0,
            end: 0,
            limit: limit.min(FRAME_MAX),
            partial: None,
            meter,
        }
    }

    /// Changes the longest payload accepted in the frames that follow.
    pub(super) fn set_limit(&mut self, limit: usize) {
        self.limit = limit.min(FRAME_MAX);
    }

    /// Reads the next frame; `None` when the stream ended between two frames.
    pub(super) async fn next(&mut self) -> io::Result<Option<Frame>> {
        loop {
            if let Some(frame) = self.take()? {
                return Ok(Some(frame));
            }
            let count = self.fill().await?;
            self.meter.add_received(count);
            if count == 0 {
                let clean = self.partial.is_none() && self.start == self.end;
                let torn = || io::Error::new(io::ErrorKind::UnexpectedEof, "the stream ended within a frame");
                return if clean { Ok(None) } else { Err(torn()) };
            }
        }
    }

    /// Takes a complete frame from the bytes that have arrived.
    fn take(&mut self) -> io::Result<Option<Frame>> {
        if self.partial.is_none() {
            let Some(header) = self.buffer[self.start..self.end].first_chunk::<HEADER>() else {
                return Ok(None);
            };
            let length = u32::from_be_bytes([header[0], header[1], header[2], header[3]]) as usize;
            let kind = Kind::parse(header[4])?;
            if length > self.limit {
                let limit = self.limit;
                return Err(invalid(format!(
                    "a frame of {length} bytes, at most {limit} are accepted"
                )));
            }
            self.start += HEADER;
            self.partial = Some(Partial {
                kind,
                length,
                payload: Vec::new(),
                filled: 0,
            });
        }
        let Some(partial) = self.partial.as_mut() else {
            return Ok(None);
        };
        let available = (self.end - self.start).min(partial.length - partial.filled);
        if available > 0 {
            partial.payload.truncate(partial.filled);
            partial
                .payload
                .extend_from_slice(&self.buffer[self.start..self.start + available]);
            partial.filled += available;
            self.start += available;
        }
        if partial.filled < partial.length {
            return Ok(None);
        }
        Ok(self.partial.take().map(|mut whole| {
            whole.payload.truncate(whole.length);
            Frame {
                kind: whole.kind,
                payload: whole.payload.into(),
            }
        }))
    }

    /// Reads once: directly into a long payload, otherwise into the buffer.
    async fn fill(&mut self) -> io::Result<usize> {
        if let Some(partial) = self.partial.as_mut() {
            let missing = partial.length - partial.filled;
            if missing >= self.buffer.len() {
                if partial.payload.len() == partial.filled {
                    partial.payload.reserve_exact(missing);
                    partial.payload.resize(partial.filled + missing.min(GROW_STEP), 0);
                }
                let count = self.io.read(&mut partial.payload[partial.filled..]).await?;
                partial.filled += count;
                return Ok(count);
            }
        }
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        let count = self.io.read(&mut self.buffer[self.end..]).await?;
        self.end += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use futures::io::Cursor;

    use super::*;

    fn reader(bytes: Vec<u8>, buffer: usize) -> FrameReader<Cursor<Vec<u8>>> {
        FrameReader::new(Cursor::new(bytes), buffer, 1 << 20, Arc::new(Meter::default()))
    }

    #[tokio::test]
    async fn frames_of_all_sizes_round_trip_with_any_read_buffer() {
        let sizes = [0, 1, 5, 4_095, 4_096, 16_384, 70_000, 300_000, 1 << 20, 3];
        let mut writer = FrameWriter::new(Cursor::new(Vec::new()), Arc::new(Meter::default()));
        for (n, size) in sizes.iter().enumerate() {
            writer.send(Kind::Data, &vec![n as u8; *size]).await.unwrap();
        }
        let bytes = writer.io.into_inner();
        for buffer in [5, 17, 4_096, 65_536] {
            let mut reader = reader(bytes.clone(), buffer);
            for (n, size) in sizes.iter().enumerate() {
                let frame = reader.next().await.unwrap().unwrap();
                assert_eq!(frame.kind, Kind::Data);
                assert_eq!(frame.payload.len(), *size);
                assert!(frame.payload.iter().all(|byte| *byte == n as u8));
            }
            assert_eq!(reader.next().await.unwrap(), None);
        }
    }

    #[tokio::test]
    async fn oversized_truncated_and_unknown_frames_are_errors() {
        let too_long = reader(vec![0xff, 0xff, 0xff, 0xff, 1, 0, 0], 64)
            .next()
            .await
            .unwrap_err();
        assert_eq!(
            too_long.to_string(),
            "a frame of 4294967295 bytes, at most 1048576 are accepted"
        );
        let torn = reader(vec![0, 0, 0, 9, 1, 7], 64).next().await.unwrap_err();
        assert_eq!(torn.kind(), io::ErrorKind::UnexpectedEof);
        let unknown = reader(vec![0, 0, 0, 0, 9], 64).next().await.unwrap_err();
        assert_eq!(unknown.to_string(), "unknown kind of frame 9");
    }

    #[tokio::test]
    async fn pieces_of_all_sizes_arrive_as_one_frame() {
        let pieces: Vec<Vec<u8>> = [3, 0, 40_000, 17, 16_384, 16_383, 1]
            .iter()
            .enumerate()
            .map(|(n, size)| vec![n as u8; *size])
            .collect();
        let mut writer = FrameWriter::new(Cursor::new(Vec::new()), Arc::new(Meter::default()));
        writer.send_pieces(Kind::Data, &pieces).await.unwrap();
        writer.send(Kind::End, &[]).await.unwrap();
        let mut reader = reader(writer.io.into_inner(), 4_096);
        let frame = reader.next().await.unwrap().unwrap();
        assert_eq!((frame.kind, frame.payload), (Kind::Data, pieces.concat().into()));
        assert_eq!(reader.next().await.unwrap().unwrap().kind, Kind::End);
        let long = vec![vec![0; FRAME_MAX], vec![0]];
        let mut writer = FrameWriter::new(Cursor::new(Vec::new()), Arc::new(Meter::default()));
        let refused = writer.send_pieces(Kind::Data, &long).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(
            bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400),
        ) {
            let mut reader = reader(bytes, 32);
            futures::executor::block_on(async { while let Ok(Some(_)) = reader.next().await {} });
        }
    }
}
