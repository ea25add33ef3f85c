//! All peers apply one commit history, in order and without gaps, and the pinset and the policy of a
//! peer that has applied an index equal the model's as of that index. So no peer that has applied a
//! revocation accepts the credential.

use std::collections::{BTreeMap, BTreeSet};

use cluster_core::{Applied, Index, LogEntry, Members, PeerId, Pin, StoreOp, Term};

use super::log::Logs;
use super::oscillation::Oscillation;
use super::quorum::Quorums;
use super::wishes::Wishes;
use super::{Findings, Step, allocations};
use crate::coverage::Coverage;
use crate::model::Model;
use crate::rng;
use crate::store::Store;

/// A committed entry.
#[derive(Debug, Clone)]
pub(super) struct Committed {
    pub(super) entry: LogEntry,
    /// The term of the peer that was the first to apply it: it was committed in that term or before.
    pub(super) seen_in: Term,
}

/// The committed history, and the applied position of each peer.
pub(super) struct Commits {
    history: Vec<Committed>,
    model: Model,
    quorums: Quorums,
    wishes: Wishes,
    oscillation: Oscillation,
    applied: Vec<Index>,
    digests: Vec<u64>,
    /// Digest of the windows as of each index, from the first peer that applied it.
    windows: BTreeMap<Index, u64>,
}

impl Commits {
    pub(super) fn new(size: usize, shrink: u64) -> Self {
        Self {
            history: Vec::new(),
            model: Model::new(shrink),
            quorums: Quorums::new(size),
            wishes: Wishes::default(),
            oscillation: Oscillation::default(),
            applied: vec![0; size],
            digests: vec![0; size],
            windows: BTreeMap::new(),
        }
    }

    pub(super) fn decided(&self) -> Index {
        self.history.len() as u64
    }

    pub(super) fn model(&self) -> &Model {
        &self.model
    }

    pub(super) fn history(&self) -> &[Committed] {
        &self.history
    }

    /// Records the end of the faults.
    pub(super) fn calm_down(&mut self) {
        self.oscillation.calm_down();
    }

    /// Continues the history with a new cluster, of these members and the survivors that it adds.
    pub(super) fn rescued(&mut self, members: &Members, survivors: BTreeSet<PeerId>) {
        self.quorums.rescued(members);
        self.wishes.booted(members);
        self.wishes.expect(survivors);
    }

    pub(super) fn booted(&mut self, me: usize, store: &Store, found: &mut Findings<'_>) {
        self.quorums.booted(me, store);
        self.wishes.booted(&store.members);
        self.applied[me] = store.applied.index;
        self.digests[me] = digest(store.pins.values());
        self.compare(me, store.applied, store, found);
    }

    pub(super) fn after_write(
        &mut self,
        step: &Step<'_>,
        op: &StoreOp,
        logs: &Logs,
        found: &mut Findings<'_>,
        coverage: &mut Coverage,
    ) {
        let me = step.me;
        self.quorums.after_write(step, op, self.applied[me], found);
        match op {
            StoreOp::PutPin { pin, previous } => {
                self.digests[me] ^= previous.as_deref().map_or(0, pin_digest) ^ pin_digest(pin);
            }
            StoreOp::DeletePin { pin } => self.digests[me] ^= pin_digest(pin),
            StoreOp::InstallSnapshot { manifest, .. } => {
                let applied = manifest.applied;
                found.require(applied.index > self.applied[me], "snapshot", || {
                    format!("installs {applied:?}, but has applied {}", self.applied[me])
                });
                self.applied[me] = applied.index;
                let store = &step.peer().disk.written;
                self.digests[me] = digest(store.pins.values());
                self.compare(me, applied, store, found);
            }
            StoreOp::SetApplied { applied } => self.apply(step, *applied, logs, found, coverage),
            _ => {}
        }
    }

    fn apply(
        &mut self,
        step: &Step<'_>,
        applied: Applied,
        logs: &Logs,
        found: &mut Findings<'_>,
        coverage: &mut Coverage,
    ) {
        let me = step.me;
        for index in self.applied[me] + 1..=applied.index {
            let Some(entry) = logs.entry(me, index) else {
                found.safety_violation("apply", format!("applies {index}, which is not in its log"));
                return;
            };
            let position = usize::try_from(index - 1).expect("fits in memory");
            if let Some(canonical) = self.history.get(position) {
                found.require(canonical.entry == *entry, "state machine safety", || {
                    format!("applies {entry:?}, committed is {:?}", canonical.entry)
                });
                continue;
            }
            let seen_in = step.peer().node.as_ref().map_or(0, |node| node.view().term());
            self.quorums.of_new_commit(step, entry, found);
            self.wishes.of_commit(entry, found);
            for command in self.model.apply(entry, coverage) {
                allocations::of_command(step, &command, found);
                self.oscillation.of_command(&command, found);
            }
            self.history.push(Committed {
                entry: entry.clone(),
                seen_in,
            });
        }
        self.applied[me] = applied.index;
        self.compare(me, applied, &step.peer().disk.written, found);
    }

    /// Compares a peer's state with the model as of the same index.
    fn compare(&mut self, me: usize, applied: Applied, store: &Store, found: &mut Findings<'_>) {
        let Some(position) = applied.index.checked_sub(1) else {
            return;
        };
        let canonical = usize::try_from(position)
            .ok()
            .and_then(|position| self.history.get(position));
        let Some(canonical) = canonical else {
            found.safety_violation(
                "apply",
                format!("has applied {}, which nobody committed", applied.index),
            );
            return;
        };
        found.require(canonical.entry.term == applied.term, "apply", || {
            format!(
                "has applied {applied:?}, committed is term {}",
                canonical.entry.term
            )
        });
        let expected = self.model.digest_at(applied.index);
        found.require(expected == self.digests[me], "pinset", || {
            let mine: Vec<&Pin> = store.pins.values().collect();
            format!(
                "at {}: {mine:?}, the model has {:?}",
                applied.index,
                self.model.pins()
            )
        });
        let policy = self.model.policy_at(applied.index);
        found.require(store.policy == policy, "policy", || {
            format!(
                "at {}: {:?}, the model has {policy:?}",
                applied.index, store.policy
            )
        });
        let windows: Vec<_> = store.windows.values().collect();
        let windows = rng::hash(&cluster_core::encode(&windows));
        let first = *self.windows.entry(applied.index).or_insert(windows);
        found.require(first == windows, "windows", || {
            format!(
                "at {}: {:?}, another peer has others",
                applied.index, store.windows
            )
        });
    }
}

fn digest<'a>(pins: impl Iterator<Item = &'a Pin>) -> u64 {
    pins.fold(0, |digest, pin| digest ^ pin_digest(pin))
}

/// Returns a digest of one pin; those of a pinset are combined with exclusive or.
fn pin_digest(pin: &Pin) -> u64 {
    rng::hash(&cluster_core::encode(pin))
}
