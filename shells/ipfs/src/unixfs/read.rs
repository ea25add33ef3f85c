//! Reading files and directories block by block, within the memory budget of the request.

#[cfg(test)]
mod tests;

use super::pb::{Link, PbNode, Type, Unixfs};
use super::{ByteStream, DirEntry, Kind, Metadata, Name, Stat, hamt};
use crate::Cid;
use crate::dag::Visited;
use crate::reader::{Reader, StreamSender};
use crate::request_budget::HeldBytes;
use crate::{Error, codec};
use bytes::Bytes;
use futures::StreamExt;
use std::collections::VecDeque;
use tokio_util::task::AbortOnDropHandle;

/// Blocks of a file fetched ahead of the one being read: 4 MiB at the default chunk size.
const READ_AHEAD: usize = 16;

/// A decoded block of UnixFS.
#[derive(Debug)]
pub(crate) enum Entity {
    /// A raw block: a file, or a part of one.
    Raw(Bytes),
    /// A UnixFS node and its links.
    Node(Unixfs, Vec<Link>),
}

pub(crate) fn entity(cid: &Cid, data: Bytes) -> Result<Entity, Error> {
    match cid.codec() {
        codec::RAW => Ok(Entity::Raw(data)),
        codec::DAG_PB => {
            let node = PbNode::decode(cid, &data)?;
            let unixfs = node
                .data
                .ok_or_else(|| Error::malformed(cid, "not a unixfs node: no data"))?;
            Ok(Entity::Node(Unixfs::decode(cid, &unixfs)?, node.links))
        }
        other => Err(Error::malformed(
            cid,
            format!("not a unixfs node: codec 0x{other:x}"),
        )),
    }
}

pub(crate) fn stat(entity: &Entity) -> Stat {
    let (kind, bytes, meta, link_target) = match entity {
        Entity::Raw(data) => (Kind::File, data.len() as u64, Metadata::default(), None),
        Entity::Node(node, _) => {
            let length = node.data.as_ref().map_or(0, |data| data.len() as u64);
            match node.kind {
                Type::Directory | Type::Shard => (Kind::Directory, 0, node.meta, None),
                Type::Symlink => {
                    let target = node.data.as_deref().unwrap_or_default();
                    (Kind::Symlink, length, node.meta, Some(Name::from(target)))
                }
                Type::File | Type::Raw | Type::Metadata => {
                    (Kind::File, node.size.unwrap_or(length), node.meta, None)
                }
            }
        }
    };
    Stat {
        kind,
        bytes,
        meta,
        link_target,
    }
}

/// A part of a file that is still to be read.
struct Part {
    cid: Cid,
    /// Its length, if its parent states it.
    bytes: Option<u64>,
    fetching: Option<Fetch>,
}

/// A part that is read ahead.
enum Fetch {
    Ready(Bytes),
    Running(AbortOnDropHandle<Result<Bytes, Error>>),
}

/// Checks that a root can be read as a file.
pub(crate) fn check_file(cid: &Cid, root: &Entity) -> Result<(), Error> {
    match stat(root).kind {
        Kind::File => Ok(()),
        Kind::Directory => Err(Error::IsDirectory),
        Kind::Symlink => Err(Error::invalid(format!("{cid} is a symbolic link, not a file"))),
    }
}

/// Reading of a file from front to back, a block at a time.
pub(crate) struct Content {
    reader: Reader,
    parts: VecDeque<Part>,
    /// The first block, until it is read.
    root: Option<Bytes>,
    held: HeldBytes,
    /// Bytes before the first one that is wanted.
    skip: u64,
    /// Bytes still wanted.
    left: u64,
}

impl Content {
    /// Begins to read a file, whose root block is given, from `skip` on, at most `left` bytes.
    pub(crate) fn new(reader: Reader, (cid, root): (Cid, Bytes), skip: u64, left: u64) -> Content {
        let root_part = Part {
            cid,
            bytes: None,
            fetching: None,
        };
        Content {
            held: reader.budget.holding(),
            reader,
            parts: VecDeque::from([root_part]),
            root: Some(root),
            skip,
            left,
        }
    }

    /// Returns the rest as a stream, which ends after an error.
    pub(crate) fn stream(self) -> ByteStream {
        let pieces = futures::stream::unfold(Some(self), |content| async {
            let mut content = content?;
            match content.next().await {
                Ok(bytes) => bytes.map(|bytes| (Ok(bytes), Some(content))),
                Err(error) => Some((Err(error), None)),
            }
        });
        pieces.boxed()
    }

    /// Returns the next bytes, `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        while self.left > 0
            && let Some(part) = self.parts.pop_front()
        {
            // A file may claim that its parts are empty although they are not: then nothing is skipped.
            if let Some(bytes) = part.bytes
                && bytes <= self.skip
                && self.skip > 0
            {
                self.skip -= bytes;
                continue;
            }
            let bytes = self.read(part).await?;
            let length = bytes.len() as u64;
            let from = self.skip.min(length);
            self.skip -= from;
            let to = length.min(from.saturating_add(self.left));
            self.left -= to - from;
            if to > from {
                // Both are at most a block's length.
                return Ok(Some(bytes.slice(from as usize..to as usize)));
            }
        }
        Ok(None)
    }

    /// Reads a part, and puts the parts that it links to in front of the others. Returns its own bytes.
    async fn read(&mut self, mut part: Part) -> Result<Bytes, Error> {
        read_ahead(&self.reader, &mut self.parts, self.skip.saturating_add(self.left));
        let data = match (self.root.take(), part.fetching.take()) {
            (Some(root), _) => root,
            (None, Some(Fetch::Ready(data))) => data,
            (None, Some(Fetch::Running(fetching))) => fetching.await.map_err(|_| Error::Closed)??,
            (None, None) => self.reader.get(part.cid).await?,
        };
        let (node, links) = match entity(&part.cid, data)? {
            Entity::Raw(bytes) => return Ok(bytes),
            Entity::Node(node, links) => (node, links),
        };
        // Sizes that do not match the links would skip the wrong ones.
        let sized = node.block_sizes.len() == links.len();
        for (at, link) in links.iter().enumerate().rev() {
            let bytes = sized.then(|| node.block_sizes[at]);
            self.parts.push_front(Part {
                cid: link.cid,
                bytes,
                fetching: None,
            });
        }
        let held = self.parts.len().saturating_mul(size_of::<Part>());
        self.held.resize(held)?;
        Ok(node.data.unwrap_or_default())
    }
}

/// Starts fetching the next parts, as far as they will be needed.
fn read_ahead(reader: &Reader, parts: &mut VecDeque<Part>, mut wanted: u64) {
    for part in parts.iter_mut().take(READ_AHEAD) {
        if wanted == 0 {
            return;
        }
        wanted = wanted.saturating_sub(part.bytes.unwrap_or(0));
        if part.fetching.is_none() {
            let (reader, cid) = (reader.clone(), part.cid);
            part.fetching = Some(match reader.store.get_hot(&cid) {
                Some(data) => Fetch::Ready(data),
                None => {
                    let fetch = tokio::spawn(async move { reader.get(cid).await });
                    Fetch::Running(AbortOnDropHandle::new(fetch))
                }
            });
        }
    }
}

/// Sends the links of a directory; those of a sharded one in the order of its shards. A file has none.
pub(crate) async fn list(reader: &Reader, root: Cid, out: &StreamSender<Link>) -> Result<(), Error> {
    // A repeated shard would list the same names again, and a few small ones could do so without end.
    let mut seen = Visited::default();
    let mut held = reader.budget.holding();
    let mut shards = vec![(root, None, 0)];
    while let Some((cid, expected, depth)) = shards.pop() {
        if !seen.insert(&cid) {
            continue;
        }
        let (node, links) = match entity(&cid, reader.get(cid).await?)? {
            Entity::Raw(_) => return Ok(()),
            Entity::Node(node, links) => (node, links),
        };
        held.resize(links.iter().map(weight).sum())?;
        match (node.kind, expected) {
            (Type::Directory, None) => {
                for link in links {
                    out.send(link).await?;
                }
            }
            (Type::Shard, _) => {
                let fanout = shard_fanout(&cid, &node)?;
                if expected.is_some_and(|expected| expected != fanout) {
                    return Err(Error::malformed(&cid, "its parent shard has another fanout"));
                }
                if links.len() > fanout || hamt::slot(0, depth, fanout).is_none() {
                    return Err(Error::malformed(
                        &cid,
                        "a shard with more links or deeper than its fanout allows",
                    ));
                }
                let width = hamt::prefix_width(fanout);
                // At most one fanout's worth of them at each of a few levels.
                let mut below = Vec::new();
                for link in links {
                    let name = shard_name(&cid, &link, width)?;
                    if name.is_empty() {
                        below.push((link.cid, Some(fanout), depth + 1));
                    } else {
                        let name = Name::from(name);
                        out.send(Link { name, ..link }).await?;
                    }
                }
                shards.extend(below.into_iter().rev());
            }
            (Type::File | Type::Raw | Type::Symlink | Type::Metadata, None) => return Ok(()),
            (_, Some(_)) => {
                return Err(Error::malformed(
                    &cid,
                    "a part of a sharded directory is not a shard",
                ));
            }
        }
    }
    Ok(())
}

/// Returns the bytes of memory that a link occupies.
fn weight(link: &Link) -> usize {
    size_of::<Link>() + link.name.as_bytes().len()
}

/// Sends a directory's entries; fetches each to determine its kind if `resolve`.
pub(crate) async fn entries(
    reader: &Reader,
    links: &mut (impl futures::Stream<Item = Result<Link, Error>> + Unpin),
    resolve: bool,
    out: &StreamSender<DirEntry>,
) -> Result<(), Error> {
    while let Some(link) = links.next().await {
        let Link { cid, name, size } = link?;
        let target = match resolve {
            false => None,
            // Entries that are not UnixFS are listed all the same.
            true => entity(&cid, reader.get(cid).await?).ok().as_ref().map(stat),
        };
        out.send(DirEntry {
            name,
            cid,
            size,
            target,
        })
        .await?;
    }
    Ok(())
}

fn shard_fanout(cid: &Cid, node: &Unixfs) -> Result<usize, Error> {
    let fanout = node
        .fanout
        .and_then(|fanout| usize::try_from(fanout).ok())
        .unwrap_or(0);
    if !fanout.is_power_of_two() || !(8..=1024).contains(&fanout) {
        return Err(Error::malformed(
            cid,
            format!("fanout {fanout} is not a power of two from 8 to 1024"),
        ));
    }
    if node.hash_type != Some(hamt::MURMUR3) {
        return Err(Error::malformed(
            cid,
            "the names of this sharded directory are not hashed by murmur3",
        ));
    }
    Ok(fanout)
}

fn shard_name<'a>(cid: &Cid, link: &'a Link, width: usize) -> Result<&'a [u8], Error> {
    link.name
        .as_bytes()
        .get(width..)
        .ok_or_else(|| Error::malformed(cid, "a shard's link has a malformed name"))
}

/// Returns the shards that a shard links to, in order.
pub(crate) fn shards_below(cid: &Cid, node: &Unixfs, links: Vec<Link>) -> Result<Vec<Cid>, Error> {
    let width = hamt::prefix_width(shard_fanout(cid, node)?);
    let mut shards = Vec::new();
    for link in links {
        if shard_name(cid, &link, width)?.is_empty() {
            shards.push(link.cid);
        }
    }
    Ok(shards)
}

/// Finds the entry with this name in a directory whose root block is given; records the shards on the way.
pub(crate) async fn find(
    reader: &Reader,
    cid: Cid,
    node: Unixfs,
    links: Vec<Link>,
    name: &Name,
    visited: &mut Vec<Cid>,
) -> Result<Cid, Error> {
    let missing = || Error::NoLink {
        name: name.to_string(),
        cid,
    };
    if node.kind != Type::Shard {
        return links
            .into_iter()
            .find(|link| link.name.as_bytes() == name.as_bytes())
            .map(|link| link.cid)
            .ok_or_else(missing);
    }
    let hash = hamt::murmur3(name.as_bytes());
    let (mut shard, mut node, mut links) = (cid, node, links);
    for depth in 0.. {
        let fanout = shard_fanout(&shard, &node)?;
        let width = hamt::prefix_width(fanout);
        let slot = hamt::slot(hash, depth, fanout).ok_or_else(missing)?;
        let prefix = format!("{slot:0width$X}");
        let link = links
            .iter()
            .find(|link| link.name.as_bytes().starts_with(prefix.as_bytes()))
            .ok_or_else(missing)?;
        let rest = shard_name(&shard, link, width)?;
        if !rest.is_empty() {
            return if rest == name.as_bytes() {
                Ok(link.cid)
            } else {
                Err(missing())
            };
        }
        shard = link.cid;
        visited.push(shard);
        match entity(&shard, reader.get(shard).await?)? {
            Entity::Node(next, below) if next.kind == Type::Shard => (node, links) = (next, below),
            Entity::Node(..) | Entity::Raw(_) => {
                return Err(Error::malformed(
                    &shard,
                    "a part of a sharded directory is not a shard",
                ));
            }
        }
    }
    Err(missing())
}
