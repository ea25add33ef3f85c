//! Membership records: the members of the cluster, their roles, and requested changes.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::codec::FIRST_VERSION;
#[cfg(any(debug_assertions, planted_bugs))]
use crate::codec::VERSION;
use crate::ids::{ClusterId, Incarnation, PeerId, RaftId};
use crate::planted::planted;

/// A cluster member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Network identity.
    pub peer: PeerId,
    /// Incarnation that acts as this member; `None` until the log has recorded the first one.
    pub incarnation: Option<Incarnation>,
}

/// Membership at one log position. Voting follows Raft's joint consensus (Raft thesis, section 4.3): while
/// `outgoing` is not empty, a decision needs a majority of both sets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Members {
    /// Id of the cluster.
    pub cluster: ClusterId,
    /// Highest protocol version that all members can read; nothing of a later version is written (see module
    /// `codec`).
    pub version: u8,
    /// All members, by Raft id.
    pub peers: BTreeMap<RaftId, Member>,
    /// Raft ids of the voters.
    pub voters: BTreeSet<RaftId>,
    /// Voters before the joint change in progress; empty otherwise.
    pub outgoing: BTreeSet<RaftId>,
    /// Members that follow the log without a vote.
    pub learners: BTreeSet<RaftId>,
    /// Voters of `outgoing` that become learners when the joint change completes.
    pub learners_next: BTreeSet<RaftId>,
    /// Set if the joint change completes automatically.
    pub auto_leave: bool,
    /// Raft id of the next new member.
    pub next_raft_id: RaftId,
    /// Peers to be added.
    pub joining: BTreeSet<PeerId>,
    /// Members to be removed.
    pub leaving: BTreeSet<PeerId>,
    /// Former members whose pins must be re-allocated.
    pub departed: BTreeSet<PeerId>,
}

/// Maximum number of peers that wait to be added. They are added one at a time, each within a second.
const JOINING_MAX: usize = 256;

/// Maximum number of former members to remember. Their pins are re-allocated within minutes.
const DEPARTED_MAX: usize = 1024;

/// Raft's configuration state after a change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Voting {
    pub(crate) voters: BTreeSet<RaftId>,
    pub(crate) outgoing: BTreeSet<RaftId>,
    pub(crate) learners: BTreeSet<RaftId>,
    pub(crate) learners_next: BTreeSet<RaftId>,
    pub(crate) auto_leave: bool,
}

impl Members {
    /// Returns the membership of a peer that waits to be added to a cluster.
    pub fn joining(cluster: ClusterId) -> Self {
        Self {
            cluster,
            version: FIRST_VERSION,
            peers: BTreeMap::new(),
            voters: BTreeSet::new(),
            outgoing: BTreeSet::new(),
            learners: BTreeSet::new(),
            learners_next: BTreeSet::new(),
            auto_leave: false,
            next_raft_id: RaftId(1),
            joining: BTreeSet::new(),
            leaving: BTreeSet::new(),
            departed: BTreeSet::new(),
        }
    }

    /// Returns the initial membership of a static set of peers: all vote. Independent of the order of
    /// `peers`, so that all compute the same record.
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
            voters: peers.keys().copied().collect(),
            next_raft_id: RaftId(peers.len() as u64 + 1),
            peers,
            ..Self::joining(cluster)
        }
    }

    /// Returns the Raft id of `peer`, the newest if there are several.
    pub fn raft_id(&self, peer: &PeerId) -> Option<RaftId> {
        self.peers
            .iter()
            .rev()
            .find(|(_, member)| member.peer == *peer)
            .map(|(id, _)| *id)
    }

    /// Returns the network identity behind a Raft id.
    pub fn peer(&self, id: RaftId) -> Option<&PeerId> {
        self.peers.get(&id).map(|member| &member.peer)
    }

    /// Records a requested change, to be carried out by the leader.
    ///
    /// # Errors
    ///
    /// The reason, for display, why the change is impossible in the current membership.
    pub(crate) fn record_wish(&mut self, wish: &MembersWish) -> Result<(), String> {
        match wish {
            MembersWish::Add { peer } if self.leaving.contains(peer) => {
                Err(format!("{peer} is being removed: add it again when it is gone"))
            }
            MembersWish::Add { peer } if self.raft_id(peer).is_some() => Ok(()),
            MembersWish::Add { .. } if self.joining.len() >= JOINING_MAX => Err(format!(
                "{JOINING_MAX} peers are being added already: try again later"
            )),
            MembersWish::Add { peer } => {
                self.joining.insert(peer.clone());
                Ok(())
            }
            MembersWish::Remove { peer } if self.joining.contains(peer) => {
                Err(format!("{peer} is being added: remove it when it is a member"))
            }
            // As in the Go peer: removing a non-member succeeds.
            MembersWish::Remove { peer } if self.raft_id(peer).is_none() => Ok(()),
            MembersWish::Remove { peer } => {
                let stays = |member: &Member| member.peer != *peer && !self.leaving.contains(&member.peer);
                if !self.peers.values().any(stays) {
                    return Err(format!(
                        "{peer} is the last peer of the cluster: it cannot be removed"
                    ));
                }
                self.leaving.insert(peer.clone());
                Ok(())
            }
            MembersWish::RaiseVersion { version } => {
                self.version = self.version.max(*version);
                Ok(())
            }
            #[cfg(any(debug_assertions, planted_bugs))]
            MembersWish::Next => Ok(()),
        }
    }

    /// Applies a committed change: adds the new members, takes over Raft's configuration state, and removes
    /// the members that are in none of its sets.
    pub(crate) fn apply_change(&mut self, change: &MembersChange, voting: Voting) {
        for step in &change.steps {
            if let MembersStep::AddLearner { raft_id, member } = step {
                if !planted!(JoiningKept) {
                    self.joining.remove(&member.peer);
                }
                if !planted!(DepartedKept) {
                    self.departed.remove(&member.peer);
                }
                self.peers.insert(*raft_id, member.clone());
                self.next_raft_id = self.next_raft_id.max(RaftId(raft_id.0 + 1));
            }
        }
        let Voting {
            voters,
            outgoing,
            learners,
            learners_next,
            auto_leave,
        } = voting;
        let gone = |id: &RaftId| {
            [&voters, &outgoing, &learners, &learners_next]
                .iter()
                .all(|set| !set.contains(id))
        };
        for id in self.peers.keys().copied().filter(gone).collect::<Vec<_>>() {
            let member = self.peers.remove(&id).expect("is there");
            if self.raft_id(&member.peer).is_none() {
                if !planted!(LeavingKept) {
                    self.leaving.remove(&member.peer);
                }
                if !planted!(DepartedForgotten) {
                    self.departed.insert(member.peer);
                }
            }
        }
        while self.departed.len() > DEPARTED_MAX {
            self.departed.pop_first();
        }
        self.voters = voters;
        self.outgoing = outgoing;
        self.learners = learners;
        self.learners_next = learners_next;
        self.auto_leave = auto_leave;
    }

    /// Iterates over the identities of all members.
    pub fn peer_ids(&self) -> impl Iterator<Item = &PeerId> {
        self.peers.values().map(|member| &member.peer)
    }
}

/// Derives the id of the cluster that a set of peers founds: two FNV-1a hashes of their sorted ids, with
/// different bases. It need not resist an adversary, who would need the cluster's secret to use it.
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

/// A requested change of the membership. The log records it, so that it survives the leader, who carries it
/// out as [`MembersChange`]s.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MembersWish {
    /// Add a peer.
    Add {
        /// The peer to add.
        peer: PeerId,
    },
    /// Remove a peer.
    Remove {
        /// The peer to remove.
        peer: PeerId,
    },
    /// Raise [`Members::version`]: all members have announced that they can read `version`.
    RaiseVersion {
        /// The new protocol version.
        version: u8,
    },
    /// Placeholder for a request that only the next version can read, for tests of upgrades.
    #[cfg(any(debug_assertions, planted_bugs))]
    Next,
}

impl MembersWish {
    /// Returns the lowest protocol version that can read this request.
    pub(crate) fn min_version(&self) -> u8 {
        match self {
            Self::Add { .. } | Self::Remove { .. } | Self::RaiseVersion { .. } => FIRST_VERSION,
            #[cfg(any(debug_assertions, planted_bugs))]
            Self::Next => VERSION + 1,
        }
    }
}

/// A change of the membership, as stored in a log entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembersChange {
    /// Steps; several are one joint change.
    pub steps: Vec<MembersStep>,
}

/// One step of a membership change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MembersStep {
    /// Adds a member as a learner.
    AddLearner {
        /// Raft id of the new member.
        raft_id: RaftId,
        /// The new member.
        member: Member,
    },
    /// Makes a learner a voter.
    Promote {
        /// Raft id of the learner.
        raft_id: RaftId,
    },
    /// Makes a voter a learner.
    Demote {
        /// Raft id of the voter.
        raft_id: RaftId,
    },
    /// Removes a member.
    Remove {
        /// Raft id of the member.
        raft_id: RaftId,
    },
}
