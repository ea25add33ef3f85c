//! When the majority of a cluster's voters is lost for good, nothing can be agreed on any more: what a member
//! still has becomes a new cluster. It is for an operator to decide, and is done while the peer is down.
//!
//! The new cluster starts with this member alone, under a Raft id that was never used, and takes the other
//! survivors in as newcomers, who fetch its state. It has another id than the lost one, so that a lost peer
//! that comes back after all is refused instead of mixing two histories.

use std::collections::BTreeSet;

use crate::effect::StoreOp;
use crate::ids::{ClusterId, PeerId, RaftId};
use crate::members::{Member, Members, MembersChange, MembersStep};
use crate::raft::{HardState, Identity, LogEntry, Payload, Recovered};
use crate::wire::decode;

/// What a rescue comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rescue {
    /// The membership of the new cluster.
    pub members: Members,
    /// Entries that this member has and may not have been agreed on: they are now. Without them, what was
    /// acknowledged by the lost majority might be lost with it.
    pub kept_entries: usize,
    /// Changes of the old membership among them, which mean nothing any more.
    pub dropped_changes: usize,
}

/// Why a data folder cannot be made into a new cluster.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RescueError {
    /// Nothing in it says of what it is a part.
    #[error("the data holds no membership: this peer was joining a cluster and never got its state")]
    NoMembership,
}

impl Recovered {
    /// Makes these data those of the only member of a new `cluster`, which takes `survivors` in as soon as
    /// it starts. Whoever else was a member has departed, and its pins move. `me` is this peer.
    ///
    /// # Errors
    /// The data are not those of a member.
    pub fn rescue(
        &self,
        me: &PeerId,
        survivors: &BTreeSet<PeerId>,
        cluster: ClusterId,
    ) -> Result<(Rescue, Vec<StoreOp>), RescueError> {
        if self.members.peers.is_empty() {
            return Err(RescueError::NoMembership);
        }
        let tail = self.log.iter().filter(|entry| entry.index > self.applied.index);
        let mut entries: Vec<LogEntry> = tail.cloned().collect();
        let mut next = self.members.next_raft_id;
        let mut dropped_changes = 0;
        for entry in &mut entries {
            if let Payload::Members(change) = &entry.payload {
                // An id that a lost leader has handed out is spent.
                next = next.max(first_free(change));
                entry.payload = Payload::Commands(Vec::new());
                dropped_changes += 1;
            }
        }
        let members = self.members_of(me, survivors, cluster, next);
        let hard_state = HardState {
            identity: Identity::Known(next),
            term: self.hard_state.term,
            vote: None,
            commit: self.hard_state.commit.max(self.applied.index),
        };
        let rescue = Rescue {
            members: members.clone(),
            kept_entries: entries.len(),
            dropped_changes,
        };
        let mut ops = vec![
            StoreOp::SetHardState { hard_state },
            StoreOp::SetMembers { members },
        ];
        if dropped_changes > 0 {
            ops.push(StoreOp::Append { entries });
        }
        Ok((rescue, ops))
    }

    fn members_of(
        &self,
        me: &PeerId,
        survivors: &BTreeSet<PeerId>,
        cluster: ClusterId,
        id: RaftId,
    ) -> Members {
        let own = Member {
            peer: me.clone(),
            incarnation: Some(self.incarnation),
        };
        let others = |peer: &&PeerId| *peer != me;
        let is_lost = |peer: &&PeerId| *peer != me && !survivors.contains(*peer);
        let departed = self.members.departed.iter().chain(self.members.peer_ids());
        Members {
            peers: [(id, own)].into(),
            voters: [id].into(),
            next_raft_id: RaftId(id.0 + 1),
            joining: survivors.iter().filter(others).cloned().collect(),
            version: self.members.version,
            departed: departed.filter(is_lost).cloned().collect(),
            ..Members::joining(cluster)
        }
    }
}

/// The first Raft id after all that a change hands out.
fn first_free(change: &[u8]) -> RaftId {
    let steps = decode::<MembersChange>(change).map_or_else(|_| Vec::new(), |change| change.steps);
    let handed_out = steps.iter().filter_map(|step| match step {
        MembersStep::AddLearner { raft_id, .. } => Some(RaftId(raft_id.0 + 1)),
        MembersStep::Promote { .. } | MembersStep::Demote { .. } | MembersStep::Remove { .. } => None,
    });
    handed_out.max().unwrap_or_default()
}
