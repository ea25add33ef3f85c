//! Many seeds, on several threads, and what they add up to.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::coverage::Counts;
use crate::options::Options;
use crate::report::{Report, Stats};
use crate::run::run;

/// What many runs add up to.
#[derive(Clone, Debug, Default)]
pub struct Sum {
    /// How many seeds were run.
    pub seeds: u64,
    /// How much happened in all of them.
    pub stats: Stats,
    /// Which situations came up.
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

/// Runs `count` seeds from `first` on, each as `draw` says, on `threads` threads. `watch` sees each report
/// as it comes and says whether to go on.
pub fn soak(
    first: u64,
    count: u64,
    threads: usize,
    draw: impl Fn(u64) -> Options + Sync,
    watch: impl Fn(&Report) -> bool + Sync,
) -> Sum {
    let next = AtomicU64::new(first);
    let enough = AtomicBool::new(false);
    let sum = Mutex::new(Sum::default());
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                while !enough.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first.saturating_add(count) {
                        return;
                    }
                    let report = run(&draw(seed), false);
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
