//! Delays of consensus. A heartbeat sent or read late by more than an election timeout costs the leadership,
//! so these are the first figures to check when leaders change without an apparent reason.
//!
//! Two delays are measured: of the core's timer, and of a task on the threads of the cluster's network,
//! each from its due time until it is handled. Both are a few milliseconds on a machine with enough
//! processors and a fast disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cluster_core::Instant as CoreInstant;
use tokio::time::{Instant, MissedTickBehavior};

/// Delay from which a log line is written: half of the default heartbeat interval.
const WARN_FROM: Duration = Duration::from_millis(500);

/// Shortest time between two log lines.
const QUIET: Duration = Duration::from_secs(60);

/// Interval of the probes of the network's threads: four in each of the default election timeout.
const PROBE: Duration = Duration::from_millis(250);

/// Longest delays since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WorstDelays {
    /// Delay of the core's timer.
    pub timer: Duration,
    /// Delay of a task on the threads of the cluster's network.
    pub network: Duration,
}

/// Measures delays. Clones share the result.
#[derive(Debug, Clone)]
pub struct Delays(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    timer: AtomicU64,
    network: AtomicU64,
    start: Instant,
    /// Time of the last log line, in milliseconds since the start; 0 for never.
    logged: AtomicU64,
}

impl Default for Delays {
    fn default() -> Self {
        Self(Arc::new(Shared {
            timer: AtomicU64::new(0),
            network: AtomicU64::new(0),
            start: Instant::now(),
            logged: AtomicU64::new(0),
        }))
    }
}

fn number(value: u128) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

impl Delays {
    /// Returns the longest delays since the start.
    pub fn worst(&self) -> WorstDelays {
        let read = |worst: &AtomicU64| Duration::from_nanos(worst.load(Ordering::Relaxed));
        WorstDelays {
            timer: read(&self.0.timer),
            network: read(&self.0.network),
        }
    }

    /// Records the delay of the core's timer.
    pub(super) fn note_timer(&self, delay: Duration) {
        self.note(&self.0.timer, delay, "a timer of consensus was handled");
    }

    fn note(&self, worst: &AtomicU64, delay: Duration, what: &str) {
        worst.fetch_max(number(delay.as_nanos()), Ordering::Relaxed);
        if delay < WARN_FROM {
            return;
        }
        let now = number(self.0.start.elapsed().as_millis()).max(1);
        let last = self.0.logged.load(Ordering::Relaxed);
        if last == 0 || now.saturating_sub(last) >= number(QUIET.as_millis()) {
            self.0.logged.store(now, Ordering::Relaxed);
            tracing::warn!(
                "{what} {delay:.1?} late: this machine is too busy, or its disk too slow, for a peer that \
                 others wait for"
            );
        }
    }

    /// Probes the threads of the current runtime, for as long as it is polled.
    pub async fn probe_network(self) {
        let mut ticks = tokio::time::interval(PROBE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let due = ticks.tick().await;
            self.note(
                &self.0.network,
                due.elapsed(),
                "a task of the cluster's network ran",
            );
        }
    }
}

/// The core's timer as it was known when the driver began to wait.
///
/// The core also names times in the past, of work that an event has just made possible. Only a timer that was
/// known before can be late.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Armed(Option<CoreInstant>);

impl Armed {
    /// Arms a timer that is due after `now`.
    pub(super) fn new(due: Option<CoreInstant>, now: CoreInstant) -> Self {
        Self(due.filter(|at| *at > now))
    }

    /// Returns how late it is at `now`, if it is due.
    pub(super) fn delay(self, now: CoreInstant) -> Option<Duration> {
        self.0.filter(|at| *at <= now).map(|at| now.since(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_timers_that_were_armed_are_late() {
        let at = |millis| CoreInstant::default() + Duration::from_millis(millis);
        let armed = Armed::new(Some(at(100)), at(50));
        assert_eq!(armed.delay(at(99)), None);
        assert_eq!(armed.delay(at(130)), Some(Duration::from_millis(30)));
        // Work that was due long ago and has become possible only now.
        let possible = Armed::new(Some(at(100)), at(20_000));
        assert_eq!(possible.delay(at(20_001)), None);
    }

    #[test]
    fn worst_delay_of_each_kind_is_kept() {
        let delays = Delays::default();
        for millis in [5, 700, 20] {
            delays.note_timer(Duration::from_millis(millis));
        }
        let worst = delays.clone().worst();
        assert_eq!(worst.timer, Duration::from_millis(700));
        assert_eq!(worst.network, Duration::ZERO);
    }

    #[tokio::test]
    async fn blocked_network_thread_is_measured() {
        let delays = Delays::default();
        let probing = tokio::spawn(delays.clone().probe_network());
        // On the only thread of this runtime, for so long that a probe, which is due within one interval, is
        // about another one late.
        while delays.worst().network < PROBE / 2 {
            std::thread::sleep(2 * PROBE);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        probing.abort();
    }
}
