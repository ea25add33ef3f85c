//! Streaming compression of answers.

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::stream::{StreamExt, TryStreamExt, unfold};
use std::io::Write;

use crate::Error;
use crate::reader::blocking;
use crate::unixfs::ByteStream;

/// Level used if none is requested; the default of gzip and Go's library.
pub(super) const DEFAULT_LEVEL: u32 = 6;

/// Compresses a stream into one gzip member. Each piece is compressed off the async threads.
pub(super) fn compressed(pieces: ByteStream, level: u32) -> ByteStream {
    let encoder = GzEncoder::new(Vec::new(), Compression::new(level));
    let steps = unfold(Some((pieces, encoder)), |state| async {
        let (mut pieces, mut encoder) = state?;
        match pieces.next().await {
            Some(Err(error)) => Some((Err(error), None)),
            Some(Ok(piece)) => {
                let worked = blocking(move || {
                    encoder.write_all(&piece).map_err(failed)?;
                    let out = std::mem::take(encoder.get_mut());
                    Ok((out, encoder))
                });
                match worked.await {
                    Ok((out, encoder)) => Some((Ok(Bytes::from(out)), Some((pieces, encoder)))),
                    Err(error) => Some((Err(error), None)),
                }
            }
            None => Some((encoder.finish().map(Bytes::from).map_err(failed), None)),
        }
    });
    steps
        .try_filter(|out| std::future::ready(!out.is_empty()))
        .boxed()
}

fn failed(error: std::io::Error) -> Error {
    Error::io("compressing", error)
}
