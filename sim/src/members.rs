//! Membership of the simulated cluster: its members, available quorums, and data folders that may be lost.

use std::collections::BTreeSet;

use cluster_core::{
    Incarnation, LogEntry, Member, Members, MembersChange, MembersStep, Payload, PeerId, RaftId, decode,
};

use crate::coverage::sometimes;
use crate::options::REPLACE_NEVER_MS;
use crate::peer::{Peer, peer_id};
use crate::releases::OLD;
use crate::store::Store;
use crate::world::{Death, World};

/// Returns the membership that all peers start from: the last `learners` of the founders have no vote.
pub(crate) fn founders(voters: usize, learners: usize) -> Members {
    // The founders run at least this release, and have agreed on it.
    let mut members = Members {
        version: OLD,
        ..Members::initial((0..voters + learners).map(peer_id))
    };
    let followers = (voters..voters + learners).map(|number| members.raft_id(&peer_id(number)));
    members.learners = followers.flatten().collect();
    members.voters = members.voters.difference(&members.learners).copied().collect();
    members
}

/// Returns the wanted number of voters: odd, or as it is where there are two members at most.
pub(crate) fn wanted_voters(members: &Members, voters_max: u64) -> usize {
    let everybody = members.voters.len() + members.learners.len();
    if everybody <= 2 {
        return members.voters.len();
    }
    let most = everybody.min(usize::try_from(voters_max).expect("a few peers"));
    most - usize::from(most.is_multiple_of(2))
}

/// Returns the memberships that a peer's log may lead to: the current one, and that after each change that it
/// has not applied.
fn memberships(store: &Store) -> Vec<Members> {
    let mut all = vec![store.members.clone()];
    let later = store.log.range(store.applied.index + 1..).map(|(_, entry)| entry);
    for change in later.filter_map(change_of) {
        let mut members = all.last().expect("there is a first one").clone();
        for step in change.steps {
            match step {
                MembersStep::AddLearner { raft_id, member } => {
                    members.peers.insert(raft_id, member);
                    members.learners.insert(raft_id);
                }
                MembersStep::Promote { raft_id } => {
                    members.learners.remove(&raft_id);
                    members.voters.insert(raft_id);
                }
                MembersStep::Demote { raft_id } => {
                    members.voters.remove(&raft_id);
                    members.learners.insert(raft_id);
                }
                MembersStep::Remove { raft_id } => {
                    members.voters.remove(&raft_id);
                    members.learners.remove(&raft_id);
                }
            }
        }
        all.push(members);
    }
    all
}

fn change_of(entry: &LogEntry) -> Option<MembersChange> {
    match &entry.payload {
        Payload::Members(data) => decode(data).ok(),
        Payload::Commands(_) => None,
    }
}

impl World {
    /// Returns the membership that the most advanced peer has applied.
    pub(crate) fn members(&self) -> &Members {
        let here = self.peers.iter().filter(|peer| !peer.exiled);
        let furthest = here.max_by_key(|peer| {
            let store = &peer.disk.written;
            (store.applied.index, !store.members.voters.is_empty())
        });
        &furthest.expect("there are peers").disk.written.members
    }

    /// Returns the voters that may not vote any more: those that run on another data folder than the recorded
    /// one, and those about to leave.
    pub(crate) fn doubtful_voters(&self) -> BTreeSet<PeerId> {
        let members = self.members();
        let blank = self.peers.iter().filter(|peer| {
            let known = members
                .raft_id(&peer.id)
                .and_then(|id| members.peers.get(&id)?.incarnation);
            known.is_some_and(|known| known != peer.disk.incarnation())
        });
        let leaving = self
            .peers
            .iter()
            .flat_map(|peer| &peer.disk.written.members.leaving);
        let asked = self.removals.iter();
        blank
            .map(|peer| &peer.id)
            .chain(leaving)
            .chain(asked)
            .cloned()
            .collect()
    }

    /// Returns whether there is a majority without these peers in each of the current, proposed and possible
    /// next memberships: a leader may give votes to learners, or leave them to voters, that were lost a
    /// moment ago.
    pub(crate) fn has_quorum_without(&self, lost: &BTreeSet<PeerId>) -> bool {
        // The vote of a peer that lost its data folder is gone, even if it has got another one since.
        let is_burnt = |member: &Member| {
            let peer = self.peers.iter().find(|peer| peer.id == member.peer);
            let now = peer.map(|peer| peer.disk.incarnation());
            member.incarnation.is_some() && member.incarnation != now
        };
        let is_lost = |members: &Members, id: &RaftId| {
            let member = members.peers.get(id);
            member.is_none_or(|member| lost.contains(&member.peer) || is_burnt(member))
        };
        let here = self.peers.iter().filter(|peer| !peer.exiled);
        let mut memberships = here.flat_map(|peer| memberships(&peer.disk.written));
        memberships.all(|members| {
            let lost_learners = members.learners.iter().filter(|id| is_lost(&members, id)).count();
            let wanted = wanted_voters(&members, self.options.voters_max);
            let promoted = lost_learners.min(wanted.saturating_sub(members.voters.len()));
            let lost_voters = members.voters.iter().filter(|id| is_lost(&members, id)).count();
            if wanted < members.voters.len() && lost_voters * 2 >= wanted {
                return false;
            }
            [&members.voters, &members.outgoing].into_iter().all(|voters| {
                let left = voters.iter().filter(|id| !is_lost(&members, id)).count();
                voters.is_empty() || left * 2 > voters.len() + promoted
            })
        })
    }

    /// Returns whether a peer may break permanently when the second phase begins. If voters are replaced
    /// quickly, a peer that breaks now may just have got the vote of one that was down: then only peers
    /// without a vote may break.
    pub(crate) fn may_break(&self, me: usize) -> bool {
        let votes = |peer: &Peer| {
            let members = &peer.disk.written.members;
            let id = members.raft_id(&self.peers[me].id);
            id.is_some_and(|id| members.voters.contains(&id) || members.outgoing.contains(&id))
        };
        self.options.replace_after_ms >= REPLACE_NEVER_MS || !self.peers.iter().any(votes)
    }

    /// Returns whether a peer takes part in the second phase: it is a member and not broken permanently.
    pub(crate) fn is_well(&self, me: usize) -> bool {
        let peer = &self.peers[me];
        !peer.broken && self.members().raft_id(&peer.id).is_some()
    }

    /// Returns the numbers of the peers that take part in the second phase.
    pub(crate) fn well(&self) -> impl Iterator<Item = usize> {
        (0..self.peers.len()).filter(|number| self.is_well(*number))
    }

    /// Returns the number of a peer that takes part in the second phase, if it does.
    pub(crate) fn well_number(&self, id: &PeerId) -> Option<usize> {
        self.number_of(id).filter(|number| self.is_well(*number))
    }

    /// Replaces a voter's data folder by an empty one under the same identity, if all voters have the same
    /// log and the others are a majority in every membership that any peer knows. Data that a majority has
    /// lost cannot be recovered.
    pub(crate) fn lose_disk(&mut self, me: usize, number: u64) {
        let members = self.members().clone();
        let mine = ends(&self.peers[me]);
        let is_safe = |id: &RaftId| {
            let peer = members.peer(*id);
            let peer = self.peers.iter().find(|candidate| Some(&candidate.id) == peer);
            let recorded = members.peers.get(id).and_then(|member| member.incarnation);
            peer.is_some_and(|peer| recorded == Some(peer.disk.incarnation()) && ends(peer) == mine)
        };
        let id = members.raft_id(&self.peers[me].id);
        let is_voter = id.is_some_and(|id| members.voters.contains(&id));
        let calm = members.outgoing.is_empty() && members.leaving.is_empty();
        if !is_voter || !calm || members.voters.len() < 3 || !members.voters.iter().all(is_safe) {
            return;
        }
        // This peer may be the only one that knows of an additional voter, without which it is needed.
        let mut without = self.removals.clone();
        without.insert(self.peers[me].id.clone());
        if !self.has_quorum_without(&without) {
            return;
        }
        self.burn(me, number, members);
    }

    /// Loses a disk as [`World::lose_disk`] does, without its conditions.
    pub(crate) fn burn(&mut self, me: usize, number: u64, members: Members) {
        self.crash(me, Death::Cut);
        let founded = me < usize::try_from(self.options.peers + self.options.learners).expect("a few peers");
        // A founder that needs no other vote would found a second cluster under the same name.
        let again = founded && self.founders.voters.len() > 1 && number % 1000 < self.options.found_again;
        let founders = again.then(|| self.founders.clone());
        sometimes!(self.coverage, again, "a founder was wiped and founded again");
        self.peers[me].lose_disk(Incarnation(number), members, founders);
        self.checks.disk_lost(me);
        self.coverage.hit("a disk was lost");
    }
}

/// Returns the end of a peer's log: the durable index, its term, and the written index.
fn ends(peer: &Peer) -> (u64, u64, u64) {
    let store = &peer.disk.durable;
    let last = store.log.last_key_value();
    let term = last.map_or(store.compacted.1, |(_, entry)| entry.term);
    (store.last(), term, peer.disk.written.last())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;

    /// Returns a world of `peers` founders, and their membership once each knows the others' data folders.
    fn acquainted(peers: usize) -> (World, Members) {
        let mut options = Options::quiet(1);
        options.set(&format!("peers={peers}")).expect("it is in range");
        let world = World::new(options, false);
        let mut members = world.members().clone();
        for (member, peer) in members.peers.values_mut().zip(&world.peers) {
            member.incarnation = Some(peer.disk.incarnation());
        }
        (world, members)
    }

    /// Returns a world of four peers, of which the second has lost its data folder: a change that replaces
    /// its old vote by a new one is in progress, and needs three of the four old votes.
    fn world_with_a_burnt_vote() -> World {
        let (mut world, mut members) = acquainted(4);
        let burnt = members.raft_id(&peer_id(1)).expect("it is a member");
        let fresh = Member {
            peer: peer_id(1),
            incarnation: Some(world.peers[1].disk.incarnation()),
        };
        members.peers.get_mut(&burnt).expect("it is there").incarnation = Some(Incarnation(1));
        members.peers.insert(members.next_raft_id, fresh);
        members.learners.insert(members.next_raft_id);
        members.outgoing = members.voters.clone();
        members.voters.remove(&burnt);
        for peer in &mut world.peers {
            peer.disk.written.members = members.clone();
        }
        world
    }

    /// Three peers with the same log. Only the first knows that the third may vote by now.
    #[test]
    fn data_folder_is_kept_where_only_its_owner_knows_of_a_quorum() {
        let (mut world, members) = acquainted(3);
        let third = members.raft_id(&peer_id(2)).expect("it is a member");
        for peer in &mut world.peers {
            peer.disk.written.members = members.clone();
            if peer.id != peer_id(0) {
                peer.disk.written.members.voters.remove(&third);
                peer.disk.written.members.learners.insert(third);
            }
        }
        world.peers[0].disk.written.applied.index = 1;
        let before = world.peers[0].disk.incarnation();
        world.lose_disk(0, 7);
        assert_eq!(world.peers[0].disk.incarnation(), before);
    }

    #[test]
    fn votes_of_lost_data_folders_do_not_count() {
        let world = world_with_a_burnt_vote();
        assert!(
            world.has_quorum_without(&BTreeSet::new()),
            "three of four old votes are there"
        );
        assert!(
            !world.has_quorum_without(&BTreeSet::from([peer_id(0)])),
            "then two of four"
        );
        assert!(
            world.has_quorum_without(&BTreeSet::from([peer_id(1)])),
            "it has no vote any more"
        );
    }
}
