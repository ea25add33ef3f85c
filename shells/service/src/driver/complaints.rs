//! Rate-limited log of the IPFS node's failures.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cluster_ipfs::Backend;

/// Time after a log line in which further failures are only counted: a node that is down fails every pin.
const PAUSE: Duration = Duration::from_secs(10);

/// Logs failures, the first at once. Clones share the counts.
#[derive(Clone)]
pub(super) struct Complaints {
    is_kubo: bool,
    told: Arc<Mutex<Told>>,
}

#[derive(Default)]
struct Told {
    last: Option<Instant>,
    more: u64,
}

impl Complaints {
    /// A log for this node.
    pub(super) fn new(backend: &Backend) -> Self {
        Self {
            is_kubo: matches!(backend, Backend::Kubo(_)),
            told: Arc::default(),
        }
    }

    /// Logs that `doing` failed, or counts it.
    pub(super) fn tell(&self, doing: &str, why: &dyn fmt::Display) {
        let Some(more) = self.turn(Instant::now()) else {
            return;
        };
        let more = match more {
            0 => String::new(),
            more => format!(" (and {more} more failures since the last such line)"),
        };
        // The log targets are those of the two kinds of nodes. An embedded node that cannot find content is
        // no fault of this machine; a Kubo that does not answer is one.
        if self.is_kubo {
            tracing::error!(target: "ipfshttp", "error {doing}: {why}{more}");
        } else {
            tracing::warn!(target: "embedded", "error {doing}: {why}{more}");
        }
    }

    /// Number of failures that were only counted, if this one is to be logged.
    fn turn(&self, now: Instant) -> Option<u64> {
        let mut told = self.told.lock().expect("nothing panics while it holds this lock");
        if told.last.is_some_and(|last| now.duration_since(last) < PAUSE) {
            told.more += 1;
            return None;
        }
        told.last = Some(now);
        Some(std::mem::take(&mut told.more))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_that_are_not_logged_are_counted() {
        let complaints = Complaints {
            is_kubo: true,
            told: Arc::default(),
        };
        let start = Instant::now();
        assert_eq!(complaints.turn(start), Some(0));
        assert_eq!(complaints.turn(start + PAUSE / 2), None);
        assert_eq!(complaints.turn(start + PAUSE / 2), None);
        assert_eq!(complaints.turn(start + PAUSE), Some(2));
        assert_eq!(complaints.turn(start + PAUSE * 2), Some(0));
    }
}
