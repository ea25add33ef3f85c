//! Limits on dials that other peers ask for: to test an address, or to punch a hole.

use super::addresses::{Reach, is_relayed, reach};
use libp2p::{Multiaddr, PeerId};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Interval of the limits.
const INTERVAL: Duration = Duration::from_secs(60);
/// Limit on dials for all peers in an interval; go-libp2p's of its AutoNAT server.
pub(super) const DIALS_MAX: usize = 60;
/// Limit on dials for one peer in an interval; go-libp2p's of its AutoNAT server.
pub(super) const CLIENT_DIALS_MAX: usize = 12;

/// Reason for not dialling an address that a peer names.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("the address is not public")]
    NotPublic,
    #[error("too many dials at the request of peers")]
    Busy,
}

/// Recent dials.
#[derive(Debug, Default)]
pub(super) struct DialLimits {
    recent: VecDeque<(Instant, PeerId)>,
}

impl DialLimits {
    /// Counts a dial, unless there were too many.
    pub(super) fn admit(&mut self, peer: PeerId, now: Instant) -> bool {
        while let Some((time, _)) = self.recent.front()
            && now.duration_since(*time) >= INTERVAL
        {
            self.recent.pop_front();
        }
        let of_peer = self.recent.iter().filter(|(_, known)| *known == peer).count();
        let is_admitted = self.recent.len() < DIALS_MAX && of_peer < CLIENT_DIALS_MAX;
        if is_admitted {
            self.recent.push_back((now, peer));
        }
        is_admitted
    }
}

/// Checks that there are addresses, and that all of them are public and direct.
///
/// # Errors
/// [`Refused::NotPublic`].
pub(super) fn check_public(addresses: &[Multiaddr]) -> Result<(), Refused> {
    let is_public = |address: &Multiaddr| reach(address) == Reach::Public && !is_relayed(address);
    match !addresses.is_empty() && addresses.iter().all(is_public) {
        true => Ok(()),
        false => Err(Refused::NotPublic),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dials_are_admitted_again_after_the_interval() {
        let (mut limits, peer, start) = (DialLimits::default(), PeerId::random(), Instant::now());
        assert!((0..CLIENT_DIALS_MAX).all(|_| limits.admit(peer, start)));
        assert!(!limits.admit(peer, start + INTERVAL / 2));
        assert!(limits.admit(peer, start + INTERVAL));
    }
}
