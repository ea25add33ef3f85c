//! One peer's clocks: they run fast or slow, and the wall clock jumps.

use std::time::Duration;

use cluster_core::{Instant, Now, Timestamp};

/// Reading of the wall clocks at the start of the simulation: some moment in 2022.
const EPOCH: u64 = 1_650_000_000_000_000_000;

/// A peer's two clocks as functions of the simulation's time.
#[derive(Debug, Clone)]
pub(crate) struct Clock {
    /// Reading of the monotonic clock at the start.
    base: u64,
    /// Drift of both clocks against simulated time, in parts per million.
    drift_ppm: i64,
    /// Offset of the wall clock from all settings so far, in nanoseconds.
    step: i64,
    /// Earlier values of `step`, each with the simulated time until which it held.
    past_steps: Vec<(u64, i64)>,
}

impl Clock {
    pub(crate) fn new(base: Duration, drift_ppm: i64, step: i64) -> Self {
        Self {
            base: u64::try_from(base.as_nanos()).expect("a short time"),
            drift_ppm,
            step,
            past_steps: Vec::new(),
        }
    }

    /// Returns both clocks' readings at the simulated time `at`, in nanoseconds.
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

    /// Returns the simulated time at which the monotonic clock shows `deadline` or more.
    pub(crate) fn at(&self, deadline: Instant) -> u64 {
        let ran = i128::from(deadline.0.saturating_sub(self.base));
        let at = ran * 1_000_000 / (1_000_000 + i128::from(self.drift_ppm));
        let mut at = u64::try_from(at).unwrap_or(u64::MAX / 2);
        while at < u64::MAX / 4 && self.base + self.ran(at) < deadline.0 {
            at += 1;
        }
        at
    }

    /// Sets the wall clock forwards or back at the simulated time `at`.
    pub(crate) fn step(&mut self, at: u64, by: i64) {
        self.past_steps.push((at, self.step));
        self.step += by;
    }

    /// Returns the latest reading that the wall clock would have at `at` with any setting of the `window`
    /// nanoseconds before.
    pub(crate) fn latest_wall(&self, at: u64, window: u64) -> Timestamp {
        let is_recent = |(until, _): &&(u64, i64)| *until + window >= at;
        let past = self.past_steps.iter().filter(is_recent).map(|(_, step)| *step);
        let step = past.fold(self.step, i64::max);
        Timestamp((EPOCH + self.ran(at)).saturating_add_signed(step))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadline_passes_when_the_clock_shows_it() {
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
