//! Moves of this peer's copies to others: while it is drained, to rebalance, and when they do not fit.

use crate::command::Command;
use crate::decide::PeerPool;
use crate::drainer;
use crate::ids::{Cid, PeerId};
use crate::membership::Membership;
use crate::planted::planted;
use crate::rebalancer::Peers;
use crate::time::Now;
use crate::view::PinsetView;

use super::{Node, Step};

impl Node {
    /// Returns the commands that end the drains of peers that are not members any more.
    pub(super) fn ended_drains(&self) -> impl Iterator<Item = Command> {
        let members = self.raft.members();
        let peers = self.drainer.all().iter().map(|drain| &drain.peer);
        let gone = peers.filter(|peer| members.raft_id(peer).is_none() && !planted!(DrainOutlivesPeer));
        gone.map(|peer| Command::EndDrain { peer: peer.clone() })
    }

    /// Proposes the next moves of this peer's pins, while it is being drained.
    pub(super) fn drain<V: PinsetView>(&mut self, step: &mut Step<'_, V>) {
        let now = step.now;
        let is_due = self.drainer.poll_timeout().is_some_and(|at| at <= now.mono);
        if !is_due || self.membership() == Membership::Removed {
            return;
        }
        let pool = self.pool(now);
        let mut commands = Vec::new();
        self.drainer
            .handle_timeout(now, step.draft.view, &pool, &mut commands);
        let origin = self.raft.id();
        for command in commands {
            let proposal = self.requests.mint(origin, command);
            self.propose(step, proposal);
        }
    }

    /// Returns the command that ends a run of the rebalancing once all live peers have done their part.
    pub(super) fn ended_run(&self, now: Now) -> Option<Command> {
        let living = self.monitor.alive(now.mono).into_iter();
        let living = living.filter(|peer| !self.drainer.is_drained(peer));
        self.rebalancer.ended_run(living)
    }

    /// Proposes the next moves of this peer's copies, while they are being rebalanced.
    pub(super) fn rebalance<V: PinsetView>(&mut self, step: &mut Step<'_, V>) {
        let now = step.now;
        let is_due = self.rebalancer.poll_timeout().is_some_and(|at| at <= now.mono);
        if !is_due || self.membership() == Membership::Removed {
            return;
        }
        let peers = self.peers(now);
        let applied = self.pinset.applied().index;
        let mut commands = Vec::new();
        self.rebalancer
            .handle_timeout(now, step.draft.view, &peers, applied, &mut commands);
        let origin = self.raft.id();
        for command in commands {
            let proposal = self.requests.mint(origin, command);
            self.propose(step, proposal);
        }
    }

    /// Returns the live peers, as the metrics describe them, for the rebalancing.
    pub(super) fn peers(&self, now: Now) -> Peers {
        let pool = self.pool(now);
        let mut loads = self.monitor.loads(now.mono);
        loads.retain(|peer, _| !self.drainer.is_drained(peer));
        for (peer, load) in &mut loads {
            load.takes = pool.candidates.contains_key(peer);
        }
        Peers {
            pool,
            loads,
            zones: self.monitor.zones(now.mono, &self.config.allocate_by),
            counted: self.monitor.counted(),
        }
    }

    /// Proposes to move a copy for which this peer has no room to a peer with more free space, if there is
    /// one. Copies move to more free space only, so that none goes back and forth.
    pub(super) fn outgrown<V: PinsetView>(&mut self, step: &mut Step<'_, V>, cid: &Cid) {
        let (now, me) = (step.now, &self.config.peer);
        let Some(pin) = step.draft.pin(cid) else { return };
        let mut candidates = self.pool(now).candidates;
        let free = self.monitor.free_space(now.mono);
        // Measured again soon, if the last measurement has expired.
        let Some(own) = free.get(me).copied() else { return };
        candidates.retain(|peer, _| {
            let is_more = free.get(peer).is_some_and(|free| *free > own);
            peer != me && (is_more || planted!(OutgrownDownhill))
        });
        if let Some(command) = drainer::replace(pin, me, &candidates) {
            let proposal = self.requests.mint(self.raft.id(), command);
            self.propose(step, proposal);
        }
    }

    /// Returns the peers that can be allocated to.
    pub(super) fn pool(&self, now: Now) -> PeerPool {
        let by = &self.config.allocate_by;
        let mut pool = PeerPool {
            candidates: self.monitor.candidates(now.mono, by),
            alive: self.monitor.alive(now.mono),
            exclusions: self.monitor.exclusions(now.mono, by),
        };
        let is_drained = |peer: &PeerId| self.drainer.is_drained(peer);
        let drained = drainer::exclude(is_drained, &mut pool.candidates);
        pool.exclusions.extend(drained);
        pool
    }
}
