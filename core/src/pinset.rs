//! The replicated state: applies committed commands to the pinset. Applying is a pure function of the state
//! and the entry; it reads no clock and no metric, and returns writes and outcomes.

use std::collections::{BTreeMap, BTreeSet};

use crate::command::{Command, Outcome, Precondition, Proposal};
use crate::credential;
use crate::draft::Draft;
use crate::drain;
use crate::effect::StoreOp;
use crate::ids::{Cid, Index, PeerId, ProposalId, RaftId, Term};
use crate::owners::{self, Release};
use crate::pin::{Mode, Pin};
use crate::planted::planted;
use crate::policy::Policy;
use crate::snapshot::{Applied, Manifest};
use crate::view::PinsetView;
use crate::window::Window;

/// Result of applying one proposal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    /// Id of the proposal.
    pub(crate) id: ProposalId,
    /// Outcome, for the proposer.
    pub(crate) outcome: Outcome,
    /// CID whose pin the tracker must re-evaluate.
    pub(crate) touched: Option<Cid>,
    /// Peers that a re-allocation removed from the pin.
    pub(crate) removed: Vec<PeerId>,
}

/// The part of the replicated state that is kept in memory: all but the pins.
pub(crate) struct Pinset {
    applied: Applied,
    windows: BTreeMap<RaftId, Window>,
}

impl Pinset {
    pub(crate) fn new(applied: Applied, windows: Vec<Window>) -> Self {
        let windows = windows
            .into_iter()
            .map(|window| (window.origin, window))
            .collect();
        Self { applied, windows }
    }

    pub(crate) fn applied(&self) -> Applied {
        self.applied
    }

    /// Replaces the state by that of a snapshot.
    pub(crate) fn restore(&mut self, manifest: &Manifest) {
        let windows = if planted!(SnapshotWithoutWindows) {
            Vec::new()
        } else {
            manifest.windows.clone()
        };
        *self = Self::new(manifest.applied, windows);
    }

    /// Returns whether a proposal has been applied.
    pub(crate) fn has_applied(&self, id: ProposalId) -> bool {
        self.windows
            .get(&id.origin)
            .is_some_and(|window| window.contains(id))
    }

    /// Applies a committed entry. Returns the results of the proposals that were not applied before.
    pub(crate) fn apply<V: PinsetView>(
        &mut self,
        draft: &mut Draft<'_, V>,
        index: Index,
        term: Term,
        proposals: Vec<Proposal>,
    ) -> Vec<Change> {
        assert!(
            index == self.applied.index + 1,
            "entry {index} follows {}",
            self.applied.index
        );
        assert!(term >= self.applied.term, "terms never decrease");
        let mut touched_windows = BTreeSet::new();
        let mut changes = Vec::new();
        for Proposal { id, command } in proposals {
            let window = self
                .windows
                .entry(id.origin)
                .or_insert_with(|| Window::new(id.origin, id.boot));
            if !window.admit(id) && !planted!(NoDedupe) {
                continue;
            }
            touched_windows.insert(id.origin);
            let removed = removed_peers(draft, &command);
            let (outcome, touched) = self.apply_command(draft, index, command);
            changes.push(Change {
                id,
                outcome,
                touched,
                removed,
            });
        }
        for origin in touched_windows {
            draft.ops.push(StoreOp::PutWindow {
                window: self.windows[&origin].clone(),
            });
        }
        self.applied.index = index;
        self.applied.term = term;
        changes
    }

    fn apply_command<V: PinsetView>(
        &mut self,
        draft: &mut Draft<'_, V>,
        index: Index,
        command: Command,
    ) -> (Outcome, Option<Cid>) {
        match command {
            // Membership commands take effect in the node, which routes them to `members`.
            Command::Admit { .. } => (Outcome::Admitted, None),
            Command::Members(wish) => (Outcome::Recorded(wish), None),
            Command::CreateCredential { credential } => {
                let changed = change_policy(draft, |policy| {
                    policy.credentials = credential::create(&policy.credentials, credential.clone())?;
                    Ok(Outcome::CredentialCreated(credential))
                });
                (changed.unwrap_or_else(Outcome::CredentialRefused), None)
            }
            Command::RevokeCredential { id } => {
                let changed = change_policy(draft, |policy| {
                    let (rest, revoked) = credential::revoke(&policy.credentials, id)?;
                    policy.credentials = rest;
                    Ok(Outcome::CredentialRevoked(revoked))
                });
                (changed.unwrap_or_else(Outcome::CredentialRefused), None)
            }
            Command::Drain { drain } => {
                let changed = change_policy(draft, |policy| {
                    let stored = drain::start(&mut policy.drains, drain)?;
                    Ok(Outcome::DrainStarted(stored))
                });
                (changed.unwrap_or_else(Outcome::DrainRefused), None)
            }
            Command::EndDrain { peer } => {
                let changed = change_policy(draft, |policy| {
                    let ended = drain::end(&mut policy.drains, &peer)?;
                    Ok(Outcome::DrainEnded(ended))
                });
                (changed.unwrap_or_else(Outcome::DrainRefused), None)
            }
            Command::Rebalance { change } => {
                let changed = change_policy(draft, |policy| {
                    policy.rebalance.apply(change)?;
                    Ok(Outcome::Rebalanced(policy.rebalance.clone()))
                });
                (changed.unwrap_or_else(Outcome::RebalanceRefused), None)
            }
            Command::Pin { pin, precondition } => self.apply_pin(draft, index, pin, precondition),
            Command::Reallocate {
                cid,
                allocations,
                version,
            } => (reallocate(draft, index, &cid, allocations, version), Some(cid)),
            Command::Unpin { cid, precondition } => {
                let Some(pin) = draft.pin(&cid) else {
                    return (Outcome::NotFound, None);
                };
                if !holds(precondition, Some(&pin)) && !planted!(UnpinUnchecked) {
                    return (Outcome::Stale, None);
                }
                self.delete_pin(draft, pin)
            }
            Command::Release { cid, owner } => self.release(draft, index, &cid, &owner),
        }
    }

    fn delete_pin<V: PinsetView>(&mut self, draft: &mut Draft<'_, V>, pin: Pin) -> (Outcome, Option<Cid>) {
        self.applied.pins -= 1;
        draft.delete_pin(pin.clone());
        let cid = pin.cid.clone();
        (Outcome::Unpinned(pin), Some(cid))
    }

    fn release<V: PinsetView>(
        &mut self,
        draft: &mut Draft<'_, V>,
        index: Index,
        cid: &Cid,
        owner: &str,
    ) -> (Outcome, Option<Cid>) {
        let Some(pin) = draft.pin(cid) else {
            return (Outcome::NotFound, None);
        };
        match owners::release(&pin, owner) {
            Release::NotHeld => (Outcome::NotFound, None),
            Release::Last => self.delete_pin(draft, pin),
            Release::Kept(options) => {
                let kept = Pin {
                    options,
                    version: index,
                    ..pin.clone()
                };
                draft.put_pin(kept, Some(pin.clone()));
                let cid = pin.cid.clone();
                (Outcome::Unpinned(pin), Some(cid))
            }
        }
    }

    fn apply_pin<V: PinsetView>(
        &mut self,
        draft: &mut Draft<'_, V>,
        index: Index,
        pin: Pin,
        precondition: Precondition,
    ) -> (Outcome, Option<Cid>) {
        let current = draft.pin(&pin.cid);
        if !holds(precondition, current.as_ref()) {
            return (Outcome::Stale, None);
        }
        let cid = pin.cid.clone();
        match current {
            Some(current) if current.is_equivalent(&pin) => {
                let touched = (!planted!(RepinUntouched)).then_some(cid);
                (Outcome::Pinned(current), touched)
            }
            Some(current) if current.pin_type != pin.pin_type && !planted!(TypeConflictIgnored) => {
                let why = "cannot repin a CID with a different type of pin, unpin it first".to_owned();
                (Outcome::Conflict(why), None)
            }
            Some(current)
                if current.options.mode == Mode::Recursive
                    && pin.options.mode == Mode::Direct
                    && !planted!(DirectOverRecursive) =>
            {
                let why = "cannot repin a CID which is already pinned in recursive mode as direct, \
                           unpin it first";
                (Outcome::Conflict(why.to_owned()), None)
            }
            current => {
                self.applied.pins += u64::from(current.is_none());
                let pin = Pin {
                    version: index,
                    ..pin
                };
                draft.put_pin(pin.clone(), current);
                (Outcome::Pinned(pin), Some(cid))
            }
        }
    }
}

/// Writes a changed policy, unless the change is refused.
fn change_policy<V: PinsetView, E>(
    draft: &mut Draft<'_, V>,
    change: impl FnOnce(&mut Policy) -> Result<Outcome, E>,
) -> Result<Outcome, E> {
    let mut policy = draft.policy();
    let outcome = change(&mut policy)?;
    draft.set_policy(policy);
    Ok(outcome)
}

/// Returns the peers that a re-allocation removes from the allocations of its pin.
fn removed_peers<V: PinsetView>(draft: &Draft<'_, V>, command: &Command) -> Vec<PeerId> {
    let Command::Reallocate { cid, allocations, .. } = command else {
        return Vec::new();
    };
    let old = draft.pin(cid).map(|pin| pin.allocations).unwrap_or_default();
    old.into_iter()
        .filter(|peer| !allocations.contains(peer))
        .collect()
}

fn reallocate<V: PinsetView>(
    draft: &mut Draft<'_, V>,
    index: Index,
    cid: &Cid,
    allocations: Vec<PeerId>,
    version: Index,
) -> Outcome {
    match draft.pin(cid) {
        None => Outcome::NotFound,
        Some(current) if current.version != version && !planted!(StaleAllocation) => Outcome::Stale,
        Some(current) => {
            let pin = Pin {
                allocations,
                version: if planted!(VersionKept) { version } else { index },
                ..current.clone()
            };
            draft.put_pin(pin.clone(), Some(current));
            Outcome::Pinned(pin)
        }
    }
}

fn holds(precondition: Precondition, pin: Option<&Pin>) -> bool {
    match precondition {
        Precondition::Absent => pin.is_none() || planted!(AbsentUnchecked),
        Precondition::Any => true,
        Precondition::Version(version) => pin.is_some_and(|pin| pin.version == version),
    }
}

#[cfg(test)]
mod tests;
