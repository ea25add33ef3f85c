//! CAR files, versions 1 and 2: a header with the roots, then blocks.

use cluster_ipfs::{Block, Cid};
use ipld_core::ipld::Ipld;
use tokio::io::{AsyncRead, AsyncReadExt, BufReader};
use tokio::sync::mpsc;

/// The largest header: a list of roots, of which one is allowed.
const HEADER_MAX: u64 = 64 << 10;
/// The largest section: a CID and a block, which may have 2 MiB.
const SECTION_MAX: u64 = (2 << 20) + 256;
/// A file is read through a buffer of this size.
const BUFFER: usize = 256 << 10;

/// Why a CAR file was not taken in.
#[derive(Debug)]
pub(super) enum Error {
    /// It is not well-formed, or not what is asked for.
    Invalid(String),
    /// Nobody takes the blocks any more.
    Closed,
}

fn invalid(why: impl Into<String>) -> Error {
    Error::Invalid(format!("the CAR file is not valid: {}", why.into()))
}

/// Gives the blocks of a CAR file to `out`; returns its one root and the bytes of all blocks. Whether blocks
/// hash to their CIDs is for whoever stores them to check.
pub(super) async fn read(
    content: impl AsyncRead + Send + Unpin,
    out: &mpsc::Sender<Block>,
) -> Result<(Cid, u64), Error> {
    let mut content = BufReader::with_capacity(BUFFER, content);
    let header = section(&mut content, HEADER_MAX)
        .await?
        .ok_or_else(|| invalid("it is empty"))?;
    match header_of(&header)? {
        (1, roots) => blocks(one(roots)?, content, out).await,
        (2, _) => {
            let size = data_of_v2(&mut content).await?;
            let mut data = content.take(size);
            let header = section(&mut data, HEADER_MAX)
                .await?
                .ok_or_else(|| invalid("it is empty"))?;
            match header_of(&header)? {
                (1, roots) => blocks(one(roots)?, data, out).await,
                (version, _) => Err(invalid(format!("version {version} within version 2"))),
            }
        }
        (version, _) => Err(invalid(format!(
            "its version is {version}, where 1 and 2 are known"
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

/// Exactly one root can be pinned.
fn one(roots: Vec<Cid>) -> Result<Cid, Error> {
    match roots.as_slice() {
        [root] => Ok(*root),
        roots => Err(invalid(format!(
            "it has {} roots, where exactly one is needed",
            roots.len()
        ))),
    }
}

fn header_of(bytes: &[u8]) -> Result<(i128, Vec<Cid>), Error> {
    let header: Ipld = serde_ipld_dagcbor::from_slice(bytes)
        .map_err(|error| invalid(format!("its header cannot be read: {error}")))?;
    let Ipld::Map(fields) = header else {
        return Err(invalid("its header is no map"));
    };
    let Some(Ipld::Integer(version)) = fields.get("version") else {
        return Err(invalid("its header names no version"));
    };
    let Some(Ipld::List(roots)) = fields.get("roots") else {
        return Ok((*version, Vec::new()));
    };
    let roots = roots.iter().filter_map(|root| {
        if let Ipld::Link(cid) = root {
            Cid::try_from(cid.to_bytes()).ok()
        } else {
            None
        }
    });
    Ok((*version, roots.collect()))
}

/// Skips to the data of a version 2 file, and says how long it is.
async fn data_of_v2(content: &mut (impl AsyncRead + Send + Unpin)) -> Result<u64, Error> {
    /// Where the header of version 2 ends: its pragma has 11 bytes, the header 40.
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

/// One piece with its length before it; none at the end. Zeros at the end are padding.
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
            "a section has {length} bytes, where {max} are the most"
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
