//! Incoming snapshots. Each is checked and written into a new generation, which stays invisible until a batch
//! with [`StoreOp::InstallSnapshot`](cluster_core::StoreOp::InstallSnapshot) makes it the one in use. The
//! next opening deletes the remains of one that a crash interrupted.
//!
//! Pins arrive in the order of their CIDs and are written as final tables at once; the keys of the indexes
//! are sorted first. Through the journal and the memtables each would be written several times.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use cluster_core::{Cid, Manifest, Pin, Policy, SnapshotId, encode};

use super::error::{StageError, StoreError};
use super::folder::SORTING;
use super::keys;
use super::replace::{Sorter, ingest_sorted};
use super::search_index;
use super::shared::{Shared, lock};
use super::snapshot::{Chunk, read_chunk};
use super::spaces::{self, Generation};

/// Snapshots staged at once: one that waits for the core's decision while a new leader's arrives. Each
/// takes the disk space of a pinset.
const STAGED_MAX: usize = 2;

/// Bytes of index keys that are sorted in memory at once, for each of the two indexes.
const RUN: usize = 8 << 20;

/// Chunks of pins that wait to be written.
const WAITING: usize = 4;

/// Snapshots that are being received, or wait to be installed.
pub(super) struct Stages {
    next_generation: u64,
    staged: BTreeMap<SnapshotId, Stage>,
}

enum Stage {
    Receiving,
    Ready {
        generation: Arc<Generation>,
        manifest: Box<Manifest>,
        policy: Policy,
    },
}

impl Stages {
    pub(super) fn new(next_generation: u64) -> Self {
        Self {
            next_generation,
            staged: BTreeMap::new(),
        }
    }

    /// Returns an unused generation number.
    pub(super) fn next(&mut self) -> u64 {
        self.next_generation += 1;
        self.next_generation - 1
    }

    /// Returns the generation and the policy of a completely received snapshot, if `manifest` describes
    /// it.
    pub(super) fn ready(&self, id: SnapshotId, manifest: &Manifest) -> Option<(Arc<Generation>, Policy)> {
        match self.staged.get(&id)? {
            Stage::Ready {
                generation,
                manifest: staged,
                policy,
            } => (**staged == *manifest).then(|| (Arc::clone(generation), policy.clone())),
            Stage::Receiving => None,
        }
    }

    /// Removes a snapshot that has become the pinset.
    pub(super) fn installed(&mut self, id: SnapshotId) {
        self.staged.remove(&id);
    }
}

/// Receives snapshots, from any thread. Everything here blocks on the disk: keep it off the loop.
#[derive(Clone)]
pub struct Stager {
    shared: Arc<Shared>,
}

impl Stager {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Starts to receive a snapshot under an id that was never used before.
    ///
    /// # Errors [`StageError::Busy`] if `STAGED_MAX` are staged already, [`StageError::Store`] when the disk
    /// fails.
    pub fn stage(&self, id: SnapshotId, manifest: Manifest) -> Result<Staging, StageError> {
        let (number, indexes) = {
            let mut stages = lock(&self.shared.stages);
            if stages.staged.len() >= STAGED_MAX {
                return Err(StageError::Busy(STAGED_MAX));
            }
            // Under the lock, since all sorters use one name for a moment.
            let path = self.shared.folder.path.join(SORTING);
            let indexes = Indexes {
                index: Sorter::with_run(&path, RUN)?,
                search: Sorter::with_run(&path, RUN)?,
            };
            if stages.staged.insert(id, Stage::Receiving).is_some() {
                return Err(StageError::Rejected(format!("{id} is staged already")));
            }
            (stages.next(), indexes)
        };
        let generation = spaces::generation(&self.shared.db, number, number).map_err(|error| {
            lock(&self.shared.stages).staged.remove(&id);
            StoreError::Write(error)
        })?;
        let mut staging = Staging {
            shared: Arc::clone(&self.shared),
            id,
            manifest: Some(manifest),
            generation: Arc::new(generation),
            tables: None,
            indexes: Some(indexes),
            last: None,
            pins: 0,
            policy: None,
        };
        staging.tables = Some(PinTables::start(Arc::clone(&staging.generation))?);
        Ok(staging)
    }

    /// Discards a staged snapshot and frees its space. Does nothing for an unknown id.
    ///
    /// # Errors
    /// [`StoreError`] when the disk fails.
    pub fn discard(&self, id: SnapshotId) -> Result<(), StoreError> {
        let stage = lock(&self.shared.stages).staged.remove(&id);
        match stage {
            Some(Stage::Ready { generation, .. }) => self.shared.delete_unused(&[generation]),
            // A snapshot that is still being received is deleted by its [`Staging`].
            Some(Stage::Receiving) | None => Ok(()),
        }
    }
}

/// A snapshot that is being received. Dropped before it is finished, it is discarded.
pub struct Staging {
    shared: Arc<Shared>,
    id: SnapshotId,
    /// `None` once it is finished.
    manifest: Option<Manifest>,
    generation: Arc<Generation>,
    /// `None` once all pins are written.
    tables: Option<PinTables>,
    /// `None` once they are written.
    indexes: Option<Indexes>,
    last: Option<Cid>,
    pins: u64,
    /// `None` until it has come; a snapshot without one has no chunk of it.
    policy: Option<Policy>,
}

/// Keys of the indexes, to be sorted.
struct Indexes {
    index: Sorter,
    search: Sorter,
}

impl Indexes {
    fn put(&mut self, pin: &Pin) -> Result<(), StoreError> {
        for key in keys::index(pin) {
            self.index.put(&key, &[])?;
        }
        for (key, value) in search_index::entries(pin) {
            self.search.put(&key, &value)?;
        }
        Ok(())
    }

    /// Writes both.
    fn finish(self, generation: &Generation) -> Result<(), StoreError> {
        let Self { index, search } = self;
        let (indexed, searchable) = thread::scope(|scope| {
            let indexing = scope.spawn(|| ingest_sorted(|_| &generation.index, index));
            let searchable = ingest_sorted(|key| generation.search.of(key), search);
            (indexing.join(), searchable)
        });
        indexed.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        searchable
    }
}

/// CIDs and encodings of pins.
type EncodedPins = Vec<(Vec<u8>, Vec<u8>)>;

/// Thread that writes the pins while others arrive.
struct PinTables {
    pins: SyncSender<EncodedPins>,
    thread: JoinHandle<Result<(), StoreError>>,
}

impl PinTables {
    fn start(generation: Arc<Generation>) -> Result<Self, StoreError> {
        let (pins, arriving) = sync_channel(WAITING);
        let thread = thread::Builder::new()
            .name("snapshot".to_owned())
            .spawn(move || write_tables(&generation, &arriving))
            .map_err(StoreError::Sort)?;
        Ok(Self { pins, thread })
    }

    /// Writes the rest, and waits for it.
    fn finish(self) -> Result<(), StoreError> {
        drop(self.pins);
        let written = self.thread.join();
        written.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

fn write_tables(generation: &Generation, arriving: &Receiver<EncodedPins>) -> Result<(), StoreError> {
    let Ok(first) = arriving.recv() else {
        return Ok(());
    };
    let mut tables = generation.pins.start_ingestion().map_err(StoreError::Write)?;
    for (cid, pin) in std::iter::once(first).chain(arriving).flatten() {
        tables.write(cid, pin).map_err(StoreError::Write)?;
    }
    tables.finish().map_err(StoreError::Write)
}

impl Staging {
    /// Adds the next chunk of a [`SnapshotSource`](super::SnapshotSource). After an error, drop the
    /// staging.
    ///
    /// # Errors
    /// [`StageError::Rejected`] for pins or a policy that are invalid, out of order or too many,
    /// [`StageError::Store`] when the disk fails.
    pub fn push(&mut self, chunk: &[u8]) -> Result<(), StageError> {
        let pins = match read_chunk(chunk).map_err(StageError::Rejected)? {
            Chunk::Pins(pins) => pins,
            Chunk::Policy(_) if self.policy.is_some() => {
                return Err(StageError::Rejected("the policy comes twice".to_owned()));
            }
            Chunk::Policy(policy) => {
                self.policy = Some(policy);
                return Ok(());
            }
        };
        let expected = self.manifest.as_ref().map_or(0, |manifest| manifest.applied.pins);
        let (Some(tables), Some(indexes)) = (&self.tables, &mut self.indexes) else {
            return Err(StageError::Rejected("it has failed before".to_owned()));
        };
        let mut encoded = Vec::with_capacity(pins.len());
        for (pin, bytes) in pins {
            if self.last.as_ref().is_some_and(|last| *last >= pin.cid) {
                return Err(StageError::Rejected(format!("pin {} is out of order", pin.cid)));
            }
            self.pins += 1;
            if self.pins > expected {
                let why = format!("more than the {expected} pins that were announced");
                return Err(StageError::Rejected(why));
            }
            if encode(&pin) != bytes {
                let why = format!("pin {} is not in its canonical encoding", pin.cid);
                return Err(StageError::Rejected(why));
            }
            indexes.put(&pin)?;
            encoded.push((pin.cid.as_bytes().to_vec(), bytes.to_vec()));
            self.last = Some(pin.cid);
        }
        if tables.pins.send(encoded).is_err() {
            // The thread ends early only with an error.
            self.tables.take().map_or(Ok(()), PinTables::finish)?;
        }
        Ok(())
    }

    /// Checks that the snapshot is complete, and makes it durable. It then waits under its id to be
    /// installed or discarded.
    ///
    /// # Errors
    /// [`StageError::Rejected`] when pins are missing or it was discarded meanwhile, [`StageError::Store`]
    /// when the disk fails.
    pub fn finish(mut self) -> Result<(), StageError> {
        let Some(manifest) = self.manifest.as_ref() else {
            return Err(StageError::Rejected("finished twice".to_owned()));
        };
        let expected = manifest.applied.pins;
        if self.pins != expected {
            let why = format!("received {} pins, {expected} were announced", self.pins);
            return Err(StageError::Rejected(why));
        }
        self.tables.take().map_or(Ok(()), PinTables::finish)?;
        if let Some(indexes) = self.indexes.take() {
            indexes.finish(&self.generation)?;
        }
        self.shared.sync()?;
        let mut stages = lock(&self.shared.stages);
        let Some(stage) = stages.staged.get_mut(&self.id) else {
            let why = format!("{} was discarded while it was being received", self.id);
            drop(stages);
            return Err(StageError::Rejected(why));
        };
        if let Some(manifest) = self.manifest.take() {
            *stage = Stage::Ready {
                generation: Arc::clone(&self.generation),
                manifest: Box::new(manifest),
                policy: self.policy.take().unwrap_or_default(),
            };
        }
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if self.manifest.is_none() {
            return;
        }
        if let Some(tables) = self.tables.take() {
            // What it writes is deleted below.
            let _ = tables.finish();
        }
        lock(&self.shared.stages).staged.remove(&self.id);
        if let Err(error) = self.shared.delete_unused(&[Arc::clone(&self.generation)]) {
            tracing::error!(%error, "an incomplete snapshot could not be deleted");
        }
    }
}
