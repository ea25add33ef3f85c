//! Rebalancing as the operators decided: its settings, and the run that they asked for.

use serde::{Deserialize, Serialize};

use crate::ids::PeerId;
use crate::planted::planted;
use crate::time::Timestamp;

/// Maximum number of peers that are recorded to have ended their part of a run.
const DONE_MAX: usize = 1024;

/// Settings of all rebalancing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RebalanceSettings {
    /// Rebalance without a request, whenever a peer deviates from its target by more than the threshold.
    pub automatic: bool,
    /// Deviation from a target that starts automatic rebalancing, in percent of the target.
    pub threshold_percent: u32,
    /// Maximum number of copies of one peer that wait for their replacements at once; at most
    /// [`MOVES_MAX`](crate::MOVES_MAX).
    pub moves_max: u32,
    /// Maximum number of such copies in the cluster, divided equally among the live peers: one each at least.
    pub moves_total_max: u32,
    /// Maximum rate at which a peer fetches copies that move to it, also those of drains, in bytes per
    /// second; 0 for no limit.
    pub bytes_per_second: u64,
    /// Maximum rate of all peers together, divided equally among those that can receive copies; 0 for no
    /// limit.
    pub bytes_total_per_second: u64,
}

impl Default for RebalanceSettings {
    fn default() -> Self {
        Self {
            automatic: false,
            threshold_percent: 10,
            moves_max: 64,
            moves_total_max: 512,
            bytes_per_second: 0,
            bytes_total_per_second: 0,
        }
    }
}

impl RebalanceSettings {
    /// Returns how many copies of the live peer number `at` of `count` may wait at once. The parts of all add
    /// up to the total, if that is one for each.
    pub(crate) fn moves_of(&self, at: usize, count: usize) -> usize {
        if planted!(RebalanceUnlimited) {
            return usize::MAX;
        }
        let total = self.moves_total_max as usize;
        let part = total * (at + 1) / count.max(1) - total * at / count.max(1);
        part.min(self.moves_max as usize).max(1)
    }

    /// Returns whether the bytes of moves are limited.
    pub(crate) fn limits_bytes(&self) -> bool {
        self.bytes_per_second > 0 || self.bytes_total_per_second > 0
    }

    /// Returns the rate at which each of `receivers` peers may fetch copies that move to it, in bytes per
    /// second: 1 at least. `None` if it is not limited.
    pub(crate) fn bytes_of(&self, receivers: usize) -> Option<u64> {
        let each = (self.bytes_per_second > 0).then_some(self.bytes_per_second);
        let part = self.bytes_total_per_second / receivers.max(1) as u64;
        let part = (self.bytes_total_per_second > 0).then_some(part.max(1));
        each.into_iter().chain(part).min()
    }
}

/// A run of the rebalancing that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RebalanceRun {
    /// Time of the request, by the clock of the peer that was asked. Identifies the run.
    pub since: Timestamp,
    /// Peers that have ended their part, sorted by id.
    pub done: Vec<PeerId>,
}

/// The rebalancing of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rebalance {
    /// Its settings.
    pub settings: RebalanceSettings,
    /// The run that was asked for; `None` once it has ended.
    pub run: Option<RebalanceRun>,
}

/// A change of the rebalancing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RebalanceChange {
    /// Replaces the settings.
    Settings(RebalanceSettings),
    /// Starts a run, unless one is under way.
    Start {
        /// Time of the request.
        since: Timestamp,
    },
    /// Records that a peer has ended its part of a run.
    Done {
        /// The peer.
        peer: PeerId,
        /// The run.
        since: Timestamp,
    },
    /// Ends a run.
    End {
        /// The run; `None` for any.
        since: Option<Timestamp>,
    },
}

/// No run is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("no rebalancing that was asked for is under way")]
pub struct NotRebalancing;

impl Rebalance {
    /// Applies a change. Changes of another run than the present one have no effect.
    pub(crate) fn apply(&mut self, change: RebalanceChange) -> Result<(), NotRebalancing> {
        match change {
            RebalanceChange::Settings(settings) => self.settings = settings,
            RebalanceChange::Start { since } => {
                let done = Vec::new();
                self.run.get_or_insert(RebalanceRun { since, done });
            }
            RebalanceChange::Done { peer, since } => {
                let run = self.run.as_mut().filter(|run| run.since == since);
                if let Some(run) = run.filter(|run| run.done.len() < DONE_MAX)
                    && let Err(at) = run.done.binary_search(&peer)
                {
                    run.done.insert(at, peer);
                }
            }
            RebalanceChange::End { since: None } if self.run.is_none() => return Err(NotRebalancing),
            RebalanceChange::End { since } => {
                let is_it = |run: &mut RebalanceRun| since.is_none_or(|since| since == run.since);
                self.run.take_if(is_it);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::peer;

    fn start(since: u64) -> RebalanceChange {
        let since = Timestamp(since);
        RebalanceChange::Start { since }
    }

    fn done(number: u8, since: u64) -> RebalanceChange {
        RebalanceChange::Done {
            peer: peer(number),
            since: Timestamp(since),
        }
    }

    fn run(since: u64, done: &[u8]) -> Option<RebalanceRun> {
        let done = done.iter().copied().map(peer).collect();
        let since = Timestamp(since);
        Some(RebalanceRun { since, done })
    }

    #[test]
    fn changes_of_another_run_have_no_effect() {
        let mut state = Rebalance::default();
        let mut applied = |change| {
            let outcome = state.apply(change);
            (outcome, state.run.clone())
        };
        assert_eq!(applied(start(5)), (Ok(()), run(5, &[])));
        assert_eq!(applied(start(7)), (Ok(()), run(5, &[])), "one at a time");
        assert_eq!(applied(done(2, 5)), (Ok(()), run(5, &[2])));
        assert_eq!(applied(done(1, 4)), (Ok(()), run(5, &[2])));
        assert_eq!(applied(done(1, 5)), (Ok(()), run(5, &[1, 2])));
        assert_eq!(applied(done(1, 5)), (Ok(()), run(5, &[1, 2])));
        let end = |since: Option<u64>| RebalanceChange::End {
            since: since.map(Timestamp),
        };
        assert_eq!(applied(end(Some(4))), (Ok(()), run(5, &[1, 2])));
        assert_eq!(applied(end(None)), (Ok(()), None));
        assert_eq!(applied(end(Some(5))), (Ok(()), None), "the leader may repeat it");
        assert_eq!(applied(end(None)), (Err(NotRebalancing), None));
    }

    #[test]
    fn parts_of_all_peers_add_up_to_the_total() {
        let settings = RebalanceSettings {
            moves_max: 4,
            moves_total_max: 10,
            ..RebalanceSettings::default()
        };
        let parts =
            |count: usize| -> Vec<usize> { (0..count).map(|at| settings.moves_of(at, count)).collect() };
        assert_eq!(parts(1), [4]);
        assert_eq!(parts(3), [3, 3, 4]);
        assert_eq!(parts(7).iter().sum::<usize>(), 10);
        assert_eq!(parts(20), [1; 20]);
    }

    #[test]
    fn rate_of_a_peer_is_the_lower_of_its_limit_and_its_part_of_the_total() {
        let rate = |bytes_per_second, bytes_total_per_second, receivers| {
            let settings = RebalanceSettings {
                bytes_per_second,
                bytes_total_per_second,
                ..RebalanceSettings::default()
            };
            assert_eq!(
                settings.limits_bytes(),
                settings.bytes_of(receivers).is_some(),
                "{settings:?}"
            );
            settings.bytes_of(receivers)
        };
        assert_eq!(rate(0, 0, 3), None);
        assert_eq!(rate(500, 0, 3), Some(500));
        assert_eq!(rate(0, 900, 3), Some(300));
        assert_eq!(rate(500, 900, 3), Some(300));
        assert_eq!(rate(200, 900, 3), Some(200));
        assert_eq!(rate(0, 2, 3), Some(1), "never 0, which would be no limit");
        assert_eq!(rate(0, 900, 0), Some(900));
    }
}
