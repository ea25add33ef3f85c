//! Record of blocks that were found damaged on disk and not replaced yet.

use super::lock;
use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::Notify;

/// Maximum number of recorded blocks, 100 bytes each; a disk with more is beyond repair block by block.
/// Further ones are noticed at their next read.
const DAMAGED_MAX: usize = 1 << 16;

/// Keys of damaged blocks. Readers treat these blocks as missing, and a `put` of a copy replaces them.
#[derive(Debug, Default)]
pub(crate) struct Damage {
    keys: Mutex<HashSet<Vec<u8>>>,
    /// True if there is any damage; avoids the lock in the usual case.
    any: AtomicBool,
    changed: Notify,
    /// As `changed`, for the task that saves the keys.
    unsaved: Notify,
    /// Number of blocks that were replaced since the start.
    replaced: AtomicU64,
}

impl Damage {
    /// Records that the bytes read of a block are not those written.
    pub(crate) fn record(&self, key: &[u8]) {
        self.record_if(key, || true);
    }

    /// Records damage if `is_current`, evaluated under the lock: the block may have been replaced since it
    /// was read, and the record would never be cleared.
    pub(super) fn record_if(&self, key: &[u8], is_current: impl FnOnce() -> bool) {
        let mut keys = lock(&self.keys);
        if is_current() && keys.len() < DAMAGED_MAX && keys.insert(key.to_vec()) {
            self.any.store(true, Ordering::Release);
            self.changed.notify_one();
            self.unsaved.notify_one();
        }
    }

    /// Clears the record of a block that was replaced by an intact copy, and counts it.
    pub(super) fn replaced(&self, key: &[u8]) {
        self.replaced.fetch_add(1, Ordering::Relaxed);
        self.clear(key);
    }

    /// Returns the number of blocks that were replaced since the start.
    pub(crate) fn replaced_count(&self) -> u64 {
        self.replaced.load(Ordering::Relaxed)
    }

    /// Returns the number of damaged blocks.
    pub(crate) fn len(&self) -> usize {
        lock(&self.keys).len()
    }

    /// Clears the record of a block that was replaced or deleted. Readers must see the change already.
    pub(super) fn clear(&self, key: &[u8]) {
        let mut keys = lock(&self.keys);
        if keys.remove(key) {
            self.any.store(!keys.is_empty(), Ordering::Release);
            self.changed.notify_one();
            self.unsaved.notify_one();
        }
    }

    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        self.any.load(Ordering::Acquire) && lock(&self.keys).contains(key)
    }

    /// Returns the keys of all damaged blocks.
    pub(crate) fn keys(&self) -> HashSet<Vec<u8>> {
        lock(&self.keys).clone()
    }

    /// Waits for a change since the last call.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Waits for a change since the last call of this function.
    pub(crate) async fn unsaved(&self) {
        self.unsaved.notified().await;
    }
}
