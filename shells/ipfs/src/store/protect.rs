//! Protection of blocks that no pin keeps yet from collections: those of running uploads and pins.

use super::lock;
use crate::Cid;
use crate::Error;
use siphasher::sip::SipHasher13;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};

/// Maximum number of protected blocks, 16 bytes each: uploads of 256 GiB at the default chunk size.
const TOUCHED_MAX: usize = 1 << 20;

/// Blocks and roots in use.
///
/// Uploads record every block they write or find ([`Protect::touch_written`]). Pins record their root, which
/// a collection marks like that of a recorded pin; the blocks that a pin visits are recorded only while a
/// collection runs, the only time when a visited block could be removed.
#[derive(Debug, Default)]
pub(crate) struct Protect {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    uploads: usize,
    collecting: bool,
    touched: HashSet<u64>,
    /// True if more blocks were touched than can be recorded: a collection then spares all blocks.
    overflowed: bool,
    roots: HashMap<Cid, usize>,
}

/// Protects an upload's blocks, or a pin's root, until dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    protect: Arc<Protect>,
    root: Option<Cid>,
}

/// The protected blocks, locked.
pub(super) struct ProtectedBlocks<'a>(MutexGuard<'a, State>);

impl ProtectedBlocks<'_> {
    pub(super) fn protects(&self, key: &[u8]) -> bool {
        self.0.overflowed || self.0.touched.contains(&fingerprint(key))
    }
}

/// Random key of this process. No hash made with it leaves the process.
static SECRET: LazyLock<SipHasher13> = LazyLock::new(|| SipHasher13::new_with_key(&rand::random()));

/// Computes a keyed 64-bit hash of a block's key, for sets of blocks to keep: on a collision both are kept.
/// Keyed, so that nobody can craft blocks that keep others from being collected.
pub(crate) fn fingerprint(key: &[u8]) -> u64 {
    SECRET.hash(key)
}

impl Protect {
    /// Protects all blocks that are written until the lease is dropped.
    pub(crate) fn upload(self: &Arc<Self>) -> Lease {
        lock(&self.state).uploads += 1;
        Lease {
            protect: self.clone(),
            root: None,
        }
    }

    /// Protects all local blocks below a root.
    pub(crate) fn root(self: &Arc<Self>, cid: Cid) -> Lease {
        *lock(&self.state).roots.entry(cid).or_default() += 1;
        Lease {
            protect: self.clone(),
            root: Some(cid),
        }
    }

    /// Protects blocks of uploads; to be called before they are written.
    pub(crate) fn touch_written<'a>(&self, keys: impl Iterator<Item = &'a [u8]>) {
        let mut state = lock(&self.state);
        if state.uploads > 0 || state.collecting {
            state.record(keys);
        }
    }

    /// Protects visited blocks; to be called before a pin checks whether they are local.
    pub(crate) fn touch_visited<'a>(&self, keys: impl Iterator<Item = &'a [u8]>) {
        let mut state = lock(&self.state);
        if state.collecting {
            state.record(keys);
        }
    }

    /// Returns whether a collection runs, which removes what is neither recorded nor touched.
    pub(crate) fn is_collecting(&self) -> bool {
        lock(&self.state).collecting
    }

    /// Starts a collection; only one runs at a time. Returns the roots of running pins.
    pub(crate) fn start_collecting(&self) -> Result<Vec<Cid>, Error> {
        let mut state = lock(&self.state);
        if state.collecting {
            return Err(Error::Busy("a garbage collection is already running"));
        }
        state.collecting = true;
        Ok(state.roots.keys().copied().collect())
    }

    pub(crate) fn stop_collecting(&self) {
        let mut state = lock(&self.state);
        state.collecting = false;
        state.forget();
    }

    pub(super) fn freeze(&self) -> ProtectedBlocks<'_> {
        ProtectedBlocks(lock(&self.state))
    }
}

impl State {
    fn record<'a>(&mut self, keys: impl Iterator<Item = &'a [u8]>) {
        for key in keys {
            if self.touched.len() >= TOUCHED_MAX {
                self.overflowed = true;
                return;
            }
            self.touched.insert(fingerprint(key));
        }
    }

    fn forget(&mut self) {
        if self.uploads == 0 && !self.collecting {
            self.touched = HashSet::new();
            self.overflowed = false;
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut state = lock(&self.protect.state);
        match self.root {
            None => {
                state.uploads = state.uploads.saturating_sub(1);
                state.forget();
            }
            Some(root) => {
                if let Some(count) = state.roots.get_mut(&root) {
                    *count -= 1;
                    if *count == 0 {
                        state.roots.remove(&root);
                    }
                }
            }
        }
    }
}
