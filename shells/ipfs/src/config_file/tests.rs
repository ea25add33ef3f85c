//! Tests of the saved settings.

use super::*;
use crate::settings::{ProvideStrategy, PublicNetwork, Routing};
use serde_json::json;
use std::time::Duration;

fn address(port: u16, peer: PeerId) -> Multiaddr {
    format!("/ip4/127.0.0.1/tcp/{port}/p2p/{peer}").parse().unwrap()
}

fn config(folder: &Path, bootstrap: Vec<Multiaddr>) -> Config {
    Config {
        path: folder.to_owned(),
        swarm_listen: Vec::new(),
        storage_max: None,
        network: PublicNetwork {
            bootstrap,
            ..PublicNetwork::default()
        },
        fixed: FixedSettings::new(),
    }
}

fn open(folder: &Path, bootstrap: Vec<Multiaddr>) -> ConfigFile {
    ConfigFile::open(&mut config(folder, bootstrap)).unwrap()
}

fn set_key(file: &ConfigFile, key: &str, value: Value) -> Result<Changed, Error> {
    file.change(Unchangeable::Refuse, |document| {
        set(document, key, value).map_err(|error| Error::invalid(error.to_string()))
    })
}

#[test]
fn changed_bootstrap_peers_replace_the_configured_ones_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let [first, second] = [1, 2].map(|port| address(port, PeerId::random()));
    let file = open(folder.path(), vec![first.clone()]);
    assert_eq!(file.bootstrap(), std::slice::from_ref(&first));
    let add = |mut list: Vec<Multiaddr>| {
        list.push(second.clone());
        (list, ())
    };
    file.change_bootstrap(add).unwrap();
    let file = open(folder.path(), Vec::new());
    assert_eq!(file.bootstrap(), [first, second]);
    file.change_bootstrap(|_| (Vec::new(), ())).unwrap();
    let other = vec![address(3, PeerId::random())];
    let file = open(folder.path(), other);
    assert_eq!(file.bootstrap(), []);
    std::fs::write(folder.path().join(FILE), "{").unwrap();
    let damaged = ConfigFile::open(&mut config(folder.path(), Vec::new())).unwrap_err();
    assert!(damaged.to_string().contains("remove it"), "{damaged}");
}

#[test]
fn bootstrap_peers_and_peerings_are_limited() {
    let folder = tempfile::tempdir().unwrap();
    let file = open(folder.path(), Vec::new());
    let peer = PeerId::random();
    let many = (0..=BOOTSTRAP_MAX as u16)
        .map(|port| address(port, peer))
        .collect();
    assert!(file.change_bootstrap(|_| (many, ())).is_err());
    for bad in ["/ip4/127.0.0.1/tcp/1".to_owned(), format!("/p2p/{peer}")] {
        let list = vec![bad.parse().unwrap()];
        assert!(file.change_bootstrap(|_| (list, ())).is_err(), "{bad}");
        assert!(set_key(&file, "Bootstrap", json!([bad])).is_err(), "{bad}");
    }
    assert_eq!(file.bootstrap(), []);
    let peers = |count| (0..count).map(|_| (PeerId::random(), Vec::new())).collect();
    file.add_peerings(peers(PEERINGS_MAX)).unwrap();
    assert!(file.add_peerings(peers(1)).is_err());
    assert_eq!(file.peerings().len(), PEERINGS_MAX);
}

#[test]
fn saved_peerings_return_after_a_restart_and_others_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let file = open(folder.path(), Vec::new());
    let [saved, added] = [PeerId::random(), PeerId::random()];
    let entry = json!([{"ID": saved.to_string(), "Addrs": ["/ip4/127.0.0.1/tcp/1"]}]);
    let changed = set_key(&file, "Peering.Peers", entry).unwrap();
    assert_eq!((changed.dropped.len(), changed.kept.len()), (0, 1));
    file.add_peerings(Peerings::from([(added, Vec::new())])).unwrap();
    assert_eq!(file.peerings().len(), 2);
    assert!(file.remove_peering(&saved) && !file.remove_peering(&saved));
    let file = open(folder.path(), Vec::new());
    let addresses = vec!["/ip4/127.0.0.1/tcp/1".parse().unwrap()];
    assert_eq!(file.peerings(), Peerings::from([(saved, addresses)]));
    let changed = set_key(&file, "Peering.Peers", Value::Null).unwrap();
    assert_eq!(changed.dropped, [saved]);
    assert_eq!(file.peerings(), Peerings::new());
    assert!(set_key(&file, "Peering.Peers", json!([{"ID": "x"}])).is_err());
}

#[test]
fn the_size_of_unsharded_directories_is_saved_and_limited() {
    let folder = tempfile::tempdir().unwrap();
    let file = open(folder.path(), Vec::new());
    assert_eq!(file.hamt_threshold(), 256 << 10);
    for (text, bytes) in [("1B", 1), ("7", 7), ("1 MiB", 1 << 20), ("2kB", 2000)] {
        set_key(&file, "Import.UnixFSHAMTDirectorySizeThreshold", json!(text)).unwrap();
        assert_eq!(file.hamt_threshold(), bytes, "{text}");
    }
    for text in ["KiB", "-1", "1 MiB 1", "2MiB", "99999999999999999999"] {
        let refused = set_key(&file, "Internal.UnixFSShardingSizeThreshold", json!(text));
        assert!(refused.is_err(), "{text}");
    }
    let file = open(folder.path(), Vec::new());
    assert_eq!(file.hamt_threshold(), 2000);
    set_key(&file, "Internal.UnixFSShardingSizeThreshold", Value::Null).unwrap();
    assert_eq!(open(folder.path(), Vec::new()).hamt_threshold(), 256 << 10);
}

#[test]
fn keys_that_take_effect_at_the_next_start_replace_the_configured_settings() {
    let folder = tempfile::tempdir().unwrap();
    let file = open(folder.path(), Vec::new());
    for (key, value) in [
        ("Addresses.Swarm", json!(["/ip4/127.0.0.1/tcp/0"])),
        ("Addresses.Announce", json!(["/ip4/1.2.3.4/tcp/1"])),
        ("Addresses.NoAnnounce", json!(["/ip4/10.0.0.0/ipcidr/8"])),
        ("Datastore.StorageMax", json!("10GB")),
        ("Discovery.MDNS.Enabled", json!(true)),
        ("HTTPRetrieval.Enabled", json!(true)),
        ("Provide", json!({"Enabled": true, "DHT": {"Interval": "11h"}})),
        ("Routing.Type", json!("autoclient")),
        ("Routing.DelegatedRouters", json!(["https://example.com"])),
        ("Swarm.ConnMgr", json!({"LowWater": 20, "HighWater": 40})),
    ] {
        let changed = set_key(&file, key, value).unwrap();
        assert_eq!(changed.without_effect, <[String; 0]>::default(), "{key}");
    }
    let mut started = config(folder.path(), Vec::new());
    ConfigFile::open(&mut started).unwrap();
    assert_eq!(started.swarm_listen, ["/ip4/127.0.0.1/tcp/0".parse().unwrap()]);
    assert_eq!(started.storage_max, Some(10_000_000_000));
    let network = started.network;
    assert_eq!(network.announce, ["/ip4/1.2.3.4/tcp/1".parse().unwrap()]);
    assert_eq!(network.no_announce[0].to_string(), "/ip4/10.0.0.0/ipcidr/8");
    assert!(network.lan_discovery && network.http_retrieval && network.private);
    assert_eq!(network.provide_strategy, ProvideStrategy::Roots);
    assert_eq!(network.provide_interval, Duration::from_secs(11 * 3600));
    assert_eq!(network.routing, Routing::AutoClient);
    assert_eq!(network.delegated_routers[0].as_str(), "https://example.com/");
    assert_eq!(
        (network.connections_low_water, network.connections_high_water),
        (20, 40)
    );
}

#[test]
fn settings_of_the_environment_and_of_the_service_are_not_changed() {
    let folder = tempfile::tempdir().unwrap();
    let mut fixed = config(folder.path(), Vec::new());
    let variable = "CLUSTER_EMBEDDED_LANDISCOVERY".to_owned();
    fixed.fixed.insert("lan_discovery".to_owned(), variable);
    let file = ConfigFile::open(&mut fixed.clone()).unwrap();
    let refused = |key: &str, value: Value| set_key(&file, key, value).unwrap_err().to_string();
    assert_eq!(
        refused("Discovery.MDNS.Enabled", json!(true)),
        "cannot set \"Discovery.MDNS.Enabled\": the environment variable CLUSTER_EMBEDDED_LANDISCOVERY sets it"
    );
    assert_eq!(
        refused("Gateway", json!({"NoFetch": true})),
        "cannot set \"Gateway.NoFetch\": change ipfs_connector.embedded.gateway_no_fetch in service.json and \
         restart"
    );
    assert!(refused("Swarm.ConnMgr.LowWater", json!(97)).contains("set that first"));
    assert!(refused("Routing.Type", json!("custom")).contains("autoclient"));
    let sent = json!({"Addresses": {"API": "/ip4/1.2.3.4/tcp/1"}, "Discovery": {"MDNS": {"Enabled": true}}});
    let kept = file.change(Unchangeable::Keep, |document| {
        replace(document, sent.as_object().unwrap().clone())
            .map_err(|error| Error::invalid(error.to_string()))
    });
    assert_eq!(
        kept.unwrap().without_effect,
        ["Addresses.API", "Discovery.MDNS.Enabled"]
    );
    ConfigFile::open(&mut fixed).unwrap();
    assert!(!fixed.network.lan_discovery);
}

#[test]
fn keys_that_nothing_uses_are_kept_and_reported() {
    let folder = tempfile::tempdir().unwrap();
    let file = open(folder.path(), Vec::new());
    let changed = set_key(&file, "Gateway.RootRedirect", json!("/x")).unwrap();
    assert_eq!(changed.without_effect, ["Gateway.RootRedirect"]);
    let file = open(folder.path(), Vec::new());
    assert_eq!(find(&file.document(), "Gateway.RootRedirect"), Ok(&json!("/x")));
    let changed = set_key(&file, "Discovery.MDNS.Enabled", json!(true)).unwrap();
    assert!(changed.without_effect.is_empty());
    assert!(set_key(&file, "Fruit", json!("banana")).is_err());
    let refused = file.change(Unchangeable::Refuse, |document| {
        let long = "x".repeat(FILE_MAX);
        set(document, "Gateway.RootRedirect", json!(long)).map_err(|error| Error::invalid(error.to_string()))
    });
    assert!(refused.unwrap_err().to_string().contains("bytes"));
}
