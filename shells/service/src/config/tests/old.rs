//! Files of Go ipfs-cluster 0.0.12.

use super::*;

#[test]
fn a_file_of_0_0_12_is_read() {
    let file = json!({
        "id": OTHER, "private_key": "CAASqAkwg==",
        "cluster_peers": [
            format!("/ip4/10.0.0.2/tcp/9096/ipfs/{OTHER}"),
            format!("/ip4/10.0.0.3/tcp/9096/ipfs/{PEER}"),
        ],
        "bootstrap": [format!("/ip4/10.0.0.4/tcp/9096/ipfs/{PEER}")],
        "leave_on_shutdown": true,
        "cluster_multiaddress": "/ip4/0.0.0.0/tcp/19096",
        "api_listen_multiaddress": "/ip4/127.0.0.1/tcp/19094",
        "ipfs_proxy_listen_multiaddress": "/ip4/127.0.0.1/tcp/19095",
        "ipfs_node_multiaddress": "/ip4/127.0.0.1/tcp/15001",
        "consensus_data_folder": "/home/ann/.ipfs-cluster/data",
        "state_sync_seconds": 60, "replication_factor": 2, "monitoring_interval_seconds": 0,
        "allocation_strategy": "numpin", "what_is_this": 1,
    });
    let loaded = parse(&file, &[]).unwrap();
    let config = &loaded.config;
    assert_eq!(
        config.legacy_identity,
        Some((OTHER.to_owned(), "CAASqAkwg==".to_owned()))
    );
    assert_eq!(config.cluster.peer_addresses.len(), 2);
    assert_eq!(config.consensus.raft.init_peerset.len(), 2);
    assert_eq!(config.bootstrap[0].peer().unwrap().to_base58(), PEER);
    assert!(config.cluster.leave_on_shutdown);
    assert_eq!(
        config.cluster.listen_multiaddress[0].0.to_string(),
        "/ip4/0.0.0.0/tcp/19096"
    );
    let api = &config.api;
    let listen = &api.restapi.as_ref().unwrap().http_listen_multiaddress;
    assert_eq!(listen[0].0.to_string(), "/ip4/127.0.0.1/tcp/19094");
    let proxy = api.ipfsproxy.as_ref().unwrap();
    assert_eq!(
        proxy.listen_multiaddress[0].0.to_string(),
        "/ip4/127.0.0.1/tcp/19095"
    );
    assert_eq!(proxy.node_multiaddress.0.to_string(), "/ip4/127.0.0.1/tcp/15001");
    assert_eq!(
        config.kubo().unwrap().node_multiaddress.to_string(),
        "/ip4/127.0.0.1/tcp/15001"
    );
    assert_eq!(
        config.data_folder(Path::new("/f")),
        Path::new("/home/ann/.ipfs-cluster/data")
    );
    assert_eq!(config.cluster.state_sync_interval, Period::secs(60));
    assert_eq!(
        config.cluster.monitor_ping_interval,
        Period::secs(15),
        "0 means the default"
    );
    assert_eq!(
        config.cluster.default_replicas(),
        Replicas::Range { min: 2, max: 2 }
    );
    let said = warnings(&loaded);
    assert!(
        said[0].contains("0.0.x") && said[1].contains("numpin") && said[2].contains("what_is_this"),
        "{said:?}"
    );
}

#[test]
fn invalid_keys_of_0_0_12_are_named() {
    let error = wrong(&json!({"cluster_peers": ["/ip4/10.0.0.2/tcp/9096"]}), &[]);
    assert!(
        error.contains("cluster_peers: /ip4/10.0.0.2/tcp/9096 names no peer"),
        "{error}"
    );
    let error = wrong(&json!({"cluster_peers": [], "state_sync_seconds": "60"}), &[]);
    assert!(
        error.contains("state_sync_seconds: invalid value: \"60\", expected a whole number"),
        "{error}"
    );
}
