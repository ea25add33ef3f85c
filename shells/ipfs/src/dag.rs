//! Walks over DAGs: to fetch, mark, list and export their blocks.

mod health;
mod selection;
pub(crate) mod size;
#[cfg(test)]
mod tests;
mod visited;

pub(crate) use health::{Health, HealthWalk, health, verify};
pub(crate) use selection::{ByteRange, Scope, Selection, archive};
pub(crate) use visited::{Marked, Visited};

use crate::Cid;
use crate::reader::{Reader, StreamSender, blocking};
use crate::request_budget::HeldBytes;
use crate::store::{Store, key_of};
use crate::{Error, Progress, Ref, codec};
use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt};

/// Blocks requested from other peers concurrently, per walk: 16 MiB at the default chunk size, enough to
/// saturate a fast link, and few compared with the wants that a peer accepts.
const WINDOW: usize = 64;
/// Local blocks looked up together.
const LOCAL: usize = 256;

/// Number of links at which a joint lookup stops: those of some directories.
const BELOW: usize = 1 << 15;

/// Result of looking up local blocks.
#[derive(Default)]
struct LookedUp {
    present: u64,
    missing: Vec<Cid>,
    below: Vec<Cid>,
    /// Blocks not looked up, because there were enough links already.
    rest: Vec<Cid>,
}

fn look_up(store: &Store, cids: Vec<Cid>) -> Result<LookedUp, Error> {
    let mut looked = LookedUp::default();
    let keys: Vec<Vec<u8>> = cids.iter().map(key_of).collect();
    // Before the lookup: a running collection then spares these blocks, or has removed them already.
    store.protect().touch_visited(keys.iter().map(Vec::as_slice));
    for cid in cids {
        if looked.below.len() >= BELOW {
            looked.rest.push(cid);
            continue;
        }
        if codec::is_leaf(&cid) {
            if store.has(&cid)? {
                looked.present += 1;
            } else {
                looked.missing.push(cid);
            }
            continue;
        }
        match store.get(&cid) {
            Ok(Some(data)) => {
                looked.present += 1;
                looked.below.extend(links_reversed(&cid, &data)?);
            }
            Ok(None) | Err(Error::DamagedBlock { .. }) => looked.missing.push(cid),
            Err(error) => return Err(error),
        }
    }
    Ok(looked)
}

/// Returns the targets of a block's links, in reverse order, as a stack needs them.
fn links_reversed(cid: &Cid, data: &Bytes) -> Result<Vec<Cid>, Error> {
    Ok(codec::links(cid, data)?
        .into_iter()
        .rev()
        .map(|(_, cid)| cid)
        .collect())
}

/// Fetches all blocks below a root that are not local.
pub(crate) async fn fetch(
    reader: &Reader,
    root: Cid,
    progress: &(impl Fn(Progress) + Send + Sync),
) -> Result<(), Error> {
    let mut seen = Visited::default();
    seen.insert(&root);
    let mut stack = vec![root];
    let mut held = reader.budget.holding();
    let mut missing: Vec<Cid> = Vec::new();
    let mut fetching = FuturesUnordered::new();
    let mut done = Progress::default();
    loop {
        if missing.is_empty() && fetching.len() < WINDOW && !stack.is_empty() {
            let cids = stack.split_off(stack.len().saturating_sub(LOCAL));
            let store = reader.store.clone();
            let looked = blocking(move || look_up(&store, cids)).await?;
            done.blocks += looked.present;
            missing = looked.missing;
            stack.extend(looked.rest);
            stack.extend(looked.below.into_iter().filter(|cid| seen.insert(cid)));
            held.resize(size_of_val(&stack[..]))?;
            progress(done);
        }
        while fetching.len() < WINDOW
            && let Some(cid) = missing.pop()
        {
            let session = reader.session.as_ref().ok_or(Error::NotFound(cid))?;
            fetching.push(async move { session.get(cid).await.map(|data| (cid, data)) });
        }
        if fetching.len() < WINDOW && !stack.is_empty() {
            continue;
        }
        let Some(fetched) = fetching.next().await else {
            return Ok(());
        };
        let (cid, data) = fetched?;
        done.blocks += 1;
        done.bytes += data.len() as u64;
        stack.extend(
            links_reversed(&cid, &data)?
                .into_iter()
                .filter(|cid| seen.insert(cid)),
        );
        held.resize(size_of_val(&stack[..]))?;
        progress(done);
    }
}

/// Marks every local block below a root. A missing one is an error if the DAG should be `complete`.
pub(crate) fn mark(store: &Store, root: Cid, complete: bool, marked: &mut Marked) -> Result<(), Error> {
    let mut stack = Vec::new();
    // Each inner block is pushed at most once, and a leaf never.
    let mut visit = |cid: Cid, stack: &mut Vec<Cid>| {
        marked.add(&cid);
        if !codec::is_leaf(&cid) && marked.expand(&cid) {
            stack.push(cid);
        }
    };
    visit(root, &mut stack);
    while let Some(cid) = stack.pop() {
        match store.get(&cid)? {
            Some(data) => {
                for cid in links_reversed(&cid, &data)? {
                    visit(cid, &mut stack);
                }
            }
            None if complete => return Err(Error::NotFound(cid)),
            None => {}
        }
    }
    Ok(())
}

/// Returns whether a block is below a root; `seen` saves walking parts shared with earlier roots.
pub(crate) fn reaches(store: &Store, root: &Cid, wanted: &Cid, seen: &mut Visited) -> Result<bool, Error> {
    let mut stack = Vec::new();
    if !codec::is_leaf(root) && seen.insert(root) {
        stack.push(*root);
    }
    while let Some(cid) = stack.pop() {
        let Some(data) = store.get(&cid)? else { continue };
        for (_, cid) in codec::links(&cid, &data)? {
            if cid.hash() == wanted.hash() {
                return Ok(true);
            }
            if !codec::is_leaf(&cid) && seen.insert(&cid) {
                stack.push(cid);
            }
        }
    }
    Ok(false)
}

/// Sends the links below a root, depth first.
pub(crate) async fn refs(
    reader: Reader,
    root: Cid,
    max_depth: Option<u64>,
    unique: bool,
    out: StreamSender<Ref>,
) -> Result<(), Error> {
    let max_depth = max_depth.unwrap_or(u64::MAX);
    let mut seen = Visited::default();
    seen.insert(&root);
    let mut stack = Vec::new();
    let mut held = reader.budget.holding();
    let links = async |cid: Cid, depth: u64, stack: &mut Vec<Ref>, held: &mut HeldBytes| {
        if depth < max_depth && !codec::is_leaf(&cid) {
            let links = codec::links(&cid, &reader.get(cid).await?)?;
            let below = |(name, to)| Ref {
                from: cid,
                to,
                name,
                depth: depth + 1,
            };
            let before = stack.len();
            stack.extend(links.into_iter().rev().map(below));
            held.grow(stack[before..].iter().map(weight).sum())?;
        }
        Ok::<(), Error>(())
    };
    links(root, 0, &mut stack, &mut held).await?;
    while let Some(link) = stack.pop() {
        held.shrink(weight(&link));
        if unique && !seen.insert(&link.to) {
            continue;
        }
        let (to, depth) = (link.to, link.depth);
        out.send(link).await?;
        links(to, depth, &mut stack, &mut held).await?;
    }
    Ok(())
}

/// Returns the bytes of memory that a link occupies.
fn weight(link: &Ref) -> usize {
    size_of::<Ref>() + link.name.len()
}

/// Sends every block below a root once, parents first, in the order of their links.
pub(crate) async fn blocks(reader: Reader, root: Cid, out: &StreamSender<(Cid, Bytes)>) -> Result<(), Error> {
    let mut seen = Visited::default();
    let mut held = reader.budget.holding();
    let mut stack = vec![root];
    while let Some(cid) = stack.pop() {
        if !seen.insert(&cid) {
            continue;
        }
        let data = reader.get(cid).await?;
        stack.extend(links_reversed(&cid, &data)?);
        held.resize(size_of_val(&stack[..]))?;
        out.send((cid, data)).await?;
    }
    Ok(())
}

/// Calls `found` for each local block below a root that is not in `seen` yet.
pub(crate) fn for_each_below(
    store: &Store,
    root: Cid,
    seen: &mut Visited,
    found: &mut impl FnMut(Cid) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut expanded = vec![root];
    expanded.retain(|root| !codec::is_leaf(root));
    while let Some(cid) = expanded.pop() {
        let Some(data) = store.get(&cid)? else { continue };
        for (_, cid) in codec::links(&cid, &data)? {
            if seen.insert(&cid) {
                found(cid)?;
                if !codec::is_leaf(&cid) {
                    expanded.push(cid);
                }
            }
        }
    }
    Ok(())
}
