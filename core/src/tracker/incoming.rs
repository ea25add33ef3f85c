//! Copies that move here from other peers while moves are limited in bytes per second.
//!
//! Kept in memory only: after a restart, those that were under way, as many as the limits of moves permit,
//! are fetched like other pins.

use std::collections::BTreeSet;

use crate::ids::Cid;
use crate::planted::scaled;

/// Maximum number of copies that are kept; further ones are fetched like other pins.
const INCOMING_MAX: usize = 1 << 16;

/// CIDs of the copies that are not pinned here yet.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    cids: BTreeSet<Cid>,
}

impl Incoming {
    pub(super) fn add(&mut self, cid: &Cid) {
        if self.cids.len() < scaled(INCOMING_MAX) {
            self.cids.insert(cid.clone());
        }
    }

    pub(super) fn remove(&mut self, cid: &Cid) {
        self.cids.remove(cid);
    }

    pub(super) fn contains(&self, cid: &Cid) -> bool {
        self.cids.contains(cid)
    }
}
