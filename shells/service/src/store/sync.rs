//! The thread that makes written batches durable beside the loop.

use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use cluster_core::BatchId;

use super::error::StoreError;
use super::open::Store;
use super::shared::{Shared, lock};

/// Maximum time that a batch without a request stays in memory: a killed process loses at most that much of
/// its tracker's notes, such as failed attempts, and an idle one syncs at most that often.
const LAZY: Duration = Duration::from_secs(1);

/// Handle to the syncing thread. All requests during a sync are covered by the next one: only the newest
/// batch is kept, so there is no queue to fill.
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
    /// Time at which the oldest batch was written that is neither synced nor requested.
    lazy: Option<Instant>,
    closed: bool,
}

impl Syncer {
    /// Starts the thread. It calls `synced` with the newest durable batch, once per sync, or with the error
    /// after which the process must end; after an error it is not called again.
    ///
    /// # Errors
    /// The system cannot start a thread.
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

    /// Requests that `batch`, which has been written, and all before it be made durable.
    pub fn request(&self, batch: BatchId) {
        lock(&self.slot.state).newest = Some(batch);
        self.slot.changed.notify_one();
    }

    /// Notes a batch that was written without a request. It is durable a second later at the latest; no
    /// call of `synced` follows.
    pub fn note(&self) {
        let mut state = lock(&self.slot.state);
        if state.lazy.is_none() {
            state.lazy = Some(Instant::now());
            self.slot.changed.notify_one();
        }
    }
}

impl Drop for Syncer {
    /// Ends the thread after the last request.
    fn drop(&mut self) {
        lock(&self.slot.state).closed = true;
        self.slot.changed.notify_one();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that syncs the store panicked");
        }
    }
}

fn run(shared: &Shared, slot: &Slot, mut synced: impl FnMut(Result<BatchId, StoreError>)) {
    while let Some(asked) = next(slot) {
        match (shared.sync(), asked) {
            (Ok(()), Some(batch)) => synced(Ok(batch)),
            (Ok(()), None) => {}
            (Err(error), _) => {
                synced(Err(error));
                return;
            }
        }
    }
}

/// Waits for something to sync: a requested batch, or batches without a request (inner `None`). Outer
/// `None` when there will be no more.
fn next(slot: &Slot) -> Option<Option<BatchId>> {
    let mut state = lock(&slot.state);
    loop {
        let left = state.lazy.map(|since| LAZY.saturating_sub(since.elapsed()));
        if state.newest.is_some() || left == Some(Duration::ZERO) {
            state.lazy = None;
            return Some(state.newest.take());
        }
        if state.closed {
            return None;
        }
        let waited = slot.changed.wait_timeout(state, left.unwrap_or(Duration::MAX));
        state = waited.unwrap_or_else(PoisonError::into_inner).0;
    }
}
