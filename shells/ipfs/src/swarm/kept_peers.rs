//! Kept peers and the schedule of redialling them.

use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, PeerId};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Limit on kept peers: a cluster has hundreds.
const KEPT_MAX: usize = 2048;
/// Pause after the first loss; it doubles with each failure.
const PAUSE_MIN: Duration = Duration::from_millis(250);
/// Maximum pause. A peer that comes back is reconnected within it.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Maximum number of dials started together, so that a lost network does not cause a storm.
const BURST: usize = 16;

#[derive(Debug)]
struct Kept {
    addresses: Vec<Multiaddr>,
    pause: Duration,
    /// Time of the next dial; `None` while connected.
    next: Option<Instant>,
}

/// Kept peers and their addresses.
#[derive(Debug, Default)]
pub(super) struct KeptPeers {
    kept: HashMap<PeerId, Kept>,
    candidates: HashMap<ConnectionId, (PeerId, Multiaddr)>,
}

impl KeptPeers {
    /// Starts keeping a peer; returns `false` if there are too many.
    pub(super) fn keep(&mut self, peer: PeerId, addresses: Vec<Multiaddr>, now: Instant) -> bool {
        if let Some(kept) = self.kept.get_mut(&peer) {
            kept.addresses = addresses;
            return true;
        }
        if self.kept.len() >= KEPT_MAX {
            tracing::warn!(%peer, "not keeping a connection to this ipfs peer: {KEPT_MAX} are kept already");
            return false;
        }
        self.kept.insert(
            peer,
            Kept {
                addresses,
                pause: PAUSE_MIN,
                next: Some(now),
            },
        );
        true
    }

    /// Returns whether a peer is kept.
    pub(super) fn contains(&self, peer: &PeerId) -> bool {
        self.kept.contains_key(peer)
    }

    /// Stores an address that is kept only if its dial succeeds.
    pub(super) fn add_candidate(&mut self, dial: ConnectionId, peer: PeerId, address: Multiaddr) {
        self.candidates.insert(dial, (peer, address));
    }

    pub(super) fn take_candidate(&mut self, dial: ConnectionId) -> Option<Multiaddr> {
        self.candidates.remove(&dial).map(|(_, address)| address)
    }

    pub(super) fn drop_peer(&mut self, peer: &PeerId) {
        self.kept.remove(peer);
        self.candidates.retain(|_, (candidates, _)| candidates != peer);
    }

    pub(super) fn connected(&mut self, peer: &PeerId) {
        if let Some(kept) = self.kept.get_mut(peer) {
            kept.next = None;
            kept.pause = PAUSE_MIN;
        }
    }

    pub(super) fn lost(&mut self, peer: &PeerId, now: Instant) {
        if let Some(kept) = self.kept.get_mut(peer) {
            kept.next = Some(now + kept.pause);
        }
    }

    /// Returns the peers to dial now, with addresses. Each is due again after its pause unless it connects.
    pub(super) fn due(&mut self, now: Instant) -> Vec<(PeerId, Vec<Multiaddr>)> {
        let due = self
            .kept
            .iter_mut()
            .filter(|(_, kept)| kept.next.is_some_and(|next| next <= now));
        let dial = |(peer, kept): (&PeerId, &mut Kept)| {
            kept.next = Some(now + kept.pause);
            kept.pause = (kept.pause * 2).min(PAUSE_MAX);
            (*peer, kept.addresses.clone())
        };
        due.take(BURST).map(dial).collect()
    }
}
