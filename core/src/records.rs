//! Records of the log, of Raft's durable state, and of what a process starts from.

use serde::{Deserialize, Serialize};

use crate::codec::FIRST_VERSION;
use crate::ids::{ClusterId, Incarnation, Index, RaftId, Term};
use crate::members::Members;
use crate::snapshot::Applied;
use crate::window::Window;

/// A log entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// Position in the log.
    pub index: Index,
    /// The term of the leader that appended it.
    pub term: Term,
    /// Content of the entry.
    pub payload: Payload,
}

impl LogEntry {
    /// Returns the lowest protocol version that can read the payload.
    pub fn min_version(&self) -> u8 {
        let (Payload::Commands(bytes) | Payload::Members(bytes)) = &self.payload;
        bytes.first().copied().unwrap_or(FIRST_VERSION)
    }
}

/// Content of a log entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Payload {
    /// Encoded proposals, `Vec<Proposal>`; empty in the first entry of a term.
    Commands(Vec<u8>),
    /// An encoded [`MembersChange`](crate::members::MembersChange); empty in the entry that completes a joint
    /// change.
    Members(Vec<u8>),
}

/// Identity under which this peer takes part in Raft.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Identity {
    /// The Raft id in the membership that the peer was founded with.
    #[default]
    Founding,
    /// No id yet: a member that knows this incarnation must assign one.
    Unknown,
    /// This Raft id.
    Known(RaftId),
    /// No id any more: the membership under this one has ended.
    Removed(RaftId),
}

/// State that Raft must keep across restarts (Raft thesis, figure 3.1), with the identity that it belongs to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HardState {
    /// Identity that made these promises.
    pub identity: Identity,
    /// Highest term seen.
    pub term: Term,
    /// Raft id that got this peer's vote in that term.
    pub vote: Option<RaftId>,
    /// Highest log index that is known to be committed.
    pub commit: Index,
}

/// Durable state at the start of a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovered {
    /// Random number of the data folder.
    pub incarnation: Incarnation,
    /// Number of processes started on the data folder, including this one.
    pub boot: u64,
    /// Raft's term, vote and commit index.
    pub hard_state: HardState,
    /// Index and term of the last compacted log entry.
    pub compacted: (Index, Term),
    /// Log entries after the compacted ones, contiguous.
    pub log: Vec<LogEntry>,
    /// Applied position.
    pub applied: Applied,
    /// Membership as of the applied position.
    pub members: Members,
    /// Applied proposals of each peer.
    pub windows: Vec<Window>,
    /// Set if a reconciliation of the local state with an installed snapshot is unfinished.
    pub reconciling: bool,
}

impl Recovered {
    /// Returns the state of a new peer that is to be added to a running cluster, [`ClusterId::UNKNOWN`] if
    /// not known yet. It stays silent until a member assigns it a Raft id.
    pub fn joining(incarnation: Incarnation, cluster: ClusterId) -> Self {
        let mut recovered = Self::founding(incarnation, Members::joining(cluster));
        recovered.hard_state.identity = Identity::Unknown;
        recovered
    }

    /// Returns the state of a new peer that founds a cluster with `members`.
    pub fn founding(incarnation: Incarnation, members: Members) -> Self {
        Self {
            incarnation,
            boot: 1,
            hard_state: HardState::default(),
            compacted: (0, 0),
            log: Vec::new(),
            applied: Applied::default(),
            members,
            windows: Vec::new(),
            reconciling: false,
        }
    }
}
