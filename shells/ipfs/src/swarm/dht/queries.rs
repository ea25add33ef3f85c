//! Running lookups in the DHTs, and the callers that wait for their results.
//!
//! Each lookup runs in the public and the local DHT at once. It ends when both have no more to ask, or when
//! the caller has enough and drops its receiver: `libp2p-kad` would go on until all the closest peers have
//! answered. A caller that wants to send to the closest servers need not wait for dead ones either: such a
//! lookup is ended once it has settled ([`Settling`]).

use super::{Dht, PARALLELISM};
use crate::swarm::addresses::Scope;
use libp2p::kad::{
    Event, GetClosestPeersError, GetClosestPeersOk, GetProvidersOk, GetRecordOk, PeerInfo, QueryId,
    QueryResult, QueryStats, RecordKey,
};
use libp2p::{Multiaddr, PeerId};
use std::collections::HashMap;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Limit on lookups that run at once. Each keeps up to 10 requests in flight per DHT.
const LOOKUPS_MAX: usize = 32;

/// Number of servers that a lookup for the closest ones returns, if there are so many.
const CLOSEST: u32 = 20;
/// Time without a further answer after which such a lookup has settled. A dead server takes four seconds.
const QUIET: Duration = Duration::from_secs(1);

/// A peer that a lookup has found, and the addresses at which it may be dialled. They may be unknown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FoundPeer {
    pub(crate) peer: PeerId,
    pub(crate) addresses: Vec<Multiaddr>,
}

/// A lookup and the sender of its results, which is dropped at its end.
#[derive(Debug, Clone)]
pub(crate) enum Lookup {
    /// Providers of a multihash, as they are found.
    Providers(Vec<u8>, mpsc::Sender<FoundPeer>),
    /// Addresses of a peer.
    Peer(PeerId, mpsc::Sender<FoundPeer>),
    /// The servers closest to a key, after the lookup.
    Closest(Vec<u8>, mpsc::Sender<FoundPeer>),
    /// The servers closest to a key of those that answer, once hardly any other is expected to.
    Settled(Vec<u8>, mpsc::Sender<FoundPeer>),
    /// Copies of a value, as they are found.
    Values(Vec<u8>, mpsc::Sender<Vec<u8>>),
}

impl Lookup {
    /// Returns whether the caller has dropped its receiver.
    fn is_abandoned(&self) -> bool {
        match self {
            Lookup::Providers(_, found)
            | Lookup::Peer(_, found)
            | Lookup::Closest(_, found)
            | Lookup::Settled(_, found) => found.is_closed(),
            Lookup::Values(_, found) => found.is_closed(),
        }
    }
}

/// Progress of a lookup that ends when it has settled: enough servers have answered, and for a while no
/// further one has although there was room to ask more.
#[derive(Debug)]
struct Settling {
    answers: u32,
    /// Time of the last answer, or of the start.
    since: Instant,
}

impl Settling {
    fn new(now: Instant) -> Settling {
        Settling {
            answers: 0,
            since: now,
        }
    }

    /// Returns whether the lookup has settled, with this number of answers and of requests in flight.
    fn is_settled(&mut self, answers: u32, in_flight: u32, now: Instant) -> bool {
        if answers != self.answers {
            *self = Settling { answers, since: now };
        }
        let has_room = (in_flight as usize) < PARALLELISM.get();
        answers >= CLOSEST && has_room && now.duration_since(self.since) >= QUIET
    }
}

/// Running queries by DHT.
#[derive(Debug, Default)]
pub(crate) struct Queries {
    running: HashMap<(Scope, QueryId), Lookup>,
    settling: HashMap<(Scope, QueryId), Settling>,
}

impl Queries {
    /// Returns whether there is room for another lookup.
    pub(crate) fn has_room(&self) -> bool {
        self.running.len() < 2 * LOOKUPS_MAX
    }

    /// Starts a lookup in one DHT.
    pub(crate) fn start(&mut self, dht: &mut Dht, lookup: Lookup) {
        let id = match &lookup {
            Lookup::Providers(key, _) => dht.kad().get_providers(RecordKey::from(key.clone())),
            Lookup::Peer(peer, _) => {
                dht.watch(*peer);
                dht.kad().get_closest_peers(*peer)
            }
            Lookup::Closest(key, _) | Lookup::Settled(key, _) => dht.kad().get_closest_peers(key.clone()),
            Lookup::Values(key, _) => dht.kad().get_record(RecordKey::from(key.clone())),
        };
        if matches!(lookup, Lookup::Settled(..)) {
            let settling = Settling::new(Instant::now());
            self.settling.insert((dht.scope(), id), settling);
        }
        self.running.insert((dht.scope(), id), lookup);
    }

    /// Ends the queries whose callers are gone, and those that have settled.
    pub(crate) fn finish_early(&mut self, dht: &mut Dht, now: Instant) {
        let (own, settling) = (dht.scope(), self.settling.iter_mut());
        for ((_, id), settling) in settling.filter(|((scope, _), _)| *scope == own) {
            let stats = dht.kad().query(id).map(|query| *query.stats());
            let is_settled =
                |stats: QueryStats| settling.is_settled(stats.num_successes(), stats.num_pending(), now);
            if stats.is_some_and(is_settled) {
                dht.finish(*id);
            }
        }
        for ((scope, id), lookup) in &self.running {
            if *scope == dht.scope() && lookup.is_abandoned() {
                dht.finish(*id);
            }
        }
    }

    /// Reports the progress of a query to its caller.
    pub(crate) fn handle(&mut self, dht: &mut Dht, event: Event) {
        let Event::OutboundQueryProgressed { id, result, step, .. } = event else {
            return;
        };
        let key = (dht.scope(), id);
        let Some(lookup) = self.running.get(&key) else {
            return;
        };
        // A caller that does not read its results loses some: each channel has room for more than it asks
        // for.
        match lookup {
            Lookup::Providers(key, found) => {
                for peer in providers_in(result) {
                    let mut addresses = dht.addresses_of(peer);
                    if addresses.is_empty() {
                        addresses = dht.recorded_addresses(key, &peer);
                    }
                    let _ = found.try_send(FoundPeer { peer, addresses });
                }
            }
            Lookup::Peer(peer, found) => {
                let addresses = dht.watched(peer);
                if !addresses.is_empty() {
                    let _ = found.try_send(FoundPeer {
                        peer: *peer,
                        addresses,
                    });
                }
            }
            Lookup::Closest(_, found) | Lookup::Settled(_, found) => {
                for PeerInfo { peer_id, addrs } in closest_in(result) {
                    let _ = found.try_send(FoundPeer {
                        peer: peer_id,
                        addresses: addrs,
                    });
                }
            }
            Lookup::Values(_, found) => {
                if let QueryResult::GetRecord(Ok(GetRecordOk::FoundRecord(record))) = result {
                    let _ = found.try_send(record.record.value);
                }
            }
        }
        let abandoned = lookup.is_abandoned();
        if step.last {
            let ended = self.running.remove(&key);
            self.settling.remove(&key);
            if let Some(Lookup::Peer(peer, _)) = ended
                && !self.searches(dht.scope(), &peer)
            {
                dht.unwatch(&peer);
            }
        } else if abandoned {
            dht.finish(id);
        }
    }

    fn searches(&self, of: Scope, wanted: &PeerId) -> bool {
        let mut running = self.running.iter();
        running.any(|((scope, _), lookup)| match lookup {
            Lookup::Peer(peer, _) => *scope == of && peer == wanted,
            Lookup::Providers(..) | Lookup::Closest(..) | Lookup::Settled(..) | Lookup::Values(..) => false,
        })
    }
}

fn providers_in(result: QueryResult) -> Vec<PeerId> {
    if let QueryResult::GetProviders(Ok(GetProvidersOk::FoundProviders { providers, .. })) = result {
        providers.into_iter().collect()
    } else {
        Vec::new()
    }
}

fn closest_in(result: QueryResult) -> Vec<PeerInfo> {
    if let QueryResult::GetClosestPeers(
        Ok(GetClosestPeersOk { peers, .. }) | Err(GetClosestPeersError::Timeout { peers, .. }),
    ) = result
    {
        peers
    } else {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lookup_settles_when_enough_servers_have_answered_and_no_further_one_does() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut settling = Settling::new(start);
        assert!(!settling.is_settled(CLOSEST - 1, 3, at(5000)), "too few answers");
        assert!(
            !settling.is_settled(CLOSEST, 3, at(5250)),
            "an answer has just arrived"
        );
        assert!(!settling.is_settled(CLOSEST, 3, at(6000)));
        assert!(
            !settling.is_settled(CLOSEST + 1, 2, at(6250)),
            "another one arrived"
        );
        assert!(
            !settling.is_settled(CLOSEST + 1, 10, at(7500)),
            "closer ones wait to be asked"
        );
        assert!(settling.is_settled(CLOSEST + 1, 2, at(7500)));
    }
}
