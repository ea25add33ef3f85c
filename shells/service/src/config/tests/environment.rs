//! Settings from environment variables.

use super::*;

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
