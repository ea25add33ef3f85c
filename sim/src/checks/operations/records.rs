//! Local states and the retries that they record, reports of copies, and recoveries that clients ask for.

use std::time::Duration;

use cluster_core::{Cid, CopyOf, Event, Lane, Local, Phase, Request};

use super::{Operations, Process};
use crate::checks::{Findings, Step};
use crate::model::Model;

impl Operations {
    pub(super) fn of_local(
        &self,
        step: &Step<'_>,
        cid: &Cid,
        local: &Local,
        before: u32,
        found: &mut Findings<'_>,
    ) {
        let ipfs = &step.peer().ipfs;
        let is_error = matches!(local.phase, Phase::PinError | Phase::UnpinError);
        let ended = step
            .events
            .iter()
            .any(|event| matches!(event, Event::IpfsFinished { .. }));
        if local.phase == Phase::Pinned && ended && !self.forgets {
            found.require(ipfs.holds(cid, local.mode), "copies", || {
                format!("takes {cid} for pinned, the IPFS node does not have it: {local:?}")
            });
        }
        let Some(key) = local.queued.as_ref().filter(|_| is_error && ended) else {
            return;
        };
        if local.since != step.now.wall || !matches!(key.lane, Lane::Retry | Lane::Surplus) {
            // Asking again about a copy that no peer has confirmed is not a failure.
            return;
        }
        found.require(local.attempts == before + 1, "retries", || {
            format!("counts {} attempts at {cid} after {before}", local.attempts)
        });
        let [min, max] = self.retry;
        let pause = min
            .saturating_mul(1 << (local.attempts.max(1) - 1).min(20))
            .min(max);
        let given = Duration::from_nanos(key.at.saturating_sub(step.now.wall.0));
        found.require((pause * 3 / 4..=pause).contains(&given), "retries", || {
            format!("tries {cid} again after {given:?} instead of {pause:?}: {local:?}")
        });
    }

    /// Checks that once the local states are reconciled with a snapshot, CIDs recorded as pinned are pinned,
    /// and allocated ones have a local state.
    pub(super) fn of_reconciled(&self, step: &Step<'_>, found: &mut Findings<'_>) {
        let (store, ipfs) = (&step.peer().disk.written, &step.peer().ipfs);
        let is_missing = |cid: &Cid, local: &Local| {
            local.phase == Phase::Pinned && !ipfs.holds(cid, local.mode) && !ipfs.is_running(cid)
        };
        let missing = store.locals.iter().find(|(cid, local)| is_missing(cid, local));
        found.require(missing.is_none() || self.forgets, "reconciliation", || {
            format!("takes {missing:?} for pinned, the IPFS node does not have it")
        });
        let own = &step.peer().id;
        let mut wanted = store.pins.values().filter(|pin| pin.is_allocated_to(own));
        let ignored = wanted.find(|pin| !store.locals.contains_key(&pin.cid));
        found.require(ignored.is_none(), "reconciliation", || {
            format!("does not pin {ignored:?}")
        });
    }

    pub(super) fn of_copy(&self, step: &Step<'_>, copy: &CopyOf, model: &Model, found: &mut Findings<'_>) {
        let states = step.pin_states(&copy.cid);
        // After a power cut a peer may be behind an unpin that it has carried out.
        let newest = model.pins().get(&copy.cid);
        let is_superseded = newest.is_none_or(|pin| pin.version > copy.version);
        let is_true = states.iter().flatten().any(|pin| {
            let holds = self.forgets || is_superseded || step.peer().ipfs.holds(&copy.cid, pin.options.mode);
            holds && pin.version == copy.version && pin.is_allocated_to(&step.peer().id)
        });
        found.require(is_true, "copies", || {
            format!("says that it holds {copy:?}, of {states:?}")
        });
    }

    /// Checks that a request to retry all failures retries each of them within as many timeouts as there are
    /// chunks.
    pub(super) fn of_recovery(&self, step: &Step<'_>, process: &mut Process, found: &mut Findings<'_>) {
        let store = &step.peer().disk.written;
        if let Some((failures, left)) = &mut process.recovering
            && step.events.contains(&Event::TimedOut)
        {
            *left -= 1;
            if *left == 0 {
                let missed = failures
                    .iter()
                    .find(|(cid, local)| store.locals.get(*cid) == Some(*local));
                found.require(missed.is_none(), "recovery", || {
                    format!("does not retry {missed:?}, which a client has asked for")
                });
                process.recovering = None;
            }
        }
        let all = Request::RecoverAll;
        let asks = |event: &Event| matches!(event, Event::Requested { request, .. } if *request == all);
        if step.events.iter().any(asks) {
            let is_failure =
                |local: &Local| matches!(local.phase, Phase::Lost | Phase::PinError | Phase::UnpinError);
            let failures = store.locals.iter().filter(|(_, local)| is_failure(local));
            let failures = failures
                .map(|(cid, local)| (cid.clone(), local.clone()))
                .collect();
            let timeouts = store.locals.len() / self.chunk + 3;
            process.recovering = Some((failures, timeouts));
        }
    }
}
