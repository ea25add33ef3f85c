//! Batch under construction in one call of `handle`, with reads that include its own writes.

use std::collections::BTreeMap;

use crate::effect::StoreOp;
use crate::ids::Cid;
use crate::local::{Local, QueueKey};
use crate::pin::Pin;
use crate::policy::Policy;
use crate::view::PinsetView;

/// Writes of the batch under construction, over a view of the writes before it.
pub(crate) struct Draft<'a, V> {
    /// State on disk, without the writes of this batch.
    pub(crate) view: &'a V,
    /// Writes of this batch, in order.
    pub(crate) ops: Vec<StoreOp>,
    /// Set if a message or reply depends on the batch being durable.
    pub(crate) sync: bool,
    pins: BTreeMap<Cid, Option<Pin>>,
    locals: BTreeMap<Cid, Option<Local>>,
    policy: Option<Policy>,
}

impl<'a, V: PinsetView> Draft<'a, V> {
    pub(crate) fn new(view: &'a V) -> Self {
        Self {
            view,
            ops: Vec::new(),
            sync: false,
            pins: BTreeMap::new(),
            locals: BTreeMap::new(),
            policy: None,
        }
    }

    pub(crate) fn pin(&self, cid: &Cid) -> Option<Pin> {
        self.pins.get(cid).cloned().unwrap_or_else(|| self.view.pin(cid))
    }

    pub(crate) fn local(&self, cid: &Cid) -> Option<Local> {
        self.locals
            .get(cid)
            .cloned()
            .unwrap_or_else(|| self.view.local(cid))
    }

    pub(crate) fn policy(&self) -> Policy {
        self.policy.clone().unwrap_or_else(|| self.view.policy())
    }

    pub(crate) fn set_policy(&mut self, policy: Policy) {
        self.policy = Some(policy.clone());
        self.ops.push(StoreOp::SetPolicy { policy });
    }

    pub(crate) fn put_pin(&mut self, pin: Pin, previous: Option<Pin>) {
        self.pins.insert(pin.cid.clone(), Some(pin.clone()));
        let previous = previous.map(Box::new);
        self.ops.push(StoreOp::PutPin { pin, previous });
    }

    pub(crate) fn delete_pin(&mut self, pin: Pin) {
        self.pins.insert(pin.cid.clone(), None);
        self.ops.push(StoreOp::DeletePin { pin });
    }

    pub(crate) fn put_local(&mut self, cid: &Cid, local: Local) {
        self.locals.insert(cid.clone(), Some(local.clone()));
        self.ops.push(StoreOp::PutLocal {
            cid: cid.clone(),
            local,
        });
    }

    pub(crate) fn delete_local(&mut self, cid: &Cid) {
        self.locals.insert(cid.clone(), None);
        self.ops.push(StoreOp::DeleteLocal { cid: cid.clone() });
    }

    pub(crate) fn enqueue(&mut self, key: QueueKey) {
        self.ops.push(StoreOp::Enqueue { key });
    }

    pub(crate) fn dequeue(&mut self, key: QueueKey) {
        self.ops.push(StoreOp::Dequeue { key });
    }
}
