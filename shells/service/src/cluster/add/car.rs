//! Reader of CAR files, versions 1 and 2 (<https://ipld.io/specs/transport/car/>): a header with the roots,
//! then blocks.

use cluster_ipfs::{Block, Cid};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt, BufReader};
use tokio::sync::mpsc;

/// Maximum size of a header in bytes: a list of roots, of which one is allowed.
const HEADER_MAX: u64 = 64 << 10;
/// Maximum size of a section in bytes: a CID and a block of up to 2 MiB.
const SECTION_MAX: u64 = (2 << 20) + 256;
/// Size of the read buffer.
const BUFFER: usize = 256 << 10;

/// Error of reading a CAR file.
#[derive(Debug)]
pub(super) enum Error {
    /// It is malformed, or has not exactly one root.
    Invalid(String),
    /// The receiver of the blocks is closed.
    Closed,
}

fn invalid(why: impl Into<String>) -> Error {
    Error::Invalid(format!("the CAR file is not valid: {}", why.into()))
}

/// Sends the blocks of a CAR file to `out`; returns its only root and the total size of its blocks. Does
/// not verify the blocks' hashes: the node that stores them does.
pub(super) async fn read(
    content: impl AsyncRead + Send + Unpin,
    out: &mpsc::Sender<Block>,
) -> Result<(Cid, u64), Error> {
    let mut content = BufReader::with_capacity(BUFFER, content);
    let header = section(&mut content, HEADER_MAX)
        .await?
        .ok_or_else(|| invalid("it is empty"))?;
    match header_of(&header)? {
        Header { version: 1, roots } => blocks(one(roots)?, content, out).await,
        Header { version: 2, .. } => {
            let size = data_of_v2(&mut content).await?;
            let mut data = content.take(size);
            let header = section(&mut data, HEADER_MAX)
                .await?
                .ok_or_else(|| invalid("it is empty"))?;
            match header_of(&header)? {
                Header { version: 1, roots } => blocks(one(roots)?, data, out).await,
                Header { version, .. } => Err(invalid(format!("version {version} within version 2"))),
            }
        }
        Header { version, .. } => Err(invalid(format!(
            "its version is {version}, but only 1 and 2 are supported"
        ))),
    }
}

async fn blocks(
    root: Cid,
    mut content: impl AsyncRead + Send + Unpin,
    out: &mpsc::Sender<Block>,
) -> Result<(Cid, u64), Error> {
    let mut size = 0;
    while let Some(section) = section(&mut content, SECTION_MAX).await? {
        let mut rest = section.as_slice();
        let cid = Cid::read_bytes(&mut rest).map_err(|error| invalid(format!("a block's CID: {error}")))?;
        let at = section.len() - rest.len();
        size += rest.len() as u64;
        let data = bytes::Bytes::from(section).slice(at..);
        out.send(Block { cid, data }).await.map_err(|_| Error::Closed)?;
    }
    Ok((root, size))
}

/// Returns the only root, as exactly one can be pinned.
fn one(roots: Vec<Cid>) -> Result<Cid, Error> {
    match roots.as_slice() {
        [root] => Ok(*root),
        roots => Err(invalid(format!(
            "it has {} roots, but exactly one is needed",
            roots.len()
        ))),
    }
}

/// Header of an archive, or of the wrapper of version 2.
#[derive(Deserialize)]
struct Header {
    version: u64,
    #[serde(default)]
    roots: Vec<Cid>,
}

fn header_of(bytes: &[u8]) -> Result<Header, Error> {
    serde_ipld_dagcbor::from_slice(bytes)
        .map_err(|error| invalid(format!("its header cannot be read: {error}")))
}

/// Skips to the data of a version 2 file, and returns its length.
async fn data_of_v2(content: &mut (impl AsyncRead + Send + Unpin)) -> Result<u64, Error> {
    /// End of the header of version 2: 11 bytes of pragma, 40 of header.
    const HEADER_END: u64 = 51;
    let cut = |_| invalid("it ends in its header");
    let mut characteristics = [0; 16];
    content.read_exact(&mut characteristics).await.map_err(cut)?;
    let offset = content.read_u64_le().await.map_err(cut)?;
    let size = content.read_u64_le().await.map_err(cut)?;
    let _index = content.read_u64_le().await.map_err(cut)?;
    let gap = offset
        .checked_sub(HEADER_END)
        .ok_or_else(|| invalid("its data begins within its header"))?;
    let mut rest = (&mut *content).take(gap);
    let skipped = tokio::io::copy(&mut rest, &mut tokio::io::sink())
        .await
        .map_err(cut)?;
    if skipped < gap {
        return Err(invalid("it ends before its data"));
    }
    Ok(size)
}

/// Reads a length-prefixed section; `None` at the end, or at zero padding.
async fn section(content: &mut (impl AsyncRead + Send + Unpin), max: u64) -> Result<Option<Vec<u8>>, Error> {
    let broken = |error: std::io::Error| invalid(format!("it breaks off: {error}"));
    let mut length = 0_u64;
    for shift in (0..).step_by(7) {
        let byte = match content.read_u8().await {
            Ok(byte) => byte,
            Err(error) if shift == 0 && error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(broken(error)),
        };
        length |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
        if shift >= 28 {
            return Err(invalid("the length of a section is out of range"));
        }
    }
    if length == 0 {
        return Ok(None);
    }
    if length > max {
        return Err(invalid(format!(
            "a section has {length} bytes, over the limit of {max}"
        )));
    }
    let mut bytes = Vec::new();
    let read = content
        .take(length)
        .read_to_end(&mut bytes)
        .await
        .map_err(broken)?;
    if (read as u64) < length {
        return Err(invalid("it breaks off within a section"));
    }
    Ok(Some(bytes))
}
