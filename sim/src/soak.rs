//! Runs of many seeds on several threads, and the sum of their reports.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::coverage::Counts;
use crate::options::Options;
use crate::report::{Report, Stats};
use crate::run::run;

/// Sum of many runs.
#[derive(Debug, Clone, Default)]
pub struct Sum {
    /// Number of seeds that were run.
    pub seeds: u64,
    /// Statistics of all of them.
    pub stats: Stats,
    /// Situations that occurred.
    pub coverage: Counts,
    /// The runs that failed, by seed.
    pub failures: BTreeMap<u64, Report>,
    /// The hash of each run's trace.
    pub hashes: BTreeMap<u64, u64>,
}

impl Sum {
    fn add(&mut self, report: Report) {
        self.seeds += 1;
        self.stats.add(&report.stats);
        for (situation, times) in &report.coverage {
            *self.coverage.entry(situation).or_default() += times;
        }
        self.hashes.insert(report.options.seed, report.hash);
        if report.class().is_some() {
            self.failures.insert(report.options.seed, report);
        }
    }
}

/// Runs up to `count` seeds from `first` on, with the options that `draw` returns, on `threads` threads.
/// `watch` is called with each report, and stops the search by returning `false`.
pub fn soak(
    first: u64,
    count: u64,
    threads: usize,
    draw: impl Fn(u64) -> Options + Sync,
    watch: impl Fn(&Report) -> bool + Sync,
) -> Sum {
    soak_with(first, count, threads, |seed| run(&draw(seed), false), watch)
}

fn soak_with(
    first: u64,
    count: u64,
    threads: usize,
    run: impl Fn(u64) -> Report + Sync,
    watch: impl Fn(&Report) -> bool + Sync,
) -> Sum {
    let begun = AtomicU64::new(0);
    let enough = AtomicBool::new(false);
    let sum = Mutex::new(Sum::default());
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                while !enough.load(Ordering::Relaxed) {
                    let number = begun.fetch_add(1, Ordering::Relaxed);
                    let Some(seed) = first.checked_add(number).filter(|_| number < count) else {
                        return;
                    };
                    let report = run(seed);
                    if !watch(&report) {
                        enough.store(true, Ordering::Relaxed);
                    }
                    sum.lock()
                        .unwrap_or_else(std::sync::PoisonError::into_inner)
                        .add(report);
                }
            });
        }
    });
    sum.into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner;

    #[test]
    fn panic_of_the_simulator_does_not_end_a_soak() {
        let run = |seed| {
            let what = move |world| async move {
                assert_ne!(seed, 4, "a planted bug of the simulator");
                crate::run::finish(&world, &crate::run::start_nodes(&world)).await
            };
            runner::execute(&Options::quiet(seed), false, what)
        };
        for threads in [1, 3] {
            let sum = soak_with(2, 5, threads, run, |_| true);
            assert_eq!(sum.seeds, 5);
            let failed: Vec<&u64> = sum.failures.keys().collect();
            assert_eq!(failed, [&4]);
            assert_eq!(sum.failures[&4].violations[0].check, "harness");
        }
    }

    #[test]
    fn soak_ends_with_the_last_seed() {
        let options = |seed| Options {
            peers: 1,
            seconds: 1,
            ..Options::quiet(seed)
        };
        let sum = soak(u64::MAX - 1, 5, 3, options, |_| true);
        let seeds: Vec<&u64> = sum.hashes.keys().collect();
        assert_eq!(seeds, [&(u64::MAX - 1), &u64::MAX]);
    }
}
