//! Whole files, read as the daemon reads them.

use std::collections::BTreeMap;
use std::time::Duration;

use cluster_core::Replicas;
use serde_json::json;

use super::*;

mod any;
mod environment;
mod identity;
mod old;
mod settings;
mod wrong;

const PEER: &str = "12D3KooWGRYZDHBembyGJQqQ6WgLqJWYNjnECJwGBnCg8vbCeo8F";
const OTHER: &str = "QmdKAFhAAnc6U3ik6XfEDVKEsok7TnQ1yeyXmnnvGFmBhx";

fn environment(pairs: &[(&str, &str)]) -> Environment {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

fn parse(json: &Value, variables: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    Config::parse(
        Path::new("service.json"),
        &json.to_string(),
        &environment(variables),
    )
}

fn wrong(json: &Value, variables: &[(&str, &str)]) -> String {
    parse(json, variables)
        .expect_err("a wrong configuration")
        .to_string()
}

/// All warnings but the one about the missing secret, which the short files of these tests all cause.
fn warnings(loaded: &Loaded) -> Vec<&str> {
    let all = loaded.warnings.iter().map(String::as_str);
    all.filter(|warning| !warning.starts_with("cluster.secret"))
        .collect()
}

/// The file that the Go peer writes for `init --consensus raft`, with our differences: no QUIC address,
/// which neither serves, and pins that move away from failed peers.
fn golden() -> Value {
    let http = |listen: &str, methods: Value| {
        json!({
            "http_listen_multiaddress": listen,
            "read_timeout": "0s", "read_header_timeout": "5s", "write_timeout": "0s", "idle_timeout": "2m0s",
            "max_header_bytes": 4096, "basic_auth_credentials": null, "http_log_file": "", "headers": {},
            "cors_allowed_origins": ["*"], "cors_allowed_methods": methods, "cors_allowed_headers": [],
            "cors_exposed_headers":
                ["Content-Type", "X-Stream-Output", "X-Chunked-Output", "X-Content-Length"],
            "cors_allow_credentials": true, "cors_max_age": "0s"
        })
    };
    json!({
        "cluster": {
            "peername": "here", "secret": "",
            "leave_on_shutdown": false,
            "listen_multiaddress": "/ip4/0.0.0.0/tcp/9096",
            "announce_multiaddress": [], "no_announce_multiaddress": [],
            "enable_relay_hop": true,
            "connection_manager": {"high_water": 400, "low_water": 100, "grace_period": "2m0s"},
            "resource_manager": {"enabled": true, "memory_limit_bytes": 0, "file_descriptors_limit": 0},
            "pubsub": {"seen_messages_ttl": "30m0s", "heartbeat_interval": "10s", "d_factor": 4,
                       "history_gossip": 2, "history_length": 6, "flood_publish": false},
            "dial_peer_timeout": "3s",
            "state_sync_interval": "5m0s", "pin_recover_interval": "12m0s",
            "replication_factor_min": -1, "replication_factor_max": -1,
            "monitor_ping_interval": "15s", "peer_watch_interval": "5s", "mdns_interval": "10s",
            "pin_only_on_trusted_peers": false, "pin_only_on_untrusted_peers": false,
            "disable_repinning": false, "peer_addresses": []
        },
        "consensus": {"raft": {
            "init_peerset": [], "wait_for_leader_timeout": "15s", "network_timeout": "10s",
            "commit_retries": 1, "commit_retry_delay": "200ms", "backups_rotate": 6,
            "heartbeat_timeout": "1s", "election_timeout": "1s", "commit_timeout": "50ms",
            "max_append_entries": 64, "trailing_logs": 10240,
            "snapshot_interval": "2m0s", "snapshot_threshold": 8192, "leader_lease_timeout": "500ms"
        }},
        "api": {
            "ipfsproxy": {"listen_multiaddress": "/ip4/127.0.0.1/tcp/9095",
                "node_multiaddress": "/ip4/127.0.0.1/tcp/5001",
                "log_file": "", "read_timeout": "0s", "read_header_timeout": "5s", "write_timeout": "0s",
                "idle_timeout": "1m0s", "max_header_bytes": 4096},
            "pinsvcapi": http("/ip4/127.0.0.1/tcp/9097", json!(["GET", "POST", "DELETE"])),
            "restapi": http("/ip4/127.0.0.1/tcp/9094", json!(["GET"])),
        },
        "ipfs_connector": {"ipfshttp": {
            "node_multiaddress": "/ip4/127.0.0.1/tcp/5001", "connect_swarms_delay": "30s",
            "ipfs_request_timeout": "5m0s", "pin_timeout": "2m0s", "unpin_timeout": "3h0m0s",
            "repogc_timeout": "24h0m0s", "informer_trigger_interval": 0
        }},
        "pin_tracker": {"stateless": {"concurrent_pins": 10, "priority_pin_max_age": "24h0m0s",
                                      "priority_pin_max_retries": 5}},
        "monitor": {"pubsubmon": {"check_interval": "15s"}},
        "allocator": {"balanced": {"allocate_by": ["tag:group", "freespace"]}},
        "informer": {
            "disk": {"metric_ttl": "30s", "metric_type": "freespace"},
            "pinqueue": {"metric_ttl": "30s", "weight_bucket_size": 100_000},
            "tags": {"metric_ttl": "30s", "tags": {"group": "default"}}
        },
        "observations": {
            "metrics": {"enable_stats": false, "prometheus_endpoint": "/ip4/127.0.0.1/tcp/8888",
                        "reporting_interval": "30s"},
            "tracing": {"enable_tracing": false, "jaeger_agent_endpoint": "/ip4/0.0.0.0/udp/6831",
                        "sampling_prob": 0.3, "service_name": "cluster-daemon"}
        },
    })
}

#[test]
fn a_default_file_has_the_keys_and_values_of_the_go_peer() {
    let mut config = Config::default();
    config.cluster.peername = "here".to_owned();
    assert_eq!(serde_json::to_value(&config).unwrap(), golden());
}

#[test]
fn a_default_file_reads_back_without_a_warning() {
    let mut config = Config::fresh();
    let folder = tempfile::tempdir().unwrap();
    config.save(folder.path()).unwrap();
    let loaded = Config::load(folder.path(), &Environment::new()).unwrap();
    assert_eq!(loaded.config, config);
    assert_eq!(loaded.warnings, Vec::<String>::new());

    config.ipfs_connector = IpfsConnector {
        ipfshttp: None,
        embedded: Some(Embedded::default()),
    };
    config.save(folder.path()).unwrap();
    assert_eq!(
        Config::load(folder.path(), &Environment::new()).unwrap().config,
        config
    );
    let text = std::fs::read_to_string(folder.path().join(SERVICE_FILE)).unwrap();
    let embedded = &serde_json::from_str::<Value>(&text).unwrap()["ipfs_connector"]["embedded"];
    let addresses = (
        &embedded["api_listen_multiaddress"],
        &embedded["swarm_listen_multiaddress"],
    );
    assert_eq!(
        addresses,
        (
            &json!("/ip4/127.0.0.1/tcp/5001"),
            &json!([
                "/ip4/0.0.0.0/tcp/4001",
                "/ip4/0.0.0.0/udp/4001/quic-v1",
                "/ip6/::/tcp/4001",
                "/ip6/::/udp/4001/quic-v1"
            ])
        )
    );
}

#[cfg(unix)]
#[test]
fn written_files_are_readable_by_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    Config::fresh().save(folder.path()).unwrap();
    Identity::generate().save(folder.path()).unwrap();
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(
            entry.metadata().unwrap().permissions().mode() & 0o777,
            0o600,
            "{entry:?}"
        );
        names.push(entry.file_name().into_string().unwrap());
    }
    names.sort();
    assert_eq!(names, [IDENTITY_FILE, SERVICE_FILE], "no temporary file is left");
}

#[test]
fn absent_sections_have_defaults_and_absent_components_are_off() {
    let empty = parse(&json!({}), &[]).unwrap().config;
    assert!(empty.api.restapi.is_some() && empty.api.ipfsproxy.is_some());
    assert!(empty.informer.tags.is_some() && empty.ipfs_connector.ipfshttp.is_some());
    assert_eq!(empty.allocator.balanced.allocate_by, ["freespace"]);
    assert_eq!(empty.pin_tracker, PinTracker::default());

    let some = parse(
        &json!({"api": {"restapi": {}}, "informer": {"disk": null, "pinqueue": {}}}),
        &[],
    );
    let some = some.unwrap().config;
    assert!(some.api.restapi.is_some() && some.api.ipfsproxy.is_none() && some.api.pinsvcapi.is_none());
    assert!(some.informer.pinqueue.is_some() && some.informer.disk.is_none() && some.informer.tags.is_none());
}

#[test]
fn null_and_empty_text_mean_the_default() {
    let cluster = json!({"peer_watch_interval": "", "mdns_interval": null, "secret": ""});
    let config = parse(&json!({"cluster": cluster, "pin_tracker": null}), &[])
        .unwrap()
        .config;
    assert_eq!(config.cluster, Cluster::default());
}

#[test]
fn a_list_of_one_may_be_plain_text() {
    let file = json!({
        "cluster": {"listen_multiaddress": "/ip4/127.0.0.1/tcp/1", "peer_addresses": "/ip4/127.0.0.1/tcp/2"},
        "consensus": {"raft": {"init_peerset": PEER}},
    });
    let config = parse(&file, &[]).unwrap().config;
    assert_eq!(config.cluster.listen_multiaddress.len(), 1);
    assert_eq!(config.cluster.peer_addresses.len(), 1);
    assert_eq!(config.consensus.raft.init_peerset.len(), 1);
    let two = json!({"cluster": {"listen_multiaddress": ["/ip4/127.0.0.1/tcp/1", "/ip6/::1/tcp/1"]}});
    assert_eq!(
        parse(&two, &[]).unwrap().config.cluster.listen_multiaddress.len(),
        2
    );
}

#[test]
fn each_unknown_key_is_named_once() {
    let file = json!({
        "cluster": {"replication_factor": 2, "connection_manager": {"middle_water": 1}},
        "monitor": {"monbasic": {"check_interval": "1s"}},
        "sharding": {},
        "datastore": {"pebble": {}},
    });
    let loaded = parse(
        &file,
        &[("CLUSTER_PEERNAMES", "x"), ("CLUSTER_CRDT_TRUSTEDPEERS", "*")],
    )
    .unwrap();
    let mut named: Vec<&str> = warnings(&loaded);
    named.sort_unstable();
    assert_eq!(
        named,
        [
            "datastore: ignored, the state has its own database in raft/",
            "environment variable CLUSTER_PEERNAMES: no such setting, ignored",
            "service.json: cluster.connection_manager.middle_water: no such setting, ignored",
            "service.json: cluster.replication_factor: no such setting, ignored",
            "service.json: monitor.monbasic: no such setting, ignored",
            "service.json: sharding: no such setting, ignored",
        ]
    );
}

#[test]
fn changed_settings_without_effect_are_named() {
    let loaded = parse(
        &json!({"cluster": {"enable_relay_hop": false, "mdns_interval": "0s", "follower_mode": true}}),
        &[],
    )
    .unwrap();
    assert_eq!(
        warnings(&loaded),
        [
            "cluster.enable_relay_hop: has no effect: there are no relays",
            "cluster.follower_mode: has no effect: followers exist only with crdt",
        ]
    );
    let loaded = parse(
        &json!({"allocator": {"balanced": {"allocate_by": ["tag:region", "freespace"]}}}),
        &[],
    );
    let loaded = loaded.unwrap();
    assert!(
        warnings(&loaded)[0].contains("\"tag:region\" is not among what this peer measures (freespace, ")
    );
}

#[test]
fn amounts_of_storage_may_have_fractions() {
    let bytes = |text: &str| StorageMax::try_from(text.to_owned()).ok().and_then(|max| max.0);
    assert_eq!(bytes("1.5GB"), Some(1_500_000_000));
    assert_eq!(bytes("0.5TB"), Some(500_000_000_000));
    assert_eq!(bytes("2.25 GiB"), Some(9 << 28));
    assert_eq!(bytes("0.0000001TB"), Some(100_000));
    assert_eq!(bytes("1.B"), Some(1));
    for wrong in [
        "",
        ".",
        ".5GB",
        "1.2.3GB",
        "1,5GB",
        "-1GB",
        "0.4B",
        "1e3GB",
        "99999999TB",
        "0",
    ] {
        assert_eq!(bytes(wrong), None, "{wrong}");
    }
}

#[test]
fn secrets_are_never_printed() {
    let mut config = Config::fresh();
    let rest = config.api.restapi.as_mut().unwrap();
    rest.basic_auth_credentials = Some(Credentials(BTreeMap::from([(
        "ann".to_owned(),
        "hunter2".to_owned(),
    )])));
    config.cluster.accepted_secrets.0.push(Secret::random());
    let secret = String::from(config.cluster.secret.clone());
    let accepted = String::from(config.cluster.accepted_secrets[0].clone());
    let identity = Identity::generate();
    for shown in [config.to_string(), format!("{config:?}"), format!("{identity:?}")] {
        for hidden in [secret.as_str(), &accepted, "hunter2"] {
            assert!(!shown.contains(hidden), "{shown}");
        }
        assert!(shown.contains(HIDDEN), "{shown}");
    }
    assert!(
        !Config::default().to_string().contains(HIDDEN),
        "there is nothing to hide"
    );
    for file in [
        json!({"secret": "0123456789"}),
        json!({"accepted_secrets": ["0123456789"]}),
    ] {
        let error = wrong(&json!({"cluster": file}), &[]);
        assert!(!error.contains("0123456789"), "{error}");
    }
}
