//! Translation of the core's batches into batches of fjall.

use std::collections::VecDeque;
use std::fmt::Display;
use std::sync::{Arc, PoisonError};

use cluster_core::{
    Batch, BatchId, Index, Lane, LogEntry, Manifest, Members, Pin, Policy, SnapshotId, StoreOp, Term, encode,
};
use fjall::{Keyspace, Readable};

use super::counting::ListChange;
use super::error::StoreError;
use super::keys;
use super::open::{Link, Store};
use super::record::{self, Head};
use super::search_index;
use super::shared::{Shared, lock};
use super::spaces::{self, Generation};

/// Removed log entries that one batch deletes from disk: about a millisecond's work, and ten times the
/// entries that a batch appends, so the rest never piles up.
const PURGE_PER_BATCH: u64 = 1000;

/// Keyspace of a key. A batch is sorted by this and the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Space {
    Log,
    Meta,
    Pins,
    Index,
    Search,
    Local,
    Queue,
}

/// A key with its new value, or its deletion.
struct Put {
    space: Space,
    key: Vec<u8>,
    value: Option<Vec<u8>>,
}

/// A batch being built. None of it is visible before it is committed.
struct BatchBuilder<'a> {
    id: BatchId,
    shared: &'a Shared,
    head: Head,
    links: &'a mut VecDeque<Link>,
    generation: Arc<Generation>,
    puts: Vec<Put>,
    /// Change of the number of CIDs that wait for their first attempt.
    waiting: i64,
    list_changes: Vec<ListChange>,
    /// The snapshot that this batch installs.
    installed: Option<SnapshotId>,
    /// The new policy, if this batch changes it.
    policy: Option<Policy>,
}

impl Store {
    /// Applies a batch atomically, unsynced; it is visible to reads when this returns.
    ///
    /// # Errors
    /// [`StoreError::Contract`] for a batch that contradicts the stored state, of which nothing is written;
    /// another one when the disk fails. The process must end in both cases.
    pub fn write(&mut self, batch: &Batch) -> Result<(), StoreError> {
        let Some(head) = self.head.clone() else {
            return Err(StoreError::Contract("nothing is founded yet".to_owned()));
        };
        let mut draft = BatchBuilder {
            id: batch.id,
            shared: &self.shared,
            head,
            links: &mut self.links,
            generation: Arc::clone(&self.generation),
            puts: Vec::with_capacity(batch.ops.len() * 2 + 1),
            waiting: 0,
            list_changes: Vec::new(),
            installed: None,
            policy: None,
        };
        for op in &batch.ops {
            draft.add(op)?;
        }
        draft.purge();
        draft.head.seq += 1;
        if let Some(what) = draft.head.contradiction() {
            return Err(draft.contract(what));
        }
        let BatchBuilder {
            head,
            generation,
            mut puts,
            waiting,
            list_changes,
            installed,
            policy,
            ..
        } = draft;
        puts.push(Put {
            space: Space::Meta,
            key: keys::HEAD.to_vec(),
            value: Some(record::seal(keys::HEAD, &head)),
        });
        if let Some(marker) = self.shared.search_marker(&generation, &head) {
            puts.push(Put {
                space: Space::Meta,
                key: keys::SEARCH.to_vec(),
                value: Some(marker),
            });
        }
        self.commit(puts, &generation, head.seq, (waiting, &list_changes))?;
        if let Some(policy) = policy {
            self.shared.set_policy(policy);
        }
        if let Some(snapshot) = installed {
            let replaced = std::mem::replace(&mut self.generation, generation);
            self.shared.retire(head.seq, replaced);
            lock(&self.shared.stages).installed(snapshot);
            lock(&self.floors).forget_expiries();
        }
        self.head = Some(head);
        Ok(())
    }

    fn commit(
        &self,
        mut puts: Vec<Put>,
        generation: &Arc<Generation>,
        seq: u64,
        (waiting, list_changes): (i64, &[ListChange]),
    ) -> Result<(), StoreError> {
        // The last write to a key wins; within one fjall batch their order would be undefined.
        puts.sort_by(|a, b| (a.space, &a.key).cmp(&(b.space, &b.key)));
        let fixed = &self.shared.fixed;
        let mut batch = fjall::OwnedWriteBatch::with_capacity(self.shared.db.clone(), puts.len());
        let mut puts = puts.into_iter().peekable();
        let mut floors = lock(&self.floors);
        while let Some(put) = puts.next() {
            let overwritten = |next: &Put| next.space == put.space && next.key == put.key;
            if puts.peek().is_some_and(overwritten) {
                continue;
            }
            let keyspace: &Keyspace = match put.space {
                Space::Log => &fixed.log,
                Space::Meta => &fixed.meta,
                Space::Pins => &generation.pins,
                Space::Index => &generation.index,
                Space::Search => generation.search.of(&put.key),
                Space::Local => &fixed.local,
                Space::Queue => &fixed.queue,
            };
            match put.value {
                Some(value) => {
                    match put.space {
                        Space::Queue => floors.queued(&put.key),
                        Space::Index => floors.indexed(&put.key),
                        Space::Log | Space::Meta | Space::Pins | Space::Search | Space::Local => {}
                    }
                    batch.insert(keyspace, put.key, value);
                }
                None => batch.remove(keyspace, put.key),
            }
        }
        drop(floors);
        let mut current = self
            .shared
            .current
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        batch.commit().map_err(StoreError::Write)?;
        self.shared.note_written(seq);
        self.shared.waiting.changed(waiting);
        self.shared.list_counts.changed(list_changes);
        if current.number != generation.number {
            self.shared.list_counts.forget();
            *current = Arc::clone(generation);
        }
        drop(current);
        spaces::bound_memory(&[&fixed.log, &fixed.meta, &fixed.local, &fixed.queue])?;
        spaces::bound_memory(&generation.keyspaces())
    }
}

impl BatchBuilder<'_> {
    /// Returns the error for a batch that contradicts the stored state.
    fn contract(&self, what: impl Display) -> StoreError {
        StoreError::Contract(format!("batch {}: {what}", self.id))
    }

    fn add(&mut self, op: &StoreOp) -> Result<(), StoreError> {
        match op {
            StoreOp::Append { entries } => self.append(entries)?,
            StoreOp::Compact { index, term } => self.compact(*index, *term)?,
            StoreOp::DeleteLocal { cid } => self.put(Space::Local, cid.as_bytes(), None),
            StoreOp::DeletePin { pin } => self.delete_pin(pin),
            StoreOp::Dequeue { key } => {
                self.waiting -= i64::from(key.lane == Lane::Fresh);
                self.put(Space::Queue, keys::queue(key), None);
            }
            StoreOp::Enqueue { key } => {
                self.waiting += i64::from(key.lane == Lane::Fresh);
                self.put(Space::Queue, keys::queue(key), Some(Vec::new()));
            }
            StoreOp::InstallSnapshot { snapshot, manifest } => self.install(*snapshot, manifest)?,
            StoreOp::PutLocal { cid, local } => {
                self.put(Space::Local, cid.as_bytes(), Some(encode(local)));
            }
            StoreOp::PutPin { pin, previous } => self.put_pin(pin, previous.as_deref()),
            StoreOp::PutWindow { window } => self.put_meta(keys::window(window.origin), window),
            StoreOp::SetApplied { applied } => self.head.applied = *applied,
            StoreOp::SetPolicy { policy } => self.put_policy(policy),
            StoreOp::SetHardState { hard_state } => self.head.hard_state = *hard_state,
            StoreOp::SetMembers { members } => self.put_members(members),
            StoreOp::SetReconciling { reconciling } => self.head.reconciling = *reconciling,
        }
        Ok(())
    }

    fn put(&mut self, space: Space, key: impl Into<Vec<u8>>, value: Option<Vec<u8>>) {
        let key = key.into();
        self.puts.push(Put { space, key, value });
    }

    fn put_meta(&mut self, key: impl Into<Vec<u8>>, record: &impl serde::Serialize) {
        let key = key.into();
        let value = record::seal(&key, record);
        self.put(Space::Meta, key, Some(value));
    }

    fn put_members(&mut self, members: &Members) {
        self.put(Space::Meta, keys::MEMBERS, Some(record::seal_members(members)));
    }

    fn put_policy(&mut self, policy: &Policy) {
        let sealed = record::seal_policy(policy);
        self.put(Space::Meta, keys::POLICY, Some(sealed));
        self.policy = Some(policy.clone());
    }

    fn append(&mut self, entries: &[LogEntry]) -> Result<(), StoreError> {
        let first = entries.first().map(|entry| entry.index);
        let first = first.ok_or_else(|| self.contract("appends nothing"))?;
        let (compacted, last) = (self.head.compacted.0, self.head.last);
        if first <= compacted || first > last + 1 {
            return Err(self.contract(format_args!(
                "appends entry {first} to a log of {compacted} to {last}"
            )));
        }
        let end = first + entries.len() as u64;
        (end..=last).for_each(|index| self.put(Space::Log, keys::log(index), None));
        let mut term = self.truncate_links(first - 1);
        for (index, entry) in (first..).zip(entries) {
            if entry.index != index || entry.term < term {
                let what = format!("entry {} of term {}", entry.index, entry.term);
                return Err(self.contract(format_args!(
                    "appends {what} in the place of {index}, after term {term}"
                )));
            }
            term = entry.term;
            let (value, chain) = record::chain_entry(entry, self.head.chain);
            self.put(Space::Log, keys::log(index), Some(value));
            self.links.push_back(Link { chain, term });
            self.head.chain = chain;
            self.head.last = index;
        }
        Ok(())
    }

    /// Drops the links after `last`, which becomes the last entry; returns its term.
    fn truncate_links(&mut self, last: Index) -> Term {
        let kept = usize::try_from(last - self.head.compacted.0).unwrap_or(usize::MAX);
        self.links.truncate(kept);
        let link = self.links.back().copied().unwrap_or(Link {
            chain: self.head.compacted_chain,
            term: self.head.compacted.1,
        });
        self.head.last = last;
        self.head.chain = link.chain;
        link.term
    }

    fn compact(&mut self, index: Index, term: Term) -> Result<(), StoreError> {
        let (compacted, last) = (self.head.compacted.0, self.head.last);
        if index < compacted || index > last {
            return Err(self.contract(format_args!(
                "drops the log through {index}, of {compacted} to {last}"
            )));
        }
        let dropped = usize::try_from(index - compacted).unwrap_or(usize::MAX);
        let Some(link) = self.links.drain(..dropped).next_back() else {
            return Ok(());
        };
        if link.term != term {
            return Err(self.contract(format_args!(
                "drops the log through {index} of term {term}, which is of {}",
                link.term
            )));
        }
        self.head.compacted = (index, term);
        self.head.compacted_chain = link.chain;
        self.purge_later(compacted + 1, index + 1);
        Ok(())
    }

    /// Leaves the deletion of entries from `from` up to `to` to later batches.
    fn purge_later(&mut self, from: Index, to: Index) {
        if self.head.purge_from >= self.head.purge_to {
            self.head.purge_from = from;
        }
        self.head.purge_to = to;
    }

    fn purge(&mut self) {
        let to = self
            .head
            .purge_to
            .min(self.head.purge_from.saturating_add(PURGE_PER_BATCH));
        (self.head.purge_from..to).for_each(|index| self.put(Space::Log, keys::log(index), None));
        self.head.purge_from = to.max(self.head.purge_from);
    }

    fn put_pin(&mut self, pin: &Pin, previous: Option<&Pin>) {
        self.put(Space::Pins, pin.cid.as_bytes(), Some(encode(pin)));
        let new = keys::index(pin);
        let old = previous.map(keys::index).unwrap_or_default();
        for key in old.iter().filter(|key| !new.contains(key)) {
            self.put(Space::Index, key.as_slice(), None);
        }
        for key in new.into_iter().filter(|key| !old.contains(key)) {
            self.put(Space::Index, key, Some(Vec::new()));
        }
        self.put_search_entries(previous, Some(pin));
    }

    /// Replaces the entries of a pin in the search index.
    fn put_search_entries(&mut self, old: Option<&Pin>, new: Option<&Pin>) {
        // As in a change of allocations.
        if let (Some(old), Some(new)) = (old, new)
            && old.timestamp == new.timestamp
            && old.options.name == new.options.name
            && old.options.metadata == new.options.metadata
        {
            return;
        }
        let old = old.map(search_index::entries).unwrap_or_default();
        let new = new.map(search_index::entries).unwrap_or_default();
        for (key, _) in &old {
            if new.binary_search_by(|(other, _)| other.cmp(key)).is_err() {
                self.list_changes
                    .extend(search_index::meta_list(key).map(|list| (list, -1)));
                self.put(Space::Search, key.as_slice(), None);
            }
        }
        for entry in new {
            if old.binary_search(&entry).is_err() {
                self.list_changes
                    .extend(search_index::meta_list(&entry.0).map(|list| (list, 1)));
                self.put(Space::Search, entry.0, Some(entry.1));
            }
        }
    }

    fn delete_pin(&mut self, pin: &Pin) {
        self.put(Space::Pins, pin.cid.as_bytes(), None);
        for key in keys::index(pin) {
            self.put(Space::Index, key, None);
        }
        self.put_search_entries(Some(pin), None);
    }

    fn install(&mut self, snapshot: SnapshotId, manifest: &Manifest) -> Result<(), StoreError> {
        let staged = lock(&self.shared.stages).ready(snapshot, manifest);
        let (staged, policy) =
            staged.ok_or_else(|| self.contract(format_args!("snapshot {snapshot} is not staged whole")))?;
        // The snapshot replaces all earlier changes of this batch to the pinset.
        self.puts
            .retain(|put| !matches!(put.space, Space::Pins | Space::Index | Space::Search));
        self.generation = staged;
        self.head.generation = self.generation.number;
        self.installed = Some(snapshot);

        let (compacted, last) = (self.head.compacted.0, self.head.last);
        let applied = manifest.applied;
        if applied.index < compacted {
            return Err(self.contract(format_args!(
                "installed a pinset as of {} over a later one",
                applied.index
            )));
        }
        // All of them at once: later entries will not follow these, and an install is rare.
        let first = if self.head.purge_from < self.head.purge_to {
            self.head.purge_from
        } else {
            compacted + 1
        };
        (first..=last).for_each(|index| self.put(Space::Log, keys::log(index), None));
        (self.head.purge_from, self.head.purge_to) = (0, 0);
        self.links.clear();
        self.head.compacted = (applied.index, applied.term);
        self.head.compacted_chain = 0;
        self.head.chain = 0;
        self.head.last = applied.index;
        self.head.applied = applied;

        self.put_members(&manifest.members);
        if !policy.is_empty() || !self.shared.policy().is_empty() {
            self.put_policy(&policy);
        }
        for key in self.stored_windows()? {
            self.put(Space::Meta, key, None);
        }
        for window in &manifest.windows {
            self.put_meta(keys::window(window.origin), window);
        }
        Ok(())
    }

    /// The keys of all windows, on disk or in this batch.
    fn stored_windows(&self) -> Result<Vec<Vec<u8>>, StoreError> {
        let is_window = |put: &&Put| put.space == Space::Meta && put.key.starts_with(keys::WINDOWS);
        let drafted = self.puts.iter().filter(is_window).map(|put| Ok(put.key.clone()));
        let snapshot = self.shared.db.snapshot();
        let stored = snapshot.prefix(&self.shared.fixed.meta, keys::WINDOWS);
        let stored = stored.map(|guard| {
            let key = guard.key().map_err(StoreError::Read)?;
            Ok(key.to_vec())
        });
        stored.chain(drafted).collect()
    }
}
