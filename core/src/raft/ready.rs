//! Raft's `Ready` states: writes, messages to send now or once a write is durable, and committed entries.

use raft::eraftpb::{Entry, EntryType, Message, MessageType};
use raft::{INVALID_ID, RawNode, ReadState, Ready, StateRole};

use super::{Held, Output, Raft, conf_change, convert};
use crate::codec::{decode, decode_up_to};
use crate::command::Proposal;
use crate::effect::StoreOp;
use crate::ids::{BatchId, Incarnation, RaftId, ReadId};
use crate::members::{MembersChange, Voting};
use crate::planted::planted;
use crate::records::Payload;

impl Raft {
    /// Handles the durability of all batches up to `batch`: releases the messages that waited for them.
    pub(crate) fn persisted(&mut self, batch: BatchId, outputs: &mut Vec<Output>) {
        let installed = self.installing.take_if(|installing| *installing <= batch);
        self.term.1.take_if(|term| *term <= batch);
        self.unsynced_conf_change.take_if(|change| *change <= batch);
        while self.held.front().is_some_and(|held| held.batch <= batch) {
            let held = self.held.pop_front().expect("not empty");
            self.raw.call(|raw| raw.on_persist_ready(held.ready));
            self.send(held.messages, outputs);
        }
        if installed.is_some() {
            // Raft must be notified that the entries of an installed snapshot are applied.
            let applied = self.raw.store().applied.index;
            self.raw.call(|raw| raw.advance_apply_to(applied));
        }
    }

    /// Returns whether a committed membership change is not durable yet.
    pub(crate) fn has_unsynced_conf_change(&self) -> bool {
        self.unsynced_conf_change.is_some()
    }

    /// Handles all of Raft's `Ready` states. Their writes become part of `batch`.
    pub(crate) fn drain(&mut self, batch: BatchId, outputs: &mut Vec<Output>) {
        while self.installing.is_none() && self.raw.has_ready() {
            self.take_ready(batch, outputs);
        }
        if let Some((snapshot, _)) = self.offered.take()
            && !planted!(SnapshotKept)
        {
            outputs.push(Output::Discard { snapshot });
        }
    }

    /// Handles one `Ready`. Its outputs are ordered: writes, committed entries, messages, leader, reads.
    fn take_ready(&mut self, batch: BatchId, outputs: &mut Vec<Output>) {
        let mut ready = self.raw.call(RawNode::ready);
        let leader = match ready.ss() {
            Some(state) => (state.leader_id != INVALID_ID).then_some(RaftId(state.leader_id)),
            None => self.leader,
        };
        let mut messages = ready.take_messages();
        let mut held = ready.take_persisted_messages();
        let sync = self.write(&ready, batch, outputs);
        if self.term.1.is_some() || self.unsynced_conf_change.is_some() {
            held.splice(0..0, messages.drain(..));
        }
        let reads = ready.take_read_states();
        let committed = ready.take_committed_entries();
        let number = ready.number();
        self.raw.call(|raw| raw.advance_append_async(ready));
        self.commit(committed, outputs);
        let free = self.hold(number, sync.then_some(batch), held);
        self.send(messages, outputs);
        self.send(free, outputs);
        if leader != self.leader {
            self.leader = leader;
            outputs.push(Output::LeaderChanged { leader });
        }
        self.confirm(reads, outputs);
    }

    /// Emits the writes of a `Ready`, in the required order. Returns whether messages depend on them.
    fn write(&mut self, ready: &Ready, batch: BatchId, outputs: &mut Vec<Output>) -> bool {
        let mut sync = ready.must_sync() && !planted!(VoteUnsynced);
        sync |= self.install(ready, batch, outputs);
        sync |= self.append(ready, outputs);
        sync |= self.note_conf_change(ready, batch);
        if let Some(hard_state) = ready.hs() {
            // A sole voter becomes leader without asking anyone. Not even a learner may see the new term
            // before it is durable, although Raft lets a leader's messages leave at once.
            if hard_state.term != self.term.0 {
                self.term = (hard_state.term, Some(batch));
            }
            let op = StoreOp::SetHardState {
                hard_state: convert::hard_state(self.identity, hard_state),
            };
            outputs.push(Output::Store { op, sync });
        }
        sync
    }

    /// Starts to install the snapshot of a `Ready`. Returns whether there is one.
    fn install(&mut self, ready: &Ready, batch: BatchId, outputs: &mut Vec<Output>) -> bool {
        let taken = ready.snapshot().get_metadata().index;
        if taken == 0 {
            return false;
        }
        let (snapshot, manifest) = self
            .offered
            .take()
            .expect("raft accepts only the offered snapshot");
        assert!(
            manifest.applied.index == taken,
            "raft accepts the offered snapshot"
        );
        let log = self.inherited();
        self.raw
            .log_mut()
            .reset(manifest.applied, manifest.members.clone());
        let op = StoreOp::InstallSnapshot {
            snapshot,
            manifest: manifest.clone(),
        };
        outputs.push(Output::Store { op, sync: true });
        outputs.push(Output::Restored { manifest, log });
        self.installing = Some(batch);
        true
    }

    /// Appends the entries of a `Ready` to the log. Returns whether there are any.
    fn append(&mut self, ready: &Ready, outputs: &mut Vec<Output>) -> bool {
        if ready.entries().is_empty() {
            return false;
        }
        self.raw.log_mut().append(ready.entries());
        let entries = ready.entries().iter().map(convert::log_entry).collect();
        let op = StoreOp::Append { entries };
        outputs.push(Output::Store { op, sync: true });
        true
    }

    /// Notes the committed membership changes of a `Ready`. Returns whether there are any.
    fn note_conf_change(&mut self, ready: &Ready, batch: BatchId) -> bool {
        let changes = |entry: &Entry| entry.get_entry_type() != EntryType::EntryNormal;
        let changed = ready.committed_entries().iter().any(changes);
        if changed {
            // A peer that learns of its removal stops voting. If this peer lost the change in a power cut, it
            // would still need that vote: so no peer may learn of the change before it is durable.
            self.unsynced_conf_change = Some(batch);
        }
        changed
    }

    /// Holds messages back until a write is durable. Returns those that need not wait.
    fn hold(&mut self, ready: u64, written_by: Option<BatchId>, messages: Vec<Message>) -> Vec<Message> {
        // A `Ready` without writes waits for earlier writes.
        let earlier = self.held.back().map(|held| held.batch);
        match written_by.or(earlier) {
            Some(batch) if !planted!(AckBeforeFsync) => {
                self.held.push_back(Held {
                    batch,
                    ready,
                    messages,
                });
                Vec::new()
            }
            Some(_) | None => {
                self.raw.call(|raw| raw.on_persist_ready(ready));
                messages
            }
        }
    }

    /// Emits the reads that a majority has confirmed.
    fn confirm(&self, reads: Vec<ReadState>, outputs: &mut Vec<Output>) {
        for read in reads {
            let context = decode::<(ReadId, (u64, Incarnation))>(&read.request_ctx);
            if let Ok((id, process)) = context
                && (process == self.process || planted!(OldReadsServed))
            {
                outputs.push(Output::ReadReady {
                    read: id,
                    index: read.index,
                });
            }
        }
    }

    /// Returns the proposals that an earlier process left in the log, and that are not applied.
    fn inherited(&self) -> Vec<Proposal> {
        let store = self.raw.store();
        let left = store.after(store.applied.index).map(convert::log_entry);
        let left = left.take_while(|entry| entry.index <= self.inherited);
        let commands = left.filter_map(|entry| match entry.payload {
            Payload::Commands(data) if !data.is_empty() => Some(
                decode_up_to::<Vec<Proposal>>(self.version, &data).expect("own log entries are decodable"),
            ),
            Payload::Commands(_) | Payload::Members(_) => None,
        });
        commands.flatten().collect()
    }

    fn commit(&mut self, entries: Vec<Entry>, outputs: &mut Vec<Output>) {
        let Some(last) = entries.last().map(|entry| entry.index) else {
            return;
        };
        for entry in entries {
            let (index, term) = (entry.index, entry.term);
            match convert::log_entry(&entry).payload {
                Payload::Commands(data) if data.is_empty() => {
                    outputs.push(Output::Committed {
                        index,
                        term,
                        proposals: Vec::new(),
                    });
                }
                Payload::Commands(data) => {
                    // Encoded by the leader. Skipping one that cannot be decoded would make the peers' states
                    // diverge.
                    let proposals =
                        decode_up_to(self.version, &data).expect("committed entries are decodable");
                    outputs.push(Output::Committed {
                        index,
                        term,
                        proposals,
                    });
                }
                Payload::Members(data) => {
                    let (change, voting) = self.change_members(&data);
                    outputs.push(Output::MembersChanged {
                        index,
                        term,
                        change,
                        voting,
                    });
                }
            }
        }
        self.raw.call(|raw| raw.advance_apply_to(last));
    }

    /// Applies a committed change to Raft; an empty one completes a joint change. [`Raft::members_changed`]
    /// updates the record later, in log order.
    fn change_members(&mut self, data: &[u8]) -> (MembersChange, Option<Voting>) {
        let change = if data.is_empty() {
            MembersChange { steps: Vec::new() }
        } else {
            decode(data).expect("committed entries are decodable")
        };
        let ids = |ids: &[u64]| ids.iter().copied().map(RaftId).collect();
        let conf_change = conf_change(&change);
        let state = self.raw.call(|raw| raw.apply_conf_change(&conf_change).ok());
        if self.raw.raft.state == StateRole::Leader && !self.raw.raft.promotable() {
            // Raft keeps a leader that is not a voter any more, and panics when it next counts its own log.
            // Only earlier releases propose such a change.
            let term = self.raw.raft.term;
            self.raw.call(|raw| raw.raft.become_follower(term, INVALID_ID));
        }
        let voting = state.map(|state| Voting {
            voters: ids(&state.voters),
            outgoing: ids(&state.voters_outgoing),
            learners: ids(&state.learners),
            learners_next: ids(&state.learners_next),
            auto_leave: state.auto_leave,
        });
        (change, voting)
    }

    fn send(&mut self, messages: Vec<Message>, outputs: &mut Vec<Output>) {
        for message in messages {
            let is_snapshot = message.get_msg_type() == MessageType::MsgSnapshot;
            if let Some(message) = convert::message(message) {
                let to = message.to;
                outputs.push(if is_snapshot {
                    Output::SendSnapshot { to, message }
                } else {
                    Output::Send { to, message }
                });
            }
        }
    }
}
