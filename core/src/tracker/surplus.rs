//! Surplus copies: content that the cluster has allocated to other peers. A copy stays until enough of its
//! new holders confirm theirs, so that a re-allocation never reduces the number of copies.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Output, Tracker};
use crate::draft::Draft;
use crate::ids::{Cid, Index, PeerId};
use crate::local::{Lane, Local, Phase, QueueKey};
use crate::pin::{Mode, Pin, Replicas};
use crate::planted::{planted, scaled};
use crate::time::{Instant, Now, Timestamp};
use crate::view::PinsetView;
use crate::wire::{COPIES_MAX, CopyOf};

/// Maximum number of copies that wait for confirmation; the others stay in the queue.
const ASKED_MAX: usize = COPIES_MAX;

/// Shortest time after which an unconfirmed copy is asked about again: small content has arrived by then.
const CONFIRM_MIN: Duration = Duration::from_millis(250);

/// Longest time after which an unconfirmed copy is asked about again: its content may take long to arrive.
const CONFIRM_MAX: Duration = Duration::from_secs(5);

/// A copy that waits for confirmation.
#[derive(Debug, Clone)]
struct Asked {
    /// Key of its queue entry.
    key: QueueKey,
    /// Version of the pin; confirmations of other versions are ignored.
    version: Index,
    /// New holders.
    allocations: Vec<PeerId>,
    /// Number of confirmations that suffice.
    enough: usize,
    held: BTreeSet<PeerId>,
    /// Time at which to ask again.
    ask_again_at: Instant,
}

/// Copies that wait for confirmation.
#[derive(Debug, Default)]
pub(super) struct Surplus {
    asked: BTreeMap<Cid, Asked>,
}

impl Surplus {
    /// Returns whether more copies can be asked about.
    pub(super) fn has_room(&self) -> bool {
        self.asked.len() < scaled(ASKED_MAX)
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.asked.values().map(|asked| asked.ask_again_at).min()
    }

    /// Discards the confirmations of a copy whose pin has changed. Returns the key of its queue entry.
    pub(super) fn discard(&mut self, cid: &Cid) -> Option<QueueKey> {
        self.asked.remove(cid).map(|asked| asked.key)
    }

    /// Waits for confirmations of a copy that is surplus since `since`: of all new holders that are alive,
    /// and at least the minimum.
    fn ask(
        &mut self,
        now: Now,
        (key, since): (QueueKey, Timestamp),
        pin: Pin,
        is_alive: impl Fn(&PeerId) -> bool,
    ) {
        let living = pin.allocations.iter().filter(|peer| is_alive(peer)).count();
        let least = match pin.options.replicas {
            Replicas::Everywhere => 1,
            Replicas::Range { min, .. } => min as usize,
        };
        let asked = Asked {
            version: pin.version,
            enough: if planted!(OneConfirmation) {
                1
            } else {
                least.max(living).clamp(1, pin.allocations.len().max(1))
            },
            allocations: pin.allocations,
            held: BTreeSet::new(),
            ask_again_at: now.mono + confirm_pause(now, since),
            key,
        };
        self.asked.insert(pin.cid, asked);
    }

    /// Records a holder's confirmation. Returns whether the copy has enough of them, and forgets it then.
    fn confirm(&mut self, from: &PeerId, copy: &CopyOf) -> bool {
        let Some(asked) = self.asked.get_mut(&copy.cid) else {
            return false;
        };
        let is_old = asked.version != copy.version && !planted!(OldConfirmation);
        if is_old || !asked.allocations.contains(from) {
            return false;
        }
        asked.held.insert(from.clone());
        let is_enough = asked.held.len() >= asked.enough;
        if is_enough {
            self.asked.remove(&copy.cid);
        }
        is_enough
    }

    /// Removes and returns the copies that were not confirmed in time.
    fn take_late(&mut self, now: Now) -> Vec<Cid> {
        let late = self
            .asked
            .extract_if(.., |_, asked| asked.ask_again_at <= now.mono);
        late.map(|(cid, _)| cid).collect()
    }

    pub(super) fn check(&self) {
        assert!(self.asked.len() <= ASKED_MAX, "no more questions than allowed");
    }
}

/// Returns the pause before a copy that is surplus since `since` is asked about again: as long as it has been
/// surplus, within the limits.
fn confirm_pause(now: Now, since: Timestamp) -> Duration {
    let age = Duration::from_nanos(now.wall.0.saturating_sub(since.0));
    age.clamp(CONFIRM_MIN, CONFIRM_MAX)
}

impl Tracker {
    /// Returns whether this peer holds a copy of this version.
    pub(crate) fn holds<V: PinsetView>(&self, draft: &Draft<'_, V>, copy: &CopyOf) -> bool {
        let pin = draft.pin(&copy.cid);
        let is_version = |pin: &Pin| pin.version == copy.version || planted!(AnyVersionConfirmed);
        let Some(pin) = pin.filter(|pin| is_version(pin) && pin.is_allocated_to(&self.me)) else {
            return false;
        };
        // After a snapshot, the local state is of an earlier version until it is reconciled.
        let is_as_deep = |local: &Local| {
            local.mode == pin.options.mode || local.mode == Mode::Recursive || planted!(ShallowConfirmed)
        };
        draft.local(&copy.cid).is_some_and(|local| {
            (local.phase == Phase::Pinned || planted!(ConfirmsUnheld)) && is_as_deep(&local)
        })
    }

    /// Asks the new holders of due copies, as many as there is room for.
    pub(super) fn ask_holders<V: PinsetView>(
        &mut self,
        now: Now,
        draft: &Draft<'_, V>,
        is_alive: impl Fn(&PeerId) -> bool,
        out: &mut Vec<Output>,
    ) {
        let mut questions: BTreeMap<PeerId, Vec<CopyOf>> = BTreeMap::new();
        while self.surplus.has_room() {
            let Some(key) = self.queue_heads.pop_surplus(now) else {
                break;
            };
            let local = draft.local(&key.cid);
            let local = local.filter(|local| local.queued.as_ref() == Some(&key));
            // Reconciliation will correct a difference between queue and pinset.
            let pin = draft.pin(&key.cid).filter(|pin| !pin.is_allocated_to(&self.me));
            let (Some(local), Some(pin)) = (local, pin) else {
                continue;
            };
            for peer in &pin.allocations {
                questions.entry(peer.clone()).or_default().push(CopyOf {
                    cid: key.cid.clone(),
                    version: pin.version,
                });
            }
            self.surplus.ask(now, (key, local.since), pin, &is_alive);
        }
        out.extend(
            questions
                .into_iter()
                .map(|(to, copies)| Output::Ask { to, copies }),
        );
    }

    /// Records a holder's confirmations. Copies with enough of them are queued to be unpinned.
    pub(crate) fn confirmed<V: PinsetView>(
        &mut self,
        draft: &mut Draft<'_, V>,
        from: &PeerId,
        copies: Vec<CopyOf>,
        index: Index,
    ) {
        for copy in copies.into_iter().take(COPIES_MAX) {
            if !self.surplus.confirm(from, &copy) {
                continue;
            }
            let cid = copy.cid;
            let Some(local) = draft.local(&cid) else { continue };
            let key = QueueKey {
                lane: Lane::Unpin,
                at: index,
                cid: cid.clone(),
            };
            self.queue_heads.put(draft, &cid, Some(local.clone()), local, key);
        }
    }

    /// Queues copies that were not confirmed in time again, behind the others.
    pub(super) fn requeue_unconfirmed<V: PinsetView>(&mut self, now: Now, draft: &mut Draft<'_, V>) {
        for cid in self.surplus.take_late(now) {
            if planted!(SurplusForgotten) {
                continue;
            }
            let Some(local) = draft.local(&cid) else { continue };
            let key = QueueKey {
                lane: Lane::Surplus,
                at: (now.wall + confirm_pause(now, local.since)).0,
                cid: cid.clone(),
            };
            self.queue_heads.put(draft, &cid, Some(local.clone()), local, key);
        }
    }
}
