//! What Raft stores.

use serde::{Deserialize, Serialize};

use crate::ids::{ClusterId, Incarnation, Index, RaftId, Term};
use crate::members::Members;
use crate::snapshot::Applied;
use crate::window::Window;
use crate::wire::FIRST_VERSION;

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// Its position.
    pub index: Index,
    /// The term of the leader that appended it.
    pub term: Term,
    /// What it is.
    pub payload: Payload,
}

impl LogEntry {
    /// The first version that can read all of it.
    pub fn since(&self) -> u8 {
        let (Payload::Commands(bytes) | Payload::Members(bytes)) = &self.payload;
        bytes.first().copied().unwrap_or(FIRST_VERSION)
    }
}

/// What a log entry holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Payload {
    /// Encoded proposals, `Vec<Proposal>`; nothing in the entry that opens a term.
    Commands(Vec<u8>),
    /// An encoded [`MembersChange`](crate::members::MembersChange).
    Members(Vec<u8>),
}

/// As whom this peer takes part in Raft.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Identity {
    /// Under the id that the membership which it was founded with gives it.
    #[default]
    Founding,
    /// As nobody: it waits to be told its id by a member that knows its data folder.
    Unknown,
    /// Under this id.
    Known(RaftId),
    /// As nobody any more: this was its id, and its membership has ended.
    Removed(RaftId),
}

/// What Raft must never forget.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HardState {
    /// As whom all of this was promised.
    pub identity: Identity,
    /// The newest term seen.
    pub term: Term,
    /// Who got this peer's vote in it.
    pub vote: Option<RaftId>,
    /// How far the log is known to be committed.
    pub commit: Index,
}

/// All that was durable when the process started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovered {
    /// The data folder's own number.
    pub incarnation: Incarnation,
    /// How many times a process has been started on this folder, this time included.
    pub boot: u64,
    /// Raft's memory.
    pub hard_state: HardState,
    /// The last entry that was dropped from the log, and its term.
    pub compacted: (Index, Term),
    /// The log after it: contiguous.
    pub log: Vec<LogEntry>,
    /// How far the pinset is.
    pub applied: Applied,
    /// The membership as of the applied entry.
    pub members: Members,
    /// The applied proposals of each peer.
    pub windows: Vec<Window>,
    /// Whether a comparison of the local state with the pinset was under way.
    pub reconciling: bool,
}

impl Recovered {
    /// What a fresh data folder of a peer starts from that is to be added to a running cluster, and may
    /// not know which one ([`ClusterId::UNKNOWN`]). Until a member tells it its Raft id it is silent.
    pub fn joining(incarnation: Incarnation, cluster: ClusterId) -> Self {
        let mut recovered = Self::founding(incarnation, Members::joining(cluster));
        recovered.hard_state.identity = Identity::Unknown;
        recovered
    }

    /// What a fresh data folder of a founding peer starts from.
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
