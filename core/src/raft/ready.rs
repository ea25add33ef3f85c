//! What Raft has ready: writes, messages that may leave now or only when a write is durable, and entries that
//! are agreed on.

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
        if let Some((snapshot, _)) = self.offered.take() {
            outputs.push(Output::Discard { snapshot });
        }
    }

    fn take_ready(&mut self, batch: BatchId, outputs: &mut Vec<Output>) {
        let mut ready = self.raw.ready();
        let leader = match ready.ss() {
            Some(state) => (state.leader_id != raft::INVALID_ID).then_some(RaftId(state.leader_id)),
            None => self.leader,
        };
        let mut messages = ready.take_messages();
        let mut held = ready.take_persisted_messages();
        let mut sync = ready.must_sync() && !planted!(VoteUnsynced);
        if ready.snapshot().get_metadata().index != 0 {
            let (snapshot, manifest) = self.offered.take().expect("raft only takes what was offered");
            assert!(
                manifest.applied.index == ready.snapshot().get_metadata().index,
                "takes what was offered"
            );
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
            sync = true;
        }
        if !ready.entries().is_empty() {
            self.raw.mut_store().append(ready.entries());
            let entries = ready.entries().iter().map(convert::log_entry).collect();
            outputs.push(Output::Store {
                op: StoreOp::Append { entries },
                sync: true,
            });
            sync = true;
        }
        let regroups = |entry: &Entry| entry.get_entry_type() != EntryType::EntryNormal;
        if ready.committed_entries().iter().any(regroups) {
            // Who hears that it was removed votes no more. A peer that forgets the change in a power cut
            // would still need that vote: nobody hears of the change before the disk has it.
            self.regrouping = Some(batch);
            sync = true;
        }
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
        if self.term.1.is_some() || self.regrouping.is_some() {
            held.splice(0..0, messages.drain(..));
        }
        let reads = ready.take_read_states();
        let committed = ready.take_committed_entries();
        let number = ready.number();
        self.raw.advance_append_async(ready);
        self.commit(committed, outputs);
        self.rearm();
        // What needs no write of its own waits for the writes before it.
        let waits_for = if planted!(AckBeforeFsync) {
            None
        } else if sync {
            Some(batch)
        } else {
            self.held.back().map(|held| held.batch)
        };
        if let Some(batch) = waits_for {
            self.held.push_back(Held {
                batch,
                ready: number,
                messages: std::mem::take(&mut held),
            });
        } else {
            self.raw.on_persist_ready(number);
            self.rearm();
        }
        self.send(messages, outputs);
        self.send(held, outputs);
        if leader != self.leader {
            self.leader = leader;
            outputs.push(Output::LeaderChanged { leader });
        }
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
