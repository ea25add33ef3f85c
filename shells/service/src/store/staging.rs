//! Incoming snapshots. Each is checked and written into a new generation, which stays invisible until a batch
//! with [`StoreOp::InstallSnapshot`](cluster_core::StoreOp::InstallSnapshot) makes it the one in use. The
//! next opening deletes the remains of one that a crash interrupted.

use std::collections::BTreeMap;
use std::sync::Arc;

use cluster_core::{Cid, Manifest, Policy, SnapshotId, encode};

use super::error::{StageError, StoreError};
use super::keys;
use super::search_index;
use super::shared::{Shared, lock};
use super::snapshot::{Chunk, read_chunk};
use super::spaces::{self, Generation};

/// Snapshots staged at once: one that waits for the core's decision while a new leader's arrives. Each
/// takes the disk space of a pinset.
const STAGED_MAX: usize = 2;

/// Number of keys in one write, which takes about 1 ms, during which the driver loop may wait.
const WRITE: usize = 1000;

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
        let number = {
            let mut stages = lock(&self.shared.stages);
            if stages.staged.len() >= STAGED_MAX {
                return Err(StageError::Busy(STAGED_MAX));
            }
            if stages.staged.insert(id, Stage::Receiving).is_some() {
                return Err(StageError::Rejected(format!("{id} is staged already")));
            }
            stages.next()
        };
        let generation = spaces::generation(&self.shared.db, number, number).map_err(|error| {
            lock(&self.shared.stages).staged.remove(&id);
            StoreError::Write(error)
        })?;
        Ok(Staging {
            shared: Arc::clone(&self.shared),
            id,
            manifest: Some(manifest),
            generation: Arc::new(generation),
            last: None,
            pins: 0,
            policy: None,
        })
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
    last: Option<Cid>,
    pins: u64,
    /// `None` until it has come; a snapshot without one has no chunk of it.
    policy: Option<Policy>,
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
        let mut batch = self.shared.db.batch();
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
            for key in keys::index(&pin) {
                batch.insert(&self.generation.index, key, Vec::new());
            }
            for (key, value) in search_index::entries(&pin) {
                batch.insert(&self.generation.search, key, value);
            }
            batch.insert(&self.generation.pins, pin.cid.as_bytes(), bytes);
            self.last = Some(pin.cid);
            if batch.len() >= WRITE {
                std::mem::replace(&mut batch, self.shared.db.batch())
                    .commit()
                    .map_err(StoreError::Write)?;
            }
        }
        batch.commit().map_err(StoreError::Write)?;
        spaces::bound_memory(&self.generation.keyspaces())?;
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
        lock(&self.shared.stages).staged.remove(&self.id);
        if let Err(error) = self.shared.delete_unused(&[Arc::clone(&self.generation)]) {
            tracing::error!(%error, "an incomplete snapshot could not be deleted");
        }
    }
}
