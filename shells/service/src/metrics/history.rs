//! Rate and mean latency of changes in the last hour, for the plots of the web page, which works without
//! Prometheus.

use std::collections::VecDeque;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::Serialize;

use super::metrics;

/// Time between two samples.
const INTERVAL: Duration = Duration::from_secs(10);

/// Number of samples kept: one hour's worth.
const SAMPLES_MAX: usize = 360;

static HISTORY: LazyLock<Mutex<History>> = LazyLock::new(Mutex::default);

/// Samples of the past, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, JsonSchema)]
pub struct History {
    /// Time between two samples, in seconds.
    interval: u64,
    /// Changes per second.
    rates: VecDeque<f64>,
    /// Mean time to commit a change, in seconds; `None` without a change.
    latencies: VecDeque<Option<f64>>,
}

impl History {
    fn add(&mut self, changes: u64, seconds: f64, elapsed: Duration) {
        self.interval = INTERVAL.as_secs();
        if self.rates.len() == SAMPLES_MAX {
            self.rates.pop_front();
            self.latencies.pop_front();
        }
        // Numbers of changes are small enough for an exact conversion.
        let count = changes as f64;
        self.rates
            .push_back(count / elapsed.as_secs_f64().max(f64::EPSILON));
        self.latencies.push_back((changes > 0).then(|| seconds / count));
    }
}

/// Returns the samples so far.
pub fn history() -> History {
    HISTORY.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Takes a sample every [`INTERVAL`]. Never returns.
pub(super) async fn watch() {
    let duration = &metrics().commit_duration;
    let mut before = (
        duration.get_sample_count(),
        duration.get_sample_sum(),
        Instant::now(),
    );
    loop {
        tokio::time::sleep(INTERVAL).await;
        let now = (
            duration.get_sample_count(),
            duration.get_sample_sum(),
            Instant::now(),
        );
        let (changes, seconds, elapsed) = (now.0 - before.0, now.1 - before.1, now.2 - before.2);
        let mut history = HISTORY.lock().unwrap_or_else(PoisonError::into_inner);
        history.add(changes, seconds, elapsed);
        drop(history);
        before = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_of_samples_is_kept() {
        let mut history = History::default();
        history.add(0, 0.0, INTERVAL);
        for _ in 0..SAMPLES_MAX {
            history.add(20, 0.5, INTERVAL);
        }
        assert_eq!(
            (history.rates.len(), history.latencies.len()),
            (SAMPLES_MAX, SAMPLES_MAX)
        );
        assert_eq!((history.rates[0], history.latencies[0]), (2.0, Some(0.025)));
    }
}
