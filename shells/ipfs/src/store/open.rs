//! Opening the repository, and checking the segments against the database.

use super::hot::Hot;
use super::index::Fresh;
use super::reserve::Reserve;
use super::segments::{Files, HEADER_BYTES, SEGMENT_BYTES};
use super::sync::Syncer;
use super::table::{Table, Usage};
use super::writer::{Request, Writer};
use super::{Counters, Damage, IN_FLIGHT_KIB, Inner, Open, Protect, QUEUE, Store};
use crate::Error;
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::{Arc, Mutex, RwLock};
use tokio::sync::{Semaphore, mpsc};

/// Read cache, in bytes. Small: the whole peer stays below 250 MB.
const CACHE_BYTES: u64 = 16 << 20;
/// Memory for places and small blocks before they are flushed, in bytes.
const BLOCKS_MEMTABLE: u64 = 8 << 20;
/// Memory for pins, which are small records, before they are flushed, in bytes.
const PINS_MEMTABLE: u64 = 4 << 20;
/// Size limit of the journal on disk, in bytes: limits what a restart replays.
const JOURNAL_BYTES: u64 = 64 << 20;
/// Format of the database and of the segments beside it. Version 1 had no segments.
///
/// Checked before anything else; a repository of another format is refused by name. It covers the keyspaces,
/// their keys and the [`Counters`], which are exactly three numbers. Blocks, pins and [`Usage`] carry their
/// own layout version in their first byte, and segments in their header. So a change of one of these needs a
/// new first byte, and any other change a new format.
const FORMAT: &[u8] = b"2";
/// Layout version of [`Usage`].
const USAGE: u8 = 1;

impl Store {
    /// Opens or creates the repository: the database in `blocks`, and `segments` beside it. Blocks the
    /// thread; replaying a large journal takes a second.
    pub(crate) fn open(path: &Path, storage_max: Option<u64>) -> Result<Store, Error> {
        Store::open_with(path, storage_max, SEGMENT_BYTES)
    }

    pub(super) fn open_with(path: &Path, storage_max: Option<u64>, size: u64) -> Result<Store, Error> {
        let database = path.join("blocks");
        let reserve = Reserve::new(path);
        // Opening writes to the database too.
        reserve.release_if_short();
        // The database's lock guards the segments too.
        let db = open_database(&database)?;
        let small = || KeyspaceCreateOptions::default().max_memtable_size(PINS_MEMTABLE);
        let failed = |error| open_error(&database, error);
        let blocks = db.keyspace("blocks", blocks_options).map_err(failed)?;
        let pins = db.keyspace("pins", small).map_err(failed)?;
        let usage = db.keyspace("segments", small).map_err(failed)?;
        let meta = db.keyspace("meta", small).map_err(failed)?;
        let counters = read_counters(path, &meta)?;
        let files = Arc::new(Files::new(path.join("segments"))?);
        let table = recover(path, &files, size, &usage, &meta)?;
        reserve.fill();
        let fresh = Arc::new(Fresh::default());
        let open = Arc::new(Open {
            db,
            blocks,
            pins,
            meta,
            fresh: fresh.clone(),
            files: files.clone(),
            reserve,
            hot: Hot::default(),
        });
        let (requests, receiver) = mpsc::channel::<Request>(QUEUE);
        let thread_error = |error| Error::io("starting the store's threads", error);
        let shared = Arc::new(Mutex::new(counters));
        let (protect, damage) = (Arc::<Protect>::default(), Arc::<Damage>::default());
        let writer = Writer {
            open: open.clone(),
            usage,
            table,
            shared: shared.clone(),
            protect: protect.clone(),
            damage: damage.clone(),
            storage_max,
            syncer: Syncer::start(files, fresh, requests.downgrade()).map_err(thread_error)?,
            counters,
            inline: 0,
            unsynced: 0,
            failed: None,
        };
        let thread = std::thread::Builder::new()
            .name("ipfs-store".into())
            .spawn(move || {
                let _guard = EndsProcess;
                writer.run(receiver);
            })
            .map_err(thread_error)?;
        Ok(Store {
            inner: Arc::new(Inner {
                open: RwLock::new(Some(open)),
                counters: shared,
                protect,
                damage,
                requests: Mutex::new(Some(requests)),
                in_flight: Arc::new(Semaphore::new(IN_FLIGHT_KIB)),
                thread: Mutex::new(Some(thread)),
                path: path.to_owned(),
            }),
        })
    }
}

/// Ends the process when the writing thread panics: a node without one would answer nothing, for no visible
/// reason.
struct EndsProcess;

impl Drop for EndsProcess {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("the writer of the IPFS node's blocks panicked, which is a bug; stopping");
            std::process::exit(1);
        }
    }
}

fn open_database(path: &Path) -> Result<Database, Error> {
    Database::builder(path)
        .cache_size(CACHE_BYTES)
        .max_journaling_size(JOURNAL_BYTES)
        // With more, fjall 3.1.13 keeps a core busy while a compaction waits for another.
        .worker_threads(1)
        .open()
        .map_err(|error| open_error(path, error))
}

fn blocks_options() -> KeyspaceCreateOptions {
    // Hashes, places and small blocks do not compress.
    let none = fjall::config::CompressionPolicy::all(CompressionType::None);
    KeyspaceCreateOptions::default()
        .max_memtable_size(BLOCKS_MEMTABLE)
        .data_block_compression_policy(none)
}

fn read_counters(path: &Path, meta: &Keyspace) -> Result<Counters, Error> {
    match (meta.get("format")?, meta.get("counters")?) {
        (None, None) => {
            meta.insert("format", FORMAT)?;
            Ok(Counters::default())
        }
        (Some(format), counters) if &*format == FORMAT => match counters {
            Some(bytes) => decode_counters(&bytes).map_err(|why| damaged(path, &why)),
            None => Ok(Counters::default()),
        },
        (format, _) => {
            let format = format.map(|f| String::from_utf8_lossy(&f).into_owned());
            let format = format.unwrap_or_default();
            Err(damaged(
                path,
                &format!("its format is {format:?}, this version supports \"2\""),
            ))
        }
    }
}

fn decode_counters(value: &[u8]) -> Result<Counters, String> {
    match postcard::take_from_bytes(value) {
        Ok((counters, [])) => Ok(counters),
        Ok((_, rest)) => Err(format!("its counters are followed by {} bytes", rest.len())),
        Err(error) => Err(format!("its counters: {error}")),
    }
}

/// Checks that every segment exists and is long enough. Removes files that the database does not record: they
/// were never acknowledged, or were removed.
fn recover(
    path: &Path,
    files: &Arc<Files>,
    size: u64,
    usage: &Keyspace,
    meta: &Keyspace,
) -> Result<Table, Error> {
    let mut known = BTreeMap::new();
    for guard in usage.iter() {
        let (key, value) = guard.into_inner()?;
        let number = key.as_array().map(|key| u32::from_be_bytes(*key));
        let (Some(number), Some(usage)) = (number, decode_usage(&value)) else {
            return Err(damaged(path, &"the record of a segment is not readable"));
        };
        files
            .check(number, usage.end)?
            .map_err(|why| damaged(path, &why))?;
        known.insert(number, usage);
    }
    let next = match meta.get("next")? {
        None => 1,
        Some(next) => match next.as_array() {
            Some(next) => u32::from_be_bytes(*next),
            None => return Err(damaged(path, &"the number of the next segment is not readable")),
        },
    };
    let next = next.max(
        known
            .last_key_value()
            .map_or(1, |(last, _)| last.saturating_add(1)),
    );
    for number in files.list()? {
        if !known.contains_key(&number) {
            files.remove(number);
        }
    }
    Table::resume(files.clone(), size, known, next)
}

pub(super) fn encode_usage(usage: &Usage) -> Result<Vec<u8>, postcard::Error> {
    postcard::to_extend(usage, vec![USAGE])
}

fn decode_usage(value: &[u8]) -> Option<Usage> {
    let (version, usage) = value.split_first()?;
    let (usage, rest) = postcard::take_from_bytes::<Usage>(usage).ok()?;
    // Larger segments are made only for a block that is larger than a segment.
    let sane = usage.end >= HEADER_BYTES && usage.end <= SEGMENT_BYTES + super::BLOCK_MAX as u64;
    (*version == USAGE && rest.is_empty() && sane && usage.live <= usage.end - HEADER_BYTES).then_some(usage)
}

fn open_error(path: &Path, error: fjall::Error) -> Error {
    match (os_error(&error), error) {
        (_, fjall::Error::Locked) => Error::Locked(path.display().to_string()),
        (Some(source), _) => Error::io(format!("opening {}", path.display()), source),
        (None, fjall::Error::Io(source)) => Error::io(format!("opening {}", path.display()), source),
        (None, other) => damaged(path, &other),
    }
}

/// Returns the operating system's error behind an error of fjall, which nests it in several places. Not for a
/// missing file, which is damage.
fn os_error(error: &fjall::Error) -> Option<std::io::Error> {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        let of_system = error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::raw_os_error);
        if let Some(code) = of_system {
            let error = std::io::Error::from_raw_os_error(code);
            return (error.kind() != ErrorKind::NotFound).then_some(error);
        }
        cause = error.source();
    }
    None
}

fn damaged(path: &Path, why: &dyn std::fmt::Display) -> Error {
    Error::Damaged(format!(
        "the ipfs repository {} cannot be read ({why}); move it away and start again, and the cluster will \
         fetch its content anew",
        path.display()
    ))
}
