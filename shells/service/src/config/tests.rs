//! Whole files, read as the daemon reads them.

use std::collections::BTreeMap;
use std::time::Duration;

use cluster_core::Replicas;
use serde_json::json;

use super::*;

mod any;
mod identity;
mod old;
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
fn the_environment_overrides_the_cluster_section_by_the_go_rule() {
    let secret = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    let variables = [
        ("CLUSTER_SECRET", secret),
        (
            "CLUSTER_ACCEPTEDSECRETS",
            &format!("{secret}, {}", "ab".repeat(32)),
        ),
        ("CLUSTER_PEERNAME", "a name"),
        (
            "CLUSTER_LISTENMULTIADDRESS",
            "/ip4/1.1.1.1/tcp/1,/ip4/1.1.1.2/tcp/2",
        ),
        ("CLUSTER_REPLICATIONFACTORMIN", "2"),
        ("CLUSTER_REPLICATIONFACTORMAX", "3"),
        ("CLUSTER_MONITORPINGINTERVAL", "1s"),
        ("CLUSTER_LEAVEONSHUTDOWN", "T"),
        ("CLUSTER_CONNECTIONMANAGER_HIGHWATER", "7"),
        ("CLUSTER_PUBSUB_DFACTOR", "-1"),
        ("CLUSTER_FOLLOWERMODE", "true"),
        ("CLUSTER_DIALPEERTIMEOUT", ""),
    ];
    let file = json!({"cluster": {"peername": "of the file", "dial_peer_timeout": "9s"}});
    let config = parse(&file, &variables).unwrap().config;
    let cluster = &config.cluster;
    assert_eq!(String::from(cluster.secret.clone()), secret);
    assert_eq!(cluster.accepted_secrets[1].0, Some([0xab; 32]));
    assert_eq!(cluster.peername, "a name");
    assert_eq!(cluster.listen_multiaddress.len(), 2);
    assert_eq!(
        (cluster.replication_factor_min, cluster.replication_factor_max),
        (2, 3)
    );
    assert_eq!(cluster.monitor_ping_interval, Period::secs(1));
    assert!(cluster.leave_on_shutdown && cluster.follower_mode);
    assert_eq!(
        (cluster.connection_manager.high_water, cluster.pubsub.d_factor),
        (7, -1)
    );
    assert_eq!(
        cluster.dial_peer_timeout,
        Period::secs(9),
        "an empty variable counts as unset"
    );
}

#[test]
fn the_environment_overrides_the_components_by_the_go_rule() {
    let variables = [
        ("CLUSTER_RESTAPI_HTTPLISTENMULTIADDRESS", "/ip4/1.1.1.3/tcp/3"),
        ("CLUSTER_RAFT_INITPEERSET", &format!("{PEER},{OTHER}")),
        ("CLUSTER_RESTAPI_BASICAUTHCREDENTIALS", "ann:pass,bob:pa:ss"),
        ("CLUSTER_RESTAPI_HEADERS", "X-A:1"),
        ("CLUSTER_IPFSHTTP_NODEMULTIADDRESS", "/dns4/ipfs/tcp/5001"),
        ("CLUSTER_STATELESS_CONCURRENTPINS", "3"),
        ("CLUSTER_PUBSUBMON_CHECKINTERVAL", "2s"),
        ("CLUSTER_BALANCED_ALLOCATEBY", "tag:region, freespace"),
        ("CLUSTER_DISK_METRICTYPE", "reposize"),
        ("CLUSTER_TAGS_TAGS", "region:eu,group:g"),
        ("CLUSTER_METRICS_ENABLESTATS", "1"),
        ("CLUSTER_TRACING_SAMPLINGPROB", "0.5"),
    ];
    let config = parse(&json!({}), &variables).unwrap().config;
    assert_eq!(config.consensus.raft.init_peerset.len(), 2);
    let rest = config.api.restapi.unwrap();
    assert_eq!(
        rest.http_listen_multiaddress[0].0.to_string(),
        "/ip4/1.1.1.3/tcp/3"
    );
    let credentials = rest.basic_auth_credentials.unwrap().0;
    assert_eq!(
        (credentials["ann"].as_str(), credentials["bob"].as_str()),
        ("pass", "pa:ss")
    );
    assert_eq!(rest.headers["X-A"], ["1"]);
    assert_eq!(
        config
            .ipfs_connector
            .ipfshttp
            .unwrap()
            .node_multiaddress
            .0
            .to_string(),
        "/dns4/ipfs/tcp/5001"
    );
    assert_eq!(config.pin_tracker.stateless.concurrent_pins, 3);
    assert_eq!(config.monitor.pubsubmon.check_interval, Period::secs(2));
    assert_eq!(config.allocator.balanced.allocate_by, ["tag:region", "freespace"]);
    assert_eq!(config.informer.disk.unwrap().metric_type, DiskMetric::Reposize);
    let tags = BTreeMap::from([
        ("region".to_owned(), "eu".to_owned()),
        ("group".to_owned(), "g".to_owned()),
    ]);
    assert_eq!(config.informer.tags.unwrap().tags, tags);
    assert!(config.observations.metrics.enable_stats);
    assert_eq!(config.observations.tracing.sampling_prob, 0.5);
}

#[test]
fn a_kubo_variable_beside_the_embedded_node_is_refused() {
    let named = [("CLUSTER_IPFSHTTP_NODEMULTIADDRESS", "/dns4/ipfs/tcp/5001")];
    let error = parse(&json!({"ipfs_connector": {"embedded": {}}}), &named).unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("CLUSTER_IPFSHTTP_NODEMULTIADDRESS") && error.contains("/dns4/ipfs/tcp/5001"),
        "{error}"
    );
    assert!(parse(&json!({"ipfs_connector": {"ipfshttp": {}}}), &named).is_ok());
    let empty = [("CLUSTER_IPFSHTTP_NODEMULTIADDRESS", "")];
    assert!(parse(&json!({"ipfs_connector": {"embedded": {}}}), &empty).is_ok());
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
fn the_environment_sets_the_embedded_node_but_turns_nothing_on() {
    let variables = [
        ("CLUSTER_EMBEDDED_APILISTENMULTIADDRESS", "/ip4/127.0.0.1/tcp/1"),
        (
            "CLUSTER_EMBEDDED_SWARMLISTENMULTIADDRESS",
            "/ip4/127.0.0.1/tcp/2,/ip4/127.0.0.1/tcp/3",
        ),
        ("CLUSTER_EMBEDDED_STORAGEMAX", "10GB"),
        (
            "CLUSTER_EMBEDDED_GATEWAYLISTENMULTIADDRESS",
            "/ip4/127.0.0.1/tcp/4",
        ),
        ("CLUSTER_EMBEDDED_GATEWAYNOFETCH", "true"),
        (
            "CLUSTER_EMBEDDED_GATEWAYSUBDOMAINHOSTS",
            "localhost:4,example.org",
        ),
    ];
    let loaded = parse(&json!({"ipfs_connector": {"embedded": {}}}), &variables).unwrap();
    let section = loaded.config.ipfs_connector.embedded.as_ref().unwrap();
    assert_eq!(
        section.gateway_listen_multiaddress[0].0.to_string(),
        "/ip4/127.0.0.1/tcp/4"
    );
    assert!(section.gateway_no_fetch);
    assert_eq!(section.gateway_subdomain_hosts, ["localhost:4", "example.org"]);
    let embedded = loaded.config.embedded(Path::new("/f")).unwrap();
    assert_eq!(embedded.path, Path::new("/f/ipfs"));
    assert_eq!(
        (embedded.swarm_listen.len(), embedded.storage_max),
        (2, Some(10_000_000_000))
    );
    assert!(loaded.config.kubo().is_none());
    assert_eq!(loaded.notices.len(), 1, "an older file is told what is new");

    let loaded = parse(
        &json!({"ipfs_connector": {"ipfshttp": {}}, "api": {}}),
        &variables,
    )
    .unwrap();
    assert!(loaded.config.embedded(Path::new("/f")).is_none() && loaded.config.kubo().is_some());
    assert_eq!(warnings(&loaded), Vec::<&str>::new());
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

#[test]
fn the_core_gets_the_operators_settings() {
    let identity = Identity::generate();
    let defaults = parse(&golden(), &[]).unwrap().config.core(&identity);
    let mut expected = cluster_core::Config::new(core_peer(&identity.peer));
    expected.tracker.retry_max = Duration::from_secs(12 * 60);
    assert_eq!(defaults, expected);

    let file = json!({
        "cluster": {"replication_factor_min": 1, "replication_factor_max": 3, "disable_repinning": true,
                    "pin_recover_interval": "2s", "repinning_grace": "3s", "repinning_rate": 10},
        "consensus": {"raft": {
            "heartbeat_timeout": "100ms", "election_timeout": "500ms", "trailing_logs": 5
        }},
    });
    let config = parse(&file, &[]).unwrap().config;
    let core = config.core(&identity);
    assert_eq!(
        config.cluster.default_replicas(),
        Replicas::Range { min: 1, max: 3 }
    );
    assert_eq!(
        (core.failover.enabled, core.failover.grace),
        (false, Duration::from_secs(3))
    );
    assert_eq!(
        (core.failover.chunk, core.failover.pause),
        (10, Duration::from_secs(1)),
        "ten in a second"
    );
    assert_eq!(core.tracker.retry_min, Duration::from_secs(2));
    let raft = core.raft;
    let silence = raft.tick * raft.election_ticks;
    assert_eq!((silence, raft.trailing_logs), (Duration::from_millis(500), 5));
    assert!(raft.heartbeat_ticks * 3 <= raft.election_ticks);
}

#[test]
fn the_founders_are_the_named_peers_and_this_one() {
    let identity = Identity::generate();
    let alone = Config::default();
    assert_eq!(alone.init_peerset(&identity), [core_peer(&identity.peer)]);
    let file = json!({"consensus": {"raft": {"init_peerset": [PEER, OTHER, PEER]}}});
    let peers = parse(&file, &[]).unwrap().config.init_peerset(&identity);
    assert!(peers.len() == 3 && peers.is_sorted() && peers.contains(&core_peer(&identity.peer)));
}

#[test]
fn settings_of_the_public_network_are_read_checked_and_written() {
    let embedded = json!({
        "routing": "dhtclient",
        "bootstrap": [],
        "delegated_routers": ["https://router.example.com"],
        "provide_strategy": "pinned",
        "no_announce_multiaddress": ["/ip4/10.0.0.0/ipcidr/8", "/ip4/1.2.3.4/tcp/1"],
    });
    let variables = [
        ("CLUSTER_EMBEDDED_PROVIDECOPIES", "3"),
        ("CLUSTER_EMBEDDED_HTTPRETRIEVAL", "false"),
        ("CLUSTER_EMBEDDED_CONNECTIONSHIGHWATER", "500"),
        ("CLUSTER_EMBEDDED_LANDISCOVERY", "false"),
    ];
    let loaded = parse(&json!({"ipfs_connector": {"embedded": embedded}}), &variables).unwrap();
    assert_eq!(loaded.notices, Vec::<String>::new());
    let node = loaded.config.embedded(Path::new("/f")).unwrap();
    let variable = node.fixed.get("lan_discovery").map(String::as_str);
    assert_eq!(variable, Some("CLUSTER_EMBEDDED_LANDISCOVERY"));
    assert!(!node.fixed.contains_key("storage_max"));
    let network = node.network;
    assert_eq!(network.routing, cluster_ipfs::settings::Routing::DhtClient);
    assert!(network.bootstrap.is_empty() && !network.private && !network.http_retrieval);
    assert_eq!(
        (network.connections_low_water, network.connections_high_water),
        (32, 500)
    );
    let text = serde_json::to_value(&loaded.config).unwrap();
    let written = &text["ipfs_connector"]["embedded"];
    assert_eq!(
        written["delegated_routers"],
        json!(["https://router.example.com"])
    );
    assert_eq!(
        written["no_announce_multiaddress"],
        embedded["no_announce_multiaddress"]
    );
    assert_eq!(written["provide_copies"], 3);
    for (wrong, key) in [
        (json!({"routing": "all"}), "routing"),
        (json!({"delegated_routers": ["ftp://x"]}), "delegated_routers"),
        (json!({"bootstrap": ["/ip4/1.2.3.4/tcp/1"]}), "bootstrap"),
        (json!({"provide_copies": 0}), "provide_copies"),
        (json!({"connections_low_water": 97}), "connections_low_water"),
        (
            json!({"no_announce_multiaddress": ["10.0.0.0/8"]}),
            "no_announce_multiaddress",
        ),
    ] {
        let error = parse(&json!({"ipfs_connector": {"embedded": wrong}}), &[]).unwrap_err();
        assert!(error.to_string().contains(key), "{error}");
    }
}

#[test]
fn scrubs_are_configured_for_either_node() {
    let scrub = |connector: Value, variables: &[(&str, &str)]| {
        let loaded = parse(&json!({"ipfs_connector": connector}), variables).unwrap();
        let scrub = loaded.config.scrub();
        (scrub.interval.as_secs(), scrub.share)
    };
    assert_eq!(scrub(json!({"embedded": {}}), &[]), (30 * 86_400, 100));
    assert_eq!(scrub(json!({"ipfshttp": {}}), &[]), (30 * 86_400, 100));
    let written = json!({"scrub_interval": "24h", "scrub_fraction": 0.25});
    assert_eq!(scrub(json!({"ipfshttp": written}), &[]), (86_400, 250));
    let variables = [
        ("CLUSTER_EMBEDDED_SCRUBINTERVAL", "0s"),
        ("CLUSTER_EMBEDDED_SCRUBFRACTION", "1"),
    ];
    assert_eq!(scrub(json!({"embedded": written}), &variables), (0, 1000));
    for section in ["embedded", "ipfshttp"] {
        for fraction in [0.0, 1.5] {
            let wrong = json!({"ipfs_connector": {section: {"scrub_fraction": fraction}}});
            let error = parse(&wrong, &[]).unwrap_err().to_string();
            assert!(error.contains(&format!("{section}.scrub_fraction")), "{error}");
        }
    }
}
