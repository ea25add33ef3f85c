//! The balance of the pinset: how many copies each peer should hold, and the fewest moves that get there.
//!
//! A peer's target is its share of all copies by capacity. Copies are counted, not bytes: the pinset does not
//! know sizes, and free space does not rise when a copy leaves, until garbage is collected. The capacity
//! changes with neither, so that the same counts always lead to the same targets.
//!
//! Copies above a target must leave their peer, and copies below one must arrive. Each planned move does
//! both, so their number is the smallest possible: the sum of the surpluses, or of what can be taken if that
//! is less. Every peer divides them among the sources in the same way, so that together they neither miss nor
//! overshoot a target.

use std::collections::BTreeMap;

use crate::ids::PeerId;
use crate::planted::planted;

/// Deviation from a target that never starts a rebalancing, in copies: above all rounding.
const DEVIATION_MIN: u64 = 2;

/// Copies and capacity of one peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Load {
    /// Number of pins that are allocated to the peer by name.
    pub(crate) copies: u64,
    /// Size of its repository at most, in bytes; `None` if unknown.
    pub(crate) capacity: Option<u64>,
    /// Set if new pins can be allocated to it.
    pub(crate) takes: bool,
}

/// Copies of one peer, and how many it should hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerBalance {
    /// The peer.
    pub peer: PeerId,
    /// Number of copies that it holds or is to hold.
    pub copies: u64,
    /// Size of its repository at most, in bytes; `None` if unknown.
    pub capacity: Option<u64>,
    /// Number of copies that it should hold.
    pub target: u64,
    /// Set if new pins can be allocated to it.
    pub takes: bool,
}

impl PeerBalance {
    fn surplus(&self) -> u64 {
        self.copies.saturating_sub(self.target)
    }

    fn need(&self) -> u64 {
        if self.takes {
            self.target.saturating_sub(self.copies)
        } else {
            0
        }
    }
}

/// Copies of the live peers, and how many each should hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Balance {
    /// The peers, sorted by id.
    pub peers: Vec<PeerBalance>,
}

impl Balance {
    /// Computes the targets: proportional to the capacities, or equal if one of these is unknown. They add up
    /// to the number of copies.
    pub(crate) fn new(loads: BTreeMap<PeerId, Load>) -> Self {
        let copies: u64 = loads.values().map(|load| load.copies).sum();
        let capacities: Option<Vec<u64>> = loads
            .values()
            .map(|load| load.capacity.filter(|capacity| *capacity > 0))
            .collect();
        let weights = capacities.unwrap_or_else(|| vec![1; loads.len()]);
        let targets = apportion(copies, &weights);
        let peers = loads.into_iter().zip(targets).map(|((peer, load), target)| {
            let Load {
                copies,
                capacity,
                takes,
            } = load;
            PeerBalance {
                peer,
                copies,
                capacity,
                target,
                takes,
            }
        });
        Self {
            peers: peers.collect(),
        }
    }

    /// Returns the number of moves to the targets: the smallest possible.
    pub fn moves(&self) -> u64 {
        self.surplus().min(self.need())
    }

    fn surplus(&self) -> u64 {
        self.peers.iter().map(PeerBalance::surplus).sum()
    }

    fn need(&self) -> u64 {
        self.peers.iter().map(PeerBalance::need).sum()
    }

    /// Returns whether a peer deviates from its target by more than `percent` of it.
    pub(crate) fn exceeds(&self, percent: u32) -> bool {
        self.peers.iter().any(|peer| {
            let deviation = peer.copies.abs_diff(peer.target);
            let allowed = u128::from(peer.target) * u128::from(percent) / 100;
            deviation > DEVIATION_MIN && u128::from(deviation) > allowed
        })
    }

    /// Returns how many copies of `from` move to each other peer: its share of what those need.
    pub(crate) fn moves_from(&self, from: &PeerId) -> BTreeMap<PeerId, u64> {
        let surpluses: Vec<u64> = self.peers.iter().map(PeerBalance::surplus).collect();
        let Some(at) = self.peers.iter().position(|peer| peer.peer == *from) else {
            return BTreeMap::new();
        };
        let mut left = surpluses[at];
        if planted!(RebalanceOvershoots) {
            left = left.saturating_mul(4);
        }
        let (need, moves) = (self.need(), self.moves());
        let mut planned = BTreeMap::new();
        for peer in self.peers.iter().filter(|peer| peer.need() > 0) {
            let mut wanted = peer.need();
            if planted!(RebalanceOvershoots) {
                wanted = wanted.saturating_mul(4);
            }
            // With more need than surplus, each gets the same part of what it needs.
            let arriving = share(wanted, moves, need);
            let count = apportion(arriving, &surpluses)[at].min(left);
            left -= count;
            if count > 0 {
                planned.insert(peer.peer.clone(), count);
            }
        }
        planned
    }
}

/// Divides `total` in proportion to `weights`, so that the parts add up to it: each is the difference of two
/// rounded sums. All zero if the weights are.
pub(crate) fn apportion(total: u64, weights: &[u64]) -> Vec<u64> {
    let sum: u128 = weights.iter().map(|weight| u128::from(*weight)).sum();
    let (mut before, mut given) = (0u128, 0);
    let parts = weights.iter().map(|weight| {
        before += u128::from(*weight);
        let up_to = u128::from(total) * before / sum.max(1);
        let up_to = u64::try_from(up_to).unwrap_or(u64::MAX);
        let part = up_to - given;
        given = up_to;
        part
    });
    parts.collect()
}

fn share(of: u64, part: u64, whole: u64) -> u64 {
    let share = u128::from(of) * u128::from(part) / u128::from(whole.max(1));
    u64::try_from(share).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::peer;

    fn balance(loads: &[(u64, Option<u64>, bool)]) -> Balance {
        let loads = loads.iter().zip(1..).map(|((copies, capacity, takes), number)| {
            let load = Load {
                copies: *copies,
                capacity: *capacity,
                takes: *takes,
            };
            (peer(number), load)
        });
        Balance::new(loads.collect())
    }

    fn targets(balance: &Balance) -> Vec<u64> {
        balance.peers.iter().map(|peer| peer.target).collect()
    }

    #[test]
    fn targets_are_proportional_to_capacity() {
        let known = balance(&[(90, Some(100), true), (10, Some(300), true), (0, Some(100), true)]);
        assert_eq!(targets(&known), [20, 60, 20]);
        let unknown = balance(&[(90, Some(100), true), (10, None, true), (2, Some(100), true)]);
        assert_eq!(targets(&unknown), [34, 34, 34], "equal, as one is unknown");
        assert_eq!(targets(&balance(&[])), []);
    }

    #[test]
    fn new_peer_gets_its_share_from_each_other() {
        let grown = balance(&[
            (40, None, true),
            (40, None, true),
            (40, None, true),
            (0, None, true),
        ]);
        assert_eq!(targets(&grown), [30, 30, 30, 30]);
        assert_eq!(grown.moves(), 30);
        for number in 1..=3 {
            assert_eq!(grown.moves_from(&peer(number)), BTreeMap::from([(peer(4), 10)]));
        }
        assert_eq!(grown.moves_from(&peer(4)), BTreeMap::new());
        assert_eq!(grown.moves_from(&peer(9)), BTreeMap::new(), "an unknown peer");
    }

    #[test]
    fn peers_without_room_give_and_do_not_take() {
        let full = balance(&[(90, None, false), (0, None, false), (0, None, true)]);
        assert_eq!(full.moves(), 30);
        assert_eq!(full.moves_from(&peer(1)), BTreeMap::from([(peer(3), 30)]));
    }

    #[test]
    fn small_deviations_start_nothing() {
        assert!(!balance(&[(109, None, true), (91, None, true)]).exceeds(10));
        assert!(balance(&[(112, None, true), (88, None, true)]).exceeds(10));
        assert!(!balance(&[(3, None, true), (0, None, true), (0, None, true)]).exceeds(0));
    }

    proptest! {
        #[test]
        fn planned_moves_are_the_fewest_and_reach_no_peer_past_its_target(
            loads in prop::collection::vec((0u64..5000, prop::option::of(1u64..9), any::<bool>()), 0..9)
        ) {
            let balance = balance(&loads);
            let mut after: BTreeMap<PeerId, i128> = BTreeMap::new();
            let mut moved = 0;
            for from in &balance.peers {
                for (to, count) in balance.moves_from(&from.peer) {
                    prop_assert!(to != from.peer);
                    *after.entry(from.peer.clone()).or_default() -= i128::from(count);
                    *after.entry(to).or_default() += i128::from(count);
                    moved += count;
                }
            }
            let count = balance.peers.len() as u64;
            prop_assert!(moved <= balance.moves(), "{moved} moves, {} suffice", balance.moves());
            prop_assert!(moved + count * count >= balance.moves(), "only rounding is left");
            for peer in &balance.peers {
                let change = after.get(&peer.peer).copied().unwrap_or(0);
                let (copies, target) = (i128::from(peer.copies), i128::from(peer.target));
                let range = copies.min(target)..=copies.max(target);
                prop_assert!(range.contains(&(copies + change)), "{peer:?} changes by {change}");
            }
        }
    }
}
