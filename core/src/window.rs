//! Deduplication of proposals: which ids have been applied.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::ids::{ProposalId, RaftId};
use crate::planted::{planted, scaled};

/// The applied proposals of one peer. As wide as the number of proposals that a peer may have open, so ids
/// that fall out of it can only belong to late duplicates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Raft id of the proposing peer.
    pub origin: RaftId,
    /// Number of its process. Proposals of earlier processes are dropped: no client waits for them.
    pub boot: u64,
    /// Highest applied sequence number.
    pub high: u64,
    /// Sequence numbers below `high` that have not been applied and may still be proposed again.
    pub missing: BTreeSet<u64>,
}

/// Maximum distance between the sequence numbers of a peer's newest and oldest open proposal. Part of the
/// replicated state machine: all peers must use the same number.
pub(crate) const WINDOW: usize = 8192;

/// Returns [`WINDOW`], or a smaller width in the simulator.
pub(crate) fn window() -> u64 {
    scaled(WINDOW) as u64
}

impl Window {
    /// Creates a window in which nothing has been applied.
    pub(crate) fn new(origin: RaftId, boot: u64) -> Self {
        Self {
            origin,
            boot,
            high: 0,
            missing: BTreeSet::new(),
        }
    }

    /// Records a proposal. Returns `false` if it has been applied before or is too old to be waited for.
    pub(crate) fn admit(&mut self, id: ProposalId) -> bool {
        if id.boot < self.boot && !planted!(OldBootAdmitted) {
            return false;
        }
        if id.boot > self.boot && !planted!(WindowKeepsBoot) {
            *self = Self::new(self.origin, id.boot);
        }
        if id.seq <= self.high {
            return self.missing.remove(&id.seq);
        }
        let width = if planted!(WindowHalved) {
            window() / 2
        } else {
            window()
        };
        let width = if planted!(WindowTooNarrow) { 1 } else { width };
        let low = id.seq.saturating_sub(width);
        self.missing.extend((self.high + 1).max(low + 1)..id.seq);
        if self.missing.first().is_some_and(|seq| *seq <= low) {
            self.missing = self.missing.split_off(&(low + 1));
        }
        self.high = id.seq;
        true
    }

    /// Returns whether a proposal has been applied or is too old to be applied.
    pub(crate) fn contains(&self, id: ProposalId) -> bool {
        id.boot < self.boot
            || (id.boot == self.boot && id.seq <= self.high && !self.missing.contains(&id.seq))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn window_admits_each_proposal_once(
            seqs in proptest::collection::vec(1_u64..3 * WINDOW as u64, 1..200),
        ) {
            let mut window = Window::new(RaftId(1), 1);
            let (mut seen, mut high) = (BTreeSet::new(), 0);
            for seq in seqs {
                let id = ProposalId { origin: RaftId(1), boot: 1, seq };
                let admitted = window.admit(id);
                prop_assert!(!(admitted && seen.contains(&seq)), "admits {seq} twice");
                prop_assert!(admitted || seen.contains(&seq) || seq + WINDOW as u64 <= high, "loses {seq}");
                prop_assert!(window.contains(id));
                seen.insert(seq);
                high = high.max(seq);
                prop_assert!(window.missing.len() <= WINDOW);
            }
        }
    }

    #[test]
    fn proposals_of_an_earlier_process_are_dropped() {
        let mut window = Window::new(RaftId(1), 1);
        let id = |boot, seq| ProposalId {
            origin: RaftId(1),
            boot,
            seq,
        };
        assert!(window.admit(id(1, 5)));
        assert!(window.admit(id(2, 1)));
        assert!(!window.admit(id(1, 6)));
        assert!(window.contains(id(1, 6)));
    }
}
