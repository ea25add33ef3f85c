//! Leader completeness: the leader of a term has everything that was committed in earlier ones.

use cluster_core::Term;

use super::commits::Commits;
use super::{Findings, Step};

pub(super) fn of_new_leader(step: &Step<'_>, term: Term, commits: &Commits, found: &mut Findings<'_>) {
    let store = &step.peer().disk.written;
    for committed in commits.history() {
        let (index, entry_term) = (committed.entry.index, committed.entry.term);
        found.require(
            committed.seen_in >= term || store.holds(index, entry_term),
            "leader completeness",
            || format!("leads term {term} without entry {index} of term {entry_term}"),
        );
    }
}
