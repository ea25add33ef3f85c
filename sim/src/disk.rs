//! One peer's disk, with two levels: written content, which reads see, and durable content, which survives a
//! power cut. Batches wait between the two in order; a power cut keeps any prefix of them, a kill keeps all.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use cluster_core::{Batch, BatchId, Incarnation, Recovered, SnapshotId, StoreOp};

use crate::rng::Rng;
use crate::store::{Snapshot, Store, Write};

/// Reason why a process ends, or does not start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DiskError {
    /// The content of the disk differs from what was written.
    Damaged,
    /// There is no room to write.
    Full,
}

/// A batch that a sync has not covered yet.
#[derive(Debug, Clone)]
struct Unsynced {
    id: BatchId,
    writes: Vec<Write>,
}

/// One peer's disk.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    incarnation: Incarnation,
    boot: u64,
    pub(crate) written: Store,
    pub(crate) durable: Store,
    unsynced: VecDeque<Unsynced>,
    staged: BTreeMap<SnapshotId, Arc<Snapshot>>,
    next_staged: u64,
    installed: u64,
    /// The newest batch for which the core wants a report.
    pub(crate) wants_sync: Option<BatchId>,
    /// Bytes of log that the last batch dropped, at least and at most.
    pub(crate) dropped: [usize; 2],
    /// Entries of the log that the last batch dropped.
    pub(crate) dropped_entries: u64,
    /// True if writes fail.
    pub(crate) full: bool,
    /// True if its content is damaged.
    pub(crate) rotten: bool,
}

impl Disk {
    pub(crate) fn new(incarnation: Incarnation, store: Store) -> Self {
        Self {
            incarnation,
            boot: 0,
            written: store.clone(),
            durable: store,
            unsynced: VecDeque::new(),
            staged: BTreeMap::new(),
            next_staged: 0,
            installed: 0,
            wants_sync: None,
            dropped: [0, 0],
            dropped_entries: 0,
            full: false,
            rotten: false,
        }
    }

    pub(crate) fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Returns the number of processes that have been started on it.
    pub(crate) fn boot(&self) -> u64 {
        self.boot
    }

    /// Opens the database. Fails if it is damaged or full: each opening writes the boot number. Syncs first,
    /// because the content that the process reads must not be lost later.
    pub(crate) fn open(&mut self) -> Result<Recovered, DiskError> {
        if self.rotten {
            return Err(DiskError::Damaged);
        }
        if self.full {
            return Err(DiskError::Full);
        }
        self.boot += 1;
        self.staged.clear();
        self.wants_sync = None;
        if let Some(last) = self.unsynced.back().map(|batch| batch.id) {
            self.synced(last);
        }
        Ok(self.written.recovered(self.incarnation, self.boot))
    }

    /// Makes a batch visible to reads.
    pub(crate) fn write(&mut self, batch: &Batch) -> Result<(), String> {
        let mut writes = Vec::with_capacity(batch.ops.len());
        self.dropped = [0, 0];
        self.dropped_entries = 0;
        for op in &batch.ops {
            if let StoreOp::Compact { index, .. } = op {
                let [least, most] = self.written.sizes_through(*index);
                self.dropped = [self.dropped[0] + least, self.dropped[1] + most];
                self.dropped_entries += index.saturating_sub(self.written.compacted.0);
            }
            let write = self.complete(op)?;
            self.written.write(&write)?;
            writes.push(write);
        }
        self.written.audit()?;
        self.unsynced.push_back(Unsynced { id: batch.id, writes });
        if batch.sync {
            self.wants_sync = Some(batch.id);
        }
        Ok(())
    }

    fn complete(&mut self, op: &StoreOp) -> Result<Write, String> {
        let StoreOp::InstallSnapshot { snapshot, manifest } = op else {
            return Ok(Write::Op(Box::new(op.clone())));
        };
        let staged = self
            .staged
            .remove(snapshot)
            .ok_or_else(|| format!("snapshot {snapshot} is not staged"))?;
        if staged.manifest != *manifest {
            return Err(format!("snapshot {snapshot} is installed with another manifest"));
        }
        self.installed += 1;
        Ok(Write::Install(staged))
    }

    /// Returns the newest batch that a sync starting now would cover.
    pub(crate) fn newest(&self) -> Option<BatchId> {
        self.unsynced.back().map(|batch| batch.id)
    }

    /// Records that a sync of everything up to `through` is done.
    pub(crate) fn synced(&mut self, through: BatchId) {
        while self.unsynced.front().is_some_and(|batch| batch.id <= through) {
            let batch = self.unsynced.pop_front().expect("there is a first one");
            for write in &batch.writes {
                self.durable.write(write).expect("it was written before");
            }
        }
    }

    /// Cuts the power: of the batches that are not synced, a random prefix survives. Returns the number of
    /// lost ones.
    pub(crate) fn cut(&mut self, rng: &mut Rng) -> usize {
        let kept = rng.index(self.unsynced.len() + 1);
        let lost = self.unsynced.len() - kept;
        self.cut_to(kept);
        lost
    }

    /// Returns the number of batches that a power cut may lose.
    pub(crate) fn unsynced(&self) -> usize {
        self.unsynced.len()
    }

    /// Cuts the power: of the batches that are not synced, the first `kept` survive.
    pub(crate) fn cut_to(&mut self, kept: usize) {
        if kept > 0 {
            let through = self.unsynced[kept - 1].id;
            self.synced(through);
        }
        self.unsynced.clear();
        self.written = self.durable.clone();
    }

    /// Makes all writes durable, and then `ops`, as an operator's tool does while the process is down.
    pub(crate) fn rewrite(&mut self, ops: &[StoreOp]) {
        if let Some(last) = self.newest() {
            self.synced(last);
        }
        for op in ops {
            let write = Write::Op(Box::new(op.clone()));
            self.written
                .write(&write)
                .expect("a rescue is written to sound data");
        }
        self.durable = self.written.clone();
    }

    /// Stages a received snapshot until the core decides on it.
    pub(crate) fn stage(&mut self, snapshot: Arc<Snapshot>) -> SnapshotId {
        self.next_staged += 1;
        let id = SnapshotId(self.next_staged);
        self.staged.insert(id, snapshot);
        id
    }

    /// Drops a staged snapshot. Returns `false` if there is none.
    pub(crate) fn discard(&mut self, snapshot: SnapshotId) -> bool {
        self.staged.remove(&snapshot).is_some()
    }

    /// Returns the number of installed snapshots.
    pub(crate) fn installed(&self) -> u64 {
        self.installed
    }

    /// Returns the number of snapshots that wait for a decision.
    pub(crate) fn staged(&self) -> usize {
        self.staged.len()
    }
}
