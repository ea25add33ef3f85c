//! Database of the records that other peers store at this node, in the folder `dht_records` of the node's
//! folder.
//!
//! It is apart from the database of blocks, so that the writes of strangers neither delay it nor fill its
//! journal, and damage costs no content. Nothing in it is irreplaceable: providers announce themselves again
//! within a day. So it is never synced, a damaged one is replaced by an empty one, and after a failed write
//! the node serves on without stored records.

use crate::store::lock;
use crate::swarm::addresses::Scope;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, Slice};
use std::ops::Bound;
use std::path::Path;
use std::sync::{Arc, Mutex};

/// Name of the folder.
const FOLDER: &str = "dht_records";
/// Read cache, in bytes.
const CACHE_BYTES: u64 = 4 << 20;
/// Memory for records of one DHT before they are written to a table, in bytes.
const MEMTABLE_BYTES: u64 = 2 << 20;
/// Size limit of the journal on disk, in bytes: fjall's minimum.
const JOURNAL_BYTES: u64 = 64 << 20;

/// The database; clones share it. The default one is closed: it stores nothing.
#[derive(Clone, Default)]
pub(crate) struct RecordDatabase {
    open: Arc<Mutex<Option<Open>>>,
}

struct Open {
    public: Keyspace,
    local: Keyspace,
    // Dropped last.
    _database: Database,
}

impl Open {
    fn at(path: &Path) -> fjall::Result<Open> {
        let database = Database::builder(path)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNAL_BYTES)
            .worker_threads(1)
            .open()?;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
        Ok(Open {
            public: database.keyspace("public", options)?,
            local: database.keyspace("local", options)?,
            _database: database,
        })
    }

    fn of(&self, scope: Scope) -> &Keyspace {
        match scope {
            Scope::Public => &self.public,
            Scope::Local | Scope::Machine => &self.local,
        }
    }
}

impl std::fmt::Debug for RecordDatabase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecordDatabase").finish_non_exhaustive()
    }
}

impl RecordDatabase {
    /// Opens or creates the database; a damaged one is replaced. Blocks the thread.
    pub(crate) fn open(node_folder: &Path) -> RecordDatabase {
        let path = node_folder.join(FOLDER);
        let opened = Open::at(&path).or_else(|error| {
            let shown = path.display();
            tracing::warn!(path = %shown, %error, "unreadable records of the dht are removed");
            std::fs::remove_dir_all(&path).map_err(fjall::Error::Io)?;
            Open::at(&path)
        });
        let open = opened.inspect_err(|error| {
            let path = path.display();
            tracing::warn!(%path, %error, "the database for records of the dht cannot be made");
        });
        RecordDatabase {
            open: Arc::new(Mutex::new(open.ok())),
        }
    }

    /// Closes the database and releases its files. Blocks the thread.
    pub(crate) fn close(&self) {
        let open = lock(&self.open).take();
        drop(open);
    }

    /// Returns whether records can be stored.
    pub(super) fn is_open(&self) -> bool {
        lock(&self.open).is_some()
    }

    /// Runs an operation; the database is closed after a failed one.
    fn run<T>(&self, scope: Scope, operation: impl FnOnce(&Keyspace) -> fjall::Result<T>) -> Option<T> {
        let mut open = lock(&self.open);
        match operation(open.as_ref()?.of(scope)) {
            Ok(result) => Some(result),
            Err(error) => {
                tracing::warn!(%error, "records of the dht cannot be stored: none are until a restart");
                let closed = open.take();
                drop(open);
                drop(closed);
                None
            }
        }
    }

    /// Returns the value of a key, if there is one.
    pub(super) fn get(&self, scope: Scope, key: &[u8]) -> Option<Slice> {
        self.run(scope, |records| records.get(key)).flatten()
    }

    /// Sets the value of a key. Returns whether it was stored.
    pub(super) fn insert(&self, scope: Scope, key: &[u8], value: Vec<u8>) -> bool {
        self.run(scope, |records| records.insert(key, value)).is_some()
    }

    /// Removes a key. Returns whether that succeeded.
    pub(super) fn remove(&self, scope: Scope, key: &[u8]) -> bool {
        self.run(scope, |records| records.remove(key)).is_some()
    }

    /// Returns up to `count` entries with keys above `after`, in their order.
    pub(super) fn entries(&self, scope: Scope, after: &[u8], count: usize) -> Vec<(Slice, Slice)> {
        let range = (Bound::Excluded(after), Bound::Unbounded);
        let read = self.run(scope, |records| {
            let entries = records.range::<&[u8], _>(range).take(count);
            entries
                .map(fjall::Guard::into_inner)
                .collect::<fjall::Result<Vec<_>>>()
        });
        read.unwrap_or_default()
    }
}
