//! Making written batches durable beside the loop.

use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use cluster_core::BatchId;

use super::error::StoreError;
use super::open::Store;
use super::shared::{Shared, lock};

/// A thread that syncs. Whatever is asked for while a sync runs is covered by one more: only the newest
/// batch waits, so there is no queue to fill.
pub struct Syncer {
    slot: Arc<Slot>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Slot {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    newest: Option<BatchId>,
    closed: bool,
}

impl Syncer {
    /// Starts the thread. `synced` is called on it with the newest batch that is durable, once per sync, or
    /// with the error after which the process must end; after an error it is not called again.
    pub fn start(
        store: &Store,
        synced: impl FnMut(Result<BatchId, StoreError>) + Send + 'static,
    ) -> io::Result<Self> {
        let slot = Arc::<Slot>::default();
        let (shared, inner) = (Arc::clone(&store.shared), Arc::clone(&slot));
        let thread = thread::Builder::new()
            .name("store-sync".to_owned())
            .spawn(move || run(&shared, &inner, synced))?;
        Ok(Self {
            slot,
            thread: Some(thread),
        })
    }

    /// Asks for `batch`, which has been written, and all before it to be made durable.
    pub fn request(&self, batch: BatchId) {
        lock(&self.slot.state).newest = Some(batch);
        self.slot.changed.notify_one();
    }
}

impl Drop for Syncer {
    /// Ends the thread after what was asked for last.
    fn drop(&mut self) {
        lock(&self.slot.state).closed = true;
        self.slot.changed.notify_one();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that syncs the store panicked");
        }
    }
}

fn run(shared: &Shared, slot: &Slot, mut synced: impl FnMut(Result<BatchId, StoreError>)) {
    while let Some(batch) = next(slot) {
        let result = shared.sync().map(|()| batch);
        let failed = result.is_err();
        synced(result);
        if failed {
            return;
        }
    }
}

/// Waits for a batch to sync; `None` when there will be no more.
fn next(slot: &Slot) -> Option<BatchId> {
    let mut state = slot
        .changed
        .wait_while(lock(&slot.state), |state| state.newest.is_none() && !state.closed)
        .unwrap_or_else(PoisonError::into_inner);
    state.newest.take()
}
