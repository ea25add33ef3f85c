//! Automatic garbage collection of the embedded IPFS node, when its repository has reached a watermark.

use std::time::{Duration, Instant};

use cluster_ipfs::{Backend, Collected, Error, Node, Pace};
use futures::TryStreamExt;

use crate::config::Config;
use crate::driver::{FULL, Handle, percent};
use crate::metrics::metrics;

/// Time for which a collection waits until no pin is being fetched.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Checks until a collection that freed too little is tried again; twice as many after each that does. There
/// is new garbage without growth when pins are removed, or uploads are not pinned in time.
const RETRY_CHECKS: u32 = 10;

/// Maximum time until then.
const RETRY_MAX: Duration = Duration::from_secs(6 * 3600);

/// Growth since the last collection, in percent of the maximum, from which there may be new garbage.
const GROWTH: u64 = 1;

/// State of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Usage {
    size: u64,
    max: u64,
    /// Pins are being fetched.
    is_busy: bool,
}

impl Usage {
    fn percent(self) -> u64 {
        percent(self.size, self.max)
    }
}

/// Decides when to collect. Reads no clock.
#[derive(Debug)]
struct Watermark {
    percent: u64,
    /// Time since which a collection waits for a quiet moment.
    waiting: Option<Instant>,
    /// Pause after a collection that frees too little.
    first_retry: Duration,
    last: Option<Last>,
}

/// The last collection.
#[derive(Debug, Clone, Copy)]
struct Last {
    /// Size of the repository after it.
    size: u64,
    retry: Duration,
    retry_at: Instant,
}

impl Watermark {
    fn new(percent: u64, interval: Duration) -> Self {
        Self {
            percent,
            waiting: None,
            first_retry: (interval * RETRY_CHECKS).min(RETRY_MAX),
            last: None,
        }
    }

    /// Returns the pace of the collection to run now, if there is one.
    fn decide(&mut self, now: Instant, usage: Usage) -> Option<Pace> {
        if usage.percent() < self.percent {
            (self.waiting, self.last) = (None, None);
            return None;
        }
        let grown = |last: Last| usage.size.saturating_sub(last.size) > usage.max / 100 * GROWTH;
        if !self.last.is_none_or(|last| grown(last) || now >= last.retry_at) {
            return None;
        }
        // Now, and without rests.
        if usage.percent() >= FULL {
            return Some(Pace::Full);
        }
        let waiting = *self.waiting.get_or_insert(now);
        (!usage.is_busy || now - waiting >= PATIENCE).then_some(Pace::Background)
    }

    /// Notes that a collection has ended.
    fn collected(&mut self, now: Instant, size: u64) {
        let longer = |last: Last| (last.retry * 2).min(RETRY_MAX);
        let retry = self.last.map_or(self.first_retry, longer);
        self.waiting = None;
        self.last = Some(Last {
            size,
            retry,
            retry_at: now + retry,
        });
    }
}

/// Returns a future that collects garbage whenever the repository has reached the configured watermark. It
/// ends at once without an embedded node, or with a watermark of 0.
pub(super) fn run(config: &Config, backend: &Backend, handle: &Handle) -> impl Future<Output = ()> + use<> {
    let embedded = config.ipfs_connector.embedded.as_ref();
    let settings = embedded.map(|embedded| (u64::from(embedded.gc_watermark), embedded.gc_interval.0));
    let (backend, handle) = (backend.clone(), handle.clone());
    async move {
        match (settings, backend) {
            (Some((percent @ 1.., interval)), Backend::Embedded(node)) => {
                watch(&node, &handle, Watermark::new(percent, interval), interval).await;
            }
            (_, Backend::Embedded(_) | Backend::Kubo(_)) => {}
        }
    }
}

async fn watch(node: &Node, handle: &Handle, mut watermark: Watermark, interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        let Some(is_busy) = handle.view(|view, _| view.running().next().is_some()).await else {
            return;
        };
        let Some(usage) = usage(node, is_busy).await else {
            continue;
        };
        if let Some(pace) = watermark.decide(Instant::now(), usage) {
            collect(node, usage, pace).await;
            let after = self::usage(node, false).await;
            watermark.collected(Instant::now(), after.map_or(usage.size, |after| after.size));
        }
    }
}

async fn usage(node: &Node, is_busy: bool) -> Option<Usage> {
    let node = node.clone();
    let stat = tokio::task::spawn_blocking(move || node.stat().map_err(|error| error.to_string())).await;
    match stat.ok()? {
        Ok(stat) => Some(Usage {
            size: stat.repo_size,
            max: stat.storage_fits,
            is_busy,
        }),
        Err(error) => {
            tracing::warn!(%error, "the size of the IPFS repository cannot be read");
            None
        }
    }
}

async fn collect(node: &Node, usage: Usage, pace: Pace) {
    let percent = usage.percent();
    tracing::info!("the IPFS repository is {percent} % full: collecting garbage");
    let steps = node.gc_at(pace).try_fold(0, async |freed, step| {
        Ok(match step {
            Collected::Removed(_) => freed,
            Collected::Freed { bytes } => bytes,
        })
    });
    match steps.await {
        Ok(freed) => {
            metrics().ipfs_gc_runs.inc();
            metrics().ipfs_gc_freed.inc_by(freed);
        }
        // A collection by a client runs.
        Err(Error::Busy(_)) => {}
        Err(error) => tracing::warn!(%error, "garbage cannot be collected"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(size: u64, is_busy: bool) -> Usage {
        Usage {
            size,
            max: 1000,
            is_busy,
        }
    }

    const INTERVAL: Duration = Duration::from_secs(60);

    #[test]
    fn collections_wait_for_a_quiet_moment_but_not_for_ever() {
        let (mut watermark, start) = (Watermark::new(80, INTERVAL), Instant::now());
        assert_eq!(watermark.decide(start, usage(799, false)), None);
        assert_eq!(watermark.decide(start, usage(800, true)), None);
        let late = start + PATIENCE;
        assert_eq!(watermark.decide(late, usage(800, true)), Some(Pace::Background));
        assert_eq!(watermark.decide(start, usage(800, false)), Some(Pace::Background));
        assert_eq!(watermark.decide(start, usage(950, true)), Some(Pace::Full));
    }

    #[test]
    fn a_collection_is_repeated_after_growth_and_ever_longer_pauses() {
        let (mut watermark, start) = (Watermark::new(80, INTERVAL), Instant::now());
        watermark.collected(start, 850);
        let decided = |watermark: &mut Watermark, minutes: u32, size| {
            watermark.decide(start + INTERVAL * minutes, usage(size, false))
        };
        assert_eq!(decided(&mut watermark, 9, 860), None);
        assert_eq!(decided(&mut watermark, 9, 961), Some(Pace::Full));
        assert_eq!(decided(&mut watermark, 9, 861), Some(Pace::Background));
        assert_eq!(decided(&mut watermark, 10, 850), Some(Pace::Background));
        watermark.collected(start, 850);
        assert_eq!(decided(&mut watermark, 19, 850), None);
        assert_eq!(decided(&mut watermark, 20, 850), Some(Pace::Background));
        // Below the watermark it is forgotten.
        assert_eq!(decided(&mut watermark, 20, 700), None);
        assert_eq!(decided(&mut watermark, 20, 850), Some(Pace::Background));
    }
}
