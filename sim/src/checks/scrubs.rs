//! Scrubs: a paused one checks nothing, pieces take no more than the share of the time, a completed cycle has
//! found all rot that was there when it began, and a requested cycle ends.

use std::time::Duration;

use cluster_core::{Cid, Instant, ScrubChange};

/// Longest rest, as in the core.
const REST_MAX: Duration = Duration::from_secs(3600);

/// Rules for the scrub of one peer. Knows the requests and the pieces, not the core's record.
#[derive(Debug)]
pub(crate) struct ScrubWatch {
    configured: u16,
    share: u16,
    paused: bool,
    /// Time on the peer's clock before which no piece may begin.
    rests_until: Instant,
    /// Simulated time at which the first piece of the cycle began.
    began: u64,
    /// True while a requested cycle is not complete.
    awaited: bool,
}

impl ScrubWatch {
    pub(crate) fn new(share: u16) -> Self {
        Self {
            configured: share,
            share,
            paused: false,
            rests_until: Instant::default(),
            began: 0,
            awaited: false,
        }
    }

    /// Records a requested change.
    pub(crate) fn changed(&mut self, change: ScrubChange) {
        match change {
            ScrubChange::Pause => self.paused = true,
            ScrubChange::Resume | ScrubChange::Start => self.paused = false,
            ScrubChange::Share(share) => self.share = share.unwrap_or(self.configured),
        }
        self.rests_until = Instant::default();
    }

    /// Records a new process, whose clock may be another one.
    pub(crate) fn restarted(&mut self) {
        self.rests_until = Instant::default();
    }

    /// Requires that a cycle ends from now on.
    pub(crate) fn await_cycle(&mut self) {
        self.awaited = true;
    }

    pub(crate) fn unfinished(&self) -> Option<&'static str> {
        self.awaited.then_some("the requested cycle of the scrub to end")
    }

    /// Checks the beginning of a piece.
    pub(crate) fn begins(&mut self, at: u64, now: Instant, position: &str) -> Result<(), String> {
        if self.paused {
            return Err("checks though it is paused".to_owned());
        }
        if now < self.rests_until {
            let left = self.rests_until.since(now);
            return Err(format!(
                "takes more than {} thousandths of the time: {left:?} too early",
                self.share
            ));
        }
        if position.is_empty() {
            self.began = at;
        }
        Ok(())
    }

    /// Records a piece that failed: the pause after it is the core's choice.
    pub(crate) fn failed(&mut self) {
        self.rests_until = Instant::default();
    }

    /// Records a piece that took `busy`.
    pub(crate) fn checked(&mut self, now: Instant, busy: Duration) {
        let share = u32::from(self.share.max(1));
        let rest = busy * (1000 - share) / share;
        self.rests_until = now + rest.min(REST_MAX);
    }

    /// Checks the end of a cycle. `rotten` has the copies that are rotten still, and since when.
    pub(crate) fn ended<'a>(&mut self, rotten: impl Iterator<Item = (&'a Cid, u64)>) -> Result<(), String> {
        self.awaited = false;
        let began = self.began;
        let mut missed = rotten.filter(|(_, since)| *since < began);
        match missed.next() {
            None => Ok(()),
            Some((cid, since)) => Err(format!(
                "a cycle that began at {began} ends without finding {cid}, rotten since {since}"
            )),
        }
    }
}
