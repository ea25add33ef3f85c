//! State shared by the parts of the store.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use cluster_core::Policy;
use fjall::{Database, Keyspace, PersistMode};

use super::counting::ListCounts;
use super::error::StoreError;
use super::folder::Folder;
use super::fresh_count::FreshCount;
use super::journal::ActiveJournal;
use super::keys;
use super::open::OnFatal;
use super::record::{self, Head};
use super::search_index::SearchMarker;
use super::spaces::{self, Fixed, Generation};
use super::staging::Stages;
use super::sync_marker::SyncMarker;
use crate::metrics::{metrics, observe_since};

/// The open database. Closed, and its folder unlocked, when the last handle is dropped: the fields are
/// dropped in this order.
pub(super) struct Shared {
    pub(super) db: Database,
    pub(super) fixed: Fixed,
    /// The generation in use. Locked for writing while a batch is committed: a database snapshot opened
    /// under the read lock has complete batches in it, and this generation. (fjall alone does not guarantee
    /// the first: creating or deleting a keyspace lets snapshots see a batch that is half applied.)
    pub(super) current: RwLock<Arc<Generation>>,
    /// The policy as of the last batch. Here as well as on disk, because every request of a client is
    /// checked against them.
    policy: RwLock<Arc<Policy>>,
    /// Number of batches written.
    written: AtomicU64,
    pub(super) waiting: FreshCount,
    pub(super) list_counts: ListCounts,
    pub(super) stages: Mutex<Stages>,
    durable: Mutex<Durable>,
    /// Replaced generations, each with the number of the batch that replaced it.
    retired: Mutex<Vec<(u64, Arc<Generation>)>>,
    /// True once the search index was found to contradict the pins.
    is_search_index_wrong: AtomicBool,
    on_fatal: Option<OnFatal>,
    pub(super) folder: Folder,
}

/// Files that a sync writes to.
struct Durable {
    journal: ActiveJournal,
    marker: SyncMarker,
    seq: u64,
}

impl Shared {
    pub(super) fn new(
        db: Database,
        fixed: Fixed,
        current: Generation,
        policy: Policy,
        (marker, seq): (SyncMarker, u64),
        folder: Folder,
        on_fatal: Option<OnFatal>,
    ) -> Self {
        let stages = Stages::new(current.number.max(current.search_number) + 1);
        let journal = ActiveJournal::new(folder.database());
        Self {
            db,
            fixed,
            current: RwLock::new(Arc::new(current)),
            policy: RwLock::new(Arc::new(policy)),
            written: AtomicU64::new(seq),
            waiting: FreshCount::default(),
            list_counts: ListCounts::default(),
            stages: Mutex::new(stages),
            durable: Mutex::new(Durable { journal, marker, seq }),
            retired: Mutex::new(Vec::new()),
            is_search_index_wrong: AtomicBool::new(false),
            on_fatal,
            folder,
        }
    }

    /// Returns the generation in use.
    pub(super) fn current(&self) -> Arc<Generation> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the policy.
    pub(super) fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the policy, once it is written.
    pub(super) fn set_policy(&self, policy: Policy) {
        let mut current = self.policy.write().unwrap_or_else(PoisonError::into_inner);
        *current = Arc::new(policy);
    }

    /// Sets the number of batches in the database.
    pub(super) fn note_written(&self, seq: u64) {
        self.written.store(seq, Ordering::Release);
    }

    /// Makes everything written so far survive power loss, then deletes the generations it replaced.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        let seq = self.sync_journal()?;
        self.delete_retired(seq)
    }

    /// Syncs the journal; returns the number of batches that are durable now.
    fn sync_journal(&self) -> Result<u64, StoreError> {
        let start = Instant::now();
        let mut durable = lock(&self.durable);
        let seq = self.written.load(Ordering::Acquire);
        // Hands the batches to the operating system only: fjall would block writes during its own sync.
        self.db.persist(PersistMode::Buffer).map_err(StoreError::Write)?;
        durable.journal.sync().map_err(StoreError::Sync)?;
        if seq > durable.seq {
            durable.marker.note(seq).map_err(StoreError::Sync)?;
            durable.seq = seq;
        }
        observe_since(&metrics().store_sync, start);
        Ok(seq)
    }

    /// As [`Self::sync`], and syncs the marker file too.
    pub(super) fn sync_all(&self) -> Result<(), StoreError> {
        self.sync()?;
        lock(&self.durable).marker.sync().map_err(StoreError::Sync)
    }

    /// Keeps a generation that batch `seq` replaces until that batch is durable.
    pub(super) fn retire(&self, seq: u64, generation: Arc<Generation>) {
        lock(&self.retired).push((seq, generation));
    }

    fn delete_retired(&self, seq: u64) -> Result<(), StoreError> {
        let ready: Vec<_> = lock(&self.retired).extract_if(.., |(at, _)| *at <= seq).collect();
        ready
            .iter()
            .try_for_each(|(_, generation)| spaces::delete(&self.db, &generation.keyspaces()))
    }

    /// Deletes generations that were never in use.
    pub(super) fn delete_unused(&self, generations: &[Arc<Generation>]) -> Result<(), StoreError> {
        let keyspaces: Vec<_> = generations.iter().flat_map(|unused| unused.keyspaces()).collect();
        self.delete_keyspaces(&keyspaces)
    }

    /// Deletes keyspaces that are not in use.
    pub(super) fn delete_keyspaces(&self, keyspaces: &[&Keyspace]) -> Result<(), StoreError> {
        if keyspaces.is_empty() {
            return Ok(());
        }
        let mut batch = self.db.batch();
        batch.insert(&self.fixed.meta, keys::TOUCH, record::seal(keys::TOUCH, &()));
        batch.commit().map_err(StoreError::Write)?;
        self.sync_journal()?;
        spaces::delete(&self.db, keyspaces)
    }

    /// Returns the encoded marker that the search index of a generation is complete as of `head`; `None`
    /// if it is wrong, so that the next opening rebuilds it.
    pub(super) fn search_marker(&self, generation: &Generation, head: &Head) -> Option<Vec<u8>> {
        let is_wrong = self.is_search_index_wrong.load(Ordering::Relaxed);
        let marker = SearchMarker::new(generation.search_number, head);
        (!is_wrong).then(|| record::seal(keys::SEARCH, &marker))
    }

    /// Records that the search index contradicts the pins.
    pub(super) fn distrust_search_index(&self) {
        if !self.is_search_index_wrong.swap(true, Ordering::Relaxed) {
            tracing::error!("the search index contradicts the pins: the next start of this peer rebuilds it");
        }
    }

    /// Ends the process, for callers that cannot return an error of the store.
    pub(super) fn fatal(&self, error: &StoreError) -> ! {
        tracing::error!(%error, "the store failed, the daemon stops");
        if let Some(on_fatal) = &self.on_fatal {
            on_fatal(error);
        }
        std::process::exit(1);
    }
}

/// Locks a mutex. No code that holds one of the store's locks leaves a partial change when it panics.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
