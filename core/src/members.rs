//! Who belongs to the cluster, and who votes.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::ids::{ClusterId, Incarnation, PeerId, RaftId};

/// One member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its identity on the network.
    pub peer: PeerId,
    /// The data folder that speaks for it; `None` until the log has recorded its first one.
    pub incarnation: Option<Incarnation>,
}

/// The membership as of one log position. Voting follows Raft's joint consensus: while `outgoing` is not
/// empty, a decision needs a majority of both sets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Members {
    /// Which cluster this is.
    pub cluster: ClusterId,
    /// Everybody, by Raft id.
    pub peers: BTreeMap<RaftId, Member>,
    /// Who votes.
    pub voters: BTreeSet<RaftId>,
    /// Who voted before the change that is under way.
    pub outgoing: BTreeSet<RaftId>,
    /// Who follows the log without a vote.
    pub learners: BTreeSet<RaftId>,
    /// Voters of `outgoing` that become learners when the change is complete.
    pub learners_next: BTreeSet<RaftId>,
    /// Whether the change completes by itself.
    pub auto_leave: bool,
    /// The next Raft id to hand out.
    pub next_raft_id: RaftId,
}

impl Members {
    /// The membership that a static set of peers starts from: all vote, and all compute the same record
    /// whatever the order in which they were named.
    pub fn initial(peers: impl IntoIterator<Item = PeerId>) -> Self {
        let peers: BTreeSet<PeerId> = peers.into_iter().collect();
        let cluster = cluster_id(&peers);
        let peers: BTreeMap<RaftId, Member> = (1..)
            .map(RaftId)
            .zip(peers.into_iter().map(|peer| Member {
                peer,
                incarnation: None,
            }))
            .collect();
        Self {
            cluster,
            voters: peers.keys().copied().collect(),
            outgoing: BTreeSet::new(),
            learners: BTreeSet::new(),
            learners_next: BTreeSet::new(),
            auto_leave: false,
            next_raft_id: RaftId(peers.len() as u64 + 1),
            peers,
        }
    }

    /// The Raft id of `peer`, the newest if it has had several.
    pub fn raft_id(&self, peer: &PeerId) -> Option<RaftId> {
        self.peers
            .iter()
            .rev()
            .find(|(_, member)| member.peer == *peer)
            .map(|(id, _)| *id)
    }

    /// The identity behind a Raft id.
    pub fn peer(&self, id: RaftId) -> Option<&PeerId> {
        self.peers.get(&id).map(|member| &member.peer)
    }

    /// Carries out what a change says of identities; who votes is Raft's to say.
    pub(crate) fn take(&mut self, change: &MembersChange) {
        for step in &change.steps {
            match step {
                MembersStep::AddLearner { raft_id, member } => {
                    self.peers.insert(*raft_id, member.clone());
                    self.next_raft_id = self.next_raft_id.max(RaftId(raft_id.0 + 1));
                }
                MembersStep::Promote { .. } | MembersStep::Demote { .. } => {}
                MembersStep::Remove { raft_id } => {
                    self.peers.remove(raft_id);
                }
            }
        }
    }

    /// Every member's identity.
    pub fn peer_ids(&self) -> impl Iterator<Item = &PeerId> {
        self.peers.values().map(|member| &member.peer)
    }
}

/// Names the cluster that a set of peers founds: two FNV-1a hashes of their sorted ids, from two bases.
/// It need not resist an adversary, who would need the cluster's secret to get this far.
fn cluster_id(peers: &BTreeSet<PeerId>) -> ClusterId {
    let hash = |basis: u64| {
        peers
            .iter()
            .flat_map(|peer| peer.as_bytes())
            .fold(basis, |hash, byte| {
                (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
            })
    };
    let mut id = [0; 16];
    id[..8].copy_from_slice(&hash(0xcbf2_9ce4_8422_2325).to_be_bytes());
    id[8..].copy_from_slice(&hash(0x6c62_272e_07bb_0142).to_be_bytes());
    ClusterId(id)
}

/// A change of the membership, as a log entry holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembersChange {
    /// The steps, taken together through joint consensus when there are several.
    pub steps: Vec<MembersStep>,
}

/// One step of a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MembersStep {
    /// Lets a new member follow the log.
    AddLearner {
        /// Its new Raft id.
        raft_id: RaftId,
        /// Who it is.
        member: Member,
    },
    /// Gives a member a vote.
    Promote {
        /// Whom.
        raft_id: RaftId,
    },
    /// Takes a member's vote.
    Demote {
        /// Whose.
        raft_id: RaftId,
    },
    /// Ends a membership.
    Remove {
        /// Whose.
        raft_id: RaftId,
    },
}
