//! Settings of the embedded node's contact with IPFS nodes outside of its cluster.

use crate::swarm::addresses::ip_of;
use libp2p::Multiaddr;
use std::net::IpAddr;
use std::time::Duration;
use url::Url;

/// Addresses of the well-known bootstrap peers of the public network.
pub const BOOTSTRAP: [&str; 7] = [
    "/dnsaddr/bootstrap.libp2p.io/p2p/QmNnooDu7bfjPFoTZYxMNLWUQJyrVwtbZg5gBMjTezGAJN",
    "/dnsaddr/bootstrap.libp2p.io/p2p/QmQCU2EcMqAqQPR2i9bChDtGNJchTbq5TbXJJ16u19uLTa",
    "/dnsaddr/bootstrap.libp2p.io/p2p/QmbLHAnMoJPWSCR5Zhtx6BHJX9KiKNN6tpvbUcqanj75Nb",
    "/dnsaddr/bootstrap.libp2p.io/p2p/QmcZf59bWwK5XFi76CZX8cbJ4BhTzzA3gU1ZjYZcYW3dwt",
    "/dnsaddr/va1.bootstrap.libp2p.io/p2p/12D3KooWKnDdG3iXw9eTFijk3EWSunZcFi54Zka4wmtqtt6rPxc8",
    "/ip4/104.131.131.82/tcp/4001/p2p/QmaCpDMGvV2BGHeYERUEnRQAwe3N8SzbUtfsmvsqQLuvuJ",
    "/ip4/104.131.131.82/udp/4001/quic-v1/p2p/QmaCpDMGvV2BGHeYERUEnRQAwe3N8SzbUtfsmvsqQLuvuJ",
];

/// Delegated routers that are asked by default: an index of large providers, and a proxy of the public DHT.
pub const DELEGATED_ROUTERS: [&str; 2] = ["https://cid.contact", "https://delegated-ipfs.dev"];

/// Ways to find providers and peers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Routing {
    /// The DHT, as a server when reachable, and the delegated routers.
    Auto,
    /// The DHT, never as a server, and the delegated routers.
    AutoClient,
    /// The DHT, as a server when reachable.
    Dht,
    /// The DHT, never as a server.
    DhtClient,
    /// The delegated routers.
    Delegated,
    /// Only peers that this node is connected to.
    #[default]
    None,
}

impl Routing {
    /// All ways.
    pub const ALL: [Routing; 6] = [
        Routing::Auto,
        Routing::AutoClient,
        Routing::Dht,
        Routing::DhtClient,
        Routing::Delegated,
        Routing::None,
    ];

    /// Returns the name of the way, as in Kubo's configuration.
    pub fn name(self) -> &'static str {
        match self {
            Routing::Auto => "auto",
            Routing::AutoClient => "autoclient",
            Routing::Dht => "dht",
            Routing::DhtClient => "dhtclient",
            Routing::Delegated => "delegated",
            Routing::None => "none",
        }
    }

    /// Returns whether lookups run in the DHT.
    pub fn uses_dht(self) -> bool {
        match self {
            Routing::Auto | Routing::AutoClient | Routing::Dht | Routing::DhtClient => true,
            Routing::Delegated | Routing::None => false,
        }
    }

    /// Returns whether the requests of other peers may be served.
    pub fn may_serve(self) -> bool {
        match self {
            Routing::Auto | Routing::Dht => true,
            Routing::AutoClient | Routing::DhtClient | Routing::Delegated | Routing::None => false,
        }
    }

    /// Returns whether the delegated routers are asked.
    pub fn uses_delegated(self) -> bool {
        match self {
            Routing::Auto | Routing::AutoClient | Routing::Delegated => true,
            Routing::Dht | Routing::DhtClient | Routing::None => false,
        }
    }
}

/// Choice of this node's content that is announced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ProvideStrategy {
    /// The root of each pin.
    Roots,
    /// Every block of each pin.
    Pinned,
    /// Every block of the store.
    All,
    /// Nothing is announced.
    #[default]
    None,
}

/// An address, or the network of addresses written like `/ip4/10.0.0.0/ipcidr/8`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddressFilter {
    /// This address.
    Address(Multiaddr),
    /// All addresses whose IP address shares a prefix with this one.
    Network {
        /// Any address of the network.
        address: IpAddr,
        /// Length of the prefix, bits.
        length: u32,
    },
}

impl AddressFilter {
    /// Returns whether the filter covers an address.
    pub fn matches(&self, address: &Multiaddr) -> bool {
        match self {
            AddressFilter::Address(filtered) => address == filtered,
            AddressFilter::Network {
                address: network,
                length,
            } => match (ip_of(address), network) {
                (Some(IpAddr::V4(address)), IpAddr::V4(network)) => {
                    let differing = address.to_bits() ^ network.to_bits();
                    differing.leading_zeros() >= *length
                }
                (Some(IpAddr::V6(address)), IpAddr::V6(network)) => {
                    let differing = address.to_bits() ^ network.to_bits();
                    differing.leading_zeros() >= *length
                }
                _ => false,
            },
        }
    }
}

impl std::str::FromStr for AddressFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<AddressFilter, String> {
        let bad = |why: &str| format!("{text:?} is not an address or a network: {why}");
        let Some((network, length)) = text.split_once("/ipcidr/") else {
            let address: Multiaddr = text.parse().map_err(|_| bad("invalid multiaddress"))?;
            return match address.is_empty() {
                true => Err(bad("empty")),
                false => Ok(AddressFilter::Address(address)),
            };
        };
        let network = network.parse::<Multiaddr>().ok();
        let address = network.filter(|network| network.iter().count() == 1);
        let address = address
            .and_then(|network| ip_of(&network))
            .ok_or_else(|| bad("write one like /ip4/10.0.0.0/ipcidr/8"))?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let length = length.parse().ok().filter(|length| *length <= bits);
        let length = length.ok_or_else(|| bad(&format!("the prefix has 0 to {bits} bits")))?;
        Ok(AddressFilter::Network { address, length })
    }
}

impl std::fmt::Display for AddressFilter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            AddressFilter::Address(address) => address.fmt(f),
            AddressFilter::Network { address, length } => {
                let family = if address.is_ipv4() { "ip4" } else { "ip6" };
                write!(f, "/{family}/{address}/ipcidr/{length}")
            }
        }
    }
}

/// Contact with IPFS nodes outside of the cluster; none by default.
#[derive(Debug, Clone)]
pub struct PublicNetwork {
    /// Switches everything below off, except limits of connections.
    pub private: bool,
    /// Peers that are dialled to join the DHT. Each address ends in `/p2p/<peer id>`.
    pub bootstrap: Vec<Multiaddr>,
    /// Ways to find providers and peers.
    pub routing: Routing,
    /// Base URLs of servers of the delegated routing API.
    pub delegated_routers: Vec<Url>,
    /// Also fetches blocks from trustless gateways that routers report.
    pub http_retrieval: bool,
    /// Choice of content that is announced.
    pub provide_strategy: ProvideStrategy,
    /// Interval at which all content is announced again.
    pub provide_interval: Duration,
    /// Addresses announced instead of those found out; empty: find out.
    pub announce: Vec<Multiaddr>,
    /// Addresses and networks that are never announced.
    pub no_announce: Vec<AddressFilter>,
    /// Number of connections that remain when there are too many.
    pub connections_low_water: usize,
    /// Number of connections above which unused ones are closed.
    pub connections_high_water: usize,
    /// Searches nodes in the local network by mDNS.
    pub lan_discovery: bool,
}

impl Default for PublicNetwork {
    fn default() -> PublicNetwork {
        PublicNetwork {
            private: true,
            bootstrap: Vec::new(),
            routing: Routing::None,
            delegated_routers: Vec::new(),
            http_retrieval: false,
            provide_strategy: ProvideStrategy::None,
            provide_interval: Duration::from_secs(22 * 3600),
            announce: Vec::new(),
            no_announce: Vec::new(),
            connections_low_water: 32,
            connections_high_water: 96,
            lan_discovery: false,
        }
    }
}

impl PublicNetwork {
    /// Returns how providers are found, [`Routing::None`] if private.
    pub fn effective_routing(&self) -> Routing {
        if self.private { Routing::None } else { self.routing }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_filters_cover_networks_of_both_families() {
        let covers = |filter: &str, address: &str| {
            let parsed: AddressFilter = filter.parse().unwrap();
            assert_eq!(parsed.to_string(), filter);
            parsed.matches(&address.parse().unwrap())
        };
        assert!(covers("/ip4/10.0.0.0/ipcidr/8", "/ip4/10.9.8.7/tcp/1"));
        assert!(!covers("/ip4/10.0.0.0/ipcidr/8", "/ip4/11.0.0.0/tcp/1"));
        assert!(covers("/ip4/0.0.0.0/ipcidr/0", "/ip4/11.0.0.0/tcp/1"));
        assert!(covers("/ip6/fc00::/ipcidr/7", "/ip6/fd00::1/tcp/1"));
        assert!(!covers("/ip6/fc00::/ipcidr/7", "/ip4/10.0.0.1/tcp/1"));
        assert!(covers("/ip4/1.2.3.4/tcp/1", "/ip4/1.2.3.4/tcp/1"));
        assert!(!covers("/ip4/1.2.3.4/tcp/1", "/ip4/1.2.3.4/tcp/2"));
        for bad in [
            "",
            "10.0.0.0/8",
            "/ip4/10.0.0.0/ipcidr/33",
            "/dns4/a.b/ipcidr/8",
            "/ip4/1.2.3.4/tcp/1/ipcidr/8",
        ] {
            assert!(bad.parse::<AddressFilter>().is_err(), "{bad}");
        }
    }
}
