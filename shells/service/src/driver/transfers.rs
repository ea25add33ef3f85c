//! Progress of the pins that this peer's IPFS node is fetching, for their status.
//!
//! There are as many entries as running operations, which the core limits.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cluster_core::{Cid, Timestamp};
use cluster_ipfs::Progress;

use super::Clock;

/// Age from which a transfer is shown, as most pins end before; and interval of progress reports to the core,
/// which only needs to know that there is some.
const INTERVAL: Duration = Duration::from_secs(1);

/// A transfer at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transfer {
    /// Blocks and bytes so far.
    pub progress: Progress,
    /// Wall-clock time of the last progress, or of the start.
    pub updated: Timestamp,
}

/// Transfers of the running pins, by CID. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Transfers {
    running: Arc<Mutex<BTreeMap<Cid, Arc<Mutex<State>>>>>,
}

#[derive(Debug)]
struct State {
    started: Instant,
    /// Time of the last report to the core, or of the start.
    reported: Instant,
    transfer: Transfer,
}

impl Transfers {
    /// Returns the transfer of a CID, if it has lasted long enough to be shown.
    pub(super) fn get(&self, cid: &Cid) -> Option<Transfer> {
        let state = lock(&self.running).get(cid).cloned()?;
        let state = lock(&state);
        (state.started.elapsed() >= INTERVAL).then_some(state.transfer)
    }

    /// Begins a transfer, which ends when it is dropped.
    pub(super) fn begin(&self, cid: Cid, clock: Clock) -> Running {
        let now = Instant::now();
        let state = Arc::new(Mutex::new(State {
            started: now,
            reported: now,
            transfer: Transfer {
                progress: Progress::default(),
                updated: clock.now().wall,
            },
        }));
        lock(&self.running).insert(cid.clone(), state.clone());
        Running {
            transfers: self.clone(),
            cid,
            clock,
            state,
        }
    }
}

/// A running transfer.
pub(super) struct Running {
    transfers: Transfers,
    cid: Cid,
    clock: Clock,
    state: Arc<Mutex<State>>,
}

impl Running {
    /// Records progress. Returns whether to report it to the core.
    pub(super) fn progressed(&self, progress: Progress) -> bool {
        let mut state = lock(&self.state);
        state.transfer = Transfer {
            progress,
            updated: self.clock.now().wall,
        };
        let is_due = state.reported.elapsed() >= INTERVAL;
        if is_due {
            state.reported = Instant::now();
        }
        is_due
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        lock(&self.transfers.running).remove(&self.cid);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running() -> (Transfers, Cid, Running) {
        let transfers = Transfers::default();
        let cid = Cid::from_bytes(&[1, 0x55, 0, 1, 7]).unwrap();
        let running = transfers.begin(cid.clone(), Clock::new());
        (transfers, cid, running)
    }

    fn age(running: &Running) {
        let mut state = lock(&running.state);
        state.started -= INTERVAL;
        state.reported -= INTERVAL;
    }

    #[test]
    fn a_short_transfer_is_not_shown_and_not_reported() {
        let (transfers, cid, running) = running();
        assert!(!running.progressed(Progress::default()));
        assert_eq!(transfers.get(&cid), None);
    }

    #[test]
    fn a_long_transfer_is_shown_with_its_latest_progress_until_it_ends() {
        let (transfers, cid, running) = running();
        age(&running);
        let blocks = |blocks| Progress {
            blocks,
            ..Progress::default()
        };
        assert_eq!(transfers.get(&cid).unwrap().progress, blocks(0));
        assert!(running.progressed(blocks(1)));
        assert!(!running.progressed(blocks(2)), "the core was told just now");
        assert_eq!(transfers.get(&cid).unwrap().progress, blocks(2));
        drop(running);
        assert_eq!(transfers.get(&cid), None);
    }
}
