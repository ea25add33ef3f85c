//! The commands `config` and `config/show`: the effective settings that clients ask for, read-only. The
//! embedded node is configured in `service.json`.

use cluster_http::rpc::Failure;
use libp2p::Multiaddr;
use serde::Serialize;
use serde_json::{Value, json};

use super::reply::Reply;
use super::request::Call;

/// Answer to `config`.
#[derive(Serialize)]
struct Setting {
    #[serde(rename = "Key")]
    key: String,
    #[serde(rename = "Value")]
    value: Value,
}

/// Returns all settings, in the shape of Kubo's configuration file without its secrets.
fn settings(call: &Call) -> Result<Value, Failure> {
    let (own, stat) = (call.node.id(), call.node.stat()?);
    let swarm: Vec<_> = own.addresses.iter().map(Multiaddr::to_string).collect();
    // Kubo has no "unlimited". The disk's size, unlike its free space, does not change by itself.
    let storage_max = stat.storage_max.unwrap_or(stat.disk_size);
    Ok(json!({
        "Addresses": { "Swarm": swarm },
        "Bootstrap": [],
        "Datastore": { "StorageMax": format!("{storage_max}B") },
        "Identity": { "PeerID": own.peer_id.to_string() },
        "Routing": { "Type": "none" },
    }))
}

/// Handles `config/show`.
pub(super) async fn show(call: Call) -> Result<Reply, Failure> {
    Reply::once(&settings(&call)?)
}

/// Handles `config`: returns one setting, by its dotted key.
///
/// # Errors
/// The key is unknown or private, or a value to set was given.
pub(super) async fn get(call: Call) -> Result<Reply, Failure> {
    let key = call.arg();
    // Kubo refuses the whole section too: its file holds the private key there.
    let folded = key.to_lowercase();
    if folded == "identity" || folded.starts_with("identity.privkey") {
        return Err(Failure::failed("cannot show or change private key through API"));
    }
    if call.args.len() > 1 {
        return Err(Failure::failed(format!(
            "cannot set {key:?}: the embedded node is configured in service.json"
        )));
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
