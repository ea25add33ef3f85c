//! Everything that starts with an id ends with that id, exactly once: tickets, batches, operations,
//! snapshots.

use std::collections::{BTreeMap, BTreeSet};

use cluster_core::{BatchId, Cid, Effect, Event, IpfsAction, OpId, SnapshotId, StoreOp, Ticket};

use super::{Findings, Step};

/// Comparisons that clients may have asked for, and the one of everything.
const COMPARISONS_MAX: usize = 65;

/// Ids that are in use at one process.
#[derive(Debug, Clone, Default)]
struct Open {
    tickets: BTreeSet<Ticket>,
    last_batch: BatchId,
    last_op: OpId,
    ops: BTreeMap<OpId, Cid>,
    snapshots: BTreeSet<SnapshotId>,
    comparisons: BTreeSet<OpId>,
}

/// Ids that are in use at all processes.
#[derive(Debug)]
pub(super) struct Ids {
    open: Vec<Open>,
}

impl Ids {
    pub(super) fn new(size: usize) -> Self {
        Self {
            open: vec![Open::default(); size],
        }
    }

    pub(super) fn booted(&mut self, me: usize) {
        self.open[me] = Open::default();
    }

    pub(super) fn after_step(&mut self, step: &Step<'_>, found: &mut Findings<'_>) {
        let open = &mut self.open[step.me];
        step.events.iter().for_each(|event| open.after_event(event));
        for effect in step.effects {
            open.after_effect(effect, found);
        }
        found.require(open.snapshots.is_empty(), "snapshot", || {
            format!("{:?} are neither installed nor discarded", open.snapshots)
        });
    }
}

impl Open {
    fn after_event(&mut self, event: &Event) {
        match event {
            Event::Requested { ticket, .. } => {
                self.tickets.insert(*ticket);
            }
            Event::IpfsCompared { op, .. } => {
                self.comparisons.remove(op);
            }
            Event::IpfsFinished { op, .. } => {
                self.ops.remove(op);
            }
            Event::SnapshotReceived { snapshot, .. } => {
                self.snapshots.insert(*snapshot);
            }
            _ => {}
        }
    }

    fn after_effect(&mut self, effect: &Effect, found: &mut Findings<'_>) {
        match effect {
            Effect::CompareIpfs { op, .. } => {
                let last = std::mem::replace(&mut self.last_op, *op);
                found.require(*op > last, "operations", || {
                    format!("comparison {op} follows {last}")
                });
                self.comparisons.insert(*op);
                let all = self.comparisons.len();
                found.require(all <= COMPARISONS_MAX, "operations", || {
                    format!("{all} comparisons at once")
                });
            }
            Effect::DiscardSnapshot { snapshot } => {
                let known = self.snapshots.remove(snapshot);
                found.require(known, "snapshot", || {
                    format!("discards {snapshot}, which is not staged")
                });
            }
            Effect::Persist(batch) => {
                let last = std::mem::replace(&mut self.last_batch, batch.id);
                found.require(batch.id.0 == last.0 + 1, "batches", || {
                    format!("batch {} follows {last}", batch.id)
                });
                for op in &batch.ops {
                    if let StoreOp::InstallSnapshot { snapshot, .. } = op {
                        let known = self.snapshots.remove(snapshot);
                        found.require(known, "snapshot", || {
                            format!("installs {snapshot}, which is not staged")
                        });
                    }
                }
            }
            Effect::Reply { ticket, reply } => {
                let known = self.tickets.remove(ticket);
                found.require(known, "tickets", || {
                    format!("answers {ticket} again, with {reply:?}")
                });
            }
            Effect::StartIpfs { op, action } => {
                let last = std::mem::replace(&mut self.last_op, *op);
                found.require(*op > last, "operations", || {
                    format!("operation {op} follows {last}")
                });
                let (IpfsAction::Pin { cid, .. } | IpfsAction::Unpin { cid }) = action;
                let busy = self.ops.values().any(|other| other == cid);
                found.require(!busy, "operations", || format!("two operations on {cid} at once"));
                self.ops.insert(*op, cid.clone());
            }
            _ => {}
        }
    }
}
