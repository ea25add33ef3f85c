//! Rate-limited log of the IPFS node's failures.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cluster_ipfs::Backend;

/// Time after a log line in which further failures are only counted: a node that is down fails every pin.
const PAUSE: Duration = Duration::from_secs(10);

/// Logs failures, the first at once. Clones share the counts.
#[derive(Clone)]
pub(super) struct FailureLog {
    is_kubo: bool,
    counts: Arc<Mutex<Counts>>,
}

#[derive(Default)]
struct Counts {
    last: Option<Instant>,
    more: u64,
}

impl FailureLog {
    /// Creates the log of this node's failures.
    pub(super) fn new(backend: &Backend) -> Self {
        Self {
            is_kubo: matches!(backend, Backend::Kubo(_)),
            counts: Arc::default(),
        }
    }

    /// Logs that `doing` failed, or counts it.
    pub(super) fn report(&self, doing: &str, why: &dyn fmt::Display) {
        let Some(more) = self.next_count(Instant::now()) else {
            return;
        };
        let more = match more {
            0 => String::new(),
            more => format!(" (and {more} more failures since the last such line)"),
        };
        // The log targets are those of the two kinds of nodes. Content that the embedded node cannot find is
        // not a fault of this machine; a Kubo daemon that does not answer is.
        if self.is_kubo {
            tracing::error!(target: "ipfshttp", "error {doing}: {why}{more}");
        } else {
            tracing::warn!(target: "embedded", "error {doing}: {why}{more}");
        }
    }

    /// Returns the number of failures that were only counted, if this one is to be logged.
    fn next_count(&self, now: Instant) -> Option<u64> {
        let mut counts = self
            .counts
            .lock()
            .expect("nothing panics while it holds this lock");
        if counts.last.is_some_and(|last| now.duration_since(last) < PAUSE) {
            counts.more += 1;
            return None;
        }
        counts.last = Some(now);
        Some(std::mem::take(&mut counts.more))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_that_are_not_logged_are_counted() {
        let failures = FailureLog {
            is_kubo: true,
            counts: Arc::default(),
        };
        let start = Instant::now();
        assert_eq!(failures.next_count(start), Some(0));
        assert_eq!(failures.next_count(start + PAUSE / 2), None);
        assert_eq!(failures.next_count(start + PAUSE / 2), None);
        assert_eq!(failures.next_count(start + PAUSE), Some(2));
        assert_eq!(failures.next_count(start + PAUSE * 2), Some(0));
    }
}
