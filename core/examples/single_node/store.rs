//! An in-memory store. A durable one also keeps the log, the hard state, the membership and the windows.

use std::collections::{BTreeMap, BTreeSet};

use cluster_core::{Cid, Lane, Local, PeerId, Pin, PinsetView, Policy, QueueKey, StoreOp, Timestamp};

/// Pins, local states, queues and the policy, without indexes.
#[derive(Debug, Default)]
pub(crate) struct Store {
    pins: BTreeMap<Cid, Pin>,
    locals: BTreeMap<Cid, Local>,
    queue: BTreeSet<QueueKey>,
    policy: Policy,
}

impl Store {
    /// Applies one write of a batch.
    #[allow(clippy::wildcard_enum_match_arm, reason = "the others concern restarts only")]
    pub(crate) fn write(&mut self, op: StoreOp) {
        match op {
            StoreOp::DeleteLocal { cid } => drop(self.locals.remove(&cid)),
            StoreOp::DeletePin { pin } => drop(self.pins.remove(&pin.cid)),
            StoreOp::Dequeue { key } => assert!(self.queue.remove(&key)),
            StoreOp::Enqueue { key } => assert!(self.queue.insert(key)),
            StoreOp::PutLocal { cid, local } => drop(self.locals.insert(cid, local)),
            StoreOp::SetPolicy { policy } => self.policy = policy,
            StoreOp::PutPin { pin, .. } => drop(self.pins.insert(pin.cid.clone(), pin)),
            _ => {}
        }
    }
}

impl PinsetView for Store {
    fn pin(&self, cid: &Cid) -> Option<Pin> {
        self.pins.get(cid).cloned()
    }

    fn local(&self, cid: &Cid) -> Option<Local> {
        self.locals.get(cid).cloned()
    }

    fn pins(&self, after: Option<&Cid>, limit: usize) -> Vec<Pin> {
        let pins = self.pins.values().filter(|pin| Some(&pin.cid) > after);
        pins.take(limit).cloned().collect()
    }

    fn locals(&self, after: Option<&Cid>, limit: usize) -> Vec<(Cid, Local)> {
        let locals = self.locals.iter().filter(|(cid, _)| Some(*cid) > after);
        let locals = locals.map(|(cid, local)| (cid.clone(), local.clone()));
        locals.take(limit).collect()
    }

    fn queue(&self, lane: Lane, from: Option<&QueueKey>, limit: usize) -> Vec<QueueKey> {
        let keys = self
            .queue
            .iter()
            .filter(|key| key.lane == lane && Some(*key) >= from);
        keys.take(limit).cloned().collect()
    }

    fn allocated(&self, peer: &PeerId, after: Option<&Cid>, limit: usize) -> Vec<Cid> {
        let pins = self.pins.values().filter(|pin| pin.allocations.contains(peer));
        let cids = pins.map(|pin| &pin.cid).filter(|cid| Some(*cid) > after);
        cids.take(limit).cloned().collect()
    }

    fn expiring(&self, until: Timestamp, limit: usize) -> Vec<Cid> {
        let expiry = |pin: &Pin| pin.options.expire_at.map(|at| (at, pin.cid.clone()));
        let expiries: BTreeSet<(Timestamp, Cid)> = self.pins.values().filter_map(expiry).collect();
        let expired = expiries.into_iter().filter(|(at, _)| *at <= until);
        expired.map(|(_, cid)| cid).take(limit).collect()
    }

    fn policy(&self) -> Policy {
        self.policy.clone()
    }
}
