//! What others may see of a node.

use std::collections::BTreeSet;

use super::Node;
use crate::ids::{Cid, Incarnation, Index, PeerId, Term};
use crate::members::Members;
use crate::membership::Membership;
use crate::monitor::{Alert, Received};
use crate::snapshot::Applied;
use crate::time::Now;

/// A read-only view of a node.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub(super) node: &'a Node,
}

/// Messages that were dropped, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// The sender belongs to another cluster.
    pub from_other_clusters: u64,
    /// The sender's data folder is not the one that the cluster knows.
    pub from_other_incarnations: u64,
    /// The sender is no member.
    pub from_strangers: u64,
    /// The message is not for this peer, or no honest member would send it.
    pub nonsense: u64,
}

impl<'a> View<'a> {
    /// Who leads, as far as this peer knows.
    pub fn leader(self) -> Option<&'a PeerId> {
        self.node
            .raft
            .leader()
            .and_then(|id| self.node.raft.members().peer(id))
    }

    /// Whether this peer leads and has caught up with all that was agreed before.
    pub fn is_leader(self) -> bool {
        self.node.raft.leads()
    }

    /// Raft's term.
    pub fn term(self) -> Term {
        self.node.raft.term()
    }

    /// This peer's data folder.
    pub fn incarnation(self) -> Incarnation {
        self.node.incarnation
    }

    /// Who belongs to the cluster.
    pub fn members(self) -> &'a Members {
        self.node.raft.members()
    }

    /// How this peer stands to its cluster, as far as it knows.
    pub fn membership(self) -> Membership {
        self.node.membership()
    }

    /// How far the pinset is.
    pub fn applied(self) -> Applied {
        self.node.pinset.applied()
    }

    /// How far the log is known to be agreed on.
    pub fn committed(self) -> Index {
        self.node.raft.committed()
    }

    /// The log that is kept: first index, last index, bytes.
    pub fn log_span(self) -> (Index, Index, usize) {
        self.node.raft.log_span()
    }

    /// How far another peer's log is known to agree; on the leader only.
    pub fn matched(self, peer: &PeerId) -> Option<Index> {
        let id = self.node.raft.members().raft_id(peer)?;
        self.node.raft.matched(id)
    }

    /// How many requests are open.
    pub fn open_requests(self) -> usize {
        self.node.requests.len()
    }

    /// Proposals that wait for the leader's disk.
    pub fn pending(self) -> usize {
        self.node.pending.len()
    }

    /// Proposals that this process has numbered above `seq` and that still wait to be agreed on, for checks
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

    /// The CIDs that are being worked on at the IPFS node, and whether they are being unpinned.
    pub fn running(self) -> impl Iterator<Item = (&'a Cid, bool)> {
        self.node.tracker.running()
    }

    /// The latest value of a metric of each peer that has not expired at `now`, valid or not.
    pub fn metrics<'b>(self, now: Now, name: &'b str) -> impl Iterator<Item = (&'a PeerId, &'a Received)>
    where
        'a: 'b,
    {
        self.node.monitor.latest(now.mono, name)
    }

    /// The names of all metrics.
    pub fn metric_names(self) -> BTreeSet<&'a str> {
        self.node.monitor.names()
    }

    /// Metrics that were missed, the newest first.
    pub fn alerts(self) -> impl Iterator<Item = &'a Alert> {
        self.node.monitor.alerts()
    }

    /// Peers whose clocks differ from the cluster's time, the median of the voters' clocks, by more than a
    /// minute. Each raises an alert on the metric `clock`.
    pub fn skewed_clocks(self) -> impl Iterator<Item = &'a PeerId> {
        self.node.monitor.skewed()
    }

    /// Messages that were dropped.
    pub fn counters(self) -> Counters {
        self.node.counters
    }
}
