//! Replacement of a folder's contents, for imports and disaster recovery while no daemon runs. One batch
//! switches from the old state to the new; of the old one only the local state remains, which the next
//! start compares with the new pinset.
//!
//! A pinset of any size is sorted first, and written as final tables: through the journal and the memtables
//! every pin would be written several times.

mod sorter;

use std::sync::Arc;

use cluster_core::{Pin, Policy, Recovered, decode};
use fjall::Keyspace;

pub(super) use self::sorter::Sorter;
use super::error::StoreError;
use super::folder::SORTING;
use super::keys;
use super::open::Store;
use super::record::{self, Founding, Head};
use super::search_index;
use super::shared::{Shared, lock};
use super::spaces::{self, Generation};

/// Index keys removed per write: a few milliseconds, and under a megabyte.
const REMOVE: usize = 1000;

/// Values of index keys of a CID that was put more than once; the last one decides.
const STALE: &[u8] = b"-";
const FRESH: &[u8] = b"+";

/// A new pinset, added in any order, beside the one in use. Dropped before it is used, it is deleted; after
/// a crash the next opening deletes it.
pub struct NewPinset {
    shared: Arc<Shared>,
    /// `None` once it is in use.
    generation: Option<Arc<Generation>>,
    /// `None` once the pins are written.
    sorting: Option<Sorting>,
}

/// Pins by CID, and index keys.
struct Sorting {
    pins: Sorter,
    index: Sorter,
}

/// Result of [`NewPinset::finish`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PinCounts {
    /// Number of distinct CIDs.
    pub pins: u64,
    /// Number of pins that replaced an earlier one of the same CID.
    pub repeated: u64,
}

impl NewPinset {
    /// Adds a pin, with its encoding. Of several with one CID the last one counts.
    ///
    /// # Errors
    /// [`StoreError`] when the disk is full or fails, and after [`NewPinset::finish`].
    pub fn put(&mut self, pin: &Pin, encoded: &[u8]) -> Result<(), StoreError> {
        let sorting = self.sorting.as_mut().ok_or_else(finished_twice)?;
        sorting.pins.put(pin.cid.as_bytes(), encoded)?;
        for key in keys::index(pin) {
            sorting.index.put(&key, &[])?;
        }
        Ok(())
    }

    /// Writes the pins, and counts them. None can be added afterwards.
    ///
    /// # Errors
    /// [`StoreError`] when the disk is full or fails, and on a second call.
    pub fn finish(&mut self) -> Result<PinCounts, StoreError> {
        let sorting = self.sorting.take().ok_or_else(finished_twice)?;
        let generation = self.generation.as_ref().ok_or_else(finished_twice)?;
        let path = self.shared.folder.path.join(SORTING);
        let mut repeated = Sorter::new(&path)?;
        let mut search = Sorter::new(&path)?;
        let (settled, indexed) = std::thread::scope(|scope| {
            let Sorting { pins, index } = sorting;
            let indexing = scope.spawn(|| ingest_sorted(|_| &generation.index, index));
            let settled = ingest_pins(&generation.pins, pins, &mut repeated, &mut search);
            let indexed = indexing.join();
            (settled, indexed)
        });
        indexed.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        self.remove_stale(&generation.index, repeated)?;
        let settled = settled?;
        ingest_sorted(|key| generation.search.of(key), search)?;
        Ok(settled)
    }

    /// Removes index keys that only replaced pins had.
    fn remove_stale(&self, index: &Keyspace, keys: Sorter) -> Result<(), StoreError> {
        let mut batch = self.shared.db.batch();
        keys.each(|key, fate, again| {
            if !again && fate == STALE {
                batch.remove(index, key);
            }
            if batch.len() < REMOVE {
                return Ok(());
            }
            let full = std::mem::replace(&mut batch, self.shared.db.batch());
            full.commit().map_err(StoreError::Write)?;
            spaces::bound_memory(&[index])
        })?;
        batch.commit().map_err(StoreError::Write)
    }
}

/// Writes pins, and collects the index keys of the CIDs that were put more than once, and the entries of the
/// search index.
fn ingest_pins(
    space: &Keyspace,
    pins: Sorter,
    repeated: &mut Sorter,
    search: &mut Sorter,
) -> Result<PinCounts, StoreError> {
    let mut settled = PinCounts::default();
    if pins.is_empty() {
        return Ok(settled);
    }
    let read = |pin: &[u8]| decode::<Pin>(pin).map_err(|error| StoreError::Damaged(error.to_string()));
    let mut note = |pin: &[u8], fate: &[u8]| {
        let pin = read(pin)?;
        let mut keys = keys::index(&pin).into_iter();
        keys.try_for_each(|key| repeated.put(&key, fate))
    };
    let mut tables = space.start_ingestion().map_err(StoreError::Write)?;
    let mut came_before = false;
    pins.each(|cid, pin, again| {
        if again {
            settled.repeated += 1;
            came_before = true;
            return note(pin, STALE);
        }
        if std::mem::take(&mut came_before) {
            note(pin, FRESH)?;
        }
        for (key, value) in search_index::entries(&read(pin)?) {
            search.put(&key, &value)?;
        }
        settled.pins += 1;
        tables.write(cid, pin).map_err(StoreError::Write)
    })?;
    tables.finish().map_err(StoreError::Write)?;
    Ok(settled)
}

/// Writes sorted records as final tables of empty keyspaces; of several with one key the last one. `space_of`
/// returns the keyspace of a key; those of one keyspace are next to each other.
pub(super) fn ingest_sorted<'a>(
    space_of: impl Fn(&[u8]) -> &'a Keyspace,
    records: Sorter,
) -> Result<(), StoreError> {
    let (mut space, mut tables) = (None, None);
    records.each(|key, value, again| {
        if again {
            return Ok(());
        }
        let next = space_of(key);
        let is_same = space.replace(next).is_some_and(|last| std::ptr::eq(last, next));
        let writing = match &mut tables {
            Some(writing) if is_same => writing,
            others => {
                let full = others.take();
                let writing = others.insert(next.start_ingestion().map_err(StoreError::Write)?);
                full.map_or(Ok(()), |full| full.finish().map_err(StoreError::Write))?;
                writing
            }
        };
        writing.write(key, value).map_err(StoreError::Write)
    })?;
    tables.map_or(Ok(()), |last| last.finish().map_err(StoreError::Write))
}

impl Drop for NewPinset {
    fn drop(&mut self) {
        let unused = self.generation.take().into_iter().collect::<Vec<_>>();
        if let Err(error) = self.shared.delete_unused(&unused) {
            tracing::error!(%error, "an unused pinset could not be deleted");
        }
    }
}

fn finished_twice() -> StoreError {
    StoreError::Contract("a pinset that replaces another is settled once, after all pins".to_owned())
}

impl Store {
    /// Starts a pinset that may replace the one in use, by [`Store::reinitialise`].
    ///
    /// # Errors
    /// [`StoreError`] when the disk is full or fails.
    pub fn new_pinset(&self) -> Result<NewPinset, StoreError> {
        let number = lock(&self.shared.stages).next();
        let generation = spaces::generation(&self.shared.db, number, number).map_err(StoreError::Write)?;
        let mut replacing = NewPinset {
            shared: Arc::clone(&self.shared),
            generation: Some(Arc::new(generation)),
            sorting: None,
        };
        let path = self.shared.folder.path.join(SORTING);
        replacing.sorting = Some(Sorting {
            pins: Sorter::new(&path)?,
            index: Sorter::new(&path)?,
        });
        Ok(replacing)
    }

    /// Founds the folder again, founded or not: Raft's state, the membership and the windows are replaced
    /// by `recovered`, which must have no log; the pinset by `pins`, or kept if that is `None`. The
    /// policy is removed: the new cluster agrees on its own. Durable
    /// when this returns; a crash leaves the old or the new state.
    ///
    /// # Errors
    /// [`StoreError::Contract`] for a state with a log or unsettled pins; another one when the disk fails.
    pub fn reinitialise(&mut self, recovered: &Recovered, pins: Option<NewPinset>) -> Result<(), StoreError> {
        if !recovered.log.is_empty() {
            let why = "a store is founded without a log";
            return Err(StoreError::Contract(why.to_owned()));
        }
        let mut pins = pins;
        if let Some(pins) = &pins {
            if pins.sorting.is_some() {
                let why = "a pinset is settled before it is used";
                return Err(StoreError::Contract(why.to_owned()));
            }
            // The records that the batch below refers to must be durable before it.
            self.shared.sync()?;
        }
        let staged = pins.as_mut().and_then(|pins| pins.generation.take());
        let generation = staged.unwrap_or_else(|| Arc::clone(&self.generation));
        let head = self.head_of(recovered, generation.number);
        if let Some(why) = head.contradiction() {
            return Err(StoreError::Contract(why));
        }
        let batch = self.founding_batch(recovered, &head, &generation)?;
        {
            let current = &self.shared.current;
            let mut current = current.write().unwrap_or_else(std::sync::PoisonError::into_inner);
            batch.commit().map_err(StoreError::Write)?;
            self.shared.note_written(head.seq);
            if current.number != generation.number {
                self.shared.retire(head.seq, Arc::clone(&current));
                self.shared.list_counts.forget();
                *current = Arc::clone(&generation);
            }
        }
        self.generation = generation;
        self.links.clear();
        lock(&self.floors).forget_expiries();
        self.shared.set_policy(Policy::default());
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

    /// All records of a founding, replacing existing ones. The log is removed in the same batch: later
    /// entries would reuse its keys.
    fn founding_batch(
        &self,
        recovered: &Recovered,
        head: &Head,
        generation: &Generation,
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
        batch.remove(meta, keys::POLICY);
        let founding = Founding {
            incarnation: recovered.incarnation,
        };
        batch.insert(meta, keys::FOUNDING, record::seal(keys::FOUNDING, &founding));
        batch.insert(meta, keys::BOOT, record::seal(keys::BOOT, &recovered.boot));
        let members = record::seal_members(&recovered.members);
        batch.insert(meta, keys::MEMBERS, members);
        batch.insert(meta, keys::HEAD, record::seal(keys::HEAD, head));
        if let Some(marker) = self.shared.search_marker(generation, head) {
            batch.insert(meta, keys::SEARCH, marker);
        }
        for (key, window) in windows.iter().zip(&recovered.windows) {
            batch.insert(meta, key.as_slice(), record::seal(key, window));
        }
        Ok(batch)
    }
}
