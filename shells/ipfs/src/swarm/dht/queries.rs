//! Running lookups in the DHTs, and the callers that wait for their results.
//!
//! Each lookup runs in the public and the local DHT at once. It ends when both have no more to ask, or when
//! the caller has enough and drops its receiver: `libp2p-kad` would go on until all the closest peers have
//! answered.

use super::Dht;
use crate::swarm::addresses::Scope;
use libp2p::kad::{
    Event, GetClosestPeersError, GetClosestPeersOk, GetProvidersOk, GetRecordOk, PeerInfo, QueryId,
    QueryResult, RecordKey,
};
use libp2p::{Multiaddr, PeerId};
use std::collections::HashMap;
use tokio::sync::mpsc;

/// Limit on lookups that run at once. Each keeps up to 10 requests in flight per DHT.
const LOOKUPS_MAX: usize = 32;

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
    /// Copies of a value, as they are found.
    Values(Vec<u8>, mpsc::Sender<Vec<u8>>),
}

impl Lookup {
    /// Returns whether the caller has dropped its receiver.
    fn is_abandoned(&self) -> bool {
        match self {
            Lookup::Providers(_, found) | Lookup::Peer(_, found) | Lookup::Closest(_, found) => {
                found.is_closed()
            }
            Lookup::Values(_, found) => found.is_closed(),
        }
    }
}

/// Running queries by DHT.
#[derive(Debug, Default)]
pub(crate) struct Queries {
    running: HashMap<(Scope, QueryId), Lookup>,
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
            Lookup::Closest(key, _) => dht.kad().get_closest_peers(key.clone()),
            Lookup::Values(key, _) => dht.kad().get_record(RecordKey::from(key.clone())),
        };
        self.running.insert((dht.scope(), id), lookup);
    }

    /// Ends the queries whose callers are gone.
    pub(crate) fn finish_abandoned(&mut self, dht: &mut Dht) {
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
            Lookup::Closest(_, found) => {
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
            Lookup::Providers(..) | Lookup::Closest(..) | Lookup::Values(..) => false,
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
