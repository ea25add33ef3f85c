//! Election safety: a term has one leader. A leader without answers from a majority steps down, and no peer
//! starts an election before a majority has granted a pre-vote.

use std::collections::BTreeMap;

use std::time::Duration;

use cluster_core::{Event, Identity, Instant, Message, RaftId, RaftKind, Term};

use super::received::Heard;
use super::{Findings, Step};
use crate::options::Options;
use crate::store::Store;

/// Leader of each term, and how long each process has led without a majority.
#[derive(Debug)]
pub(super) struct Election {
    leaders: BTreeMap<Term, usize>,
    alone: Vec<Alone>,
    /// Term that each process has written.
    terms: Vec<Term>,
    tick: Duration,
    /// Ticks after which a leader without a majority steps down: it checks once in each election timeout.
    ticks_max: u64,
}

/// Ticks of a leader since a majority last answered.
#[derive(Debug, Clone, Copy, Default)]
struct Alone {
    since: Option<Instant>,
    ticks: u64,
    last: Option<Instant>,
}

impl Election {
    pub(super) fn new(options: &Options, size: usize) -> Self {
        Self {
            leaders: BTreeMap::new(),
            alone: vec![Alone::default(); size],
            terms: vec![0; size],
            tick: Duration::from_millis(options.tick_ms.max(1)),
            ticks_max: 3 * options.election_ticks.max(3) + 5,
        }
    }

    pub(super) fn booted(&mut self, me: usize, store: &Store) {
        self.alone[me] = Alone::default();
        self.terms[me] = store.hard_state.term;
    }

    /// Counts a leader's ticks, each of which takes a step of its own, so that a pause does not count.
    pub(super) fn of_solitude(&mut self, step: &Step<'_>, heard: &Heard, found: &mut Findings<'_>) {
        let alone = &mut self.alone[step.me];
        if !step.peer().is_ready_leader() {
            *alone = Alone::default();
            return;
        }
        if !step.events.contains(&Event::TimedOut) {
            return;
        }
        let (now, process) = (step.now.mono, heard.of(step.me));
        if alone.last.is_some_and(|last| now.since(last) < self.tick) {
            return;
        }
        alone.last = Some(now);
        let since = *alone.since.get_or_insert(now);
        let members = &step.peer().disk.written.members;
        let listens = |id: &&RaftId| {
            let peer = members.peer(**id);
            let last = peer.and_then(|peer| process.last(peer));
            peer == Some(&step.peer().id) || last.is_some_and(|last| last >= since)
        };
        let sets = [&members.voters, &members.outgoing];
        let is_majority = sets
            .iter()
            .all(|set| set.is_empty() || set.iter().filter(listens).count() * 2 > set.len());
        if is_majority {
            alone.since = Some(now);
            alone.ticks = 0;
        }
        alone.ticks += 1;
        let ticks = alone.ticks;
        found.require(ticks <= self.ticks_max, "solitude", || {
            format!("leads on, {ticks} ticks after a majority was heard")
        });
    }

    /// Checks that a peer votes for itself only after a majority has granted a pre-vote, or its leader has
    /// requested the election.
    pub(super) fn of_candidate(&mut self, step: &Step<'_>, found: &mut Findings<'_>) {
        let store = &step.peer().disk.written;
        let (members, state) = (&store.members, &store.hard_state);
        let before = std::mem::replace(&mut self.terms[step.me], state.term);
        let own = match state.identity {
            Identity::Known(id) => Some(id),
            Identity::Founding => members.raft_id(&step.peer().id),
            Identity::Removed(_) | Identity::Unknown => None,
        };
        let is_alone = members.voters.len() < 2 && members.outgoing.len() < 2;
        if is_alone || state.term <= before || own.is_none() || state.vote != own {
            return;
        }
        let term = state.term;
        let agrees = |event: &Event| match event {
            Event::Received { envelope, .. } => match &envelope.message {
                Message::Raft(message) => {
                    matches!(
                        message.kind,
                        RaftKind::RequestPreVoteResponse | RaftKind::TimeoutNow
                    )
                }
                _ => false,
            },
            _ => false,
        };
        found.require(step.events.iter().any(agrees), "election", || {
            format!("starts an election in term {term}, which nobody has agreed to")
        });
    }

    /// Returns the term when the peer has just come to lead it.
    pub(super) fn after_step(&mut self, step: &Step<'_>, found: &mut Findings<'_>) -> Option<Term> {
        if !step.peer().leads() {
            return None;
        }
        let term = step.peer().node.as_ref()?.view().term();
        match self.leaders.insert(term, step.me) {
            None => return Some(term),
            Some(other) => found.require(other == step.me, "election safety", || {
                format!("leads term {term}, which p{other} leads")
            }),
        }
        None
    }

    pub(super) fn count(&self) -> u64 {
        self.leaders.len() as u64
    }
}
