//! Archives of a part of a DAG: the blocks of a path, then those of the entity at its end
//! ([IPIP-402](https://specs.ipfs.tech/ipips/ipip-0402/)).

use super::{Visited, links_reversed};
use crate::reader::{Reader, StreamSender};
use crate::store::IDENTITY;
use crate::unixfs::pb::{Link, Type, Unixfs};
use crate::unixfs::read::{self, Entity};
use crate::{Cid, Error, car, codec};
use bytes::Bytes;

/// Extent of the blocks below the end of the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Only the block itself.
    Block,
    /// Blocks of a file, or of the listing of a directory.
    Entity,
    /// The whole DAG.
    All,
}

/// Bytes of a file, from the first to the last; a negative one counts from the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ByteRange {
    pub(crate) from: i64,
    /// `None`: the end of the file.
    pub(crate) to: Option<i64>,
}

/// Selection of blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Selection {
    pub(crate) scope: Scope,
    /// Limits an entity to the blocks with these bytes, if it is a file.
    pub(crate) bytes: Option<ByteRange>,
    /// Sends blocks that occur several times each time.
    pub(crate) duplicates: bool,
}

/// Sends the archive: its header, the blocks on the path, the selected blocks from `end` on, depth first.
pub(crate) async fn archive(
    reader: Reader,
    path: Vec<Cid>,
    end: Cid,
    selection: Selection,
    out: StreamSender<Bytes>,
) -> Result<(), Error> {
    car::write_header(end, &out).await?;
    let mut blocks = Blocks {
        reader,
        sent: (!selection.duplicates).then(Visited::default),
        out,
    };
    for cid in path {
        blocks.send(cid).await?;
    }
    match selection.scope {
        Scope::Block => blocks.send(end).await.map(drop),
        Scope::All => blocks.send_all(end).await,
        Scope::Entity => blocks.send_entity(end, selection.bytes).await,
    }
}

struct Blocks {
    reader: Reader,
    /// Blocks sent so far, if none is sent twice.
    sent: Option<Visited>,
    out: StreamSender<Bytes>,
}

impl Blocks {
    /// Sends a block, unless its CID holds it or it was sent, and returns it.
    async fn send(&mut self, cid: Cid) -> Result<Bytes, Error> {
        let data = self.reader.get(cid).await?;
        let is_new = self.sent.as_mut().is_none_or(|sent| sent.insert(&cid));
        if is_new && cid.hash().code() != IDENTITY {
            car::write_block(cid, &data, &self.out).await?;
        }
        Ok(data)
    }

    async fn send_all(&mut self, root: Cid) -> Result<(), Error> {
        let mut held = self.reader.budget.holding();
        // Those on the path were sent, but not followed.
        let mut followed = self.sent.is_some().then(Visited::default);
        let mut stack = vec![root];
        while let Some(cid) = stack.pop() {
            if followed.as_mut().is_some_and(|followed| !followed.insert(&cid)) {
                continue;
            }
            let data = self.send(cid).await?;
            if !codec::is_leaf(&cid) {
                stack.extend(links_reversed(&cid, &data)?);
            }
            held.resize(size_of_val(&stack[..]))?;
        }
        Ok(())
    }

    async fn send_entity(&mut self, root: Cid, bytes: Option<ByteRange>) -> Result<(), Error> {
        let data = self.send(root).await?;
        if root.codec() != codec::DAG_PB {
            return Ok(());
        }
        // Other nodes than those of UnixFS are one block.
        let Ok(Entity::Node(node, links)) = read::entity(&root, data) else {
            return Ok(());
        };
        match node.kind {
            Type::Directory | Type::Symlink | Type::Metadata => Ok(()),
            Type::Shard => self.send_shards(&root, &node, links).await,
            Type::File | Type::Raw => {
                let size = node.size.unwrap_or(0);
                let range = absolute(bytes, size);
                self.send_file(node, links, range).await
            }
        }
    }

    async fn send_shards(&mut self, root: &Cid, node: &Unixfs, links: Vec<Link>) -> Result<(), Error> {
        let mut held = self.reader.budget.holding();
        let mut stack = read::shards_below(root, node, links)?;
        stack.reverse();
        // A few shards that link to each other would never end.
        let mut seen = Visited::default();
        while let Some(cid) = stack.pop() {
            if !seen.insert(&cid) {
                continue;
            }
            let data = self.send(cid).await?;
            let Entity::Node(node, links) = read::entity(&cid, data)? else {
                return Err(Error::malformed(
                    &cid,
                    "a part of a sharded directory is not a shard",
                ));
            };
            stack.extend(read::shards_below(&cid, &node, links)?.into_iter().rev());
            held.resize(size_of_val(&stack[..]))?;
        }
        Ok(())
    }

    /// Sends the blocks of a file below its root that contain bytes of the range.
    async fn send_file(&mut self, root: Unixfs, links: Vec<Link>, range: (u64, u64)) -> Result<(), Error> {
        let mut held = self.reader.budget.holding();
        let mut stack = Vec::new();
        push_parts(&mut stack, &root, links, 0);
        while let Some(Part { cid, start, size }) = stack.pop() {
            let (from, end) = range;
            if start >= end || size.is_some_and(|size| start.saturating_add(size) <= from) {
                continue;
            }
            let data = self.send(cid).await?;
            if let Entity::Node(node, links) = read::entity(&cid, data)? {
                push_parts(&mut stack, &node, links, start);
                held.resize(size_of_val(&stack[..]))?;
            }
        }
        Ok(())
    }
}

/// A part of a file that is still to be sent.
struct Part {
    cid: Cid,
    /// Offset in the file.
    start: u64,
    /// Its length, if its parent states it.
    size: Option<u64>,
}

fn push_parts(stack: &mut Vec<Part>, node: &Unixfs, links: Vec<Link>, start: u64) {
    let own = node.data.as_ref().map_or(0, |data| data.len() as u64);
    let mut start = start.saturating_add(own);
    let sized = node.block_sizes.len() == links.len();
    let before = stack.len();
    for (at, link) in links.into_iter().enumerate() {
        let size = sized.then(|| node.block_sizes[at]);
        let cid = link.cid;
        stack.push(Part { cid, start, size });
        start = start.saturating_add(size.unwrap_or(0));
    }
    stack[before..].reverse();
}

/// Returns the first byte of a range and the one after its last, in a file of this size.
fn absolute(range: Option<ByteRange>, size: u64) -> (u64, u64) {
    let Some(ByteRange { from, to }) = range else {
        return (0, u64::MAX);
    };
    let position = |at: i64| match u64::try_from(at) {
        Ok(at) => at,
        Err(_) => size.saturating_sub(at.unsigned_abs()),
    };
    let end = to.map_or(u64::MAX, |to| match to < 0 && to.unsigned_abs() > size {
        true => 0,
        false => position(to).saturating_add(1),
    });
    (position(from), end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_count_from_either_end() {
        let range = |from, to| absolute(Some(ByteRange { from, to }), 1026);
        assert_eq!(absolute(None, 1026), (0, u64::MAX));
        assert_eq!(range(512, None), (512, u64::MAX));
        assert_eq!(range(512, Some(1023)), (512, 1024));
        assert_eq!(range(512, Some(-256)), (512, 771));
        assert_eq!(range(-5, None), (1021, u64::MAX));
        assert_eq!(range(-9999, Some(-3)), (0, 1024));
        assert_eq!(range(0, Some(0)), (0, 1));
        assert_eq!(range(0, Some(-9999)), (0, 0));
    }
}
