//! Moves of a peer's own copies. Those of a drained peer leave it for a peer that may take them if there is
//! one, never below the minimum of living copies. The rest are [those of the rebalancing](super::rebalance).
//! Never are more under way at once than the drain or the rebalancing permits.

use cluster_core::{Command, Lane, PeerId, Pin, Replicas, StoreOp};

use super::Findings;
use super::decisions::Moment;
use super::received::member;

impl Moment<'_> {
    /// Checks a command if it moves a pin away from this peer, which lives. Returns how many moves of a drain
    /// or a rebalancing it is; `None` if it is no move.
    pub(super) fn of_own_move(&self, command: &Command, found: &mut Findings<'_>) -> Option<usize> {
        let Command::Reallocate {
            cid,
            allocations,
            version,
        } = command
        else {
            return None;
        };
        let me = &self.step.peer().id;
        let is_member = member(&self.step.peer().disk.written.members, me).is_some();
        if !is_member || allocations.contains(me) {
            return None;
        }
        let mut bases = self.step.pin_states(cid).into_iter().flatten();
        let base = bases.find(|pin| pin.version == *version && pin.allocations.contains(me))?;
        if self.heard.may_be_drained(me) {
            self.of_drained_pin(&base, allocations, found);
            // A copy that did not fit leaves none that waits (seed 830052).
            return Some(usize::from(!self.heard.has_outgrown(cid)));
        }
        if self.heard.has_outgrown(cid) {
            self.of_outgrown_pin(&base, allocations, found);
            return Some(0);
        }
        self.of_rebalanced_pin(&base, allocations, found);
        Some(1)
    }

    fn of_drained_pin(&self, base: &Pin, allocations: &[PeerId], found: &mut Findings<'_>) {
        let (step, heard, names) = (self.step, self.heard, &self.rules.allocate_by);
        let me = &step.peer().id;
        let Replicas::Range { min, max } = base.options.replicas else {
            return found.safety_violation("drains", format!("moves {base:?}, which is everywhere"));
        };
        let lost = base.allocations.iter().filter(|peer| !allocations.contains(peer));
        let only_me = lost.clone().all(|peer| peer == me);
        found.require(only_me, "drains", || {
            format!("takes {base:?} from others: {allocations:?}")
        });
        let gained: Vec<&PeerId> = allocations
            .iter()
            .filter(|peer| !base.allocations.contains(peer))
            .collect();
        for peer in &gained {
            found.require(heard.may_take(step.now, peer, names), "drains", || {
                format!("moves {base:?} to {peer}, of whom nothing says that it lives and has room")
            });
        }
        let wanted = base.allocations.len().min(max as usize);
        found.require(allocations.len() <= wanted, "drains", || {
            format!("leaves {} copies of {base:?}", allocations.len())
        });
        if allocations.len() == wanted {
            return;
        }
        let members = &step.peer().disk.written.members;
        let is_able = |peer: &&PeerId| {
            let is_member = member(members, peer).is_some() && heard.before.contains_key(*peer);
            is_member && !base.allocations.contains(peer) && heard.can_take(step.now, peer, names)
        };
        let able = step.peers.iter().map(|peer| &peer.id).filter(is_able).count();
        found.require(allocations.len() + able < wanted, "drains", || {
            format!(
                "leaves {} copies of {base:?}, {able} more peers could take one",
                allocations.len()
            )
        });
        let living = allocations
            .iter()
            .filter(|peer| heard.may_take(step.now, peer, &[]));
        let living = living.count();
        found.require(living >= min as usize, "drains", || {
            format!("leaves {living} living copies of {base:?}")
        });
    }

    /// Checks a move of a copy for which this peer has no room: to one peer with more free space.
    fn of_outgrown_pin(&self, base: &Pin, allocations: &[PeerId], found: &mut Findings<'_>) {
        let (step, heard, names) = (self.step, self.heard, &self.rules.allocate_by);
        let me = &step.peer().id;
        let mut gained = allocations.iter().filter(|peer| !base.allocations.contains(peer));
        let Some(to) = gained.next() else {
            return found.safety_violation("outgrown", format!("leaves {allocations:?} of {base:?}"));
        };
        let is_move = gained.next().is_none() && allocations.len() == base.allocations.len();
        found.require(is_move && heard.may_take(step.now, to, names), "outgrown", || {
            format!("makes {allocations:?} of {base:?}")
        });
        let free = |peer| {
            heard
                .samples(peer, "freespace")
                .iter()
                .map(|sample| sample.metric.weight)
        };
        let is_more = free(to).max() > free(me).min();
        found.require(is_more, "outgrown", || {
            format!("moves {base:?} to {to}, which has less free space")
        });
    }

    /// Checks that `moves` new ones stay within the limit of the drain, with the copies that already wait for
    /// their replacements.
    pub(super) fn of_moves(&self, moves: usize, found: &mut Findings<'_>) {
        let store = &self.step.peer().disk.written;
        let is_waiting = |op: &&StoreOp| matches!(op, StoreOp::Enqueue { key } if key.lane == Lane::Surplus);
        // Those of this step may have come after the decision.
        let fresh = self.step.writes().filter(is_waiting).count();
        let waiting = store.queued(Lane::Surplus).count().saturating_sub(fresh);
        let most = self.heard.moves_max(&self.step.peer().id);
        found.require(moves == 0 || waiting + moves <= most, "drains", || {
            format!("moves {moves} pins while {waiting} copies wait, {most} are allowed")
        });
    }
}
