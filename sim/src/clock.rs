//! One peer's clocks: they run fast or slow, and the wall clock jumps.

use std::time::Duration;

use cluster_core::{Instant, Now, Timestamp};

/// What the wall clocks showed when the simulation started: some moment in 2022.
const EPOCH: u64 = 1_650_000_000_000_000_000;

/// A peer's two clocks as functions of the simulation's time.
#[derive(Debug, Clone)]
pub(crate) struct Clock {
    /// What the monotonic clock showed at the start.
    base: u64,
    /// How much faster than the simulation's time both run, in parts per million.
    drift_ppm: i64,
    /// How far the wall clock has been set forwards or back, in nanoseconds.
    step: i64,
}

impl Clock {
    pub(crate) fn new(base: Duration, drift_ppm: i64, step: i64) -> Self {
        Self {
            base: u64::try_from(base.as_nanos()).expect("a short time"),
            drift_ppm,
            step,
        }
    }

    /// Both clocks' readings at the simulation's time `at`, in nanoseconds.
    pub(crate) fn now(&self, at: u64) -> Now {
        let ran = self.ran(at);
        Now {
            mono: Instant(self.base + ran),
            wall: Timestamp((EPOCH + ran).saturating_add_signed(self.step)),
        }
    }

    fn ran(&self, at: u64) -> u64 {
        let drift = i128::from(at) * i128::from(self.drift_ppm) / 1_000_000;
        u64::try_from(i128::from(at) + drift).expect("clocks do not run backwards")
    }

    /// The simulation's time at which the monotonic clock shows `deadline` or more.
    pub(crate) fn at(&self, deadline: Instant) -> u64 {
        let ran = i128::from(deadline.0.saturating_sub(self.base));
        let at = ran * 1_000_000 / (1_000_000 + i128::from(self.drift_ppm));
        let mut at = u64::try_from(at).unwrap_or(u64::MAX / 2);
        while at < u64::MAX / 4 && self.base + self.ran(at) < deadline.0 {
            at += 1;
        }
        at
    }

    /// Sets the wall clock forwards or back.
    pub(crate) fn step(&mut self, by: i64) {
        self.step += by;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_has_passed_exactly_when_the_clock_says_so() {
        for drift in [-50_000, -7, 0, 3, 20_000] {
            let clock = Clock::new(Duration::from_secs(3), drift, 0);
            for deadline in [3_000_000_000, 3_000_000_001, 3_123_456_789, 900_000_000_000] {
                let at = clock.at(Instant(deadline));
                assert!(clock.now(at).mono.0 >= deadline);
                assert!(
                    at == 0 || clock.now(at - 1).mono.0 < deadline,
                    "{drift} {deadline}"
                );
            }
        }
    }
}
