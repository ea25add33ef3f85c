//! Look-ups and listings from outside the loop.

use std::cmp::Ordering;
use std::ops::Bound;
use std::sync::{Arc, PoisonError};

use cluster_core::{Applied, Cid, Lane, Local, Members, PeerId, Pin, Policy, Window, decode};
use fjall::{Guard, Iter, Keyspace, KvPair, Readable, Snapshot};
use serde::de::DeserializeOwned;

use super::error::StoreError;
use super::keys;
use super::record::{self, Head};
use super::shared::Shared;
use super::snapshot::SnapshotSource;
use super::spaces::Generation;
use super::view;

/// Reads the store from any thread. Keeps the folder open while it lives. Its errors are fatal: the process
/// must end.
#[derive(Clone)]
pub struct Reader {
    pub(super) shared: Arc<Shared>,
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Returns the pin of a CID, as of the last batch.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read or is damaged, as for every method here.
    pub fn pin(&self, cid: &Cid) -> Result<Option<Pin>, StoreError> {
        view::get(&self.shared.current().pins, cid.as_bytes())
    }

    /// Returns the local state of a CID, as of the last batch.
    ///
    /// # Errors
    /// As [`Reader::pin`].
    pub fn local(&self, cid: &Cid) -> Result<Option<Local>, StoreError> {
        view::get(&self.shared.fixed.local, cid.as_bytes())
    }

    /// Returns the policy as of the last batch. Reads memory only.
    pub fn policy(&self) -> Arc<Policy> {
        self.shared.policy()
    }

    /// Returns the applied index and the number of pins, as of the last batch; zeros before the founding.
    ///
    /// # Errors
    /// As [`Reader::pin`].
    pub fn applied(&self) -> Result<Applied, StoreError> {
        self.listing().applied()
    }

    /// Counts the CIDs that wait for their first attempt to be pinned here, as of the last batch. The first
    /// call walks over all of them: not for the runtime's own threads.
    ///
    /// # Errors
    /// As [`Reader::pin`].
    pub fn fresh_count(&self) -> Result<u64, StoreError> {
        let waiting = &self.shared.waiting;
        if waiting.before().is_none() {
            let current = self.shared.current.read().unwrap_or_else(PoisonError::into_inner);
            let (snapshot, change) = (self.shared.db.snapshot(), waiting.change());
            drop(current);
            let (start, end) = keys::lane(Lane::Fresh);
            let mut count = 0;
            for guard in snapshot.range(&self.shared.fixed.queue, start..end) {
                guard.key().map_err(StoreError::Read)?;
                count += 1;
            }
            waiting.counted(count, change);
        }
        let waiting = waiting.before().unwrap_or(0) + waiting.change();
        Ok(u64::try_from(waiting).unwrap_or(0))
    }

    /// Returns the size of the database on disk, in bytes.
    ///
    /// # Errors
    /// As [`Reader::pin`].
    pub fn disk_space(&self) -> Result<u64, StoreError> {
        self.shared.db.disk_space().map_err(StoreError::Read)
    }

    /// Opens a consistent view as of the last batch.
    pub fn listing(&self) -> Listing {
        let current = self.shared.current.read().unwrap_or_else(PoisonError::into_inner);
        self.listing_of(&current)
    }

    /// Returns the next `limit` pins after `after`, in the order of their CIDs, as of the last batch; fewer
    /// only at the end. A listing that is read so costs no memory while its reader is slow, and may or may
    /// not show what changes meanwhile.
    ///
    /// # Errors
    /// As [`Reader::pin`].
    pub fn pins_after(&self, after: Option<&Cid>, limit: usize) -> Result<Vec<Pin>, StoreError> {
        self.listing().pins(after).take(limit).collect()
    }

    /// Returns the next `limit` CIDs after `after` that have a pin or a local state, as
    /// [`Reader::pins_after`].
    ///
    /// # Errors
    /// As [`Reader::pin`].
    pub fn rows_after(&self, after: Option<&Cid>, limit: usize) -> Result<Vec<Row>, StoreError> {
        self.listing().rows(after).take(limit).collect()
    }

    /// Opens a view of the generation in use, which must be locked.
    pub(super) fn listing_of(&self, current: &Arc<Generation>) -> Listing {
        Listing {
            snapshot: self.shared.db.snapshot(),
            generation: Arc::clone(current),
            shared: Arc::clone(&self.shared),
        }
    }

    /// Opens a view of the pinset as of the last batch, to be sent to another peer.
    ///
    /// # Errors
    /// As [`Reader::pin`], and [`StoreError::Contract`] before the founding.
    pub fn snapshot_source(&self) -> Result<SnapshotSource, StoreError> {
        SnapshotSource::new(self.listing())
    }
}

/// A consistent view of the store. While it lives, fjall keeps older versions of rewritten records on disk,
/// and in memory every memtable that was written out: gigabytes in minutes under load. Read long lists in
/// pages, unless they must be of one moment.
pub struct Listing {
    pub(super) snapshot: Snapshot,
    pub(super) generation: Arc<Generation>,
    pub(super) shared: Arc<Shared>,
}

fn count(keys: impl Iterator<Item = Guard>) -> Result<u64, StoreError> {
    let mut count = 0;
    for guard in keys {
        guard.key().map_err(StoreError::Read)?;
        count += 1;
    }
    Ok(count)
}

/// A CID with its pin, its local state, or both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The CID of both.
    pub cid: Cid,
    /// Agreed pin of the CID.
    pub pin: Option<Pin>,
    /// State of the CID at this peer.
    pub local: Option<Local>,
}

impl Listing {
    /// Returns the applied index and the number of pins; zeros before the founding.
    ///
    /// # Errors
    /// As [`Reader::pin`].
    pub fn applied(&self) -> Result<Applied, StoreError> {
        let head: Option<Head> = self.record(keys::HEAD)?;
        Ok(head.map(|head| head.applied).unwrap_or_default())
    }

    /// Returns the membership; `None` before the founding.
    ///
    /// # Errors
    /// As [`Reader::pin`].
    pub fn members(&self) -> Result<Option<Members>, StoreError> {
        self.record(keys::MEMBERS)
    }

    pub(super) fn policy(&self) -> Result<Policy, StoreError> {
        self.record(keys::POLICY).map(Option::unwrap_or_default)
    }

    pub(super) fn windows(&self) -> Result<Vec<Window>, StoreError> {
        let meta = &self.shared.fixed.meta;
        let windows = self.snapshot.prefix(meta, keys::WINDOWS);
        windows
            .map(|guard| {
                let (key, value) = guard.into_inner().map_err(StoreError::Read)?;
                record::unseal(&key, &value).map_err(|what| view::damaged(meta, &key, &what))
            })
            .collect()
    }

    /// Returns the pin of a CID.
    ///
    /// # Errors
    /// As [`Reader::pin`].
    pub fn pin(&self, cid: &Cid) -> Result<Option<Pin>, StoreError> {
        self.get(&self.generation.pins, cid)
    }

    /// Returns the local state of a CID.
    ///
    /// # Errors
    /// As [`Reader::pin`].
    pub fn local(&self, cid: &Cid) -> Result<Option<Local>, StoreError> {
        self.get(&self.shared.fixed.local, cid)
    }

    /// Iterates over all pins after `after`, in the order of their CIDs.
    ///
    /// # Errors
    /// An item is an error when it cannot be read; the last one then.
    pub fn pins(&self, after: Option<&Cid>) -> impl Iterator<Item = Result<Pin, StoreError>> + Send + use<> {
        let pins = self.stream(&self.generation.pins, after);
        let generation = Arc::clone(&self.generation);
        pins.map(move |pair| {
            let (key, value) = pair?;
            decode(&value).map_err(|error| view::damaged(&generation.pins, &key, &error.to_string()))
        })
    }

    /// Iterates over all local states after `after`, in the order of their CIDs.
    ///
    /// # Errors
    /// As [`Listing::pins`].
    pub fn locals(
        &self,
        after: Option<&Cid>,
    ) -> impl Iterator<Item = Result<(Cid, Local), StoreError>> + Send + use<> {
        let rows = Rows {
            pins: None,
            locals: Merged::new(self.stream(&self.shared.fixed.local, after)),
        };
        rows.map(|row| {
            let row = row?;
            let local = row
                .local
                .ok_or_else(|| StoreError::Damaged("a row of nothing".to_owned()))?;
            Ok((row.cid, local))
        })
    }

    /// Iterates over all CIDs after `after` that have a pin or a local state, in order.
    ///
    /// # Errors
    /// As [`Listing::pins`].
    pub fn rows(&self, after: Option<&Cid>) -> impl Iterator<Item = Result<Row, StoreError>> + Send + use<> {
        Rows {
            pins: Some(Merged::new(self.stream(&self.generation.pins, after))),
            locals: Merged::new(self.stream(&self.shared.fixed.local, after)),
        }
    }

    /// Iterates over the pins whose allocations list `peer`, in the order of their CIDs.
    ///
    /// # Errors
    /// As [`Listing::pins`].
    pub fn allocated(&self, peer: &PeerId) -> impl Iterator<Item = Result<Pin, StoreError>> + Send + use<'_> {
        self.by_index(keys::by_peer(peer.as_bytes()))
    }

    /// Returns the number of pins whose allocations list `peer`.
    ///
    /// # Errors
    /// As [`Reader::pin`].
    pub fn allocated_count(&self, peer: &PeerId) -> Result<u64, StoreError> {
        let keys = self
            .snapshot
            .prefix(&self.generation.index, keys::by_peer(peer.as_bytes()));
        count(keys)
    }

    /// Returns the number of CIDs in a queue, up to `most`.
    ///
    /// # Errors
    /// As [`Reader::pin`].
    pub fn queued(&self, lane: Lane, most: usize) -> Result<u64, StoreError> {
        let (start, end) = keys::lane(lane);
        let keys = self.snapshot.range(&self.shared.fixed.queue, start..end);
        count(keys.take(most))
    }

    /// The pins whose index keys start with `prefix`; the rest of the key is the CID.
    fn by_index(&self, prefix: Vec<u8>) -> impl Iterator<Item = Result<Pin, StoreError>> + Send + use<'_> {
        let index = &self.generation.index;
        self.snapshot.prefix(index, &prefix).map(move |guard| {
            let key = guard.key().map_err(StoreError::Read)?;
            let bad = |what: &str| view::damaged(index, &key, what);
            let cid = Cid::from_bytes(&key[prefix.len()..]).map_err(|error| bad(&error.to_string()))?;
            self.pin(&cid)?.ok_or_else(|| bad("there is no such pin"))
        })
    }

    /// The encoded pins, in order.
    pub(super) fn stored_pins(&self) -> Stream {
        self.stream(&self.generation.pins, None)
    }

    fn stream(&self, keyspace: &Keyspace, after: Option<&Cid>) -> Stream {
        let start = after.map_or(Bound::Unbounded, |cid| Bound::Excluded(cid.as_bytes()));
        Stream {
            iter: self
                .snapshot
                .range::<&[u8], _>(keyspace, (start, Bound::Unbounded)),
            _generation: Arc::clone(&self.generation),
            _shared: Arc::clone(&self.shared),
        }
    }

    fn get<T: DeserializeOwned>(&self, keyspace: &Keyspace, cid: &Cid) -> Result<Option<T>, StoreError> {
        let key = cid.as_bytes();
        let Some(value) = self.snapshot.get(keyspace, key).map_err(StoreError::Read)? else {
            return Ok(None);
        };
        decode(&value)
            .map(Some)
            .map_err(|error| view::damaged(keyspace, key, &error.to_string()))
    }

    fn record<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, StoreError> {
        let meta = &self.shared.fixed.meta;
        let Some(value) = self.snapshot.get(meta, key).map_err(StoreError::Read)? else {
            return Ok(None);
        };
        record::unseal(key, &value)
            .map(Some)
            .map_err(|what| view::damaged(meta, key, &what))
    }
}

/// A key and its value, as read.
type Pair = Result<KvPair, StoreError>;

/// Keys and values of a keyspace, with a handle that keeps their files.
pub(super) struct Stream {
    iter: Iter,
    _generation: Arc<Generation>,
    _shared: Arc<Shared>,
}

impl Iterator for Stream {
    type Item = Pair;

    fn next(&mut self) -> Option<Self::Item> {
        let guard = self.iter.next()?;
        Some(guard.into_inner().map_err(StoreError::Read))
    }
}

/// One side of a merge, with its next pair.
struct Merged {
    stream: Stream,
    next: Option<Pair>,
}

impl Merged {
    fn new(mut stream: Stream) -> Self {
        let next = stream.next();
        Self { stream, next }
    }

    fn key(&self) -> Option<&[u8]> {
        match &self.next {
            // An error sorts first.
            Some(Err(_)) => Some(&[]),
            Some(Ok((key, _))) => Some(key),
            None => None,
        }
    }

    fn take(&mut self) -> Option<Pair> {
        std::mem::replace(&mut self.next, self.stream.next())
    }
}

/// A merge of pins and local states by CID.
struct Rows {
    pins: Option<Merged>,
    locals: Merged,
}

impl Rows {
    /// Takes the pairs of the smallest key, from each side that has it.
    fn pairs(&mut self) -> (Option<Pair>, Option<Pair>) {
        let Some(pins) = &mut self.pins else {
            return (None, self.locals.take());
        };
        let order = match (pins.key(), self.locals.key()) {
            (Some(pin), Some(local)) => pin.cmp(local),
            (Some(_), None) => Ordering::Less,
            (None, _) => Ordering::Greater,
        };
        match order {
            Ordering::Less => (pins.take(), None),
            Ordering::Equal => (pins.take(), self.locals.take()),
            Ordering::Greater => (None, self.locals.take()),
        }
    }
}

impl Iterator for Rows {
    type Item = Result<Row, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (pin, local) = self.pairs();
        if pin.is_none() && local.is_none() {
            return None;
        }
        Some(row(pin, local))
    }
}

fn row(pin: Option<Pair>, local: Option<Pair>) -> Result<Row, StoreError> {
    let (pin, local) = (pin.transpose()?, local.transpose()?);
    let bad = |what: String| StoreError::Damaged(format!("a row of a listing: {what}"));
    let mut row_pin: Option<Pin> = None;
    if let Some((_, value)) = &pin {
        row_pin = Some(decode(value).map_err(|error| bad(error.to_string()))?);
    }
    let mut row_local: Option<Local> = None;
    if let Some((_, value)) = &local {
        row_local = Some(decode(value).map_err(|error| bad(error.to_string()))?);
    }
    let cid = match (&row_pin, &local) {
        (Some(pin), _) => pin.cid.clone(),
        (None, Some((key, _))) => Cid::from_bytes(key).map_err(|error| bad(error.to_string()))?,
        (None, None) => return Err(bad("it is empty".to_owned())),
    };
    Ok(Row {
        cid,
        pin: row_pin,
        local: row_local,
    })
}
