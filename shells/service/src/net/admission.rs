//! Limits on open streams, per peer and in all.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use cluster_core::PeerId;

use super::streams::Protocol;

/// Calls of one member: twice what the busiest client connections of one peer have been seen to need.
const CALLS_PER_PEER: usize = 256;

/// Calls in all; each may hold a request of up to a mebibyte until it is read.
const CALLS_MAX: usize = 1_024;

/// Streams of one non-member, which may ask to join and little else.
const STRANGER_MAX: usize = 8;

/// Streams of all non-members together.
const STRANGERS_MAX: usize = 64;

/// Core streams of one peer: only the newest is read, but those it replaces take a moment to close.
const CORE_PER_PEER: usize = 4;

/// Core streams in all: 4 for each of 1,024 peers.
const CORE_MAX: usize = 4_096;

/// Snapshots of one peer: one that is stuck, and the next try.
const SNAPSHOTS_PER_PEER: usize = 2;

/// Snapshots in all: they are bulk for disk and network.
const SNAPSHOTS_MAX: usize = 8;

/// Class of streams that share a limit: the protocol, and whether the peer is a member.
type Key = (Protocol, bool);

#[derive(Debug, Default)]
struct Counts {
    by_peer: BTreeMap<(PeerId, Key), usize>,
    in_all: BTreeMap<Key, usize>,
}

/// Counts the open streams of one direction.
#[derive(Debug, Default)]
pub(super) struct Admission {
    counts: Mutex<Counts>,
}

/// Permit of one stream, returned when dropped.
#[derive(Debug)]
pub(super) struct Place {
    admission: Arc<Admission>,
    peer: PeerId,
    key: Key,
}

impl Admission {
    /// Takes a permit for one more stream. The error is a text for the peer.
    pub(super) fn admit(
        self: &Arc<Self>,
        peer: &PeerId,
        protocol: Protocol,
        member: bool,
    ) -> Result<Place, String> {
        let (per_peer, in_all) = match (protocol, member) {
            (_, false) => (STRANGER_MAX, STRANGERS_MAX),
            (Protocol::Core, true) => (CORE_PER_PEER, CORE_MAX),
            (Protocol::Rpc, true) => (CALLS_PER_PEER, CALLS_MAX),
            (Protocol::Snapshot, true) => (SNAPSHOTS_PER_PEER, SNAPSHOTS_MAX),
        };
        let key = (protocol, member);
        let mut counts = self.counts.lock().expect("no panic while locked");
        if counts.in_all.get(&key).is_some_and(|open| *open >= in_all) {
            return Err(format!("{in_all} of these are open already, try again later"));
        }
        let of_peer = counts.by_peer.entry((peer.clone(), key)).or_default();
        if *of_peer >= per_peer {
            return Err(format!(
                "{per_peer} of these are open with this peer already, try again later"
            ));
        }
        *of_peer += 1;
        *counts.in_all.entry(key).or_default() += 1;
        Ok(Place {
            admission: Arc::clone(self),
            peer: peer.clone(),
            key,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.admission.counts.lock().expect("no panic while locked");
        let key = (self.peer.clone(), self.key);
        if let Some(open) = counts.by_peer.get_mut(&key) {
            *open -= 1;
            if *open == 0 {
                counts.by_peer.remove(&key);
            }
        }
        if let Some(open) = counts.in_all.get_mut(&self.key) {
            *open -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_limited_by_peer_and_freed_when_dropped() {
        let admission = Arc::new(Admission::default());
        let peer: PeerId = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp"
            .parse()
            .unwrap();
        let admit = |member| admission.admit(&peer, Protocol::Rpc, member);
        let mut places: Vec<_> = (0..CALLS_PER_PEER).map(|_| admit(true).unwrap()).collect();
        let refused = admit(true).unwrap_err();
        assert_eq!(
            refused,
            "256 of these are open with this peer already, try again later"
        );
        assert!(admit(false).is_ok(), "non-members are counted separately");
        places.pop();
        assert!(admit(true).is_ok());
        drop(places);
        assert!(admission.counts.lock().unwrap().by_peer.is_empty());
    }
}
