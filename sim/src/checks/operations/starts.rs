//! Starts and cancellations of operations.

use std::time::Duration;

use cluster_core::{Effect, IpfsAction, Lane, OpId, QueueKey, StoreOp};

use super::{Operations, Process};
use crate::checks::{Findings, Step};

/// Maximum time without progress of a first attempt while others wait: a second copy of the core's rule.
const PATIENCE: Duration = Duration::from_secs(5);

impl Operations {
    pub(super) fn of_start(
        &self,
        step: &Step<'_>,
        process: &Process,
        action: &IpfsAction,
        found: &mut Findings<'_>,
    ) {
        let store = &step.peer().disk.written;
        let (IpfsAction::Pin { cid, .. } | IpfsAction::Unpin { cid }) = action;
        if let (
            IpfsAction::Pin {
                name,
                origins,
                update_from,
                ..
            },
            Some(pin),
        ) = (action, store.pins.get(cid))
        {
            let options = &pin.options;
            let as_wished =
                *name == options.name && *origins == options.origins && *update_from == options.pin_update;
            found.require(as_wished, "tracker", || format!("pins {pin:?} by {action:?}"));
        }
        let Some(key) = store.locals.get(cid).and_then(|local| local.queued.as_ref()) else {
            found.safety_violation("tracker", format!("works on {cid}, which is not queued"));
            return;
        };
        let due = match key.lane {
            Lane::Fresh | Lane::Unpin => true,
            Lane::Retry => key.at <= step.now.wall.0,
            Lane::Surplus => false,
        };
        found.require(due, "retries", || format!("works on {key:?}, which is not due"));
        self.of_order(step, process, key, found);
    }

    /// Checks that queued operations start in order: unpins, then pins that were never tried, each in log
    /// order, then retries.
    fn of_order(&self, step: &Step<'_>, process: &Process, key: &QueueKey, found: &mut Findings<'_>) {
        let store = &step.peer().disk.written;
        let goes_before = |other: &&QueueKey| match (key.lane, other.lane) {
            (Lane::Retry, Lane::Fresh | Lane::Unpin) | (Lane::Fresh, Lane::Unpin) => true,
            (Lane::Fresh, Lane::Fresh) | (Lane::Unpin, Lane::Unpin) => other.at < key.at,
            (_, _) => false,
        };
        let is_idle = |other: &&QueueKey| {
            let busy = process.running.values().any(|running| running.cid == other.cid);
            !busy && other.at <= process.applied && other.cid != key.cid
        };
        let lanes = [Lane::Unpin, Lane::Fresh].into_iter();
        let passed = lanes
            .flat_map(|lane| store.queued(lane))
            .filter(goes_before)
            .find(is_idle);
        let starts = |effect: &Effect| {
            let Effect::StartIpfs { action, .. } = effect else {
                return false;
            };
            let (IpfsAction::Pin { cid, .. } | IpfsAction::Unpin { cid }) = action;
            passed.is_some_and(|passed| passed.cid == *cid)
        };
        let is_in_order = passed.is_none() || step.effects.iter().any(starts) || store.reconciling;
        found.require(is_in_order, "order", || {
            format!("starts {key:?} before {passed:?}")
        });
    }

    pub(super) fn of_cancel(
        &self,
        step: &Step<'_>,
        process: &mut Process,
        op: OpId,
        full: bool,
        found: &mut Findings<'_>,
    ) {
        if let Some(comparison) = process.comparing.get_mut(&op) {
            comparison.cancelled = true;
        }
        let Some(running) = process.running.get_mut(&op) else {
            return;
        };
        running.cancelled = true;
        let store = &step.peer().disk.written;
        let cid = &running.cid;
        let changed = step.writes().any(
            |op| matches!(op, StoreOp::DeletePin { pin } | StoreOp::PutPin { pin, .. } if pin.cid == *cid),
        );
        let pin = store.pins.get(cid);
        let wanted = pin
            .filter(|pin| pin.is_allocated_to(&step.peer().id))
            .map(|pin| pin.options.mode);
        let differs = match running.pin {
            Some(mode) => wanted != Some(mode),
            None => pin.is_some(),
        };
        let still = step.now.mono.since(running.moved);
        let patience = PATIENCE.saturating_mul(1 << running.attempts.min(16));
        let stuck = match running.pin {
            Some(_) => still >= self.pin_timeout || (full && still >= patience),
            None => still >= self.unpin_timeout,
        };
        found.require(changed || differs || stuck, "patience", || {
            format!("gives {running:?} up after {still:?}")
        });
    }

    pub(super) fn of_overdue(&self, step: &Step<'_>, process: &Process, found: &mut Findings<'_>) {
        let late = process.running.values().find(|running| {
            let longest = if running.pin.is_some() {
                self.pin_timeout
            } else {
                self.unpin_timeout
            };
            !running.cancelled && step.now.mono.since(running.moved) >= longest
        });
        found.require(late.is_none(), "patience", || {
            format!("lets {late:?} stand still")
        });
        let stuck = process.comparing.values().find(|comparison| {
            !comparison.cancelled && step.now.mono.since(comparison.moved) >= self.pin_timeout
        });
        found.require(stuck.is_none(), "patience", || {
            format!("lets {stuck:?} stand still")
        });
    }
}
