//! Operations at the IPFS node: how they start, get on, fail and end.

use super::*;
use crate::event::IpfsError;

/// How long the first attempt at a pin may make no progress while others wait that were never tried. Content
/// that somebody has starts to arrive within this time; what nobody has must not block it.
const PATIENCE: Duration = Duration::from_secs(5);

/// The longest error text that is kept.
const ERROR_MAX: usize = 1024;

/// An operation at the IPFS node.
#[derive(Debug, Clone)]
pub(super) struct Running {
    pub(super) cid: Cid,
    /// The depth that is being pinned; `None` when it is being unpinned.
    pub(super) pin: Option<Mode>,
    /// When it last got further, or was started.
    moved: Instant,
    /// When it counts as stuck.
    deadline: Instant,
    /// How long it may make no progress while others wait for its slot.
    patience: Duration,
    pub(super) cancelled: bool,
}

impl Running {
    /// When to give up on it.
    pub(super) fn ends(&self, others_wait: bool) -> Instant {
        if others_wait && self.pin.is_some() {
            self.deadline.min(self.moved + self.patience)
        } else {
            self.deadline
        }
    }
}

impl Tracker {
    pub(crate) fn progressed(&mut self, now: Now, op: OpId) {
        if self.compares_on(now, op) {
            return;
        }
        if let Some(running) = self.running.get_mut(&op)
            && running.pin.is_some()
        {
            if planted!(ProgressIgnored) {
                return;
            }
            running.moved = now.mono;
            running.deadline = now.mono + self.config.pin_timeout;
        }
    }

    /// Cancels what is stuck.
    pub(super) fn cancel_stuck(&mut self, now: Now, out: &mut Vec<Output>) {
        let others_wait = self.others_wait();
        let mut stuck = Vec::new();
        for running in self.running.values_mut() {
            let ends = running.ends(others_wait);
            if !running.cancelled && ends <= now.mono && !planted!(StuckPinStays) {
                running.deadline = ends;
                stuck.push(running.cid.clone());
            }
        }
        for cid in stuck {
            self.cancel(&cid, out);
        }
    }

    /// Whether every slot is taken while something waits that was never tried.
    pub(super) fn others_wait(&self) -> bool {
        self.running.len() >= self.config.concurrent_pins && self.lanes.has_untried()
    }

    /// An operation ended: what it was meant to do may not be wanted any more.
    pub(crate) fn finished<V: PinsetView>(
        &mut self,
        now: Now,
        draft: &mut Draft<'_, V>,
        op: OpId,
        outcome: Result<(), IpfsError>,
    ) {
        let Some(running) = self.running.remove(&op) else {
            return;
        };
        self.by_cid.remove(&running.cid);
        let Some(local) = draft.local(&running.cid) else {
            return;
        };
        let wants_pin = wants_pin(local.phase);
        let overtaken = wants_pin != running.pin.is_some() || running.cancelled;
        if overtaken && !planted!(ForgetsOvertaking) {
            // It was overtaken: its CID stands in the queue of what is wanted.
            self.retry_if_lost(now, draft, &running, local, outcome);
            return;
        }
        match outcome {
            Ok(()) => self.finished_well(now, draft, &running, local),
            Err(_) if planted!(FailureIsSuccess) && wants_pin => {
                self.finished_well(now, draft, &running, local);
            }
            Err(error) => self.failed(now, draft, &running.cid, local, error_text(error)),
        }
    }

    fn finished_well<V: PinsetView>(
        &mut self,
        now: Now,
        draft: &mut Draft<'_, V>,
        running: &Running,
        local: Local,
    ) {
        if let Some(key) = local.queued {
            self.lanes.remove(&key);
            draft.dequeue(key);
        }
        if wants_pin(local.phase) {
            // The depth may have changed while the pin stood in the queue.
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

    /// A cancelled operation whose CID still waits in the queue lets it go on; a stuck one counts as failed.
    fn retry_if_lost<V: PinsetView>(
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
            let error = format!("no progress for {} s", now.mono.since(running.moved).as_secs());
            self.failed(now, draft, &running.cid, local, error);
        } else if let Some(key) = local.queued {
            self.lanes.add(key);
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
        self.queue(draft, cid, Some(local), next, key);
    }

    /// Doubles with each failure, up to the limit; the last quarter is drawn, so that what failed together
    /// does not come back together.
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

    pub(crate) fn start<V: PinsetView>(&mut self, now: Now, draft: &mut Draft<'_, V>, out: &mut Vec<Output>) {
        while self.running.len() < self.config.concurrent_pins {
            let Some(key) = self.lanes.pop(now) else { break };
            if self.by_cid.contains_key(&key.cid) {
                // Its previous operation is still ending; `finished` puts it back.
                continue;
            }
            let Some(local) = draft
                .local(&key.cid)
                .filter(|local| local.queued.as_ref() == Some(&key))
            else {
                continue;
            };
            if self.may_be_surplus(draft, &key.cid, &local) {
                self.forget(now, draft, &key.cid, local, key.at, out);
            } else {
                self.begin(now, draft, &key.cid, &local, out);
            }
        }
        self.ask(now, draft, out);
    }

    /// Whether a copy that is about to go belongs to a pin that a snapshot may have given to others. Until
    /// the comparison with it is over, the queue does not tell: then they are asked, once more perhaps.
    fn may_be_surplus<V: PinsetView>(&self, draft: &Draft<'_, V>, cid: &Cid, local: &Local) -> bool {
        let is_leaving = matches!(local.phase, Phase::UnpinQueued | Phase::UnpinError);
        is_leaving
            && self.reconciling.is_some()
            && draft.pin(cid).is_some_and(|pin| !pin.is_allocated_to(&self.me))
            && !planted!(SurplusAtOnce)
    }

    fn begin<V: PinsetView>(
        &mut self,
        now: Now,
        draft: &mut Draft<'_, V>,
        cid: &Cid,
        local: &Local,
        out: &mut Vec<Output>,
    ) {
        let wanted = draft.pin(cid).filter(|pin| pin.is_allocated_to(&self.me));
        let (action, pin, timeout) = match local.phase {
            Phase::Lost | Phase::PinError | Phase::PinQueued | Phase::Pinned => {
                // Where the queue and the pinset differ, they are being compared: that puts it right.
                let Some(pin) = wanted else { return };
                let mode = pin.options.mode;
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
        self.next_op += 1;
        let op = OpId(self.next_op);
        let deadline = now.mono + timeout;
        // What failed before gets longer each time, so that content which is slow to find is found at last.
        let patience = PATIENCE.saturating_mul(1 << local.attempts.min(16));
        self.running.insert(
            op,
            Running {
                cid: cid.clone(),
                pin,
                moved: now.mono,
                deadline,
                patience,
                cancelled: false,
            },
        );
        self.by_cid.insert(cid.clone(), op);
        out.push(Output::Start { op, action });
    }
}

pub(super) fn error_text(error: IpfsError) -> String {
    match error {
        IpfsError::Cancelled => "cancelled by the IPFS node".to_owned(),
        IpfsError::Failed(text) => text,
    }
}

/// Where something waits to be tried again: a copy that others are to hold is asked about anew.
pub(super) fn retry_lane<V: PinsetView>(draft: &Draft<'_, V>, cid: &Cid, phase: Phase) -> Lane {
    if !wants_pin(phase) && draft.pin(cid).is_some() {
        Lane::Surplus
    } else {
        Lane::Retry
    }
}

/// Whether a CID in this phase, if it is queued, is to be pinned.
fn wants_pin(phase: Phase) -> bool {
    match phase {
        Phase::Lost | Phase::PinError | Phase::PinQueued => true,
        Phase::Pinned | Phase::UnpinError | Phase::UnpinQueued => false,
    }
}
