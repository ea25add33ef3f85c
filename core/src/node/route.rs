//! Routing of submachine outputs to other submachines and effects.

use super::{MESSAGE_PROPOSALS, Node, Step};
use crate::codec::encoded_len;
use crate::command::{Command, Outcome, Proposal};
use crate::decide::{Decision, PeerPool, decide};
use crate::draft::Draft;
use crate::effect::{Effect, Refusal, Reply, StoreOp};
use crate::event::Request;
use crate::ids::{PeerId, Term, Ticket};
use crate::members::{MembersChange, Voting};
use crate::metric::Metric;
use crate::pin::{PinOptions, Replicas};
use crate::pinset::Change;
use crate::planted::planted;
use crate::records::Identity;
use crate::snapshot::Manifest;
use crate::time::Now;
use crate::view::PinsetView;
use crate::wire::{Envelope, Message};
use crate::{monitor, raft, requests, tracker};

/// Maximum size of the encoded number of proposals in a message, in bytes: a variable-length integer of 14
/// bits, of which [`MESSAGE_PROPOSALS`] needs 8.
const LENGTH_MAX: usize = 2;

impl Node {
    pub(super) fn route_raft<V: PinsetView>(&mut self, step: &mut Step<'_, V>) {
        for output in std::mem::take(&mut step.raft) {
            match output {
                raft::Output::Committed {
                    index,
                    term,
                    proposals,
                } => {
                    let commands: Vec<Proposal> = proposals;
                    self.admit_committed(&mut step.draft, &commands);
                    let changes = self.pinset.apply(&mut step.draft, index, term, commands);
                    self.route_changes(step, index, changes);
                }
                raft::Output::Discard { snapshot } => step.effects.push(Effect::DiscardSnapshot { snapshot }),
                raft::Output::LeaderChanged { leader } => {
                    self.admitting.clear();
                    if leader.is_some() {
                        self.pending.clear();
                        self.requests.leader_changed(&mut step.requests);
                    }
                    if leader == Some(self.raft.id()) {
                        self.announce_metrics(step.now);
                    }
                }
                raft::Output::MembersChanged {
                    index,
                    term,
                    change,
                    voting,
                } => self.members_changed(step, (index, term), &change, voting),
                raft::Output::ReadReady { read, index } => self.requests.read_ready(read, index),
                raft::Output::Restored { manifest, log } => self.restored(step, &manifest, log),
                raft::Output::Send { to, message } => {
                    let member = self.raft.members().peers.get(&to);
                    let addressee = member.and_then(|member| member.incarnation);
                    if let Some(to) = self.raft.peer(to) {
                        let envelope = Envelope {
                            addressee,
                            ..self.envelope(Message::Raft(message))
                        };
                        step.effects.push(Effect::Send { to, envelope });
                    }
                }
                raft::Output::SendSnapshot { to, message } => match self.raft.peer(to) {
                    Some(to) => step.effects.push(Effect::SendSnapshot { to, message }),
                    None => self.counters.invalid += 1,
                },
                raft::Output::Store { op, sync } => {
                    step.draft.sync |= sync;
                    step.draft.ops.push(op);
                }
            }
        }
        self.requests
            .answer_reads(self.pinset.applied().index, &mut step.requests);
        self.requests
            .answer_membership_requests(self.raft.members(), &mut step.requests);
    }

    fn members_changed<V: PinsetView>(
        &mut self,
        step: &mut Step<'_, V>,
        (index, term): (u64, Term),
        change: &MembersChange,
        voting: Option<Voting>,
    ) {
        let changes = self.pinset.apply(&mut step.draft, index, term, Vec::new());
        assert!(changes.is_empty(), "no proposals, no changes");
        if self.raft.members_changed(change, voting) {
            self.retiring = Some(Identity::Removed(self.raft.id()));
        }
        let members = self.raft.members().clone();
        self.monitor
            .members_changed(&members.peer_ids().cloned().collect());
        step.draft.ops.push(StoreOp::SetMembers { members });
        step.draft.sync = true;
    }

    /// Updates the submachines after a snapshot has replaced the pinset.
    fn restored<V: PinsetView>(&mut self, step: &mut Step<'_, V>, manifest: &Manifest, log: Vec<Proposal>) {
        let before = self.pinset.applied().index;
        self.pinset.restore(manifest);
        self.drainer.unload();
        if !planted!(RestoreKeepsMetrics) {
            self.monitor
                .members_changed(&manifest.members.peer_ids().cloned().collect());
        }
        self.tracker.track_unapplied_pins(step.now, &mut step.draft, log);
        self.tracker.reconcile(&mut step.draft, before);
        let pinset = &self.pinset;
        let origin = self.raft.id();
        self.requests
            .restored(origin, |id| pinset.has_applied(id), &mut step.requests);
    }

    /// Restarts Raft under another identity once no write is in flight. Returns whether it did.
    pub(super) fn retire<V: PinsetView>(&mut self, step: &mut Step<'_, V>) -> bool {
        let Some(identity) = self.retiring else {
            return false;
        };
        if self.raft.identity() == identity {
            // A removed peer has applied its own removal again.
            self.retiring = None;
            return false;
        }
        if !self.raft.retire(identity, &mut step.raft) {
            return false;
        }
        self.retiring = None;
        self.pending.clear();
        self.requests.removed(&self.config.peer, &mut step.requests);
        true
    }

    fn admit_committed<V: PinsetView>(&mut self, draft: &mut Draft<'_, V>, proposals: &[Proposal]) {
        for proposal in proposals {
            if let Command::Admit { raft_id, incarnation } = proposal.command
                && let Some(members) = self.raft.admit(raft_id, incarnation)
            {
                draft.ops.push(StoreOp::SetMembers { members });
            }
        }
    }

    fn route_changes<V: PinsetView>(&mut self, step: &mut Step<'_, V>, index: u64, changes: Vec<Change>) {
        let origin = self.raft.id();
        for Change {
            id,
            mut outcome,
            touched,
            removed,
        } in changes
        {
            if let Outcome::Recorded(wish) = &outcome {
                match self.raft.record_wish(wish) {
                    Ok(()) => step.draft.ops.push(StoreOp::SetMembers {
                        members: self.raft.members().clone(),
                    }),
                    Err(why) => outcome = Outcome::Conflict(why),
                }
            }
            match &outcome {
                Outcome::DrainEnded(_) | Outcome::DrainStarted(_) => {
                    self.drainer.load(step.now, step.draft.policy().drains);
                }
                Outcome::Rebalanced(state) => self.rebalancer.load(step.now, state.clone()),
                Outcome::Admitted
                | Outcome::Conflict(_)
                | Outcome::CredentialCreated(_)
                | Outcome::CredentialRefused(_)
                | Outcome::CredentialRevoked(_)
                | Outcome::DrainRefused(_)
                | Outcome::NotFound
                | Outcome::Pinned(_)
                | Outcome::RebalanceRefused(_)
                | Outcome::Recorded(_)
                | Outcome::Stale
                | Outcome::Unpinned(_) => {}
            }
            self.requests.applied(origin, id, &outcome, &mut step.requests);
            if let Some(cid) = touched {
                // A peer moves only its own copies; the failover replaces those of others.
                let mover = self.raft.members().peer(id.origin);
                let is_move = mover.is_some_and(|peer| removed.contains(peer));
                let is_limited = self.rebalancer.state().settings.limits_bytes();
                self.tracker.note_move(&cid, is_move && is_limited);
                self.tracker
                    .touch(step.now, &mut step.draft, &cid, index, &mut step.tracker);
            }
        }
    }

    pub(super) fn route_requests<V: PinsetView>(&mut self, step: &mut Step<'_, V>) {
        for output in std::mem::take(&mut step.requests) {
            match output {
                requests::Output::Decide { ticket } => self.decide(step, ticket),
                requests::Output::Propose { proposal } => self.propose(step, proposal),
                requests::Output::Read { read } if planted!(LocalReads) => self.requests.read_ready(read, 0),
                requests::Output::Read { read } => self.raft.read(read),
                requests::Output::Reply { ticket, reply } => {
                    step.effects.push(Effect::Reply { ticket, reply });
                }
            }
        }
    }

    fn decide<V: PinsetView>(&mut self, step: &mut Step<'_, V>, ticket: Ticket) {
        let Some(request) = self.requests.undecided(ticket) else {
            return;
        };
        let candidates = if needs_candidates(request) {
            self.pool(step.now)
        } else {
            PeerPool::default()
        };
        match decide(step.now.wall, &candidates, |cid| step.draft.pin(cid), request) {
            Decision::Answer(Err(refusal @ Refusal::NotEnoughPeers { .. }))
                if self
                    .monitor
                    .awaits_first_metrics(step.now, self.raft.members().peer_ids()) =>
            {
                self.requests.wait(ticket, refusal);
            }
            Decision::Answer(reply) => self.requests.answer(ticket, reply, &mut step.requests),
            Decision::Propose(command) => {
                if let Err(refusal) = self.config.limits.check(&command) {
                    let refusal = Err(Refusal::TooLarge(refusal));
                    return self.requests.answer(ticket, refusal, &mut step.requests);
                }
                if command.min_version() > self.raft.members().version {
                    return self.postpone_unreadable(step, ticket, command.min_version());
                }
                let early = if let Command::Pin { pin, .. } = &command
                    && planted!(ReplyOnPropose)
                {
                    Some(pin.clone())
                } else {
                    None
                };
                self.requests
                    .decided(self.raft.id(), ticket, command, &mut step.requests);
                if let Some(pin) = early {
                    self.requests
                        .answer(ticket, Ok(Reply::Pinned(pin)), &mut step.requests);
                }
            }
        }
    }

    /// Sends a proposal to the leader. Without a leader it waits to be proposed again.
    pub(super) fn propose<V: PinsetView>(&mut self, step: &mut Step<'_, V>, proposal: Proposal) {
        let Some(leader) = self.raft.leader() else { return };
        self.requests.forwarded(proposal.id);
        if leader == self.raft.id() {
            self.pending.push(proposal);
        } else if let Some(to) = self.raft.peer(leader) {
            let bytes = encoded_len(&proposal);
            if let Some(Effect::Send { to: last, envelope }) = step.effects.last_mut()
                && let Message::Propose(proposals) = &mut envelope.message
                && *last == to
                && proposals.len() < MESSAGE_PROPOSALS
                && (LENGTH_MAX + step.forwarded_bytes + bytes <= self.config.limits.message_bytes
                    || planted!(EntryBytesIgnored))
            {
                proposals.push(proposal);
                step.forwarded_bytes += bytes;
                return;
            }
            let envelope = self.envelope(Message::Propose(vec![proposal]));
            step.effects.push(Effect::Send { to, envelope });
            step.forwarded_bytes = bytes;
        }
    }

    pub(super) fn route_tracker<V: PinsetView>(&mut self, step: &mut Step<'_, V>) {
        for output in std::mem::take(&mut step.tracker) {
            step.effects.push(match output {
                tracker::Output::Outgrown { cid } => {
                    self.outgrown(step, &cid);
                    continue;
                }
                tracker::Output::Ask { to, copies } => Effect::Send {
                    to,
                    envelope: self.envelope(Message::AskCopies(copies)),
                },
                tracker::Output::Cancel { op } => Effect::CancelIpfs { op },
                tracker::Output::Compare { op, cid } => Effect::CompareIpfs { op, cid },
                tracker::Output::Start { op, action } => Effect::StartIpfs { op, action },
                tracker::Output::Synced { ticket, outcome } => Effect::Reply {
                    ticket,
                    reply: outcome.map(Reply::Synced),
                },
            });
        }
    }

    pub(super) fn route_monitor<V: PinsetView>(&mut self, step: &mut Step<'_, V>) {
        for output in std::mem::take(&mut step.monitor) {
            match output {
                monitor::Output::Measure => step.effects.push(Effect::Measure),
                monitor::Output::SendMetrics { to, metrics } => self.send_metrics(step, to, metrics),
            }
        }
    }

    fn send_metrics<V: PinsetView>(&mut self, step: &mut Step<'_, V>, to: PeerId, metrics: Vec<Metric>) {
        let envelope = self.envelope(Message::Metrics(metrics));
        step.effects.push(Effect::Send { to, envelope });
    }

    fn announce_metrics(&mut self, now: Now) {
        let others: Vec<PeerId> = self.raft.members().peer_ids().cloned().collect();
        for peer in others {
            self.monitor.unreachable(now, peer);
        }
    }
}

fn needs_candidates(request: &Request) -> bool {
    let options: &PinOptions = match request {
        Request::Allocate { options, .. } | Request::Pin { options, .. } => options,
        // Imports do not use the pin that they update.
        Request::Import { pin, .. } => return pin.options.replicas != Replicas::Everywhere,
        Request::AddPeer { .. }
        | Request::Barrier
        | Request::CreateCredential { .. }
        | Request::Drain { .. }
        | Request::EndDrain { .. }
        | Request::Rebalance { .. }
        | Request::Recover { .. }
        | Request::RecoverAll
        | Request::RemovePeer { .. }
        | Request::RevokeCredential { .. }
        | Request::Sync { .. }
        | Request::Unpin { .. } => {
            return false;
        }
    };
    options.replicas != Replicas::Everywhere || options.pin_update.is_some()
}
