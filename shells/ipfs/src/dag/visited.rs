//! Sets of CIDs that a walk has met.
//!
//! CIDs come from strangers, and an identity CID has any bytes its author likes for a digest. So no part of a
//! CID may stand for the whole, and no hash whose collisions can be computed: a colliding CID would count as
//! visited, and garbage collection would delete what only that one links to.

use crate::Cid;
use crate::store::{IDENTITY, fingerprint, key_of};
use siphasher::sip128::{Hasher128, SipHasher13};
use std::collections::HashSet;
use std::hash::Hasher;
use std::sync::LazyLock;

/// The secret of this process. Nothing hashed with it leaves the process.
static SECRET: LazyLock<SipHasher13> = LazyLock::new(|| SipHasher13::new_with_key(&rand::random()));

/// Keyed 128-bit hash of a whole CID: 16 bytes in place of up to 100, because a DAG may have millions.
fn keyed_hash(cid: &Cid) -> u128 {
    let mut hasher = *SECRET;
    hasher.write_u64(cid.version().into());
    hasher.write_u64(cid.codec());
    hasher.write_u64(cid.hash().code());
    hasher.write(cid.hash().digest());
    hasher.finish128().as_u128()
}

/// CIDs that were met, each told apart from all others by version, codec and multihash.
#[derive(Debug, Default)]
pub(crate) struct Visited(HashSet<u128>);

impl Visited {
    /// Adds a CID; returns `false` if it was there already.
    pub(crate) fn insert(&mut self, cid: &Cid) -> bool {
        self.0.insert(keyed_hash(cid))
    }
}

/// Blocks that a garbage collection keeps.
#[derive(Debug, Default)]
pub(crate) struct Marked {
    keys: HashSet<u64>,
    /// Inner blocks whose links are marked too; of the others only the block itself is.
    expanded: Visited,
}

impl Marked {
    pub(crate) fn add(&mut self, cid: &Cid) {
        // Those are not stored.
        if cid.hash().code() != IDENTITY {
            self.keys.insert(fingerprint(&key_of(cid)));
        }
    }

    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        self.keys.contains(&fingerprint(key))
    }

    /// Notes that the links of a block are marked; returns `false` if they were already.
    pub(super) fn expand(&mut self, cid: &Cid) -> bool {
        self.expanded.insert(cid)
    }
}
