//! The commands `config` and `config/show`: the effective settings that clients ask for.
//!
//! The bootstrap peers, the peers that stay connected and the size above which directories are sharded can be
//! set, and are saved by the node. Everything else is configured in `service.json`.

use std::time::Duration;

use cluster_http::GoDuration;
use cluster_http::rpc::Failure;
use libp2p::Multiaddr;
use serde::Serialize;
use serde_json::{Value, json};

use super::reply::Reply;
use super::request::Call;
use crate::config_file::PeerAddresses;
use crate::settings::{ProvideStrategy, Routing};

/// Answer to `config`.
#[derive(Serialize)]
struct Setting {
    #[serde(rename = "Key")]
    key: String,
    #[serde(rename = "Value")]
    value: Value,
}

/// Settings of Kubo that this node has in `service.json`, with their names in `ipfs_connector.embedded`.
const IN_SERVICE_JSON: [(&str, &str); 13] = [
    ("addresses.announce", "announce_multiaddress"),
    ("addresses.gateway", "gateway_listen_multiaddress"),
    ("addresses.noannounce", "no_announce_multiaddress"),
    ("addresses.swarm", "swarm_listen_multiaddress"),
    ("datastore.storagemax", "storage_max"),
    ("discovery.mdns.enabled", "lan_discovery"),
    ("gateway.nofetch", "gateway_no_fetch"),
    ("httpretrieval.enabled", "http_retrieval"),
    ("provide.dht.interval", "provide_interval"),
    ("provide.strategy", "provide_strategy"),
    ("routing.type", "routing"),
    ("swarm.connmgr.highwater", "connections_high_water"),
    ("swarm.connmgr.lowwater", "connections_low_water"),
];

/// Formats a duration like Go.
fn go_duration(duration: Duration) -> String {
    GoDuration::from(duration).to_string()
}

/// Returns all settings, in the shape of Kubo's configuration file without its secrets.
fn settings(call: &Call) -> Result<Value, Failure> {
    let (own, stat) = (call.node.id(), call.node.stat()?);
    let texts = |all: &[Multiaddr]| all.iter().map(Multiaddr::to_string).collect::<Vec<_>>();
    let network = call.node.network_settings();
    // Kubo has no "unlimited". The disk's size, unlike its free space, does not change by itself.
    let storage_max = stat.storage_max.unwrap_or(stat.disk_size);
    let routing = match network.effective_routing() {
        Routing::Auto => "auto",
        Routing::Dht => "dht",
        Routing::DhtClient => "dhtclient",
        Routing::Delegated => "delegated",
        Routing::None => "none",
    };
    let strategy = match network.provide_strategy {
        ProvideStrategy::Roots => "roots",
        ProvideStrategy::Pinned => "pinned",
        ProvideStrategy::All | ProvideStrategy::None => "all",
    };
    let no_announce: Vec<_> = network.no_announce.iter().map(ToString::to_string).collect();
    Ok(json!({
        "Addresses": {
            "Announce": texts(&network.announce),
            "NoAnnounce": no_announce,
            "Swarm": texts(&own.addresses),
        },
        "Bootstrap": texts(&call.node.bootstrap()),
        "Datastore": { "StorageMax": format!("{storage_max}B") },
        "Discovery": { "MDNS": { "Enabled": network.lan_discovery && !network.private } },
        "HTTPRetrieval": { "Enabled": network.http_retrieval && !network.private },
        "Identity": { "PeerID": own.peer_id.to_string() },
        "Import": { "UnixFSHAMTDirectorySizeThreshold": call.node.saved_hamt_threshold() },
        "Peering": { "Peers": call.node.saved_peerings() },
        "Provide": {
            "DHT": { "Interval": go_duration(network.provide_interval) },
            "Enabled": network.provide_strategy != ProvideStrategy::None,
            "Strategy": strategy,
        },
        "Routing": { "Type": routing },
        "Swarm": {
            "ConnMgr": {
                "HighWater": network.connections_high_water,
                "LowWater": network.connections_low_water,
            },
        },
    }))
}

/// Handles `config/show`.
pub(super) async fn show(call: Call) -> Result<Reply, Failure> {
    Reply::once(&settings(&call)?)
}

/// Handles `config`: returns one setting, by its dotted key, or sets it.
///
/// # Errors
/// The key is unknown or private, or cannot be set.
pub(super) async fn get(call: Call) -> Result<Reply, Failure> {
    let key = call.text_arg(0)?;
    // Kubo refuses the whole section too: its file holds the private key there.
    let folded = key.to_lowercase();
    if folded == "identity" || folded.starts_with("identity.privkey") {
        return Err(Failure::failed("cannot show or change private key through API"));
    }
    if call.args.len() > 1 {
        let text = call.text_arg(1)?;
        let value = parse_value(&call, text)?;
        set(&call, key, &value).await?;
        return Reply::once(&Setting {
            key: key.to_owned(),
            value,
        });
    }
    let settings = settings(&call)?;
    let value = find(&settings, key).map_err(|why| {
        // Kubo quotes the reason too.
        Failure::failed(format!("failed to get config value: \"{why}\""))
    })?;
    Reply::once(&Setting {
        key: key.to_owned(),
        value: value.clone(),
    })
}

/// Parses a value to set: text, unless the options say otherwise.
fn parse_value(call: &Call, text: &str) -> Result<Value, Failure> {
    if call.flag("json", false) {
        let parsed = serde_json::from_str(text);
        return parsed.map_err(|error| Failure::failed(format!("failed to unmarshal json. {error}")));
    }
    match call.flag("bool", false) {
        true => Ok(Value::Bool(text == "true")),
        false => Ok(Value::from(text)),
    }
}

/// Sets one setting.
async fn set(call: &Call, key: &str, value: &Value) -> Result<(), Failure> {
    let invalid = |why: serde_json::Error| {
        Failure::failed(format!(
            "failed to set config value: {key:?}: {why} (maybe use --json?)"
        ))
    };
    match key.to_lowercase().as_str() {
        "bootstrap" => {
            let list = serde_json::from_value::<Option<Vec<Multiaddr>>>(value.clone());
            let list = list.map_err(invalid)?.unwrap_or_default();
            Ok(call.node.set_bootstrap(list).await?)
        }
        "peering.peers" => {
            let peers = serde_json::from_value::<Option<Vec<PeerAddresses>>>(value.clone());
            let peers = peers.map_err(invalid)?.unwrap_or_default();
            Ok(call.node.save_peerings(peers).await?)
        }
        // The second is its older name.
        "import.unixfshamtdirectorysizethreshold" | "internal.unixfsshardingsizethreshold" => {
            let text = serde_json::from_value::<Option<String>>(value.clone()).map_err(invalid)?;
            Ok(call.node.save_hamt_threshold(text).await?)
        }
        folded => {
            let known = IN_SERVICE_JSON.iter().find(|(kubo, _)| *kubo == folded);
            Err(Failure::failed(match known {
                Some((_, own)) => format!(
                    "cannot set {key:?}: change ipfs_connector.embedded.{own} in service.json and restart"
                ),
                // Begins like Kubo's text.
                None => format!(
                    "failed to set config value: {key} not found: the embedded node is configured in \
                     service.json, and only Bootstrap, Peering.Peers and \
                     Import.UnixFSHAMTDirectorySizeThreshold can be set here"
                ),
            }))
        }
    }
}

/// Failed lookup of a setting.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum LookupError {
    #[error("{0} not found")]
    NotFound(String),
    #[error("{0} key is not a map")]
    NoMap(String),
}

/// Looks up `key` in nested objects; error texts are Kubo's.
fn find<'a>(settings: &'a Value, key: &str) -> Result<&'a Value, LookupError> {
    let mut at = settings;
    let mut end = 0_usize;
    for part in key.split('.') {
        let Value::Object(map) = at else {
            let parent = key.get(..end.saturating_sub(1)).unwrap_or_default();
            return Err(LookupError::NoMap(parent.to_owned()));
        };
        end += part.len();
        at = map
            .get(part)
            .ok_or_else(|| LookupError::NotFound(key.get(..end).unwrap_or_default().to_owned()))?;
        end += 1;
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dotted_keys_are_looked_up_in_nested_objects() {
        let settings = json!({"A": {"B": [1], "C": {"D": 2}}});
        assert_eq!(find(&settings, "A.B"), Ok(&json!([1])));
        assert_eq!(find(&settings, "A.C.D"), Ok(&json!(2)));
        let missing = |key: &str| Err(LookupError::NotFound(key.to_owned()));
        assert_eq!(find(&settings, "B"), missing("B"));
        assert_eq!(find(&settings, "A.X.Y"), missing("A.X"));
        assert_eq!(find(&settings, ""), missing(""));
        assert_eq!(find(&settings, "a.B"), missing("a"));
        assert_eq!(
            find(&settings, "A.B.0"),
            Err(LookupError::NoMap("A.B".to_owned()))
        );
    }
}
