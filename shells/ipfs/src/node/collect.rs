//! Garbage collection: mark what pins keep, remove the rest.

use super::Node;
use crate::dag::{self, Marked};
use crate::reader::{Sink, blocking, produce};
use crate::store::{Protect, Store};
use crate::{Error, PinMode, codec};
use cid::Cid;
use cid::multihash::Multihash;
use futures::stream::BoxStream;
use std::sync::Arc;
use tokio::runtime::Handle;

/// Blocks removed in one batch, during which a running upload or pin waits for its touch.
const BATCH: usize = 256;

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
    pub fn gc(&self) -> BoxStream<'static, Result<Cid, Error>> {
        let store = self.inner.store.clone();
        produce(|out| async move {
            let handle = Handle::current();
            blocking(move || collect(&store, &handle, &out)).await
        })
    }
}

fn collect(store: &Store, handle: &Handle, out: &Sink<Cid>) -> Result<(), Error> {
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
            PinMode::Recursive => dag::mark(store, pin.cid, true, &mut marked).map_err(|error| {
                Error::Damaged(format!(
                    "nothing was collected: what the pin {} keeps cannot be told ({error}); unpin it, or \
                     pin it anew after unpinning",
                    pin.cid
                ))
            })?,
        }
    }
    let mut removed = false;
    let mut batch = Vec::with_capacity(BATCH);
    let mut keys = store.keys()?;
    loop {
        let key = keys.next().transpose()?;
        let ended = key.is_none();
        batch.extend(key.filter(|key| !marked.contains(key)));
        if batch.len() < BATCH && !ended {
            continue;
        }
        for key in handle.block_on(store.delete(std::mem::take(&mut batch), true))? {
            removed = true;
            if let Ok(hash) = Multihash::from_bytes(&key) {
                out.blocking_send(Cid::new_v1(codec::RAW, hash))?;
            }
        }
        if ended {
            break;
        }
    }
    // The listing holds on to what was there when it began.
    drop(keys);
    if removed {
        handle.block_on(store.sync())?;
        store.compact()?;
    }
    Ok(())
}
