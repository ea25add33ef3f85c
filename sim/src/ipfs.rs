//! Model of a peer's IPFS daemon, which may be slow, hang, fail, restart, lose pins, be full, or complete an
//! operation that was cancelled. It also has pins of its owner, which the cluster must not touch.

mod compare;
mod room;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cluster_core::{CAPACITY, COPIES, Cid, Index, IpfsAction, Metric, Mode, OpId, PING, copies_value};

pub(crate) use self::compare::compare;
use self::room::Room;
use crate::options::Options;
use crate::peer::cid;
use crate::rng::Rng;

/// Course of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Duration of each part; progress is reported after each but the last.
    pub(crate) parts: Vec<Duration>,
    /// Its end.
    pub(crate) end: End,
}

/// End of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// It is done.
    Done,
    /// It is refused.
    Failed(String),
    /// There is no room for it.
    Full,
    /// It does not end.
    Hangs,
}

#[derive(Debug, Clone)]
struct Running {
    action: IpfsAction,
    cancelled: bool,
}

/// The first of the CIDs that only its owner pins.
const OWNED: u64 = 50_000;

/// One daemon.
#[derive(Debug, Clone)]
pub(crate) struct Ipfs {
    /// Its pins.
    pub(crate) pinned: BTreeMap<Cid, Mode>,
    /// Pins of its owner, which must stay.
    pub(crate) owned: BTreeSet<Cid>,
    /// Pins with damaged blocks, which it has not noticed, and since when.
    rotten: BTreeMap<Cid, u64>,
    running: BTreeMap<OpId, Running>,
    /// Running comparisons, and whether they are to stop.
    comparing: BTreeMap<OpId, bool>,
    /// Duration of the longest comparison that was completed, in nanoseconds.
    pub(crate) longest_comparison: u64,
    /// True if it answers.
    pub(crate) up: bool,
    /// True if it refuses new pins for lack of space.
    pub(crate) full: bool,
    /// Number of restarts; each ends all operations.
    pub(crate) generation: u64,
    rng: Rng,
    slow: Duration,
    hang: u64,
    fail: u64,
    late: u64,
    /// True if comparisons are slow even where operations are fast.
    compares_slowly: bool,
    metrics_ttl: Duration,
    room: Room,
    group: String,
}

impl Ipfs {
    pub(crate) fn new(options: &Options, peer: usize) -> Self {
        let mut rng = Rng::new(options.seed, &format!("ipfs {peer}"));
        let owned: BTreeSet<Cid> = (OWNED..OWNED + 2).map(cid).collect();
        Self {
            pinned: owned.iter().map(|cid| (cid.clone(), Mode::Recursive)).collect(),
            owned,
            rotten: BTreeMap::new(),
            running: BTreeMap::new(),
            comparing: BTreeMap::new(),
            longest_comparison: 0,
            up: true,
            full: false,
            generation: 0,
            slow: Duration::from_millis(options.ipfs_slow_ms),
            hang: options.ipfs_hang,
            fail: options.ipfs_fail,
            late: options.ipfs_late,
            compares_slowly: Rng::new(options.seed, &format!("compare {peer}")).chance(300),
            metrics_ttl: Duration::from_millis(options.metrics_ms * 2 + 500),
            room: Room::new(options, peer, rng.range(1, 4)),
            group: format!("group {}", peer as u64 % options.groups.max(1)),
            rng,
        }
    }

    /// Begins an operation; `available` says whether any node has the content.
    pub(crate) fn start(&mut self, op: OpId, action: IpfsAction, available: bool) -> Plan {
        let (is_pin, fits) = match &action {
            IpfsAction::Pin { cid, .. } => (true, self.reserve(op, cid, available)),
            IpfsAction::Unpin { .. } => (false, true),
        };
        self.running.insert(
            op,
            Running {
                action,
                cancelled: false,
            },
        );
        let count = if is_pin { self.rng.range(1, 3) } else { 1 };
        let parts = (0..count).map(|_| self.rng.up_to(self.slow)).collect();
        let end = if !self.up {
            End::Failed("connection refused".to_owned())
        } else if is_pin && (!available || self.rng.chance(self.hang)) {
            End::Hangs
        } else if is_pin && (self.full || !fits) {
            End::Full
        } else if self.rng.chance(self.fail) {
            End::Failed("internal error".to_owned())
        } else {
            End::Done
        };
        Plan { parts, end }
    }

    /// Returns whether this operation was cancelled.
    pub(crate) fn is_cancelled(&self, op: OpId) -> bool {
        self.running.get(&op).is_none_or(|running| running.cancelled)
    }

    pub(crate) fn cancel(&mut self, op: OpId) -> bool {
        if let Some(cancelled) = self.comparing.get_mut(&op) {
            *cancelled = true;
            return true;
        }
        self.running
            .get_mut(&op)
            .map(|running| running.cancelled = true)
            .is_some()
    }

    /// Ends an operation, with or without effect. A cancelled one may have taken effect, and may even report
    /// success: then this returns `true`.
    pub(crate) fn finish(&mut self, op: OpId, done: bool, possible: bool) -> bool {
        let fits = self.is_within_room(op);
        let Some(running) = self.running.remove(&op) else {
            return done;
        };
        self.release(op);
        let late = possible && self.up && !done && running.cancelled && self.rng.chance(self.late) && fits;
        if done || late {
            self.take_effect(&running.action);
        }
        done || (late && self.rng.chance(500))
    }

    fn take_effect(&mut self, action: &IpfsAction) {
        match action {
            IpfsAction::Pin { cid, mode, .. } => {
                self.pinned.insert(cid.clone(), *mode);
                self.keep(cid);
            }
            IpfsAction::Unpin { cid } => {
                if self.pinned.remove(cid).is_some() {
                    self.discard(cid);
                }
                self.rotten.remove(cid);
            }
        }
    }

    /// Damages a part of the copies of the cluster's pins. Returns `true` if there are any.
    pub(crate) fn rot(&mut self, at: u64, share: u64, rng: &mut Rng) -> bool {
        for cid in self.pinned.keys().filter(|cid| !self.owned.contains(*cid)) {
            if rng.chance(share) {
                self.rotten.entry(cid.clone()).or_insert(at);
            }
        }
        !self.rotten.is_empty()
    }

    /// Returns the rotten copies, and since when they are.
    pub(crate) fn rotten(&self) -> impl Iterator<Item = (&Cid, u64)> {
        self.rotten.iter().map(|(cid, since)| (cid, *since))
    }

    /// Reads a copy. If it is rotten, its pin does not count any more; returns `true` then.
    pub(crate) fn lose_if_rotten(&mut self, cid: &Cid) -> bool {
        let is_rotten = self.rotten.remove(cid).is_some();
        if is_rotten {
            self.pinned.remove(cid);
        }
        is_rotten
    }

    /// Records that the peer's process died: its operations may still take effect.
    pub(crate) fn abandon(&mut self, available: impl Fn(&Cid) -> bool) {
        self.comparing.clear();
        self.release_all();
        for running in std::mem::take(&mut self.running).into_values() {
            let (IpfsAction::Pin { cid, .. } | IpfsAction::Unpin { cid }) = &running.action;
            let late = self.up && available(cid) && self.rng.chance(self.late);
            let is_pin = matches!(running.action, IpfsAction::Pin { .. });
            if late && (!is_pin || self.has_room(cid)) {
                self.take_effect(&running.action);
            }
        }
    }

    /// Returns the number of running operations.
    pub(crate) fn running(&self) -> usize {
        self.running.len()
    }

    /// Returns whether an operation on a CID is running.
    pub(crate) fn is_running(&self, cid: &Cid) -> bool {
        self.running.values().any(|running| {
            let (IpfsAction::Pin { cid: other, .. } | IpfsAction::Unpin { cid: other }) = &running.action;
            other == cid
        })
    }

    /// Restarts the daemon; running operations fail.
    pub(crate) fn restart(&mut self) {
        self.generation += 1;
    }

    /// Loses a part of the pins, or all, without a request. Returns true if there were any.
    pub(crate) fn forget(&mut self, rng: &mut Rng) -> bool {
        let share = *rng.pick(&[200, 500, 1000]);
        let before = self.pinned.len();
        self.pinned.retain(|_, _| !rng.chance(share));
        self.owned.retain(|cid| self.pinned.contains_key(cid));
        self.rotten.retain(|cid, _| self.pinned.contains_key(cid));
        self.pinned.len() < before
    }

    /// Returns whether it has a pin of at least this depth.
    pub(crate) fn holds(&self, cid: &Cid, mode: Mode) -> bool {
        compare::holds(&self.pinned, cid, mode)
    }

    /// Ends all faults.
    pub(crate) fn calm(&mut self) {
        self.hang = 0;
        self.fail = 0;
        self.up = true;
        self.full = false;
        self.slow = self.slow.min(Duration::from_millis(300));
        self.compares_slowly = false;
    }

    /// Returns the size of the repository at most, in bytes.
    pub(crate) fn capacity(&self) -> u64 {
        self.room.capacity
    }

    /// Returns the group of the peer.
    pub(crate) fn group(&self) -> &str {
        &self.group
    }

    /// Returns the metrics that the peer measures; with a number of `copies`, and the log index that it
    /// includes, also those that rebalancing needs.
    pub(crate) fn metrics(&mut self, copies: Option<(u64, Index)>) -> Vec<Metric> {
        let takes = self.measure_room() && self.up;
        let free = self.free_space();
        let metric = |name: &str, value: String, weight, partitionable, valid| Metric {
            name: name.to_owned(),
            value,
            weight,
            partitionable,
            ttl: self.metrics_ttl,
            valid,
        };
        let mut metrics = vec![
            metric(PING, String::new(), 0, false, true),
            metric("freespace", free.to_string(), free, false, takes),
            metric("tag:group", self.group.clone(), 0, true, true),
        ];
        if let Some((count, applied)) = copies {
            let weight = i64::try_from(count).expect("a few");
            let capacity = i64::try_from(self.room.capacity).expect("a few TiB");
            metrics.push(metric(COPIES, copies_value(count, applied), weight, false, true));
            metrics.push(metric(CAPACITY, capacity.to_string(), capacity, false, self.up));
        }
        metrics
    }
}
