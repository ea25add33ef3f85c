//! What the IPFS node fails at, in the log.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cluster_ipfs::Backend;

/// After one complaint, others are only counted for so long: a node that is down fails at every pin.
const PAUSE: Duration = Duration::from_secs(10);

/// Tells of failures, the first at once. Clones share what they have told.
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
    /// About this node.
    pub(super) fn new(backend: &Backend) -> Self {
        Self {
            is_kubo: matches!(backend, Backend::Kubo(_)),
            told: Arc::default(),
        }
    }

    /// Tells that `doing` failed, or counts it.
    pub(super) fn tell(&self, doing: &str, why: &dyn fmt::Display) {
        let Some(more) = self.turn(Instant::now()) else {
            return;
        };
        let more = match more {
            0 => String::new(),
            more => format!(" (and {more} more failures since the last such line)"),
        };
        // The facilities are those of the two kinds of nodes. An own node that cannot find content is no
        // fault of this machine; a Kubo that does not answer is one.
        if self.is_kubo {
            tracing::error!(target: "ipfshttp", "error {doing}: {why}{more}");
        } else {
            tracing::warn!(target: "embedded", "error {doing}: {why}{more}");
        }
    }

    /// How many were only counted before this one, if it is to be told.
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
    fn what_is_not_told_is_counted() {
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
