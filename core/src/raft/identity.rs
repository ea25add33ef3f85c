//! Identity of this peer in Raft, and membership changes.

use raft::RaftState;

use super::{NO_RAFT_ID, Output, Raft, convert, id_of, log};
use crate::effect::StoreOp;
use crate::ids::{ClusterId, Incarnation, RaftId};
use crate::members::{Members, MembersChange, MembersWish, Voting};
use crate::planted::planted;
use crate::records::Identity;

impl Raft {
    /// Applies a committed change to the membership record. Returns whether it removed this peer.
    pub(crate) fn members_changed(&mut self, change: &MembersChange, voting: Option<Voting>) -> bool {
        let id = self.id();
        let members = &mut self.raw.log_mut().members;
        let was_member = members.peers.contains_key(&id);
        if let Some(voting) = voting {
            members.apply_change(change, voting);
        }
        was_member && !members.peers.contains_key(&id) && !planted!(RemovedNoted)
    }

    /// Records a requested membership change.
    ///
    /// # Errors
    ///
    /// The reason, for display, why the change is impossible in the current membership.
    pub(crate) fn record_wish(&mut self, wish: &MembersWish) -> Result<(), String> {
        self.raw.log_mut().members.record_wish(wish)
    }

    /// Transfers the leadership to a voter.
    pub(crate) fn transfer(&mut self, to: RaftId) {
        if self.leads() && self.installing.is_none() {
            self.raw.call(|raw| raw.transfer_leader(to.0));
        }
    }

    /// Adopts a Raft id that a member has assigned to this incarnation. Returns `false` if that is not
    /// possible now. The log is kept: it is a prefix of the same cluster's log, and promises under the old id
    /// do not bind the new one.
    pub(crate) fn adopt(&mut self, id: RaftId, cluster: ClusterId, outputs: &mut Vec<Output>) -> bool {
        // Restarting Raft would treat an unfinished write as durable.
        let busy = self.installing.is_some() || !self.held.is_empty() || self.raw.has_ready();
        let newer = match self.identity {
            Identity::Founding | Identity::Unknown => true,
            Identity::Known(known) | Identity::Removed(known) => id > known,
        };
        if busy || !newer || id >= NO_RAFT_ID || (self.members().cluster != cluster && !self.is_blank()) {
            return false;
        }
        if self.members().cluster != cluster {
            self.raw.log_mut().members.cluster = cluster;
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

    /// Stops taking part: the Raft id belongs to another incarnation, or its membership has ended. In the
    /// latter case its promises remain valid, and other peers may still ask for its vote. Returns `false` if
    /// a write is in flight.
    pub(crate) fn retire(&mut self, identity: Identity, outputs: &mut Vec<Output>) -> bool {
        if !self.is_active() || self.installing.is_some() || !self.held.is_empty() || self.raw.has_ready() {
            return false;
        }
        self.restart(identity, outputs);
        true
    }

    /// Restarts Raft under another identity, with the same log.
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
        self.raw.restart(id_of(identity), store, applied);
        self.unknown_senders.clear();
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

    /// Records the incarnation of a member. Returns the new membership, or `None` if there was one already.
    pub(crate) fn admit(&mut self, id: RaftId, incarnation: Incarnation) -> Option<Members> {
        let log = self.raw.log_mut();
        let member = log.members.peers.get_mut(&id)?;
        if member.incarnation.is_some() {
            return None;
        }
        member.incarnation = Some(incarnation);
        Some(log.members.clone())
    }
}
