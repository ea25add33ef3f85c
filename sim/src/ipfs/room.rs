//! Room of an IPFS daemon: sizes of content, the maximum size of the repository, and garbage. As the daemons
//! of the product, it refuses what does not fit, and gets no new pins while it is almost full.

use std::collections::{BTreeMap, BTreeSet};

use cluster_core::{Cid, IpfsAction, OpId};

use super::{Ipfs, OWNED};
use crate::options::Options;
use crate::rng::{Rng, mix};

/// Size of the largest content, in GiB.
const CONTENT_MAX: u64 = 8;

/// Share of the maximum from which the peer gets no new pins, in percent.
const HIGH_WATER: u64 = 90;

/// Share below which it gets new pins again, and from which garbage is collected, in percent.
const LOW_WATER: u64 = 85;

/// Rate of pins whose size is not known before their content has arrived, in thousandths.
const UNKNOWN_SIZES: u64 = 300;

/// The disk of one daemon.
#[derive(Debug, Clone)]
pub(super) struct Room {
    /// Maximum size of the repository, in bytes.
    pub(super) capacity: u64,
    /// True if the maximum counts. Otherwise all content is small and fits.
    is_limited: bool,
    seed: u64,
    /// Content that was unpinned and not collected.
    garbage: BTreeSet<Cid>,
    /// Room that running pins have reserved, in bytes.
    reserved: BTreeMap<OpId, u64>,
    /// True while the peer gets no new pins.
    is_high: bool,
    rng: Rng,
}

impl Room {
    /// Creates the disk of a daemon whose capacity is `share` times that of the smallest one.
    pub(super) fn new(options: &Options, peer: usize, share: u64) -> Self {
        let is_limited = options.ipfs_room_gib > 0;
        let gib = if is_limited {
            options.ipfs_room_gib
        } else {
            1 << 10
        };
        Self {
            capacity: (share * gib) << 30,
            is_limited,
            seed: options.seed,
            garbage: BTreeSet::new(),
            reserved: BTreeMap::new(),
            is_high: false,
            rng: Rng::new(options.seed, &format!("room {peer}")),
        }
    }

    /// Returns the size of content, in bytes.
    fn size(&self, cid: &Cid) -> u64 {
        let number = match cid.as_bytes() {
            [.., high, low] => u64::from(u16::from_be_bytes([*high, *low])),
            _ => 0,
        };
        let is_large = self.is_limited && number < OWNED;
        let gib = if is_large {
            1 + mix(self.seed ^ number) % CONTENT_MAX
        } else {
            1
        };
        gib << 30
    }
}

impl Ipfs {
    /// Returns the size of the repository, in bytes.
    fn used(&self) -> u64 {
        let pinned = self.pinned.keys();
        let garbage = self
            .room
            .garbage
            .iter()
            .filter(|cid| !self.pinned.contains_key(*cid));
        pinned.chain(garbage).map(|cid| self.room.size(cid)).sum()
    }

    /// Returns the free space, in bytes; negative if there are more pins than would fit.
    pub(crate) fn free_space(&self) -> i64 {
        let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        signed(self.room.capacity) - signed(self.used())
    }

    /// Returns whether content fits beside the pins and what running operations have reserved. Garbage is
    /// collected for it.
    pub(crate) fn has_room(&self, cid: &Cid) -> bool {
        self.has_room_beside(cid, None)
    }

    fn has_room_beside(&self, cid: &Cid, op: Option<OpId>) -> bool {
        if !self.room.is_limited || self.pinned.contains_key(cid) {
            return true;
        }
        let pinned: u64 = self.pinned.keys().map(|cid| self.room.size(cid)).sum();
        let others = self.room.reserved.iter().filter(|(other, _)| Some(**other) != op);
        let reserved: u64 = others.map(|(_, bytes)| bytes).sum();
        pinned + reserved + self.room.size(cid) <= self.room.capacity
    }

    /// Reserves the room of a pin that begins. Returns `false` if it is refused: there is none, or only once
    /// garbage is collected. Unavailable content has no known size.
    pub(super) fn reserve(&mut self, op: OpId, cid: &Cid, available: bool) -> bool {
        if !self.room.is_limited || !available || self.room.rng.chance(UNKNOWN_SIZES) {
            return true;
        }
        let size = self.room.size(cid);
        let is_new = !self.pinned.contains_key(cid) && !self.room.garbage.contains(cid);
        let reserved: u64 = self.room.reserved.values().sum();
        if is_new && self.used() + reserved + size > self.room.capacity {
            self.room.garbage.clear();
            return false;
        }
        if is_new {
            self.room.reserved.insert(op, size);
        }
        true
    }

    /// Ends the reservation of an operation.
    pub(super) fn release(&mut self, op: OpId) {
        self.room.reserved.remove(&op);
    }

    /// Ends all reservations.
    pub(super) fn release_all(&mut self) {
        self.room.reserved.clear();
    }

    /// Returns whether an operation can take effect: a pin whose size was not known may have outgrown the
    /// room.
    pub(crate) fn is_within_room(&self, op: OpId) -> bool {
        match self.running.get(&op).map(|running| &running.action) {
            Some(IpfsAction::Pin { cid, .. }) => self.has_room_beside(cid, Some(op)),
            Some(IpfsAction::Unpin { .. }) | None => true,
        }
    }

    /// Records content that is not pinned any more.
    pub(super) fn discard(&mut self, cid: &Cid) {
        if self.room.is_limited {
            self.room.garbage.insert(cid.clone());
        }
    }

    /// Records pinned content, and collects garbage if the repository is too large with it.
    pub(super) fn keep(&mut self, cid: &Cid) {
        if !self.room.is_limited {
            return;
        }
        self.room.garbage.remove(cid);
        if self.used() > self.room.capacity {
            self.room.garbage.clear();
        }
    }

    /// Describes what exceeds the maximum size, if anything does.
    pub(crate) fn excess(&self) -> Option<String> {
        let (used, capacity) = (self.used(), self.room.capacity);
        (self.room.is_limited && used > capacity)
            .then(|| format!("its repository has {used} bytes of {capacity} at most"))
    }

    /// Returns whether the peer gets new pins, after a collection of garbage if one is due.
    pub(super) fn measure_room(&mut self) -> bool {
        if !self.room.is_limited {
            return true;
        }
        let percent = |bytes: u64, of: u64| bytes.saturating_mul(100) / of.max(1);
        if percent(self.used(), self.room.capacity) >= LOW_WATER {
            self.room.garbage.clear();
        }
        let share = percent(self.used(), self.room.capacity);
        let limit = if self.room.is_high { LOW_WATER } else { HIGH_WATER };
        self.room.is_high = share >= limit;
        !self.room.is_high
    }

    /// Returns whether the peer gets new pins, as it measured last.
    pub(crate) fn takes_pins(&self) -> bool {
        self.up && !self.room.is_high
    }
}
