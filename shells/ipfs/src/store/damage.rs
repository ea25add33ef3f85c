//! Blocks that were found damaged on the disk and not replaced yet.

use super::lock;
use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Notify;

/// Damaged blocks remembered at most, 100 bytes each; a disk with more is beyond repair block by block. The
/// others are noticed again at the next read.
const DAMAGED_MAX: usize = 1 << 16;

/// The keys of damaged blocks. Readers take these blocks for missing, and a copy that is put replaces them.
#[derive(Debug, Default)]
pub(crate) struct Damage {
    keys: Mutex<HashSet<Vec<u8>>>,
    /// Spares the lock as long as there is no damage.
    any: AtomicBool,
    changed: Notify,
}

impl Damage {
    /// Notes that a block was read and is not what was written.
    pub(crate) fn note(&self, key: &[u8]) {
        self.note_if(key, || true);
    }

    /// Notes it if `is_current`, which is asked under the lock: what was read may have been replaced
    /// since, and nobody would clear it again.
    pub(super) fn note_if(&self, key: &[u8], is_current: impl FnOnce() -> bool) {
        let mut keys = lock(&self.keys);
        if is_current() && keys.len() < DAMAGED_MAX && keys.insert(key.to_vec()) {
            self.any.store(true, Ordering::Release);
            self.changed.notify_one();
        }
    }

    /// The block was replaced or deleted, and readers see that already.
    pub(super) fn clear(&self, key: &[u8]) {
        let mut keys = lock(&self.keys);
        if keys.remove(key) {
            self.any.store(!keys.is_empty(), Ordering::Release);
            self.changed.notify_one();
        }
    }

    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        self.any.load(Ordering::Acquire) && lock(&self.keys).contains(key)
    }

    /// The keys of all damaged blocks.
    pub(crate) fn keys(&self) -> HashSet<Vec<u8>> {
        lock(&self.keys).clone()
    }

    /// Waits until blocks were noted or cleared since the last call.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}
