//! Starting anew in a folder that may hold something already: what an import and an operator's last resort
//! do while no daemon runs. One batch turns the old into the new; before it nothing of the old has changed,
//! after it nothing of it is left but the local state, which is compared with the new pinset at the start.

use std::collections::BTreeMap;
use std::sync::Arc;

use cluster_core::{Cid, Pin, Recovered, encode};
use xxhash_rust::xxh3::xxh3_64;

use super::error::StoreError;
use super::keys;
use super::open::Store;
use super::record::{self, Founding, Head};
use super::shared::{Shared, lock};
use super::spaces::{self, Generation};

/// Pins that are written at once: a few milliseconds, and under a megabyte as pins go.
const WRITE: usize = 1000;

/// A pinset in the making, in any order, beside the one in use. Dropped before it is used, it is deleted; a
/// crash leaves that to the next opening.
pub struct Replacing {
    shared: Arc<Shared>,
    /// `None` once it is in use.
    generation: Option<Arc<Generation>>,
    waiting: BTreeMap<Cid, Waiting>,
    seen: Seen,
    pins: u64,
}

/// A pin that is to be written.
struct Waiting {
    pin: Pin,
    /// Whether it takes the place of one that was written before.
    replaces: bool,
}

/// Bits of [`Seen`]. Of a million CIDs not one in a thousand is looked up in vain, of fifty million a third.
const SEEN_BITS: u64 = 1 << 27;

/// Tells most CIDs that have not come yet from those that may have: to look up each on disk would take longer
/// than to write it. 16 MiB, however many come.
struct Seen(Vec<u64>);

impl Seen {
    fn new() -> Self {
        Self(vec![0; (SEEN_BITS / 64) as usize])
    }

    /// Notes a CID. False when it has not been noted before.
    fn note(&mut self, cid: &Cid) -> bool {
        let hash = xxh3_64(cid.as_bytes());
        let mut note = |bit: u64| {
            let (word, mask) = (&mut self.0[(bit / 64) as usize], 1 << (bit % 64));
            let noted = *word & mask != 0;
            *word |= mask;
            noted
        };
        let first = note(hash % SEEN_BITS);
        note((hash >> 32) % SEEN_BITS) && first
    }
}

impl Replacing {
    /// Adds a pin. True when it takes the place of an earlier one of the same CID.
    pub fn put(&mut self, pin: Pin) -> Result<bool, StoreError> {
        let Some(generation) = &self.generation else {
            return Err(used_twice());
        };
        let may_be_there = self.seen.note(&pin.cid);
        let (earlier, replaces) = match self.waiting.get(&pin.cid) {
            Some(waiting) => (true, waiting.replaces),
            None if may_be_there => {
                let there = generation.pins.contains_key(pin.cid.as_bytes());
                let there = there.map_err(StoreError::Read)?;
                (there, there)
            }
            None => (false, false),
        };
        self.pins += u64::from(!earlier);
        self.waiting.insert(pin.cid.clone(), Waiting { pin, replaces });
        if self.waiting.len() >= WRITE {
            self.flush()?;
        }
        Ok(earlier)
    }

    /// How many CIDs it has.
    pub fn pins(&self) -> u64 {
        self.pins
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        let Some(generation) = &self.generation else {
            return Err(used_twice());
        };
        let mut batch = self.shared.db.batch();
        for (cid, Waiting { pin, replaces }) in std::mem::take(&mut self.waiting) {
            let new = keys::index(&pin);
            if replaces && let Some(earlier) = super::view::get::<Pin>(&generation.pins, cid.as_bytes())? {
                let stale = keys::index(&earlier).into_iter().filter(|key| !new.contains(key));
                stale.for_each(|key| batch.remove(&generation.index, key));
            }
            new.into_iter()
                .for_each(|key| batch.insert(&generation.index, key, Vec::new()));
            batch.insert(&generation.pins, cid.as_bytes(), encode(&pin));
        }
        batch.commit().map_err(StoreError::Write)?;
        spaces::bound_memory(&[&generation.pins, &generation.index])
    }
}

impl Drop for Replacing {
    fn drop(&mut self) {
        let unused = self.generation.take().into_iter().collect::<Vec<_>>();
        if let Err(error) = self.shared.delete_unused(&unused) {
            tracing::error!(%error, "a pinset that is not used could not be cleared away");
        }
    }
}

fn used_twice() -> StoreError {
    StoreError::Contract("a replacement is used once".to_owned())
}

impl Store {
    /// Begins a pinset that may replace the one in use, by [`Store::refound`].
    pub fn replacing(&self) -> Result<Replacing, StoreError> {
        let number = lock(&self.shared.stages).next();
        let generation = spaces::generation(&self.shared.db, number).map_err(StoreError::Write)?;
        Ok(Replacing {
            shared: Arc::clone(&self.shared),
            generation: Some(Arc::new(generation)),
            waiting: BTreeMap::new(),
            seen: Seen::new(),
            pins: 0,
        })
    }

    /// Founds the folder anew, whatever it holds: Raft's memory, the membership and the windows are replaced
    /// by `recovered`, which must have no log; the pinset by `pins`, or kept when there is none. Durable when
    /// this returns; a crash leaves the old or the new.
    pub fn refound(&mut self, recovered: &Recovered, pins: Option<Replacing>) -> Result<(), StoreError> {
        if !recovered.log.is_empty() {
            let why = "a store is founded without a log";
            return Err(StoreError::Contract(why.to_owned()));
        }
        let mut pins = pins;
        if let Some(pins) = &mut pins {
            pins.flush()?;
            // What the one batch below points at must be there before it.
            self.shared.sync()?;
        }
        let staged = pins.as_mut().and_then(|pins| pins.generation.take());
        let generation = staged.unwrap_or_else(|| Arc::clone(&self.generation));
        let head = self.head_of(recovered, generation.number);
        if let Some(why) = head.contradiction() {
            return Err(StoreError::Contract(why));
        }
        let batch = self.founding_batch(recovered, &head)?;
        {
            let current = &self.shared.current;
            let mut current = current.write().unwrap_or_else(std::sync::PoisonError::into_inner);
            batch.commit().map_err(StoreError::Write)?;
            self.shared.note_written(head.seq);
            if current.number != generation.number {
                self.shared.retire(head.seq, Arc::clone(&current));
                *current = Arc::clone(&generation);
            }
        }
        self.generation = generation;
        self.links.clear();
        lock(&self.floors).forget_expiries();
        self.head = Some(head);
        self.shared.sync_all()
    }

    /// The head of a store that starts from `recovered`, without a log.
    pub(super) fn head_of(&self, recovered: &Recovered, generation: u64) -> Head {
        Head {
            seq: self.head.as_ref().map_or(0, |head| head.seq) + 1,
            generation,
            hard_state: recovered.hard_state,
            applied: recovered.applied,
            reconciling: recovered.reconciling,
            compacted: recovered.compacted,
            compacted_chain: 0,
            last: recovered.compacted.0,
            chain: 0,
            purge_from: 0,
            purge_to: 0,
        }
    }

    /// All records of a founding, in the place of those that are there. The log goes in the same batch: later
    /// entries would get its places.
    fn founding_batch(
        &self,
        recovered: &Recovered,
        head: &Head,
    ) -> Result<fjall::OwnedWriteBatch, StoreError> {
        let (meta, log) = (&self.shared.fixed.meta, &self.shared.fixed.log);
        let mut batch = self.shared.db.batch();
        for guard in log.iter() {
            batch.remove(log, guard.key().map_err(StoreError::Read)?);
        }
        let windows = recovered.windows.iter().map(|window| keys::window(window.origin));
        let windows: Vec<Vec<u8>> = windows.collect();
        for guard in meta.prefix(keys::WINDOWS) {
            let key = guard.key().map_err(StoreError::Read)?;
            // The order of two writes to a key within one batch would be undefined.
            if !windows.iter().any(|window| **window == *key) {
                batch.remove(meta, key);
            }
        }
        let founding = Founding {
            incarnation: recovered.incarnation,
        };
        batch.insert(meta, keys::FOUNDING, record::seal(keys::FOUNDING, &founding));
        batch.insert(meta, keys::BOOT, record::seal(keys::BOOT, &recovered.boot));
        let members = record::seal_members(&recovered.members);
        batch.insert(meta, keys::MEMBERS, members);
        batch.insert(meta, keys::HEAD, record::seal(keys::HEAD, head));
        for (key, window) in windows.iter().zip(&recovered.windows) {
            batch.insert(meta, key.as_slice(), record::seal(key, window));
        }
        Ok(batch)
    }
}
