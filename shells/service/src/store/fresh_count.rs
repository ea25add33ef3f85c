//! Count of the CIDs that wait for their first attempt to be pinned.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering};

/// Number of keys in lane `Fresh`. Counting takes time for every key, and for every tombstone not yet
/// compacted away: so they are counted once, and batches update the count.
#[derive(Default)]
pub(super) struct FreshCount {
    /// Keys added minus keys removed since the store was opened. Changed only while a batch is committed.
    change: AtomicI64,
    /// Number of keys when the store was opened.
    before: OnceLock<i64>,
}

impl FreshCount {
    /// Adds a batch's change.
    pub(super) fn changed(&self, by: i64) {
        self.change.fetch_add(by, Ordering::Relaxed);
    }

    /// Keys added minus keys removed since the store was opened.
    pub(super) fn change(&self) -> i64 {
        self.change.load(Ordering::Relaxed)
    }

    /// Number of keys at opening, once it is known.
    pub(super) fn before(&self) -> Option<i64> {
        self.before.get().copied()
    }

    /// Stores that there were `count` keys when the change was `change`.
    pub(super) fn counted(&self, count: i64, change: i64) {
        self.before.get_or_init(|| count - change);
    }
}
