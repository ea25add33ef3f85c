//! Walks that check all blocks below a root, without stopping at damaged or missing ones.

use super::Visited;
use crate::Cid;
use crate::store::{Store, key_of};
use crate::{Block, Error, PinMode, codec, hash};

/// State of the blocks below a root, according to the index and recorded damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Health {
    Whole,
    Broken,
}

/// Checks for damaged and missing blocks below a root. Reads only inner blocks; leaves are looked up.
pub(crate) fn health(store: &Store, root: Cid) -> Result<Health, Error> {
    let mut walk = HealthWalk::new(root);
    loop {
        if let Some(health) = walk.advance(store, usize::MAX)? {
            return Ok(health);
        }
    }
}

/// A check of the blocks below a root that can be interrupted.
#[derive(Debug)]
pub(crate) struct HealthWalk {
    /// Inner blocks that were visited. Leaves are looked up once for each link: there are a hundred times as
    /// many of them, and a lookup is cheap.
    seen: Visited,
    stack: Vec<Cid>,
}

impl HealthWalk {
    pub(crate) fn new(root: Cid) -> Self {
        let mut seen = Visited::default();
        seen.insert(&root);
        Self {
            seen,
            stack: vec![root],
        }
    }

    /// Checks about this many more blocks; `None` if that does not decide.
    pub(crate) fn advance(&mut self, store: &Store, blocks: usize) -> Result<Option<Health>, Error> {
        let mut checked = 0;
        while let Some(cid) = self.stack.pop() {
            if checked >= blocks {
                self.stack.push(cid);
                return Ok(None);
            }
            checked += 1;
            if codec::is_leaf(&cid) {
                if !store.has(&cid)? {
                    return Ok(Some(Health::Broken));
                }
                continue;
            }
            let data = match store.get(&cid) {
                Ok(Some(data)) => data,
                Ok(None) | Err(Error::DamagedBlock { .. }) => return Ok(Some(Health::Broken)),
                Err(error) => return Err(error),
            };
            for below in super::links_reversed(&cid, &data)? {
                if !codec::is_leaf(&below) {
                    if self.seen.insert(&below) {
                        self.stack.push(below);
                    }
                    continue;
                }
                checked += 1;
                if !store.has(&below)? {
                    return Ok(Some(Health::Broken));
                }
            }
        }
        Ok(Some(Health::Whole))
    }
}

/// Reads and hashes every block of a pin; returns the number of damaged or missing ones. The damaged ones are
/// recorded in the store.
pub(crate) fn verify(store: &Store, root: Cid, mode: PinMode) -> Result<u64, Error> {
    let mut seen = Visited::default();
    seen.insert(&root);
    let mut stack = vec![root];
    let mut bad = 0;
    while let Some(cid) = stack.pop() {
        let data = match store.get(&cid) {
            Ok(Some(data)) => data,
            Ok(None) | Err(Error::DamagedBlock { .. }) => {
                bad += 1;
                continue;
            }
            Err(error) => return Err(error),
        };
        let block = Block { cid, data };
        if hash::verify(&block).is_err() {
            store.damage().record(&key_of(&cid));
            bad += 1;
            continue;
        }
        if mode == PinMode::Recursive {
            let below = super::links_reversed(&cid, &block.data)?;
            stack.extend(below.into_iter().filter(|cid| seen.insert(cid)));
        }
    }
    Ok(bad)
}
