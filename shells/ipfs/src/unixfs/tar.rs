//! Tar archives of files and directories (ustar, with pax records for values that ustar cannot represent).

use super::pb::Link;
use super::read::{self, Content};
use super::{Kind, Name, Stat};
use crate::Cid;
use crate::Error;
use crate::reader::{Reader, StreamSender, stream_from_task};
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};

const RECORD: usize = 512;
/// Maximum depth of directories: as many one-letter names make the longest path that systems support, and
/// each directory holds a block while its entries are sent.
const DEPTH_MAX: usize = 2048;
/// Maximum size in a header's octal field, in bytes.
const SIZE_MAX: u64 = 0o77_777_777_777;

/// Sends the archive of a tree whose entries are below `name`.
pub(crate) async fn archive(
    reader: Reader,
    root: Cid,
    name: Name,
    out: StreamSender<Bytes>,
) -> Result<(), Error> {
    let mut path = name.as_bytes().to_vec();
    let mut folders: Vec<Folder> = Vec::new();
    let mut next = Some(root);
    loop {
        if let Some(cid) = next.take()
            && let Some(folder) = entry(&reader, cid, &path, &out).await?
        {
            if folders.len() >= DEPTH_MAX {
                return Err(Error::malformed(
                    &cid,
                    format!("a directory below {DEPTH_MAX} others"),
                ));
            }
            folders.push(folder);
        }
        let Some(folder) = folders.last_mut() else { break };
        path.truncate(folder.path_length);
        match folder.links.next().await {
            Some(link) => {
                let link = link?;
                check_name(&folder.cid, &link.name)?;
                path.push(b'/');
                path.extend_from_slice(link.name.as_bytes());
                next = Some(link.cid);
            }
            None => drop(folders.pop()),
        }
    }
    out.send(Bytes::from_static(&[0; 2 * RECORD])).await
}

/// A directory being sent. Its names are streamed, not held.
struct Folder {
    cid: Cid,
    path_length: usize,
    links: BoxStream<'static, Result<Link, Error>>,
}

/// Sends an entry, and the content of a file; returns a directory, whose entries are still to be sent.
async fn entry(
    reader: &Reader,
    cid: Cid,
    path: &[u8],
    out: &StreamSender<Bytes>,
) -> Result<Option<Folder>, Error> {
    let root = reader.get(cid).await?;
    let entity = read::entity(&cid, root.clone())?;
    let stat = read::stat(&entity);
    out.send(header(path, &stat)).await?;
    match stat.kind {
        Kind::Symlink => Ok(None),
        Kind::File => file(reader, (cid, root), stat.bytes, out).await.map(|()| None),
        Kind::Directory => {
            let listing = reader.clone();
            Ok(Some(Folder {
                cid,
                path_length: path.len(),
                links: stream_from_task(|out| async move { read::list(&listing, cid, &out).await }),
            }))
        }
    }
}

/// Refuses names that would lead out of the archive where it is unpacked.
fn check_name(cid: &Cid, name: &Name) -> Result<(), Error> {
    let bytes = name.as_bytes();
    if matches!(bytes, b"" | b"." | b"..") || bytes.contains(&b'/') || bytes.contains(&0) {
        return Err(Error::malformed(
            cid,
            format!("directory entry {name:?} would leave the archive"),
        ));
    }
    Ok(())
}

/// Sends the content of a file, whose root block is given, and pads it.
async fn file(
    reader: &Reader,
    root: (Cid, Bytes),
    size: u64,
    out: &StreamSender<Bytes>,
) -> Result<(), Error> {
    let cid = root.0;
    let mut content = Content::new(reader.clone(), root, 0, u64::MAX).stream();
    let mut sent = 0u64;
    while let Some(bytes) = content.next().await {
        let bytes = bytes?;
        sent += bytes.len() as u64;
        if sent > size {
            break;
        }
        out.send(bytes).await?;
    }
    if sent != size {
        return Err(Error::malformed(
            &cid,
            format!("the file claims {size} bytes but has another length"),
        ));
    }
    let padding = size.next_multiple_of(RECORD as u64) - size;
    out.send(Bytes::from(vec![0; padding as usize])).await
}

fn header(name: &[u8], stat: &Stat) -> Bytes {
    let (mode, size, kind) = match stat.kind {
        Kind::File => (0o644, stat.bytes, b'0'),
        Kind::Directory => (0o755, 0, b'5'),
        Kind::Symlink => (0o777, 0, b'2'),
    };
    let mode = stat.meta.mode.map_or(mode, |mode| mode & 0o7777);
    let target = stat.link_target.as_ref().map_or(&b""[..], Name::as_bytes);
    let mut pax = Vec::new();
    if name.len() > 100 {
        pax.extend(record("path", name));
    }
    if target.len() > 100 {
        pax.extend(record("linkpath", target));
    }
    if size > SIZE_MAX {
        pax.extend(record("size", size.to_string().as_bytes()));
    }
    if let Some((seconds, nanos)) = stat.meta.mtime
        && nanos > 0
        && seconds >= 0
    {
        pax.extend(record("mtime", format!("{seconds}.{nanos:09}").as_bytes()));
    }
    let seconds = stat
        .meta
        .mtime
        .and_then(|(seconds, _)| u64::try_from(seconds).ok())
        .unwrap_or(0);
    let mut out = Vec::new();
    if !pax.is_empty() {
        let length = pax.len();
        out.extend(block(b"pax", 0o644, length as u64, seconds, b'x', b""));
        out.extend(pax);
        out.resize(RECORD + length.next_multiple_of(RECORD), 0);
    }
    out.extend(block(name, mode, size.min(SIZE_MAX), seconds, kind, target));
    out.into()
}

/// Encodes one pax record, whose length counts its own digits.
fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}

fn block(name: &[u8], mode: u32, size: u64, seconds: u64, kind: u8, target: &[u8]) -> [u8; RECORD] {
    let mut block = [0; RECORD];
    let mut put = |at: usize, length: usize, bytes: &[u8]| {
        let length = bytes.len().min(length);
        block[at..at + length].copy_from_slice(&bytes[..length]);
    };
    put(0, 100, name);
    put(100, 7, format!("{mode:07o}").as_bytes());
    put(108, 7, b"0000000");
    put(116, 7, b"0000000");
    put(124, 11, format!("{size:011o}").as_bytes());
    put(136, 11, format!("{:011o}", seconds.min(SIZE_MAX)).as_bytes());
    put(148, 8, b"        ");
    put(156, 1, &[kind]);
    put(157, 100, target);
    put(257, 8, b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}
