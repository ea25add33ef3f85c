//! A copy that the cluster has given to others goes only when as many of them hold it as the pin needs.

use std::collections::BTreeSet;

use cluster_core::{Cid, Effect, IpfsAction, Phase, Replicas, StoreOp};

use super::{Found, Step};
use crate::model::Model;
use crate::options::Options;
use crate::store::Store;

/// The copies that each peer knows of.
#[derive(Debug)]
pub(super) struct Surplus {
    known: BTreeSet<(usize, Cid)>,
    /// Copies go that nobody gave up: then nothing can be said.
    forgetful: bool,
}

impl Surplus {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            known: BTreeSet::new(),
            forgetful: options.ipfs_forget_every > 0,
        }
    }

    /// Notes of what was pinned are not synced, one by one that would cost too much: after a power cut a copy
    /// may be there that the peer takes for one that failed, and which therefore is no loss to it. Only the
    /// very last ones are, and the next comparison with the IPFS node would have found them.
    pub(super) fn booted(&mut self, me: usize, store: &Store) {
        let failed = |cid: &Cid| {
            let local = store.locals.get(cid);
            local.is_none_or(|local| local.phase == Phase::PinError)
        };
        self.known.retain(|(peer, cid)| *peer != me || !failed(cid));
    }

    pub(super) fn after_step(&mut self, step: &Step<'_>, model: &Model, found: &mut Found<'_>) {
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

    fn of_unpin(&self, step: &Step<'_>, cid: &Cid, model: &Model, found: &mut Found<'_>) {
        let seen = step.peer().disk.written.pins.get(cid);
        let Some(pin) = seen.filter(|pin| model.pins().get(cid) == Some(pin)) else {
            return;
        };
        let mode = pin.options.mode;
        let there = |me: usize| step.peers[me].ipfs.holds(cid, mode);
        let least = match pin.options.replicas {
            Replicas::Everywhere => 1,
            Replicas::Range { min, .. } => min as usize,
        };
        let least = least.clamp(1, pin.allocations.len().max(1));
        let holds =
            |other: &usize| *other != step.me && pin.is_allocated_to(&step.peers[*other].id) && there(*other);
        let others = (0..step.peers.len()).filter(holds).count();
        found.require(others >= least || !there(step.me), "surplus", || {
            format!("unpins its copy, which leaves {others} of {least}: {pin:?}")
        });
    }
}
