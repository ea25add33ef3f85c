//! Read-only access to a node, for the API, the simulator and the logs.

use std::collections::BTreeSet;

use super::Node;
use crate::balance::Balance;
use crate::drain::Drain;
use crate::drainer::Blocked;
use crate::ids::{Cid, Incarnation, Index, PeerId, Term};
use crate::members::Members;
use crate::membership::Membership;
use crate::monitor::{Alert, Received};
use crate::rebalance::Rebalance;
use crate::rebalancer::RebalanceProgress;
use crate::snapshot::Applied;
use crate::time::Now;

/// A read-only view of a node.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub(super) node: &'a Node,
}

/// Numbers of dropped messages, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// The sender belongs to another cluster.
    pub from_other_clusters: u64,
    /// The sender's incarnation is not the recorded one.
    pub from_other_incarnations: u64,
    /// The sender is not a member.
    pub from_non_members: u64,
    /// The message is for another Raft id, or no correct member would send it.
    pub invalid: u64,
}

impl<'a> View<'a> {
    /// Returns the leader, as far as this peer knows.
    pub fn leader(self) -> Option<&'a PeerId> {
        self.node
            .raft
            .leader()
            .and_then(|id| self.node.raft.members().peer(id))
    }

    /// Returns whether this peer leads and has committed an entry of its term.
    pub fn is_leader(self) -> bool {
        self.node.raft.leads()
    }

    /// Returns Raft's current term.
    pub fn term(self) -> Term {
        self.node.raft.term()
    }

    /// Returns this peer's incarnation.
    pub fn incarnation(self) -> Incarnation {
        self.node.incarnation
    }

    /// Returns the membership as of the applied position.
    pub fn members(self) -> &'a Members {
        self.node.raft.members()
    }

    /// Returns this peer's role in its cluster, as far as it knows.
    pub fn membership(self) -> Membership {
        self.node.membership()
    }

    /// Returns the applied position.
    pub fn applied(self) -> Applied {
        self.node.pinset.applied()
    }

    /// Returns the highest log index that is known to be committed.
    pub fn committed(self) -> Index {
        self.node.raft.committed()
    }

    /// Returns the retained log: first index, last index, bytes.
    pub fn log_span(self) -> (Index, Index, usize) {
        self.node.raft.log_span()
    }

    /// Returns the highest log index that another peer is known to have; on the leader only.
    pub fn matched(self, peer: &PeerId) -> Option<Index> {
        let id = self.node.raft.members().raft_id(peer)?;
        self.node.raft.matched(id)
    }

    /// Returns the number of open client requests.
    pub fn open_requests(self) -> usize {
        self.node.requests.len()
    }

    /// Returns the number of proposals that wait for the leader's disk.
    pub fn pending(self) -> usize {
        self.node.pending.len()
    }

    /// Returns proposals that this process has numbered above `seq` and that are not applied yet, for checks
    /// that need to know when something was decided.
    #[cfg(planted_bugs)]
    pub fn proposed_after(self, seq: u64) -> Vec<crate::command::Proposal> {
        let own = self.node.raft.id();
        let is_new =
            |proposal: &&crate::command::Proposal| proposal.id.origin == own && proposal.id.seq > seq;
        let pending = self.node.pending.iter().filter(is_new);
        self.node
            .requests
            .proposed_after(seq)
            .chain(pending)
            .cloned()
            .collect()
    }

    /// Iterates over the CIDs with a running IPFS operation, and whether it is an unpin.
    pub fn running(self) -> impl Iterator<Item = (&'a Cid, bool)> {
        self.node.tracker.running()
    }

    /// Iterates over each peer's latest sample of a metric, valid or not, unless it has expired at `now`.
    pub fn metrics<'b>(self, now: Now, name: &'b str) -> impl Iterator<Item = (&'a PeerId, &'a Received)>
    where
        'a: 'b,
    {
        self.node.monitor.latest(now.mono, name)
    }

    /// Returns the names of all known metrics.
    pub fn metric_names(self) -> BTreeSet<&'a str> {
        self.node.monitor.names()
    }

    /// Iterates over the alerts, newest first.
    pub fn alerts(self) -> impl Iterator<Item = &'a Alert> {
        self.node.monitor.alerts()
    }

    /// Iterates over peers whose clock deviates by more than a minute from the cluster time, the median of
    /// the voters' clocks. Each raises an alert on the metric `clock`.
    pub fn skewed_clocks(self) -> impl Iterator<Item = &'a PeerId> {
        self.node.monitor.skewed()
    }

    /// Returns the drains of the cluster, sorted by peer.
    pub fn drains(self) -> &'a [Drain] {
        self.node.drainer.all()
    }

    /// Returns the pins of this peer that its drain could not move.
    pub fn blocked(self) -> &'a Blocked {
        self.node.drainer.blocked()
    }

    /// Returns the settings of the rebalancing, and the run that was asked for.
    pub fn rebalance(self) -> &'a Rebalance {
        self.node.rebalancer.state()
    }

    /// Returns the progress of this peer's rebalancing.
    pub fn rebalance_progress(self) -> &'a RebalanceProgress {
        self.node.rebalancer.progress()
    }

    /// Returns the copies of the live peers that are not drained, and how many each should hold.
    pub fn balance(self, now: Now) -> Balance {
        Balance::new(self.node.peers(now).loads)
    }

    /// Returns the rate at which this peer may fetch copies that move to it, in bytes per second. `None` if
    /// it is not limited.
    pub fn move_rate(self, now: Now) -> Option<u64> {
        let settings = &self.node.rebalancer.state().settings;
        if !settings.limits_bytes() {
            return None;
        }
        let alive = self.node.monitor.alive(now.mono);
        let receivers = alive.iter().filter(|peer| !self.node.drainer.is_drained(peer));
        settings.bytes_of(receivers.count())
    }

    /// Returns the numbers of dropped messages.
    pub fn counters(self) -> Counters {
        self.node.counters
    }
}
