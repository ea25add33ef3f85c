//! Messages between peers. Module `codec` encodes them.

use serde::{Deserialize, Serialize};

use crate::codec::FIRST_VERSION;
use crate::command::Proposal;
use crate::ids::{Cid, ClusterId, Incarnation, Index, RaftId, Term};
use crate::metric::Metric;
use crate::records::LogEntry;

/// A message with the sender's identity and version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Envelope {
    /// Id of the sender's cluster.
    pub cluster: ClusterId,
    /// Incarnation of the sender.
    pub incarnation: Incarnation,
    /// Incarnation that the receiver's Raft id belongs to, as far as the sender knows. The receiver may act
    /// under that id if the incarnation is its own, and must not if it is another's.
    pub addressee: Option<Incarnation>,
    /// Highest protocol version that the sender can read.
    pub version: u8,
    /// The message.
    pub message: Message,
}

impl Envelope {
    /// Returns the lowest protocol version that can read this envelope.
    pub fn min_version(&self) -> u8 {
        match &self.message {
            Message::Propose(proposals) => {
                let versions = proposals.iter().map(|proposal| proposal.command.min_version());
                versions.max().unwrap_or(FIRST_VERSION)
            }
            // Log entries in Raft messages have their own versions.
            Message::AskCopies(_)
            | Message::HasCopies(_)
            | Message::Hello
            | Message::Metrics(_)
            | Message::NotMember { .. }
            | Message::Raft(_) => FIRST_VERSION,
        }
    }
}

/// A message between the cores of two peers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Message {
    /// Announces the sender's incarnation: the receiver addressed another one, or the sender does not know
    /// its Raft id yet.
    Hello,
    /// Announces the sender's metrics.
    Metrics(Vec<Metric>),
    /// Notifies the receiver that it is not a member as of a log position.
    NotMember {
        /// Index of the sender's last applied entry.
        as_of: Index,
    },
    /// Forwards proposals to the leader. Lost ones are sent again.
    Propose(Vec<Proposal>),
    /// Carries a message of Raft.
    Raft(RaftMessage),
    /// Asks which of these copies the receiver holds; the sender unpins its own once enough peers hold
    /// theirs. At most [`COPIES_MAX`].
    AskCopies(Vec<CopyOf>),
    /// Confirms copies that the sender holds. Answers `AskCopies`.
    HasCopies(Vec<CopyOf>),
}

/// Maximum number of copies in one message: about 15 KiB.
pub const COPIES_MAX: usize = 256;

/// A copy of one version of a pin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyOf {
    /// CID of the pin.
    pub cid: Cid,
    /// Version of the pin.
    pub version: Index,
}

/// Kinds of Raft messages that are sent between peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(missing_docs, reason = "they are Raft's own words")]
pub enum RaftKind {
    Append,
    AppendResponse,
    RequestVote,
    RequestVoteResponse,
    Snapshot,
    Heartbeat,
    HeartbeatResponse,
    TransferLeader,
    TimeoutNow,
    ReadIndex,
    ReadIndexResp,
    RequestPreVote,
    RequestPreVoteResponse,
}

/// A Raft message. The fields are those of the `raft` crate's `Message`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "they are Raft's own words")]
pub struct RaftMessage {
    pub kind: RaftKind,
    pub from: RaftId,
    pub to: RaftId,
    pub term: Term,
    pub log_term: Term,
    pub index: Index,
    pub entries: Vec<LogEntry>,
    pub commit: Index,
    pub commit_term: Term,
    pub request_snapshot: Index,
    pub reject: bool,
    pub reject_hint: Index,
    pub context: Vec<u8>,
    pub priority: i64,
}

impl RaftMessage {
    /// Returns a message without content.
    pub fn new(kind: RaftKind, from: RaftId, to: RaftId, term: Term) -> Self {
        Self {
            kind,
            from,
            to,
            term,
            log_term: 0,
            index: 0,
            entries: Vec::new(),
            commit: 0,
            commit_term: 0,
            request_snapshot: 0,
            reject: false,
            reject_hint: 0,
            context: Vec::new(),
            priority: 0,
        }
    }
}
