//! This peer's own metrics.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cluster_core::{CAPACITY, Metric, PING, PeerId};
use cluster_ipfs::Backend;
use cluster_ipfs::backend::Error as BackendError;

use super::copy_count::CopyCount;
use super::fail_stop;
use super::failure_log::FailureLog;
use super::percent;
use crate::metrics::{ipfs_operation, metrics};
use crate::store::Reader;

/// Time limit for the IPFS node's identity and disk usage. The `ping` must not wait for a slow node, or the
/// other peers would presume this one dead.
const NODE_TIMEOUT: Duration = Duration::from_secs(2);

/// Log text for a node that does not report its disk usage.
const DOING: &str = "reading the disk usage of the IPFS node (until it answers, this peer gets no new pins)";

/// The disk metric to publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disk {
    /// Free bytes: more is better.
    FreeSpace,
    /// Used bytes: less is better.
    RepoSize,
}

/// Configuration of the disk metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MeasuredDisk {
    /// Figure to publish.
    pub kind: Disk,
    /// Its time to live.
    pub ttl: Duration,
    /// Share of the maximum in percent from which this peer gets no new pins.
    pub high_water: u64,
    /// Share below which it gets new pins again.
    pub low_water: u64,
}

/// Configuration of the metrics to publish.
#[derive(Debug, Clone)]
pub struct Measured {
    /// This peer.
    pub peer: PeerId,
    /// This peer's name.
    pub peername: String,
    /// Time to live of a `ping`.
    pub ping_ttl: Duration,
    /// The disk metric.
    pub disk: Option<MeasuredDisk>,
    /// Bucket size of the `pinqueue` metric, whose value is rounded down to a multiple of it, and its time
    /// to live.
    pub queue: Option<(NonZeroU64, Duration)>,
    /// Name, value and time to live of each tag.
    pub tags: Vec<(String, String, Duration)>,
}

/// Waits for the IPFS node for at most [`NODE_TIMEOUT`].
async fn in_time<T>(work: impl Future<Output = Result<T, BackendError>>) -> Result<T, String> {
    match tokio::time::timeout(NODE_TIMEOUT, work).await {
        Ok(outcome) => outcome.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {NODE_TIMEOUT:?}")),
    }
}

/// The last samples of the disk, and their time.
type DiskSamples = (Instant, Vec<Metric>);

/// Measures this peer's metrics. Cheap to clone.
#[derive(Clone)]
pub struct Informer {
    backend: Backend,
    store: Reader,
    failures: FailureLog,
    measured: Arc<Measured>,
    /// Id and addresses of the IPFS node, when it last answered.
    identity: Arc<Mutex<(String, Vec<String>)>>,
    disk: Arc<Mutex<Option<DiskSamples>>>,
    copies: CopyCount,
    /// Set while the repository is too full for new pins.
    is_full: Arc<AtomicBool>,
}

impl Informer {
    /// Creates an informer that measures `backend` and `store`.
    pub fn new(backend: Backend, store: Reader, measured: Measured) -> Self {
        Self {
            failures: FailureLog::new(&backend),
            backend,
            store,
            measured: Arc::new(measured),
            identity: Arc::default(),
            disk: Arc::default(),
            copies: CopyCount::default(),
            is_full: Arc::default(),
        }
    }

    /// Measures all metrics, within a bounded time. Those that cannot be read are marked as invalid.
    pub async fn measure(&self) -> Vec<Metric> {
        let (ping, disk, queue, copies) = tokio::join!(
            self.ping(),
            self.disk(),
            self.queue(),
            self.copies
                .measure(&self.store, &self.measured.peer, self.measured.ping_ttl)
        );
        let tags = self.measured.tags.iter().map(|(name, value, ttl)| Metric {
            name: format!("tag:{name}"),
            value: value.clone(),
            weight: 0,
            partitionable: true,
            ttl: *ttl,
            valid: true,
        });
        tags.chain(disk)
            .chain(queue)
            .chain(copies)
            .chain([ping])
            .collect()
    }

    async fn ping(&self) -> Metric {
        if let Ok(identity) = ipfs_operation("id", in_time(self.backend.id())).await {
            let addresses = identity.addresses.iter().map(ToString::to_string).collect();
            *self
                .identity
                .lock()
                .expect("nothing panics while it holds this lock") = (identity.id.to_string(), addresses);
        }
        let (id, addresses) = self
            .identity
            .lock()
            .expect("nothing panics while it holds this lock")
            .clone();
        let value = serde_json::json!({
            "peer_name": self.measured.peername,
            "ipfs_id": id,
            "ipfs_addresses": addresses,
            "version": env!("CARGO_PKG_VERSION"),
            "pins_held": metrics().pins_held(),
        });
        Metric {
            name: PING.to_owned(),
            value: value.to_string(),
            weight: 0,
            partitionable: false,
            ttl: self.measured.ping_ttl,
            valid: true,
        }
    }

    /// Measures the disk metric and the capacity.
    async fn disk(&self) -> Vec<Metric> {
        let Some(MeasuredDisk { kind, ttl, .. }) = self.measured.disk else {
            return Vec::new();
        };
        if let Some(kept) = self.kept_disk(ttl) {
            return kept;
        }
        let stat = ipfs_operation("repo_stat", in_time(self.backend.repo_stat())).await;
        let stat = stat.inspect_err(|why| self.failures.report(DOING, why)).ok();
        let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let (name, value, weight) = match (kind, &stat) {
            (Disk::FreeSpace, Some(stat)) => {
                let free = stat.storage_max.saturating_sub(stat.size);
                ("freespace", free, bytes(free))
            }
            (Disk::RepoSize, Some(stat)) => ("reposize", stat.size, -bytes(stat.size)),
            (Disk::FreeSpace, None) => ("freespace", 0, 0),
            (Disk::RepoSize, None) => ("reposize", 0, 0),
        };
        metrics().informer_disk.set(bytes(value));
        if let Some(stat) = &stat {
            metrics().ipfs_repo.set(bytes(stat.size));
            metrics().ipfs_repo_max.set(bytes(stat.storage_max));
        }
        // A node without much free space gets no new pins; in the Go peer, one without any.
        let is_full = stat
            .as_ref()
            .is_none_or(|stat| self.is_full(stat.size, stat.storage_max));
        let valid = !is_full && (kind == Disk::RepoSize || value > 0);
        let metric = Metric {
            name: name.to_owned(),
            value: value.to_string(),
            weight,
            partitionable: false,
            ttl,
            valid,
        };
        let mut all = vec![metric];
        all.extend(stat.as_ref().map(|stat| Metric {
            name: CAPACITY.to_owned(),
            value: stat.storage_max.to_string(),
            weight: bytes(stat.storage_max),
            partitionable: false,
            ttl,
            valid: true,
        }));
        // A node that did not answer is queried again at the next ping.
        let kept = stat.map(|_| (Instant::now(), all.clone()));
        *self.disk.lock().expect("nothing panics while it holds this lock") = kept;
        all
    }

    /// Returns whether the repository is too full for new pins.
    fn is_full(&self, size: u64, max: u64) -> bool {
        let Some(disk) = self.measured.disk else {
            return false;
        };
        let percent = percent(size, max);
        let was_full = self.is_full.load(Ordering::Relaxed);
        let is_full = percent >= if was_full { disk.low_water } else { disk.high_water };
        self.is_full.store(is_full, Ordering::Relaxed);
        match (was_full, is_full) {
            (false, true) => tracing::warn!(
                "the IPFS repository is {percent} % full, {size} of {max} bytes: this peer gets no new pins \
                 until it is below {} %",
                disk.low_water
            ),
            (true, false) => {
                tracing::info!("the IPFS repository is {percent} % full: this peer gets new pins again");
            }
            (true, true) | (false, false) => {}
        }
        is_full
    }

    /// Returns the last disk samples with their remaining time to live, during the first half of that time:
    /// `repo/stat` of a large repository takes minutes.
    fn kept_disk(&self, ttl: Duration) -> Option<Vec<Metric>> {
        let kept = self.disk.lock().expect("nothing panics while it holds this lock");
        let (taken, metrics) = kept.as_ref()?;
        let age = taken.elapsed();
        let renewed = |metric: &Metric| Metric {
            ttl: ttl - age,
            ..metric.clone()
        };
        (age < ttl / 2).then(|| metrics.iter().map(renewed).collect())
    }

    async fn queue(&self) -> Option<Metric> {
        let (bucket, ttl) = self.measured.queue?;
        let store = self.store.clone();
        let waiting = tokio::task::spawn_blocking(move || store.fresh_count())
            .await
            .ok()?;
        let waiting = waiting.unwrap_or_else(|error| fail_stop(&error));
        Some(Metric {
            name: "pinqueue".to_owned(),
            value: waiting.to_string(),
            // Fewer are better.
            weight: -i64::try_from(waiting / bucket).unwrap_or(i64::MAX),
            partitionable: false,
            ttl,
            valid: true,
        })
    }
}
