//! The address policy: which multiaddresses are public, and which of those that strangers report are dialled.
//!
//! Replies of the DHT and of delegated routers contain private and loopback addresses. Dialling them looks
//! like a port scan of this node's own network, and lets strangers choose its targets. The table of networks
//! that are not public follows go-multiaddr's `net/private.go`.

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// Limit on addresses of one peer that are kept or dialled; a peer with several interfaces and transports has
/// fewer.
pub(crate) const ADDRESSES_MAX: usize = 8;

/// Limit on names of one peer that are resolved.
const LOOKUPS_MAX: usize = 2;
/// Time limit of resolving a name.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// Endings of names that are not resolved in the public DNS.
const LOCAL_NAMES: [&str; 6] = ["local", "localhost", "test", "invalid", "home.arpa", "internal"];

/// Networks of IPv4 that are not public: address and prefix length.
const PRIVATE_V4: [([u8; 4], u32); 15] = [
    ([0, 0, 0, 0], 8),
    ([10, 0, 0, 0], 8),
    ([100, 64, 0, 0], 10),
    ([127, 0, 0, 0], 8),
    ([169, 254, 0, 0], 16),
    ([172, 16, 0, 0], 12),
    ([192, 0, 0, 0], 26),
    ([192, 0, 2, 0], 24),
    ([192, 88, 99, 0], 24),
    ([192, 168, 0, 0], 16),
    ([198, 18, 0, 0], 15),
    ([198, 51, 100, 0], 24),
    ([203, 0, 113, 0], 24),
    ([224, 0, 0, 0], 4),
    ([240, 0, 0, 0], 4),
];

/// Part of the network that an address belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reach {
    /// Everywhere in the public Internet.
    Public,
    /// This machine's local networks.
    Private,
    /// This machine.
    Loopback,
    /// Nowhere: no address, a reserved one, or a transport that this node lacks.
    Nowhere,
}

/// Peers that an address comes from or goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Scope {
    /// The public network.
    Public,
    /// The local networks, without this machine.
    Local,
    /// The local networks and this machine. Only for a node that listens on nothing but loopback addresses.
    Machine,
}

impl Scope {
    /// Returns whether peers of this scope are dialled at the address.
    pub(crate) fn contains(self, address: &Multiaddr) -> bool {
        match (self, reach(address)) {
            (Scope::Public, Reach::Public) | (Scope::Local | Scope::Machine, Reach::Private) => true,
            (Scope::Machine, Reach::Loopback) => true,
            (Scope::Public, Reach::Private | Reach::Loopback)
            | (Scope::Local | Scope::Machine, Reach::Public)
            | (Scope::Local, Reach::Loopback)
            | (_, Reach::Nowhere) => false,
        }
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    !PRIVATE_V4.iter().any(|(network, length)| {
        let shift = 32 - length;
        address.to_bits() >> shift == Ipv4Addr::from(*network).to_bits() >> shift
    })
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [first, second, ..] = address.segments();
    let is_documentation = first == 0x2001 && second == 0x0db8;
    let is_nat64 = first == 0x0064 && second == 0xff9b;
    (first >> 13 == 1 && !is_documentation) || is_nat64
}

/// Returns the reach of an IP address.
pub(crate) fn reach_of_ip(address: IpAddr) -> Reach {
    let address = address.to_canonical();
    if address.is_loopback() {
        return Reach::Loopback;
    }
    if address.is_unspecified() || address.is_multicast() {
        return Reach::Nowhere;
    }
    let is_public = match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    };
    match is_public {
        true => Reach::Public,
        false => Reach::Private,
    }
}

/// Returns the reach of a DNS name, before it is resolved.
pub(crate) fn reach_of_name(name: &str) -> Reach {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let is_local = LOCAL_NAMES.iter().any(|ending| {
        let rest = name.strip_suffix(ending);
        rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    });
    match is_local || !name.contains('.') {
        true => Reach::Private,
        false => Reach::Public,
    }
}

/// Returns the reach of a multiaddress. That of a relayed one is the reach of the relay.
pub(crate) fn reach(address: &Multiaddr) -> Reach {
    let mut parts = address.iter();
    let host = match parts.next() {
        Some(Protocol::Ip4(address)) => reach_of_ip(address.into()),
        Some(Protocol::Ip6(address)) => reach_of_ip(address.into()),
        Some(Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name)) => reach_of_name(&name),
        _ => Reach::Nowhere,
    };
    match parts.next() {
        Some(Protocol::Tcp(port) | Protocol::Udp(port)) if port != 0 => host,
        _ => Reach::Nowhere,
    }
}

/// Returns whether the address leads through a relay.
pub(crate) fn is_relayed(address: &Multiaddr) -> bool {
    address.iter().any(|part| part == Protocol::P2pCircuit)
}

/// Returns whether this node has the transport: TCP, QUIC v1 or a relay, without WebSocket, WebTransport or
/// WebRTC.
pub(crate) fn is_dialable(address: &Multiaddr) -> bool {
    let mut parts = address
        .iter()
        .skip(1)
        .filter(|part| !matches!(part, Protocol::P2p(_)));
    let transport = match parts.next() {
        Some(Protocol::Tcp(_)) => true,
        Some(Protocol::Udp(_)) => parts.next() == Some(Protocol::QuicV1),
        _ => false,
    };
    transport && matches!(parts.next(), None | Some(Protocol::P2pCircuit)) && parts.next().is_none()
}

/// Returns the IP address of a multiaddress, if it starts with one.
pub(crate) fn ip_of(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next() {
        Some(Protocol::Ip4(address)) => Some(address.into()),
        Some(Protocol::Ip6(address)) => Some(address.into()),
        _ => None,
    }
}

/// Returns the addresses of a peer that this node dials when strangers report them: IP addresses of the
/// scopes, direct ones first, at most [`ADDRESSES_MAX`]. Names could resolve to addresses outside of the
/// scopes.
pub(crate) fn dialable(addresses: impl IntoIterator<Item = Multiaddr>, scopes: &[Scope]) -> Vec<Multiaddr> {
    // Bounds the work for lists of any length.
    let addresses = addresses.into_iter().take(8 * ADDRESSES_MAX);
    named_or_dialable(addresses.filter(|address| ip_of(address).is_some()), scopes)
}

/// As [`dialable`], but with names, which are resolved and checked before they are dialled.
pub(crate) fn named_or_dialable(
    addresses: impl IntoIterator<Item = Multiaddr>,
    scopes: &[Scope],
) -> Vec<Multiaddr> {
    let usable =
        |address: &Multiaddr| is_dialable(address) && scopes.iter().any(|scope| scope.contains(address));
    let mut kept: Vec<Multiaddr> = Vec::new();
    for address in addresses.into_iter().take(8 * ADDRESSES_MAX).filter(usable) {
        if !kept.contains(&address) {
            kept.push(address);
        }
    }
    kept.sort_by_key(is_relayed);
    kept.truncate(ADDRESSES_MAX);
    kept
}

/// Replaces names in the addresses by the public IP addresses to which they resolve.
pub(crate) async fn resolved(addresses: Vec<Multiaddr>) -> Vec<Multiaddr> {
    let mut all = Vec::new();
    let mut lookups = 0;
    for address in addresses {
        let Some(Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name)) = address.iter().next()
        else {
            all.push(address);
            continue;
        };
        lookups += 1;
        if lookups > LOOKUPS_MAX {
            continue;
        }
        let lookup = tokio::net::lookup_host((name.as_ref(), 0));
        let Ok(Ok(found)) = tokio::time::timeout(LOOKUP_TIMEOUT, lookup).await else {
            continue;
        };
        for found in found.filter(|found| reach_of_ip(found.ip()) == Reach::Public) {
            let first = match found.ip() {
                IpAddr::V4(address) => Protocol::Ip4(address),
                IpAddr::V6(address) => Protocol::Ip6(address),
            };
            all.push(std::iter::once(first).chain(address.iter().skip(1)).collect());
        }
    }
    all.truncate(2 * ADDRESSES_MAX);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    #[test]
    fn reach_follows_the_table_of_private_networks_in_both_families() {
        for (text, expected) in [
            ("/ip4/1.2.3.4/tcp/4001", Reach::Public),
            ("/ip4/104.131.131.82/udp/4001/quic-v1", Reach::Public),
            ("/ip4/192.0.0.70/tcp/1", Reach::Public),
            ("/ip4/172.32.0.1/tcp/1", Reach::Public),
            ("/ip4/172.31.0.1/tcp/1", Reach::Private),
            ("/ip4/10.0.0.1/tcp/1", Reach::Private),
            ("/ip4/100.64.0.1/tcp/1", Reach::Private),
            ("/ip4/169.254.169.254/tcp/80", Reach::Private),
            ("/ip4/198.51.100.7/tcp/1", Reach::Private),
            ("/ip4/127.0.0.1/tcp/1", Reach::Loopback),
            ("/ip4/0.0.0.0/tcp/1", Reach::Nowhere),
            ("/ip4/1.2.3.4/tcp/0", Reach::Nowhere),
            ("/ip6/2a00:1450::1/tcp/1", Reach::Public),
            ("/ip6/64:ff9b::102:304/tcp/1", Reach::Public),
            ("/ip6/::ffff:10.0.0.1/tcp/1", Reach::Private),
            ("/ip6/2001:db8::1/tcp/1", Reach::Private),
            ("/ip6/fe80::1/tcp/1", Reach::Private),
            ("/ip6/fd00::1/tcp/1", Reach::Private),
            ("/ip6/::1/tcp/1", Reach::Loopback),
            ("/dns4/example.com/tcp/443", Reach::Public),
            ("/dns4/printer.local/tcp/443", Reach::Private),
            ("/dns4/router/tcp/443", Reach::Private),
            ("/memory/4", Reach::Nowhere),
        ] {
            assert_eq!(reach(&address(text)), expected, "{text}");
        }
    }

    #[test]
    fn reported_addresses_are_dialled_only_in_their_scope() {
        let relay = "/ip4/1.2.3.4/tcp/1/p2p/12D3KooWKnDdG3iXw9eTFijk3EWSunZcFi54Zka4wmtqtt6rPxc8/p2p-circuit";
        let all = [
            relay,
            "/ip4/127.0.0.1/tcp/1",
            "/ip4/10.0.0.1/udp/2/quic-v1",
            "/ip4/1.2.3.4/tcp/3",
            "/ip4/1.2.3.4/tcp/3",
            "/ip4/1.2.3.4/tcp/4/ws",
            "/dns4/example.com/tcp/4001",
            "/ip4/1.2.3.4/udp/4/quic-v1/webtransport",
        ];
        let picked = |scopes: &[Scope]| -> Vec<String> {
            let picked = dialable(all.iter().map(|text| address(text)), scopes);
            picked.iter().map(ToString::to_string).collect()
        };
        assert_eq!(picked(&[Scope::Public]), ["/ip4/1.2.3.4/tcp/3", relay]);
        assert_eq!(picked(&[Scope::Local]), ["/ip4/10.0.0.1/udp/2/quic-v1"]);
        assert_eq!(
            picked(&[Scope::Machine]),
            ["/ip4/127.0.0.1/tcp/1", "/ip4/10.0.0.1/udp/2/quic-v1"]
        );
        let many = (1..10_000).map(|port| address(&format!("/ip4/1.2.3.4/tcp/{port}")));
        assert_eq!(dialable(many, &[Scope::Public]).len(), ADDRESSES_MAX);
    }
}
