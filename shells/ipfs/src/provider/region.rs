//! Regions of the DHT's keyspace: which lookups cover one, and which servers get which keys.

use crate::swarm::dht::FoundPeer;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Number of regions: one per value of a key's first byte.
pub(super) const REGIONS: usize = 256;

/// Limit on lookups of one region; a network of a million servers has 4,000 in a region.
const LOOKUPS_MAX: usize = 512;

/// Position of a multihash, or of a peer id, in the keyspace.
pub(crate) fn kad_key(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Returns the region of a key.
pub(super) fn region_of(key: &[u8; 32]) -> u8 {
    key[0]
}

/// Returns the number of leading bits that two keys share.
pub(crate) fn common_bits(a: &[u8; 32], b: &[u8; 32]) -> u32 {
    let mut bits = 0;
    for (a, b) in a.iter().zip(b) {
        let differing = a ^ b;
        bits += differing.leading_zeros();
        if differing != 0 {
            break;
        }
    }
    bits
}

fn distance(a: &[u8; 32], b: &[u8; 32]) -> [u8; 32] {
    std::array::from_fn(|i| a[i] ^ b[i])
}

/// Parts of a region whose servers are known.
#[derive(Debug)]
pub(super) struct Region {
    own: u8,
    /// Keys that were looked up, and the length of the prefix below which all servers are known.
    covered: Vec<([u8; 32], u32)>,
    /// Next neighbour to look up.
    neighbour: u8,
    /// True if a lookup has returned all servers of the network.
    is_small: bool,
}

/// Number of the nearest regions that are looked up too: a region may have fewer servers than store a record.
const NEIGHBOURS: u8 = 3;

/// Returns a multihash whose key is in a region.
fn preimage_in(region: u8) -> Vec<u8> {
    loop {
        let digest: [u8; 32] = rand::random();
        let hash = [&[0x12, 0x20][..], &digest].concat();
        if region_of(&kad_key(&hash)) == region {
            return hash;
        }
    }
}

impl Region {
    pub(super) fn new(own: u8) -> Region {
        Region {
            own,
            covered: Vec::new(),
            neighbour: 1,
            is_small: false,
        }
    }

    /// Returns the multihash to look up next: of a key whose closest servers are not known yet, then one in
    /// each of the nearest regions.
    pub(super) fn next_lookup(&mut self, keys: &BTreeMap<[u8; 32], Vec<u8>>) -> Option<Vec<u8>> {
        if self.covered.len() >= LOOKUPS_MAX {
            return None;
        }
        let is_covered = |key: &[u8; 32]| {
            let mut covered = self.covered.iter();
            covered.any(|(center, bits)| common_bits(key, center) >= *bits)
        };
        if let Some((_, hash)) = keys.iter().find(|(key, _)| !is_covered(key)) {
            return Some(hash.clone());
        }
        if self.is_small || self.neighbour > NEIGHBOURS {
            return None;
        }
        let neighbour = self.own ^ self.neighbour;
        self.neighbour += 1;
        Some(preimage_in(neighbour))
    }

    /// Records the servers found closest to a key.
    pub(super) fn cover(&mut self, key: &[u8; 32], found: &[FoundPeer]) {
        self.is_small |= found.len() < super::REPLICATION;
        let positions = found.iter().map(|server| kad_key(&server.peer.to_bytes()));
        let farthest = positions.map(|position| common_bits(key, &position)).min();
        let bits = match farthest {
            // All servers of the network.
            Some(_) if found.len() < super::REPLICATION => 0,
            // Those that share more bits than the farthest are all known. Some that share as many are not.
            Some(bits) => bits + 1,
            // Nothing is known, and asking again would not help.
            None => 256,
        };
        self.covered.push((*key, bits));
    }
}

/// Assigns each key to its closest servers. Returns the keys for each server.
pub(super) fn assign(
    keys: &BTreeMap<[u8; 32], Vec<u8>>,
    servers: Vec<FoundPeer>,
    replication: usize,
) -> Vec<(FoundPeer, Vec<Vec<u8>>)> {
    let positions: Vec<[u8; 32]> = servers
        .iter()
        .map(|server| kad_key(&server.peer.to_bytes()))
        .collect();
    let mut plan: Vec<Vec<Vec<u8>>> = vec![Vec::new(); servers.len()];
    for (key, hash) in keys {
        let mut order: Vec<usize> = (0..servers.len()).collect();
        if order.len() > replication {
            order.select_nth_unstable_by_key(replication - 1, |server| distance(key, &positions[*server]));
            order.truncate(replication);
        }
        for server in order {
            plan[server].push(hash.clone());
        }
    }
    let plan = servers.into_iter().zip(plan);
    plan.filter(|(_, keys)| !keys.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use libp2p::PeerId;
    use std::collections::HashSet;

    fn closest(network: &[PeerId], key: &[u8; 32], count: usize) -> Vec<FoundPeer> {
        let mut sorted = network.to_vec();
        sorted.sort_by_key(|peer| distance(key, &kad_key(&peer.to_bytes())));
        let found = |peer: &PeerId| FoundPeer {
            peer: *peer,
            addresses: Vec::new(),
        };
        sorted.iter().take(count).map(found).collect()
    }

    /// Explores a region by lookups in a network of these servers; returns lookups, and the part of the
    /// records that go to the true closest servers.
    fn explore(servers: usize, keys: usize) -> (usize, f64) {
        let network: Vec<PeerId> = (0..servers).map(|_| PeerId::random()).collect();
        let all = (0_u64..).map(|number| Sha256::digest(number.to_be_bytes()).to_vec());
        let hashes = all
            .map(|hash| (kad_key(&hash), hash))
            .filter(|(key, _)| region_of(key) == 7);
        let keys: BTreeMap<[u8; 32], Vec<u8>> = hashes.take(keys).collect();
        let (mut region, mut known, mut lookups) = (Region::new(7), Vec::new(), 0);
        let mut seen = HashSet::new();
        while let Some(hash) = region.next_lookup(&keys) {
            lookups += 1;
            let found = closest(&network, &kad_key(&hash), super::super::REPLICATION);
            region.cover(&kad_key(&hash), &found);
            known.extend(found.into_iter().filter(|server| seen.insert(server.peer)));
        }
        let plan = assign(&keys, known, 20);
        let sent: HashSet<(PeerId, Vec<u8>)> = plan
            .into_iter()
            .flat_map(|(server, keys)| keys.into_iter().map(move |key| (server.peer, key)))
            .collect();
        let mut right = 0;
        for (key, hash) in &keys {
            let true_closest = closest(&network, key, 20);
            right += true_closest
                .iter()
                .filter(|server| sent.contains(&(server.peer, hash.clone())))
                .count();
        }
        (lookups, right as f64 / (20 * keys.len()) as f64)
    }

    #[test]
    fn records_go_to_the_closest_servers_with_few_lookups() {
        for (servers, keys, lookups_max) in [(10, 100, 1), (100, 400, 40), (3000, 400, 40)] {
            let (lookups, quality) = explore(servers, keys);
            assert!(lookups <= lookups_max, "{servers} servers: {lookups} lookups");
            let reachable = (servers as f64 / 20.0).min(1.0);
            assert!(quality >= 0.95 * reachable, "{servers} servers: {quality}");
        }
    }

    #[test]
    fn region_without_servers_ends() {
        let keys = BTreeMap::from([([7; 32], vec![1])]);
        let mut region = Region::new(7);
        assert_eq!(region.next_lookup(&keys), Some(vec![1]));
        region.cover(&[7; 32], &[]);
        assert_eq!(region.next_lookup(&keys), None);
        assert!(assign(&keys, Vec::new(), 20).is_empty());
    }
}
