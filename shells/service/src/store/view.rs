//! The core's view of the store.

use std::collections::BTreeMap;
use std::ops::Bound;

use cluster_core::{Cid, Lane, Local, PeerId, Pin, PinsetView, Policy, QueueKey, Timestamp, decode};
use fjall::{Keyspace, UserKey, UserValue};
use serde::de::DeserializeOwned;

use super::error::StoreError;
use super::keys;
use super::open::Store;
use super::shared::lock;

/// The store as of the last batch that was written. A failing read ends the process.
pub struct StoreView<'a> {
    store: &'a Store,
}

/// Lower bounds of the first key of each queue, and of the expiries. Keys removed from the front leave
/// tombstones that a search from the front would have to skip, a million of them after a million pins.
#[derive(Default)]
pub(super) struct Floors {
    lanes: BTreeMap<u8, Vec<u8>>,
    expiry: Vec<u8>,
}

impl Floors {
    /// Lowers the bound for a new queue entry.
    pub(super) fn queued(&mut self, key: &[u8]) {
        let floor = key.first().and_then(|lane| self.lanes.get_mut(lane));
        lower(floor, key);
    }

    /// Lowers the bound for a new index key.
    pub(super) fn indexed(&mut self, key: &[u8]) {
        if key.first() == keys::EXPIRIES.0.first() {
            lower(Some(&mut self.expiry), key);
        }
    }

    /// Resets the bounds of the expiries after the pinset was replaced.
    pub(super) fn forget_expiries(&mut self) {
        self.expiry.clear();
    }
}

fn lower(floor: Option<&mut Vec<u8>>, key: &[u8]) {
    if let Some(floor) = floor.filter(|floor| key < floor.as_slice()) {
        *floor = key.to_vec();
    }
}

impl<'a> StoreView<'a> {
    pub(super) fn new(store: &'a Store) -> Self {
        Self { store }
    }

    fn or_fatal<T>(&self, result: Result<T, StoreError>) -> T {
        result.unwrap_or_else(|error| self.store.shared.fatal(&error))
    }

    fn get<T: DeserializeOwned>(&self, keyspace: &Keyspace, key: &[u8]) -> Option<T> {
        self.or_fatal(get(keyspace, key))
    }

    /// Reads up to `limit` keys between the bounds, converted by `take`.
    fn scan<T>(
        &self,
        keyspace: &Keyspace,
        bounds: (Bound<&[u8]>, Bound<&[u8]>),
        limit: usize,
        take: impl Fn(&UserKey, &UserValue) -> Result<T, String>,
    ) -> Vec<T> {
        let found = keyspace.range::<&[u8], _>(bounds).take(limit).map(|guard| {
            let (key, value) = guard.into_inner().map_err(StoreError::Read)?;
            take(&key, &value).map_err(|what| damaged(keyspace, &key, &what))
        });
        self.or_fatal(found.collect())
    }
}

/// Reads and decodes one record.
pub(super) fn get<T: DeserializeOwned>(keyspace: &Keyspace, key: &[u8]) -> Result<Option<T>, StoreError> {
    let Some(value) = keyspace.get(key).map_err(StoreError::Read)? else {
        return Ok(None);
    };
    decode(&value)
        .map(Some)
        .map_err(|error| damaged(keyspace, key, &error.to_string()))
}

/// An error for one record.
pub(super) fn damaged(keyspace: &Keyspace, key: &[u8], what: &str) -> StoreError {
    let name = keyspace.name();
    StoreError::Damaged(format!("record {key:02x?} of {name:?}: {what}"))
}

fn after(cid: Option<&Cid>) -> Bound<&[u8]> {
    cid.map_or(Bound::Unbounded, |cid| Bound::Excluded(cid.as_bytes()))
}

impl PinsetView for StoreView<'_> {
    fn pin(&self, cid: &Cid) -> Option<Pin> {
        self.get(&self.store.generation.pins, cid.as_bytes())
    }

    fn local(&self, cid: &Cid) -> Option<Local> {
        self.get(&self.store.shared.fixed.local, cid.as_bytes())
    }

    fn pins(&self, after_cid: Option<&Cid>, limit: usize) -> Vec<Pin> {
        let bounds = (after(after_cid), Bound::Unbounded);
        self.scan(&self.store.generation.pins, bounds, limit, |_, value| {
            decode(value).map_err(|error| error.to_string())
        })
    }

    fn locals(&self, after_cid: Option<&Cid>, limit: usize) -> Vec<(Cid, Local)> {
        let bounds = (after(after_cid), Bound::Unbounded);
        self.scan(&self.store.shared.fixed.local, bounds, limit, |key, value| {
            let cid = Cid::from_bytes(key).map_err(|error| error.to_string())?;
            decode(value)
                .map(|local| (cid, local))
                .map_err(|error| error.to_string())
        })
    }

    fn queue(&self, lane: Lane, from: Option<&QueueKey>, limit: usize) -> Vec<QueueKey> {
        let (start, end) = keys::lane(lane);
        let mut floors = lock(&self.store.floors);
        let floor = floors.lanes.entry(start[0]).or_insert_with(|| start.to_vec());
        // A key in another lane sorts before or after all of this one.
        let wanted = from.map_or_else(|| start.to_vec(), keys::queue);
        let from_front = wanted <= *floor;
        let first = if from_front { floor.as_slice() } else { &wanted };
        if first >= &end[..] || limit == 0 {
            return Vec::new();
        }
        let bounds = (Bound::Included(first), Bound::Excluded(&end[..]));
        let found = self.scan(&self.store.shared.fixed.queue, bounds, limit, |key, _| {
            keys::queue_key(lane, key).ok_or_else(|| "it is no place in a queue".to_owned())
        });
        if from_front {
            *floor = found.first().map_or_else(|| end.to_vec(), keys::queue);
        }
        found
    }

    fn allocated(&self, peer: &PeerId, after_cid: Option<&Cid>, limit: usize) -> Vec<Cid> {
        let prefix = keys::by_peer(peer.as_bytes());
        let start = [prefix.as_slice(), after_cid.map_or(&[][..], Cid::as_bytes)].concat();
        let found = self
            .store
            .generation
            .index
            .range::<&[u8], _>((Bound::Excluded(start.as_slice()), Bound::Unbounded));
        let mut cids = Vec::new();
        for guard in found.take(limit) {
            let key = self.or_fatal(guard.key().map_err(StoreError::Read));
            let Some(cid) = key.strip_prefix(prefix.as_slice()) else {
                break;
            };
            let index = &self.store.generation.index;
            let cid = Cid::from_bytes(cid).map_err(|error| damaged(index, &key, &error.to_string()));
            cids.push(self.or_fatal(cid));
        }
        cids
    }

    fn expiring(&self, until: Timestamp, limit: usize) -> Vec<Cid> {
        let (start, end) = keys::EXPIRIES;
        let mut floors = lock(&self.store.floors);
        let first = start.as_slice().max(&floors.expiry);
        // The first time after `until`, or the end of the index.
        let later = until.0.checked_add(1).map(|at| keys::by_expiry(Timestamp(at)));
        let last = later.as_ref().map_or(&end[..], |key| &key[..]);
        if first >= last || limit == 0 {
            return Vec::new();
        }
        let bounds = (Bound::Included(first), Bound::Excluded(last));
        let found = self.scan(&self.store.generation.index, bounds, limit, |key, _| {
            let cid = keys::expiry_cid(key).ok_or_else(|| "it is no expiry".to_owned())?;
            Ok((key.to_vec(), cid))
        });
        floors.expiry = found
            .first()
            .map_or_else(|| last.to_vec(), |(key, _)| key.clone());
        found.into_iter().map(|(_, cid)| cid).collect()
    }

    fn policy(&self) -> Policy {
        Policy::clone(&self.store.shared.policy())
    }
}
