//! Limits on dials that other peers ask for: to test an address, or to punch a hole.

use super::addresses::{Reach, is_relayed, reach};
use libp2p::swarm::{ConnectionDenied, ConnectionId, ToSwarm};
use libp2p::{Multiaddr, PeerId};
use std::collections::{HashSet, VecDeque};
use std::task::Poll;
use std::time::{Duration, Instant};

/// Interval of the limits.
const INTERVAL: Duration = Duration::from_secs(60);
/// Limit on dials for all peers in an interval; go-libp2p's of its AutoNAT server.
pub(super) const DIALS_MAX: usize = 60;
/// Limit on dials for one peer in an interval; go-libp2p's of its AutoNAT server.
pub(super) const CLIENT_DIALS_MAX: usize = 12;

/// Reason for not dialling an address that a peer names.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("the address is not public")]
    NotPublic,
    #[error("too many dials at the request of peers")]
    Busy,
}

/// Dials that a behaviour asks for at the request of other peers.
#[derive(Debug, Default)]
pub(super) struct AskedDials {
    /// Those that were not checked yet.
    pub(super) asked: HashSet<ConnectionId>,
    limits: DialLimits,
}

impl AskedDials {
    /// Notes the dial that the behaviour asks for, if its next step is one.
    pub(super) fn note<E, H>(&mut self, next: &Poll<ToSwarm<E, H>>) {
        if let Poll::Ready(ToSwarm::Dial { opts }) = next {
            self.asked.insert(opts.connection_id());
        }
    }

    /// Checks a dial, once, and returns no further addresses. Dials of other behaviours are admitted.
    ///
    /// # Errors
    /// [`Refused`].
    pub(super) fn check(
        &mut self,
        id: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        if self.asked.remove(&id) {
            if !are_public(addresses) {
                return Err(ConnectionDenied::new(Refused::NotPublic));
            }
            if !peer.is_some_and(|peer| self.limits.admit(peer, Instant::now())) {
                return Err(ConnectionDenied::new(Refused::Busy));
            }
        }
        Ok(Vec::new())
    }
}

/// Recent dials.
#[derive(Debug, Default)]
struct DialLimits {
    recent: VecDeque<(Instant, PeerId)>,
}

impl DialLimits {
    /// Counts a dial, unless there were too many.
    fn admit(&mut self, peer: PeerId, now: Instant) -> bool {
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

/// Returns whether there are addresses, and all of them are public and direct.
pub(super) fn are_public(addresses: &[Multiaddr]) -> bool {
    let is_public = |address: &Multiaddr| reach(address) == Reach::Public && !is_relayed(address);
    !addresses.is_empty() && addresses.iter().all(is_public)
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
