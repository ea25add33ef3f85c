//! Election safety: a term has one leader.

use std::collections::BTreeMap;

use cluster_core::Term;

use super::{Found, Step};

/// Leader of each term.
#[derive(Debug, Default)]
pub(super) struct Election {
    leaders: BTreeMap<Term, usize>,
}

impl Election {
    /// Returns the term when the peer has just come to lead it.
    pub(super) fn after_step(&mut self, step: &Step<'_>, found: &mut Found<'_>) -> Option<Term> {
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
