//! Everything has a limit, and positions keep their order: first <= applied + 1, applied <= committed <=
//! last.

use cluster_core::Index;

use super::{Found, Step};
use crate::options::Options;

/// The limits, and how far each process was.
#[derive(Debug)]
pub(super) struct Bounds {
    open_max: usize,
    running_max: usize,
    committed: Vec<Index>,
}

/// Effects of one step. One step may apply a whole catch-up, but not more.
const EFFECTS_MAX: usize = 5000;

impl Bounds {
    pub(super) fn new(options: &Options, size: usize) -> Self {
        let count = |number: u64| usize::try_from(number.max(1)).expect("a small number");
        Self {
            open_max: count(options.open_max),
            running_max: count(options.concurrent_pins),
            committed: vec![0; size],
        }
    }

    pub(super) fn booted(&mut self, me: usize) {
        self.committed[me] = 0;
    }

    pub(super) fn after_step(&mut self, step: &Step<'_>, found: &mut Found<'_>) {
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
}
