//! Settings as the components of the peer get them.

use super::*;

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
