//! The writing thread. It takes all queued requests, makes one group of them, and syncs once if any of them
//! asked for it: a thousand concurrent pins cost one fsync.
//!
//! The bytes of large blocks are written to segments at once, and the request is answered. Their places are
//! written to the database with the next commit, after the segments are synced, so that the database never
//! refers to bytes that are not durable.

use super::index::{Entry, Fresh, SEGMENT_FROM};
use super::segments::Place;
use super::sync::Syncer;
use super::table::{Changes, Table, Usage};
use super::{Counters, Damage, Open, Protect, decode_pin, encode_pin, lock, open};
use crate::Cid;
use crate::{Error, Pin, PinMode};
use bytes::Bytes;
use fjall::{Keyspace, OwnedWriteBatch, PersistMode};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

/// Limit of a group, in bytes: enough to make the fsync cheap, little enough to answer soon.
const GROUP_BYTES: usize = 8 << 20;
/// Limit of a group, requests.
const GROUP_REQUESTS: usize = 4096;
/// Bytes of small blocks held in memory that cause a commit.
const INLINE_BYTES: usize = 4 << 20;
/// Number of fresh entries, 200 bytes each, that causes a commit.
const FRESH_ENTRIES: usize = 16_384;
/// Pins in one group from which on more are expected soon.
const BUSY_PINS: usize = 4;
/// Time to gather the group after such a group. Syncs are the main cost of pins, and those of the cluster's
/// log, which its clients wait for, go to the same disk: with this pause 11,500 pins a second were committed
/// instead of 9,700, and as many pinned (three peers, two cores, 32 concurrent pins).
const GATHER: Duration = Duration::from_millis(3);
/// Bytes written to segments after which a sync starts early, so that the final one has little left to do.
const UNSYNCED_BYTES: usize = 16 << 20;

pub(super) enum Op {
    /// Keys, contents and their checksums; the permit for their bytes.
    Put(Vec<(Vec<u8>, Bytes, u32)>, OwnedSemaphorePermit),
    Delete {
        keys: Vec<Vec<u8>>,
        collecting: bool,
    },
    Pin(Pin),
    Unpin(Cid),
    Sync,
    /// Returns the segments with enough dead bytes to be worth freeing.
    Wasteful,
    /// Rewrites blocks that are still at these places.
    Move(Vec<(Vec<u8>, Place, Bytes)>),
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
    pub(super) wasteful: Vec<(u32, Usage)>,
}

pub(super) struct Writer {
    pub(super) open: Arc<Open>,
    pub(super) usage: Keyspace,
    pub(super) table: Table,
    pub(super) shared: Arc<Mutex<Counters>>,
    pub(super) protect: Arc<Protect>,
    pub(super) damage: Arc<Damage>,
    pub(super) storage_max: Option<u64>,
    pub(super) syncer: Syncer,
    /// Totals including all answered requests; [`Writer::shared`] follows.
    pub(super) counters: Counters,
    /// Bytes of small blocks that wait for a commit.
    pub(super) inline: usize,
    /// Bytes written to segments since the last sync began.
    pub(super) unsynced: usize,
    /// Error after which nothing can be written any more. A failed sync may have dropped dirty pages, so the
    /// success of a second one proves nothing.
    pub(super) failed: Option<String>,
}

/// Changes of a group that are made by its commit.
#[derive(Default)]
struct Group {
    deleted: HashSet<Vec<u8>>,
    pins: HashMap<Cid, Option<Pin>>,
    bytes: usize,
    durable: bool,
}

type Answer = (oneshot::Sender<Result<Reply, Error>>, Result<Reply, Error>);

impl Writer {
    pub(super) fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut pins = 0;
        while let Some(first) = requests.blocking_recv() {
            if pins >= BUSY_PINS {
                std::thread::sleep(GATHER);
            }
            pins = self.group(first, &mut requests);
        }
        if self.failed.is_none()
            && let Err(error) = self.commit(Group {
                durable: true,
                ..Group::default()
            })
        {
            tracing::error!(%error, "the ipfs block store could not be synced at its end");
        }
    }

    fn fresh(&self) -> &Fresh {
        &self.open.fresh
    }

    /// Processes queued requests as one group; returns how many pins were made or removed.
    fn group(&mut self, first: Request, requests: &mut mpsc::Receiver<Request>) -> usize {
        let protect = self.protect.clone();
        let mut group = Group::default();
        let mut answers: Vec<Answer> = Vec::new();
        // Held until the deletions are visible. A touch comes either before, and protects the block, or
        // after, and the toucher then finds the block missing.
        let mut spared = None;
        let mut room = Vec::new();
        let mut next = Some(first);
        while let Some(Request { op, durable, done }) = next {
            group.durable |= durable;
            let result = match (op, &self.failed) {
                (_, Some(why)) => Err(Error::Store(why.clone())),
                (Op::Put(blocks, permit), None) => {
                    room.push(permit);
                    self.put(&mut group, blocks)
                }
                (Op::Delete { keys, collecting }, None) => {
                    let spare = spared.get_or_insert_with(|| protect.freeze());
                    self.delete(&mut group, keys, |key| collecting && spare.protects(key))
                }
                (Op::Pin(pin), None) => self.pin(&mut group, pin),
                (Op::Unpin(cid), None) => self.unpin(&mut group, cid),
                (Op::Sync, None) => Ok(Reply::default()),
                (Op::Wasteful, None) => Ok(Reply {
                    wasteful: self.table.wasteful(),
                    ..Reply::default()
                }),
                (Op::Move(blocks), None) => self.relocate(&mut group, blocks),
            };
            answers.push((done, result));
            let full = group.bytes >= GROUP_BYTES || answers.len() >= GROUP_REQUESTS;
            next = if full { None } else { requests.try_recv().ok() };
        }
        let pins = group.pins.len();
        if self.failed.is_none()
            && let Err(error) = self.commit_if_due(group)
        {
            self.failed = Some(error.to_string());
        }
        *lock(&self.shared) = self.counters;
        drop(spared);
        drop(room);
        for (done, result) in answers {
            let result = match &self.failed {
                Some(error) => Err(Error::Store(error.clone())),
                None => result,
            };
            // If the requester no longer waits, its request is carried out all the same.
            let _ = done.send(result);
        }
        pins
    }

    /// Commits, if a request of the group or the amount of waiting entries requires it.
    fn commit_if_due(&mut self, group: Group) -> Result<(), Error> {
        let waiting = self.fresh().with(HashMap::len);
        let full = self.inline >= INLINE_BYTES || waiting >= FRESH_ENTRIES;
        if group.durable || full || !group.deleted.is_empty() || !group.pins.is_empty() {
            return self.commit(group);
        }
        if self.unsynced >= UNSYNCED_BYTES {
            self.unsynced = 0;
            self.syncer.begin(self.table.active());
        }
        Ok(())
    }

    fn commit(&mut self, group: Group) -> Result<(), Error> {
        self.table.sync()?;
        self.unsynced = 0;
        let changes = self.table.changes();
        let mut batch = self.open.db.batch();
        self.fill(&mut batch, &group, &changes)?;
        if batch.is_empty() {
            if group.durable {
                self.open.db.persist(PersistMode::SyncData)?;
                self.table.recorded(&changes, true);
            }
            return Ok(());
        }
        let counters = postcard::to_stdvec(&self.counters).map_err(unwritable)?;
        batch.insert(&self.open.meta, "counters", counters);
        let mode = if group.durable {
            PersistMode::SyncData
        } else {
            PersistMode::Buffer
        };
        batch.durability(Some(mode)).commit()?;
        self.table.recorded(&changes, group.durable);
        if !group.deleted.is_empty() {
            self.open.hot.forget(group.deleted.iter());
        }
        // Readers find them in the database now.
        self.fresh().change(HashMap::clear);
        self.inline = 0;
        Ok(())
    }

    fn fill(&self, batch: &mut OwnedWriteBatch, group: &Group, changes: &Changes) -> Result<(), Error> {
        debug_assert!(
            self.table.is_synced(),
            "the database would name bytes that are not durable"
        );
        let blocks = &self.open.blocks;
        self.fresh().with(|fresh| {
            for (key, entry) in fresh {
                batch.insert(blocks, key.as_slice(), entry.encode());
            }
            for key in group.deleted.iter().filter(|key| !fresh.contains_key(*key)) {
                batch.remove(blocks, key.as_slice());
            }
        });
        for (cid, pin) in &group.pins {
            match pin {
                Some(pin) => batch.insert(&self.open.pins, cid.to_bytes(), encode_pin(pin)),
                None => batch.remove(&self.open.pins, cid.to_bytes()),
            }
        }
        if self.table.is_changed() {
            for (number, usage) in &changes.usage {
                let value = open::encode_usage(usage).map_err(unwritable)?;
                batch.insert(&self.usage, number.to_be_bytes(), value);
            }
            for number in &changes.dead {
                batch.remove(&self.usage, number.to_be_bytes());
            }
            batch.insert(&self.open.meta, "next", changes.next.to_be_bytes());
        }
        Ok(())
    }

    /// Returns the entry of a block, including the changes of this group.
    fn entry(&self, group: &Group, key: &[u8]) -> Result<Option<Entry>, Error> {
        match self.fresh().get(key) {
            Some(entry) => Ok(Some(entry)),
            None if group.deleted.contains(key) => Ok(None),
            None => self.open.stored(key),
        }
    }

    fn put(&mut self, group: &mut Group, blocks: Vec<(Vec<u8>, Bytes, u32)>) -> Result<Reply, Error> {
        let mut new = Vec::with_capacity(blocks.len());
        let mut seen = HashSet::new();
        let (mut damaged, mut replaced) = (Vec::new(), Vec::new());
        let mut asked = 0;
        for (key, data, crc) in blocks {
            let known = self.entry(group, &key)?;
            let is_damaged = self.damage.contains(&key);
            if (known.is_none() || is_damaged) && seen.insert(key.clone()) {
                damaged.extend(is_damaged.then(|| key.clone()));
                replaced.extend(known);
                asked += data.len() as u64;
                new.push((key, data, crc));
            }
        }
        let used = self.counters.bytes;
        if let Some(max) = self.storage_max
            && used.saturating_add(asked) > max
            && asked > 0
        {
            return Err(Error::Full { used, asked, max });
        }
        if asked > 0 {
            self.open.files.check_room(asked)?;
        }
        let large = |data: &Bytes| data.len() >= SEGMENT_FROM;
        let appended = new.iter().filter(|(_, data, _)| large(data));
        let places = self.table.append(appended.map(|(_, data, crc)| (data, *crc)))?;
        let mut places = places.into_iter();
        replaced.iter().for_each(|entry| self.subtract(entry));
        let mut entries = Vec::with_capacity(new.len());
        for (key, data, _) in new {
            self.counters.blocks += 1;
            self.counters.bytes += data.len() as u64;
            group.bytes += data.len() + key.len();
            let place = if large(&data) { places.next() } else { None };
            entries.push(match place {
                Some(place) => {
                    self.unsynced += data.len();
                    (key, Entry::At(place))
                }
                None => {
                    self.inline += data.len() + key.len();
                    (key, Entry::Inline(data))
                }
            });
        }
        self.fresh().change(|fresh| fresh.extend(entries));
        damaged.iter().for_each(|key| self.damage.replaced(key));
        Ok(Reply::default())
    }

    /// Subtracts a deleted or replaced block from the totals.
    fn subtract(&mut self, entry: &Entry) {
        self.counters.blocks = self.counters.blocks.saturating_sub(1);
        self.counters.bytes = self.counters.bytes.saturating_sub(entry.size());
        if let Entry::At(place) = entry {
            self.table.drop_block(place);
        }
    }

    fn delete(
        &mut self,
        group: &mut Group,
        keys: Vec<Vec<u8>>,
        spared: impl Fn(&[u8]) -> bool,
    ) -> Result<Reply, Error> {
        let mut deleted = Vec::new();
        for key in keys {
            let Some(entry) = self.entry(group, &key)? else {
                continue;
            };
            if spared(&key) {
                continue;
            }
            self.subtract(&entry);
            self.fresh().change(|fresh| fresh.remove(&key));
            self.damage.clear(&key);
            group.deleted.insert(key.clone());
            deleted.push(key);
        }
        Ok(Reply {
            deleted,
            ..Reply::default()
        })
    }

    /// Rewrites blocks; one that was deleted or moved since it was looked up is skipped.
    fn relocate(&mut self, group: &mut Group, blocks: Vec<(Vec<u8>, Place, Bytes)>) -> Result<Reply, Error> {
        let mut still = Vec::with_capacity(blocks.len());
        for (key, place, data) in blocks {
            if self.entry(group, &key)? == Some(Entry::At(place)) {
                still.push((key, place, data));
            }
        }
        let appended = still.iter().map(|(_, place, data)| (data, place.crc));
        let places = self.table.append(appended)?;
        for ((key, old, data), place) in still.into_iter().zip(places) {
            self.table.drop_block(&old);
            group.bytes += data.len();
            self.unsynced += data.len();
            self.fresh().change(|fresh| fresh.insert(key, Entry::At(place)));
        }
        Ok(Reply::default())
    }

    fn pin_of(&self, group: &Group, cid: &Cid) -> Result<Option<Pin>, Error> {
        if let Some(known) = group.pins.get(cid) {
            return Ok(known.clone());
        }
        let value = self.open.pins.get(cid.to_bytes())?;
        value.map(|value| decode_pin(*cid, &value)).transpose()
    }

    fn pin(&mut self, group: &mut Group, pin: Pin) -> Result<Reply, Error> {
        let old = self.pin_of(group, &pin.cid)?;
        match old.as_ref().map(|old| old.mode) {
            Some(PinMode::Recursive) if pin.mode == PinMode::Direct => {
                return Err(Error::Pinned {
                    cid: pin.cid,
                    why: "already pinned recursively",
                });
            }
            Some(PinMode::Recursive | PinMode::Direct) => {}
            None => self.counters.pins += 1,
        }
        if old.as_ref() != Some(&pin) {
            group.pins.insert(pin.cid, Some(pin));
        }
        Ok(Reply {
            pin: old,
            ..Reply::default()
        })
    }

    fn unpin(&mut self, group: &mut Group, cid: Cid) -> Result<Reply, Error> {
        let pin = self.pin_of(group, &cid)?.ok_or(Error::NotPinned(cid))?;
        self.counters.pins = self.counters.pins.saturating_sub(1);
        group.pins.insert(cid, None);
        Ok(Reply {
            pin: Some(pin),
            ..Reply::default()
        })
    }
}

fn unwritable(error: postcard::Error) -> Error {
    Error::Store(format!("a record could not be written: {error}"))
}
