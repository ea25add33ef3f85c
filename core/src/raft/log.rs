//! The log in memory, as Raft's storage. The node keeps it bounded by compaction.

#![allow(
    clippy::field_reassign_with_default,
    reason = "generated structs have hidden fields"
)]

use std::collections::VecDeque;

use raft::eraftpb::{ConfState, Entry, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Storage, StorageError};

use crate::ids::{Index, Term};
use crate::members::Members;
use crate::planted::planted;
use crate::snapshot::Applied;

/// All log entries after the compacted ones.
#[derive(Clone)]
pub(super) struct Log {
    entries: VecDeque<Entry>,
    bytes: usize,
    /// Index and term of the last compacted entry.
    pub(super) compacted: (Index, Term),
    /// Raft state at start; Raft itself keeps the later ones.
    pub(super) start: RaftState,
    /// Applied position, from which a snapshot would be taken.
    pub(super) applied: Applied,
    /// The membership as of `applied`.
    pub(super) members: Members,
}

impl Log {
    pub(super) fn new(
        start: RaftState,
        compacted: (Index, Term),
        entries: Vec<Entry>,
        applied: Applied,
        members: Members,
    ) -> Self {
        let bytes = entries.iter().map(size).sum();
        Self {
            entries: entries.into(),
            bytes,
            compacted,
            start,
            applied,
            members,
        }
    }

    pub(super) fn last(&self) -> Index {
        self.compacted.0 + self.entries.len() as u64
    }

    pub(super) fn len(&self) -> u64 {
        self.entries.len() as u64
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Iterates over the entries after `index`.
    pub(super) fn after(&self, index: Index) -> impl Iterator<Item = &Entry> {
        self.entries.iter().skip_while(move |entry| entry.index <= index)
    }

    /// Appends entries, after truncating the log before the first one's index.
    pub(super) fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        assert!(
            first.index > self.compacted.0,
            "compacted entries are never replaced"
        );
        assert!(first.index <= self.last() + 1, "entries are contiguous");
        while self.last() >= first.index {
            self.bytes -= self.entries.pop_back().map_or(0, |entry| size(&entry));
        }
        self.bytes += entries.iter().map(size).sum::<usize>();
        self.entries.extend(entries.iter().cloned());
    }

    /// Drops all entries up to `index` (inclusive), which must exist. Returns its term.
    pub(super) fn compact(&mut self, index: Index) -> Term {
        let term = self.term(index).expect("`index` is in the log");
        while self.compacted.0 < index {
            let entry = self.entries.pop_front().expect("`index` is in the log");
            if !planted!(LogBytesDrift) {
                self.bytes -= size(&entry);
            }
            self.compacted = (entry.index, entry.term);
        }
        term
    }

    /// Empties the log after a snapshot.
    pub(super) fn reset(&mut self, applied: Applied, members: Members) {
        self.entries.clear();
        self.bytes = 0;
        self.compacted = (applied.index, applied.term);
        self.applied = applied;
        self.members = members;
    }
}

fn size(entry: &Entry) -> usize {
    // Memory of the struct itself.
    entry.data.len() + entry.context.len() + 128
}

/// Converts the membership to Raft's configuration state.
pub(super) fn conf_state(members: &Members) -> ConfState {
    let ids = |set: &std::collections::BTreeSet<crate::ids::RaftId>| set.iter().map(|id| id.0).collect();
    let mut state = ConfState::default();
    state.voters = ids(&members.voters);
    state.voters_outgoing = ids(&members.outgoing);
    if planted!(LearnerCounted) {
        state.voters.extend(ids(&members.learners));
        return state;
    }
    state.learners = ids(&members.learners);
    state.learners_next = ids(&members.learners_next);
    state.auto_leave = members.auto_leave;
    state
}

impl Storage for Log {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(self.start.clone())
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.compacted.0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        assert!(high <= self.last() + 1, "raft requests existing entries");
        let from = usize::try_from(low - self.compacted.0 - 1).expect("fits in memory");
        let to = usize::try_from(high - self.compacted.0 - 1).expect("fits in memory");
        let mut entries: Vec<Entry> = self.entries.range(from..to).cloned().collect();
        raft::util::limit_size(&mut entries, max_size.into());
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.compacted.0 {
            return Ok(self.compacted.1);
        }
        let Some(position) = index.checked_sub(self.compacted.0 + 1) else {
            return Err(Error::Store(StorageError::Compacted));
        };
        let position = usize::try_from(position).expect("fits in memory");
        self.entries
            .get(position)
            .map(|entry| entry.term)
            .ok_or(Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.compacted.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    /// Returns only the metadata: the shell streams the pins.
    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        if self.applied.index == 0 || self.applied.index < request_index {
            return Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        let mut snapshot = Snapshot::default();
        let metadata = snapshot.mut_metadata();
        metadata.index = self.applied.index;
        metadata.term = self.applied.term;
        metadata.set_conf_state(conf_state(&self.members));
        Ok(snapshot)
    }
}
