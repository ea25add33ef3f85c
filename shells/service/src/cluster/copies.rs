//! Samples of the time until the copies of a pin exist, for the metrics.
//!
//! Only the peers that hold a pin know when they got it, so they are asked for its status. That has a cost,
//! so only a few of the pins requested at this peer are followed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cluster_api::{GlobalPinInfo, TrackerStatus};
use cluster_core::Cid;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Cluster;
use crate::metrics::metrics;

/// Pins that are followed at the same time.
const SAMPLES_MAX: usize = 8;

/// Shortest time between two pins to follow.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(500);

/// First pause between two status requests; each is 1.5 times as long as the one before.
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// Maximum pause.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Time after which a pin is not followed any more: the last bucket of the histograms.
const FOLLOW_MAX: Duration = Duration::from_secs(24 * 3600);

/// Selects the pins that are followed. Off until it is enabled.
#[derive(Debug)]
pub(super) struct Sampling {
    places: Arc<Semaphore>,
    /// Time of the last sample; `None` while off.
    last: Mutex<Option<Instant>>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(SAMPLES_MAX)),
            last: Mutex::new(None),
        }
    }
}

impl Sampling {
    fn enable(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn admit(&self) -> Option<OwnedSemaphorePermit> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        (*last).filter(|last| last.elapsed() >= SAMPLE_INTERVAL)?;
        let place = self.places.clone().try_acquire_owned().ok()?;
        *last = Some(Instant::now());
        Some(place)
    }
}

/// Progress of the copies of a pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Copies {
    held: usize,
    wanted: usize,
}

impl Copies {
    fn of(info: &GlobalPinInfo) -> Self {
        let holders = info
            .peer_map
            .values()
            .filter(|peer| peer.status != TrackerStatus::Remote);
        let (mut held, mut wanted) = (0, 0);
        for peer in holders {
            wanted += 1;
            held += usize::from(peer.status == TrackerStatus::Pinned);
        }
        Self { held, wanted }
    }
}

impl Cluster {
    /// Starts to follow some of the pins requested at this peer.
    pub fn enable_samples(&self) {
        self.inner.samples.enable();
    }

    /// Follows a pin that was requested at `start`, if it is one of the sample.
    pub(super) fn sample_copies(&self, cid: &Cid, start: Instant) {
        let Some(place) = self.inner.samples.admit() else {
            return;
        };
        let (cluster, cid) = (self.whole(), cid.clone());
        tokio::spawn(async move {
            cluster.follow_copies(&cid, start).await;
            drop(place);
        });
    }

    async fn follow_copies(&self, cid: &Cid, start: Instant) {
        let (mut has_first, mut pause) = (false, PAUSE_MIN);
        while start.elapsed() < FOLLOW_MAX {
            let Ok(info) = self.status(cid.clone()).await else {
                return;
            };
            let unpinned = |status| status == TrackerStatus::Unpinned;
            if info.peer_map.values().all(|peer| unpinned(peer.status)) {
                return;
            }
            let copies = Copies::of(&info);
            let took = start.elapsed().as_secs_f64();
            if copies.held > 0 && !has_first {
                has_first = true;
                metrics().pin_first_copy.observe(took);
            }
            if copies.wanted > 0 && copies.held == copies.wanted {
                metrics().pin_all_copies.observe(took);
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 3 / 2).min(PAUSE_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use cluster_api::PinInfoShort;

    use super::*;

    #[test]
    fn samples_are_spaced_and_bounded() {
        let sampling = Sampling::default();
        assert!(sampling.admit().is_none());
        let past = Instant::now().checked_sub(SAMPLE_INTERVAL);
        let mut held = Vec::new();
        for _ in 0..SAMPLES_MAX {
            *sampling.last.lock().unwrap() = past;
            held.push(sampling.admit().expect("there is room"));
            assert!(sampling.admit().is_none());
        }
        *sampling.last.lock().unwrap() = past;
        assert!(sampling.admit().is_none());
        held.pop();
        assert!(sampling.admit().is_some());
    }

    #[test]
    fn copies_of_other_peers_do_not_count() {
        let mut info = GlobalPinInfo::default();
        for (peer, status) in [
            ("a", TrackerStatus::Pinned),
            ("b", TrackerStatus::Pinning),
            ("c", TrackerStatus::Remote),
        ] {
            let short = PinInfoShort {
                status,
                ..PinInfoShort::default()
            };
            info.peer_map.insert(peer.to_owned(), short);
        }
        assert_eq!(Copies::of(&info), Copies { held: 1, wanted: 2 });
    }
}
