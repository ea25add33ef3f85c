//! Moves of this peer's pins to others while it is being drained. The drained peer makes them itself: it
//! knows which of its copies still wait for their replacements, and so how many moves are under way.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::allocator::{Candidates, Requirements, allocate};
use crate::command::Command;
use crate::decide::PeerPool;
use crate::drain::Drain;
use crate::ids::{Cid, Index, PeerId};
use crate::local::Lane;
use crate::pin::{Pin, Replicas};
use crate::planted::planted;
use crate::time::{Instant, Now};
use crate::view::PinsetView;

/// Pause between two steps while moves are under way.
const STEP_PAUSE: Duration = Duration::from_millis(200);

/// Pause between two passes over the pins of the peer: for pins that could not be moved, and for new ones.
const PASS_PAUSE: Duration = Duration::from_secs(5);

/// Time after which a proposed move that has not been applied counts as lost.
const PROPOSAL_TIMEOUT: Duration = Duration::from_secs(5);

/// Pins of this peer that could not be moved in the last pass over them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Blocked {
    /// Number of pins.
    pub pins: u64,
    /// The first of them.
    pub first: Option<Cid>,
}

/// The drains of the cluster, and the progress of this peer's own.
pub(crate) struct Drainer {
    me: PeerId,
    chunk: usize,
    drains: Vec<Drain>,
    /// Set if `drains` are those on the disk.
    is_loaded: bool,
    next_step: Instant,
    /// Last CID of the pass over the own pins.
    cursor: Option<Cid>,
    /// Proposed moves: the versions of the pins that they were decided from.
    proposed: BTreeMap<Cid, Index>,
    /// Time at which the proposed moves count as lost.
    lost_at: Instant,
    /// Pins of this pass that could not be moved.
    blocked: Blocked,
    last_blocked: Blocked,
}

impl Drainer {
    /// Creates the drainer of a peer, which moves at most `chunk` pins in one step.
    pub(crate) fn new(me: PeerId, chunk: usize) -> Self {
        Self {
            me,
            chunk,
            drains: Vec::new(),
            is_loaded: false,
            next_step: Instant(0),
            cursor: None,
            proposed: BTreeMap::new(),
            lost_at: Instant(0),
            blocked: Blocked::default(),
            last_blocked: Blocked::default(),
        }
    }

    /// Returns whether the noted drains are those on the disk.
    pub(crate) fn is_loaded(&self) -> bool {
        self.is_loaded
    }

    /// Notes that a snapshot has replaced the drains. They must be read again.
    pub(crate) fn unload(&mut self) {
        self.is_loaded = false;
    }

    /// Notes the current drains.
    pub(crate) fn load(&mut self, now: Now, drains: Vec<Drain>) {
        if drains.iter().all(|drain| drain.peer != self.me) {
            *self = Self::new(self.me.clone(), self.chunk);
        }
        self.drains = drains;
        self.is_loaded = true;
        self.next_step = now.mono;
    }

    /// Returns the drain of this peer.
    fn own(&self) -> Option<&Drain> {
        self.drains.iter().find(|drain| drain.peer == self.me)
    }

    /// Returns all drains, sorted by peer.
    pub(crate) fn all(&self) -> &[Drain] {
        &self.drains
    }

    /// Returns whether a peer is being drained.
    pub(crate) fn is_drained(&self, peer: &PeerId) -> bool {
        self.drains.iter().any(|drain| drain.peer == *peer)
    }

    /// Returns the pins that could not be moved in the last pass; of the current pass if that has more.
    pub(crate) fn blocked(&self) -> &Blocked {
        if self.blocked.pins > self.last_blocked.pins {
            &self.blocked
        } else {
            &self.last_blocked
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.own().map(|_| self.next_step)
    }

    /// Adds the moves to propose now. `pool` has the peers that the pins can move to.
    pub(crate) fn handle_timeout(
        &mut self,
        now: Now,
        view: &impl PinsetView,
        pool: &PeerPool,
        out: &mut Vec<Command>,
    ) {
        let Some(own) = self.own().filter(|_| now.mono >= self.next_step) else {
            return;
        };
        let moves_max = own.moves_max as usize;
        self.next_step = now.mono + STEP_PAUSE;
        self.proposed
            .retain(|cid, version| view.pin(cid).is_some_and(|pin| pin.version == *version));
        if !self.proposed.is_empty() && now.mono < self.lost_at {
            return;
        }
        self.proposed.clear();
        let waiting = view.queue(Lane::Surplus, None, moves_max).len();
        let room = if planted!(DrainUnlimited) {
            usize::MAX
        } else {
            moves_max.saturating_sub(waiting)
        };
        if room == 0 {
            return;
        }
        let cids = view.allocated(&self.me, self.cursor.as_ref(), self.chunk.min(room));
        self.cursor = cids.last().cloned();
        if cids.is_empty() {
            self.last_blocked = std::mem::take(&mut self.blocked);
            let pause = if planted!(DrainOnePass) {
                Duration::MAX
            } else {
                PASS_PAUSE
            };
            self.next_step = now.mono + pause;
        }
        self.lost_at = now.mono + PROPOSAL_TIMEOUT;
        for pin in cids.iter().filter_map(|cid| view.pin(cid)) {
            let (cid, version) = (pin.cid.clone(), pin.version);
            match relocate(pin, &self.me, pool) {
                Ok(Some(command)) => {
                    self.proposed.insert(cid, version);
                    out.push(command);
                }
                Ok(None) => {}
                Err(TooFew) => {
                    self.blocked.pins += 1;
                    self.blocked.first.get_or_insert(cid);
                }
            }
        }
    }
}

/// Too few living peers remain for a pin.
#[derive(Debug, PartialEq, Eq)]
struct TooFew;

/// Builds the command that replaces `me` in the allocations of a pin. Without a replacement it only removes
/// `me`, if enough living peers remain. `None` if the pin is not allocated to `me` by name.
fn relocate(pin: Pin, me: &PeerId, pool: &PeerPool) -> Result<Option<Command>, TooFew> {
    let Some((rest, min, wanted)) = without(&pin, me) else {
        return Ok(None);
    };
    let least = if planted!(DrainReducesCopies) { min } else { wanted };
    let wanted = Requirements {
        cid: Some(&pin.cid),
        near: None,
        min: least,
        max: wanted,
        current: &rest,
        preferred: &pin.options.user_allocations,
    };
    let living = rest.iter().filter(|peer| pool.alive.contains(*peer)).count();
    let allocations = match allocate(&wanted, &pool.candidates) {
        Ok(allocations) => allocations,
        Err(_) if living >= min as usize || planted!(DrainBelowMinimum) => rest,
        Err(_) => return Err(TooFew),
    };
    Ok(Some(Command::Reallocate {
        cid: pin.cid,
        allocations,
        version: pin.version,
    }))
}

/// Builds the command that replaces `me` in the allocations of a pin by one of the candidates. `None` if
/// there is no replacement, or if the pin is not allocated to `me` by name.
pub(crate) fn replace(pin: Pin, me: &PeerId, candidates: &Candidates) -> Option<Command> {
    let (rest, _, count) = without(&pin, me)?;
    let wanted = Requirements {
        cid: Some(&pin.cid),
        near: None,
        min: count,
        max: count,
        current: &rest,
        preferred: &pin.options.user_allocations,
    };
    let allocations = match allocate(&wanted, candidates) {
        Ok(allocations) => allocations,
        Err(_) if planted!(OutgrownDropped) => rest,
        Err(_) => return None,
    };
    Some(Command::Reallocate {
        cid: pin.cid,
        allocations,
        version: pin.version,
    })
}

/// Returns the other holders of a pin, its minimum of copies, and how many it is to have. `None` if it is not
/// allocated to `me` by name.
fn without(pin: &Pin, me: &PeerId) -> Option<(Vec<PeerId>, u32, u32)> {
    let Replicas::Range { min, max } = pin.options.replicas else {
        return None;
    };
    let rest: Vec<PeerId> = pin
        .allocations
        .iter()
        .filter(|peer| *peer != me)
        .cloned()
        .collect();
    let count = u32::try_from(pin.allocations.len()).map_or(max, |count| count.min(max));
    (rest.len() < pin.allocations.len()).then_some((rest, min, count))
}

/// Removes the peers that are being drained from the candidates. Returns the reason for each, for display.
pub(crate) fn exclude(drained: impl Fn(&PeerId) -> bool, candidates: &mut Candidates) -> BTreeSet<String> {
    let mut reasons = BTreeSet::new();
    candidates.retain(|peer, _| {
        let is_drained = drained(peer) && !planted!(DrainedPeersAllocated);
        if is_drained {
            reasons.insert(format!("{peer} is being drained"));
        }
        !is_drained
    });
    reasons
}

#[cfg(test)]
mod tests;
