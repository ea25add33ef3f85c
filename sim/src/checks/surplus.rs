//! A surplus copy is removed only when as many allocated peers hold the content as the pin needs.

use std::collections::BTreeSet;

use cluster_core::{Cid, Effect, IpfsAction, Lane, Local, Phase, Pin, Replicas, StoreOp};

use super::received::Heard;
use super::{Findings, Step};
use crate::model::Model;
use crate::options::Options;
use crate::store::Store;

/// Copies that each peer records as held, and surplus ones that wait.
#[derive(Debug)]
pub(super) struct Surplus {
    known: BTreeSet<(usize, Cid)>,
    /// Copies that wait until others have confirmed theirs.
    waiting: BTreeSet<(usize, Cid)>,
    /// True if IPFS nodes lose pins without a request: then the check is off.
    forgetful: bool,
}

impl Surplus {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            known: BTreeSet::new(),
            waiting: BTreeSet::new(),
            forgetful: options.loses_pins(),
        }
    }

    /// Reads the copies that a restarted peer knows of. Local states are not synced one by one: after a power
    /// cut a peer may hold a copy that it records as failed, and removes without asking others. Only the last
    /// few are affected, and the next comparison with the IPFS node would find them.
    pub(super) fn booted(&mut self, me: usize, store: &Store) {
        let failed = |cid: &Cid| {
            let local = store.locals.get(cid);
            local.is_none_or(|local| local.phase == Phase::PinError)
        };
        self.known.retain(|(peer, cid)| *peer != me || !failed(cid));
        self.waiting.retain(|(peer, _)| *peer != me);
        let waiting = store
            .locals
            .iter()
            .filter(|(_, local)| lane(local) == Some(Lane::Surplus));
        self.waiting.extend(waiting.map(|(cid, _)| (me, cid.clone())));
    }

    pub(super) fn after_step(
        &mut self,
        step: &Step<'_>,
        model: &Model,
        heard: &Heard,
        found: &mut Findings<'_>,
    ) {
        for op in step.writes() {
            if let StoreOp::PutLocal { cid, local } = op {
                let waited = self.waiting.remove(&(step.me, cid.clone()));
                match lane(local) {
                    Some(Lane::Surplus) => drop(self.waiting.insert((step.me, cid.clone()))),
                    Some(Lane::Unpin) if waited => of_release(step, cid, heard, found),
                    Some(Lane::Fresh | Lane::Retry | Lane::Unpin) | None => {}
                }
            }
        }
        if self.forgetful {
            return;
        }
        for op in step.writes() {
            if let StoreOp::PutLocal { cid, local } = op {
                if local.phase == Phase::Pinned {
                    self.known.insert((step.me, cid.clone()));
                } else if local.phase == Phase::PinError {
                    self.known.remove(&(step.me, cid.clone()));
                }
            }
        }
        for effect in step.effects {
            if let Effect::StartIpfs {
                action: IpfsAction::Unpin { cid },
                ..
            } = effect
                && self.known.remove(&(step.me, cid.clone()))
            {
                self.of_unpin(step, cid, model, found);
            }
        }
    }

    fn of_unpin(&self, step: &Step<'_>, cid: &Cid, model: &Model, found: &mut Findings<'_>) {
        let seen = step.peer().disk.written.pins.get(cid);
        let Some(pin) = seen.filter(|pin| model.pins().get(cid) == Some(pin)) else {
            return;
        };
        let mode = pin.options.mode;
        let there = |me: usize| step.peers[me].ipfs.holds(cid, mode);
        let least = least(pin);
        let holds =
            |other: &usize| *other != step.me && pin.is_allocated_to(&step.peers[*other].id) && there(*other);
        let others = (0..step.peers.len()).filter(holds).count();
        found.require(others >= least || !there(step.me), "surplus", || {
            format!("unpins its copy, which leaves {others} of {least}: {pin:?}")
        });
    }
}

fn lane(local: &Local) -> Option<Lane> {
    local.queued.as_ref().map(|key| key.lane)
}

/// Returns the number of other copies that a pin needs before a surplus one may be removed.
fn least(pin: &Pin) -> usize {
    let least = match pin.options.replicas {
        Replicas::Everywhere => 1,
        Replicas::Range { min, .. } => min as usize,
    };
    least.clamp(1, pin.allocations.len().max(1))
}

/// Checks that a copy stops waiting only when enough of the allocated peers have confirmed that they hold
/// this version of the pin, or the pin is gone.
fn of_release(step: &Step<'_>, cid: &Cid, heard: &Heard, found: &mut Findings<'_>) {
    // A snapshot may have replaced the pin that was asked about. Until the peer has reconciled with it, it
    // asks again before it unpins (seed 51847).
    if step.peer().disk.written.reconciling {
        return;
    }
    let states = step.pin_states(cid);
    let process = heard.of(step.me);
    let confirmations = |pin: &Pin| process.confirmations(cid, pin.version, &pin.allocations);
    let is_enough = |pin: &Option<Pin>| match pin {
        Some(pin) => confirmations(pin) >= least(pin),
        None => true,
    };
    found.require(states.iter().any(is_enough), "surplus", || {
        let counts: Vec<usize> = states.iter().flatten().map(confirmations).collect();
        format!("gives its copy of {cid} up after {counts:?} confirmations: {states:?}")
    });
}
