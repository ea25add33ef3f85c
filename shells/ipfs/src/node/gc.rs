//! Garbage collection: marks the blocks that pins keep, removes the rest.

use super::{Inner, Node};
use crate::Cid;
use crate::Multihash;
use crate::dag::{self, Marked};
use crate::reader::{StreamSender, blocking, stream_from_task};
use crate::store::{Protect, Store};
use crate::{Error, PinMode, codec};
use futures::stream::BoxStream;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// Blocks removed in one batch, during which a running upload or pin waits for its touch.
const BATCH: usize = 256;

/// Blocks removed on a full disk before their space is freed, so that the next removals have room. Each time
/// costs a scan of the table of blocks.
const FREE_AFTER: u64 = 1 << 15;

/// Event of a garbage collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Collected {
    /// This block was removed. Blocks are stored by multihash and named as a CIDv1 with the raw codec.
    Removed(Cid),
    /// The last event: disk space freed, including blocks that earlier collections removed.
    Freed {
        /// Decrease of the disk space that blocks occupy, in bytes.
        bytes: u64,
    },
}

/// Ends the collection when dropped, in every case.
struct CollectionGuard(Arc<Protect>);

impl Drop for CollectionGuard {
    fn drop(&mut self) {
        self.0.stop_collecting();
    }
}

impl Node {
    /// Removes every block that no pin keeps and no running upload or pin needs, and streams the CIDs
    /// removed. Only one collection runs at a time. Dropping the stream stops it, which is safe at any
    /// moment. The disk space is free when the stream ends.
    ///
    /// # Errors
    /// An item is [`Error::Busy`] if a collection is running already, or another error if the store cannot be
    /// read or written; it is the last item.
    pub fn gc(&self) -> BoxStream<'static, Result<Collected, Error>> {
        self.gc_at(Pace::Full)
    }

    /// Collects garbage like [`Node::gc`], at a pace.
    ///
    /// # Errors
    /// As [`Node::gc`].
    pub fn gc_at(&self, pace: Pace) -> BoxStream<'static, Result<Collected, Error>> {
        let inner = self.inner.clone();
        stream_from_task(move |out| async move {
            let handle = Handle::current();
            blocking(move || collect(&inner, &handle, &out, &mut Rests::new(pace))).await
        })
    }
}

/// Pace of a garbage collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Without rests.
    Full,
    /// Rests for three times as long as it works, so that other work on the disk goes on.
    Background,
}

/// Work between two rests.
const WORK: Duration = Duration::from_millis(50);

/// Longest rest.
const REST_MAX: Duration = Duration::from_secs(1);

/// Rests of a collection.
struct Rests {
    pace: Pace,
    since: Instant,
}

impl Rests {
    fn new(pace: Pace) -> Self {
        Self {
            pace,
            since: Instant::now(),
        }
    }

    /// Rests if it is time.
    fn rest(&mut self) {
        let worked = self.since.elapsed();
        if self.pace == Pace::Background && worked >= WORK {
            std::thread::sleep(worked.min(REST_MAX / 3) * 3);
            self.since = Instant::now();
        }
    }
}

fn collect(
    inner: &Inner,
    handle: &Handle,
    out: &StreamSender<Collected>,
    rests: &mut Rests,
) -> Result<(), Error> {
    let store = &inner.store;
    // From here on uploads and pins record what they touch. This must precede reading the pins.
    let roots = store.protect().start_collecting()?;
    let _collecting = CollectionGuard(store.protect().clone());
    let mut marked = Marked::default();
    // The file system's too: what it reaches may be elsewhere.
    for root in roots.into_iter().chain(inner.mfs.kept_roots()) {
        dag::mark(store, root, false, &mut marked)?;
    }
    for pin in store.pins()? {
        let pin = pin?;
        rests.rest();
        match pin.mode {
            PinMode::Direct => marked.add(&pin.cid),
            PinMode::Recursive => {
                dag::mark(store, pin.cid, true, &mut marked).map_err(|error| mark_error(&pin.cid, error))?;
            }
        }
    }
    let before = store.occupied()?;
    store.release_reserve()?;
    let removed = remove_unmarked(store, handle, &marked, out, rests)?;
    // Also when nothing was removed: an earlier run may have been cut off, or have lacked the room.
    drop(marked);
    store.compact()?;
    store.fill_reserve()?;
    let bytes = before.saturating_sub(store.occupied()?);
    tracing::info!("garbage collection removed {removed} blocks and freed {bytes} bytes of disk");
    out.blocking_send(Collected::Freed { bytes })
}

/// Returns the error for a pin whose blocks cannot be followed. An error of the operating system does not
/// indicate a fault of the pin.
fn mark_error(cid: &Cid, error: Error) -> Error {
    if matches!(error, Error::Io { .. } | Error::Store(_) | Error::Closed) {
        return error;
    }
    Error::Damaged(format!(
        "nothing was collected: what the pin {cid} keeps cannot be determined ({error}); damaged and missing \
         blocks are fetched from connected peers: collect again then, or unpin it"
    ))
}

/// Removes all blocks that are not marked; returns their number.
fn remove_unmarked(
    store: &Store,
    handle: &Handle,
    marked: &Marked,
    out: &StreamSender<Collected>,
    rests: &mut Rests,
) -> Result<u64, Error> {
    let (mut removed, mut unfreed) = (0, 0);
    let mut batch = Vec::with_capacity(BATCH);
    // The listing holds a snapshot of the blocks.
    let mut keys = store.keys()?;
    loop {
        let key = keys.next().transpose()?;
        let ended = key.is_none();
        batch.extend(key.filter(|key| !marked.contains(key)));
        if batch.len() < BATCH && !ended {
            continue;
        }
        for key in handle.block_on(store.delete(std::mem::take(&mut batch), true))? {
            (removed, unfreed) = (removed + 1, unfreed + 1);
            if let Ok(hash) = Multihash::from_bytes(&key) {
                out.blocking_send(Collected::Removed(Cid::new_v1(codec::RAW, hash)))?;
            }
        }
        if ended {
            return Ok(removed);
        }
        rests.rest();
        if unfreed >= FREE_AFTER && store.is_short_of_room()? {
            unfreed = 0;
            store.free_whole_pages()?;
        }
    }
}
