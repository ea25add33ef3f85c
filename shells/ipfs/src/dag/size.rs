//! Sizes of DAGs: as their roots state them, and what is missing of them.

use super::Visited;
use crate::reader::{Reader, blocking};
use crate::unixfs::pb::PbNode;
use crate::{Cid, Error, codec};
use bytes::Bytes;

/// Subtrees up to this size are counted as a whole, without looking into them: the largest block.
const SUBTREE_BYTES: u64 = 2 << 20;

/// Returns the size that a root states of its DAG in bytes; 0 if its codec states none. Blocks that repeat
/// count each time.
pub(crate) fn stated(root: &Cid, data: &Bytes) -> Result<u64, Error> {
    match root.codec() {
        codec::DAG_PB | codec::RAW => codec::cumulative_size(root, data),
        _ => Ok(0),
    }
}

/// Returns how many bytes of a DAG are not stored, as its inner blocks state it: these are fetched; blocks
/// and subtrees that repeat count once. Stops above `enough`. Calls `alive` at each block.
pub(crate) async fn missing(
    reader: &Reader,
    root: Cid,
    enough: u64,
    alive: &(impl Fn() + Send + Sync),
) -> Result<u64, Error> {
    let mut seen = Visited::default();
    seen.insert(&root);
    let mut held = reader.budget.holding();
    let mut stack = vec![root];
    let mut missing: u64 = 0;
    while let Some(cid) = stack.pop() {
        let data = reader.get(cid).await?;
        alive();
        if codec::is_leaf(&cid) || cid.codec() != codec::DAG_PB {
            continue;
        }
        let mut links = PbNode::decode(&cid, &data)?.links;
        links.retain(|link| seen.insert(&link.cid));
        let is_large = |size: u64| size > SUBTREE_BYTES;
        stack.extend(
            links
                .iter()
                .filter(|link| is_large(link.size))
                .map(|link| link.cid),
        );
        links.retain(|link| !is_large(link.size));
        held.resize(size_of_val(&stack[..]))?;
        let store = reader.store.clone();
        let counted = blocking(move || {
            let mut sum: u64 = 0;
            for link in links {
                if store.size_of(&link.cid)?.is_none() {
                    sum = sum.saturating_add(link.size);
                }
            }
            Ok(sum)
        });
        missing = missing.saturating_add(counted.await?);
        if missing > enough {
            break;
        }
    }
    Ok(missing)
}
