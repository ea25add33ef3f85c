//! The fjall database and its keyspaces, with workarounds for fjall's defects.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use fjall::compaction::Leveled;
use fjall::config::{FilterPolicy, PartitioningPolicy};
use fjall::{AbstractTree, Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::error::StoreError;
use super::keys;
use super::record;
use super::search_index::{self, Kind};

/// Default size of the block cache, in bytes. Random reads of a pinset of ten million pins gain from more
/// (measured: 32 MiB 10,000/s, 512 MiB 64,000/s); listings and writes do not.
pub(super) const CACHE: u64 = 16 << 20;

/// Size at which a memtable is flushed. fjall's 64 MiB would let seven keyspaces take 450 MB; with 6 MiB a
/// flush is short, and two in flight fit a small machine.
const MEMTABLE: u64 = 6 << 20;
/// For keyspaces with few live bytes that every batch rewrites: they are flushed before they keep old
/// journals alive.
const SMALL_MEMTABLE: u64 = 2 << 20;

/// Size of all journals on disk. The least that fjall accepts: it bounds the replay at a restart.
const JOURNALS: u64 = 64 << 20;

/// Worker threads. With several, fjall 3.1.13 keeps the first one from compactions: while one is waiting and
/// another worker is busy, it takes the request and puts it back, over and over (measured: a quarter of all
/// CPU time under load). With one, flushes wait for compactions, which [`compaction`] keeps short.
const WORKERS: usize = 1;

/// Size of a table, and tables of the first level that are merged at once. fjall's 64 MiB and 4 are for
/// memtables as large: with memtables of 6 MiB, 24 MiB of them would be merged with 256 MiB each time.
const TABLE: u64 = 8 << 20;
const FIRST_LEVEL_TABLES: u8 = 6;

/// Maximum number of table files open at once. A few hundred files hold tens of millions of pins; descriptors
/// are scarce where the limit of a process is 1,024.
const OPEN_FILES: usize = 200;

const PINS: &str = "pins.";
const INDEX: &str = "index.";
const SEARCH: &str = "search.";
const SEARCH_NAMES: &str = "search-names.";
const SEARCH_META: &str = "search-meta.";
const FIXED: [&str; 4] = ["log", "meta", "local", "queue"];

/// Keyspaces that exist as long as the folder.
pub(super) struct Fixed {
    pub(super) log: Keyspace,
    pub(super) meta: Keyspace,
    pub(super) local: Keyspace,
    pub(super) queue: Keyspace,
}

/// One generation of the pinset.
pub(super) struct Generation {
    pub(super) number: u64,
    pub(super) pins: Keyspace,
    pub(super) index: Keyspace,
    /// Number of the search index. It differs from that of the generation after a rebuild.
    pub(super) search_number: u64,
    pub(super) search: SearchIndex,
}

/// Keyspaces of a search index, one for each kind of key. New entries by time, and those of a metadata pair,
/// come after all others, so most of their tables need no merging, unless they also have keys of other kinds.
pub(super) struct SearchIndex {
    by_time: Keyspace,
    by_name: Keyspace,
    by_meta: Keyspace,
}

impl SearchIndex {
    fn open(db: &Database, number: u64) -> Result<Self, fjall::Error> {
        let [by_time, by_name, by_meta] = search_names(number);
        Ok(Self {
            by_time: keyspace(db, &by_time)?,
            by_name: keyspace(db, &by_name)?,
            by_meta: keyspace(db, &by_meta)?,
        })
    }

    /// Returns the keyspace of the keys that start like `key`.
    pub(super) fn of(&self, key: &[u8]) -> &Keyspace {
        match search_index::kind(key) {
            Kind::Time => &self.by_time,
            Kind::Name => &self.by_name,
            Kind::Meta => &self.by_meta,
        }
    }
}

/// Names of the keyspaces of a search index.
fn search_names(number: u64) -> [String; 3] {
    [SEARCH, SEARCH_NAMES, SEARCH_META].map(|prefix| format!("{prefix}{number}"))
}

impl Generation {
    /// All its keyspaces.
    pub(super) fn keyspaces(&self) -> [&Keyspace; 5] {
        let SearchIndex {
            by_time,
            by_name,
            by_meta,
        } = &self.search;
        [&self.pins, &self.index, by_time, by_name, by_meta]
    }
}

/// Opens or creates the database. fjall panics on some invalid bytes; here that is an ordinary error.
pub(super) fn open_database(path: &Path, cache: u64) -> Result<Database, OpenFailure> {
    let builder = || {
        Database::builder(path)
            .cache_size(cache)
            .max_journaling_size(JOURNALS)
            .worker_threads(WORKERS)
            .max_cached_files(Some(OPEN_FILES))
            // Batches are handed to the operating system when they are synced, not one by one.
            .manual_journal_persist(true)
            .open()
    };
    match catch_unwind(AssertUnwindSafe(builder)) {
        Ok(Ok(db)) => Ok(db),
        Ok(Err(error)) => Err(failure(error)),
        Err(_) => Err(OpenFailure::Damaged("its files contradict each other".to_owned())),
    }
}

/// Classifies an error of fjall, which has errors of the operating system in several variants.
pub(super) fn failure(error: fjall::Error) -> OpenFailure {
    if let fjall::Error::Io(error) = error {
        return OpenFailure::Io(error);
    }
    let mut cause: Option<&dyn std::error::Error> = Some(&error);
    while let Some(error) = cause {
        let of_system = error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::raw_os_error);
        if let Some(code) = of_system {
            return OpenFailure::Io(std::io::Error::from_raw_os_error(code));
        }
        cause = error.source();
    }
    OpenFailure::Damaged(error.to_string())
}

/// Failure of fjall to open its folder.
pub(super) enum OpenFailure {
    /// Its files are invalid; the text says how.
    Damaged(String),
    /// The operating system reports an error.
    Io(std::io::Error),
}

/// Returns the first missing keyspace of those that every founded database has.
pub(super) fn missing_fixed(db: &Database) -> Option<&'static str> {
    FIXED.into_iter().find(|name| !db.keyspace_exists(name))
}

/// Returns whether the keyspaces of a generation exist, apart from its search index.
pub(super) fn has_generation(db: &Database, number: u64) -> bool {
    db.keyspace_exists(&format!("{PINS}{number}")) && db.keyspace_exists(&format!("{INDEX}{number}"))
}

/// Returns whether the keyspaces of a search index exist.
pub(super) fn has_search(db: &Database, number: u64) -> bool {
    search_names(number).iter().all(|name| db.keyspace_exists(name))
}

/// Opens or creates the keyspaces that exist as long as the folder.
pub(super) fn fixed(db: &Database) -> Result<Fixed, fjall::Error> {
    Ok(Fixed {
        log: keyspace(db, "log")?,
        meta: keyspace(db, "meta")?,
        local: keyspace(db, "local")?,
        queue: keyspace(db, "queue")?,
    })
}

/// Opens or creates a generation and the search index `search_number`.
pub(super) fn generation(db: &Database, number: u64, search_number: u64) -> Result<Generation, fjall::Error> {
    Ok(Generation {
        number,
        pins: keyspace(db, &format!("{PINS}{number}"))?,
        index: keyspace(db, &format!("{INDEX}{number}"))?,
        search_number,
        search: SearchIndex::open(db, search_number)?,
    })
}

/// Returns the number in the name of a keyspace that belongs to a generation.
fn number(name: &str) -> Option<u64> {
    let prefixes = [PINS, INDEX, SEARCH, SEARCH_NAMES, SEARCH_META];
    let number = prefixes.iter().find_map(|prefix| name.strip_prefix(prefix))?;
    number.parse().ok()
}

/// Returns the first number that no generation and no search index has or had since `least`.
pub(super) fn unused_number(db: &Database, least: u64) -> u64 {
    let names = db.list_keyspace_names();
    let last = names.iter().filter_map(|name| number(name)).max();
    last.map_or(least, |last| least.max(last + 1))
}

/// Opens the keyspaces of generations and search indexes other than `current`.
pub(super) fn leftovers(db: &Database, current: &Generation) -> Result<Vec<Keyspace>, fjall::Error> {
    let ours = current.keyspaces().map(Keyspace::name);
    let names = db.list_keyspace_names().into_iter();
    let others = names.filter(|name| number(name).is_some() && !ours.iter().any(|ours| **ours == *name));
    others.map(|name| keyspace(db, &name)).collect()
}

/// Seals memtables before they reach the size from which fjall asks its workers to, so that it does so only
/// for a batch of megabytes. It asks with each write until a worker has sealed the memtable, and a worker
/// that seals one waits for room in the same queue of 1,000 requests: if all workers do, they and the writer
/// wait forever (fjall 3.1.13). Sealed memtables are counted, and block their writer.
pub(super) fn bound_memory(keyspaces: &[&Keyspace]) -> Result<(), StoreError> {
    for keyspace in keyspaces {
        if keyspace.tree.active_memtable().size() > memtable_size(keyspace.name()) / 4 * 3 {
            keyspace.rotate_memtable().map_err(StoreError::Write)?;
        }
    }
    Ok(())
}

/// Returns the size at which fjall has a memtable of a keyspace flushed.
pub(super) fn memtable_size(name: &str) -> u64 {
    match name {
        "meta" | "queue" => SMALL_MEMTABLE,
        _ => MEMTABLE,
    }
}

/// Sequence numbers to skip at an opening: creating or deleting a keyspace takes two, and hardly more than
/// those of each generation are used between two openings before a batch takes a later number.
const SKIPPED: usize = 256;

/// Uses up sequence numbers, before any keyspace is created. fjall (3.1) recovers the next number from the
/// contents of keyspaces, not from its own list of them, and gives a new keyspace the id of a deleted one.
/// If the creation's number is below the deletion's, the new keyspace is gone at the next opening.
pub(super) fn skip_numbers(db: &Database, fixed: &Fixed) -> Result<(), fjall::Error> {
    for _ in 0..SKIPPED {
        let mut batch = db.batch();
        batch.insert(&fixed.meta, keys::TOUCH, record::seal(keys::TOUCH, &()));
        batch.commit()?;
    }
    db.persist(PersistMode::Buffer)
}

/// Deletes keyspaces. Their files are deleted when the last reader drops them.
///
/// A write to a keyspace that stays, newer than all writes to this one, must be durable before: otherwise
/// the sequence numbers of writes to deleted keyspaces are forgotten and assigned again.
pub(super) fn delete(db: &Database, keyspaces: &[&Keyspace]) -> Result<(), StoreError> {
    for &keyspace in keyspaces {
        db.delete_keyspace(keyspace.clone()).map_err(StoreError::Write)?;
    }
    Ok(())
}

/// Returns whether single keys of a keyspace are read, some of which it does not have. The others are read
/// in order.
fn needs_filter(name: &str) -> bool {
    name == "local" || name.starts_with(PINS)
}

fn compaction() -> Leveled {
    Leveled::default()
        .with_table_target_size(TABLE)
        .with_l0_threshold(FIRST_LEVEL_TABLES)
}

fn keyspace(db: &Database, name: &str) -> Result<Keyspace, fjall::Error> {
    db.keyspace(name, || {
        let options = match needs_filter(name) {
            true => KeyspaceCreateOptions::default(),
            false => KeyspaceCreateOptions::default().filter_policy(FilterPolicy::disabled()),
        };
        options
            .compaction_strategy(Arc::new(compaction()))
            .max_memtable_size(memtable_size(name))
            // In parts: whole, the index or the filter of a large table has half a mebibyte. The cache keeps
            // no block of that size, so each lookup would read and hash it again.
            .index_block_partitioning_policy(PartitioningPolicy::all(true))
            .filter_block_partitioning_policy(PartitioningPolicy::all(true))
            .manual_journal_persist(true)
    })
}
