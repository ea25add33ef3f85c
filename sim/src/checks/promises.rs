//! Promises of Raft: one vote in a term, terms and votes never go back, and no promise is sent
//! before the disk has it.

use std::collections::BTreeMap;

use cluster_core::{Effect, Incarnation, Message, RaftId, RaftKind, RaftMessage, Term};

use super::{Findings, Step};
use crate::store::Store;

/// Promises of all peers.
#[derive(Debug, Default)]
pub(super) struct Promises {
    /// Candidate that got a peer's vote in a term.
    votes: BTreeMap<(RaftId, Incarnation, Term), RaftId>,
    /// Highest term in the messages that a peer has sent.
    terms: BTreeMap<usize, Term>,
}

impl Promises {
    /// Checks that a restarted peer's disk has the highest term that it had sent.
    pub(super) fn booted(&mut self, me: usize, store: &Store, found: &mut Findings<'_>) {
        let said = self.terms.get(&me).copied().unwrap_or(0);
        let term = store.hard_state.term;
        found.require(term >= said, "promises", || {
            format!("comes back in term {term}, has spoken in term {said}")
        });
    }

    pub(super) fn disk_lost(&mut self, me: usize) {
        self.terms.remove(&me);
    }

    pub(super) fn after_step(&mut self, step: &Step<'_>, found: &mut Findings<'_>) {
        for effect in step.effects {
            if let Effect::Send { envelope, .. } = effect
                && let Message::Raft(message) = &envelope.message
            {
                self.after_message(step, message, found);
            }
        }
    }

    fn after_message(&mut self, step: &Step<'_>, message: &RaftMessage, found: &mut Findings<'_>) {
        let durable = &step.peer().disk.durable;
        let candidate = match message.kind {
            RaftKind::RequestVote => Some(message.from),
            RaftKind::RequestVoteResponse if !message.reject => Some(message.to),
            // An entry acknowledged to an older leader may have been truncated since. Such an acknowledgement
            // was true when it was sent, so it is treated like a delayed message.
            RaftKind::AppendResponse if !message.reject && durable.hard_state.term <= message.term => {
                found.require(durable.last() >= message.index, "promises", || {
                    format!(
                        "acknowledges {}, its disk ends at {}",
                        message.index,
                        durable.last()
                    )
                });
                None
            }
            RaftKind::RequestPreVote
            | RaftKind::RequestPreVoteResponse
            | RaftKind::ReadIndex
            | RaftKind::ReadIndexResp => return,
            _ => None,
        };
        let term = message.term;
        let said = self.terms.entry(step.me).or_default();
        *said = term.max(*said);
        found.require(durable.hard_state.term >= term, "promises", || {
            format!(
                "speaks in term {term}, its disk is in term {}: {message:?}",
                durable.hard_state.term
            )
        });
        if let Some(candidate) = candidate {
            let first = *self
                .votes
                .entry((message.from, step.peer().disk.incarnation(), term))
                .or_insert(candidate);
            found.require(first == candidate, "promises", || {
                format!("votes for {candidate} in term {term}, has voted for {first}")
            });
            let on_disk = durable.hard_state;
            found.require(
                on_disk.term > term || on_disk.vote == Some(candidate),
                "promises",
                || format!("votes for {candidate} in term {term}, its disk says {on_disk:?}"),
            );
        }
    }
}
