//! Messages from other peers: only those that a correct member could have sent reach Raft.

use super::{Output, Raft, UNKNOWN_SENDERS_MAX, convert, log};
use crate::codec::{decode, decode_up_to};
use crate::command::Proposal;
use crate::ids::{PeerId, SnapshotId};
use crate::members::MembersChange;
use crate::planted::planted;
use crate::records::{Identity, Payload};
use crate::snapshot::Manifest;
use crate::wire::{RaftKind, RaftMessage};

/// Reason for dropping a message before Raft sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// Addressed to another Raft id, or of a kind that this peer ignores.
    NotAddressed,
    /// Contradicts itself or the log, as no correct member's message does.
    Invalid,
    /// A snapshot or the log must become durable first; Raft sends again.
    TooSoon,
}

impl Raft {
    /// Passes a valid message to Raft. `from` is the sender, authenticated by the network.
    ///
    /// # Errors
    ///
    /// The reason for dropping it.
    pub(crate) fn receive(
        &mut self,
        from: &PeerId,
        message: RaftMessage,
        outputs: &mut Vec<Output>,
    ) -> Result<(), Dropped> {
        self.validate(from, &message)?;
        if !self.members().peers.contains_key(&message.from)
            && self.unknown_senders.len() < UNKNOWN_SENDERS_MAX
        {
            self.unknown_senders.insert(message.from, from.clone());
        }
        let mut message = message;
        if message.kind == RaftKind::Append && self.is_blank() {
            if message.term == self.term() && self.held.is_empty() {
                let to = message.from;
                let message = ask_for_snapshot(&message);
                outputs.push(Output::Send { to, message });
                return Ok(());
            }
            // Nothing may be sent in a term before that is durable.
            message.kind = RaftKind::Heartbeat;
            message.commit = 0;
            message.entries.clear();
        }
        // Raft's errors need no action: the message is dropped.
        let _ = self.raw.call(|raw| raw.step(convert::raft_message(message)));
        Ok(())
    }

    /// Offers a staged snapshot to Raft. An output reports whether it is installed or discarded.
    pub(crate) fn receive_snapshot(
        &mut self,
        from: &PeerId,
        snapshot: SnapshotId,
        manifest: Manifest,
        message: RaftMessage,
        outputs: &mut Vec<Output>,
    ) {
        let applied = manifest.applied;
        let fits = message.kind == RaftKind::Snapshot
            && (manifest.members.cluster == self.members().cluster || planted!(OtherSnapshotTaken))
            && applied.index > 0
            && self.validate(from, &message).is_ok();
        if !fits {
            outputs.push(Output::Discard { snapshot });
            return;
        }
        let mut message = convert::raft_message(message);
        let metadata = message.mut_snapshot().mut_metadata();
        metadata.index = applied.index;
        metadata.term = applied.term;
        metadata.set_conf_state(log::conf_state(&manifest.members));
        self.offered = Some((snapshot, manifest));
        let _ = self.raw.call(|raw| raw.step(message));
    }

    /// Returns whether this peer accepts a kind of message. A removed peer still answers as a follower, but
    /// starts nothing: members that do not know of its removal yet may need its vote or acknowledgement to
    /// learn of it.
    fn accepts_kind(&self, kind: RaftKind) -> bool {
        match self.identity {
            Identity::Founding | Identity::Known(_) => true,
            Identity::Unknown => false,
            Identity::Removed(_) => match kind {
                RaftKind::Append
                | RaftKind::Heartbeat
                | RaftKind::RequestPreVote
                | RaftKind::RequestVote
                | RaftKind::Snapshot => true,
                RaftKind::AppendResponse
                | RaftKind::HeartbeatResponse
                | RaftKind::ReadIndex
                | RaftKind::ReadIndexResp
                | RaftKind::RequestPreVoteResponse
                | RaftKind::RequestVoteResponse
                | RaftKind::TimeoutNow
                | RaftKind::TransferLeader => false,
            },
        }
    }

    /// Checks properties of all correct members' messages. Raft panics on many violations.
    fn validate(&self, from: &PeerId, message: &RaftMessage) -> Result<(), Dropped> {
        if self.installing.is_some() || message.kind == RaftKind::TimeoutNow && self.must_delay_election() {
            return Err(Dropped::TooSoon);
        }
        if message.to != self.id() || !self.accepts_kind(message.kind) {
            return Err(Dropped::NotAddressed);
        }
        let log = self.raw.store();
        let known = self.peer(message.from);
        let honest_sender = message.from != self.id() && known.is_none_or(|peer| peer == *from);
        // The `raft` crate gives term 0 to local messages and to reads.
        let is_read = matches!(message.kind, RaftKind::ReadIndex | RaftKind::ReadIndexResp);
        let body = match message.kind {
            RaftKind::Append => self.is_valid_append(message),
            // A leader does not commit beyond what the follower has acknowledged.
            RaftKind::Heartbeat => message.commit <= log.last(),
            RaftKind::AppendResponse => message.index <= log.last() || message.reject,
            RaftKind::ReadIndex | RaftKind::ReadIndexResp => message.entries.len() == 1,
            RaftKind::RequestVote
            | RaftKind::RequestVoteResponse
            | RaftKind::Snapshot
            | RaftKind::HeartbeatResponse
            | RaftKind::TransferLeader
            | RaftKind::TimeoutNow
            | RaftKind::RequestPreVote
            | RaftKind::RequestPreVoteResponse => message.entries.is_empty(),
        };
        if honest_sender && (is_read || message.term > 0) && body {
            Ok(())
        } else {
            Err(Dropped::Invalid)
        }
    }

    /// Checks that entries are decodable and contiguous, that their terms are non-decreasing and at most the
    /// leader's, and that they agree with all committed entries.
    fn is_valid_append(&self, message: &RaftMessage) -> bool {
        let log = &self.raw.raft.raft_log;
        let mut index = message.index;
        let mut term = message.log_term;
        message.entries.iter().all(|entry| {
            let follows = Some(entry.index) == index.checked_add(1) && entry.term >= term;
            let readable = match &entry.payload {
                Payload::Commands(data) => {
                    data.is_empty() || decode_up_to::<Vec<Proposal>>(self.version, data).is_ok()
                }
                Payload::Members(data) => data.is_empty() || decode::<MembersChange>(data).is_ok(),
            };
            let agrees = entry.index > log.committed
                || log.term(entry.index).is_ok_and(|ours| ours == entry.term)
                || entry.index <= self.raw.store().compacted.0;
            index = entry.index;
            term = entry.term;
            follows && readable && agrees && term <= message.term
        })
    }
}

/// Builds the response of a blank peer to an append: entries are useless without the membership that they
/// start from.
fn ask_for_snapshot(append: &RaftMessage) -> RaftMessage {
    RaftMessage {
        index: append.index,
        // Any snapshot will do.
        request_snapshot: 1,
        reject: true,
        ..RaftMessage::new(RaftKind::AppendResponse, append.to, append.from, append.term)
    }
}
