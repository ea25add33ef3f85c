//! One peer's disk: what is written, which every read sees, and what is durable, which survives a power cut.
//! Batches wait between the two in order; a cut keeps any prefix of them, a kill keeps them all.

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

    /// Opens the database, unless its check finds damage, or nothing can be written: each opening writes
    /// which process it is. What that is about to read must not be lost later, so it is synced first.
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

    /// The newest batch that a sync that starts at once would cover.
    pub(crate) fn newest(&self) -> Option<BatchId> {
        self.unsynced.back().map(|batch| batch.id)
    }

    /// A sync that covers everything up to `through` is done.
    pub(crate) fn synced(&mut self, through: BatchId) {
        while self.unsynced.front().is_some_and(|batch| batch.id <= through) {
            let batch = self.unsynced.pop_front().expect("there is a first one");
            for write in &batch.writes {
                self.durable.write(write).expect("it was written before");
            }
        }
    }

    /// The power goes: of what was not synced, a prefix happens to have reached the disk.
    pub(crate) fn cut(&mut self, rng: &mut Rng) -> usize {
        let kept = rng.index(self.unsynced.len() + 1);
        let lost = self.unsynced.len() - kept;
        self.cut_to(kept);
        lost
    }

    /// Batches that a cut may lose.
    pub(crate) fn unsynced(&self) -> usize {
        self.unsynced.len()
    }

    /// The power goes, and the first `kept` of what was not synced happen to have reached the disk.
    pub(crate) fn cut_to(&mut self, kept: usize) {
        if kept > 0 {
            let through = self.unsynced[kept - 1].id;
            self.synced(through);
        }
        self.unsynced.clear();
        self.written = self.durable.clone();
    }

    /// Makes all that was written durable, and `ops` after it: what an operator's tool does while the process
    /// is down.
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

    /// Keeps a snapshot that arrived until the core has decided.
    pub(crate) fn stage(&mut self, snapshot: Arc<Snapshot>) -> SnapshotId {
        self.next_staged += 1;
        let id = SnapshotId(self.next_staged);
        self.staged.insert(id, snapshot);
        id
    }

    /// Forgets a staged snapshot; false when there is none.
    pub(crate) fn discard(&mut self, snapshot: SnapshotId) -> bool {
        self.staged.remove(&snapshot).is_some()
    }

    /// Snapshots that were installed.
    pub(crate) fn installed(&self) -> u64 {
        self.installed
    }

    /// Snapshots that wait for a decision.
    pub(crate) fn staged(&self) -> usize {
        self.staged.len()
    }
}
