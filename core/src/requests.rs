//! Open client requests: their state, retries and deadlines. Each ticket gets exactly one reply. A proposal
//! that is not applied in time is proposed again under the same id; the reply after the deadline states
//! whether it may still take effect.

use std::collections::{BTreeMap, BTreeSet};

use crate::codec::encoded_len;
use crate::command::{Command, Outcome, Proposal};
use crate::config::RequestsConfig;
use crate::effect::{Refusal, Reply};
use crate::event::Request;
use crate::ids::{Index, PeerId, ProposalId, RaftId, ReadId, Ticket};
use crate::members::{Members, MembersWish};
use crate::planted::planted;
use crate::time::{Instant, Now};
use crate::window::window;

/// Output of the request table.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Output {
    /// Decide on a request.
    Decide { ticket: Ticket },
    /// Send a proposal to the leader.
    Propose { proposal: Proposal },
    /// Request the log position that a read must wait for.
    Read { read: ReadId },
    /// Reply to a client.
    Reply {
        ticket: Ticket,
        reply: Result<Reply, Refusal>,
    },
}

/// State of an open request.
#[allow(clippy::large_enum_variant, reason = "most of those that wait are proposed")]
#[derive(Debug, Clone)]
enum Stage {
    /// To be decided; with the refusal to send after the deadline.
    Deciding(Refusal),
    /// Proposed; `true` once a leader may have received it.
    Proposed(Proposal, bool),
    /// Recorded in the log; waits for the membership to change.
    Recorded,
    /// Waits for its log position to be confirmed, and then applied.
    Reading(ReadId, Option<Index>),
}

#[derive(Debug, Clone)]
struct Open {
    request: Request,
    /// Encoded length of `request`.
    size: usize,
    deadline: Instant,
    wake: Instant,
    stage: Stage,
}

/// Table of this peer's open client requests.
pub(crate) struct Requests {
    config: RequestsConfig,
    bytes_max: usize,
    /// Total of the encoded requests in `open`.
    bytes: usize,
    boot: u64,
    next_seq: u64,
    next_read: u64,
    open: BTreeMap<Ticket, Open>,
    by_proposal: BTreeMap<u64, Ticket>,
    by_read: BTreeMap<ReadId, Ticket>,
    recorded: BTreeSet<Ticket>,
    wakes: BTreeSet<(Instant, Ticket)>,
}

impl Requests {
    pub(crate) fn new(config: &RequestsConfig, bytes_max: usize, boot: u64) -> Self {
        Self {
            config: config.clone(),
            bytes_max,
            bytes: 0,
            boot,
            next_seq: 0,
            next_read: 0,
            open: BTreeMap::new(),
            by_proposal: BTreeMap::new(),
            by_read: BTreeMap::new(),
            recorded: BTreeSet::new(),
            wakes: BTreeSet::new(),
        }
    }

    /// Returns the number of open requests.
    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    /// Opens a request that needs the cluster; refuses it if a limit is reached.
    pub(crate) fn open(&mut self, now: Now, ticket: Ticket, request: Request, out: &mut Vec<Output>) {
        // One proposal id is reserved for this peer's own commands.
        let span = self
            .by_proposal
            .first_key_value()
            .map_or(0, |(oldest, _)| self.next_seq - oldest);
        let size = encoded_len(&request);
        let full = self.open.len() >= self.config.open_max || self.bytes + size > self.bytes_max;
        let is_full = full && !planted!(OpenUnlimited);
        if is_full || span >= window() - 1 {
            out.push(Output::Reply {
                ticket,
                reply: Err(Refusal::Busy),
            });
            return;
        }
        let reads = request == Request::Barrier;
        let stage = if reads {
            self.next_read += 1;
            Stage::Reading(ReadId(self.next_read), None)
        } else {
            Stage::Deciding(Refusal::NoLeader)
        };
        let deadline = now.mono + self.config.deadline;
        let wake = deadline.min(now.mono + self.config.retry);
        if let Stage::Reading(read, _) = stage {
            self.by_read.insert(read, ticket);
            out.push(Output::Read { read });
        } else {
            out.push(Output::Decide { ticket });
        }
        self.wakes.insert((wake, ticket));
        self.bytes += size;
        let known = self.open.insert(
            ticket,
            Open {
                request,
                size,
                deadline,
                wake,
                stage,
            },
        );
        assert!(known.is_none(), "tickets are unique");
    }

    /// Returns a request that is still to be decided. [`Output::Decide`] may come several times for one
    /// ticket.
    pub(crate) fn undecided(&self, ticket: Ticket) -> Option<&Request> {
        let open = self.open.get(&ticket)?;
        matches!(open.stage, Stage::Deciding(_)).then_some(&open.request)
    }

    /// Postpones the decision on a request, with the refusal to send after the deadline.
    pub(crate) fn wait(&mut self, ticket: Ticket, why: Refusal) {
        if let Some(open) = self.open.get_mut(&ticket) {
            open.stage = Stage::Deciding(why);
        }
    }

    /// Proposes the command that was decided for a request.
    pub(crate) fn decided(
        &mut self,
        origin: RaftId,
        ticket: Ticket,
        command: Command,
        out: &mut Vec<Output>,
    ) {
        let proposal = self.mint(origin, command);
        if let Some(open) = self.open.get_mut(&ticket) {
            open.stage = Stage::Proposed(proposal.clone(), false);
            self.by_proposal.insert(proposal.id.seq, ticket);
            out.push(Output::Propose { proposal });
        }
    }

    /// Numbers a proposal of this peer's own, without a client.
    pub(crate) fn mint(&mut self, origin: RaftId, command: Command) -> Proposal {
        self.next_seq += 1;
        Proposal {
            id: ProposalId {
                origin,
                boot: self.boot,
                seq: self.next_seq,
            },
            command,
        }
    }

    /// Iterates over the clients' open proposals with a number above `seq`.
    #[cfg(planted_bugs)]
    pub(crate) fn proposed_after(&self, seq: u64) -> impl Iterator<Item = &Proposal> {
        let newer = self.by_proposal.range(seq + 1..);
        newer.filter_map(|(_, ticket)| match &self.open.get(ticket)?.stage {
            Stage::Proposed(proposal, _) => Some(proposal),
            Stage::Deciding(_) | Stage::Recorded | Stage::Reading(..) => None,
        })
    }

    /// Notes that a proposal was sent to a leader, so that it may take effect from now on.
    pub(crate) fn forwarded(&mut self, id: ProposalId) {
        if let Some(open) = self
            .by_proposal
            .get(&id.seq)
            .and_then(|ticket| self.open.get_mut(ticket))
            && let Stage::Proposed(_, forwarded) = &mut open.stage
            && !planted!(ForwardedForgotten)
        {
            *forwarded = true;
        }
    }

    /// Answers the request of an applied proposal.
    pub(crate) fn applied(
        &mut self,
        origin: RaftId,
        id: ProposalId,
        outcome: &Outcome,
        out: &mut Vec<Output>,
    ) {
        let is_other = id.origin != origin && !planted!(OriginIgnored);
        let is_earlier = id.boot != self.boot && !planted!(BootIgnored);
        if is_other || is_earlier {
            return;
        }
        let Some(ticket) = self.by_proposal.remove(&id.seq) else {
            return;
        };
        let reply = match outcome {
            Outcome::Stale if planted!(StaleIsBusy) => Err(Refusal::Busy),
            Outcome::Stale => {
                self.wait(ticket, Refusal::Busy);
                out.push(Output::Decide { ticket });
                return;
            }
            Outcome::Recorded(MembersWish::Add { .. }) if planted!(AddedEarly) => Ok(Reply::PeerAdded),
            Outcome::Recorded(_) => {
                if let Some(open) = self.open.get_mut(&ticket) {
                    open.stage = Stage::Recorded;
                    self.recorded.insert(ticket);
                }
                return;
            }
            Outcome::Admitted | Outcome::NotFound => Err(Refusal::NotFound),
            Outcome::CredentialCreated(new) => Ok(Reply::CredentialCreated(new.clone())),
            Outcome::CredentialRefused(why) => Err(Refusal::Credential(why.clone())),
            Outcome::CredentialRevoked(old) => Ok(Reply::CredentialRevoked(old.clone())),
            Outcome::DrainEnded(old) => Ok(Reply::DrainEnded(old.clone())),
            Outcome::DrainRefused(why) => Err(Refusal::Drain(why.clone())),
            Outcome::DrainStarted(new) => Ok(Reply::DrainStarted(new.clone())),
            Outcome::Rebalanced(state) => Ok(Reply::Rebalanced(state.clone())),
            Outcome::RebalanceRefused(why) => Err(Refusal::Rebalance(why.clone())),
            Outcome::Conflict(why) => Err(Refusal::Conflict(why.clone())),
            Outcome::Pinned(pin) => Ok(Reply::Pinned(pin.clone())),
            Outcome::Unpinned(pin) => Ok(Reply::Unpinned(pin.clone())),
        };
        self.answer(ticket, reply, out);
    }

    /// Answers the requests whose proposals were applied within an installed snapshot: their outcome is
    /// unknown.
    pub(crate) fn restored(
        &mut self,
        origin: RaftId,
        has_applied: impl Fn(ProposalId) -> bool,
        out: &mut Vec<Output>,
    ) {
        let boot = self.boot;
        let applied: Vec<(u64, Ticket)> = self
            .by_proposal
            .iter()
            .filter(|(seq, _)| {
                has_applied(ProposalId {
                    origin,
                    boot,
                    seq: **seq,
                })
            })
            .map(|(seq, ticket)| (*seq, *ticket))
            .collect();
        for (seq, ticket) in applied {
            self.by_proposal.remove(&seq);
            // Not even a pin may be proposed again: that could undo a later change by another client.
            self.answer(ticket, Err(Refusal::Unknown), out);
        }
    }

    /// Repeats what the previous leader may have lost.
    pub(crate) fn leader_changed(&mut self, out: &mut Vec<Output>) {
        for (ticket, open) in &self.open {
            out.push(match &open.stage {
                Stage::Deciding(_) => Output::Decide { ticket: *ticket },
                Stage::Proposed(proposal, _) => Output::Propose {
                    proposal: proposal.clone(),
                },
                Stage::Reading(_, Some(_)) | Stage::Recorded => continue,
                Stage::Reading(read, None) => Output::Read { read: *read },
            });
        }
    }

    /// Decides again on requests that lacked candidates, after metrics arrived.
    pub(crate) fn metrics_changed(&self, out: &mut Vec<Output>) {
        for (ticket, open) in &self.open {
            if matches!(open.stage, Stage::Deciding(Refusal::NotEnoughPeers { .. })) {
                out.push(Output::Decide { ticket: *ticket });
            }
        }
    }

    /// Notes the confirmed log position of a read.
    pub(crate) fn read_ready(&mut self, read: ReadId, index: Index) {
        if let Some(open) = self
            .by_read
            .get(&read)
            .and_then(|ticket| self.open.get_mut(ticket))
        {
            open.stage = Stage::Reading(read, Some(index));
        }
    }

    /// Answers the reads whose position is applied.
    pub(crate) fn answer_reads(&mut self, applied: Index, out: &mut Vec<Output>) {
        let ready: Vec<(ReadId, Ticket)> = self
            .by_read
            .iter()
            .filter(|(_, ticket)| {
                let stage = self.open.get(ticket).map(|open| &open.stage);
                let short = u64::from(planted!(ReadOneShort));
                let may_serve = |index: &Index| *index <= applied + short || planted!(ReadBeforeApplied);
                matches!(stage, Some(Stage::Reading(_, Some(index))) if may_serve(index))
            })
            .map(|(read, ticket)| (*read, *ticket))
            .collect();
        for (_, ticket) in ready {
            self.answer(ticket, Ok(Reply::Barrier(applied)), out);
        }
    }

    /// Answers the membership requests that have been carried out.
    pub(crate) fn answer_membership_requests(&mut self, members: &Members, out: &mut Vec<Output>) {
        let done = |ticket: &Ticket| match &self.open.get(ticket)?.request {
            Request::AddPeer { peer } => members.raft_id(peer).map(|_| (*ticket, Reply::PeerAdded)),
            Request::RemovePeer { peer } if members.raft_id(peer).is_some() => None,
            Request::RemovePeer { .. } => Some((*ticket, Reply::PeerRemoved)),
            Request::Allocate { .. }
            | Request::Barrier
            | Request::CreateCredential { .. }
            | Request::Drain { .. }
            | Request::EndDrain { .. }
            | Request::Import { .. }
            | Request::Pin { .. }
            | Request::Rebalance { .. }
            | Request::Recover { .. }
            | Request::RecoverAll
            | Request::RevokeCredential { .. }
            | Request::Sync { .. }
            | Request::Unpin { .. } => None,
        };
        let done: Vec<(Ticket, Reply)> = self.recorded.iter().filter_map(done).collect();
        for (ticket, reply) in done {
            self.answer(ticket, Ok(reply), out);
        }
    }

    /// Answers all requests, because this peer is not a member any more.
    pub(crate) fn removed(&mut self, me: &PeerId, out: &mut Vec<Output>) {
        let open: Vec<Ticket> = self.open.keys().copied().collect();
        for ticket in open.into_iter().filter(|_| !planted!(RemovedUnanswered)) {
            let Open { request, stage, .. } = &self.open[&ticket];
            let leaves = matches!(request, Request::RemovePeer { peer } if peer == me);
            let reply = match stage {
                Stage::Recorded if leaves => Ok(Reply::PeerRemoved),
                Stage::Proposed(_, true) if leaves => Ok(Reply::PeerRemoved),
                Stage::Proposed(_, true) | Stage::Recorded => Err(Refusal::Unknown),
                Stage::Deciding(_) | Stage::Proposed(_, false) | Stage::Reading(..) => {
                    Err(Refusal::NotMember)
                }
            };
            self.answer(ticket, reply, out);
        }
    }

    /// Closes a request with a reply.
    pub(crate) fn answer(&mut self, ticket: Ticket, reply: Result<Reply, Refusal>, out: &mut Vec<Output>) {
        let Some(open) = self.open.remove(&ticket) else {
            return;
        };
        self.wakes.remove(&(open.wake, ticket));
        self.bytes -= open.size;
        match open.stage {
            Stage::Deciding(_) => {}
            Stage::Recorded => {
                self.recorded.remove(&ticket);
            }
            Stage::Proposed(proposal, _) => {
                self.by_proposal.remove(&proposal.id.seq);
            }
            Stage::Reading(read, _) => {
                self.by_read.remove(&read);
            }
        }
        out.push(Output::Reply { ticket, reply });
    }

    fn wake_at(&mut self, ticket: Ticket, at: Instant) {
        if let Some(open) = self.open.get_mut(&ticket) {
            self.wakes.remove(&(open.wake, ticket));
            open.wake = at;
            self.wakes.insert((at, ticket));
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.wakes.first().map(|(at, _)| *at)
    }

    /// Closes expired requests, and retries proposals and reads that may have been lost.
    pub(crate) fn handle_timeout(&mut self, now: Now, out: &mut Vec<Output>) {
        while let Some((at, ticket)) = self.wakes.first().copied()
            && at <= now.mono
        {
            let open = &self.open[&ticket];
            if open.deadline <= now.mono && planted!(DeadlineIgnored) {
                let next = now.mono + self.config.retry;
                self.wake_at(ticket, next);
                continue;
            }
            if open.deadline <= now.mono {
                let refusal = match &open.stage {
                    Stage::Deciding(why) => why.clone(),
                    Stage::Proposed(_, true) if planted!(UnknownIsRefusal) => Refusal::NoLeader,
                    Stage::Recorded if planted!(NotedIsRefusal) => Refusal::NoLeader,
                    Stage::Proposed(_, true) | Stage::Recorded => Refusal::Unknown,
                    Stage::Proposed(_, false) | Stage::Reading(..) => Refusal::NoLeader,
                };
                self.answer(ticket, Err(refusal), out);
                continue;
            }
            if planted!(RetryUnderNewId) && matches!(open.stage, Stage::Proposed(..)) {
                self.wait(ticket, Refusal::Unknown);
            }
            let open = &self.open[&ticket];
            match &open.stage {
                Stage::Deciding(_) => out.push(Output::Decide { ticket }),
                Stage::Recorded => {}
                Stage::Proposed(proposal, _) => out.push(Output::Propose {
                    proposal: proposal.clone(),
                }),
                Stage::Reading(read, _) => out.push(Output::Read { read: *read }),
            }
            let next = open.deadline.min(now.mono + self.config.retry);
            self.wake_at(ticket, next);
            if planted!(DeadlineExtended)
                && let Some(open) = self.open.get_mut(&ticket)
            {
                open.deadline = open.deadline + self.config.retry;
            }
        }
    }

    /// Panics if the indexes and the open requests disagree.
    pub(crate) fn check(&self) {
        assert!(
            self.open.len() <= self.config.open_max,
            "no more open requests than allowed"
        );
        let bytes: usize = self.open.values().map(|open| open.size).sum();
        assert!(
            bytes == self.bytes && (bytes <= self.bytes_max || planted!(OpenUnlimited)),
            "the bytes of open requests add up"
        );
        assert!(
            self.wakes.len() == self.open.len(),
            "every open request has a wake-up time"
        );
        let waiting = self.by_proposal.values().chain(self.by_read.values());
        for ticket in waiting.chain(&self.recorded) {
            assert!(self.open.contains_key(ticket), "indexes refer to open requests");
        }
    }
}

#[cfg(test)]
mod tests;
