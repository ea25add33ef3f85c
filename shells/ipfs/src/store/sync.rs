//! Background thread that starts syncs early, and syncs an idle store.

use super::index::Fresh;
use super::segments::Files;
use super::writer::{Op, Request};
use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Time after which fresh blocks are synced without a request.
const IDLE: Duration = Duration::from_secs(1);

/// Handle of the syncing thread, which lives as long as the writing thread.
pub(super) struct Syncer {
    orders: SyncSender<u32>,
}

impl Syncer {
    pub(super) fn start(
        files: Arc<Files>,
        fresh: Arc<Fresh>,
        requests: mpsc::WeakSender<Request>,
    ) -> std::io::Result<Syncer> {
        let (orders, received) = sync_channel::<u32>(1);
        let work = move || {
            loop {
                match received.recv_timeout(IDLE) {
                    Ok(segment) => {
                        // Only a head start: the kernel reports failures to the writing thread's file
                        // descriptor too, whose sync decides.
                        let _ = File::open(files.path(segment)).and_then(|file| file.sync_data());
                    }
                    Err(RecvTimeoutError::Timeout) if fresh.with(HashMap::is_empty) => {}
                    Err(RecvTimeoutError::Timeout) => request_sync(&requests),
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        };
        std::thread::Builder::new()
            .name("ipfs-store-sync".into())
            .spawn(work)?;
        Ok(Syncer { orders })
    }

    /// Starts syncing a segment, unless one is being synced already.
    pub(super) fn begin(&self, segment: Option<u32>) {
        if let Some(segment) = segment {
            match self.orders.try_send(segment) {
                Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
            }
        }
    }
}

fn request_sync(requests: &mpsc::WeakSender<Request>) {
    if let Some(requests) = requests.upgrade() {
        let (done, _) = oneshot::channel();
        let request = Request {
            op: Op::Sync,
            durable: true,
            done,
        };
        // A full queue means a busy store, which will sync anyway.
        let _ = requests.try_send(request);
    }
}
