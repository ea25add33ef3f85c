//! Losses and refusals, counted in full and logged in moderation.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Time within which the same kind of loss of the same peer is logged only once.
const QUIET: Duration = Duration::from_secs(60);

/// Maximum number of log keys remembered. A peer that can produce more flooded the log anyway, so beyond it
/// nothing new is logged until old keys expire.
const REMEMBERED_MAX: usize = 1_024;

/// Counts of losses and refusals since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Losses {
    /// Core messages that were not sent: no connection, or its queue was full.
    pub dropped: u64,
    /// Streams and calls of non-members, or of peers of another cluster.
    pub refused: u64,
    /// Streams and calls beyond the limits.
    pub overloaded: u64,
    /// Streams closed because of invalid data on them.
    pub malformed: u64,
    /// Connections that failed during the handshake.
    pub handshakes: u64,
}

/// The counters behind [`Losses`], and the times of the last log lines.
#[derive(Debug, Default)]
pub(super) struct LossLog {
    pub(super) dropped: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) overloaded: AtomicU64,
    pub(super) malformed: AtomicU64,
    pub(super) handshakes: AtomicU64,
    logged: Mutex<BTreeMap<(String, &'static str), Instant>>,
}

impl LossLog {
    /// Adds one to a counter.
    pub(super) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns whether an event of this kind about this party should be logged now.
    pub(super) fn should_log(&self, party: impl ToString, complaint: &'static str) -> bool {
        self.should_log_at(party.to_string(), complaint, Instant::now())
    }

    fn should_log_at(&self, party: String, complaint: &'static str, now: Instant) -> bool {
        let mut logged = self.logged.lock().expect("no panic while locked");
        let key = (party, complaint);
        if let Some(last) = logged.get_mut(&key) {
            let news = now.duration_since(*last) >= QUIET;
            if news {
                *last = now;
            }
            return news;
        }
        if logged.len() >= REMEMBERED_MAX {
            logged.retain(|_, last| now.duration_since(*last) < QUIET);
        }
        let room = logged.len() < REMEMBERED_MAX;
        if room {
            logged.insert(key, now);
        }
        room
    }

    pub(super) fn read(&self) -> Losses {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Losses {
            dropped: of(&self.dropped),
            refused: of(&self.refused),
            overloaded: of(&self.overloaded),
            malformed: of(&self.malformed),
            handshakes: of(&self.handshakes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_logged_once_a_minute_per_peer_and_the_log_is_bounded() {
        let losses = LossLog::default();
        let start = Instant::now();
        let at = |party: &str, seconds| {
            losses.should_log_at(party.to_owned(), "stranger", start + Duration::from_secs(seconds))
        };
        assert!(at("a", 0));
        assert!(at("b", 0));
        assert!(!at("a", 59));
        assert!(at("a", 60));
        assert!((0..5_000).filter(|n| at(&format!("flood {n}"), 60)).count() <= REMEMBERED_MAX);
        assert!(!at("c", 60));
        assert!(at("c", 200));
    }
}
