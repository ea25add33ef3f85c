//! Scans over all records, a chunk at a time: retries of all failures, and reconciliation of the local state
//! with an installed snapshot.

use super::{Output, Tracker, fresh, operations};
use crate::command::{Command, Proposal};
use crate::draft::Draft;
use crate::effect::StoreOp;
use crate::ids::{Cid, Index};
use crate::local::{Lane, Local, Phase, QueueKey};
use crate::pin::{Mode, Pin};
use crate::planted::{planted, scaled};
use crate::time::Now;
use crate::view::PinsetView;

/// Progress of a reconciliation: first all pins, then all local states, each up to a CID.
#[derive(Debug, Clone)]
pub(super) enum Reconciling {
    Pins(Option<Cid>),
    Locals(Option<Cid>),
}

/// Records per step, to keep steps short.
const CHUNK: usize = 256;

impl Tracker {
    pub(crate) fn recover<V: PinsetView>(&mut self, now: Now, draft: &mut Draft<'_, V>, cid: &Cid) -> bool {
        let Some(local) = draft.local(cid) else {
            return false;
        };
        let phase = match local.phase {
            Phase::Lost | Phase::PinError => Phase::PinQueued,
            Phase::UnpinError => Phase::UnpinQueued,
            Phase::PinQueued | Phase::Pinned | Phase::UnpinQueued => return false,
        };
        if planted!(RecoverIgnored) {
            return true;
        }
        let key = QueueKey {
            lane: operations::retry_lane(draft, cid, phase),
            at: now.wall.0,
            cid: cid.clone(),
        };
        let next = Local {
            phase,
            since: now.wall,
            attempts: if planted!(RecoverResetsAttempts) {
                0
            } else {
                local.attempts
            },
            ..local.clone()
        };
        self.queue_heads.put(draft, cid, Some(local), next, key);
        true
    }

    /// Starts to retry all failures, a chunk at a time.
    pub(crate) fn recover_all(&mut self) {
        self.recovering = Some(None);
    }

    /// Starts to reconcile the local state with an installed snapshot, a chunk at a time. `before` is the log
    /// index that was applied before it.
    pub(crate) fn reconcile<V: PinsetView>(&mut self, draft: &mut Draft<'_, V>, before: Index) {
        if planted!(NoReconcile) {
            return;
        }
        // An unfinished reconciliation trusted no later index.
        self.trusted = if self.reconciling.is_some() && !planted!(LateTrusted) {
            self.trusted.min(before)
        } else {
            before
        };
        self.reconciling = Some(Reconciling::Pins(None));
        if !planted!(ReconcilingForgotten) {
            draft.ops.push(StoreOp::SetReconciling { reconciling: true });
        }
    }

    /// Adds local states for pins of the unapplied log, before a snapshot replaces it. An earlier process may
    /// have applied these entries and pinned their content. If a power cut lost its unsynced local state, the
    /// synced log is the only record of that.
    pub(crate) fn track_unapplied_pins<V: PinsetView>(
        &mut self,
        now: Now,
        draft: &mut Draft<'_, V>,
        log: Vec<Proposal>,
    ) {
        for Proposal { command, .. } in log.into_iter().filter(|_| !planted!(UnappliedPinsForgotten)) {
            let (cid, mode) = match command {
                Command::Pin { pin, .. } if pin.is_allocated_to(&self.me) => (pin.cid, pin.options.mode),
                Command::Reallocate { cid, allocations, .. } if allocations.contains(&self.me) => {
                    (cid, Mode::Recursive)
                }
                Command::Admit { .. }
                | Command::CreateCredential { .. }
                | Command::Drain { .. }
                | Command::EndDrain { .. }
                | Command::Members(_)
                | Command::Pin { .. }
                | Command::Reallocate { .. }
                | Command::Rebalance { .. }
                | Command::Release { .. }
                | Command::RevokeCredential { .. }
                | Command::Unpin { .. } => continue,
            };
            if draft.local(&cid).is_none() {
                // Reconciliation then pins or unpins it.
                draft.put_local(&cid, fresh(now, mode));
            }
        }
    }

    /// Pins a CID again whose local state may be older than the last change of its pin.
    fn requeue_if_stale<V: PinsetView>(
        &mut self,
        now: Now,
        draft: &mut Draft<'_, V>,
        pin: &Pin,
        index: Index,
    ) {
        let Some(local) = draft.local(&pin.cid) else {
            return;
        };
        let is_doubtful = pin.version > self.trusted && !planted!(DistrustDropped);
        if local.phase == Phase::Pinned && is_doubtful && pin.is_allocated_to(&self.me) {
            let key = QueueKey {
                lane: Lane::Fresh,
                at: index,
                cid: pin.cid.clone(),
            };
            let next = fresh(now, pin.options.mode);
            self.queue_heads.put(draft, &pin.cid, Some(local), next, key);
        }
    }

    /// Continues the scans by one chunk each.
    pub(super) fn continue_scans<V: PinsetView>(
        &mut self,
        now: Now,
        draft: &mut Draft<'_, V>,
        index: Index,
        out: &mut Vec<Output>,
    ) {
        if let Some(after) = self.recovering.take() {
            let chunk = draft.view.locals(after.as_ref(), scaled(CHUNK));
            self.recovering = chunk
                .last()
                .filter(|_| !planted!(RecoverAllStops))
                .map(|(cid, _)| Some(cid.clone()));
            for (cid, _) in chunk {
                self.recover(now, draft, &cid);
            }
        }
        match self.reconciling.take() {
            None => {}
            Some(Reconciling::Pins(after)) => {
                let chunk = draft.view.pins(after.as_ref(), scaled(CHUNK));
                let last = chunk.last().map(|pin| pin.cid.clone());
                self.reconciling = Some(match last {
                    Some(_) if planted!(PinsReconciledOnce) => Reconciling::Locals(None),
                    Some(cid) => Reconciling::Pins(Some(cid)),
                    None if planted!(LocalsNotReconciled) => {
                        draft.ops.push(StoreOp::SetReconciling { reconciling: false });
                        self.reconciling = None;
                        return;
                    }
                    None => Reconciling::Locals(None),
                });
                for pin in chunk {
                    self.touch(now, draft, &pin.cid, index, out);
                    self.requeue_if_stale(now, draft, &pin, index);
                }
            }
            Some(Reconciling::Locals(after)) => {
                let chunk = draft.view.locals(after.as_ref(), scaled(CHUNK));
                match chunk.last() {
                    Some((cid, _)) => self.reconciling = Some(Reconciling::Locals(Some(cid.clone()))),
                    None => draft.ops.push(StoreOp::SetReconciling { reconciling: false }),
                }
                for (cid, _) in chunk {
                    self.touch(now, draft, &cid, index, out);
                }
            }
        }
    }
}
