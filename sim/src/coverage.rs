//! Situations that have occurred. A rare one that the simulator never reaches is not tested, so runs count
//! the ones that matter and a test fails when one of them stays at zero.

use std::collections::BTreeMap;

/// Number of times that each situation has occurred.
pub type Counts = BTreeMap<&'static str, u64>;

/// Counts situations in one run.
#[derive(Debug, Default)]
pub(crate) struct Coverage {
    counts: Counts,
}

impl Coverage {
    /// Counts an occurrence of a situation.
    pub(crate) fn hit(&mut self, situation: &'static str) {
        *self.counts.entry(situation).or_default() += 1;
    }

    pub(crate) fn into_counts(self) -> Counts {
        self.counts
    }
}

/// Counts a situation that should occur in some runs: `sometimes!(world, condition, "its name")`.
macro_rules! sometimes {
    ($coverage:expr, $holds:expr, $situation:literal) => {
        if $holds {
            $coverage.hit($situation);
        }
    };
}

pub(crate) use sometimes;
