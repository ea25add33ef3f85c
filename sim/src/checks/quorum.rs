//! Committed entries are durable at a quorum: at a majority of the voters, and of the outgoing ones while
//! there are any, as read from their disks. Memberships follow one another in the same order everywhere, one
//! at a time, and each shares a quorum with the next.
//!
//! The membership that counts for an entry is the one that the leader had applied when it committed the
//! entry. That is the last one from before the entry, or the one before that: a leader proposes no change
//! before it has applied the one before, and a peer with the second of two changes in its log knows that the
//! first is committed. Steps show the position of a change only within an interval, so the interval is kept,
//! and either end is accepted.

use std::collections::BTreeSet;

use cluster_core::{Index, LogEntry, Members, Payload, PeerId, RaftId, StoreOp};

use super::{Findings, Step};
use crate::store::Store;

/// Voters from some point of the log on.
#[derive(Debug)]
struct Voting {
    ids: [BTreeSet<RaftId>; 2],
    peers: [BTreeSet<PeerId>; 2],
    /// It came into force after this index…
    after: Index,
    /// … and not after this one.
    by: Index,
}

/// All sets of voters, in order, and the position of each peer in that order.
#[derive(Debug)]
pub(super) struct Quorums {
    known: Vec<Voting>,
    position: Vec<Option<usize>>,
    /// Memberships that a peer has written in this step and not yet applied.
    pending: Vec<Vec<Members>>,
}

fn ids_of(members: &Members) -> [BTreeSet<RaftId>; 2] {
    [members.voters.clone(), members.outgoing.clone()]
}

impl Quorums {
    pub(super) fn new(size: usize) -> Self {
        Self {
            known: Vec::new(),
            position: vec![None; size],
            pending: vec![Vec::new(); size],
        }
    }

    /// Records the membership of a rescue, which no quorum decided: it counts from the beginning on.
    pub(super) fn rescued(&mut self, members: &Members) {
        self.push(members, 0, 0);
    }

    pub(super) fn booted(&mut self, me: usize, store: &Store) {
        let members = &store.members;
        if self.known.is_empty() && store.applied.index == 0 && !members.voters.is_empty() {
            self.push(members, 0, 0);
        }
        self.pending[me].clear();
        self.position[me] = self.locate(&ids_of(members), store.applied.index);
    }

    pub(super) fn after_write(
        &mut self,
        step: &Step<'_>,
        op: &StoreOp,
        before: Index,
        found: &mut Findings<'_>,
    ) {
        let me = step.me;
        match op {
            StoreOp::Append { entries } => one_at_a_time(step, entries, found),
            StoreOp::InstallSnapshot { manifest, .. } => {
                self.pending[me].clear();
                self.position[me] = self.locate(&ids_of(&manifest.members), manifest.applied.index);
            }
            StoreOp::SetApplied { applied } => {
                for members in std::mem::take(&mut self.pending[me]) {
                    self.advance(me, &members, before, applied.index, found);
                }
            }
            StoreOp::SetMembers { members } if !members.voters.is_empty() => {
                self.pending[me].push(members.clone());
            }
            _ => {}
        }
    }

    /// Returns the last membership of this kind that may have been in force at an index.
    fn locate(&self, ids: &[BTreeSet<RaftId>; 2], at: Index) -> Option<usize> {
        self.known
            .iter()
            .rposition(|voting| voting.ids == *ids && (voting.by == 0 || voting.after < at))
    }

    fn push(&mut self, members: &Members, after: Index, by: Index) {
        let peers = |ids: &BTreeSet<_>| ids.iter().filter_map(|id| members.peer(*id).cloned()).collect();
        self.known.push(Voting {
            ids: ids_of(members),
            peers: [peers(&members.voters), peers(&members.outgoing)],
            after,
            by,
        });
    }

    /// Records that a peer's membership changed somewhere in `after + 1..=by`.
    fn advance(&mut self, me: usize, members: &Members, after: Index, by: Index, found: &mut Findings<'_>) {
        let ids = ids_of(members);
        let Some(current) = self.position[me] else {
            self.position[me] = self.locate(&ids, by);
            return;
        };
        if self.known[current].ids == ids {
            return;
        }
        let next = current + 1;
        match self.known.get_mut(next) {
            Some(voting) if voting.ids == ids => {
                voting.after = voting.after.max(after);
                voting.by = voting.by.min(by);
                self.position[me] = Some(next);
            }
            Some(voting) => {
                let canonical = format!("{:?}", voting.ids);
                self.position[me] = self.locate(&ids, by);
                found.require(self.position[me].is_some(), "members", || {
                    format!("{ids:?} vote after {by}, elsewhere {canonical}")
                });
            }
            None => {
                let last = &self.known[current].ids;
                found.require(share_a_quorum(last, &ids), "members", || {
                    format!("{ids:?} vote after {last:?}: they need not agree")
                });
                self.push(members, after, by);
                self.position[me] = Some(next);
            }
        }
    }

    pub(super) fn of_new_commit(&self, step: &Step<'_>, entry: &LogEntry, found: &mut Findings<'_>) {
        let (index, term) = (entry.index, entry.term);
        let has = |id: &&PeerId| {
            step.peers
                .iter()
                .any(|peer| peer.id == **id && peer.disk.durable.holds(index, term))
        };
        let majority = |voters: &BTreeSet<PeerId>| {
            voters.is_empty() || voters.iter().filter(has).count() * 2 > voters.len()
        };
        let counts = |position: usize, voting: &Voting| {
            let later = self.known[position + 1..].iter();
            let is_before = voting.by == 0 || voting.after + 1 < index;
            is_before && later.filter(|later| later.by < index).count() <= 1
        };
        let mut counting = self
            .known
            .iter()
            .enumerate()
            .filter(|(position, voting)| counts(*position, voting))
            .map(|(_, voting)| voting);
        let durable = counting.any(|voting| voting.peers.iter().all(majority));
        found.require(durable, "durable quorum", || {
            let peers = step.peers.iter().map(|peer| &peer.id);
            let have: Vec<&PeerId> = peers.filter(|id| has(id)).collect();
            let known = &self.known;
            format!("applies {index} of term {term}, durable at {have:?} only, voters were {known:?}")
        });
    }
}

/// Returns whether every majority of one membership overlaps every majority of the other: a joint membership
/// is entered and left, or one voter comes or goes.
fn share_a_quorum([voters, outgoing]: &[BTreeSet<RaftId>; 2], next: &[BTreeSet<RaftId>; 2]) -> bool {
    let [next_voters, next_outgoing] = next;
    match (outgoing.is_empty(), next_outgoing.is_empty()) {
        (true, true) => voters.symmetric_difference(next_voters).count() <= 1,
        (true, false) => voters == next_outgoing,
        (false, true) => voters == next_voters,
        (false, false) => false,
    }
}

/// Checks that a leader proposes no change before it has applied the previous one.
fn one_at_a_time(step: &Step<'_>, entries: &[LogEntry], found: &mut Findings<'_>) {
    let is_change = |entry: &&LogEntry| matches!(entry.payload, Payload::Members(_));
    let store = &step.peer().disk.written;
    if !step.peer().leads() {
        return;
    }
    for entry in entries.iter().filter(is_change) {
        let open = store.log.range(store.applied.index + 1..entry.index);
        let open = open.map(|(_, entry)| entry).find(is_change);
        found.require(open.is_none(), "members", || {
            format!("proposes {entry:?} while {open:?} is under way")
        });
    }
}
