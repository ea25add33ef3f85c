//! Pace of the copies that move to this peer: their bytes are limited, see
//! [`RebalanceSettings`](cluster_core::RebalanceSettings).
//!
//! The bytes that a pin has fetched are a debt, which shrinks at the permitted rate. While there is a debt,
//! no further move starts. With much debt, the embedded node's running pins are not polled either, so that
//! they ask for no more blocks than those under way, 16 MiB for each. A Kubo daemon cannot be slowed down:
//! what its pins fetch delays the next ones.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use cluster_core::{Event, OpId};
use cluster_ipfs::Progress;
use tokio::sync::Semaphore;

use super::Handle;
use crate::metrics::metrics;

/// Number of moves that are fetched at once; the others wait.
const RUNNING_MAX: usize = 4;

/// Debt from which running moves of the embedded node pause: small ones end without a pause, so that they do
/// not hold up others.
const PAUSE_BYTES: u64 = 4 << 20;

/// Time after which the rate is read again, and a waiting move is reported to the core as not stuck.
const INTERVAL: Duration = Duration::from_secs(1);

/// Bytes fetched and not paid for yet.
#[derive(Debug)]
struct Debt {
    /// Bytes per second; `None` for no limit.
    rate: Option<u64>,
    bytes: f64,
    /// Time to which `bytes` refers.
    at: Instant,
}

impl Debt {
    fn new(now: Instant) -> Self {
        Self {
            rate: None,
            bytes: 0.0,
            at: now,
        }
    }

    fn pay(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.bytes = match self.rate {
            Some(rate) => (self.bytes - elapsed * rate as f64).max(0.0),
            None => 0.0,
        };
    }

    fn set_rate(&mut self, now: Instant, rate: Option<u64>) {
        self.pay(now);
        self.rate = rate;
        self.pay(now);
    }

    fn charge(&mut self, now: Instant, bytes: u64) {
        self.pay(now);
        if self.rate.is_some() {
            self.bytes += bytes as f64;
        }
    }

    /// Returns the time until the debt is at most `allowed`.
    fn wait(&mut self, now: Instant, allowed: u64) -> Duration {
        self.pay(now);
        let excess = self.bytes - allowed as f64;
        match self.rate {
            Some(rate) if excess >= 1.0 => {
                let seconds = excess / rate.max(1) as f64;
                Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
            }
            Some(_) | None => Duration::ZERO,
        }
    }
}

/// The pace of all moves. Cheap to clone.
#[derive(Clone)]
pub(super) struct MovePace {
    debt: Arc<Mutex<Debt>>,
    turns: Arc<Semaphore>,
    /// Set if running pins can be slowed down.
    is_embedded: bool,
}

impl MovePace {
    pub(super) fn new(is_embedded: bool) -> Self {
        Self {
            debt: Arc::new(Mutex::new(Debt::new(Instant::now()))),
            turns: Arc::new(Semaphore::new(RUNNING_MAX)),
            is_embedded,
        }
    }

    fn debt<T>(&self, change: impl FnOnce(&mut Debt, Instant) -> T) -> T {
        let mut debt = self.debt.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut debt, Instant::now())
    }

    /// Returns a counter of the bytes that one pin has fetched.
    pub(super) fn meter(&self) -> Meter {
        Meter {
            pace: self.clone(),
            counted: Mutex::new(0),
        }
    }

    /// Carries out a move when it is its turn, at the permitted rate.
    pub(super) async fn run<T>(&self, handle: &Handle, op: OpId, work: impl Future<Output = T>) -> T {
        let alive = || handle.event(Event::IpfsProgressed { op });
        let mut work = std::pin::pin!(work);
        let mut turn = std::pin::pin!(self.turns.acquire());
        // The semaphore is never closed.
        let _turn = loop {
            tokio::select! {
                turn = &mut turn => break turn,
                () = tokio::time::sleep(INTERVAL) => alive(),
            }
        };
        // A running pin of Kubo's goes on with any debt.
        let allowed = if self.is_embedded { PAUSE_BYTES } else { u64::MAX };
        let mut has_started = false;
        loop {
            let rate = handle.view(|view, now| view.move_rate(now)).await.flatten();
            let wait = self.debt(|debt, now| {
                debt.set_rate(now, rate);
                debt.wait(now, if has_started { allowed } else { 0 })
            });
            if !wait.is_zero() {
                tokio::time::sleep(wait.min(INTERVAL)).await;
                alive();
                continue;
            }
            has_started = true;
            let must_pause = || !self.debt(|debt, now| debt.wait(now, allowed)).is_zero();
            let step = std::future::poll_fn(|cx| match work.as_mut().poll(cx) {
                Poll::Ready(done) => Poll::Ready(Some(done)),
                Poll::Pending if must_pause() => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            });
            if let Ok(Some(done)) = tokio::time::timeout(INTERVAL, step).await {
                return done;
            }
        }
    }
}

/// Counter of the bytes of one pin.
pub(super) struct Meter {
    pace: MovePace,
    counted: Mutex<u64>,
}

impl Meter {
    /// Charges what has been fetched since the last call.
    pub(super) fn progressed(&self, progress: Progress) {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let more = progress.bytes.saturating_sub(*counted);
        if more > 0 {
            *counted = progress.bytes;
            metrics().moves_fetched.inc_by(more);
            self.pace.debt(|debt, now| debt.charge(now, more));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn fetched_bytes_are_paid_at_the_rate_of_the_moment() {
        let start = Instant::now();
        let mut debt = Debt::new(start);
        debt.charge(start, 1_000);
        assert_eq!(
            debt.wait(start, 0),
            Duration::ZERO,
            "without a limit there is no debt"
        );
        debt.set_rate(start, Some(100));
        assert_eq!(debt.wait(start, 0), Duration::ZERO, "nor later");
        debt.charge(start, 1_000);
        assert_eq!(debt.wait(start, 0), seconds(10));
        assert_eq!(debt.wait(start, 300), seconds(7));
        assert_eq!(debt.wait(start, 1_000), Duration::ZERO);
        debt.charge(start + seconds(4), 200);
        assert_eq!(debt.wait(start + seconds(4), 0), seconds(8));
        debt.set_rate(start + seconds(4), Some(400));
        assert_eq!(debt.wait(start + seconds(4), 0), seconds(2));
        assert_eq!(debt.wait(start + seconds(7), 0), Duration::ZERO);
        debt.charge(start + seconds(60), 400);
        assert_eq!(
            debt.wait(start + seconds(60), 0),
            seconds(1),
            "idle time is not saved"
        );
        debt.set_rate(start + seconds(60), None);
        assert_eq!(debt.wait(start + seconds(60), 0), Duration::ZERO);
    }

    #[test]
    fn meter_charges_each_byte_once() {
        let pace = MovePace::new(true);
        pace.debt(|debt, now| debt.set_rate(now, Some(1)));
        let meter = pace.meter();
        let fetched = |bytes| Progress {
            bytes,
            ..Progress::default()
        };
        for bytes in [700, 700, 300, 1_000] {
            meter.progressed(fetched(bytes));
        }
        let wait = pace.debt(|debt, now| debt.wait(now, 0));
        assert!(wait > seconds(900) && wait <= seconds(1_000), "{wait:?}");
    }
}
