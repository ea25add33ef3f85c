//! Members are added and removed on request only: since a peer last was a member, a committed wish must
//! have requested its addition, and since it became one, its removal.

use std::collections::{BTreeMap, BTreeSet};

use cluster_core::{
    Command, LogEntry, Members, MembersChange, MembersStep, MembersWish, Payload, PeerId, Proposal, RaftId,
    decode,
};

use super::Findings;

/// Wishes of the committed log that have not been superseded.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    additions: BTreeSet<PeerId>,
    removals: BTreeSet<PeerId>,
    /// The peer behind every Raft id that was ever handed out.
    names: BTreeMap<RaftId, PeerId>,
}

impl Wishes {
    /// Notes a membership that a peer starts from.
    pub(super) fn booted(&mut self, members: &Members) {
        let names = members.peers.iter();
        self.names
            .extend(names.map(|(id, member)| (*id, member.peer.clone())));
    }

    /// Notes peers that are added without a wish in the log: survivors of a rescue.
    pub(super) fn expect(&mut self, peers: impl IntoIterator<Item = PeerId>) {
        self.additions.extend(peers);
    }

    /// Records the wishes of the next committed entry.
    pub(super) fn of_commit(&mut self, entry: &LogEntry, found: &mut Findings<'_>) {
        match &entry.payload {
            Payload::Commands(data) if !data.is_empty() => {
                for proposal in decode::<Vec<Proposal>>(data).unwrap_or_default() {
                    self.note(&proposal.command);
                }
            }
            Payload::Members(data) => {
                if let Ok(change) = decode::<MembersChange>(data) {
                    self.of_change(&change, found);
                }
            }
            Payload::Commands(_) => {}
        }
    }

    fn note(&mut self, command: &Command) {
        match command {
            Command::Members(MembersWish::Add { peer }) => {
                self.additions.insert(peer.clone());
            }
            Command::Members(MembersWish::Remove { peer }) => {
                self.removals.insert(peer.clone());
            }
            _ => {}
        }
    }

    /// Checks a change in the log. Raft may refuse it when it is applied: then the same change is proposed
    /// again.
    fn of_change(&mut self, change: &MembersChange, found: &mut Findings<'_>) {
        let (mut added, mut removed) = (BTreeSet::new(), BTreeSet::new());
        for part in &change.steps {
            match part {
                MembersStep::AddLearner { raft_id, member } => {
                    self.names.insert(*raft_id, member.peer.clone());
                    added.insert(member.peer.clone());
                }
                MembersStep::Remove { raft_id } => removed.extend(self.names.get(raft_id).cloned()),
                MembersStep::Demote { .. } | MembersStep::Promote { .. } => {}
            }
        }
        for peer in added.iter().filter(|peer| !removed.contains(*peer)) {
            found.require(self.additions.contains(peer), "wishes", || {
                format!("adds {peer}, nobody asked for it since it left: {change:?}")
            });
            self.removals.remove(peer);
        }
        for peer in removed.iter().filter(|peer| !added.contains(*peer)) {
            found.require(self.removals.contains(peer), "wishes", || {
                format!("removes {peer}, nobody asked for it since it came: {change:?}")
            });
            self.additions.remove(peer);
        }
    }
}
