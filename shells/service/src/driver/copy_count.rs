//! Count of the copies of this peer, for the rebalancing. It reads an index entry for each, so with millions
//! of them it runs in the background, and rarely.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cluster_core::{COPIES, Metric, PeerId, copies_value};

use super::fail_stop;
use crate::store::{Reader, StoreError};

/// A count is used for this many times as long as it took, so that counting takes 2 % of one core at most.
const USED_FOR: u32 = 50;

/// Time for which a measurement waits for a count that it starts.
const WAIT: Duration = Duration::from_millis(200);

/// A finished count.
#[derive(Debug, Clone)]
struct Counted {
    value: String,
    weight: i64,
    ended: Instant,
    took: Duration,
}

/// The last count, and whether one is under way. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct CopyCount {
    last: Arc<Mutex<Option<Counted>>>,
    is_counting: Arc<AtomicBool>,
}

impl CopyCount {
    /// Returns the metric of the last count, after starting one if that is old. `None` before the first has
    /// ended.
    pub(super) async fn measure(&self, store: &Reader, peer: &PeerId, ttl: Duration) -> Option<Metric> {
        if self.is_due() && !self.is_counting.swap(true, Ordering::AcqRel) {
            let (all, store, peer) = (self.clone(), store.clone(), peer.clone());
            let count = tokio::task::spawn_blocking(move || {
                let counted = count(&store, &peer).unwrap_or_else(|error| fail_stop(&error));
                *all.last.lock().expect("nothing panics while it holds this lock") = Some(counted);
                all.is_counting.store(false, Ordering::Release);
            });
            // One that takes longer is published by a later measurement.
            let _ = tokio::time::timeout(WAIT, count).await;
        }
        let last = self.last.lock().expect("nothing panics while it holds this lock");
        last.as_ref().map(|counted| Metric {
            name: COPIES.to_owned(),
            value: counted.value.clone(),
            weight: counted.weight,
            partitionable: false,
            ttl,
            valid: true,
        })
    }

    fn is_due(&self) -> bool {
        let last = self.last.lock().expect("nothing panics while it holds this lock");
        let is_old = |counted: &Counted| counted.ended.elapsed() >= counted.took * USED_FOR;
        last.as_ref().is_none_or(is_old)
    }
}

fn count(store: &Reader, peer: &PeerId) -> Result<Counted, StoreError> {
    let start = Instant::now();
    let listing = store.listing();
    let copies = listing.allocated_count(peer)?;
    let applied = listing.applied()?.index;
    Ok(Counted {
        value: copies_value(copies, applied),
        weight: i64::try_from(copies).unwrap_or(i64::MAX),
        ended: Instant::now(),
        took: start.elapsed(),
    })
}
