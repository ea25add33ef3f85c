//! The section `ipfs_connector`: this peer's IPFS node.

use serde::{Deserialize, Serialize};

use super::sections::{address, is_default};
use super::values::{Address, Period, Strings};

/// `ipfs_connector`: this peer's IPFS node. Exactly one is set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IpfsHttp {
    /// Address of its RPC API.
    pub node_multiaddress: Address,
    /// Delay before the daemon is connected to the other peers' daemons.
    pub connect_swarms_delay: Period,
    /// Time limit of a general request.
    pub ipfs_request_timeout: Period,
    /// Longest time of a pin without progress.
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
        }
    }
}

/// `ipfs_connector.embedded`: the IPFS node inside this process. Its data is in `ipfs/` in the
/// configuration folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Embedded {
    /// Address on which it serves Kubo's HTTP API.
    pub api_listen_multiaddress: Strings<Address>,
    /// Address on which it serves content to browsers and to clients that verify it; empty for none.
    pub gateway_listen_multiaddress: Strings<Address>,
    /// Whether the gateway serves only what the node holds.
    pub gateway_no_fetch: bool,
    /// Hosts, such as `localhost:8080`, on which the gateway gives each root a subdomain of its own.
    pub gateway_subdomain_hosts: Vec<String>,
    /// Addresses on which other IPFS nodes connect to it.
    pub swarm_listen_multiaddress: Vec<Address>,
    /// Most bytes of all its blocks, like `10GB`; `""` for no limit.
    pub storage_max: StorageMax,
    /// Longest time of a pin without progress.
    pub pin_timeout: Period,
    /// Time limit of an unpin.
    pub unpin_timeout: Period,
}

impl Default for Embedded {
    fn default() -> Self {
        Self {
            api_listen_multiaddress: Strings(vec![address("/ip4/127.0.0.1/tcp/5001")]),
            gateway_listen_multiaddress: Strings(vec![address("/ip4/127.0.0.1/tcp/8080")]),
            gateway_no_fetch: false,
            gateway_subdomain_hosts: Vec::new(),
            swarm_listen_multiaddress: vec![address("/ip4/0.0.0.0/tcp/4001")],
            storage_max: StorageMax::default(),
            pin_timeout: Period::secs(2 * 60),
            unpin_timeout: Period::secs(3 * 3600),
        }
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
        let lower = text.trim().to_lowercase();
        let (digits, unit) = UNITS
            .iter()
            .find_map(|(name, unit)| Some((lower.strip_suffix(name)?, *unit)))
            .unwrap_or((&lower, 1));
        let bytes = amount(digits.trim(), unit).filter(|bytes| *bytes > 0);
        bytes.map(|bytes| Self(Some(bytes))).ok_or_else(|| {
            format!(
                "{text:?} is not an amount of storage: write a number with a unit, like \"10GB\" or \"1.5TB\""
            )
        })
    }
}

/// Parses a decimal number of units into bytes, rounded down.
fn amount(text: &str, unit: u64) -> Option<u64> {
    /// Most digits after the point: more than the largest unit has zeros.
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
