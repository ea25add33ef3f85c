//! Conversion between our records and those of the `raft` crate. Fields are copied one by one, so that no
//! byte from another peer reaches a protobuf parser.

#![allow(
    clippy::field_reassign_with_default,
    reason = "generated structs have hidden fields"
)]

use raft::eraftpb::{self, Entry, EntryType, MessageType};

use crate::ids::RaftId;
use crate::records::{HardState, Identity, LogEntry, Payload};
use crate::wire::{RaftKind, RaftMessage};

pub(super) fn entry(entry: LogEntry) -> Entry {
    let mut out = Entry::default();
    out.index = entry.index;
    out.term = entry.term;
    match entry.payload {
        Payload::Commands(data) => {
            out.set_entry_type(EntryType::EntryNormal);
            out.data = data.into();
        }
        Payload::Members(context) => {
            out.set_entry_type(EntryType::EntryConfChangeV2);
            out.context = context.into();
        }
    }
    out
}

pub(super) fn log_entry(entry: &Entry) -> LogEntry {
    let payload = match entry.get_entry_type() {
        EntryType::EntryNormal => Payload::Commands(entry.data.to_vec()),
        EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => Payload::Members(entry.context.to_vec()),
    };
    LogEntry {
        index: entry.index,
        term: entry.term,
        payload,
    }
}

pub(super) fn hard_state(identity: Identity, state: &eraftpb::HardState) -> HardState {
    let vote = (state.vote != raft::INVALID_ID).then_some(RaftId(state.vote));
    HardState {
        identity,
        term: state.term,
        vote,
        commit: state.commit,
    }
}

pub(super) fn raft_hard_state(state: &HardState) -> eraftpb::HardState {
    let mut out = eraftpb::HardState::default();
    out.term = state.term;
    out.vote = state.vote.map_or(raft::INVALID_ID, |id| id.0);
    out.commit = state.commit;
    out
}

/// Converts a message; `None` for kinds that are never sent.
pub(super) fn message(message: eraftpb::Message) -> Option<RaftMessage> {
    Some(RaftMessage {
        kind: kind(message.get_msg_type())?,
        from: RaftId(message.from),
        to: RaftId(message.to),
        term: message.term,
        log_term: message.log_term,
        index: message.index,
        entries: message.entries.iter().map(log_entry).collect(),
        commit: message.commit,
        commit_term: message.commit_term,
        request_snapshot: message.request_snapshot,
        reject: message.reject,
        reject_hint: message.reject_hint,
        context: message.context.to_vec(),
        priority: message.priority,
    })
}

pub(super) fn raft_message(message: RaftMessage) -> eraftpb::Message {
    let mut out = eraftpb::Message::default();
    out.set_msg_type(raft_kind(message.kind));
    out.from = message.from.0;
    out.to = message.to.0;
    out.term = message.term;
    out.log_term = message.log_term;
    out.index = message.index;
    let entries: Vec<Entry> = message.entries.into_iter().map(entry).collect();
    out.set_entries(entries.into());
    out.commit = message.commit;
    out.commit_term = message.commit_term;
    out.request_snapshot = message.request_snapshot;
    out.reject = message.reject;
    out.reject_hint = message.reject_hint;
    out.context = message.context.into();
    out.priority = message.priority;
    out
}

fn kind(kind: MessageType) -> Option<RaftKind> {
    Some(match kind {
        MessageType::MsgAppend => RaftKind::Append,
        MessageType::MsgAppendResponse => RaftKind::AppendResponse,
        MessageType::MsgRequestVote => RaftKind::RequestVote,
        MessageType::MsgRequestVoteResponse => RaftKind::RequestVoteResponse,
        MessageType::MsgSnapshot => RaftKind::Snapshot,
        MessageType::MsgHeartbeat => RaftKind::Heartbeat,
        MessageType::MsgHeartbeatResponse => RaftKind::HeartbeatResponse,
        MessageType::MsgTransferLeader => RaftKind::TransferLeader,
        MessageType::MsgTimeoutNow => RaftKind::TimeoutNow,
        MessageType::MsgReadIndex => RaftKind::ReadIndex,
        MessageType::MsgReadIndexResp => RaftKind::ReadIndexResp,
        MessageType::MsgRequestPreVote => RaftKind::RequestPreVote,
        MessageType::MsgRequestPreVoteResponse => RaftKind::RequestPreVoteResponse,
        MessageType::MsgHup
        | MessageType::MsgBeat
        | MessageType::MsgPropose
        | MessageType::MsgUnreachable
        | MessageType::MsgSnapStatus
        | MessageType::MsgCheckQuorum => return None,
    })
}

fn raft_kind(kind: RaftKind) -> MessageType {
    match kind {
        RaftKind::Append => MessageType::MsgAppend,
        RaftKind::AppendResponse => MessageType::MsgAppendResponse,
        RaftKind::RequestVote => MessageType::MsgRequestVote,
        RaftKind::RequestVoteResponse => MessageType::MsgRequestVoteResponse,
        RaftKind::Snapshot => MessageType::MsgSnapshot,
        RaftKind::Heartbeat => MessageType::MsgHeartbeat,
        RaftKind::HeartbeatResponse => MessageType::MsgHeartbeatResponse,
        RaftKind::TransferLeader => MessageType::MsgTransferLeader,
        RaftKind::TimeoutNow => MessageType::MsgTimeoutNow,
        RaftKind::ReadIndex => MessageType::MsgReadIndex,
        RaftKind::ReadIndexResp => MessageType::MsgReadIndexResp,
        RaftKind::RequestPreVote => MessageType::MsgRequestPreVote,
        RaftKind::RequestPreVoteResponse => MessageType::MsgRequestPreVoteResponse,
    }
}
