//! Log matching: entries of the same index and term are the same entry, and so are all before them.

use std::collections::BTreeMap;

use cluster_core::{Index, LogEntry, StoreOp, Term};

use super::{Findings, Step};
use crate::rng;
use crate::store::Store;

/// An entry that a peer has, or had.
#[derive(Debug)]
struct Known {
    entry: LogEntry,
    digest: u64,
    /// The term of the entry before it.
    previous: Term,
}

/// All entries that were ever written, and which of them each peer has.
#[derive(Debug)]
pub(super) struct Logs {
    known: BTreeMap<(Index, Term), Known>,
    terms: Vec<BTreeMap<Index, Term>>,
}

impl Logs {
    pub(super) fn new(size: usize) -> Self {
        Self {
            known: BTreeMap::new(),
            terms: vec![BTreeMap::new(); size],
        }
    }

    pub(super) fn booted(&mut self, me: usize, store: &Store) {
        let (index, term) = store.compacted;
        let mut terms: BTreeMap<Index, Term> = store
            .log
            .values()
            .map(|entry| (entry.index, entry.term))
            .collect();
        terms.insert(index, term);
        self.terms[me] = terms;
    }

    /// Accepts the entries that a rescue has rewritten.
    pub(super) fn rescued(&mut self, store: &Store) {
        for entry in store.log.values() {
            if let Some(known) = self.known.get_mut(&(entry.index, entry.term)) {
                known.digest = rng::hash(&cluster_core::encode(entry));
                known.entry = entry.clone();
            }
        }
    }

    pub(super) fn after_write(&mut self, step: &Step<'_>, op: &StoreOp, found: &mut Findings<'_>) {
        match op {
            StoreOp::Append { entries } => self.append(step.me, entries, found),
            StoreOp::InstallSnapshot { manifest, .. } => {
                let applied = manifest.applied;
                self.terms[step.me] = BTreeMap::from([(applied.index, applied.term)]);
            }
            _ => {}
        }
    }

    fn append(&mut self, me: usize, entries: &[LogEntry], found: &mut Findings<'_>) {
        let Some(first) = entries.first() else { return };
        let terms = &mut self.terms[me];
        terms.split_off(&first.index);
        for entry in entries {
            let previous = if entry.index == 1 {
                Some(0)
            } else {
                terms.get(&(entry.index - 1)).copied()
            };
            terms.insert(entry.index, entry.term);
            let Some(previous) = previous else {
                found.safety_violation("log matching", format!("appends {} after nothing", entry.index));
                continue;
            };
            let digest = rng::hash(&cluster_core::encode(entry));
            let known = self
                .known
                .entry((entry.index, entry.term))
                .or_insert_with(|| Known {
                    entry: entry.clone(),
                    digest,
                    previous,
                });
            found.require(
                known.digest == digest && known.previous == previous,
                "log matching",
                || {
                    let (index, term) = (entry.index, entry.term);
                    format!("entry {index} of term {term} after {previous} is {entry:?}, elsewhere {known:?}")
                },
            );
        }
    }

    /// Returns the entry that a peer has at an index.
    pub(super) fn entry(&self, me: usize, index: Index) -> Option<&LogEntry> {
        let term = self.terms[me].get(&index)?;
        self.known.get(&(index, *term)).map(|known| &known.entry)
    }
}
