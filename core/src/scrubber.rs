//! [`Scrubber`]: decides when a peer re-reads and re-hashes everything that its IPFS node holds, and how
//! fast. It knows neither blocks nor disks: positions are texts that only the node understands.
//!
//! Unlike the submachines of [`Node`](crate::Node) it is driven on its own, because its progress is that of a
//! disk and not of the cluster. Its driver, in a loop:
//!
//! ```text
//! next(now)  ->  Wait(time)        sleep so long, or until a change
//!            ->  Check(position)   have the node check what follows, then
//!                checked(now, …)   or failed(now, …)
//! is_unsaved(now)                  write record(), then saved(now)
//! ```
//!
//! Content that the node finds damaged or missing is pinned again as after every comparison with the IPFS
//! node ([`Request::Sync`](crate::Request::Sync)).

#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::planted::planted;
use crate::rng::Rng;
use crate::time::{Now, Timestamp};

/// Full share of the disk's time, in thousandths.
pub const SCRUB_SHARE_MAX: u16 = 1000;

/// Part of the interval by which a cycle begins earlier or later than the last one, so that the peers of a
/// cluster do not read at the same time: a tenth.
const JITTER: u64 = 10;

/// Longest wait for the next cycle without a look at the wall clock, which may jump.
const LOOK: Duration = Duration::from_secs(600);

/// Longest rest after one piece: a share that is raised later takes effect at once, but a clock that stood
/// still during the piece must not stop the scrub for long.
const REST_MAX: Duration = Duration::from_secs(3600);

/// Shortest and longest pause after a failure of the node.
const RETRY: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(3600)];

/// Maximum age of the saved position while a cycle runs.
const SAVE: Duration = Duration::from_secs(60);

/// Settings of a scrubber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScrubConfig {
    /// Time from the beginning of a cycle to that of the next; zero for cycles on request only.
    pub interval: Duration,
    /// Share of the time in which the node may check, in thousandths, 1 to [`SCRUB_SHARE_MAX`]. A share that
    /// was requested at run time replaces it.
    pub share: u16,
}

/// Change that an operator requests. It survives restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ScrubChange {
    /// Begin a cycle, unless one runs; also ends a pause.
    Start,
    /// Check nothing until the scrub is resumed or started.
    Pause,
    /// End a pause.
    Resume,
    /// Use this share of the time, in thousandths; `None` for the configured one.
    Share(Option<u16>),
}

/// One pass over all that the node holds, and what it has found so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ScrubCycle {
    /// Wall-clock time of its beginning.
    pub since: Timestamp,
    /// Wall-clock time of its end; zero while it runs.
    pub ended: Timestamp,
    /// Position up to which everything is checked; empty at the beginning.
    pub position: String,
    /// Counts of the blocks so far.
    pub found: ScrubCounts,
}

/// Numbers of checked and of bad blocks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ScrubCounts {
    /// Checked blocks.
    pub blocks: u64,
    /// Bytes of these blocks.
    pub bytes: u64,
    /// Blocks whose content was not that of their CIDs, or could not be read.
    pub damaged: u64,
    /// Pins that lacked blocks.
    pub incomplete: u64,
}

impl ScrubCounts {
    /// Adds other counts.
    pub fn add(&mut self, more: Self) {
        self.blocks = self.blocks.saturating_add(more.blocks);
        self.bytes = self.bytes.saturating_add(more.bytes);
        self.damaged = self.damaged.saturating_add(more.damaged);
        self.incomplete = self.incomplete.saturating_add(more.incomplete);
    }
}

/// State of a scrubber that survives restarts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ScrubRecord {
    /// True after a pause was requested.
    pub paused: bool,
    /// Requested share of the time, in thousandths.
    pub share: Option<u16>,
    /// Wall-clock time at which the next cycle is due; `None` until it is drawn.
    pub next: Option<Timestamp>,
    /// The running cycle.
    pub cycle: Option<ScrubCycle>,
    /// The last cycle that was completed.
    pub last: Option<ScrubCycle>,
}

/// Next step of the driver of a [`Scrubber`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScrubStep {
    /// Have the node check a piece: what follows this position.
    Check(String),
    /// Wait so long, or until the next change; `None` for the next change only.
    Wait(Option<Duration>),
}

/// Schedule and pace of one peer's scrub.
#[derive(Debug, Clone)]
pub struct Scrubber {
    config: ScrubConfig,
    record: ScrubRecord,
    rng: Rng,
    /// Monotonic time before which nothing is checked.
    rests_until: crate::Instant,
    /// Number of failures in a row.
    failures: u32,
    /// True if the record must be saved at once.
    unsaved: bool,
    /// True if the position has changed since the last save.
    moved: bool,
    saved_at: crate::Instant,
}

impl Scrubber {
    /// Continues from a saved record; the default record for a new peer. The seed spreads the cycles of a
    /// cluster's peers.
    pub fn new(config: ScrubConfig, mut record: ScrubRecord, seed: u64) -> Self {
        if planted!(ScrubCycleForgotten) {
            record.cycle = None;
        }
        Self {
            config,
            record,
            rng: Rng::new(seed, 0x5c40b),
            rests_until: crate::Instant::default(),
            failures: 0,
            unsaved: false,
            moved: false,
            saved_at: crate::Instant::default(),
        }
    }

    /// Returns the state to save.
    pub fn record(&self) -> &ScrubRecord {
        &self.record
    }

    /// Returns the share of the time that is used, in thousandths.
    pub fn share(&self) -> u16 {
        let share = self.record.share.unwrap_or(self.config.share);
        share.clamp(1, SCRUB_SHARE_MAX)
    }

    /// Returns the interval between two cycles; zero for cycles on request only.
    pub fn interval(&self) -> Duration {
        self.config.interval
    }

    /// Applies a change that was requested.
    pub fn change(&mut self, now: Now, change: ScrubChange) {
        match change {
            ScrubChange::Start => {
                self.record.paused = false;
                if self.record.cycle.is_none() {
                    self.begin(now);
                }
            }
            ScrubChange::Pause => self.record.paused = true,
            ScrubChange::Resume => self.record.paused = false,
            ScrubChange::Share(share) => {
                self.record.share = share.map(|share| share.clamp(1, SCRUB_SHARE_MAX))
            }
        }
        // Rests and pauses of the old share, or after old failures, are over.
        self.rests_until = now.mono;
        self.failures = 0;
        self.unsaved = true;
    }

    /// Decides what to do now. May begin a cycle.
    pub fn next(&mut self, now: Now) -> ScrubStep {
        if self.record.paused && !planted!(ScrubNeverPauses) {
            return ScrubStep::Wait(None);
        }
        if self.record.cycle.is_none() {
            if self.config.interval.is_zero() {
                return ScrubStep::Wait(None);
            }
            let due = self.due(now.wall);
            if now.wall < due {
                let left = Duration::from_nanos(due.0 - now.wall.0);
                return ScrubStep::Wait(Some(left.min(LOOK)));
            }
            self.begin(now);
        }
        if now.mono < self.rests_until {
            return ScrubStep::Wait(Some(self.rests_until.since(now.mono)));
        }
        let cycle = self.record.cycle.as_ref();
        ScrubStep::Check(cycle.map(|cycle| cycle.position.clone()).unwrap_or_default())
    }

    /// Records the result of a piece that took `busy`: what was found, and the position up to which it is
    /// checked; `None` if everything is.
    pub fn checked(&mut self, now: Now, busy: Duration, found: ScrubCounts, position: Option<String>) {
        let Some(cycle) = &mut self.record.cycle else {
            return;
        };
        cycle.found.add(found);
        self.failures = 0;
        self.moved = true;
        let ends_early = planted!(ScrubEndsAtDamage) && found.damaged > 0;
        match position {
            Some(position) if !ends_early => cycle.position = position,
            None if planted!(ScrubNeverEnds) => cycle.position.clear(),
            Some(_) | None => self.end(now),
        }
        self.rests_until = now.mono + self.rest(busy);
    }

    /// Records that the node could not check a piece; it is tried again after a pause that grows.
    pub fn failed(&mut self, now: Now) {
        let pause = RETRY[0].saturating_mul(1 << self.failures.min(10)).min(RETRY[1]);
        self.failures = self.failures.saturating_add(1);
        self.rests_until = now.mono + pause;
    }

    /// Returns whether the record is to be saved now.
    pub fn is_unsaved(&self, now: Now) -> bool {
        self.unsaved || self.moved && now.mono.since(self.saved_at) >= SAVE
    }

    /// Records that the current record was saved, or could not be.
    pub fn saved(&mut self, now: Now) {
        (self.unsaved, self.moved) = (false, false);
        self.saved_at = now.mono;
    }

    fn end(&mut self, now: Now) {
        let Some(mut cycle) = self.record.cycle.take() else {
            return;
        };
        cycle.ended = now.wall;
        cycle.position.clear();
        self.record.next = Some(self.after(cycle.since));
        self.record.last = Some(cycle);
        self.unsaved = true;
    }

    fn begin(&mut self, now: Now) {
        self.record.cycle = Some(ScrubCycle {
            since: now.wall,
            ..ScrubCycle::default()
        });
        self.unsaved = true;
    }

    /// Returns when the next cycle is due, and draws that time if there is none: within one interval, so that
    /// the peers of a new cluster are spread. A time that is too far ahead was written before the clock was
    /// set back, or with a longer interval.
    fn due(&mut self, now: Timestamp) -> Timestamp {
        let interval = nanos(self.config.interval);
        let latest = now.0.saturating_add(interval).saturating_add(interval / JITTER);
        if let Some(next) = self.record.next.filter(|next| next.0 <= latest) {
            return next;
        }
        let next = Timestamp(
            now.0
                .saturating_add(self.rng.next() % interval.saturating_add(1).max(1)),
        );
        self.record.next = Some(next);
        self.unsaved = true;
        next
    }

    /// Draws the time of the cycle after one that began at `since`.
    fn after(&mut self, since: Timestamp) -> Timestamp {
        let interval = nanos(self.config.interval);
        let spread = interval / JITTER;
        let earliest = since.0.saturating_add(interval - spread);
        Timestamp(earliest.saturating_add(self.rng.next() % (2 * spread).saturating_add(1)))
    }

    /// Returns how long to rest after a piece, so that pieces take the share of the time.
    fn rest(&self, busy: Duration) -> Duration {
        if planted!(ScrubNeverRests) {
            return Duration::ZERO;
        }
        let share = u32::from(self.share());
        let rest = busy.saturating_mul(u32::from(SCRUB_SHARE_MAX) - share) / share;
        rest.min(REST_MAX)
    }
}

fn nanos(time: Duration) -> u64 {
    // Half of the range, so that sums with the jitter do not overflow: 290 years.
    u64::try_from(time.as_nanos())
        .unwrap_or(u64::MAX)
        .min(u64::MAX / 2)
}
