//! Conversion of the flat `service.json` of ipfs-cluster 0.0.x.

use serde_json::{Map, Value, json};

use super::Address;

/// A flat file, converted to the current format.
pub(super) struct Flat {
    pub(super) json: Map<String, Value>,
    pub(super) bootstrap: Vec<Address>,
    pub(super) warnings: Vec<String>,
}

/// Keys that only such a file has at its root.
const MARKS: [&str; 6] = [
    "cluster_multiaddress",
    "cluster_peers",
    "api_listen_multiaddress",
    "ipfs_node_multiaddress",
    "consensus_data_folder",
    "state_sync_seconds",
];

/// Returns whether the file is flat.
pub(super) fn is_flat(json: &Map<String, Value>) -> bool {
    !json.contains_key("cluster") && MARKS.iter().any(|key| json.contains_key(*key))
}

/// Path of an invalid key, and the problem.
type Wrong = (String, String);

fn addresses(json: &Value, key: &str) -> Result<Vec<Address>, Wrong> {
    if json.is_null() {
        return Ok(Vec::new());
    }
    let wrong = |problem: String| (key.to_owned(), problem);
    let list = json
        .as_array()
        .ok_or_else(|| wrong(format!("invalid value: {json}, expected a list")))?;
    let address = |value: &Value| {
        let text = value
            .as_str()
            .ok_or_else(|| format!("invalid value: {value}, expected a multiaddress"));
        text.and_then(str::parse)
    };
    list.iter()
        .map(address)
        .collect::<Result<_, String>>()
        .map_err(wrong)
}

/// Converts seconds to a Go duration; 0 and `null` mean the default.
fn seconds(json: &Value, key: &str) -> Result<Value, Wrong> {
    match json {
        Value::Null => Ok(Value::Null),
        Value::Number(number) if number.as_u64() == Some(0) => Ok(Value::Null),
        Value::Number(number) if number.as_u64().is_some() => Ok(format!("{number}s").into()),
        Value::Number(_) | Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
            let problem = format!("invalid value: {json}, expected a whole number of seconds");
            Err((key.to_owned(), problem))
        }
    }
}

/// Returns the ids of the peers in these addresses, each once.
fn peer_ids(addresses: &[Address]) -> Result<Vec<String>, Wrong> {
    let mut ids: Vec<String> = Vec::new();
    for address in addresses {
        let peer = address.peer().ok_or_else(|| {
            let problem = format!("{address:?} names no peer: it must end in /ipfs/<peer id>");
            ("cluster_peers".to_owned(), problem)
        })?;
        if !ids.contains(&peer.to_base58()) {
            ids.push(peer.to_base58());
        }
    }
    Ok(ids)
}

/// Converts a flat file to the current sections.
pub(super) fn convert(mut flat: Map<String, Value>) -> Result<Flat, Wrong> {
    let mut warnings = vec![
        "this is a service.json of ipfs-cluster 0.0.x, read as far as its settings still exist: \
         `ipfs-cluster-service init` writes one of today's"
            .to_owned(),
    ];
    let mut take = |key: &str| flat.remove(key).unwrap_or(Value::Null);
    let peers = addresses(&take("cluster_peers"), "cluster_peers")?;
    let bootstrap = addresses(&take("bootstrap"), "bootstrap")?;
    let peerset = peer_ids(&peers)?;
    let interval = seconds(
        &take("monitoring_interval_seconds"),
        "monitoring_interval_seconds",
    )?;
    let copies = Some(take("replication_factor")).filter(|copies| copies.as_i64() != Some(0));
    let strategy = take("allocation_strategy");
    if strategy
        .as_str()
        .is_some_and(|name| matches!(name, "numpin" | "pincount"))
    {
        warnings.push(format!(
            "allocation_strategy: {strategy}: pins are no longer counted, peers are ranked by used storage"
        ));
    }
    let json = json!({
        "cluster": {
            "id": take("id"),
            "private_key": take("private_key"),
            "leave_on_shutdown": take("leave_on_shutdown"),
            "listen_multiaddress": take("cluster_multiaddress"),
            "peer_addresses": peers,
            "replication_factor_min": copies,
            "replication_factor_max": copies,
            "state_sync_interval": seconds(&take("state_sync_seconds"), "state_sync_seconds")?,
            "monitor_ping_interval": interval,
        },
        "consensus": {"raft": {
            "init_peerset": peerset,
            "data_folder": take("consensus_data_folder"),
        }},
        "api": {
            "restapi": {"http_listen_multiaddress": take("api_listen_multiaddress")},
            "ipfsproxy": {
                "listen_multiaddress": take("ipfs_proxy_listen_multiaddress"),
                "node_multiaddress": flat.get("ipfs_node_multiaddress").cloned(),
            },
        },
        "ipfs_connector": {"ipfshttp": {"node_multiaddress": flat.get("ipfs_node_multiaddress").cloned()}},
        "monitor": {"pubsubmon": {"check_interval": interval}},
        "allocator": {"balanced": {"allocate_by": ["reposize"]}},
        "informer": {"disk": {"metric_type": "reposize"}},
    });
    flat.remove("ipfs_node_multiaddress");
    warnings.extend(
        flat.keys()
            .map(|key| format!("service.json: {key}: no such setting, ignored")),
    );
    let Value::Object(json) = json else {
        unreachable!("written as an object above");
    };
    Ok(Flat {
        json,
        bootstrap,
        warnings,
    })
}
