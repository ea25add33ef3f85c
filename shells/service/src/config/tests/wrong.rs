//! Files and variables that are refused.

use super::*;

/// Sets each key, and checks that the error names the file and contains the given text.
fn refuse(cases: Vec<(&str, Value, &str)>) {
    for (key, value, expected) in cases {
        let mut json = json!({});
        let mut place = &mut json;
        for key in key.split('.') {
            place = &mut place[key];
        }
        *place = value;
        let error = wrong(&json, &[]);
        assert!(error.starts_with("service.json: "), "{error}");
        assert!(error.contains(expected), "{error}\n  should say: {expected}");
    }
}

#[test]
fn invalid_names_secrets_and_addresses_are_named_with_what_is_expected() {
    refuse(vec![
        (
            "cluster",
            json!(7),
            "service.json: cluster: invalid value: 7, expected an object",
        ),
        (
            "cluster.peername",
            json!(7),
            "cluster.peername: invalid type: integer `7`, expected a string",
        ),
        (
            "cluster.leave_on_shutdown",
            json!("yes"),
            "invalid type: string \"yes\", expected a boolean",
        ),
        (
            "cluster.secret",
            json!("abc"),
            "cluster.secret: a secret must be 64 hexadecimal digits",
        ),
        (
            "cluster.accepted_secrets",
            json!(["ab".repeat(32), "abc"]),
            "cluster.accepted_secrets: a secret must be 64 hexadecimal digits",
        ),
        (
            "cluster.accepted_secrets",
            json!(vec!["ab".repeat(32); 8]),
            "cluster.accepted_secrets: 8 secrets, at most 7 are accepted",
        ),
        (
            "cluster.listen_multiaddress",
            json!(["/ip4/x"]),
            "\"/ip4/x\" is not a multiaddress",
        ),
        (
            "cluster.listen_multiaddress",
            json!([]),
            "other peers need an address",
        ),
    ]);
}

#[test]
fn invalid_numbers_and_durations_are_named_with_what_is_expected() {
    refuse(vec![
        (
            "cluster.connection_manager.high_water",
            json!(-1),
            "high_water: invalid value: integer `-1`",
        ),
        (
            "cluster.dial_peer_timeout",
            json!("3"),
            "missing unit in duration \"3\"",
        ),
        ("cluster.dial_peer_timeout", json!("-3s"), "-3s is negative"),
        (
            "cluster.dial_peer_timeout",
            json!("0s"),
            "cluster.dial_peer_timeout: invalid value: 0s",
        ),
        (
            "cluster.dial_peer_timeout",
            json!(3),
            "invalid type: integer `3`, expected a string",
        ),
        (
            "cluster.replication_factor_min",
            json!(-2),
            "replication_factor_min: invalid value: -2",
        ),
        (
            "cluster.replication_factor_max",
            json!(2),
            "invalid value: 2 with a replication_factor_min of -1",
        ),
    ]);
}

#[test]
fn invalid_consensus_and_api_settings_are_named_with_what_is_expected() {
    refuse(vec![
        (
            "consensus.raft.init_peerset",
            json!(["bob"]),
            "\"bob\" is not a peer id",
        ),
        (
            "consensus.raft.heartbeat_timeout",
            json!("1ms"),
            "invalid value: 1ms, expected 50ms to 10m0s",
        ),
        ("consensus.crdt", json!({}), "peers agree through Raft here"),
        (
            "source",
            json!("http://example.com"),
            "\"http://example.com\": a configuration is not fetched",
        ),
        (
            "api.restapi.max_header_bytes",
            json!(1),
            "api.restapi.max_header_bytes: invalid value: 1",
        ),
        ("api.restapi.ssl_cert_file", json!("x"), "TLS needs both"),
        (
            "api.restapi.basic_auth_credentials",
            json!({}),
            "refuses all users",
        ),
    ]);
}

#[test]
fn invalid_components_are_named_with_what_is_expected() {
    refuse(vec![
        (
            "ipfs_connector",
            json!({"embedded": {}, "ipfshttp": {}}),
            "both `ipfshttp` and `embedded`",
        ),
        ("ipfs_connector", json!({"other": {}}), "no IPFS node"),
        (
            "ipfs_connector.embedded.storage_max",
            json!("10 apples"),
            "\"10 apples\" is not an amount of",
        ),
        (
            "pin_tracker.stateless.concurrent_pins",
            json!(0),
            "invalid value: 0, expected 1 to 10000",
        ),
        (
            "allocator.balanced.allocate_by",
            json!([]),
            "name at least one metric",
        ),
        (
            "informer.disk.metric_type",
            json!("x"),
            "unknown variant `x`, expected `freespace` or `reposize`",
        ),
        (
            "informer.disk.high_water_percent",
            json!(101),
            "invalid value: 101, expected 1 to 100",
        ),
        (
            "informer.disk.low_water_percent",
            json!(91),
            "invalid value: 91, expected at most high_water_percent, which is 90",
        ),
        (
            "ipfs_connector.embedded.gc_watermark",
            json!(101),
            "invalid value: 101, expected 1 to 100, or 0 for never",
        ),
        (
            "informer.tags.tags",
            json!({"a": 1}),
            "informer.tags.tags: invalid type: integer `1`",
        ),
    ]);
}

#[test]
fn an_invalid_variable_is_named() {
    for (name, value, expected) in [
        (
            "CLUSTER_REPLICATIONFACTORMIN",
            "two",
            "invalid value: \"two\", expected a whole number",
        ),
        (
            "CLUSTER_LEAVEONSHUTDOWN",
            "yes",
            "invalid value: \"yes\", expected true or false",
        ),
        ("CLUSTER_DIALPEERTIMEOUT", "3", "missing unit"),
        ("CLUSTER_SECRET", "abc", "a secret must be 64 hexadecimal digits"),
        ("CLUSTER_TAGS_TAGS", "region", "write key:value,key:value"),
        ("CLUSTER_DISK_METRICTYPE", "x", "unknown variant `x`"),
        ("CLUSTER_PUBSUB", "x", ""),
    ] {
        let result = parse(&json!({}), &[(name, value)]);
        if expected.is_empty() {
            assert!(result.is_err(), "a section cannot be set as a whole");
            continue;
        }
        let error = result.unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("environment variable {name}: ")),
            "{error}"
        );
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn broken_files_are_refused_and_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(SERVICE_FILE);
    let load = || {
        Config::load(folder.path(), &Environment::new())
            .unwrap_err()
            .to_string()
    };
    assert!(load().ends_with("does not exist: `ipfs-cluster-service init` makes a configuration"));
    for (content, expected) in [
        (&b""[..], "is not valid JSON: EOF"),
        (b"{\"cluster\": {", "is not valid JSON: EOF while parsing"),
        (b"[]", "the whole file must be an object"),
        (b"\xff\xfe", "cannot read"),
        (&vec![b' '; 2 << 20][..], "has more than 1048576 bytes"),
    ] {
        std::fs::write(&path, content).unwrap();
        let error = load();
        assert!(
            error.contains(expected) && error.contains("service.json"),
            "{error}"
        );
    }
}
