//! Throttling of requests while the daemon does not answer.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

/// Consecutive failures before throttling starts; a daemon that is down causes them in milliseconds.
const FREE_FAILURES: u32 = 10;

/// Interval of requests once throttled: a restart of the daemon is noticed within a second, and an overloaded
/// daemon is spared.
const THROTTLE_INTERVAL: Duration = Duration::from_secs(1);

/// Counts consecutive failures of the transport. Answers of any kind, refusals too, reset the count.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    failures: AtomicU32,
    // Locked by the one request that is next; the others queue in order behind it, each within its own time
    // limit, and pass at once when an answer has cleared the count.
    last: Mutex<Option<Instant>>,
}

impl Throttle {
    /// Waits until a request may be sent. Cancel-safe: the next request in the queue takes the turn.
    pub(super) async fn wait_turn(&self) {
        if self.failures.load(Ordering::Relaxed) <= FREE_FAILURES {
            return;
        }
        let mut last = self.last.lock().await;
        if self.failures.load(Ordering::Relaxed) > FREE_FAILURES
            && let Some(last) = *last
        {
            sleep_until(last + THROTTLE_INTERVAL).await;
        }
        *last = Some(Instant::now());
    }

    pub(super) fn record_answer(&self) {
        self.failures.store(0, Ordering::Relaxed);
    }

    pub(super) fn record_failure(&self) {
        // Saturating: the count must not wrap to 0 if a daemon is down for years.
        let _ = self
            .failures
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |failures| {
                failures.checked_add(1)
            });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn turns(throttle: &Throttle, count: u32) -> Duration {
        let start = Instant::now();
        for _ in 0..count {
            throttle.wait_turn().await;
            throttle.record_failure();
        }
        start.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn after_ten_failures_requests_go_out_once_a_second() {
        let throttle = Throttle::default();
        assert_eq!(turns(&throttle, 11).await, Duration::ZERO);
        assert_eq!(turns(&throttle, 6).await, Duration::from_secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn one_answer_ends_throttling() {
        let throttle = Throttle::default();
        turns(&throttle, 15).await;
        throttle.record_answer();
        assert_eq!(turns(&throttle, 10).await, Duration::ZERO);
    }
}
