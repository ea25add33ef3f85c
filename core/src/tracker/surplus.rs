//! Surplus copies: content that the cluster has allocated to other peers. A copy stays until enough of its
//! new holders confirm theirs, so that a re-allocation never reduces the number of copies.

use super::*;
use crate::pin::Replicas;
use crate::planted::scaled;
use crate::wire::{COPIES_MAX, CopyOf};

/// Most copies that wait for confirmation; the others stay in the queue.
const ASKED_MAX: usize = COPIES_MAX;

/// Time after which unconfirmed copies are asked about again, as their content may take long to arrive.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(5);

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
}

impl Tracker {
    /// Returns whether this peer holds a copy of this version.
    pub(crate) fn holds<V: PinsetView>(&self, draft: &Draft<'_, V>, copy: &CopyOf) -> bool {
        let pin = draft.pin(&copy.cid);
        let is_version = |pin: &Pin| pin.version == copy.version || planted!(AnyVersionConfirmed);
        let is_wanted = pin.is_some_and(|pin| is_version(&pin) && pin.is_allocated_to(&self.me));
        is_wanted
            && draft
                .local(&copy.cid)
                .is_some_and(|local| local.phase == Phase::Pinned || planted!(ConfirmsUnheld))
    }

    /// Discards the confirmations of a copy whose pin has changed.
    pub(super) fn discard_confirmations(&mut self, cid: &Cid) {
        if let Some(asked) = self.surplus.asked.remove(cid) {
            self.queue_heads.add(asked.key);
        }
    }

    /// Asks the new holders of due copies, as many as there is room for.
    pub(super) fn ask_holders<V: PinsetView>(
        &mut self,
        now: Now,
        draft: &Draft<'_, V>,
        out: &mut Vec<Output>,
    ) {
        let mut questions: BTreeMap<PeerId, Vec<CopyOf>> = BTreeMap::new();
        while self.surplus.has_room() {
            let Some(key) = self.queue_heads.pop_surplus(now) else {
                break;
            };
            let is_queued = draft
                .local(&key.cid)
                .is_some_and(|local| local.queued.as_ref() == Some(&key));
            // Reconciliation will correct a difference between queue and pinset.
            let pin = draft
                .pin(&key.cid)
                .filter(|pin| is_queued && !pin.is_allocated_to(&self.me));
            let Some(pin) = pin else { continue };
            let least = match pin.options.replicas {
                Replicas::Everywhere => 1,
                Replicas::Range { min, .. } => min as usize,
            };
            for peer in &pin.allocations {
                questions.entry(peer.clone()).or_default().push(CopyOf {
                    cid: key.cid.clone(),
                    version: pin.version,
                });
            }
            let asked = Asked {
                version: pin.version,
                enough: if planted!(OneConfirmation) {
                    1
                } else {
                    least.clamp(1, pin.allocations.len().max(1))
                },
                allocations: pin.allocations,
                held: BTreeSet::new(),
                ask_again_at: now.mono + CONFIRM_TIMEOUT,
                key: key.clone(),
            };
            self.surplus.asked.insert(key.cid, asked);
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
        for CopyOf { cid, version } in copies.into_iter().take(COPIES_MAX) {
            let Some(asked) = self.surplus.asked.get_mut(&cid) else {
                continue;
            };
            let is_old = asked.version != version && !planted!(OldConfirmation);
            if is_old || !asked.allocations.contains(from) {
                continue;
            }
            asked.held.insert(from.clone());
            if asked.held.len() < asked.enough {
                continue;
            }
            self.surplus.asked.remove(&cid);
            let Some(local) = draft.local(&cid) else { continue };
            let key = QueueKey {
                lane: Lane::Unpin,
                at: index,
                cid: cid.clone(),
            };
            self.queue(draft, &cid, Some(local.clone()), local, key);
        }
    }

    /// Queues copies that were not confirmed in time again, behind the others.
    pub(super) fn requeue_unconfirmed<V: PinsetView>(&mut self, now: Now, draft: &mut Draft<'_, V>) {
        let is_late = |(cid, asked): (&Cid, &Asked)| (asked.ask_again_at <= now.mono).then(|| cid.clone());
        let late: Vec<Cid> = self.surplus.asked.iter().filter_map(is_late).collect();
        for cid in late {
            self.surplus.asked.remove(&cid);
            if planted!(SurplusForgotten) {
                continue;
            }
            let Some(local) = draft.local(&cid) else { continue };
            let key = QueueKey {
                lane: Lane::Surplus,
                at: (now.wall + CONFIRM_TIMEOUT).0,
                cid: cid.clone(),
            };
            self.queue(draft, &cid, Some(local.clone()), local, key);
        }
    }

    pub(super) fn check_surplus(&self) {
        assert!(
            self.surplus.asked.len() <= ASKED_MAX,
            "no more questions than allowed"
        );
    }
}
