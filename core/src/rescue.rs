//! Disaster recovery: turns the data folder of a surviving member into a new cluster, after the majority of
//! voters is lost permanently. Run by an operator while the peer is down.
//!
//! The new cluster starts with this member alone, under a new Raft id. The other survivors join it like new
//! peers and fetch its state. Its cluster id is new, so that a lost peer that comes back is refused instead
//! of mixing two histories.

use std::collections::BTreeSet;

use crate::codec::decode;
use crate::effect::StoreOp;
use crate::ids::{ClusterId, PeerId, RaftId};
use crate::members::{Member, Members, MembersChange, MembersStep};
use crate::planted::planted;
use crate::records::{HardState, Identity, LogEntry, Payload, Recovered};

/// Result of a rescue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rescue {
    /// The membership of the new cluster.
    pub members: Members,
    /// Log entries of this member after its applied position, which are now committed. Some may have been
    /// acknowledged by the lost majority.
    pub kept_entries: usize,
    /// Membership changes among them, which are replaced by empty entries.
    pub dropped_changes: usize,
}

/// A data folder cannot be made into a new cluster.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RescueError {
    /// It holds no membership.
    #[error("the data holds no membership: this peer was joining a cluster and never got its state")]
    NoMembership,
}

impl Recovered {
    /// Computes the writes that make this data folder the only member of a new `cluster`, which adds
    /// `survivors` as soon as it starts. All other members, and peers that were being added, count as
    /// departed, and their pins are re-allocated. `me` is this peer.
    ///
    /// # Errors
    /// [`RescueError::NoMembership`] if the data folder holds no membership: the peer never joined its
    /// cluster.
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
                // A Raft id that a lost leader has handed out must not be reused.
                if !planted!(RescueReusesIds) {
                    next = next.max(first_free(change));
                }
                entry.payload = Payload::Commands(Vec::new());
                dropped_changes += 1;
            }
        }
        let members = self.new_members(me, survivors, cluster, next);
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

    fn new_members(
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
        // Those that an earlier rescue was to add have pins too, from before it.
        let joining = self
            .members
            .joining
            .iter()
            .filter(|_| !planted!(RescueForgetsJoining));
        let departed = self.members.departed.iter().chain(self.members.peer_ids());
        let departed = departed.chain(joining);
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

/// Returns the lowest Raft id above all that a change assigns.
fn first_free(change: &[u8]) -> RaftId {
    let steps = decode::<MembersChange>(change).map_or_else(|_| Vec::new(), |change| change.steps);
    let handed_out = steps.iter().filter_map(|step| match step {
        MembersStep::AddLearner { raft_id, .. } => Some(RaftId(raft_id.0 + 1)),
        MembersStep::Promote { .. } | MembersStep::Demote { .. } | MembersStep::Remove { .. } => None,
    });
    handed_out.max().unwrap_or_default()
}
