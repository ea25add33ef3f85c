//! Garbage collection: mark what pins keep, remove the rest.

use super::Node;
use crate::Cid;
use crate::Multihash;
use crate::dag::{self, Marked};
use crate::reader::{Sink, blocking, produce};
use crate::store::{Protect, Store};
use crate::{Error, PinMode, codec};
use futures::stream::BoxStream;
use std::sync::Arc;
use tokio::runtime::Handle;

/// Blocks removed in one batch, during which a running upload or pin waits for its touch.
const BATCH: usize = 256;

/// Blocks removed on a full disk before what they occupied is freed, so that the removal of the next ones has
/// room. Each time costs a walk over the table of blocks.
const FREE_AFTER: u64 = 1 << 15;

/// One step of a garbage collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Collected {
    /// This block is gone; blocks are stored by multihash and named as CIDv1 of raw bytes.
    Removed(Cid),
    /// The last step: bytes of disk that were freed, of this and of earlier collections' blocks.
    Freed {
        /// The decrease of the disk space that blocks occupy.
        bytes: u64,
    },
}

/// Ends the collection's notes whatever happens.
struct Collecting(Arc<Protect>);

impl Drop for Collecting {
    fn drop(&mut self) {
        self.0.stop_collecting();
    }
}

impl Node {
    /// Removes every block that no pin keeps and no running upload or pin needs, and tells which. Only
    /// one runs at a time; dropping the stream stops it, which is safe at any moment. The disk space is
    /// free when the stream ends.
    pub fn gc(&self) -> BoxStream<'static, Result<Collected, Error>> {
        let store = self.inner.store.clone();
        produce(|out| async move {
            let handle = Handle::current();
            blocking(move || collect(&store, &handle, &out)).await
        })
    }
}

fn collect(store: &Store, handle: &Handle, out: &Sink<Collected>) -> Result<(), Error> {
    // From here on, uploads and pins note what they touch; so the order is: note, then look at the pins.
    let roots = store.protect().start_collecting()?;
    let _collecting = Collecting(store.protect().clone());
    let mut marked = Marked::default();
    for root in roots {
        dag::mark(store, root, false, &mut marked)?;
    }
    for pin in store.pins()? {
        let pin = pin?;
        match pin.mode {
            PinMode::Direct => marked.add(&pin.cid),
            PinMode::Recursive => {
                dag::mark(store, pin.cid, true, &mut marked).map_err(|error| unmarked(&pin.cid, error))?;
            }
        }
    }
    let before = store.occupied()?;
    store.release_reserve()?;
    let removed = remove_unmarked(store, handle, &marked, out)?;
    // Also when nothing was removed: an earlier run may have been cut off, or have lacked the room.
    drop(marked);
    store.compact()?;
    store.fill_reserve()?;
    let bytes = before.saturating_sub(store.occupied()?);
    tracing::info!("garbage collection removed {removed} blocks and freed {bytes} bytes of disk");
    out.blocking_send(Collected::Freed { bytes })
}

/// What is said of a pin whose blocks cannot be followed. An error of the operating system says nothing about
/// the pin.
fn unmarked(cid: &Cid, error: Error) -> Error {
    if matches!(error, Error::Io { .. } | Error::Store(_) | Error::Closed) {
        return error;
    }
    Error::Damaged(format!(
        "nothing was collected: what the pin {cid} keeps cannot be told ({error}); damaged and missing \
         blocks are fetched from connected peers: collect again then, or unpin it"
    ))
}

/// Returns how many blocks it removed.
fn remove_unmarked(
    store: &Store,
    handle: &Handle,
    marked: &Marked,
    out: &Sink<Collected>,
) -> Result<u64, Error> {
    let (mut removed, mut unfreed) = (0, 0);
    let mut batch = Vec::with_capacity(BATCH);
    // The listing holds on to what was there when it began.
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
        if unfreed >= FREE_AFTER && store.is_short_of_room()? {
            unfreed = 0;
            store.free_whole_pages()?;
        }
    }
}
