//! Blocks and pins on disk: one fjall database, one thread that writes.
//!
//! A block's key is its multihash, so CIDv0 and CIDv1 of one block are one entry. A pin's key is the
//! CID's bytes. Counters are kept exact by the writing thread and stored in each batch, because counting
//! a keyspace means scanning it.

mod protect;
mod writer;

pub(crate) use protect::{Lease, Protect, fingerprint};

use crate::{Block, Error, Pin, PinMode};
use bytes::Bytes;
use cid::Cid;
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, Readable};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use tokio::sync::{Semaphore, mpsc, oneshot};
use writer::{Op, Request, Writer};

/// The largest block bitswap peers must accept.
pub(crate) const BLOCK_MAX: usize = 2 << 20;
/// The multihash code of CIDs that hold their content.
pub(crate) const IDENTITY: u64 = 0;

/// Read cache. A small node's budget: the whole peer stays below 250 MB.
const CACHE_BYTES: u64 = 16 << 20;
/// Blocks in memory before they are flushed. Up to four such tables live at once while writing fast.
const BLOCKS_MEMTABLE: u64 = 16 << 20;
/// Pins are small records.
const PINS_MEMTABLE: u64 = 4 << 20;
/// Disk, not memory: bounds how much a restart replays.
const JOURNAL_BYTES: u64 = 128 << 20;
/// Requests waiting for the writing thread; their bytes are bounded by [`IN_FLIGHT_KIB`].
const QUEUE: usize = 4096;
/// Bytes of blocks waiting for the writing thread, in KiB. One request may pass it when alone.
const IN_FLIGHT_KIB: usize = 32 << 10;
/// The layout of this database.
const FORMAT: &[u8] = b"1";

/// What the repository holds, kept by the writing thread.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Counters {
    pub(crate) blocks: u64,
    pub(crate) bytes: u64,
    pub(crate) pins: u64,
}

/// The database; clones share it.
#[derive(Clone)]
pub(crate) struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    open: RwLock<Option<Arc<Open>>>,
    counters: Arc<Mutex<Counters>>,
    protect: Arc<Protect>,
    requests: Mutex<Option<mpsc::Sender<Request>>>,
    in_flight: Arc<Semaphore>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
    path: PathBuf,
}

/// The database while it is open.
struct Open {
    db: Database,
    blocks: Keyspace,
    pins: Keyspace,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("path", &self.inner.path)
            .finish_non_exhaustive()
    }
}

fn blocks_options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .max_memtable_size(BLOCKS_MEMTABLE)
        .with_kv_separation(Some(
            // Content is compressed or random; and with these two a collection really frees the disk.
            KvSeparationOptions::default()
                .compression(CompressionType::None)
                .staleness_threshold(0.05)
                .age_cutoff(1.0),
        ))
}

impl Store {
    /// Opens or makes the database. Blocks the thread; a large journal takes a second to replay.
    pub(crate) fn open(path: &Path, storage_max: Option<u64>) -> Result<Store, Error> {
        let db = Database::builder(path)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNAL_BYTES)
            .open()
            .map_err(|error| open_error(path, error))?;
        let small = || KeyspaceCreateOptions::default().max_memtable_size(PINS_MEMTABLE);
        let blocks = db.keyspace("blocks", blocks_options)?;
        let pins = db.keyspace("pins", small)?;
        let meta = db.keyspace("meta", small)?;
        let counters = match (meta.get("format")?, meta.get("counters")?) {
            (None, None) => {
                meta.insert("format", FORMAT)?;
                Counters::default()
            }
            (Some(format), counters) if &*format == FORMAT => match counters {
                Some(bytes) => postcard::from_bytes(&bytes).map_err(|error| damaged(path, &error))?,
                None => Counters::default(),
            },
            (format, _) => {
                let format = format
                    .map(|f| String::from_utf8_lossy(&f).into_owned())
                    .unwrap_or_default();
                return Err(damaged(
                    path,
                    &format!("its format is {format:?}, this version knows \"1\""),
                ));
            }
        };
        let counters = Arc::new(Mutex::new(counters));
        let protect = Arc::new(Protect::default());
        let (requests, receiver) = mpsc::channel(QUEUE);
        let writer = Writer {
            db: db.clone(),
            blocks: blocks.clone(),
            pins: pins.clone(),
            meta,
            counters: counters.clone(),
            protect: protect.clone(),
            storage_max,
            unsynced: 0,
        };
        let thread = std::thread::Builder::new()
            .name("ipfs-store".into())
            .spawn(move || writer.run(receiver))
            .map_err(|error| Error::io("starting the store's thread", error))?;
        Ok(Store {
            inner: Arc::new(Inner {
                open: RwLock::new(Some(Arc::new(Open { db, blocks, pins }))),
                counters,
                protect,
                requests: Mutex::new(Some(requests)),
                in_flight: Arc::new(Semaphore::new(IN_FLIGHT_KIB)),
                thread: Mutex::new(Some(thread)),
                path: path.to_owned(),
            }),
        })
    }

    /// Lets the writing thread finish what waits, and closes the database; every later call fails. The
    /// folder is free once the listings that run are gone too. Blocks the thread.
    pub(crate) fn close(&self) {
        drop(lock(&self.inner.requests).take());
        if let Some(thread) = lock(&self.inner.thread).take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the ipfs block store has panicked");
        }
        let open = self
            .inner
            .open
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        drop(open);
    }

    fn db(&self) -> Result<Arc<Open>, Error> {
        self.inner
            .open
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
            .ok_or(Error::Closed)
    }

    pub(crate) fn protect(&self) -> &Arc<Protect> {
        &self.inner.protect
    }

    pub(crate) fn counters(&self) -> Counters {
        *lock(&self.inner.counters)
    }

    /// The block, if local or held by its CID.
    pub(crate) fn get(&self, cid: &Cid) -> Result<Option<Bytes>, Error> {
        if cid.hash().code() == IDENTITY {
            return Ok(Some(Bytes::copy_from_slice(cid.hash().digest())));
        }
        Ok(self.db()?.blocks.get(key_of(cid))?.map(Bytes::from))
    }

    pub(crate) fn has(&self, cid: &Cid) -> Result<bool, Error> {
        Ok(cid.hash().code() == IDENTITY || self.db()?.blocks.contains_key(key_of(cid))?)
    }

    pub(crate) fn size_of(&self, cid: &Cid) -> Result<Option<u64>, Error> {
        if cid.hash().code() == IDENTITY {
            return Ok(Some(u64::from(cid.hash().size())));
        }
        Ok(self.db()?.blocks.size_of(key_of(cid))?.map(u64::from))
    }

    /// Stores blocks whose hashes were checked; all or none.
    pub(crate) async fn put(&self, blocks: Vec<Block>) -> Result<(), Error> {
        let mut kib = 0;
        let mut entries = Vec::with_capacity(blocks.len());
        for Block { cid, data } in blocks {
            if cid.hash().code() != IDENTITY {
                kib += data.len() / 1024 + 1;
                entries.push((key_of(&cid), data));
            }
        }
        if entries.is_empty() {
            return Ok(());
        }
        self.inner
            .protect
            .touch_written(entries.iter().map(|(key, _)| key.as_slice()));
        let kib = u32::try_from(kib.min(IN_FLIGHT_KIB)).unwrap_or(u32::MAX);
        let room = self.inner.in_flight.clone().acquire_many_owned(kib).await;
        let room = room.map_err(|_| Error::Closed)?;
        self.request(Op::Put(entries, room), false).await.map(drop)
    }

    /// Makes all earlier writes durable.
    pub(crate) async fn sync(&self) -> Result<(), Error> {
        self.request(Op::Sync, true).await.map(drop)
    }

    /// Removes blocks, except those that [`Protect`] spares if `collecting`; returns how many went.
    pub(crate) async fn delete(&self, keys: Vec<Vec<u8>>, collecting: bool) -> Result<Vec<Vec<u8>>, Error> {
        self.request(Op::Delete { keys, collecting }, !collecting)
            .await
            .map(|reply| reply.deleted)
    }

    /// Records a pin, durably, with all blocks written before.
    pub(crate) async fn pin(&self, pin: &Pin) -> Result<(), Error> {
        self.request(Op::Pin(pin.clone()), true).await.map(drop)
    }

    /// Removes a pin, durably, and returns it.
    pub(crate) async fn unpin(&self, cid: &Cid) -> Result<Pin, Error> {
        let reply = self.request(Op::Unpin(*cid), true).await?;
        reply.pin.ok_or(Error::NotPinned(*cid))
    }

    async fn request(&self, op: Op, durable: bool) -> Result<writer::Reply, Error> {
        let (done, reply) = oneshot::channel();
        let requests = lock(&self.inner.requests).clone().ok_or(Error::Closed)?;
        requests
            .send(Request { op, durable, done })
            .await
            .map_err(|_| Error::Closed)?;
        reply.await.map_err(|_| Error::Closed)?
    }

    pub(crate) fn pin_of(&self, cid: &Cid) -> Result<Option<Pin>, Error> {
        let value = self.db()?.pins.get(cid.to_bytes())?;
        value.map(|value| decode_pin(*cid, &value)).transpose()
    }

    /// The pins as of now, in order of the CID's bytes.
    pub(crate) fn pins(&self) -> Result<impl Iterator<Item = Result<Pin, Error>> + Send + use<>, Error> {
        let open = self.db()?;
        let items = open.db.snapshot().iter(&open.pins);
        Ok(items.map(|guard| {
            let (key, value) = guard.into_inner()?;
            let cid = Cid::try_from(&*key).map_err(|error| Error::Damaged(format!("pin record: {error}")))?;
            decode_pin(cid, &value)
        }))
    }

    /// The keys of all blocks as of now.
    pub(crate) fn keys(&self) -> Result<impl Iterator<Item = Result<Vec<u8>, Error>> + Send + use<>, Error> {
        let open = self.db()?;
        let keys = open
            .db
            .snapshot()
            .iter(&open.blocks)
            .map(|guard| Ok(guard.key()?.to_vec()));
        Ok(keys.filter(|key| !matches!(key, Ok(key) if *key == COMPACTED)))
    }

    /// Gives the disk space of removed blocks back. Blocks the thread, for seconds.
    pub(crate) fn compact(&self) -> Result<(), Error> {
        let open = self.db()?;
        let blocks = &open.blocks;
        blocks.rotate_memtable_and_wait()?;
        blocks.major_compact()?;
        // Blob files vanish only when a later table is flushed; an overwritten marker makes one.
        blocks.insert(COMPACTED, "")?;
        blocks.remove(COMPACTED)?;
        blocks.rotate_memtable_and_wait()?;
        Ok(())
    }
}

/// Never a multihash: its first byte would be the code of a hash of length 0xff.
const COMPACTED: [u8; 2] = [0xff, 0x7f];

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "fjall's errors: all others mean the same to us"
)]
fn open_error(path: &Path, error: fjall::Error) -> Error {
    match error {
        fjall::Error::Locked => Error::Locked(path.display().to_string()),
        fjall::Error::Io(source) => Error::io(format!("opening {}", path.display()), source),
        other => damaged(path, &other),
    }
}

fn damaged(path: &Path, why: &dyn std::fmt::Display) -> Error {
    Error::Damaged(format!(
        "the ipfs repository {} cannot be read ({why}); move it away and start again, and the cluster will \
         fetch its content anew",
        path.display()
    ))
}

/// The key of a block: its multihash.
pub(crate) fn key_of(cid: &Cid) -> Vec<u8> {
    cid.hash().to_bytes()
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // What the lock guards is changed in single steps, so a panic elsewhere leaves it whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Version 1 of a pin record: version, mode, name.
fn encode_pin(pin: &Pin) -> Vec<u8> {
    let mode = match pin.mode {
        PinMode::Recursive => 0,
        PinMode::Direct => 1,
    };
    [&[1, mode], pin.name.as_bytes()].concat()
}

fn decode_pin(cid: Cid, value: &[u8]) -> Result<Pin, Error> {
    let bad = || {
        Error::Damaged(format!(
            "the record of the pin {cid} is not readable by this version"
        ))
    };
    let (mode, name) = match value {
        [1, 0, name @ ..] => (PinMode::Recursive, name),
        [1, 1, name @ ..] => (PinMode::Direct, name),
        _ => return Err(bad()),
    };
    let name = std::str::from_utf8(name).map_err(|_| bad())?.to_owned();
    Ok(Pin { cid, mode, name })
}
