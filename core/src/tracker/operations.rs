//! Operations on the IPFS node: start, progress, failure and end.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Output, Tracker, fresh};
use crate::draft::Draft;
use crate::effect::IpfsAction;
use crate::event::IpfsError;
use crate::ids::{Cid, OpId, PeerId};
use crate::local::{Lane, Local, Phase, QueueKey};
use crate::pin::Mode;
use crate::planted::planted;
use crate::time::{Instant, Now};
use crate::view::PinsetView;

/// Maximum time without progress of a first attempt while CIDs wait that were never tried. Available content
/// starts to arrive within this time; unavailable content must not block it.
const FIRST_STALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Attempts to pin that must find the node full before the copy moves to another peer: garbage may be
/// collected meanwhile.
const FULL_ATTEMPTS: u32 = 2;

/// Maximum number of copies that move here which are fetched beside the slots: they wait for their bytes, and
/// pins of clients must not wait behind them.
const MOVES_BESIDE_MAX: usize = 512;

/// Maximum length of an error text that is kept, in bytes.
const ERROR_MAX: usize = 1024;

/// A running operation on the IPFS node.
#[derive(Debug, Clone)]
pub(super) struct Running {
    pub(super) cid: Cid,
    /// Depth of a pin; `None` for an unpin.
    pub(super) pin: Option<Mode>,
    /// Time of the last progress, or of the start.
    last_progress: Instant,
    /// Time at which it counts as stuck.
    deadline: Instant,
    /// Maximum time without progress while other CIDs wait for its slot.
    stall_timeout: Duration,
    /// Set if it runs beside the slots.
    is_beside: bool,
    pub(super) cancelled: bool,
}

impl Running {
    /// Returns the time at which to cancel it.
    pub(super) fn stalls_at(&self, slots_are_contended: bool) -> Instant {
        if slots_are_contended && self.pin.is_some() && !self.is_beside {
            self.deadline.min(self.last_progress + self.stall_timeout)
        } else {
            self.deadline
        }
    }
}

/// The running operations, one for each CID.
#[derive(Debug)]
pub(super) struct Operations {
    /// Maximum number of concurrent operations but those beside the slots.
    slots: usize,
    /// Number of running operations beside the slots.
    beside: usize,
    running: BTreeMap<OpId, Running>,
    by_cid: BTreeMap<Cid, OpId>,
}

impl Operations {
    pub(super) fn new(slots: usize) -> Self {
        Self {
            slots,
            beside: 0,
            running: BTreeMap::new(),
            by_cid: BTreeMap::new(),
        }
    }

    pub(super) fn has_free_slot(&self) -> bool {
        self.running.len() - self.beside < self.slots
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Running> {
        self.running.values()
    }

    /// Returns the operation on a CID.
    pub(super) fn on(&self, cid: &Cid) -> Option<&Running> {
        self.by_cid.get(cid).map(|op| &self.running[op])
    }

    fn start(&mut self, op: OpId, running: Running) {
        self.beside += usize::from(running.is_beside);
        self.by_cid.insert(running.cid.clone(), op);
        self.running.insert(op, running);
    }

    fn finish(&mut self, op: OpId) -> Option<Running> {
        let running = self.running.remove(&op)?;
        self.by_cid.remove(&running.cid);
        self.beside -= usize::from(running.is_beside);
        Some(running)
    }

    /// Cancels the operation on a CID.
    pub(super) fn cancel(&mut self, cid: &Cid, out: &mut Vec<Output>) {
        if let Some(op) = self.by_cid.get(cid) {
            let running = self.running.get_mut(op).expect("both maps agree");
            if !running.cancelled && !planted!(CancelForgotten) {
                running.cancelled = true;
                out.push(Output::Cancel { op: *op });
            }
        }
    }

    /// Returns when the next operation is stuck: earlier if all slots are in use while CIDs are `untried`.
    pub(super) fn poll_timeout(&self, untried: bool) -> Option<Instant> {
        let contended = !self.has_free_slot() && untried;
        let running = self.running.values().filter(|running| !running.cancelled);
        running.map(|running| running.stalls_at(contended)).min()
    }

    /// Cancels stuck operations.
    pub(super) fn cancel_stuck(&mut self, now: Now, untried: bool, out: &mut Vec<Output>) {
        let contended = !self.has_free_slot() && untried;
        let mut stuck = Vec::new();
        for running in self.running.values_mut() {
            let stalls_at = running.stalls_at(contended);
            if !running.cancelled && stalls_at <= now.mono && !planted!(StuckPinStays) {
                running.deadline = stalls_at;
                stuck.push(running.cid.clone());
            }
        }
        for cid in stuck {
            self.cancel(&cid, out);
        }
    }

    pub(super) fn check(&self) {
        assert!(
            self.running.len() - self.beside <= self.slots && self.beside <= MOVES_BESIDE_MAX,
            "no more operations than allowed"
        );
        let beside = self.running.values().filter(|running| running.is_beside);
        assert!(
            beside.count() == self.beside,
            "operations beside the slots are counted"
        );
        assert!(
            self.running.len() == self.by_cid.len(),
            "one operation for each CID"
        );
        for (cid, op) in &self.by_cid {
            assert!(self.running[op].cid == *cid, "both maps agree");
        }
    }
}

impl Tracker {
    pub(crate) fn progressed(&mut self, now: Now, op: OpId) {
        if self.comparisons.extend_deadline(now, op) {
            return;
        }
        if let Some(running) = self.operations.running.get_mut(&op)
            && running.pin.is_some()
            && !planted!(ProgressIgnored)
        {
            running.last_progress = now.mono;
            running.deadline = now.mono + self.config.pin_timeout;
        }
    }

    /// Handles the end of an operation, whose purpose may be outdated by now.
    pub(crate) fn finished<V: PinsetView>(
        &mut self,
        now: Now,
        draft: &mut Draft<'_, V>,
        (op, outcome): (OpId, Result<(), IpfsError>),
        out: &mut Vec<Output>,
    ) {
        let Some(running) = self.operations.finish(op) else {
            return;
        };
        let Some(local) = draft.local(&running.cid) else {
            return;
        };
        let wants_pin = wants_pin(local.phase);
        let overtaken = wants_pin != running.pin.is_some() || running.cancelled;
        if overtaken && !planted!(ForgetsOvertaking) {
            // The queue has an entry for what is wanted now.
            self.resolve_cancelled(now, draft, &running, local, outcome);
            return;
        }
        match outcome {
            Ok(()) => self.succeeded(now, draft, &running, local),
            Err(_) if planted!(FailureIsSuccess) && wants_pin => {
                self.succeeded(now, draft, &running, local);
            }
            Err(_) if planted!(UnpinFailureIsSuccess) && !wants_pin => {
                self.succeeded(now, draft, &running, local);
            }
            Err(error) => {
                let is_full = matches!(error, IpfsError::Full(_)) && wants_pin;
                if is_full && local.attempts + 1 >= FULL_ATTEMPTS {
                    let cid = running.cid.clone();
                    out.push(Output::Outgrown { cid });
                }
                self.failed(now, draft, &running.cid, local, error_text(error));
            }
        }
    }

    fn succeeded<V: PinsetView>(
        &mut self,
        now: Now,
        draft: &mut Draft<'_, V>,
        running: &Running,
        local: Local,
    ) {
        if let Some(key) = local.queued {
            self.queue_heads.remove(&key);
            draft.dequeue(key);
        }
        if wants_pin(local.phase) {
            self.incoming.remove(&running.cid);
            // The depth may have changed while the pin was queued.
            let mode = running.pin.unwrap_or(local.mode);
            draft.put_local(
                &running.cid,
                Local {
                    phase: Phase::Pinned,
                    ..fresh(now, mode)
                },
            );
        } else {
            draft.delete_local(&running.cid);
        }
    }

    /// Lets the CID of a cancelled operation start again if it is queued. A stuck operation counts as failed.
    fn resolve_cancelled<V: PinsetView>(
        &mut self,
        now: Now,
        draft: &mut Draft<'_, V>,
        running: &Running,
        local: Local,
        outcome: Result<(), IpfsError>,
    ) {
        let wants_pin = wants_pin(local.phase);
        let stuck = running.cancelled && wants_pin == running.pin.is_some() && running.deadline <= now.mono;
        if stuck && outcome.is_err() {
            let error = format!(
                "no progress for {} s",
                now.mono.since(running.last_progress).as_secs()
            );
            self.failed(now, draft, &running.cid, local, error);
        } else if let Some(key) = local.queued {
            self.queue_heads.add(key);
        }
    }

    fn failed<V: PinsetView>(
        &mut self,
        now: Now,
        draft: &mut Draft<'_, V>,
        cid: &Cid,
        local: Local,
        mut error: String,
    ) {
        let attempts = if planted!(AttemptsForgotten) {
            1
        } else {
            local.attempts.saturating_add(1)
        };
        let phase = match local.phase {
            Phase::Lost | Phase::PinError | Phase::PinQueued | Phase::Pinned => Phase::PinError,
            Phase::UnpinError | Phase::UnpinQueued => Phase::UnpinError,
        };
        error.truncate(error.floor_char_boundary(ERROR_MAX));
        let due = now.wall + self.pause(attempts);
        let key = QueueKey {
            lane: retry_lane(draft, cid, phase),
            at: due.0,
            cid: cid.clone(),
        };
        let next = Local {
            phase,
            attempts,
            error,
            ..fresh(now, local.mode)
        };
        if planted!(RetryForgotten) {
            draft.put_local(cid, next);
            return;
        }
        self.queue_heads.put(draft, cid, Some(local), next, key);
    }

    /// Returns the pause before the next attempt. It doubles with each failure, up to the limit; the last
    /// quarter is random, so that simultaneous failures are not retried simultaneously.
    fn pause(&mut self, attempts: u32) -> Duration {
        let doubled = self.config.retry_min.saturating_mul(1 << (attempts - 1).min(20));
        if planted!(RetryAtOnce) {
            return Duration::ZERO;
        }
        let pause = if planted!(PauseUnlimited) {
            doubled
        } else {
            doubled.min(self.config.retry_max)
        };
        let jitter = u32::try_from(self.rng.next() % 256).expect("below 256");
        pause * 3 / 4 + pause / 4 * jitter / 256
    }

    pub(crate) fn start_ops<V: PinsetView>(
        &mut self,
        now: Now,
        draft: &mut Draft<'_, V>,
        is_alive: impl Fn(&PeerId) -> bool,
        out: &mut Vec<Output>,
    ) {
        while self.operations.has_free_slot() {
            let Some(key) = self.queue_heads.pop(now) else {
                break;
            };
            if self.operations.on(&key.cid).is_some() {
                // Its previous operation has not ended; `finished` adds it again.
                continue;
            }
            let Some(local) = draft
                .local(&key.cid)
                .filter(|local| local.queued.as_ref() == Some(&key))
            else {
                continue;
            };
            if self.may_be_surplus(draft, &key.cid, &local) {
                self.queue_unpin(now, draft, &key.cid, local, key.at, out);
            } else {
                self.start_op(now, draft, &key.cid, &local, out);
            }
        }
        self.ask_holders(now, draft, is_alive, out);
    }

    /// Returns whether a copy that is about to be unpinned may be a surplus copy of an installed snapshot's
    /// pin. The queue shows this only after the reconciliation; until then the new holders are asked, perhaps
    /// again.
    fn may_be_surplus<V: PinsetView>(&self, draft: &Draft<'_, V>, cid: &Cid, local: &Local) -> bool {
        let is_leaving = matches!(local.phase, Phase::UnpinQueued | Phase::UnpinError);
        is_leaving
            && self.reconciling.is_some()
            && draft.pin(cid).is_some_and(|pin| !pin.is_allocated_to(&self.me))
            && !planted!(SurplusAtOnce)
    }

    fn start_op<V: PinsetView>(
        &mut self,
        now: Now,
        draft: &mut Draft<'_, V>,
        cid: &Cid,
        local: &Local,
        out: &mut Vec<Output>,
    ) {
        let wanted = draft.pin(cid).filter(|pin| pin.is_allocated_to(&self.me));
        let mut is_move = false;
        let (action, pin, timeout) = match local.phase {
            Phase::Lost | Phase::PinError | Phase::PinQueued | Phase::Pinned => {
                // Reconciliation will correct a difference between queue and pinset.
                let Some(pin) = wanted else { return };
                let mode = pin.options.mode;
                is_move = self.incoming.contains(cid);
                let action = IpfsAction::Pin {
                    cid: cid.clone(),
                    mode,
                    name: if planted!(NameDropped) {
                        String::new()
                    } else {
                        pin.options.name
                    },
                    origins: pin.options.origins,
                    update_from: pin.options.pin_update,
                    is_move,
                };
                (action, Some(mode), self.config.pin_timeout)
            }
            Phase::UnpinError | Phase::UnpinQueued if wanted.is_some() => return,
            Phase::UnpinError | Phase::UnpinQueued => (
                IpfsAction::Unpin { cid: cid.clone() },
                None,
                self.config.unpin_timeout,
            ),
        };
        let op = self.op_ids.next();
        let deadline = now.mono + timeout;
        // Doubles with each failure, so that slow content is found eventually.
        let doublings = if planted!(PatienceConstant) {
            0
        } else {
            local.attempts.min(16)
        };
        let stall_timeout = FIRST_STALL_TIMEOUT.saturating_mul(1 << doublings);
        let running = Running {
            cid: cid.clone(),
            pin,
            last_progress: now.mono,
            deadline,
            stall_timeout,
            is_beside: is_move && self.operations.beside < MOVES_BESIDE_MAX,
            cancelled: false,
        };
        self.operations.start(op, running);
        out.push(Output::Start { op, action });
    }
}

pub(super) fn error_text(error: IpfsError) -> String {
    match error {
        IpfsError::Cancelled => "cancelled by the IPFS node".to_owned(),
        IpfsError::Failed(text) | IpfsError::Full(text) => text,
    }
}

/// Returns the queue for a retry. Surplus copies must be confirmed again.
pub(super) fn retry_lane<V: PinsetView>(draft: &Draft<'_, V>, cid: &Cid, phase: Phase) -> Lane {
    if !wants_pin(phase) && draft.pin(cid).is_some() {
        Lane::Surplus
    } else {
        Lane::Retry
    }
}

/// Returns whether the queued operation of a phase is a pin.
fn wants_pin(phase: Phase) -> bool {
    match phase {
        Phase::Lost | Phase::PinError | Phase::PinQueued => true,
        Phase::Pinned | Phase::UnpinError | Phase::UnpinQueued => false,
    }
}
