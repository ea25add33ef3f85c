//! Schedule of reconnection attempts to members.

use std::collections::BTreeMap;
use std::time::Duration;

use cluster_core::PeerId;
use tokio::time::Instant;

/// Pause before the first attempt after a connection is lost or cannot be made.
const FIRST: Duration = Duration::from_millis(100);

/// Maximum pause: a peer whose machine was down is back within that time. A restarted peer dials on its own.
const LONGEST: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy)]
struct Attempt {
    /// Time of the attempt; `None` while it is in progress.
    due: Option<Instant>,
    pause: Duration,
}

/// Members that are not connected, and the time of the next attempt for each.
#[derive(Debug, Default)]
pub(super) struct Redial {
    attempts: BTreeMap<PeerId, Attempt>,
}

impl Redial {
    /// Schedules attempts for this peer, the first soon. The jitter, from 0 to 1, keeps two peers that lose
    /// each other from dialling at the same moment.
    pub(super) fn soon(&mut self, peer: PeerId, now: Instant, jitter: f64) {
        let due = Some(now + FIRST.mul_f64(jitter));
        self.attempts.insert(peer, Attempt { due, pause: FIRST });
    }

    /// Schedules the next attempt after a failed one, with a doubled pause.
    pub(super) fn failed(&mut self, peer: &PeerId, now: Instant, jitter: f64) {
        if let Some(attempt) = self.attempts.get_mut(peer) {
            attempt.due = Some(now + attempt.pause.mul_f64(0.75 + jitter / 2.0));
            attempt.pause = (attempt.pause * 2).min(LONGEST);
        }
    }

    /// Cancels attempts: the peer is connected, or need not be.
    pub(super) fn stop(&mut self, peer: &PeerId) {
        self.attempts.remove(peer);
    }

    /// Returns whether attempts are scheduled or in progress.
    pub(super) fn is_trying(&self, peer: &PeerId) -> bool {
        self.attempts.contains_key(peer)
    }

    /// Returns the time at which [`Redial::take_due`] will return a peer.
    pub(super) fn next(&self) -> Option<Instant> {
        self.attempts.values().filter_map(|attempt| attempt.due).min()
    }

    /// Takes the peers to dial now; their attempts are in progress from here on.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<PeerId> {
        let mut due = Vec::new();
        for (peer, attempt) in &mut self.attempts {
            if attempt.due.is_some_and(|at| at <= now) {
                attempt.due = None;
                due.push(peer.clone());
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_five_seconds_and_reset_on_connection() {
        let peer: PeerId = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp"
            .parse()
            .unwrap();
        let (mut redial, mut now) = (Redial::default(), Instant::now());
        redial.soon(peer.clone(), now, 0.0);
        assert_eq!(redial.take_due(now), std::slice::from_ref(&peer));
        assert_eq!(redial.next(), None);
        let mut pauses = Vec::new();
        for _ in 0..8 {
            redial.failed(&peer, now, 0.5);
            let due = redial.next().unwrap();
            pauses.push((due - now).as_millis());
            now = due;
            assert_eq!(redial.take_due(now), std::slice::from_ref(&peer));
        }
        assert_eq!(pauses, [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
        redial.stop(&peer);
        redial.failed(&peer, now, 0.5);
        assert_eq!(redial.next(), None);
    }
}
