//! Operations at the IPFS node start in order and when due, are cancelled when they make no progress and not
//! before, and are retried after a pause that doubles. A peer's records and reports of its copies are true.

use std::collections::BTreeMap;
use std::time::Duration;

use cluster_core::{
    Cid, CopyOf, Effect, Event, Instant, IpfsAction, Lane, Local, Message, Missing, Mode, OpId, Phase,
    QueueKey, Reply, Request, StoreOp, Timestamp,
};

use super::received::Heard;
use super::{Found, Step};
use crate::model::Model;
use crate::options::Options;
use crate::store::Store;

/// Longest time without progress of a first attempt while others wait: a second copy of the core's rule.
const PATIENCE: Duration = Duration::from_secs(5);

/// One operation of a process.
#[derive(Debug, Clone)]
struct Operation {
    cid: Cid,
    pin: Option<Mode>,
    moved: Instant,
    attempts: u32,
    cancelled: bool,
}

/// One comparison.
#[derive(Debug, Clone)]
struct Comparison {
    /// The only CID that is compared.
    cid: Option<Cid>,
    /// Number of pins that it has found missing.
    found: u64,
    began: Instant,
    moved: Instant,
    cancelled: bool,
}

/// Shortest pause after a comparison, as a multiple of its duration: a second copy of the core's rule.
const REST: u32 = 10;

/// One process.
#[derive(Debug, Clone, Default)]
struct Process {
    running: BTreeMap<OpId, Operation>,
    /// Failed attempts that are on record, the phase that they are of, and its time.
    attempts: BTreeMap<Cid, (u32, Phase, Timestamp)>,
    /// The failures that a client has asked to retry, and the timeouts until they must have been.
    recovering: Option<(BTreeMap<Cid, Local>, usize)>,
    comparing: BTreeMap<OpId, Comparison>,
    /// End of the pause after the last comparison of everything.
    rests: Option<Instant>,
    /// Start of the last periodic comparison of everything.
    began: Option<Instant>,
    applied: u64,
}

/// All processes, and their settings.
#[derive(Debug)]
pub(super) struct Operations {
    processes: Vec<Process>,
    pin_timeout: Duration,
    unpin_timeout: Duration,
    retry: [Duration; 2],
    compare: Duration,
    concurrent: usize,
    /// Local states that the core looks at in one step.
    chunk: usize,
    forgets: bool,
}

impl Operations {
    pub(super) fn new(options: &Options, size: usize) -> Self {
        let millis = Duration::from_millis;
        Self {
            processes: vec![Process::default(); size],
            pin_timeout: millis(options.pin_timeout_ms),
            unpin_timeout: millis(options.pin_timeout_ms * 2),
            retry: [millis(options.retry_min_ms), millis(options.retry_max_ms)],
            compare: millis(options.compare_ms),
            concurrent: usize::try_from(options.concurrent_pins.max(1)).expect("a small number"),
            chunk: usize::try_from(256 / options.shrink.max(1))
                .expect("a small number")
                .max(2),
            forgets: options.ipfs_forget_every > 0,
        }
    }

    pub(super) fn booted(&mut self, me: usize, store: &Store) {
        let attempts = store
            .locals
            .iter()
            .map(|(cid, local)| (cid.clone(), (local.attempts, local.phase, local.since)));
        self.processes[me] = Process {
            attempts: attempts.collect(),
            applied: store.applied.index,
            ..Process::default()
        };
    }

    pub(super) fn after_step(
        &mut self,
        step: &Step<'_>,
        heard: &Heard,
        model: &Model,
        found: &mut Found<'_>,
    ) {
        let mut process = std::mem::take(&mut self.processes[step.me]);
        let full = process.running.len() >= self.concurrent;
        for event in step.events {
            process.after_event(step, event);
        }
        for op in step.writes() {
            self.of_write(step, &mut process, op, found);
        }
        let compared = step
            .events
            .iter()
            .filter_map(|event| process.compared(step, event));
        let compared: Vec<Comparison> = compared.collect();
        for effect in step.effects {
            self.of_effect(step, &mut process, effect, full, model, found);
            if let Effect::Reply {
                ticket,
                reply: Ok(reply),
            } = effect
            {
                let request = heard.of(step.me).tickets.get(ticket);
                Self::of_reply(reply, request, &compared, found);
            }
        }
        if step.events.contains(&Event::TimedOut) {
            self.of_overdue(step, &process, found);
        }
        self.of_recovery(step, &mut process, found);
        process.applied = step.peer().disk.written.applied.index;
        self.processes[step.me] = process;
    }

    fn of_write(&self, step: &Step<'_>, process: &mut Process, op: &StoreOp, found: &mut Found<'_>) {
        match op {
            StoreOp::PutLocal { cid, local } => {
                let known = process
                    .attempts
                    .insert(cid.clone(), (local.attempts, local.phase, local.since));
                let (before, phase, since) = known.unwrap_or((0, Phase::PinQueued, local.since));
                let continues =
                    phase == Phase::PinError && matches!(local.phase, Phase::PinError | Phase::PinQueued);
                found.require(!continues || local.attempts >= before, "retries", || {
                    format!("forgets {before} failed attempts at {cid}: {local:?}")
                });
                self.of_local(step, cid, local, before, found);
                if local.phase == Phase::Lost {
                    process.count_missing(step, cid, since);
                }
            }
            StoreOp::DeleteLocal { cid } => {
                process.attempts.remove(cid);
            }
            StoreOp::InstallSnapshot { .. } => {
                let will = step.peer().disk.written.reconciling;
                let does = step
                    .writes()
                    .any(|op| matches!(op, StoreOp::SetReconciling { .. }));
                found.require(will || does, "reconciliation", || {
                    "installs a snapshot, and forgets at a restart to look at its local states".to_owned()
                });
            }
            StoreOp::SetReconciling { reconciling: false } => self.of_reconciled(step, found),
            StoreOp::Append { .. }
            | StoreOp::Compact { .. }
            | StoreOp::DeletePin { .. }
            | StoreOp::Dequeue { .. }
            | StoreOp::Enqueue { .. }
            | StoreOp::PutPin { .. }
            | StoreOp::PutWindow { .. }
            | StoreOp::SetApplied { .. }
            | StoreOp::SetHardState { .. }
            | StoreOp::SetMembers { .. }
            | StoreOp::SetReconciling { .. } => {}
        }
    }

    /// Once the local states agree with a snapshot, what counts as pinned is pinned, and what is allocated
    /// here has a local state.
    fn of_reconciled(&self, step: &Step<'_>, found: &mut Found<'_>) {
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

    fn of_local(&self, step: &Step<'_>, cid: &Cid, local: &Local, before: u32, found: &mut Found<'_>) {
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
            // A copy that nobody has confirmed is asked about again: that is no failure.
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

    fn of_effect(
        &self,
        step: &Step<'_>,
        process: &mut Process,
        effect: &Effect,
        full: bool,
        model: &Model,
        found: &mut Found<'_>,
    ) {
        match effect {
            Effect::StartIpfs { op, action } => {
                self.of_start(step, process, action, found);
                let (IpfsAction::Pin { cid, .. } | IpfsAction::Unpin { cid }) = action;
                let pin = match action {
                    IpfsAction::Pin { mode, .. } => Some(*mode),
                    IpfsAction::Unpin { .. } => None,
                };
                let local = step.peer().disk.written.locals.get(cid);
                process.running.insert(
                    *op,
                    Operation {
                        cid: cid.clone(),
                        pin,
                        moved: step.now.mono,
                        attempts: local.map_or(0, |local| local.attempts),
                        cancelled: false,
                    },
                );
            }
            Effect::CancelIpfs { op } => self.of_cancel(step, process, *op, full, found),
            Effect::CompareIpfs { op, cid } => self.of_comparison(step, process, *op, cid.as_ref(), found),
            Effect::Send { envelope, .. } => {
                if let Message::HasCopies(copies) = &envelope.message {
                    copies
                        .iter()
                        .for_each(|copy| self.of_copy(step, copy, model, found));
                }
            }
            Effect::DiscardSnapshot { .. }
            | Effect::Measure
            | Effect::Persist(_)
            | Effect::Reply { .. }
            | Effect::SendSnapshot { .. } => {}
        }
    }

    fn of_comparison(
        &self,
        step: &Step<'_>,
        process: &mut Process,
        op: OpId,
        cid: Option<&Cid>,
        found: &mut Found<'_>,
    ) {
        let everything = cid.is_none();
        let asked = step
            .events
            .iter()
            .any(|event| matches!(event, Event::Requested { .. } | Event::IpfsCompared { .. }));
        let now = step.now.mono;
        let soon = process.began.is_some_and(|last| now.since(last) < self.compare);
        found.require(!everything || asked || !soon, "comparisons", || {
            format!("compares everything again, before {:?} are over", self.compare)
        });
        let rests = process.rests.is_some_and(|until| now < until);
        found.require(!everything || asked || !rests, "comparisons", || {
            format!("compares everything again, before it has rested {REST} times as long as that took")
        });
        if everything && !asked {
            process.began = Some(now);
        }
        let comparison = Comparison {
            cid: cid.cloned(),
            found: 0,
            began: now,
            moved: now,
            cancelled: false,
        };
        process.comparing.insert(op, comparison);
        let all = process
            .comparing
            .values()
            .filter(|other| other.cid.is_none())
            .count();
        found.require(all <= 1, "comparisons", || format!("{all} of everything at once"));
    }

    fn of_copy(&self, step: &Step<'_>, copy: &CopyOf, model: &Model, found: &mut Found<'_>) {
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

    fn of_start(&self, step: &Step<'_>, process: &Process, action: &IpfsAction, found: &mut Found<'_>) {
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

    /// Queued operations start in order: unpins, then pins that were never tried, each in log order, then
    /// retries.
    fn of_order(&self, step: &Step<'_>, process: &Process, key: &QueueKey, found: &mut Found<'_>) {
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
        let starts = |effect: &Effect| match effect {
            Effect::StartIpfs { action, .. } => {
                let (IpfsAction::Pin { cid, .. } | IpfsAction::Unpin { cid }) = action;
                passed.is_some_and(|passed| passed.cid == *cid)
            }
            Effect::CancelIpfs { .. }
            | Effect::CompareIpfs { .. }
            | Effect::DiscardSnapshot { .. }
            | Effect::Measure
            | Effect::Persist(_)
            | Effect::Reply { .. }
            | Effect::Send { .. }
            | Effect::SendSnapshot { .. } => false,
        };
        let is_in_order = passed.is_none() || step.effects.iter().any(starts) || store.reconciling;
        found.require(is_in_order, "order", || {
            format!("starts {key:?} before {passed:?}")
        });
    }

    fn of_cancel(&self, step: &Step<'_>, process: &mut Process, op: OpId, full: bool, found: &mut Found<'_>) {
        if let Some(comparison) = process.comparing.get_mut(&op) {
            comparison.cancelled = true;
        }
        let Some(running) = process.running.get_mut(&op) else {
            return;
        };
        running.cancelled = true;
        let store = &step.peer().disk.written;
        let cid = &running.cid;
        let changed = step.writes().any(|op| match op {
            StoreOp::DeletePin { pin } | StoreOp::PutPin { pin, .. } => pin.cid == *cid,
            StoreOp::Append { .. }
            | StoreOp::Compact { .. }
            | StoreOp::DeleteLocal { .. }
            | StoreOp::Dequeue { .. }
            | StoreOp::Enqueue { .. }
            | StoreOp::InstallSnapshot { .. }
            | StoreOp::PutLocal { .. }
            | StoreOp::PutWindow { .. }
            | StoreOp::SetApplied { .. }
            | StoreOp::SetHardState { .. }
            | StoreOp::SetMembers { .. }
            | StoreOp::SetReconciling { .. } => false,
        });
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

    fn of_overdue(&self, step: &Step<'_>, process: &Process, found: &mut Found<'_>) {
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

    /// A request to retry all failures reaches each of them within as many timeouts as there are chunks.
    fn of_recovery(&self, step: &Step<'_>, process: &mut Process, found: &mut Found<'_>) {
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

    /// The answer to a `Sync` request is the number of missing pins, of a comparison that began after it.
    fn of_reply(
        reply: &Reply,
        request: Option<&(Request, Instant)>,
        ended: &[Comparison],
        found: &mut Found<'_>,
    ) {
        let (Reply::Synced(count), Some((Request::Sync { cid }, asked))) = (reply, request) else {
            return;
        };
        let answers =
            |ended: &Comparison| ended.found == *count && ended.began >= *asked && ended.cid == *cid;
        found.require(ended.iter().any(answers), "comparisons", || {
            format!("says that {count} pins were missing, to {request:?}: it were {ended:?}")
        });
    }
}

impl Process {
    /// Counts a CID that was found missing for the comparison that was the first to report it: for another
    /// one that reports it in the same step, it is queued already (seed 1193).
    fn count_missing(&mut self, step: &Step<'_>, cid: &Cid, since: Timestamp) {
        let reports = |missing: &Missing| missing.cid == *cid && missing.since == since;
        let by = step.events.iter().find_map(|event| match event {
            Event::IpfsLacks { op, missing } if missing.iter().any(reports) => Some(op),
            Event::IpfsCompared { .. }
            | Event::IpfsFinished { .. }
            | Event::IpfsLacks { .. }
            | Event::IpfsProgressed { .. }
            | Event::Measured { .. }
            | Event::Persisted { .. }
            | Event::Received { .. }
            | Event::Requested { .. }
            | Event::SnapshotReceived { .. }
            | Event::SnapshotSent { .. }
            | Event::TimedOut
            | Event::Unreachable { .. } => None,
        });
        if let Some(comparison) = by.and_then(|op| self.comparing.get_mut(op)) {
            comparison.found += 1;
        }
    }

    /// Returns the comparison that ends with this event, unless it fails.
    fn compared(&mut self, step: &Step<'_>, event: &Event) -> Option<Comparison> {
        match event {
            Event::IpfsCompared { op, outcome } => {
                let compared = self.comparing.remove(op)?;
                if compared.cid.is_none() {
                    let now = step.now.mono;
                    let rest = now.since(compared.began) * REST;
                    // One that fails has cost little.
                    self.rests = outcome.is_ok().then(|| now + rest);
                }
                outcome.is_ok().then_some(compared)
            }
            Event::IpfsFinished { .. }
            | Event::IpfsLacks { .. }
            | Event::IpfsProgressed { .. }
            | Event::Measured { .. }
            | Event::Persisted { .. }
            | Event::Received { .. }
            | Event::Requested { .. }
            | Event::SnapshotReceived { .. }
            | Event::SnapshotSent { .. }
            | Event::TimedOut
            | Event::Unreachable { .. } => None,
        }
    }

    fn after_event(&mut self, step: &Step<'_>, event: &Event) {
        match event {
            Event::IpfsFinished { op, .. } => {
                self.running.remove(op);
            }
            Event::IpfsProgressed { op } => {
                if let Some(running) = self.running.get_mut(op).filter(|running| running.pin.is_some()) {
                    running.moved = step.now.mono;
                }
                if let Some(comparison) = self.comparing.get_mut(op) {
                    comparison.moved = step.now.mono;
                }
            }
            Event::IpfsLacks { op, .. } => {
                if let Some(comparison) = self.comparing.get_mut(op) {
                    comparison.moved = step.now.mono;
                }
            }
            Event::IpfsCompared { .. }
            | Event::Measured { .. }
            | Event::Persisted { .. }
            | Event::Received { .. }
            | Event::Requested { .. }
            | Event::SnapshotReceived { .. }
            | Event::SnapshotSent { .. }
            | Event::TimedOut
            | Event::Unreachable { .. } => {}
        }
    }
}
