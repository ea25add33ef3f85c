//! Limits on memory, and the order of log positions: first <= applied + 1, applied <= committed <=
//! last.

use cluster_core::{Index, StoreOp};

use super::{Findings, Step};
use crate::options::Options;

/// The limits, and the positions of each process.
#[derive(Debug)]
pub(super) struct Bounds {
    open_max: usize,
    running_max: usize,
    committed: Vec<Index>,
    trailing: u64,
    log_bytes: usize,
    window: u64,
}

/// Maximum number of effects of one step, which may apply all entries that a follower lacks.
const EFFECTS_MAX: usize = 5000;

impl Bounds {
    pub(super) fn new(options: &Options, size: usize) -> Self {
        let count = |number: u64| usize::try_from(number.max(1)).expect("a small number");
        Self {
            open_max: count(options.open_max),
            running_max: count(options.concurrent_pins),
            committed: vec![0; size],
            trailing: options.trailing_logs,
            log_bytes: count(options.log_kib << 10),
            window: (8192 / options.shrink.max(1)).max(2),
        }
    }

    pub(super) fn booted(&mut self, me: usize) {
        self.committed[me] = 0;
    }

    pub(super) fn after_step(&mut self, step: &Step<'_>, found: &mut Findings<'_>) {
        let Some(node) = step.peer().node.as_ref() else {
            return;
        };
        let view = node.view();
        let (first, last, _) = view.log_span();
        let (applied, committed) = (view.applied().index, view.committed());
        found.require(
            first <= applied + 1 && applied <= committed && committed <= last,
            "positions",
            || format!("log {first}..={last}, applied {applied}, committed {committed}"),
        );
        let before = std::mem::replace(&mut self.committed[step.me], committed);
        found.require(before <= committed, "positions", || {
            format!("committed goes back from {before} to {committed}")
        });
        let store = &step.peer().disk.written;
        found.require(store.applied == view.applied(), "positions", || {
            format!(
                "its disk has applied {:?}, it says {:?}",
                store.applied,
                view.applied()
            )
        });
        self.of_log(step, found);
        let open = view.open_requests();
        found.require(open <= self.open_max, "bounds", || {
            format!("{open} requests are open")
        });
        let running = step.peer().ipfs.running();
        found.require(running <= self.running_max, "bounds", || {
            format!("{running} operations run, {} may", self.running_max)
        });
        let effects = step.effects.len();
        found.require(effects <= EFFECTS_MAX, "bounds", || {
            format!("{effects} effects in one step")
        });
    }

    /// Checks that the log is compacted when, and only when, it has more than twice the trailing entries or
    /// exceeds its bytes.
    fn of_log(&self, step: &Step<'_>, found: &mut Findings<'_>) {
        let disk = &step.peer().disk;
        let store = &disk.written;
        let kept = store.sizes();
        let [least_before, most_before] = [kept[0] + disk.dropped[0], kept[1] + disk.dropped[1]];
        for op in step.writes() {
            match op {
                StoreOp::PutWindow { window } => {
                    let open = window.missing.len() as u64;
                    found.require(open <= self.window, "bounds", || {
                        format!("{open} proposals of {} are missing", window.origin)
                    });
                }
                StoreOp::SetApplied { .. } => {
                    let length = store.log.len() as u64;
                    let is_minimal = store.compacted.0 >= store.applied.index;
                    found.require(length <= 2 * self.trailing || is_minimal, "bounds", || {
                        format!("keeps {length} entries of the log, {} are enough", self.trailing)
                    });
                    let is_cut = disk.dropped_entries > 0 || is_minimal;
                    found.require(least_before <= self.log_bytes || is_cut, "bounds", || {
                        format!(
                            "keeps all {least_before} bytes of the log, {} may be",
                            self.log_bytes
                        )
                    });
                }
                StoreOp::Compact { index, .. } => {
                    let kept = store.last() - index;
                    let length = (store.last() - store.compacted.0) + disk.dropped_entries;
                    let is_long = length > 2 * self.trailing;
                    found.require(is_long || most_before > self.log_bytes, "bounds", || {
                        format!("drops entries of a log of {length}, of {most_before} bytes")
                    });
                    let least = if is_long { self.trailing } else { length / 2 };
                    found.require(kept >= least, "bounds", || {
                        format!("keeps {kept} entries of a log of {length}, of {most_before} bytes")
                    });
                }
                _ => {}
            }
        }
    }
}
