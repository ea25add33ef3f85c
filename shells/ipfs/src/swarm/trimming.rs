//! Choice of connections to close: those of finished DHT requests, and the least useful ones when there are
//! too many.

use libp2p::swarm::ConnectionId;
use std::time::{Duration, Instant};

/// Interval of checking the connections.
pub(super) const TRIM_INTERVAL: Duration = Duration::from_secs(5);
/// Age at which a connection that a lookup has opened is closed: a lookup takes a few seconds.
const LOOKUP_AGE: Duration = Duration::from_secs(30);
/// Age below which no connection is closed, so that it can be put to use.
const GRACE: Duration = Duration::from_secs(20);

/// Reason of a connection. The first are closed first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Purpose {
    /// A request of a lookup.
    Lookup,
    /// Opened by the other side.
    Inbound,
    /// A provider of wanted content.
    Provider,
    /// Asked for by a user or the cluster.
    Asked,
}

/// A connection as a candidate for closing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    pub(super) id: ConnectionId,
    pub(super) opened: Instant,
    pub(super) purpose: Purpose,
    /// True if the peer is kept, or exchanges blocks with this node.
    pub(super) is_protected: bool,
}

/// Returns the connections to close.
pub(super) fn surplus(mut all: Vec<Candidate>, low: usize, high: usize, now: Instant) -> Vec<ConnectionId> {
    let total = all.len();
    let age = |candidate: &Candidate| now.saturating_duration_since(candidate.opened);
    all.retain(|candidate| !candidate.is_protected && age(candidate) >= GRACE);
    all.sort_by_key(|candidate| (candidate.purpose, candidate.opened));
    let is_finished =
        |candidate: &Candidate| candidate.purpose == Purpose::Lookup && age(candidate) >= LOOKUP_AGE;
    let finished = all.iter().filter(|candidate| is_finished(candidate)).count();
    let above = if total > high { total - low } else { 0 };
    // A few finished ones stay open, so that the next lookup starts quickly.
    let count = above.max(finished.min(total.saturating_sub(low)));
    all.into_iter()
        .take(count)
        .map(|candidate| candidate.id)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(count: usize, purpose: Purpose, age: Duration, now: Instant) -> Vec<Candidate> {
        let one = |number| Candidate {
            id: ConnectionId::new_unchecked(number + 1000 * purpose as usize),
            opened: now - age,
            purpose,
            is_protected: false,
        };
        (0..count).map(one).collect()
    }

    #[test]
    fn too_many_connections_are_trimmed_to_the_low_water_sparing_protected_and_new_ones() {
        let now = Instant::now() + Duration::from_secs(3600);
        let old = Duration::from_secs(600);
        let mut all = candidates(60, Purpose::Inbound, old, now);
        all.extend(candidates(30, Purpose::Provider, old, now));
        assert_eq!(surplus(all.clone(), 32, 96, now), []);
        all.extend(candidates(10, Purpose::Asked, old, now));
        let closed = surplus(all.clone(), 32, 96, now);
        assert_eq!(closed.len(), 68);
        let inbound: Vec<ConnectionId> = all[..60].iter().map(|candidate| candidate.id).collect();
        assert!(
            inbound.iter().all(|id| closed.contains(id)),
            "others are closed last"
        );
        for candidate in &mut all {
            candidate.is_protected = true;
        }
        assert_eq!(surplus(all, 32, 96, now), []);
        let young = candidates(200, Purpose::Inbound, Duration::from_secs(1), now);
        assert_eq!(surplus(young, 32, 96, now), []);
    }

    #[test]
    fn connections_of_finished_lookups_are_closed_above_the_low_water() {
        let now = Instant::now() + Duration::from_secs(3600);
        let mut all = candidates(50, Purpose::Lookup, LOOKUP_AGE, now);
        assert_eq!(surplus(all.clone(), 32, 96, now).len(), 18);
        all.extend(candidates(20, Purpose::Asked, LOOKUP_AGE, now));
        assert_eq!(surplus(all, 32, 96, now).len(), 38);
    }
}
