//! What this peer does about the pins that are allocated to it: for each CID, the state that is wanted
//! against the state that is there. What waits is queued on disk, in order; a bounded number of operations
//! runs at the IPFS node; failures are tried again for ever, each after a longer pause than the last.

mod lanes;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::TrackerConfig;
use crate::draft::Draft;
use crate::effect::{IpfsAction, StoreOp};
use crate::event::IpfsError;
use crate::ids::{Cid, Index, OpId, PeerId};
use crate::local::{Lane, Local, Phase, QueueKey};
use crate::pin::{Mode, Pin};
use crate::planted::planted;
use crate::rng::Rng;
use crate::time::{Instant, Now};
use crate::view::PinsetView;

use self::lanes::Lanes;

/// What comes out of the tracker. Its writes go straight into the draft.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Output {
    /// End this operation soon.
    Cancel { op: OpId },
    /// Begin this operation.
    Start { op: OpId, action: IpfsAction },
}

/// An operation at the IPFS node.
#[derive(Clone, Debug)]
struct Running {
    cid: Cid,
    /// The depth that is being pinned; `None` when it is being unpinned.
    pin: Option<Mode>,
    /// When it last got further, or was started.
    moved: Instant,
    /// When it counts as stuck.
    deadline: Instant,
    /// How long it may make no progress while others wait for its slot.
    patience: Duration,
    cancelled: bool,
}

impl Running {
    /// When to give up on it.
    fn ends(&self, others_wait: bool) -> Instant {
        if others_wait && self.pin.is_some() {
            self.deadline.min(self.moved + self.patience)
        } else {
            self.deadline
        }
    }
}

/// This peer's tracker.
pub(crate) struct Tracker {
    me: PeerId,
    config: TrackerConfig,
    rng: Rng,
    next_op: u64,
    running: BTreeMap<OpId, Running>,
    by_cid: BTreeMap<Cid, OpId>,
    lanes: Lanes,
    /// Where the comparison of the local state with a pinset that came in a snapshot has got to.
    reconciling: Option<Reconciling>,
    /// Pins that changed after this log position are pinned again while reconciling, whatever the local
    /// state says: it may be from before a power cut, and the content was unpinned in between.
    trusted: Index,
    /// Where putting failures back in line has got to.
    recovering: Option<Option<Cid>>,
}

/// Pins first, then the local states that no pin explains.
#[derive(Clone, Debug)]
enum Reconciling {
    Pins(Option<Cid>),
    Locals(Option<Cid>),
}

/// Records that are compared in one step, so that no step takes long.
const RECONCILE_CHUNK: usize = 256;

/// How long the first attempt at a pin may make no progress while others wait that were never tried. Content
/// that somebody has starts to arrive within this time; what nobody has must not block it.
const PATIENCE: Duration = Duration::from_secs(5);

/// The longest error text that is kept.
const ERROR_MAX: usize = 1024;

impl Tracker {
    pub(crate) fn new(me: PeerId, config: &TrackerConfig, reconciling: bool, seed: u64) -> Self {
        Self {
            me,
            config: config.clone(),
            rng: Rng::new(seed, 0x7472_6163),
            next_op: 0,
            running: BTreeMap::new(),
            by_cid: BTreeMap::new(),
            lanes: Lanes::default(),
            reconciling: reconciling.then_some(Reconciling::Pins(None)),
            trusted: 0,
            recovering: None,
        }
    }

    /// Reads on where a queue's head is used up. Must come before the first write of a step, which the view
    /// does not show.
    pub(crate) fn read_on(&mut self, view: &impl PinsetView) {
        if self.running.len() < self.config.concurrent_pins {
            self.lanes.fill(view);
        }
    }

    /// The CIDs that are being worked on, and whether they are being unpinned.
    pub(crate) fn running(&self) -> impl Iterator<Item = (&Cid, bool)> {
        self.running
            .values()
            .map(|running| (&running.cid, running.pin.is_none()))
    }

    /// A pin was added, changed or removed, or asked for again.
    pub(crate) fn touch<V: PinsetView>(
        &mut self,
        now: Now,
        draft: &mut Draft<'_, V>,
        cid: &Cid,
        index: Index,
        out: &mut Vec<Output>,
    ) {
        let pin = draft.pin(cid).filter(|pin| pin.is_allocated_to(&self.me));
        let local = draft.local(cid);
        match (pin, local) {
            (None, None) => {}
            (Some(pin), local) => self.want(now, draft, &pin, local, index, out),
            (None, Some(local)) => self.forget(now, draft, cid, local, index, out),
        }
    }

    fn want<V: PinsetView>(
        &mut self,
        now: Now,
        draft: &mut Draft<'_, V>,
        pin: &Pin,
        local: Option<Local>,
        index: Index,
        out: &mut Vec<Output>,
    ) {
        if let Some(running) = self.running_on(&pin.cid) {
            if running.pin == Some(pin.options.mode) && !running.cancelled {
                return;
            }
            self.cancel(&pin.cid, out);
        }
        let mode = pin.options.mode;
        let unchanged = local.as_ref().is_some_and(|local| {
            local.phase == Phase::Pinned && (local.mode == mode || planted!(ModeIgnored))
        });
        let waits_already = local
            .as_ref()
            .is_some_and(|local| local.phase == Phase::PinQueued && local.queued.is_some());
        if unchanged || waits_already {
            return;
        }
        let attempts = match &local {
            Some(local) if local.phase == Phase::PinError => local.attempts,
            Some(_) | None => 0,
        };
        let key = QueueKey {
            lane: Lane::Fresh,
            at: index,
            cid: pin.cid.clone(),
        };
        let next = Local {
            phase: Phase::PinQueued,
            attempts,
            ..fresh(now, mode)
        };
        self.queue(draft, &pin.cid, local, next, key);
    }

    fn forget<V: PinsetView>(
        &mut self,
        now: Now,
        draft: &mut Draft<'_, V>,
        cid: &Cid,
        local: Local,
        index: Index,
        out: &mut Vec<Output>,
    ) {
        if matches!(local.phase, Phase::UnpinQueued | Phase::UnpinError) {
            return;
        }
        // One that is not known to have been pinned may be there all the same: an operation of an earlier
        // process, or a cancelled one, may have had its effect.
        self.cancel(cid, out);
        let key = QueueKey {
            lane: Lane::Unpin,
            at: index,
            cid: cid.clone(),
        };
        let next = Local {
            phase: Phase::UnpinQueued,
            ..fresh(now, local.mode)
        };
        self.queue(draft, cid, Some(local), next, key);
    }

    /// Moves a CID to another place in the queues, and to the local state that goes with it.
    fn queue<V: PinsetView>(
        &mut self,
        draft: &mut Draft<'_, V>,
        cid: &Cid,
        previous: Option<Local>,
        next: Local,
        key: QueueKey,
    ) {
        if let Some(old) = previous.and_then(|local| local.queued) {
            self.lanes.remove(&old);
            draft.dequeue(old);
        }
        draft.enqueue(key.clone());
        self.lanes.add(key.clone());
        draft.put_local(
            cid,
            Local {
                queued: Some(key),
                ..next
            },
        );
    }

    fn running_on(&self, cid: &Cid) -> Option<&Running> {
        self.by_cid.get(cid).map(|op| &self.running[op])
    }

    fn cancel(&mut self, cid: &Cid, out: &mut Vec<Output>) {
        if let Some(op) = self.by_cid.get(cid) {
            let running = self.running.get_mut(op).expect("both maps agree");
            if !running.cancelled {
                running.cancelled = true;
                out.push(Output::Cancel { op: *op });
            }
        }
    }

    pub(crate) fn progressed(&mut self, now: Now, op: OpId) {
        if let Some(running) = self.running.get_mut(&op)
            && running.pin.is_some()
        {
            running.moved = now.mono;
            running.deadline = now.mono + self.config.pin_timeout;
        }
    }

    /// Whether every slot is taken while something waits that was never tried.
    fn others_wait(&self) -> bool {
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
        let wants_pin = matches!(local.phase, Phase::PinQueued | Phase::PinError);
        let overtaken = wants_pin != running.pin.is_some() || running.cancelled;
        if overtaken && !planted!(ForgetsOvertaking) {
            // It was overtaken: its CID stands in the queue of what is wanted.
            self.retry_if_lost(now, draft, &running, local, outcome);
            return;
        }
        match outcome {
            Ok(()) => {
                if let Some(key) = local.queued {
                    self.lanes.remove(&key);
                    draft.dequeue(key);
                }
                if wants_pin {
                    draft.put_local(
                        &running.cid,
                        Local {
                            phase: Phase::Pinned,
                            ..fresh(now, local.mode)
                        },
                    );
                } else {
                    draft.delete_local(&running.cid);
                }
            }
            Err(error) => self.failed(now, draft, &running.cid, local, error_text(error)),
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
        let wants_pin = matches!(local.phase, Phase::PinQueued | Phase::PinError);
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
        let attempts = local.attempts.saturating_add(1);
        let phase = match local.phase {
            Phase::PinError | Phase::PinQueued | Phase::Pinned => Phase::PinError,
            Phase::UnpinError | Phase::UnpinQueued => Phase::UnpinError,
        };
        error.truncate(error.floor_char_boundary(ERROR_MAX));
        let due = now.wall + self.pause(attempts);
        let key = QueueKey {
            lane: Lane::Retry,
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
        let pause = doubled.min(self.config.retry_max);
        let jitter = u32::try_from(self.rng.next() % 256).expect("below 256");
        pause * 3 / 4 + pause / 4 * jitter / 256
    }

    /// Puts one failure back in line, ahead of its time.
    pub(crate) fn recover<V: PinsetView>(&mut self, now: Now, draft: &mut Draft<'_, V>, cid: &Cid) -> bool {
        let Some(local) = draft.local(cid) else {
            return false;
        };
        let phase = match local.phase {
            Phase::PinError => Phase::PinQueued,
            Phase::UnpinError => Phase::UnpinQueued,
            Phase::PinQueued | Phase::Pinned | Phase::UnpinQueued => return false,
        };
        let key = QueueKey {
            lane: Lane::Retry,
            at: now.wall.0,
            cid: cid.clone(),
        };
        let next = Local {
            phase,
            since: now.wall,
            ..local.clone()
        };
        self.queue(draft, cid, Some(local), next, key);
        true
    }

    /// Puts every failure back in line, a chunk at a time.
    pub(crate) fn recover_all(&mut self) {
        self.recovering = Some(None);
    }

    /// The pinset was replaced: compares the local state with it, a chunk at a time.
    pub(crate) fn reconcile<V: PinsetView>(&mut self, draft: &mut Draft<'_, V>, before: Index) {
        if planted!(NoReconcile) {
            return;
        }
        // One that was under way trusted no more than it says.
        self.trusted = if self.reconciling.is_some() {
            self.trusted.min(before)
        } else {
            before
        };
        self.reconciling = Some(Reconciling::Pins(None));
        draft.ops.push(StoreOp::SetReconciling { reconciling: true });
    }

    /// Pins again what counts as pinned, where that may be from before the pin changed.
    fn distrust<V: PinsetView>(&mut self, now: Now, draft: &mut Draft<'_, V>, pin: &Pin, index: Index) {
        let Some(local) = draft.local(&pin.cid) else {
            return;
        };
        if local.phase == Phase::Pinned && pin.version > self.trusted && pin.is_allocated_to(&self.me) {
            let key = QueueKey {
                lane: Lane::Fresh,
                at: index,
                cid: pin.cid.clone(),
            };
            let next = fresh(now, pin.options.mode);
            self.queue(draft, &pin.cid, Some(local), next, key);
        }
    }

    pub(crate) fn poll_timeout(&self, now: Now) -> Option<Instant> {
        if self.reconciling.is_some() || self.recovering.is_some() {
            return Some(Instant(0));
        }
        let others_wait = self.others_wait();
        let stuck = self
            .running
            .values()
            .filter(|running| !running.cancelled)
            .map(|running| running.ends(others_wait));
        let free = self.running.len() < self.config.concurrent_pins;
        let due = free.then(|| self.lanes.next_due(now)).flatten();
        stuck.chain(due).min()
    }

    /// Cancels what is stuck, goes on with what is done a chunk at a time.
    pub(crate) fn handle_timeout<V: PinsetView>(
        &mut self,
        now: Now,
        draft: &mut Draft<'_, V>,
        index: Index,
        out: &mut Vec<Output>,
    ) {
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
        if let Some(after) = self.recovering.take() {
            let chunk = draft.view.locals(after.as_ref(), RECONCILE_CHUNK);
            self.recovering = chunk.last().map(|(cid, _)| Some(cid.clone()));
            for (cid, _) in chunk {
                self.recover(now, draft, &cid);
            }
        }
        match self.reconciling.take() {
            None => {}
            Some(Reconciling::Pins(after)) => {
                let chunk = draft.view.pins(after.as_ref(), RECONCILE_CHUNK);
                let last = chunk.last().map(|pin| pin.cid.clone());
                self.reconciling = Some(match last {
                    Some(cid) => Reconciling::Pins(Some(cid)),
                    None => Reconciling::Locals(None),
                });
                for pin in chunk {
                    self.touch(now, draft, &pin.cid, index, out);
                    self.distrust(now, draft, &pin, index);
                }
            }
            Some(Reconciling::Locals(after)) => {
                let chunk = draft.view.locals(after.as_ref(), RECONCILE_CHUNK);
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

    /// Starts what waits, as far as there are free slots.
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
            self.begin(now, draft, &key.cid, &local, out);
        }
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
            Phase::PinError | Phase::PinQueued | Phase::Pinned => {
                // Where the queue and the pinset differ, they are being compared: that puts it right.
                let Some(pin) = wanted else { return };
                let mode = pin.options.mode;
                let action = IpfsAction::Pin {
                    cid: cid.clone(),
                    mode,
                    name: pin.options.name,
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

    /// Panics if what it remembers contradicts itself.
    pub(crate) fn check(&self) {
        assert!(
            self.running.len() <= self.config.concurrent_pins,
            "no more operations than allowed"
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

/// A local state without a past.
fn fresh(now: Now, mode: Mode) -> Local {
    Local {
        phase: Phase::PinQueued,
        mode,
        attempts: 0,
        error: String::new(),
        since: now.wall,
        queued: None,
    }
}

fn error_text(error: IpfsError) -> String {
    match error {
        IpfsError::Cancelled => "cancelled by the IPFS node".to_owned(),
        IpfsError::Failed(text) => text,
    }
}
