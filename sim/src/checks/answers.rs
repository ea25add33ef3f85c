//! Answers are correct and in time: a refusal has its cause, a reported membership exists, and no client
//! waits past its deadline.

use std::collections::BTreeSet;
use std::time::Duration;

use cluster_core::{
    Cid, CredentialId, Drain, DrainError, Effect, Event, Identity, NotRebalancing, POLICY_VERSION, PeerId,
    Phase, Pin, PinOptions, RebalanceChange, Refusal, Replicas, Reply, Request, StoreOp, Ticket,
};

use super::received::{Heard, Process, member};
use super::{Findings, Step};
use crate::options::Options;

/// The settings that answers depend on.
#[derive(Debug)]
pub(super) struct Answers {
    deadline: Duration,
    open_max: usize,
    allocate_by: Vec<String>,
    shrunk: bool,
    has_owners: bool,
}

impl Answers {
    pub(super) fn new(options: &Options, allocate_by: Vec<String>) -> Self {
        Self {
            deadline: Duration::from_millis(options.deadline_ms),
            open_max: usize::try_from(options.open_max.max(1)).expect("a small number"),
            allocate_by,
            shrunk: options.shrink > 1,
            has_owners: options.op_owner > 0,
        }
    }

    pub(super) fn after_step(&self, step: &Step<'_>, heard: &Heard, found: &mut Findings<'_>) {
        let process = heard.of(step.me);
        for effect in step.effects {
            if let Effect::Reply { ticket, reply } = effect
                && let Some((request, _)) = process.tickets.get(ticket)
            {
                match reply {
                    Ok(reply) => self.of_reply(step, process, request, reply, found),
                    Err(refusal) => self.of_refusal(step, process, *ticket, refusal, found),
                }
            }
        }
        if step.events.contains(&Event::TimedOut) {
            self.of_deadlines(step, process, found);
        }
    }

    fn of_deadlines(&self, step: &Step<'_>, process: &Process, found: &mut Findings<'_>) {
        let answered = |ticket: &Ticket| {
            step.effects
                .iter()
                .any(|effect| matches!(effect, Effect::Reply { ticket: given, .. } if given == ticket))
        };
        let late = process
            .tickets
            .iter()
            .find(|(ticket, (_, at))| step.now.mono.since(*at) >= self.deadline && !answered(ticket));
        found.require(late.is_none(), "deadlines", || {
            format!("{late:?} waits, and is not answered")
        });
    }

    fn of_reply(
        &self,
        step: &Step<'_>,
        process: &Process,
        request: &Request,
        reply: &Reply,
        found: &mut Findings<'_>,
    ) {
        match (request, reply) {
            (Request::AddPeer { peer }, Reply::PeerAdded) => {
                let there = member(&step.peer().disk.written.members, peer).is_some();
                found.require(there, "answers", || {
                    format!("says that {peer} is a member, it is none")
                });
            }
            (Request::RemovePeer { peer }, Reply::PeerRemoved) => {
                let is_gone = |other: &crate::peer::Peer| {
                    let members = &other.disk.written.members;
                    !members.peers.is_empty() && member(members, peer).is_none()
                };
                // One that asks for its own removal may have been added again, under a new Raft id, by the
                // time at which it retires (seeds 307373, 314400).
                let retires = *peer == step.peer().id && step.writes().any(is_retirement);
                found.require(retires || step.peers.iter().any(is_gone), "answers", || {
                    format!("says that {peer} is no member, it is one")
                });
            }
            (Request::Allocate { cid, near, options }, Reply::Allocated(chosen)) => {
                self.of_allocation(step, process, (cid.as_ref(), options), chosen, found);
                if let Some(near) = near {
                    self.of_nearest(step, process, (cid.as_ref(), options, near), chosen, found);
                }
            }
            (Request::Recover { cid }, Reply::Recovered(_)) => {
                let local = step.peer().disk.written.locals.get(cid);
                let is_end = |event: &Event| matches!(event, Event::IpfsFinished { .. });
                let ended = step.events.iter().any(is_end);
                let failed = local.is_some_and(|local| {
                    use cluster_core::Phase::{Lost, PinError, UnpinError};
                    matches!(local.phase, Lost | PinError | UnpinError)
                });
                found.require(ended || !failed, "answers", || {
                    format!("says that {cid} is tried again, it is {local:?}")
                });
            }
            (Request::Pin { cid, .. }, Reply::Pinned(pin))
            | (Request::Unpin { cid, .. }, Reply::Unpinned(pin)) => {
                found.require(pin.cid == *cid, "answers", || {
                    format!("answers {request:?} with {pin:?}")
                });
                if matches!(reply, Reply::Pinned(_)) {
                    of_pinned(step, process, pin, found);
                }
            }
            (Request::CreateCredential { .. }, Reply::CredentialCreated(_))
            | (Request::Drain { .. }, Reply::DrainStarted(_))
            | (Request::EndDrain { .. }, Reply::DrainEnded(_))
            | (Request::Rebalance { .. }, Reply::Rebalanced(_))
            | (Request::RevokeCredential { .. }, Reply::CredentialRevoked(_)) => {
                of_policy(step, request, reply, found);
            }
            (Request::Barrier, Reply::Barrier(_))
            | (Request::Import { .. }, Reply::Pinned(_))
            | (Request::RecoverAll, Reply::Recovered(_))
            | (Request::Sync { .. }, Reply::Synced(_)) => {}
            (request, reply) => {
                found.safety_violation("answers", format!("answers {request:?} with {reply:?}"));
            }
        }
    }

    /// Checks that the peers allocated to a pin can take it or hold it already, and are as many as it
    /// requests.
    fn of_allocation(
        &self,
        step: &Step<'_>,
        process: &Process,
        (cid, options): (Option<&Cid>, &PinOptions),
        chosen: &[PeerId],
        found: &mut Findings<'_>,
    ) {
        // A peer that holds the pin keeps it while it lives, whether it takes new ones or not.
        let states = cid.map_or(Vec::new(), |cid| step.pin_states(cid));
        let holds = |peer: &PeerId| {
            let mut pins = states.iter().flatten();
            pins.any(|pin| pin.allocations.contains(peer))
        };
        let able = |peer: &PeerId| {
            process.may_take(step.now, peer, &self.allocate_by)
                || holds(peer) && process.may_take(step.now, peer, &[])
        };
        let fits = match options.replicas {
            Replicas::Everywhere => chosen.is_empty(),
            Replicas::Range { min, max } => {
                (min as usize..=max as usize).contains(&chosen.len()) && chosen.iter().all(able)
            }
        };
        found.require(fits, "answers", || {
            format!("would give {options:?} to {chosen:?}")
        });
    }

    /// Checks that of peers with the same rank the one that received the request is preferred. It has the
    /// same rank as a chosen peer of its group that has no more free space.
    fn of_nearest(
        &self,
        step: &Step<'_>,
        process: &Process,
        (cid, options, near): (Option<&Cid>, &PinOptions, &PeerId),
        chosen: &[PeerId],
        found: &mut Findings<'_>,
    ) {
        // Of any moment of the step: the pin may have been removed after the answer (seed 314777).
        let pins = cid.map_or_else(Vec::new, |cid| step.pin_states(cid));
        let is_given = |peer: &PeerId| {
            let holds = pins.iter().flatten().any(|pin| pin.allocations.contains(peer));
            holds || options.user_allocations.contains(peer)
        };
        let rank = |peer: &PeerId| {
            let samples = |name: &str| match process.samples(peer, name) {
                [sample] => Some(sample.metric.clone()),
                _ => None,
            };
            Some((samples("tag:group")?.value, samples("freespace")?.weight))
        };
        let Some((group, room)) = rank(near) else { return };
        let able = process.can_take(step.now, near, &self.allocate_by);
        let is_worse = |peer: &&PeerId| {
            let rank = rank(peer);
            !is_given(peer) && rank.is_some_and(|(other, weight)| other == group && weight <= room)
        };
        let passed = chosen
            .iter()
            .find(is_worse)
            .filter(|_| able && !chosen.contains(near));
        found.require(passed.is_none(), "answers", || {
            format!("would give {options:?} to {passed:?} instead of {near}, which asks")
        });
    }

    fn of_refusal(
        &self,
        step: &Step<'_>,
        process: &Process,
        ticket: Ticket,
        refusal: &Refusal,
        found: &mut Findings<'_>,
    ) {
        let Some((request, at)) = process.tickets.get(&ticket) else {
            return;
        };
        let late = step.now.mono.since(*at) >= self.deadline;
        let holds = match refusal {
            // With small windows, few open proposals are too many.
            Refusal::Busy => late || self.shrunk || process.tickets.len() > self.open_max.min(64),
            Refusal::NoLeader => late,
            Refusal::NotEnoughPeers { needed, .. } => {
                let able = |peer: &&PeerId| process.can_take(step.now, peer, &self.allocate_by);
                // A peer whose data folder is being replaced is two members (seed 311617).
                let members = step.peer().disk.written.members.peer_ids();
                let peers: BTreeSet<&PeerId> = members.filter(able).collect();
                late || peers.len() < *needed as usize
            }
            Refusal::NotMember => !is_member(step, process),
            // Clients stay within the limits, but the fields of several owners add up.
            Refusal::TooLarge(_) => self.has_owners,
            Refusal::Unreadable(_) => step.peer().disk.written.members.version < POLICY_VERSION,
            _ => true,
        };
        found.require(holds, "answers", || {
            format!("refuses {request:?} at once: {refusal:?}")
        });
        let possible = is_possible(request, refusal);
        found.require(possible, "answers", || {
            format!("refuses {request:?}: {refusal:?}")
        });
    }
}

/// Checks that a repeated pin request retries a failed pin at once.
fn of_pinned(step: &Step<'_>, process: &Process, pin: &Pin, found: &mut Findings<'_>) {
    let store = &step.peer().disk.written;
    let is_mine = pin.is_allocated_to(&step.peer().id) && store.pins.get(&pin.cid) == Some(pin);
    let ended = |event: &Event| matches!(event, Event::IpfsFinished { .. } | Event::IpfsLacks { .. });
    let local = store.locals.get(&pin.cid);
    let has_failed = local.is_none_or(|local| local.phase == Phase::PinError);
    // The IPFS node may have ended it, and the core not know it yet (seed 800294).
    let is_running = process.operates_on(&pin.cid);
    let may_fail = step.events.iter().any(ended) || is_running || store.reconciling;
    found.require(!is_mine || !has_failed || may_fail, "answers", || {
        format!("confirms {pin:?}, and does not try again what has failed: {local:?}")
    });
}

/// Returns whether a request may be refused for this reason.
fn is_possible(request: &Request, refusal: &Refusal) -> bool {
    let of_policy = matches!(
        refusal,
        Refusal::Credential(_) | Refusal::Drain(_) | Refusal::Rebalance(_) | Refusal::Unreadable(_)
    );
    match request {
        Request::CreateCredential { .. } | Request::RevokeCredential { .. } => !matches!(
            refusal,
            Refusal::Conflict(_)
                | Refusal::IpfsFailed(_)
                | Refusal::NotEnoughPeers { .. }
                | Refusal::NotFound
        ),
        Request::Drain { .. } | Request::EndDrain { .. } | Request::Rebalance { .. } => {
            let unknown = matches!(refusal, Refusal::Unreadable(_) | Refusal::Unknown | Refusal::Busy);
            let nobody = matches!(refusal, Refusal::NoLeader | Refusal::NotMember);
            let is_end = matches!(request, Request::EndDrain { .. });
            let end = RebalanceChange::End { since: None };
            let is_other_end = *request == Request::Rebalance { change: end };
            unknown
                || nobody
                || is_end && *refusal == Refusal::Drain(DrainError::Missing)
                || is_other_end && *refusal == Refusal::Rebalance(NotRebalancing)
        }
        Request::Unpin { owner: Some(_), .. } if matches!(refusal, Refusal::Unreadable(_)) => true,
        _ if of_policy => false,
        Request::Unpin { .. } => !matches!(refusal, Refusal::NotEnoughPeers { .. } | Refusal::IpfsFailed(_)),
        // An update of a CID that is not pinned.
        Request::Pin { options, .. } if *refusal == Refusal::NotFound => options.pin_update.is_some(),
        Request::Pin { .. } | Request::Import { .. } => {
            !matches!(refusal, Refusal::NotFound | Refusal::IpfsFailed(_))
        }
        Request::AddPeer { .. } | Request::RemovePeer { .. } => !matches!(
            refusal,
            Refusal::NotFound | Refusal::NotEnoughPeers { .. } | Refusal::IpfsFailed(_)
        ),
        _ => true,
    }
}

/// Checks that a confirmed credential or drain is there, and one whose end is confirmed is gone.
fn of_policy(step: &Step<'_>, request: &Request, reply: &Reply, found: &mut Findings<'_>) {
    let holds = match (request, reply) {
        // It may be revoked within the same step.
        (Request::CreateCredential { credential }, Reply::CredentialCreated(created)) => {
            created == credential && (has_credential(step, credential.id) || changes_policy(step))
        }
        (Request::RevokeCredential { id }, Reply::CredentialRevoked(revoked)) => {
            revoked.id == *id && !has_credential(step, *id)
        }
        (Request::Drain { drain }, Reply::DrainStarted(stored)) => {
            let is_there = drains(step).any(|known| known == stored) || changes_policy(step);
            stored.peer == drain.peer && stored.moves_max == drain.moves_max && is_there
        }
        (Request::EndDrain { peer }, Reply::DrainEnded(ended)) => {
            let is_gone = drains(step).all(|known| known.peer != *peer) || changes_policy(step);
            ended.peer == *peer && is_gone
        }
        (Request::Rebalance { change }, Reply::Rebalanced(state)) => {
            let is_stored = step.peer().disk.written.policy.rebalance == *state || changes_policy(step);
            let is_so = match change {
                RebalanceChange::Settings(settings) => state.settings == *settings,
                RebalanceChange::Start { .. } => state.run.is_some(),
                RebalanceChange::End { .. } => state.run.is_none(),
                RebalanceChange::Done { .. } => false,
            };
            is_stored && is_so
        }
        _ => false,
    };
    found.require(holds, "answers", || {
        format!("answers {request:?} with {reply:?}, which is not so")
    });
}

fn has_credential(step: &Step<'_>, id: CredentialId) -> bool {
    let mut credentials = step.peer().disk.written.policy.credentials.iter();
    credentials.any(|credential| credential.id == id)
}

fn drains<'a>(step: &Step<'a>) -> impl Iterator<Item = &'a Drain> {
    step.peer().disk.written.policy.drains.iter()
}

fn changes_policy(step: &Step<'_>) -> bool {
    step.writes()
        .filter(|op| matches!(op, StoreOp::SetPolicy { .. }))
        .count()
        > 1
}

fn is_retirement(op: &StoreOp) -> bool {
    matches!(op, StoreOp::SetHardState { hard_state } if matches!(hard_state.identity, Identity::Removed(_)))
}

/// Returns whether a peer was a member, with a Raft id of its own, before this step and after it.
fn is_member(step: &Step<'_>, process: &Process) -> bool {
    let store = &step.peer().disk.written;
    let changed = step.writes().any(|op| matches!(op, StoreOp::SetHardState { .. }));
    let known = matches!(store.hard_state.identity, Identity::Known(_) | Identity::Founding);
    let own = member(&store.members, &step.peer().id);
    let is_own = |id| match store.hard_state.identity {
        Identity::Known(known) => known == id,
        Identity::Founding => true,
        Identity::Removed(_) | Identity::Unknown => false,
    };
    !changed && known && own.is_some_and(|(id, _)| is_own(id)) && process.before.contains_key(&step.peer().id)
}
