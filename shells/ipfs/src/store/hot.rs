//! Blocks in memory that are read again and again, such as those of a file that many clients of the gateway
//! want at once: no disk is read, no checksum computed and no thread woken for them.
//!
//! A block is kept from its second read on, within the last [`RECENT`] reads of others, so that a walk over a
//! large pin displaces nothing. Blocks that are deleted leave at once.

use super::fingerprint;
use super::lock;
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Mutex;

/// Limit on the bytes of kept blocks, with [`ENTRY_BYTES`] for each.
const BYTES_MAX: usize = 64 << 20;
/// Memory of an entry beside the block itself, about: its key in two maps and their overhead.
const ENTRY_BYTES: usize = 512;
/// Blocks of at most this many bytes are copied, because the database hands out slices of larger buffers.
const COPIED_MAX: usize = 64 << 10;
/// Number of reads within which a second one keeps a block.
const RECENT: usize = 4096;

/// State of the kept blocks before a read from the disk: what was deleted since is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Epoch(u64);

/// Kept blocks.
#[derive(Debug)]
pub(super) struct Hot {
    state: Mutex<State>,
    max: usize,
}

impl Default for Hot {
    fn default() -> Hot {
        Hot::new(BYTES_MAX)
    }
}

#[derive(Debug, Default)]
struct State {
    /// Blocks with the time of the last read.
    blocks: HashMap<Vec<u8>, (Bytes, u64)>,
    /// Their keys in the order of the last reads.
    order: BTreeMap<u64, Vec<u8>>,
    bytes: usize,
    clock: u64,
    epoch: u64,
    /// Fingerprints of blocks that were read once, in order.
    recent: VecDeque<u64>,
    is_recent: HashSet<u64>,
}

impl Hot {
    fn new(max: usize) -> Hot {
        Hot {
            state: Mutex::default(),
            max,
        }
    }

    /// Returns a kept block.
    pub(super) fn get(&self, key: &[u8]) -> Option<Bytes> {
        let mut state = lock(&self.state);
        state.clock += 1;
        let now = state.clock;
        let (data, used) = state.blocks.get_mut(key)?;
        let (data, before) = (data.clone(), std::mem::replace(used, now));
        if let Some(key) = state.order.remove(&before) {
            state.order.insert(now, key);
        }
        Some(data)
    }

    /// Returns the state to pass to [`Hot::note`] after a read that begins now.
    pub(super) fn epoch(&self) -> Epoch {
        Epoch(lock(&self.state).epoch)
    }

    /// Notes a read from the disk, and keeps the block if it was read not long ago.
    pub(super) fn note(&self, key: &[u8], data: &Bytes, epoch: Epoch) {
        let mark = fingerprint(key);
        let mut state = lock(&self.state);
        if !state.is_recent.contains(&mark) {
            state.mark(mark);
            return;
        }
        let weight = data.len() + ENTRY_BYTES;
        if state.epoch != epoch.0 || weight > self.max / 4 || state.blocks.contains_key(key) {
            return;
        }
        let data = match data.len() <= COPIED_MAX {
            true => Bytes::copy_from_slice(data),
            false => data.clone(),
        };
        state.clock += 1;
        let now = state.clock;
        state.bytes += weight;
        state.blocks.insert(key.to_vec(), (data, now));
        state.order.insert(now, key.to_vec());
        while state.bytes > self.max
            && let Some((_, oldest)) = state.order.pop_first()
        {
            state.drop_block(&oldest);
        }
    }

    /// Removes blocks that were deleted. Readers must see their deletion in the database already.
    pub(super) fn forget<'a>(&self, keys: impl Iterator<Item = &'a Vec<u8>>) {
        let mut state = lock(&self.state);
        state.epoch += 1;
        for key in keys {
            if let Some(used) = state.drop_block(key) {
                state.order.remove(&used);
            }
        }
    }
}

impl State {
    fn mark(&mut self, mark: u64) {
        self.is_recent.insert(mark);
        self.recent.push_back(mark);
        if self.recent.len() > RECENT
            && let Some(oldest) = self.recent.pop_front()
        {
            self.is_recent.remove(&oldest);
        }
    }

    /// Removes a block; returns the time of its last read.
    fn drop_block(&mut self, key: &[u8]) -> Option<u64> {
        let (data, used) = self.blocks.remove(key)?;
        self.bytes = self.bytes.saturating_sub(data.len() + ENTRY_BYTES);
        Some(used)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(hot: &Hot, number: u32, bytes: usize) {
        let data = Bytes::from(vec![number as u8; bytes]);
        hot.note(&number.to_be_bytes(), &data, hot.epoch());
    }

    fn is_kept(hot: &Hot, number: u32) -> bool {
        hot.get(&number.to_be_bytes()).is_some()
    }

    #[test]
    fn blocks_are_kept_from_the_second_read_on() {
        let hot = Hot::default();
        read(&hot, 1, 10);
        assert!(!is_kept(&hot, 1));
        read(&hot, 1, 10);
        assert_eq!(hot.get(&1_u32.to_be_bytes()), Some(Bytes::from(vec![1; 10])));
        for number in 2..RECENT as u32 + 3 {
            read(&hot, number, 10);
        }
        read(&hot, 2, 10);
        assert!(!is_kept(&hot, 2), "its first read is too long ago");
        assert!(is_kept(&hot, 1));
    }

    #[test]
    fn the_least_recently_read_blocks_make_room() {
        let hot = Hot::new(8 * (1000 + ENTRY_BYTES));
        for number in 0..9 {
            read(&hot, number, 1000);
            read(&hot, number, 1000);
            assert!(is_kept(&hot, 0));
        }
        let kept: Vec<u32> = (0..9).filter(|number| is_kept(&hot, *number)).collect();
        assert_eq!(kept, [0, 2, 3, 4, 5, 6, 7, 8]);
        read(&hot, 9, 4000);
        read(&hot, 9, 4000);
        assert!(!is_kept(&hot, 9), "one block may take a quarter of the room");
        assert_eq!(lock(&hot.state).bytes, 8 * (1000 + ENTRY_BYTES));
    }

    #[test]
    fn deleted_blocks_are_not_kept() {
        let hot = Hot::default();
        read(&hot, 1, 10);
        read(&hot, 1, 10);
        let before = hot.epoch();
        hot.forget([1_u32.to_be_bytes().to_vec()].iter());
        assert!(!is_kept(&hot, 1));
        assert_eq!(lock(&hot.state).bytes, 0);
        // Read from the disk before the deletion, and noted after it.
        hot.note(&1_u32.to_be_bytes(), &Bytes::from_static(b"x"), before);
        assert!(!is_kept(&hot, 1));
    }
}
