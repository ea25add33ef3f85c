//! How many CIDs wait to be pinned for the first time.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering};

/// The number of keys in lane `Fresh`. Counting them takes as long as there are keys, and keys that are gone
/// but not yet compacted away: so they are counted once, and what batches add and take is kept account of.
#[derive(Default)]
pub(super) struct Waiting {
    /// Added less taken since the store was opened. Changed only while a batch is committed.
    change: AtomicI64,
    /// How many there were when the store was opened.
    before: OnceLock<i64>,
}

impl Waiting {
    /// Takes account of a batch.
    pub(super) fn changed(&self, by: i64) {
        self.change.fetch_add(by, Ordering::Relaxed);
    }

    /// Added less taken so far.
    pub(super) fn change(&self) -> i64 {
        self.change.load(Ordering::Relaxed)
    }

    /// How many there were at opening, once that is known.
    pub(super) fn before(&self) -> Option<i64> {
        self.before.get().copied()
    }

    /// Notes that there were `count` when `change` had been added.
    pub(super) fn counted(&self, count: i64, change: i64) {
        self.before.get_or_init(|| count - change);
    }
}
