//! On-disk store of blocks and pins: a fjall database, segment files for the bytes of large blocks, and a
//! single writing thread.
//!
//! A block's key is its multihash, so CIDv0 and CIDv1 of one block share an entry. Its value is the block
//! itself if it is small, and otherwise its place in a segment ([`segments`]): a database writes everything
//! twice, first to its journal. A pin's key is the CID's bytes. Counters are kept exact by the writing thread
//! and stored in each batch, because counting a keyspace means scanning it.

mod compact;
mod damage;
mod hot;
mod index;
mod open;
mod protect;
mod reserve;
mod segments;
mod sync;
mod table;
#[cfg(test)]
mod tests;
mod writer;

pub(crate) use damage::Damage;
pub(crate) use protect::{Lease, Protect, fingerprint};

use crate::Cid;
use crate::{Block, Error, Pin, PinMode};
use bytes::Bytes;
use fjall::{Database, Keyspace, Readable};
use hot::Hot;
use index::{Entry, Fresh};
use reserve::Reserve;
use segments::{Files, Read};
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use tokio::sync::{Semaphore, mpsc, oneshot};
use writer::{Op, Request};

/// Size limit of a block, in bytes: the largest that bitswap peers must accept.
pub(crate) const BLOCK_MAX: usize = 2 << 20;
/// Multihash code of the identity function: such CIDs hold their content.
pub(crate) const IDENTITY: u64 = 0;

/// Capacity of the writing thread's queue, requests; their bytes are limited by [`IN_FLIGHT_KIB`].
const QUEUE: usize = 4096;
/// Limit on block bytes waiting for the writing thread, KiB. A single request may exceed it.
const IN_FLIGHT_KIB: usize = 32 << 10;
/// Attempts to read a block: it is looked up again if its segment is gone, because it was moved.
const LOOKUPS: usize = 8;

/// Totals of the repository, maintained by the writing thread.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Counters {
    pub(crate) blocks: u64,
    pub(crate) bytes: u64,
    pub(crate) pins: u64,
}

/// The store of blocks and pins; clones share it.
#[derive(Clone)]
pub(crate) struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    open: RwLock<Option<Arc<Open>>>,
    counters: Arc<Mutex<Counters>>,
    protect: Arc<Protect>,
    damage: Arc<Damage>,
    requests: Mutex<Option<mpsc::Sender<Request>>>,
    in_flight: Arc<Semaphore>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
    path: PathBuf,
}

/// The database and segments while open.
struct Open {
    db: Database,
    blocks: Keyspace,
    pins: Keyspace,
    meta: Keyspace,
    fresh: Arc<Fresh>,
    files: Arc<Files>,
    reserve: Reserve,
    hot: Hot,
}

impl Open {
    /// Looks up a block in the database.
    fn stored(&self, key: &[u8]) -> Result<Option<Entry>, Error> {
        let value = self.blocks.get(key)?;
        value.map(|value| Entry::decode(value.into())).transpose()
    }

    fn entry(&self, key: &[u8]) -> Result<Option<Entry>, Error> {
        match self.fresh.get(key) {
            Some(entry) => Ok(Some(entry)),
            None => self.stored(key),
        }
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("path", &self.inner.path)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Lets the writing thread finish queued requests, and closes the database; every later call fails. The
    /// folder is unlocked once running listings have ended too. Blocks the thread.
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

    pub(crate) fn damage(&self) -> &Arc<Damage> {
        &self.inner.damage
    }

    pub(crate) fn counters(&self) -> Counters {
        *lock(&self.inner.counters)
    }

    /// Returns the block, if it is local or its CID holds it.
    ///
    /// # Errors
    /// [`Error::DamagedBlock`] if the disk returns other bytes than were written; the damage is recorded.
    pub(crate) fn get(&self, cid: &Cid) -> Result<Option<Bytes>, Error> {
        if cid.hash().code() == IDENTITY {
            return Ok(Some(Bytes::copy_from_slice(cid.hash().digest())));
        }
        let (open, key) = (self.db()?, key_of(cid));
        if self.inner.damage.contains(&key) {
            let why = "found at an earlier read".to_owned();
            return Err(Error::DamagedBlock { cid: *cid, why });
        }
        for _ in 0..LOOKUPS {
            let place = match open.entry(&key)? {
                None => return Ok(None),
                Some(Entry::Inline(data)) => return Ok(Some(data)),
                Some(Entry::At(place)) => place,
            };
            match open.files.read(&place)? {
                Read::Data(data) => return Ok(Some(data)),
                Read::Gone => {}
                Read::Damaged(why) => {
                    let mut current = Ok(None);
                    self.inner.damage.record_if(&key, || {
                        current = open.entry(&key);
                        matches!(&current, Ok(Some(Entry::At(now))) if *now == place)
                    });
                    if current? == Some(Entry::At(place)) {
                        return Err(damaged(cid, why));
                    }
                    // Otherwise it was deleted, moved or replaced in the meantime, and its disk space freed.
                }
            }
        }
        self.inner.damage.record(&key);
        Err(damaged(cid, "its segment is missing".to_owned()))
    }

    /// Returns a block that was read again and again, without reading the disk.
    pub(crate) fn get_hot(&self, cid: &Cid) -> Option<Bytes> {
        let key = key_of(cid);
        let open = self.db().ok()?;
        (!self.inner.damage.contains(&key))
            .then(|| open.hot.get(&key))
            .flatten()
    }

    /// As [`Store::get`], and keeps blocks that are read again and again for [`Store::get_hot`].
    pub(crate) fn get_noted(&self, cid: &Cid) -> Result<Option<Bytes>, Error> {
        let open = self.db()?;
        let epoch = open.hot.epoch();
        let data = self.get(cid)?;
        if let Some(data) = &data {
            open.hot.note(&key_of(cid), data, epoch);
        }
        Ok(data)
    }

    /// Returns whether the block is local and not known to be damaged.
    pub(crate) fn has(&self, cid: &Cid) -> Result<bool, Error> {
        if cid.hash().code() == IDENTITY {
            return Ok(true);
        }
        let (open, key) = (self.db()?, key_of(cid));
        if self.inner.damage.contains(&key) {
            return Ok(false);
        }
        Ok(open.fresh.with(|fresh| fresh.contains_key(&key)) || open.blocks.contains_key(&key)?)
    }

    pub(crate) fn size_of(&self, cid: &Cid) -> Result<Option<u64>, Error> {
        if cid.hash().code() == IDENTITY {
            return Ok(Some(u64::from(cid.hash().size())));
        }
        let key = key_of(cid);
        let entry = self
            .db()?
            .entry(&key)?
            .filter(|_| !self.inner.damage.contains(&key));
        Ok(entry.map(|entry| entry.size()))
    }

    /// Stores verified blocks; all or none. Readers see them at once; they are durable after a sync, or by
    /// themselves a second later.
    pub(crate) async fn put(&self, blocks: Vec<Block>) -> Result<(), Error> {
        let mut kib = 0;
        let mut entries = Vec::with_capacity(blocks.len());
        for Block { cid, data } in blocks {
            if cid.hash().code() != IDENTITY {
                kib += data.len() / 1024 + 1;
                let crc = crc32fast::hash(&data);
                entries.push((key_of(&cid), data, crc));
            }
        }
        if entries.is_empty() {
            return Ok(());
        }
        self.inner
            .protect
            .touch_written(entries.iter().map(|(key, ..)| key.as_slice()));
        let kib = u32::try_from(kib.min(IN_FLIGHT_KIB)).unwrap_or(u32::MAX);
        let room = self.inner.in_flight.clone().acquire_many_owned(kib).await;
        let room = room.map_err(|_| Error::Closed)?;
        self.request(Op::Put(entries, room), false).await.map(drop)
    }

    /// Makes all earlier writes durable.
    pub(crate) async fn sync(&self) -> Result<(), Error> {
        self.request(Op::Sync, true).await.map(drop)
    }

    /// Removes blocks, except those protected by [`Protect`] if `collecting`; returns the keys removed.
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
        let requests = self.requests()?;
        requests
            .send(Request { op, durable, done })
            .await
            .map_err(|_| Error::Closed)?;
        reply.await.map_err(|_| Error::Closed)?
    }

    fn requests(&self) -> Result<mpsc::Sender<Request>, Error> {
        lock(&self.inner.requests).clone().ok_or(Error::Closed)
    }

    pub(crate) fn pin_of(&self, cid: &Cid) -> Result<Option<Pin>, Error> {
        let value = self.db()?.pins.get(cid.to_bytes())?;
        value.map(|value| decode_pin(*cid, &value)).transpose()
    }

    /// Lists a snapshot of the pins, in order of the CID's bytes.
    pub(crate) fn pins(&self) -> Result<impl Iterator<Item = Result<Pin, Error>> + Send + use<>, Error> {
        let open = self.db()?;
        let items = open.db.snapshot().iter(&open.pins);
        Ok(items.map(decode_pin_entry))
    }

    /// Lists a snapshot of all blocks' keys, sorted.
    pub(crate) fn keys(&self) -> Result<impl Iterator<Item = Result<Vec<u8>, Error>> + Send + use<>, Error> {
        let open = self.db()?;
        // Read fresh blocks first: those committed in between are in both listings rather than in neither.
        let fresh = open.fresh.keys();
        let stored = open.db.snapshot().iter(&open.blocks);
        Ok(index::merge(fresh, stored.map(|guard| Ok(guard.key()?.to_vec()))))
    }

    /// Lists a snapshot of the keys of blocks after one, sorted; all keys after an empty one.
    pub(crate) fn keys_after(
        &self,
        after: &[u8],
    ) -> Result<impl Iterator<Item = Result<Vec<u8>, Error>> + use<>, Error> {
        let open = self.db()?;
        let mut fresh = open.fresh.keys();
        fresh.retain(|key| key.as_slice() > after);
        let bounds = (Bound::Excluded(after.to_vec()), Bound::Unbounded);
        let stored = open.db.snapshot().range(&open.blocks, bounds);
        Ok(index::merge(fresh, stored.map(|guard| Ok(guard.key()?.to_vec()))))
    }

    /// Returns the first pin after a CID in order of the CID's bytes; the first of all after `None`.
    pub(crate) fn pin_after(&self, after: Option<&Cid>) -> Result<Option<Pin>, Error> {
        let open = self.db()?;
        let after = after.map(Cid::to_bytes).unwrap_or_default();
        let bounds = (Bound::Excluded(after), Bound::Unbounded);
        let first = open.db.snapshot().range(&open.pins, bounds).next();
        first.map(decode_pin_entry).transpose()
    }
}

fn damaged(cid: &Cid, why: String) -> Error {
    tracing::error!("the block {cid} is damaged on the disk ({why})");
    Error::DamagedBlock { cid: *cid, why }
}

/// Returns the key of a block: its multihash.
pub(crate) fn key_of(cid: &Cid) -> Vec<u8> {
    cid.hash().to_bytes()
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Guarded values change in single steps, so they are consistent even after a panic elsewhere.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Encodes version 1 of a pin record: version, mode, name.
fn encode_pin(pin: &Pin) -> Vec<u8> {
    let mode = match pin.mode {
        PinMode::Recursive => 0,
        PinMode::Direct => 1,
    };
    [&[1, mode], pin.name.as_bytes()].concat()
}

fn decode_pin_entry(entry: fjall::Guard) -> Result<Pin, Error> {
    let (key, value) = entry.into_inner()?;
    let cid = Cid::try_from(&*key).map_err(|error| Error::Damaged(format!("pin record: {error}")))?;
    decode_pin(cid, &value)
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
