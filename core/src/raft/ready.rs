//! What Raft has ready: writes, messages that may leave now or only when a write is durable, and entries that
//! are agreed on.

use raft::{ReadState, Ready};

use super::*;

impl Raft {
    /// Every batch up to this one is durable.
    pub(crate) fn persisted(&mut self, batch: BatchId, outputs: &mut Vec<Output>) {
        let installed = self.installing.take_if(|installing| *installing <= batch);
        self.term.1.take_if(|term| *term <= batch);
        self.regrouping.take_if(|change| *change <= batch);
        while self.held.front().is_some_and(|held| held.batch <= batch) {
            let held = self.held.pop_front().expect("there is a first one");
            self.raw.on_persist_ready(held.ready);
            self.rearm();
            self.send(held.messages, outputs);
        }
        if installed.is_some() {
            // Raft does not conclude from an installed snapshot that its entries are applied.
            self.raw.advance_apply_to(self.raw.store().applied.index);
        }
    }

    /// Whether a change of the membership that was agreed on is not durable here yet.
    pub(crate) fn is_regrouping(&self) -> bool {
        self.regrouping.is_some()
    }

    /// Takes all that Raft has ready. What it wants written goes into `batch`.
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

    /// Takes one thing that Raft has ready. What the shell is told comes in the order in which it happened:
    /// writes, what is agreed on, messages, who leads, reads.
    fn take_ready(&mut self, batch: BatchId, outputs: &mut Vec<Output>) {
        let mut ready = self.raw.ready();
        let leader = match ready.ss() {
            Some(state) => (state.leader_id != raft::INVALID_ID).then_some(RaftId(state.leader_id)),
            None => self.leader,
        };
        let mut messages = ready.take_messages();
        let mut held = ready.take_persisted_messages();
        let sync = self.write(&ready, batch, outputs);
        if self.term.1.is_some() || self.regrouping.is_some() {
            held.splice(0..0, messages.drain(..));
        }
        let reads = ready.take_read_states();
        let committed = ready.take_committed_entries();
        let number = ready.number();
        self.raw.advance_append_async(ready);
        self.commit(committed, outputs);
        self.rearm();
        let free = self.hold(number, sync.then_some(batch), held);
        self.send(messages, outputs);
        self.send(free, outputs);
        if leader != self.leader {
            self.leader = leader;
            outputs.push(Output::LeaderChanged { leader });
        }
        self.confirm(reads, outputs);
    }

    /// Hands out what Raft wants written, in the order in which it must be. Says whether anything waits for
    /// its being durable.
    fn write(&mut self, ready: &Ready, batch: BatchId, outputs: &mut Vec<Output>) -> bool {
        let mut sync = ready.must_sync() && !planted!(VoteUnsynced);
        sync |= self.install(ready, batch, outputs);
        sync |= self.append(ready, outputs);
        sync |= self.regroup(ready, batch);
        if let Some(hard_state) = ready.hs() {
            // A peer that votes alone comes to lead without asking anybody: not even a learner may hear of
            // the new term before the disk has it. (Raft lets a leader's messages go at once.)
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

    /// Begins from the snapshot that Raft took, if it took the one that it was offered. Whether it did.
    fn install(&mut self, ready: &Ready, batch: BatchId, outputs: &mut Vec<Output>) -> bool {
        let taken = ready.snapshot().get_metadata().index;
        if taken == 0 {
            return false;
        }
        let (snapshot, manifest) = self.offered.take().expect("raft only takes what was offered");
        assert!(manifest.applied.index == taken, "takes what was offered");
        let log = self.inherited();
        self.raw
            .mut_store()
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

    /// Lengthens the log, or replaces its end. Whether there was anything to.
    fn append(&mut self, ready: &Ready, outputs: &mut Vec<Output>) -> bool {
        if ready.entries().is_empty() {
            return false;
        }
        self.raw.mut_store().append(ready.entries());
        let entries = ready.entries().iter().map(convert::log_entry).collect();
        let op = StoreOp::Append { entries };
        outputs.push(Output::Store { op, sync: true });
        true
    }

    /// Notes a change of the membership that has been agreed on. Whether there was one.
    fn regroup(&mut self, ready: &Ready, batch: BatchId) -> bool {
        let changes = |entry: &Entry| entry.get_entry_type() != EntryType::EntryNormal;
        let regroups = ready.committed_entries().iter().any(changes);
        if regroups {
            // Who hears that it was removed votes no more. A peer that forgets the change in a power cut
            // would still need that vote: nobody hears of the change before the disk has it.
            self.regrouping = Some(batch);
        }
        regroups
    }

    /// Keeps messages back until a write is durable. Those that wait for none are returned.
    fn hold(&mut self, ready: u64, written_by: Option<BatchId>, messages: Vec<Message>) -> Vec<Message> {
        // What needs no write of its own waits for the writes before it.
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
                self.raw.on_persist_ready(ready);
                self.rearm();
                messages
            }
        }
    }

    /// Reads that a majority has confirmed may be served at their position.
    fn confirm(&self, reads: Vec<ReadState>, outputs: &mut Vec<Output>) {
        for read in reads {
            let context = decode::<(ReadId, (u64, Incarnation))>(&read.request_ctx);
            if let Ok((id, process)) = context
                && process == self.process
            {
                outputs.push(Output::ReadReady {
                    read: id,
                    index: read.index,
                });
            }
        }
    }

    /// What an earlier process left in the log, and this one has not applied.
    fn inherited(&self) -> Vec<Proposal> {
        let store = self.raw.store();
        let left = store.after(store.applied.index).map(convert::log_entry);
        let left = left.take_while(|entry| entry.index <= self.inherited);
        let commands = left.filter_map(|entry| match entry.payload {
            Payload::Commands(data) if !data.is_empty() => {
                Some(decode::<Vec<Proposal>>(&data).expect("an entry of this peer's log can be read"))
            }
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
                    // The leader encoded them; one that cannot be read would part the peers' states.
                    let proposals = decode(&data).expect("a committed entry can be read");
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
        self.raw.advance_apply_to(last);
    }

    /// Applies a change of the membership to Raft; an empty one completes the change that is under way. The
    /// record follows in the order of the log: [`Raft::members_changed`].
    fn change_members(&mut self, data: &[u8]) -> (MembersChange, Option<Voting>) {
        let change = if data.is_empty() {
            MembersChange { steps: Vec::new() }
        } else {
            decode(data).expect("a committed entry can be read")
        };
        let ids = |ids: &[u64]| ids.iter().copied().map(RaftId).collect();
        let state = self.raw.apply_conf_change(&conf_change(&change)).ok();
        if self.raw.raft.state == StateRole::Leader && !self.raw.raft.promotable() {
            // Raft lets a leader go on whose own vote is gone, and panics when it next counts what is
            // durable at itself. An earlier leader proposed this: none proposes it of itself.
            let term = self.raw.raft.term;
            self.raw.raft.become_follower(term, raft::INVALID_ID);
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
