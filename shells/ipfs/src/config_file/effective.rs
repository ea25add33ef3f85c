//! Keys of the file that take effect: a few at once, most at the next start of the node, where they replace
//! settings that it is started with.

use super::{BOOTSTRAP_MAX, Document, FixedSettings, PeerAddresses, check_bootstrap_address, document, keys};
use crate::settings::{AddressFilter, ProvideStrategy, Routing};
use crate::{Config, Error};
use cluster_http::GoDuration;
use libp2p::Multiaddr;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::time::Duration;
use url::Url;

/// Default size of a directory above which it is sharded, and limit on that size, in bytes: the block of a
/// larger directory might be too large to be exchanged.
pub(super) const HAMT_THRESHOLD: u64 = 256 << 10;
const HAMT_THRESHOLD_MAX: u64 = 1 << 20;
/// Limit on connections; each takes some 100 KiB.
const CONNECTIONS_MAX: usize = 10_000;

/// Kubo's keys of settings that are those of `ipfs_connector.embedded` in `service.json`: they take effect at
/// the next start.
const AT_START: [(&str, &str); 14] = [
    ("Addresses.Announce", "announce_multiaddress"),
    ("Addresses.NoAnnounce", "no_announce_multiaddress"),
    ("Addresses.Swarm", "swarm_listen_multiaddress"),
    ("Bootstrap", "bootstrap"),
    ("Datastore.StorageMax", "storage_max"),
    ("Discovery.MDNS.Enabled", "lan_discovery"),
    ("HTTPRetrieval.Enabled", "http_retrieval"),
    ("Provide.DHT.Interval", "provide_interval"),
    ("Provide.Enabled", "provide_strategy"),
    ("Provide.Strategy", "provide_strategy"),
    ("Routing.DelegatedRouters", "delegated_routers"),
    ("Routing.Type", "routing"),
    ("Swarm.ConnMgr.HighWater", "connections_high_water"),
    ("Swarm.ConnMgr.LowWater", "connections_low_water"),
];

/// Returns the names, in `ipfs_connector.embedded`, of settings that clients of the API can change.
pub fn changeable_settings() -> impl Iterator<Item = &'static str> {
    AT_START.iter().map(|(_, own)| *own)
}

/// Keys that can be set in `service.json` only: what they configure is not a part of the node.
const ONLY_IN_SERVICE_JSON: [(&str, &str); 5] = [
    ("Addresses.API", "api_listen_multiaddress"),
    ("Addresses.Gateway", "gateway_listen_multiaddress"),
    ("Datastore.GCPeriod", "gc_interval"),
    ("Datastore.StorageGCWatermark", "gc_watermark"),
    ("Gateway.NoFetch", "gateway_no_fetch"),
];

/// Keys that take effect at once, beside the bootstrap peers.
const PEERINGS: &str = "Peering.Peers";
pub(super) const HAMT: &str = "Import.UnixFSHAMTDirectorySizeThreshold";

/// Returns whether a key is used by the node.
fn has_effect(key: &str) -> bool {
    key == HAMT || key == PEERINGS || AT_START.iter().any(|(kubo, _)| *kubo == key)
}

/// Returns the environment variable that sets what a key does.
fn variable_of<'a>(key: &str, fixed: &'a FixedSettings) -> Option<&'a str> {
    let (_, own) = AT_START.iter().find(|(kubo, _)| *kubo == key)?;
    fixed.get(*own).map(String::as_str)
}

/// Checks that no key changes that the environment or only `service.json` can set.
///
/// # Errors
/// [`Error::Invalid`] names the key and what sets it.
pub(super) fn check_changeable(old: &Document, new: &Document, fixed: &FixedSettings) -> Result<(), Error> {
    let changes = |key: &str| value(new, key).is_some() && value(new, key) != value(old, key);
    for (key, _) in AT_START.iter().filter(|(key, _)| changes(key)) {
        if let Some(variable) = variable_of(key, fixed) {
            return Err(Error::invalid(format!(
                "cannot set {key:?}: the environment variable {variable} sets it"
            )));
        }
    }
    match ONLY_IN_SERVICE_JSON.iter().find(|(key, _)| changes(key)) {
        Some((key, own)) => Err(Error::invalid(format!(
            "cannot set {key:?}: change ipfs_connector.embedded.{own} in service.json and restart"
        ))),
        None => Ok(()),
    }
}

/// Values of the keys that take effect; `None` where they are unset.
#[derive(Debug, Default)]
pub(super) struct Effective {
    pub(super) bootstrap: Option<Vec<Multiaddr>>,
    pub(super) peerings: Vec<PeerAddresses>,
    pub(super) hamt_threshold: Option<u64>,
    swarm_listen: Option<Vec<Multiaddr>>,
    announce: Option<Vec<Multiaddr>>,
    no_announce: Option<Vec<AddressFilter>>,
    storage_max: Option<u64>,
    lan_discovery: Option<bool>,
    http_retrieval: Option<bool>,
    provide_interval: Option<Duration>,
    provides: Option<bool>,
    provide_strategy: Option<ProvideStrategy>,
    routing: Option<Routing>,
    delegated_routers: Option<Vec<Url>>,
    low_water: Option<usize>,
    high_water: Option<usize>,
}

/// Returns the value of a key if it is set.
fn value<'a>(document: &'a Document, key: &str) -> Option<&'a Value> {
    let value = document::find(document, key).ok()?;
    (!value.is_null() && value != "").then_some(value)
}

/// Reads the value of a key; `parse` returns what is wrong with it.
fn read<T, V: DeserializeOwned>(
    document: &Document,
    key: &str,
    parse: impl Fn(V) -> Result<T, String>,
) -> Result<Option<T>, Error> {
    let Some(value) = value(document, key) else {
        return Ok(None);
    };
    let typed: Result<V, _> = serde_json::from_value(value.clone());
    let parsed = typed.map_err(|error| error.to_string()).and_then(parse);
    parsed
        .map(Some)
        .map_err(|why| Error::invalid(format!("{key:?}: {why}")))
}

fn list<T>(parse: impl Fn(&str) -> Result<T, String>) -> impl Fn(Vec<String>) -> Result<Vec<T>, String> {
    move |texts| {
        if texts.len() > BOOTSTRAP_MAX {
            return Err(format!("the list may have {BOOTSTRAP_MAX} entries"));
        }
        texts.iter().map(|text| parse(text)).collect()
    }
}

fn parse_address(text: &str) -> Result<Multiaddr, String> {
    let address: Option<Multiaddr> = text.parse().ok();
    let address = address.filter(|address| !address.is_empty());
    address.ok_or_else(|| format!("{text:?} is not a multiaddress"))
}

fn parse_router(text: &str) -> Result<Url, String> {
    let url: Option<Url> = text.parse().ok();
    let url = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    url.ok_or_else(|| format!("{text:?} is not a URL like \"https://delegated-ipfs.dev\""))
}

fn parse_connections(count: usize) -> Result<usize, String> {
    match (1..=CONNECTIONS_MAX).contains(&count) {
        true => Ok(count),
        false => Err(format!("{count} is not a number from 1 to {CONNECTIONS_MAX}")),
    }
}

fn parse_interval(text: String) -> Result<Duration, String> {
    let parsed: Option<GoDuration> = text.parse().ok();
    let interval = parsed.and_then(GoDuration::to_std).filter(|it| !it.is_zero());
    interval.ok_or_else(|| format!("{text:?} is not a span of time like \"22h\""))
}

fn parse_routing(text: String) -> Result<Routing, String> {
    let kinds = "auto, autoclient, dht, dhtclient, delegated and none";
    Routing::ALL
        .into_iter()
        .find(|routing| routing.name() == text)
        .ok_or_else(|| format!("{text:?} is not a way of routing that this node has: {kinds}"))
}

fn parse_strategy(text: String) -> Result<ProvideStrategy, String> {
    match text.as_str() {
        "all" => Ok(ProvideStrategy::All),
        "pinned" => Ok(ProvideStrategy::Pinned),
        "roots" => Ok(ProvideStrategy::Roots),
        _ => Err(format!(
            "{text:?} is not a strategy that this node has: all, pinned and roots"
        )),
    }
}

/// Parses a whole number of bytes with an optional unit, decimal like `kB` or binary like `KiB`.
fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let scale: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1_000,
        "ki" | "kib" => 1 << 10,
        "m" | "mb" => 1_000_000,
        "mi" | "mib" => 1 << 20,
        "g" | "gb" => 1_000_000_000,
        "gi" | "gib" => 1 << 30,
        "t" | "tb" => 1_000_000_000_000,
        "ti" | "tib" => 1 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(scale)
}

fn parse_threshold(text: String) -> Result<u64, String> {
    let size = parse_size(&text).filter(|size| *size <= HAMT_THRESHOLD_MAX);
    size.ok_or_else(|| format!("invalid size {text:?}: directories can be sharded above at most \"1MiB\""))
}

fn parse_storage_max(text: String) -> Result<u64, String> {
    parse_size(&text).ok_or_else(|| format!("{text:?} is not a size like \"10GB\""))
}

impl Effective {
    /// Reads the keys that take effect.
    ///
    /// # Errors
    /// [`Error::Invalid`] names the key and what is wrong with its value.
    pub(super) fn parse(document: &Document) -> Result<Effective, Error> {
        let bootstrap: Option<Vec<Multiaddr>> = read(document, "Bootstrap", list(parse_address))?;
        let mut bootstraps = bootstrap.iter().flatten();
        bootstraps.try_for_each(check_bootstrap_address)?;
        Ok(Effective {
            bootstrap,
            peerings: read(document, PEERINGS, Ok)?.unwrap_or_default(),
            hamt_threshold: read(document, HAMT, parse_threshold)?,
            swarm_listen: read(document, "Addresses.Swarm", list(parse_address))?,
            announce: read(document, "Addresses.Announce", list(parse_address))?,
            no_announce: read(document, "Addresses.NoAnnounce", list(str::parse))?,
            storage_max: read(document, "Datastore.StorageMax", parse_storage_max)?,
            lan_discovery: read(document, "Discovery.MDNS.Enabled", Ok)?,
            http_retrieval: read(document, "HTTPRetrieval.Enabled", Ok)?,
            provide_interval: read(document, "Provide.DHT.Interval", parse_interval)?,
            provides: read(document, "Provide.Enabled", Ok)?,
            provide_strategy: read(document, "Provide.Strategy", parse_strategy)?,
            routing: read(document, "Routing.Type", parse_routing)?,
            delegated_routers: read(document, "Routing.DelegatedRouters", list(parse_router))?,
            low_water: read(document, "Swarm.ConnMgr.LowWater", parse_connections)?,
            high_water: read(document, "Swarm.ConnMgr.HighWater", parse_connections)?,
        })
    }

    /// Replaces settings that the node is started with, except those that the environment fixes.
    pub(super) fn apply(&self, config: &mut Config) {
        let fixed = std::mem::take(&mut config.fixed);
        let is_free = |own: &str| !fixed.contains_key(own);
        macro_rules! replace {
            ($own:literal, $place:expr, $value:expr) => {
                if let Some(value) = $value.clone().filter(|_| is_free($own)) {
                    $place = value;
                }
            };
        }
        replace!(
            "swarm_listen_multiaddress",
            config.swarm_listen,
            self.swarm_listen
        );
        replace!("storage_max", config.storage_max, self.storage_max.map(Some));
        let network = &mut config.network;
        replace!("announce_multiaddress", network.announce, self.announce);
        replace!("no_announce_multiaddress", network.no_announce, self.no_announce);
        replace!("lan_discovery", network.lan_discovery, self.lan_discovery);
        replace!("http_retrieval", network.http_retrieval, self.http_retrieval);
        replace!(
            "provide_interval",
            network.provide_interval,
            self.provide_interval
        );
        let strategy = self.strategy(network.provide_strategy);
        replace!("provide_strategy", network.provide_strategy, Some(strategy));
        replace!("routing", network.routing, self.routing);
        replace!(
            "delegated_routers",
            network.delegated_routers,
            self.delegated_routers
        );
        replace!(
            "connections_low_water",
            network.connections_low_water,
            self.low_water
        );
        replace!(
            "connections_high_water",
            network.connections_high_water,
            self.high_water
        );
        config.fixed = fixed;
    }

    /// Returns what is announced; Kubo has a switch beside its strategy.
    fn strategy(&self, configured: ProvideStrategy) -> ProvideStrategy {
        let is_on = self.provides.unwrap_or(configured != ProvideStrategy::None);
        let strategy = match (self.provide_strategy, configured) {
            (Some(strategy), _) => strategy,
            (None, ProvideStrategy::None) => ProvideStrategy::Roots,
            (None, configured) => configured,
        };
        if is_on { strategy } else { ProvideStrategy::None }
    }
}

/// Checks settings that depend on each other.
pub(super) fn check(config: &Config) -> Result<(), Error> {
    let (low, high) = (
        config.network.connections_low_water,
        config.network.connections_high_water,
    );
    if low > high {
        return Err(Error::invalid(format!(
            "\"Swarm.ConnMgr.LowWater\" is {low}, above \"Swarm.ConnMgr.HighWater\", which is {high}: set \
             that first"
        )));
    }
    Ok(())
}

/// Returns the keys that are set and that nothing in this node uses.
pub(super) fn without_effect(document: &Document, fixed: &FixedSettings) -> Vec<String> {
    let mut without = Vec::new();
    document::visit(document, &mut Vec::new(), &mut |path, value| {
        let key = path.join(".");
        let is_used = has_effect(&key) && variable_of(&key, fixed).is_none();
        if !is_used && !keys::is_unset(path, value) {
            without.push(key);
        }
    });
    without
}

/// Returns the keys that replace other settings of `service.json`.
pub(super) fn replaced(document: &Document, config: &Config) -> Vec<&'static str> {
    let is_used = |(kubo, own): &(&'static str, &'static str)| {
        value(document, kubo).is_some() && !config.fixed.contains_key(*own)
    };
    AT_START
        .iter()
        .filter(|it| is_used(it))
        .map(|(kubo, _)| *kubo)
        .collect()
}
