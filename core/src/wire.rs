//! What peers send each other, and how everything that is sent or stored is written down: one byte of
//! version, then postcard. Decoding is total: whatever the bytes, it returns a value or an error.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::command::Proposal;
use crate::ids::{ClusterId, Incarnation, Index, RaftId, Term};
use crate::metric::Metric;
use crate::raft::LogEntry;

/// A message with what its receiver needs to know of its sender.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Envelope {
    /// The sender's cluster.
    pub cluster: ClusterId,
    /// The sender's data folder.
    pub incarnation: Incarnation,
    /// The data folder that the Raft id in the message belongs to, as far as the sender knows. A peer that
    /// finds its own here may act under that id, one that finds another must not.
    pub addressee: Option<Incarnation>,
    /// What it says.
    pub message: Message,
}

/// What one core says to another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Message {
    /// Nothing but who the sender is: its data folder is not the one that the receiver addressed, or it
    /// waits to be told its Raft id.
    Hello,
    /// The sender's own metrics.
    Metrics(Vec<Metric>),
    /// The receiver is no member as of this log position.
    NotMember {
        /// The sender's last applied entry.
        as_of: Index,
    },
    /// Proposals for the leader. Lost ones are sent again.
    Propose(Vec<Proposal>),
    /// Raft's own.
    Raft(RaftMessage),
}

/// The kinds of Raft messages that travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

/// Why bytes could not be decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Nothing there.
    #[error("empty record")]
    Empty,
    /// Not what this version should look like.
    #[error("damaged record: {0}")]
    Damaged(String),
    /// More bytes than the record has.
    #[error("damaged record: {0} bytes too many")]
    Trailing(usize),
    /// Written by a later release.
    #[error("record of version {found}, this release knows {known}")]
    Version {
        /// As written.
        found: u8,
        /// The newest that this release reads.
        known: u8,
    },
}

/// The version of everything that this release writes.
pub const VERSION: u8 = 1;

/// Writes a record down.
pub fn encode<T: Serialize>(record: &T) -> Vec<u8> {
    let bytes = vec![VERSION];
    postcard::to_extend(record, bytes).expect("records hold nothing that postcard cannot write")
}

/// Reads a record.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    let (&version, body) = bytes.split_first().ok_or(DecodeError::Empty)?;
    if version != VERSION {
        return Err(DecodeError::Version {
            found: version,
            known: VERSION,
        });
    }
    match postcard::take_from_bytes(body) {
        Ok((record, [])) => Ok(record),
        Ok((_, rest)) => Err(DecodeError::Trailing(rest.len())),
        Err(error) => Err(DecodeError::Damaged(error.to_string())),
    }
}

#[cfg(test)]
mod tests;
