//! CAR archives: reads versions 1 and 2, writes version 1
//! ([specification](https://ipld.io/specs/transport/car/)).

use crate::Cid;
use crate::reader::StreamSender;
use crate::store::BLOCK_MAX;
use crate::{Block, Error};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Maximum length of the header, in bytes: some 20,000 roots.
const HEADER_MAX: u64 = 1 << 20;
/// Maximum length of a block with its CID, in bytes.
const SECTION_MAX: u64 = BLOCK_MAX as u64 + 256;

#[derive(Serialize, Deserialize)]
struct Header {
    #[serde(default)]
    roots: Vec<Cid>,
    version: u64,
}

/// Reads an archive block by block.
#[derive(Debug)]
pub(crate) struct CarReader<R> {
    input: tokio::io::Take<R>,
    pub(crate) roots: Vec<Cid>,
}

impl<R: AsyncRead + Unpin> CarReader<R> {
    pub(crate) async fn open(input: R) -> Result<CarReader<R>, Error> {
        let mut input = input.take(u64::MAX);
        let mut header = header(&mut input).await?;
        if header.version == 2 {
            // The characteristics, then offset and length of the version 1 archive inside.
            let mut fixed = [0; 40];
            input.read_exact(&mut fixed).await.map_err(truncated)?;
            let number = |at: usize| {
                let bytes = fixed[at..].first_chunk::<8>().copied().unwrap_or_default();
                u64::from_le_bytes(bytes)
            };
            let (offset, size) = (number(16), number(24));
            let skip = offset
                .checked_sub(51)
                .ok_or_else(|| bad("its data overlaps its header"))?;
            let skipped = tokio::io::copy(&mut (&mut input).take(skip), &mut tokio::io::sink()).await;
            if skipped.map_err(truncated)? != skip {
                return Err(bad("it is cut short"));
            }
            input.set_limit(size);
            header = self::header(&mut input).await?;
        }
        if header.version != 1 {
            return Err(bad(&format!("version {} is not supported", header.version)));
        }
        Ok(CarReader {
            input,
            roots: header.roots,
        })
    }

    /// Returns the next block, unverified; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Block>, Error> {
        let Some(length) = length(&mut self.input).await? else {
            return Ok(None);
        };
        if length > SECTION_MAX {
            return Err(bad(&format!("a section of {length} bytes exceeds {SECTION_MAX}")));
        }
        let section = Bytes::from(exact(&mut self.input, length).await?);
        let mut rest = &section[..];
        let cid = Cid::read_bytes(&mut rest).map_err(|error| bad(&format!("a section's cid: {error}")))?;
        let data = section.slice(section.len() - rest.len()..);
        Ok(Some(Block { cid, data }))
    }
}

fn bad(why: &str) -> Error {
    Error::invalid(format!("invalid car: {why}"))
}

fn truncated(error: std::io::Error) -> Error {
    if error.kind() == std::io::ErrorKind::UnexpectedEof {
        bad("it is cut short")
    } else {
        Error::io("reading the car", error)
    }
}

async fn header(input: &mut (impl AsyncRead + Unpin)) -> Result<Header, Error> {
    let length = length(input).await?.ok_or_else(|| bad("it is empty"))?;
    if length > HEADER_MAX {
        return Err(bad(&format!("a header of {length} bytes exceeds {HEADER_MAX}")));
    }
    let bytes = exact(input, length).await?;
    serde_ipld_dagcbor::from_slice(&bytes).map_err(|error| bad(&format!("its header: {error}")))
}

async fn exact(input: &mut (impl AsyncRead + Unpin), length: u64) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let read = input
        .take(length)
        .read_to_end(&mut bytes)
        .await
        .map_err(truncated)?;
    if read as u64 == length {
        Ok(bytes)
    } else {
        Err(bad("it is cut short"))
    }
}

async fn length(input: &mut (impl AsyncRead + Unpin)) -> Result<Option<u64>, Error> {
    let mut value = 0u64;
    for at in 0..9 {
        let byte = match input.read_u8().await {
            Ok(byte) => byte,
            Err(error) if at == 0 && error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(truncated(error)),
        };
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok(Some(value));
        }
    }
    Err(bad("a malformed length"))
}

/// Sends the header of an archive with one root.
pub(crate) async fn write_header(root: Cid, out: &StreamSender<Bytes>) -> Result<(), Error> {
    let header = serde_ipld_dagcbor::to_vec(&Header {
        roots: vec![root],
        version: 1,
    });
    let header = header.map_err(|error| Error::invalid(format!("car header: {error}")))?;
    out.send(section(&[&header])).await
}

/// Sends one block.
pub(crate) async fn write_block(cid: Cid, data: &Bytes, out: &StreamSender<Bytes>) -> Result<(), Error> {
    out.send(section(&[&cid.to_bytes(), data])).await
}

fn section(parts: &[&[u8]]) -> Bytes {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut buffer = unsigned_varint::encode::usize_buffer();
    let prefix = unsigned_varint::encode::usize(length, &mut buffer);
    let mut out = Vec::with_capacity(prefix.len() + length);
    out.extend_from_slice(prefix);
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::any;
    use crate::reader::stream_from_task;
    use futures::TryStreamExt;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use tokio::runtime::{Builder, Runtime};

    fn runtime() -> Runtime {
        Builder::new_current_thread().build().unwrap()
    }

    fn blocks() -> impl Strategy<Value = Vec<Block>> {
        let block = (any::cid(), any::bytes(60)).prop_map(|(cid, data)| Block { cid, data });
        vec(block, 0..4)
    }

    async fn written(root: Cid, blocks: Vec<Block>) -> Vec<u8> {
        let pieces = stream_from_task(|out| async move {
            write_header(root, &out).await?;
            for block in blocks {
                write_block(block.cid, &block.data, &out).await?;
            }
            Ok(())
        });
        pieces.try_collect::<Vec<Bytes>>().await.unwrap().concat()
    }

    /// Wraps the archive into version 2, with padding before it and an index after it.
    fn second(archive: &[u8], padding: usize) -> Vec<u8> {
        let mut out = b"\x0a\xa1gversion\x02".to_vec();
        out.extend_from_slice(&[0; 16]);
        for number in [51 + padding, archive.len(), 51 + padding + archive.len()] {
            out.extend_from_slice(&(number as u64).to_le_bytes());
        }
        out.resize(51 + padding, 0);
        [&out, archive, b"an index"].concat()
    }

    /// Returns the roots, the blocks before the first error, and whether there was no error.
    async fn read(archive: &[u8]) -> (Vec<Cid>, Vec<Block>, bool) {
        let mut blocks = Vec::new();
        let Ok(mut reader) = CarReader::open(archive).await else {
            return (Vec::new(), blocks, false);
        };
        loop {
            match reader.next().await {
                Ok(Some(block)) => blocks.push(block),
                Ok(None) => return (reader.roots, blocks, true),
                Err(_) => return (reader.roots, blocks, false),
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn archives_round_trip(root in any::cid(), blocks in blocks(), padding in 0_usize..40) {
            let expected = (vec![root], blocks.clone(), true);
            runtime().block_on(async {
                let archive = written(root, blocks).await;
                prop_assert_eq!(&read(&archive).await, &expected);
                prop_assert_eq!(&read(&second(&archive, padding)).await, &expected);
                Ok(())
            })?;
        }

        #[test]
        fn truncation_is_an_error_after_the_whole_blocks(root in any::cid(), blocks in blocks()) {
            runtime().block_on(async {
                let archive = written(root, blocks.clone()).await;
                let mut whole = 0;
                for length in 0..=archive.len() {
                    let (_, read, sound) = read(&archive[..length]).await;
                    prop_assert!(blocks.starts_with(&read));
                    whole += usize::from(sound);
                }
                // An archive that is cut off between two blocks cannot be distinguished from a whole one.
                prop_assert_eq!(whole, 1 + blocks.len());
                let second = second(&archive, 7);
                for length in 0..51 + 7 {
                    prop_assert!(!self::read(&second[..length]).await.2);
                }
                Ok(())
            })?;
        }

        #[test]
        fn arbitrary_bytes_are_parsed_or_refused(
            root in any::cid(),
            blocks in blocks(),
            at in proptest::arbitrary::any::<prop::sample::Index>(),
            flip in 1_u8..,
            garbage in any::bytes(100),
        ) {
            runtime().block_on(async {
                let mut archive = second(&written(root, blocks).await, 3);
                let at = at.index(archive.len());
                archive[at] ^= flip;
                read(&archive).await;
                read(&garbage).await;
            });
        }
    }
}
