//! The tracker: makes this peer's IPFS node hold what is allocated to it, by comparing wanted and local state
//! of each CID. Waiting CIDs are queued on disk, in order; a bounded number of operations runs at once;
//! failures are retried indefinitely, with growing pauses.

mod comparisons;
mod incoming;
mod operations;
mod queue_heads;
mod scans;
mod surplus;

use crate::config::TrackerConfig;
use crate::draft::Draft;
use crate::effect::{IpfsAction, Refusal};
use crate::ids::{Cid, Index, OpId, PeerId, Ticket};
use crate::local::{Lane, Local, Phase, QueueKey};
use crate::pin::{Mode, Pin};
use crate::planted::planted;
use crate::rng::Rng;
use crate::time::{Instant, Now};
use crate::view::PinsetView;
use crate::wire::CopyOf;

use self::comparisons::Comparisons;
use self::incoming::Incoming;
use self::operations::Operations;
use self::queue_heads::QueueHeads;
use self::scans::Reconciling;
use self::surplus::Surplus;

/// Output of the tracker. Its writes go directly into the draft.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Output {
    /// Ask a peer which of these copies it holds.
    Ask { to: PeerId, copies: Vec<CopyOf> },
    /// Cancel an operation or comparison.
    Cancel { op: OpId },
    /// Compare the pinned CIDs with the IPFS node's pins.
    Compare { op: OpId, cid: Option<Cid> },
    /// Move a copy to another peer: this one has no room for it.
    Outgrown { cid: Cid },
    /// Start an operation.
    Start { op: OpId, action: IpfsAction },
    /// Report to a client how many pins a comparison found missing.
    Synced {
        ticket: Ticket,
        outcome: Result<u64, Refusal>,
    },
}

/// Ids of operations and comparisons, in the order of their starts.
#[derive(Debug, Default)]
struct OpIds(u64);

impl OpIds {
    fn next(&mut self) -> OpId {
        self.0 += 1;
        OpId(self.0)
    }
}

/// Tracker of this peer.
pub(crate) struct Tracker {
    me: PeerId,
    config: TrackerConfig,
    rng: Rng,
    op_ids: OpIds,
    operations: Operations,
    queue_heads: QueueHeads,
    /// Progress of the reconciliation with an installed snapshot.
    reconciling: Option<Reconciling>,
    /// Log index up to which the local state is reliable. While reconciling, pins that changed later are
    /// pinned again: after a power cut the local state may be older than an unpin.
    trusted: Index,
    /// Progress of [`Tracker::recover_all`]: the last CID.
    recovering: Option<Option<Cid>>,
    comparisons: Comparisons,
    surplus: Surplus,
    incoming: Incoming,
}

impl Tracker {
    pub(crate) fn new(me: PeerId, config: &TrackerConfig, reconciling: bool, seed: u64, now: Now) -> Self {
        Self {
            me,
            config: config.clone(),
            rng: Rng::new(seed, 0x7472_6163),
            op_ids: OpIds::default(),
            operations: Operations::new(config.concurrent_pins),
            queue_heads: QueueHeads::default(),
            reconciling: reconciling.then_some(Reconciling::Pins(None)),
            trusted: 0,
            recovering: None,
            comparisons: Comparisons::new(config, now),
            surplus: Surplus::default(),
            incoming: Incoming::default(),
        }
    }

    /// Refills empty queue heads from disk. Must be called before the first write of a step, which the view
    /// does not include.
    pub(crate) fn refill_queues(&mut self, view: &impl PinsetView) {
        let starts = self.operations.has_free_slot();
        // Also while operations occupy all slots, perhaps indefinitely.
        let asks = self.surplus.has_room() && (starts || !planted!(SurplusAwaitsSlot));
        self.queue_heads.fill(view, starts, asks);
    }

    /// Iterates over the CIDs with a running operation, and whether it is an unpin.
    pub(crate) fn running(&self) -> impl Iterator<Item = (&Cid, bool)> {
        self.operations
            .iter()
            .map(|running| (&running.cid, running.pin.is_none()))
    }

    /// Notes, before a pin is [re-evaluated](Tracker::touch), whether its last change moves a copy here whose
    /// bytes are limited.
    pub(crate) fn note_move(&mut self, cid: &Cid, is_move: bool) {
        if is_move {
            self.incoming.add(cid);
        } else {
            self.incoming.remove(cid);
        }
    }

    /// Re-evaluates a CID after its pin was added, changed, removed or requested again.
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
        if let Some(key) = self.surplus.discard(cid) {
            self.queue_heads.add(key);
        }
        match (pin, local) {
            (None, None) => self.incoming.remove(cid),
            (Some(pin), local) => self.queue_pin(now, draft, &pin, local, index, out),
            (None, Some(local)) => {
                self.incoming.remove(cid);
                self.queue_unpin(now, draft, cid, local, index, out);
            }
        }
    }

    fn queue_pin<V: PinsetView>(
        &mut self,
        now: Now,
        draft: &mut Draft<'_, V>,
        pin: &Pin,
        local: Option<Local>,
        index: Index,
        out: &mut Vec<Output>,
    ) {
        if let Some(running) = self.operations.on(&pin.cid) {
            if running.pin == Some(pin.options.mode) && !running.cancelled {
                return;
            }
            self.operations.cancel(&pin.cid, out);
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
            Some(local) if local.phase == Phase::PinError && !planted!(RepinResetsAttempts) => local.attempts,
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
        self.queue_heads.put(draft, &pin.cid, local, next, key);
    }

    fn queue_unpin<V: PinsetView>(
        &mut self,
        now: Now,
        draft: &mut Draft<'_, V>,
        cid: &Cid,
        local: Local,
        index: Index,
        out: &mut Vec<Output>,
    ) {
        // Surplus copies stay until the new holders have theirs. One that never arrived here need not wait.
        let stays = draft.pin(cid).is_some() && local.phase != Phase::PinError && !planted!(SurplusAtOnce);
        let waits = local.queued.as_ref().is_some_and(|key| key.lane == Lane::Surplus);
        let is_leaving = matches!(local.phase, Phase::UnpinQueued | Phase::UnpinError);
        if is_leaving && waits == stays {
            // It may have been skipped while the queue and the pinset differed.
            local.queued.into_iter().for_each(|key| self.queue_heads.add(key));
            return;
        }
        // Even if it never counted as pinned it may be: by an operation of an earlier process, or by a
        // cancelled one.
        self.operations.cancel(cid, out);
        let key = QueueKey {
            lane: if stays { Lane::Surplus } else { Lane::Unpin },
            at: if stays { now.wall.0 } else { index },
            cid: cid.clone(),
        };
        let next = Local {
            phase: Phase::UnpinQueued,
            ..fresh(now, local.mode)
        };
        self.queue_heads.put(draft, cid, Some(local), next, key);
    }

    pub(crate) fn poll_timeout(&self, now: Now) -> Option<Instant> {
        if self.reconciling.is_some() || self.recovering.is_some() {
            return Some(Instant(0));
        }
        let starts = self.operations.has_free_slot();
        let asks = self.surplus.has_room() && (starts || !planted!(SurplusAwaitsSlot));
        let due = self.queue_heads.next_due(now, starts, asks);
        self.operations
            .poll_timeout(self.queue_heads.has_untried())
            .into_iter()
            .chain(due)
            .chain(self.comparisons.poll_timeout())
            .chain(self.surplus.poll_timeout())
            .min()
    }

    /// Cancels stuck operations, and continues comparisons, confirmations and scans.
    pub(crate) fn handle_timeout<V: PinsetView>(
        &mut self,
        now: Now,
        draft: &mut Draft<'_, V>,
        index: Index,
        out: &mut Vec<Output>,
    ) {
        self.operations
            .cancel_stuck(now, self.queue_heads.has_untried(), out);
        self.comparisons.handle_timeout(now, &mut self.op_ids, out);
        self.requeue_unconfirmed(now, draft);
        self.continue_scans(now, draft, index, out);
    }

    /// Panics if the indexes disagree or a limit is exceeded.
    pub(crate) fn check(&self) {
        self.operations.check();
        self.comparisons.check();
        self.surplus.check();
    }
}

/// Returns the initial local state of a CID.
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
