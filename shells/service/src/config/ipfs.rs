//! The section `ipfs_connector`: this peer's IPFS node.

use cluster_ipfs::settings::{self, AddressFilter, ProvideStrategy, PublicNetwork, Routing};
use serde::{Deserialize, Serialize};
use url::Url;

use super::sections::{address, is_default};
use super::values::{Address, Period, Strings};

/// `ipfs_connector`: this peer's IPFS node. Exactly one is set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IpfsConnector {
    /// A Kubo daemon.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipfshttp: Option<IpfsHttp>,
    /// A node inside this process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embedded: Option<Embedded>,
}

impl Default for IpfsConnector {
    fn default() -> Self {
        Self {
            ipfshttp: Some(IpfsHttp::default()),
            embedded: None,
        }
    }
}

/// `ipfs_connector.ipfshttp`: a Kubo daemon, over its RPC API.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct IpfsHttp {
    /// Address of its RPC API.
    pub node_multiaddress: Address,
    /// Delay before the daemon is connected to the other peers' daemons.
    pub connect_swarms_delay: Period,
    /// Time limit of a general request.
    pub ipfs_request_timeout: Period,
    /// Maximum time of a pin without progress.
    pub pin_timeout: Period,
    /// Time limit of an unpin.
    pub unpin_timeout: Period,
    /// Time limit of a garbage collection.
    pub repogc_timeout: Period,
    /// Number of pins after which the informers measure again; 0 for never.
    pub informer_trigger_interval: u64,
    /// *Hidden*: refuse all unpins.
    #[serde(skip_serializing_if = "is_default")]
    pub unpin_disable: bool,
    /// *Hidden*: interval at which it verifies all blocks; 0s for requests only.
    #[serde(skip_serializing_if = "is_scrub_interval")]
    pub scrub_interval: Period,
    /// *Hidden*: share of the time in which it may do so, 0.001 to 1.
    #[serde(skip_serializing_if = "is_scrub_fraction")]
    pub scrub_fraction: f64,
}

fn is_scrub_interval(interval: &Period) -> bool {
    *interval == SCRUB_INTERVAL
}

fn is_scrub_fraction(fraction: &f64) -> bool {
    *fraction == SCRUB_FRACTION
}

impl Default for IpfsHttp {
    fn default() -> Self {
        Self {
            node_multiaddress: address("/ip4/127.0.0.1/tcp/5001"),
            connect_swarms_delay: Period::secs(30),
            ipfs_request_timeout: Period::secs(5 * 60),
            pin_timeout: Period::secs(2 * 60),
            unpin_timeout: Period::secs(3 * 3600),
            repogc_timeout: Period::secs(24 * 3600),
            informer_trigger_interval: 0,
            unpin_disable: false,
            scrub_interval: SCRUB_INTERVAL,
            scrub_fraction: SCRUB_FRACTION,
        }
    }
}

/// `ipfs_connector.embedded`: the IPFS node inside this process. Its data is in `ipfs/` in the
/// configuration folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Embedded {
    /// Address on which it serves Kubo's HTTP API.
    pub api_listen_multiaddress: Strings<Address>,
    /// Address on which it serves content to browsers and to clients that verify it; empty for none.
    pub gateway_listen_multiaddress: Strings<Address>,
    /// The gateway serves only what the node holds.
    pub gateway_no_fetch: bool,
    /// Hosts, such as `localhost:8080`, on which the gateway gives each root a subdomain of its own.
    pub gateway_subdomain_hosts: Vec<String>,
    /// Addresses on which other IPFS nodes connect to it.
    pub swarm_listen_multiaddress: Vec<Address>,
    /// Maximum size of all its blocks in bytes, like `10GB`; `""` for no limit.
    pub storage_max: StorageMax,
    /// Share of that limit, or of the disk without one, in percent from which garbage is collected
    /// automatically; 0 for never.
    pub gc_watermark: u8,
    /// Interval at which the share is checked.
    pub gc_interval: Period,
    /// Maximum time of a pin without progress.
    pub pin_timeout: Period,
    /// Time limit of an unpin.
    pub unpin_timeout: Period,
    /// No contact with IPFS nodes outside of the cluster: the settings below have no effect, but for the
    /// limits of connections.
    pub private: bool,
    /// Ways to find providers and peers.
    pub routing: RoutingKind,
    /// Peers through which it joins the DHT; addresses that end in `/p2p/<peer id>`.
    pub bootstrap: Vec<Address>,
    /// Servers of the delegated routing API.
    pub delegated_routers: Vec<RouterUrl>,
    /// Also fetch blocks from the HTTP gateways that routers report.
    pub http_retrieval: bool,
    /// Choice of content that is announced.
    pub provide_strategy: Strategy,
    /// Interval at which all of it is announced again.
    pub provide_interval: Period,
    /// Peers of the cluster that announce one root.
    pub provide_copies: u32,
    /// Addresses to announce instead of those found out.
    pub announce_multiaddress: Vec<Address>,
    /// Addresses and networks, like `/ip4/10.0.0.0/ipcidr/8`, that are never announced.
    pub no_announce_multiaddress: Vec<NoAnnounce>,
    /// Number of connections that remain when there are too many.
    pub connections_low_water: u32,
    /// Number of connections above which unused ones are closed.
    pub connections_high_water: u32,
    /// Search IPFS nodes in the local network (mDNS).
    pub lan_discovery: bool,
    /// Interval at which all blocks are read and hashed again; 0s for requests only.
    pub scrub_interval: Period,
    /// Share of the time in which that may use the disk, 0.001 to 1.
    pub scrub_fraction: f64,
}

/// Default interval of scrubs.
const SCRUB_INTERVAL: Period = Period::secs(30 * 24 * 3600);
/// Default share of the time for scrubs. At 150 MB/s it covers 38 TB in the default interval.
const SCRUB_FRACTION: f64 = 0.1;

impl Default for Embedded {
    fn default() -> Self {
        Self {
            api_listen_multiaddress: Strings(vec![address("/ip4/127.0.0.1/tcp/5001")]),
            gateway_listen_multiaddress: Strings(vec![address("/ip4/127.0.0.1/tcp/8080")]),
            gateway_no_fetch: false,
            gateway_subdomain_hosts: Vec::new(),
            swarm_listen_multiaddress: SWARM_LISTEN.map(address).to_vec(),
            storage_max: StorageMax::default(),
            gc_watermark: 85,
            gc_interval: Period::secs(60),
            pin_timeout: Period::secs(2 * 60),
            unpin_timeout: Period::secs(3 * 3600),
            private: false,
            routing: RoutingKind::Auto,
            bootstrap: settings::BOOTSTRAP.map(address).to_vec(),
            delegated_routers: settings::DELEGATED_ROUTERS.map(router).to_vec(),
            http_retrieval: true,
            provide_strategy: Strategy::Roots,
            provide_interval: Period::secs(22 * 3600),
            provide_copies: 2,
            announce_multiaddress: Vec::new(),
            no_announce_multiaddress: Vec::new(),
            connections_low_water: 32,
            connections_high_water: 96,
            lan_discovery: true,
            scrub_interval: SCRUB_INTERVAL,
            scrub_fraction: SCRUB_FRACTION,
        }
    }
}

impl Embedded {
    /// Returns the settings of contact with IPFS nodes outside of the cluster.
    pub fn network(&self) -> PublicNetwork {
        let addresses = |all: &[Address]| all.iter().map(|address| address.0.clone()).collect();
        PublicNetwork {
            private: self.private,
            bootstrap: addresses(&self.bootstrap),
            routing: self.routing.into(),
            delegated_routers: self
                .delegated_routers
                .iter()
                .map(|router| router.0.clone())
                .collect(),
            http_retrieval: self.http_retrieval,
            provide_strategy: self.provide_strategy.into(),
            provide_interval: self.provide_interval.0,
            announce: addresses(&self.announce_multiaddress),
            no_announce: self
                .no_announce_multiaddress
                .iter()
                .map(|filter| filter.0.clone())
                .collect(),
            connections_low_water: self.connections_low_water as usize,
            connections_high_water: self.connections_high_water as usize,
            lan_discovery: self.lan_discovery,
        }
    }

    /// Describes whom it contacts outside of the cluster, and how to switch that off.
    pub fn contacts(&self) -> String {
        if self.private {
            return "the embedded IPFS node is private: it contacts only the nodes of the cluster's peers, \
                    the origins of pins and nodes named by `swarm connect`"
                .to_owned();
        }
        let mut whom = Vec::new();
        let routing = Routing::from(self.routing);
        if routing.uses_dht() {
            whom.push(format!(
                "the public DHT, joined through {} bootstrap peers",
                self.bootstrap.len()
            ));
        }
        if routing.uses_delegated() {
            let routers: Vec<&str> = self
                .delegated_routers
                .iter()
                .map(|router| router.0.as_str())
                .collect();
            whom.push(format!("the routers {}", routers.join(", ")));
        }
        if self.http_retrieval && routing.uses_delegated() {
            whom.push("HTTP gateways that routers name".to_owned());
        }
        if self.lan_discovery {
            whom.push("IPFS nodes in the local network (mDNS)".to_owned());
            whom.push("its router, to forward the swarm's ports (UPnP)".to_owned());
        }
        if whom.is_empty() {
            return "the embedded IPFS node is private: it contacts no node outside of the cluster on its own"
                .to_owned();
        }
        format!(
            "the embedded IPFS node contacts {}; \"private\": true in ipfs_connector.embedded, or \
             CLUSTER_EMBEDDED_PRIVATE=true, switches all of it off",
            whom.join("; ")
        )
    }
}

/// Default listen addresses: TCP and QUIC, IPv4 and IPv6, as Kubo.
const SWARM_LISTEN: [&str; 4] = [
    "/ip4/0.0.0.0/tcp/4001",
    "/ip4/0.0.0.0/udp/4001/quic-v1",
    "/ip6/::/tcp/4001",
    "/ip6/::/udp/4001/quic-v1",
];

/// Ways in which the embedded node finds providers and peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RoutingKind {
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
    /// Only connected peers.
    None,
}

impl From<RoutingKind> for Routing {
    fn from(kind: RoutingKind) -> Self {
        match kind {
            RoutingKind::Auto => Self::Auto,
            RoutingKind::AutoClient => Self::AutoClient,
            RoutingKind::Dht => Self::Dht,
            RoutingKind::DhtClient => Self::DhtClient,
            RoutingKind::Delegated => Self::Delegated,
            RoutingKind::None => Self::None,
        }
    }
}

/// Choice of content that is announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// The roots of the pins.
    Roots,
    /// Every block of the pins.
    Pinned,
    /// Every block.
    All,
    /// Nothing is announced.
    None,
}

impl From<Strategy> for ProvideStrategy {
    fn from(strategy: Strategy) -> Self {
        match strategy {
            Strategy::Roots => Self::Roots,
            Strategy::Pinned => Self::Pinned,
            Strategy::All => Self::All,
            Strategy::None => Self::None,
        }
    }
}

/// Base URL of a delegated router.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RouterUrl(pub Url);

fn router(url: &str) -> RouterUrl {
    RouterUrl(url.parse().expect("is a URL"))
}

impl TryFrom<String> for RouterUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let url: Option<Url> = text.trim().parse().ok();
        let url = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        url.map(Self)
            .ok_or_else(|| format!("{text:?} is not a URL like \"https://delegated-ipfs.dev\""))
    }
}

impl From<RouterUrl> for String {
    fn from(url: RouterUrl) -> Self {
        // Without the slash that a parsed URL always has after its host.
        url.0.as_str().trim_end_matches('/').to_owned()
    }
}

/// Address or network that is never announced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NoAnnounce(pub AddressFilter);

impl TryFrom<String> for NoAnnounce {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.trim().parse().map(Self)
    }
}

impl From<NoAnnounce> for String {
    fn from(filter: NoAnnounce) -> Self {
        filter.0.to_string()
    }
}

/// A limit of storage in bytes, written with a unit, as in Kubo's `Datastore.StorageMax`: `500MB`, `10GiB`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StorageMax(pub Option<u64>);

/// Units of storage, the longest names first, since some are suffixes of others.
const UNITS: [(&str, u64); 13] = [
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("k", 1_000),
    ("m", 1_000_000),
    ("g", 1_000_000_000),
    ("t", 1_000_000_000_000),
    ("b", 1),
];

impl TryFrom<String> for StorageMax {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let bytes = parse_bytes(&text).filter(|bytes| *bytes > 0);
        bytes.map(|bytes| Self(Some(bytes))).ok_or_else(|| {
            format!(
                "{text:?} is not an amount of storage: write a number with a unit, like \"10GB\" or \"1.5TB\""
            )
        })
    }
}

/// Parses a number of bytes, with or without a unit: `1500`, `10GB`, `1.5 MiB`.
pub(crate) fn parse_bytes(text: &str) -> Option<u64> {
    let lower = text.trim().to_lowercase();
    let (digits, unit) = UNITS
        .iter()
        .find_map(|(name, unit)| Some((lower.strip_suffix(name)?, *unit)))
        .unwrap_or((&lower, 1));
    amount(digits.trim(), unit)
}

/// Parses a decimal number of units into bytes, rounded down.
fn amount(text: &str, unit: u64) -> Option<u64> {
    /// Maximum number of digits after the point: more than the largest unit has zeros.
    const FRACTION_MAX: usize = 18;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_number = |digits: &str| digits.bytes().all(|digit| digit.is_ascii_digit());
    if whole.is_empty() || !is_number(whole) || !is_number(fraction) || fraction.len() > FRACTION_MAX {
        return None;
    }
    let whole: u64 = whole.parse().ok()?;
    let numerator: u128 = if fraction.is_empty() {
        0
    } else {
        fraction.parse().ok()?
    };
    let denominator = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let part = u64::try_from(numerator * u128::from(unit) / denominator).ok()?;
    whole.checked_mul(unit)?.checked_add(part)
}

impl From<StorageMax> for String {
    fn from(max: StorageMax) -> Self {
        let Some(bytes) = max.0 else {
            return String::new();
        };
        let fits = |unit: &&(&str, u64)| bytes % unit.1 == 0;
        let decimal = [
            ("TB", UNITS[7].1),
            ("GB", UNITS[6].1),
            ("MB", UNITS[5].1),
            ("KB", UNITS[4].1),
        ];
        let binary = [
            ("TiB", UNITS[3].1),
            ("GiB", UNITS[2].1),
            ("MiB", UNITS[1].1),
            ("KiB", UNITS[0].1),
        ];
        let unit = decimal.iter().chain(&binary).find(fits).unwrap_or(&("B", 1));
        format!("{}{}", bytes / unit.1, unit.0)
    }
}
