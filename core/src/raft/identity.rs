//! Under which Raft id this peer takes part, and what changes of the membership mean to it.

use super::*;

impl Raft {
    /// Takes a committed change over into the record. True when this peer is no member any more by it.
    pub(crate) fn members_changed(&mut self, change: &MembersChange, voting: Option<Voting>) -> bool {
        let id = self.id();
        let members = &mut self.raw.mut_store().members;
        let was_member = members.peers.contains_key(&id);
        if let Some(voting) = voting {
            members.take(change, voting);
        }
        was_member && !members.peers.contains_key(&id)
    }

    /// Notes what an operator wants of the membership, or says why it cannot be.
    pub(crate) fn wish(&mut self, wish: &MembersWish) -> Result<(), String> {
        self.raw.mut_store().members.wish(wish)
    }

    /// Lets a voter lead.
    pub(crate) fn transfer(&mut self, to: RaftId) {
        if self.leads() && self.installing.is_none() {
            self.raw.transfer_leader(to.0);
            self.rearm();
        }
    }

    /// Takes part under a Raft id that a member says belongs to this data folder; false when that is not
    /// possible now. The log stays: it is a part of the same cluster's, whoever holds it, and what was
    /// promised under another id binds nobody under this one.
    pub(crate) fn adopt(&mut self, id: RaftId, cluster: ClusterId, outputs: &mut Vec<Output>) -> bool {
        // An unfinished write must not be taken for a finished one by the Raft that starts anew.
        let busy = self.installing.is_some() || !self.held.is_empty() || self.raw.has_ready();
        let newer = match self.identity {
            Identity::Founding | Identity::Unknown => true,
            Identity::Known(known) | Identity::Removed(known) => id > known,
        };
        if busy || !newer || id >= NOBODY || (self.members().cluster != cluster && !self.is_blank()) {
            return false;
        }
        if self.members().cluster != cluster {
            self.raw.mut_store().members.cluster = cluster;
            outputs.push(Output::Store {
                op: StoreOp::SetMembers {
                    members: self.members().clone(),
                },
                sync: true,
            });
        }
        self.restart(Identity::Known(id), outputs);
        true
    }

    /// Takes part no more: the id belongs to another data folder, or its membership has ended. In the second
    /// case what was promised under it still holds, and others may still ask.
    pub(crate) fn retire(&mut self, identity: Identity, outputs: &mut Vec<Output>) -> bool {
        if !self.is_active() || self.installing.is_some() || !self.held.is_empty() || self.raw.has_ready() {
            return false;
        }
        self.restart(identity, outputs);
        true
    }

    /// Starts Raft anew, as somebody else, on the log as it is.
    fn restart(&mut self, identity: Identity, outputs: &mut Vec<Output>) {
        let mut hard_state = self.raw.raft.hard_state();
        if id_of(identity) != self.id() {
            hard_state.vote = raft::INVALID_ID;
        }
        self.identity = identity;
        let mut store = self.raw.store().clone();
        store.start = RaftState {
            hard_state: hard_state.clone(),
            conf_state: log::conf_state(&store.members),
        };
        let applied = self.raw.raft.raft_log.applied;
        self.raw = raw_node(id_of(identity), &self.config, &self.limits, store, applied);
        self.strangers.clear();
        self.rearm();
        outputs.push(Output::Store {
            op: StoreOp::SetHardState {
                hard_state: convert::hard_state(identity, &hard_state),
            },
            sync: true,
        });
        if self.leader.take().is_some() {
            outputs.push(Output::LeaderChanged { leader: None });
        }
    }

    /// Records an incarnation in the membership.
    pub(crate) fn admit(&mut self, id: RaftId, incarnation: Incarnation) -> Option<Members> {
        let log = self.raw.mut_store();
        let member = log.members.peers.get_mut(&id)?;
        if member.incarnation.is_some() {
            return None;
        }
        member.incarnation = Some(incarnation);
        Some(log.members.clone())
    }
}
