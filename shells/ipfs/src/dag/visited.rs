//! Sets of the CIDs that a walk has visited.
//!
//! CIDs come from strangers, and the digest of an identity CID is chosen freely. So neither a part of a CID
//! nor a hash with computable collisions may represent it: a colliding CID would count as visited, and
//! garbage collection would delete blocks that only that one links to.

use crate::Cid;
use crate::store::{IDENTITY, fingerprint, key_of};
use siphasher::sip128::{Hasher128, SipHasher13};
use std::collections::HashSet;
use std::hash::Hasher;
use std::sync::LazyLock;

/// Random key of this process. No hash made with it leaves the process.
static SECRET: LazyLock<SipHasher13> = LazyLock::new(|| SipHasher13::new_with_key(&rand::random()));

/// Computes a keyed 128-bit hash of a whole CID: 16 bytes instead of up to 100, because a DAG may have
/// millions.
fn keyed_hash(cid: &Cid) -> u128 {
    let mut hasher = *SECRET;
    hasher.write_u64(cid.version().into());
    hasher.write_u64(cid.codec());
    hasher.write_u64(cid.hash().code());
    hasher.write(cid.hash().digest());
    hasher.finish128().as_u128()
}

/// Visited CIDs, distinguished by version, codec and multihash.
#[derive(Debug, Default)]
pub(crate) struct Visited(HashSet<u128>);

impl Visited {
    /// Adds a CID; returns `false` if it was present already.
    pub(crate) fn insert(&mut self, cid: &Cid) -> bool {
        self.0.insert(keyed_hash(cid))
    }
}

/// Blocks that a garbage collection keeps.
#[derive(Debug, Default)]
pub(crate) struct Marked {
    keys: HashSet<u64>,
    /// Inner blocks whose links are marked too; of other blocks only the block itself is marked.
    expanded: Visited,
}

impl Marked {
    pub(crate) fn add(&mut self, cid: &Cid) {
        // Identity CIDs are not stored.
        if cid.hash().code() != IDENTITY {
            self.keys.insert(fingerprint(&key_of(cid)));
        }
    }

    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        self.keys.contains(&fingerprint(key))
    }

    /// Records that the links of a block are marked; returns `false` if they were already.
    pub(super) fn expand(&mut self, cid: &Cid) -> bool {
        self.expanded.insert(cid)
    }
}
