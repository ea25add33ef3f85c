//! The commands `config`, `config/show`, `config/replace` and `config/profile/apply`: the effective settings
//! and those that clients have set, which the node saves.

use std::time::Duration;

use bytes::Bytes;
use cluster_http::GoDuration;
use cluster_http::rpc::Failure;
use libp2p::Multiaddr;
use serde::Serialize;
use serde_json::{Value, json};

use super::keys::read_file;
use super::reply::Reply;
use super::request::Call;
use crate::config_file::{self, Document, FILE_MAX, Profile, Unchangeable};
use crate::settings::ProvideStrategy;

/// Answer to `config`.
#[derive(Serialize)]
struct Setting {
    #[serde(rename = "Key")]
    key: String,
    #[serde(rename = "Value")]
    value: Value,
}

/// Answer to `config/profile/apply`.
#[derive(Serialize)]
struct Applied {
    #[serde(rename = "OldCfg")]
    before: Document,
    #[serde(rename = "NewCfg")]
    after: Document,
}

/// Formats a duration like Go.
fn go_duration(duration: Duration) -> String {
    GoDuration::from(duration).to_string()
}

/// Returns the settings in use, in the shape of Kubo's configuration file without its secrets.
fn used(call: &Call) -> Result<Document, Failure> {
    let (own, stat) = (call.node.id(), call.node.stat()?);
    let texts = |all: &[Multiaddr]| all.iter().map(Multiaddr::to_string).collect::<Vec<_>>();
    let started = call.node.started_with();
    let network = &started.network;
    // Kubo has no "unlimited". The disk's size, unlike its free space, does not change by itself.
    let storage_max = stat.storage_max.unwrap_or(stat.disk_size);
    let strategy = match network.provide_strategy {
        ProvideStrategy::Roots => "roots",
        ProvideStrategy::Pinned => "pinned",
        ProvideStrategy::All | ProvideStrategy::None => "all",
    };
    let no_announce: Vec<_> = network.no_announce.iter().map(ToString::to_string).collect();
    let routers: Vec<_> = network.delegated_routers.iter().map(|url| url.as_str()).collect();
    let settings = json!({
        "Addresses": {
            "Announce": texts(&network.announce),
            "NoAnnounce": no_announce,
            "Swarm": texts(&started.swarm_listen),
        },
        "Bootstrap": texts(&call.node.bootstrap()),
        "Datastore": { "StorageMax": format!("{storage_max}B") },
        "Discovery": { "MDNS": { "Enabled": network.lan_discovery && !network.private } },
        "HTTPRetrieval": { "Enabled": network.http_retrieval && !network.private },
        "Identity": { "PeerID": own.peer_id.to_string() },
        "Import": { "UnixFSHAMTDirectorySizeThreshold": null },
        "Peering": { "Peers": [] },
        "Provide": {
            "DHT": { "Interval": go_duration(network.provide_interval) },
            "Enabled": network.provide_strategy != ProvideStrategy::None,
            "Strategy": strategy,
        },
        "Routing": { "DelegatedRouters": routers, "Type": network.effective_routing().name() },
        "Swarm": {
            "ConnMgr": {
                "HighWater": network.connections_high_water,
                "LowWater": network.connections_low_water,
            },
        },
    });
    Ok(settings.as_object().cloned().unwrap_or_default())
}

/// Returns the settings in use, with the saved ones in their places, some of which the next start will use.
fn shown(call: &Call) -> Result<Document, Failure> {
    let mut shown = used(call)?;
    config_file::merge(&mut shown, call.node.saved_config());
    Ok(shown)
}

/// Handles `config/show`.
pub(super) async fn show(call: Call) -> Result<Reply, Failure> {
    Reply::once(&shown(&call)?)
}

/// Handles `config`: returns one setting, by its dotted key, or sets it.
///
/// # Errors
/// The key is unknown or private, or cannot be set.
pub(super) async fn get(call: Call) -> Result<Reply, Failure> {
    let key = call.text_arg(0)?.to_owned();
    // Kubo refuses the whole section too: its file holds the private key there.
    let folded = key.to_lowercase();
    if folded == "identity" || folded.starts_with("identity.privkey") {
        return Err(Failure::failed("cannot show or change private key through API"));
    }
    if call.args.len() > 1 {
        let text = call.text_arg(1)?.to_owned();
        let value = parse_value(&call, &text)?;
        set(&call, &key, &value).await?;
        return Reply::once(&Setting { key, value });
    }
    let shown = shown(&call)?;
    let value = config_file::find(&shown, &key).map_err(|why| {
        // Kubo quotes the reason too.
        Failure::failed(format!("failed to get config value: \"{why}\""))
    })?;
    Reply::once(&Setting {
        key,
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
    if key.eq_ignore_ascii_case("Identity.PeerID") {
        let own = call.node.id().peer_id.to_string();
        return match *value == own.as_str() {
            true => Ok(()),
            false => Err(Failure::failed(
                "cannot set Identity.PeerID: the node's key determines it",
            )),
        };
    }
    let value = match (key, value) {
        // For Kubo, no list of bootstrap peers is an empty one.
        ("Bootstrap", Value::Null) => json!([]),
        (_, value) => value.clone(),
    };
    let owned = key.to_owned();
    let changed = call.node.change_config(Unchangeable::Refuse, move |document| {
        config_file::set(document, &owned, value).map_err(|why| crate::Error::invalid(why.to_string()))
    });
    // Begins and ends like Kubo's text.
    let without_effect = changed
        .await
        .map_err(|why| Failure::failed(format!("failed to set config value: {why} (maybe use --json?)")))?;
    warn_of(&without_effect);
    Ok(())
}

/// Logs keys that were set although nothing in this node uses them.
fn warn_of(without_effect: &[String]) {
    if !without_effect.is_empty() {
        tracing::warn!(
            "{}: kept in the configuration of the embedded node, where they have no effect",
            without_effect.join(", ")
        );
    }
}

/// Handles `config/replace`.
pub(super) async fn replace(mut call: Call) -> Result<Reply, Failure> {
    let sent = read_file(&mut call, FILE_MAX).await?;
    let invalid = |why: String| Failure::failed(format!("failed to decode file as config: {why}"));
    let sent: Document = serde_json::from_slice(&sent).map_err(|why| invalid(why.to_string()))?;
    let changed = call.node.change_config(Unchangeable::Keep, move |document| {
        config_file::replace(document, sent).map_err(|why| crate::Error::invalid(why.to_string()))
    });
    warn_of(&changed.await.map_err(|why| invalid(why.to_string()))?);
    Ok(Reply::Once(Bytes::new()))
}

/// Handles `config/profile/apply`.
pub(super) async fn apply_profile(call: Call) -> Result<Reply, Failure> {
    let name = call.text_arg(0)?;
    let profile = Profile::parse(name).ok_or_else(|| {
        let known: Vec<&str> = Profile::ALL.iter().map(|(name, _)| *name).collect();
        Failure::failed(format!(
            "{name} is not a profile of the embedded node, which has {}",
            known.join(", ")
        ))
    })?;
    let before = shown(&call)?;
    if call.flag("dry-run", false) {
        let (mut after, mut saved) = (used(&call)?, call.node.saved_config());
        profile.apply(&mut saved, &before).map_err(Failure::failed)?;
        config_file::merge(&mut after, saved);
        return Reply::once(&Applied { before, after });
    }
    let old = before.clone();
    call.node
        .change_config(Unchangeable::Refuse, move |document| {
            let applied = profile.apply(document, &old);
            applied.map_err(|why| crate::Error::invalid(why.to_string()))
        })
        .await?;
    let after = shown(&call)?;
    Reply::once(&Applied { before, after })
}
