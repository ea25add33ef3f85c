//! Messages from other peers: which are accepted, and which senders get a notice about the membership.

use super::{Node, Step};
use crate::command::Command;
use crate::effect::Effect;
use crate::ids::{ClusterId, Incarnation, Index, PeerId, RaftId};
use crate::membership::Membership;
use crate::planted::planted;
use crate::raft;
use crate::records::Identity;
use crate::view::PinsetView;
use crate::wire::{COPIES_MAX, CopyOf, Envelope, Message, RaftKind, RaftMessage};

impl Node {
    /// Returns this peer's role in its cluster.
    pub(super) fn membership(&self) -> Membership {
        let members = self.raft.members();
        match self.raft.identity() {
            Identity::Unknown => Membership::Joining,
            Identity::Removed(_) => Membership::Removed,
            Identity::Founding | Identity::Known(_) => {
                let id = self.raft.id();
                if members.voters.contains(&id) {
                    Membership::Voter
                } else if members.peers.contains_key(&id) {
                    Membership::Learner
                } else {
                    Membership::Joining
                }
            }
        }
    }

    pub(super) fn received<V: PinsetView>(
        &mut self,
        step: &mut Step<'_, V>,
        from: PeerId,
        envelope: Envelope,
    ) {
        let cluster = self.raft.members().cluster;
        let is_newcomer = envelope.cluster == ClusterId::UNKNOWN && envelope.message == Message::Hello;
        let is_other = envelope.cluster != cluster && !planted!(OtherClustersHeard);
        if is_other && cluster != ClusterId::UNKNOWN && !is_newcomer {
            self.counters.from_other_clusters += 1;
            return;
        }
        let members = self.raft.members();
        let id = members.raft_id(&from);
        let known = id.and_then(|id| members.peers[&id].incarnation);
        if known.is_some_and(|known| known != envelope.incarnation) && !planted!(FolderUnchecked) {
            // The sender may have a new Raft id in a later membership, which this peer learns only from it.
            let later = |message: &RaftMessage| message.from >= members.next_raft_id;
            if matches!(&envelope.message, Message::Raft(message) if later(message)) {
                self.handle_message(step, from, None, envelope);
                return;
            }
            // The member lost its data, and with it the promises made under its Raft id.
            self.counters.from_other_incarnations += 1;
            self.planner
                .record_incarnation(step.now, &from, envelope.incarnation);
            return;
        }
        match id {
            Some(id) => {
                self.planner.record_message(step.now, id, &from);
                self.record_version(&from, envelope.version);
                if known.is_none() {
                    self.admit(id, envelope.incarnation);
                }
            }
            None => self.notify_non_member(step, &from, &envelope.message),
        }
        self.handle_message(step, from, id, envelope);
    }

    fn handle_message<V: PinsetView>(
        &mut self,
        step: &mut Step<'_, V>,
        from: PeerId,
        id: Option<RaftId>,
        envelope: Envelope,
    ) {
        match envelope.message {
            // Only announces the sender, which was handled above.
            Message::Hello => {}
            Message::Metrics(metrics) if id.is_some() || planted!(StrangersMeasured) => {
                self.monitor.received(step.now, from, metrics);
                self.requests.metrics_changed(&mut step.requests);
            }
            Message::Propose(proposals) if id.is_some() => {
                for proposal in proposals {
                    // Peers of earlier releases do not enforce these limits.
                    if Some(proposal.id.origin) == id && self.config.limits.allows(&proposal) {
                        self.pending.push(proposal);
                    }
                }
            }
            Message::NotMember { as_of } if id.is_some() => self.on_not_member(as_of),
            Message::AskCopies(copies) if id.is_some() => self.confirm_copies(step, from, copies),
            Message::HasCopies(copies) if id.is_some() => {
                let index = self.pinset.applied().index;
                self.tracker.confirmed(&mut step.draft, &from, copies, index);
            }
            Message::AskCopies(_)
            | Message::HasCopies(_)
            | Message::Metrics(_)
            | Message::NotMember { .. }
            | Message::Propose(_) => {
                self.counters.from_non_members += 1;
            }
            Message::Raft(message) => {
                if !self.is_addressed(step, &from, envelope.cluster, envelope.addressee, &message) {
                    return;
                }
                match self.raft.receive(&from, message, &mut step.raft) {
                    Ok(()) | Err(raft::Dropped::TooSoon) => {}
                    Err(raft::Dropped::NotAddressed | raft::Dropped::Invalid) => self.counters.invalid += 1,
                }
            }
        }
    }

    /// Confirms the copies of another peer's surplus that this peer holds.
    fn confirm_copies<V: PinsetView>(&self, step: &mut Step<'_, V>, to: PeerId, copies: Vec<CopyOf>) {
        let copies = copies.into_iter().take(COPIES_MAX);
        let held: Vec<CopyOf> = copies
            .filter(|copy| self.tracker.holds(&step.draft, copy))
            .collect();
        if !held.is_empty() {
            let envelope = self.envelope(Message::HasCopies(held));
            step.effects.push(Effect::Send { to, envelope });
        }
    }

    /// Returns whether a Raft message is addressed to this incarnation. Adopts a new Raft id that the sender
    /// assigns to this incarnation, and retires one that the sender assigns to another.
    fn is_addressed<V: PinsetView>(
        &mut self,
        step: &mut Step<'_, V>,
        from: &PeerId,
        cluster: ClusterId,
        addressee: Option<Incarnation>,
        message: &RaftMessage,
    ) -> bool {
        let identity = self.raft.identity();
        let is_known = identity == Identity::Known(message.to);
        match addressee {
            Some(folder) if folder == self.incarnation || planted!(AddresseeIgnored) => {
                if !is_known && self.raft.adopt(message.to, cluster, &mut step.raft) {
                    self.retiring = None;
                }
                true
            }
            Some(_) => {
                self.counters.invalid += 1;
                if is_known {
                    self.retiring = Some(Identity::Unknown);
                }
                self.say_hello(step, from);
                false
            }
            None => {
                let was_known = identity == Identity::Removed(message.to);
                if !is_known && !was_known {
                    self.say_hello(step, from);
                }
                is_known || was_known
            }
        }
    }

    /// Announces this peer's incarnation to another one, at most once per `NOTICE_PAUSE`.
    fn say_hello<V: PinsetView>(&mut self, step: &mut Step<'_, V>, to: &PeerId) {
        if self.planner.may_notify(step.now, to) {
            let envelope = self.envelope(Message::Hello);
            let to = to.clone();
            step.effects.push(Effect::Send { to, envelope });
        }
    }

    /// Notifies a peer that wrongly believes it is a member. It may be a new member that this peer does not
    /// know yet: the log position lets it decide.
    fn notify_non_member<V: PinsetView>(&mut self, step: &mut Step<'_, V>, to: &PeerId, message: &Message) {
        let believes_membership = match message {
            Message::AskCopies(_) | Message::Hello | Message::Metrics(_) | Message::Propose(_) => true,
            Message::HasCopies(_) | Message::NotMember { .. } => false,
            Message::Raft(message) => {
                matches!(message.kind, RaftKind::RequestPreVote | RaftKind::RequestVote)
            }
        };
        let may_notify = match self.membership() {
            Membership::Learner | Membership::Voter => !self.raft.has_unsynced_conf_change(),
            Membership::Joining | Membership::Removed => false,
        };
        let as_of = self.pinset.applied().index;
        let expected = self.raft.members().joining.contains(to);
        if believes_membership
            && may_notify
            && as_of > 0
            && !expected
            && self.planner.may_notify(step.now, to)
        {
            let envelope = self.envelope(Message::NotMember { as_of });
            let to = to.clone();
            step.effects.push(Effect::Send { to, envelope });
        }
    }

    /// Handles a notice that this peer is not a member as of a log position. It is valid only if that is
    /// later than this peer's own position; otherwise the sender does not know this member yet.
    fn on_not_member(&mut self, as_of: Index) {
        match self.membership() {
            Membership::Learner | Membership::Voter
                if as_of > self.pinset.applied().index || planted!(NotMemberBelieved) =>
            {
                self.retiring = Some(Identity::Removed(self.raft.id()));
            }
            Membership::Joining | Membership::Learner | Membership::Removed | Membership::Voter => {}
        }
    }

    /// Proposes to record the incarnation of a member that has none yet, on the leader.
    pub(super) fn admit(&mut self, raft_id: RaftId, incarnation: Incarnation) {
        if self.raft.leads() && !self.pending.is_full() && self.admitting.insert(raft_id) {
            let command = Command::Admit { raft_id, incarnation };
            let proposal = self.requests.mint(self.raft.id(), command);
            self.pending.push(proposal);
        }
    }
}
