//! Address book: known addresses of peers.

use std::collections::BTreeMap;

use cluster_core::PeerId;
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;

/// Addresses kept per peer and source. A host with more interfaces is reached on the first ones.
const ADDRESSES_MAX: usize = 16;

/// Peers kept: more than any cluster has.
const PEERS_MAX: usize = 4_096;

#[derive(Debug, Default)]
struct Entry {
    /// From the configuration, an operator, or another peer; newest first.
    given: Vec<Multiaddr>,
    /// Announced by the peer itself; replaced by each new announcement.
    learned: Vec<Multiaddr>,
}

/// Addresses by peer, without their `/p2p` part.
#[derive(Debug, Default)]
pub(super) struct AddressBook {
    entries: BTreeMap<PeerId, Entry>,
}

impl AddressBook {
    /// Adds addresses. Returns whether any was new.
    pub(super) fn add(&mut self, peer: &PeerId, addresses: impl IntoIterator<Item = Multiaddr>) -> bool {
        let Some(entry) = self.entry_mut(peer) else {
            return false;
        };
        let mut changed = false;
        for address in addresses.into_iter().map(without_peer).filter(is_usable) {
            if !entry.given.contains(&address) {
                entry.given.insert(0, address);
                entry.given.truncate(ADDRESSES_MAX);
                changed = true;
            }
        }
        changed
    }

    /// Replaces the addresses that a peer announced. Returns whether any was new. `near`: the peer is on
    /// this machine; otherwise its loopback addresses are dropped, since they lead to another peer here.
    pub(super) fn learn(&mut self, peer: &PeerId, addresses: Vec<Multiaddr>, near: bool) -> bool {
        let Some(entry) = self.entry_mut(peer) else {
            return false;
        };
        let mut learned: Vec<Multiaddr> = addresses
            .into_iter()
            .map(without_peer)
            .filter(is_usable)
            .collect();
        learned.retain(|address| near || !is_loopback(address));
        learned.truncate(ADDRESSES_MAX);
        let changed = learned.iter().any(|address| !entry.learned.contains(address));
        if !learned.is_empty() {
            entry.learned = learned;
        }
        changed
    }

    /// Removes all addresses of a peer.
    pub(super) fn remove(&mut self, peer: &PeerId) {
        self.entries.remove(peer);
    }

    /// Returns all addresses of a peer, those that it announced first.
    pub(super) fn addresses(&self, peer: &PeerId) -> Vec<Multiaddr> {
        let Some(entry) = self.entries.get(peer) else {
            return Vec::new();
        };
        let mut all = entry.learned.clone();
        all.extend(
            entry
                .given
                .iter()
                .filter(|address| !entry.learned.contains(address))
                .cloned(),
        );
        all
    }

    /// Returns the addresses of all peers that have any.
    pub(super) fn all(&self) -> BTreeMap<PeerId, Vec<Multiaddr>> {
        let all = self
            .entries
            .keys()
            .map(|peer| (peer.clone(), self.addresses(peer)));
        all.filter(|(_, addresses)| !addresses.is_empty()).collect()
    }

    /// Returns whether there is an entry for the peer.
    pub(super) fn contains(&self, peer: &PeerId) -> bool {
        self.entries.contains_key(peer)
    }

    fn entry_mut(&mut self, peer: &PeerId) -> Option<&mut Entry> {
        let room = self.entries.len() < PEERS_MAX || self.entries.contains_key(peer);
        room.then(|| self.entries.entry(peer.clone()).or_default())
    }
}

/// Removes a trailing `/p2p/…`.
pub(super) fn without_peer(mut address: Multiaddr) -> Multiaddr {
    if let Some(Protocol::P2p(_)) = address.iter().last() {
        address.pop();
    }
    address
}

/// Returns whether the address is a loopback address.
pub(super) fn is_loopback(address: &Multiaddr) -> bool {
    match address.iter().next() {
        Some(Protocol::Ip4(ip)) => ip.is_loopback(),
        Some(Protocol::Ip6(ip)) => ip.is_loopback(),
        Some(Protocol::Dns(host) | Protocol::Dns4(host) | Protocol::Dns6(host)) => host == "localhost",
        Some(_) | None => false,
    }
}

/// Returns whether this release can dial it: TCP without another transport on top.
pub(super) fn is_usable(address: &Multiaddr) -> bool {
    let parts: Vec<Protocol<'_>> = address.iter().collect();
    match parts.as_slice() {
        [Protocol::Ip4(ip), Protocol::Tcp(port)] => !ip.is_unspecified() && *port != 0,
        [Protocol::Ip6(ip), Protocol::Tcp(port)] => !ip.is_unspecified() && *port != 0,
        [
            Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_),
            Protocol::Tcp(port),
        ] => *port != 0,
        [Protocol::Dnsaddr(_)] => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> PeerId {
        "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp"
            .parse()
            .unwrap()
    }

    fn addresses(texts: &[&str]) -> Vec<Multiaddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn announcements_replace_earlier_ones_but_not_configured_addresses() {
        let mut book = AddressBook::default();
        assert!(book.add(&peer(), addresses(&[&format!("/dns4/a/tcp/9096/p2p/{}", peer())])));
        assert!(!book.add(&peer(), addresses(&["/dns4/a/tcp/9096"])));
        assert!(book.learn(
            &peer(),
            addresses(&["/ip4/10.0.0.1/tcp/1", "/ip4/127.0.0.1/tcp/1"]),
            false
        ));
        assert!(book.learn(&peer(), addresses(&["/ip4/10.0.0.1/tcp/2"]), false));
        assert_eq!(
            book.addresses(&peer()),
            addresses(&["/ip4/10.0.0.1/tcp/2", "/dns4/a/tcp/9096"])
        );
    }

    #[test]
    fn only_dialable_addresses_are_kept() {
        let mut book = AddressBook::default();
        let useless = [
            "/ip4/1.2.3.4/udp/9096/quic-v1",
            "/ip4/0.0.0.0/tcp/9096",
            "/ip4/1.2.3.4/tcp/1/ws",
        ];
        assert!(!book.add(&peer(), addresses(&useless)));
        assert_eq!(book.addresses(&peer()), []);
        assert!(book.all().is_empty());
    }

    #[test]
    fn addresses_per_peer_are_limited() {
        let mut book = AddressBook::default();
        let many = (1..1_000)
            .map(|port| format!("/ip4/10.0.0.1/tcp/{port}").parse().unwrap())
            .collect();
        book.learn(&peer(), many, true);
        assert_eq!(book.addresses(&peer()).len(), ADDRESSES_MAX);
    }
}
