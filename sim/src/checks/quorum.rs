//! What is committed is durable at a quorum: at a majority of the voters, and of the outgoing ones while
//! there are any, as read from their disks. Which membership counted when an entry was committed only its
//! leader knew, so any that there has been will do; most runs have but one.

use std::collections::BTreeSet;

use cluster_core::{LogEntry, Members, PeerId, StoreOp};

use super::{Found, Step};

/// Voters, and outgoing voters, of every membership that there has been.
#[derive(Debug, Default)]
pub(super) struct Quorums {
    known: BTreeSet<[BTreeSet<PeerId>; 2]>,
}

impl Quorums {
    pub(super) fn after_write(&mut self, op: &StoreOp) {
        if let StoreOp::SetMembers { members } = op {
            self.learn(members);
        }
    }

    fn learn(&mut self, members: &Members) {
        let peers = |ids: &BTreeSet<_>| ids.iter().filter_map(|id| members.peer(*id).cloned()).collect();
        self.known
            .insert([peers(&members.voters), peers(&members.outgoing)]);
    }

    pub(super) fn of_new_commit(&mut self, step: &Step<'_>, entry: &LogEntry, found: &mut Found<'_>) {
        self.learn(&step.peer().disk.written.members);
        let (index, term) = (entry.index, entry.term);
        let has = |id: &&PeerId| {
            step.peers
                .iter()
                .any(|peer| peer.id == **id && peer.disk.durable.holds(index, term))
        };
        let majority = |voters: &BTreeSet<PeerId>| {
            voters.is_empty() || voters.iter().filter(has).count() * 2 > voters.len()
        };
        let durable = self
            .known
            .iter()
            .any(|[voters, outgoing]| !voters.is_empty() && majority(voters) && majority(outgoing));
        found.require(durable, "durable quorum", || {
            let have: Vec<&PeerId> = step
                .peers
                .iter()
                .map(|peer| &peer.id)
                .filter(|id| has(id))
                .collect();
            format!(
                "applies {index} of term {term}, durable at {have:?} only, voters were {:?}",
                self.known
            )
        });
    }
}
