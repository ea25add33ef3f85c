//! Who belongs to the cluster, and who votes.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::ids::{ClusterId, Incarnation, PeerId, RaftId};
use crate::planted::planted;
use crate::wire::FIRST_VERSION;

/// One member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its identity on the network.
    pub peer: PeerId,
    /// The data folder that speaks for it; `None` until the log has recorded its first one.
    pub incarnation: Option<Incarnation>,
}

/// The membership as of one log position. Voting follows Raft's joint consensus: while `outgoing` is not
/// empty, a decision needs a majority of both sets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Members {
    /// Which cluster this is.
    pub cluster: ClusterId,
    /// What all members read: see the module `wire`. Nothing of a later version is written.
    pub version: u8,
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
    /// Peers that are to become members.
    pub joining: BTreeSet<PeerId>,
    /// Members that are to be removed.
    pub leaving: BTreeSet<PeerId>,
    /// Peers that were members and are not any more: what is still allocated to them must move.
    pub departed: BTreeSet<PeerId>,
}

/// Newcomers that may wait at once: they come in one at a time, within a second each.
const JOINING_MAX: usize = 256;

/// Departed peers to remember. Their pins move within minutes; the oldest to be forgotten are long without.
const DEPARTED_MAX: usize = 1024;

/// Who votes, as Raft has it after a change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Voting {
    pub(crate) voters: BTreeSet<RaftId>,
    pub(crate) outgoing: BTreeSet<RaftId>,
    pub(crate) learners: BTreeSet<RaftId>,
    pub(crate) learners_next: BTreeSet<RaftId>,
    pub(crate) auto_leave: bool,
}

impl Members {
    /// What a peer knows that waits to be added to a cluster.
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
            voters: peers.keys().copied().collect(),
            next_raft_id: RaftId(peers.len() as u64 + 1),
            peers,
            ..Self::joining(cluster)
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

    /// Notes what an operator wants, or says why it cannot be.
    pub(crate) fn wish(&mut self, wish: &MembersWish) -> Result<(), String> {
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
            // As in the Go peer: what is wanted holds already.
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
            MembersWish::Speak { version } => {
                self.version = self.version.max(*version);
                Ok(())
            }
            #[cfg(any(pretend_next_version, planted_bugs))]
            MembersWish::Next => Ok(()),
        }
    }

    /// Carries out what a change says of identities, and takes over what Raft says of voting. Who is in
    /// neither set of a joint membership is gone.
    pub(crate) fn take(&mut self, change: &MembersChange, voting: Voting) {
        for step in &change.steps {
            if let MembersStep::AddLearner { raft_id, member } = step {
                self.joining.remove(&member.peer);
                self.departed.remove(&member.peer);
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
                self.leaving.remove(&member.peer);
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

/// What an operator wants of the membership. The log records the wish, so that it outlives the leader; the
/// leader carries it out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MembersWish {
    /// Lets a peer in.
    Add {
        /// Whom.
        peer: PeerId,
    },
    /// Ends a membership.
    Remove {
        /// Whose.
        peer: PeerId,
    },
    /// Writes what releases from `version` on read: all members have said that they do.
    Speak {
        /// Which version.
        version: u8,
    },
    /// Stands for whatever the next version can say and this one cannot read.
    #[cfg(any(pretend_next_version, planted_bugs))]
    Next,
}

impl MembersWish {
    /// The first version that can read it.
    pub(crate) fn since(&self) -> u8 {
        match self {
            Self::Add { .. } | Self::Remove { .. } | Self::Speak { .. } => FIRST_VERSION,
            #[cfg(any(pretend_next_version, planted_bugs))]
            Self::Next => 2,
        }
    }
}

/// A change of the membership, as a log entry holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembersChange {
    /// The steps, taken together through joint consensus when there are several.
    pub steps: Vec<MembersStep>,
}

/// One step of a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
