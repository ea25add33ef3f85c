//! The thread that writes. It takes all requests that wait, makes one batch of them, and syncs once if
//! any of them asked for it: a thousand pins at the same time cost one fsync.

use super::{Counters, Protect, encode_pin, lock};
use crate::{Error, Pin, PinMode};
use bytes::Bytes;
use cid::Cid;
use fjall::{Database, Keyspace, OwnedWriteBatch, PersistMode};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

/// Bytes in one batch before it is committed: enough to make the fsync cheap, little enough to answer soon.
const BATCH_BYTES: usize = 8 << 20;
/// Requests in one batch.
const BATCH_REQUESTS: usize = 4096;
/// Written bytes after which a sync is made unasked, so that the last one has little left to do.
const UNSYNCED_BYTES: usize = 16 << 20;

pub(super) enum Op {
    Put(Vec<(Vec<u8>, Bytes)>, OwnedSemaphorePermit),
    Delete { keys: Vec<Vec<u8>>, collecting: bool },
    Pin(Pin),
    Unpin(Cid),
    Sync,
}

pub(super) struct Request {
    pub(super) op: Op,
    pub(super) durable: bool,
    pub(super) done: oneshot::Sender<Result<Reply, Error>>,
}

#[derive(Default)]
pub(super) struct Reply {
    pub(super) deleted: Vec<Vec<u8>>,
    pub(super) pin: Option<Pin>,
}

pub(super) struct Writer {
    pub(super) db: Database,
    pub(super) blocks: Keyspace,
    pub(super) pins: Keyspace,
    pub(super) meta: Keyspace,
    pub(super) counters: Arc<Mutex<Counters>>,
    pub(super) protect: Arc<Protect>,
    pub(super) storage_max: Option<u64>,
    pub(super) unsynced: usize,
}

/// A batch being built, and what reads must see of it.
struct Group {
    batch: OwnedWriteBatch,
    counters: Counters,
    blocks: HashMap<Vec<u8>, Option<u64>>,
    pins: HashMap<Cid, Option<Pin>>,
    bytes: usize,
}

type Answer = (oneshot::Sender<Result<Reply, Error>>, Result<Reply, Error>);

impl Writer {
    pub(super) fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        while let Some(first) = requests.blocking_recv() {
            self.group(first, &mut requests);
        }
        if let Err(error) = self.db.persist(PersistMode::SyncAll) {
            tracing::error!(%error, "the ipfs block store could not be synced at its end");
        }
    }

    fn group(&mut self, first: Request, requests: &mut mpsc::Receiver<Request>) {
        let protect = self.protect.clone();
        let mut group = Group {
            batch: self.db.batch(),
            counters: *lock(&self.counters),
            blocks: HashMap::new(),
            pins: HashMap::new(),
            bytes: 0,
        };
        let mut answers: Vec<Answer> = Vec::new();
        // Held until the deletions are visible: a touch comes before them, and spares, or after, and the
        // toucher then sees the block missing.
        let mut spared = None;
        let mut durable = false;
        let mut room = Vec::new();
        let mut next = Some(first);
        while let Some(Request {
            op,
            durable: asked,
            done,
        }) = next
        {
            durable |= asked;
            let result = match op {
                Op::Put(entries, permit) => {
                    room.push(permit);
                    self.put(&mut group, entries)
                }
                Op::Delete { keys, collecting } => {
                    let spare = spared.get_or_insert_with(|| protect.freeze());
                    self.delete(&mut group, keys, |key| collecting && spare.spares(key))
                }
                Op::Pin(pin) => self.pin(&mut group, pin),
                Op::Unpin(cid) => self.unpin(&mut group, cid),
                Op::Sync => Ok(Reply::default()),
            };
            answers.push((done, result));
            let full = group.bytes >= BATCH_BYTES || answers.len() >= BATCH_REQUESTS;
            next = if full { None } else { requests.try_recv().ok() };
        }
        let failed = self.commit(group, durable).err().map(|error| error.to_string());
        drop(spared);
        drop(room);
        for (done, result) in answers {
            let result = match &failed {
                Some(error) => Err(Error::Store(error.clone())),
                None => result,
            };
            // Who no longer waits has dropped its future; what it asked for is done all the same.
            let _ = done.send(result);
        }
    }

    fn commit(&mut self, mut group: Group, durable: bool) -> Result<(), fjall::Error> {
        self.unsynced += group.bytes;
        let sync = durable || self.unsynced >= UNSYNCED_BYTES;
        if group.batch.is_empty() {
            if sync {
                self.db.persist(PersistMode::SyncData)?;
                self.unsynced = 0;
            }
            return Ok(());
        }
        let counters = postcard::to_stdvec(&group.counters).unwrap_or_default();
        group.batch.insert(&self.meta, "counters", counters);
        let mode = if sync {
            PersistMode::SyncData
        } else {
            PersistMode::Buffer
        };
        group.batch.durability(Some(mode)).commit()?;
        if sync {
            self.unsynced = 0;
        }
        *lock(&self.counters) = group.counters;
        Ok(())
    }

    fn size(&self, group: &Group, key: &[u8]) -> Result<Option<u64>, Error> {
        match group.blocks.get(key) {
            Some(known) => Ok(*known),
            None => Ok(self.blocks.size_of(key)?.map(u64::from)),
        }
    }

    fn put(&self, group: &mut Group, entries: Vec<(Vec<u8>, Bytes)>) -> Result<Reply, Error> {
        let mut new = Vec::with_capacity(entries.len());
        let mut asked = 0;
        for (key, data) in entries {
            if self.size(group, &key)?.is_none() {
                asked += data.len() as u64;
                new.push((key, data));
            }
        }
        let used = group.counters.bytes;
        if let Some(max) = self.storage_max
            && used.saturating_add(asked) > max
            && asked > 0
        {
            return Err(Error::Full { used, asked, max });
        }
        for (key, data) in new {
            let size = data.len();
            if group
                .blocks
                .insert(key.clone(), Some(size as u64))
                .flatten()
                .is_some()
            {
                continue;
            }
            group.counters.blocks += 1;
            group.counters.bytes += size as u64;
            group.bytes += size + key.len();
            group.batch.insert(&self.blocks, key, data);
        }
        Ok(Reply::default())
    }

    fn delete(
        &self,
        group: &mut Group,
        keys: Vec<Vec<u8>>,
        spared: impl Fn(&[u8]) -> bool,
    ) -> Result<Reply, Error> {
        let mut deleted = Vec::new();
        for key in keys {
            let Some(size) = self.size(group, &key)? else {
                continue;
            };
            if spared(&key) {
                continue;
            }
            group.counters.blocks = group.counters.blocks.saturating_sub(1);
            group.counters.bytes = group.counters.bytes.saturating_sub(size);
            group.blocks.insert(key.clone(), None);
            group.batch.remove(&self.blocks, key.as_slice());
            deleted.push(key);
        }
        Ok(Reply { deleted, pin: None })
    }

    fn pin_of(&self, group: &Group, cid: &Cid) -> Result<Option<Pin>, Error> {
        if let Some(known) = group.pins.get(cid) {
            return Ok(known.clone());
        }
        let value = self.pins.get(cid.to_bytes())?;
        value.map(|value| super::decode_pin(*cid, &value)).transpose()
    }

    fn pin(&self, group: &mut Group, pin: Pin) -> Result<Reply, Error> {
        let old = self.pin_of(group, &pin.cid)?;
        match old.as_ref().map(|old| old.mode) {
            Some(PinMode::Recursive) if pin.mode == PinMode::Direct => {
                return Err(Error::Pinned {
                    cid: pin.cid,
                    why: "already pinned recursively",
                });
            }
            Some(PinMode::Recursive | PinMode::Direct) => {}
            None => group.counters.pins += 1,
        }
        group
            .batch
            .insert(&self.pins, pin.cid.to_bytes(), encode_pin(&pin));
        group.pins.insert(pin.cid, Some(pin));
        Ok(Reply {
            deleted: Vec::new(),
            pin: old,
        })
    }

    fn unpin(&self, group: &mut Group, cid: Cid) -> Result<Reply, Error> {
        let pin = self.pin_of(group, &cid)?.ok_or(Error::NotPinned(cid))?;
        group.counters.pins = group.counters.pins.saturating_sub(1);
        group.batch.remove(&self.pins, cid.to_bytes());
        group.pins.insert(cid, None);
        Ok(Reply {
            deleted: Vec::new(),
            pin: Some(pin),
        })
    }
}
