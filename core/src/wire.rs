//! What peers send each other, and how everything that is sent or stored is written down: one byte of
//! version, then postcard. Decoding is total: whatever the bytes, it returns a value or an error.
//!
//! # Versions
//!
//! Peers of neighbouring releases work together, so that a cluster is upgraded one peer after the other:
//!
//! - The byte in front is the lowest version whose releases can read the record. A release that is asked to
//!   read a higher one than its own refuses it by that number.
//! - A type grows by variants at the end of an enum, which have their version in a function `since`. A record
//!   that holds none of them is, byte for byte, the older release's. A struct never changes; a variant with
//!   another struct takes its place.
//! - What all members can read is in [`Members::version`](crate::Members), and so in the log. Nothing of a
//!   later version is proposed before. Each message says what its sender can read; a leader that has heard
//!   from all members, and could write more than they have agreed on, raises it by a command.
//! - From then on a peer of the older release is refused, and refuses to start on data that has gone on.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::command::Proposal;
use crate::ids::{Cid, ClusterId, Incarnation, Index, RaftId, Term};
use crate::metric::Metric;
use crate::raft::LogEntry;

/// A message with what its receiver needs to know of its sender.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Envelope {
    /// The sender's cluster.
    pub cluster: ClusterId,
    /// The sender's data folder.
    pub incarnation: Incarnation,
    /// The data folder that the Raft id in the message belongs to, as far as the sender knows. A peer that
    /// finds its own here may act under that id, one that finds another must not.
    pub addressee: Option<Incarnation>,
    /// The newest version that the sender reads.
    pub version: u8,
    /// What it says.
    pub message: Message,
}

impl Envelope {
    /// The first version that can read it.
    pub fn since(&self) -> u8 {
        match &self.message {
            Message::Propose(proposals) => {
                let since = proposals.iter().map(|proposal| proposal.command.since());
                since.max().unwrap_or(FIRST_VERSION)
            }
            // Entries of the log have a version of their own.
            Message::AskCopies(_)
            | Message::HasCopies(_)
            | Message::Hello
            | Message::Metrics(_)
            | Message::NotMember { .. }
            | Message::Raft(_) => FIRST_VERSION,
        }
    }
}

/// What one core says to another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    /// The sender has copies that the receiver is to hold instead: which of them does it hold? At most
    /// [`COPIES_MAX`].
    AskCopies(Vec<CopyOf>),
    /// The sender holds these, of those that it was asked about.
    HasCopies(Vec<CopyOf>),
}

/// Copies that one message speaks of: some 15 KiB.
pub const COPIES_MAX: usize = 256;

/// What a pin asks for, as of one version of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyOf {
    /// The pin's CID.
    pub cid: Cid,
    /// Its version.
    pub version: Index,
}

/// The kinds of Raft messages that travel.
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

/// Why bytes could not be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
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

/// The newest version that this release reads, and writes once all members read it.
pub const VERSION: u8 = if cfg!(pretend_next_version) { 2 } else { 1 };

/// What this process reads: [`VERSION`], in every build but the simulator's, whose peers are of two releases.
#[cfg(not(planted_bugs))]
pub(crate) const fn newest() -> u8 {
    VERSION
}

#[cfg(planted_bugs)]
pub(crate) use crate::planted::release as newest;

/// The version of everything that has not changed since the first release.
pub const FIRST_VERSION: u8 = 1;

/// Writes a record down that every release reads.
pub fn encode<T: Serialize>(record: &T) -> Vec<u8> {
    encode_since(FIRST_VERSION, record)
}

/// Writes a record down that releases from `version` on read.
pub fn encode_since<T: Serialize>(version: u8, record: &T) -> Vec<u8> {
    let bytes = vec![version];
    postcard::to_extend(record, bytes).expect("records hold nothing that postcard cannot write")
}

/// Length of a record as [`encode`] writes it, without the byte of version.
pub(crate) fn encoded_len<T: Serialize>(record: &T) -> usize {
    let size = postcard::ser_flavors::Size::default();
    postcard::serialize_with_flavor(record, size).expect("records hold nothing that postcard cannot write")
}

/// Reads a record.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    let (&version, body) = bytes.split_first().ok_or(DecodeError::Empty)?;
    if !(FIRST_VERSION..=newest()).contains(&version) {
        return Err(DecodeError::Version {
            found: version,
            known: newest(),
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
