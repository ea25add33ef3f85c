//! The database and its keyspaces.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use fjall::{AbstractTree, Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::error::StoreError;
use super::keys;
use super::record;

/// Memory for blocks read from disk. Random reads of a pinset of ten million pins gain from more
/// (measured: 32 MiB 10,000/s, 512 MiB 64,000/s); listings and writes do not.
pub(super) const CACHE: u64 = 16 << 20;

/// Size at which a memtable is written out. fjall's 64 MiB would let five keyspaces take 320 MB; with 8 MiB
/// a flush is short, and two in flight fit a small machine.
const MEMTABLE: u64 = 8 << 20;
/// For keyspaces with few live bytes that every batch rewrites: they are flushed before they hold back the
/// journals.
const SMALL_MEMTABLE: u64 = 2 << 20;

/// Journals on disk. The least that fjall takes: it bounds what a restart replays.
const JOURNALS: u64 = 64 << 20;

/// One writes memtables out while the other compacts; with one, flushes wait for compactions and writes for
/// flushes.
const WORKERS: usize = 2;

/// A table file that is open. A few hundred files hold tens of millions of pins; descriptors are dear where
/// the limit of a process is 1,024.
const OPEN_FILES: usize = 200;

const PINS: &str = "pins.";
const INDEX: &str = "index.";
const FIXED: [&str; 4] = ["log", "meta", "local", "queue"];

/// Keyspaces that live as long as the folder.
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
}

/// Opens or creates the database. fjall asserts where bytes are not as it wrote them; here that is an error
/// like the others.
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

/// What an error of fjall is about: it has errors of the operating system in several places.
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

/// Why fjall did not open its folder.
pub(super) enum OpenFailure {
    /// What it read is not what it wrote.
    Damaged(String),
    /// The operating system said no.
    Io(std::io::Error),
}

/// The first of the keyspaces that do not exist, of those that every founded database has.
pub(super) fn missing_fixed(db: &Database) -> Option<&'static str> {
    FIXED.into_iter().find(|name| !db.keyspace_exists(name))
}

/// Whether both keyspaces of a generation exist.
pub(super) fn has_generation(db: &Database, number: u64) -> bool {
    db.keyspace_exists(&format!("{PINS}{number}")) && db.keyspace_exists(&format!("{INDEX}{number}"))
}

/// Opens or creates the keyspaces that live as long as the folder.
pub(super) fn fixed(db: &Database) -> Result<Fixed, fjall::Error> {
    Ok(Fixed {
        log: keyspace(db, "log", MEMTABLE)?,
        meta: keyspace(db, "meta", SMALL_MEMTABLE)?,
        local: keyspace(db, "local", MEMTABLE)?,
        queue: keyspace(db, "queue", SMALL_MEMTABLE)?,
    })
}

/// Opens or creates a generation.
pub(super) fn generation(db: &Database, number: u64) -> Result<Generation, fjall::Error> {
    Ok(Generation {
        number,
        pins: keyspace(db, &format!("{PINS}{number}"), MEMTABLE)?,
        index: keyspace(db, &format!("{INDEX}{number}"), MEMTABLE)?,
    })
}

/// The generations of which any keyspace exists.
pub(super) fn generations(db: &Database) -> Vec<u64> {
    let number = |name: &str| name.strip_prefix(PINS).or(name.strip_prefix(INDEX))?.parse().ok();
    let names = db.list_keyspace_names();
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| number(name)).collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

/// Seals a memtable that has outgrown its size. fjall leaves that to a worker, and a memtable that is written
/// while all workers are busy grows without a limit; sealed ones are counted, and hold up their writer.
pub(super) fn bound_memory(keyspaces: &[&Keyspace]) -> Result<(), StoreError> {
    for keyspace in keyspaces {
        if keyspace.tree.active_memtable().size() > MEMTABLE + MEMTABLE / 2 {
            keyspace.rotate_memtable().map_err(StoreError::Write)?;
        }
    }
    Ok(())
}

/// Sequence numbers to skip at an opening: making or deleting a keyspace takes two, and between two openings
/// hardly more than the two of each generation are, before a batch takes a later number.
const SKIPPED: usize = 256;

/// Uses up sequence numbers, before any keyspace is made. fjall (3.1) learns the next number from what
/// keyspaces hold, not from its own list of them, and gives a new keyspace the id of one that was deleted.
/// Where the number of the new one is below that of the old one's deletion, it is gone at the next opening.
pub(super) fn skip_numbers(db: &Database, fixed: &Fixed) -> Result<(), fjall::Error> {
    for _ in 0..SKIPPED {
        let mut batch = db.batch();
        batch.insert(&fixed.meta, keys::TOUCH, record::seal(keys::TOUCH, &()));
        batch.commit()?;
    }
    db.persist(PersistMode::Buffer)
}

/// Deletes a generation. Files go when nobody reads it any more.
///
/// A write to a keyspace that stays, newer than all writes to this one, must be durable before: the sequence
/// numbers of writes to deleted keyspaces are forgotten, and given again, otherwise.
pub(super) fn delete(db: &Database, generation: &Generation) -> Result<(), StoreError> {
    for keyspace in [&generation.pins, &generation.index] {
        db.delete_keyspace(keyspace.clone()).map_err(StoreError::Write)?;
    }
    Ok(())
}

fn keyspace(db: &Database, name: &str, memtable: u64) -> Result<Keyspace, fjall::Error> {
    db.keyspace(name, || {
        KeyspaceCreateOptions::default()
            .max_memtable_size(memtable)
            .manual_journal_persist(true)
    })
}
