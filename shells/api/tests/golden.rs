//! Every JSON shape of the REST API, byte for byte as the Go peer writes it.

use cluster_api::*;
use serde::{Serialize, de::DeserializeOwned};
use std::fmt::Debug;

/// Decodes `text`, and asserts that it encodes to `text` again.
fn round_trip<T: Serialize + DeserializeOwned + Debug>(text: &str) -> T {
    let value: T = serde_json::from_str(text).unwrap_or_else(|e| panic!("{e} in {text}"));
    assert_eq!(
        String::from_utf8(cluster_http::json::to_vec(&value).unwrap()).unwrap(),
        text
    );
    value
}

const PEER: &str = "12D3KooWGwZ7wvxbHgxbpPJRAFMLdcPVkVoXa1vCpyuqrL47PZWc";

#[test]
fn id_of_a_peer_that_responds() {
    let text = format!(
        "{{\"id\":\"{PEER}\",\"addresses\":[\"/ip4/127.0.0.1/tcp/9096/p2p/{PEER}\"],\
         \"cluster_peers\":[\"{PEER}\"],\"cluster_peers_addresses\":[],\"version\":\"1.1.6\",\
         \"commit\":\"\",\"rpc_protocol_version\":\"/ipfscluster/1.0/rpc\",\"error\":\"\",\
         \"ipfs\":{{\"id\":\"{PEER}\",\"addresses\":[\"/ip4/1.2.3.4/tcp/4001/p2p/{PEER}\"],\
         \"error\":\"\"}},\"peername\":\"cluster0\"}}"
    );
    let id: Id = round_trip(&text);
    assert_eq!(id.cluster_peers, [PEER]);
}

#[test]
fn id_of_a_peer_that_does_not_respond() {
    let text = format!(
        "{{\"id\":\"{PEER}\",\"addresses\":null,\"cluster_peers\":null,\"cluster_peers_addresses\":[],\
         \"version\":\"\",\"commit\":\"\",\"rpc_protocol_version\":\"\",\
         \"error\":\"dial \\u003cback\\u003e\",\
         \"ipfs\":{{\"addresses\":null,\"error\":\"\"}},\"peername\":\"\"}}"
    );
    let id: Id = round_trip(&text);
    assert_eq!(id.error, "dial <back>");
}

#[test]
fn version_error_and_token() {
    assert_eq!(round_trip::<Version>(r#"{"version":"1.1.6"}"#).version, "1.1.6");
    let error: Error = round_trip(r#"{"code":404,"message":"not found"}"#);
    assert_eq!(error.to_string(), "not found (404)");
    assert_eq!(round_trip::<Token>(r#"{"token":"eyJ"}"#).token, "eyJ");
}

#[test]
fn pin_with_nothing_set() {
    let pin: Pin = round_trip(concat!(
        r#"{"replication_factor_min":-1,"replication_factor_max":-1,"name":"","mode":"recursive","#,
        r#""shard_size":0,"user_allocations":null,"expire_at":"0001-01-01T00:00:00Z","metadata":null,"#,
        r#""pin_update":null,"origins":[],"cid":"QmP63DkAFEnDYNjDYBpyNDfttu1fvUw99x1brscPzpqmmq","#,
        r#""type":"pin","allocations":[],"max_depth":-1,"reference":null,"#,
        r#""timestamp":"2026-05-11T10:00:00Z"}"#
    ));
    assert!(pin.is_everywhere());
    assert_eq!(pin.pin_type, PinType::Data);
}

#[test]
fn pin_with_everything_set() {
    let text = concat!(
        r#"{"replication_factor_min":1,"replication_factor_max":2,"name":"a & b","mode":"direct","#,
        r#""shard_size":104857600,"user_allocations":["Qa"],"expire_at":"2027-01-01T00:00:00.5+02:00","#,
        r#""metadata":{"a":"1","b":"2"},"pin_update":"Qb","origins":["/ip4/1.2.3.4/tcp/1/p2p/Qc"],"#,
        r#""cid":"Qd","type":"shard-pin","allocations":["Qe","Qf"],"max_depth":0,"reference":"Qg","#,
        r#""timestamp":"2026-05-11T10:00:00.123456789Z"}"#
    );
    let text = text.replace('&', "\\u0026");
    let pin: Pin = round_trip(&text);
    assert_eq!(
        (pin.options.name.as_str(), pin.reference.as_deref()),
        ("a & b", Some("Qg"))
    );
}

#[test]
fn pins_with_null_and_unknown_and_missing_fields_are_read() {
    let pin: Pin = serde_json::from_str(
        r#"{"cid":"Qa","origins":null,"allocations":null,"metadata":null,
            "brand_new":{"x":[1]},"type":"pin"}"#,
    )
    .unwrap();
    let expected = Pin {
        cid: "Qa".into(),
        pin_type: PinType::Data,
        ..Pin::default()
    };
    assert_eq!(pin, expected);
}

#[test]
fn pin_path() {
    let text = concat!(
        r#"{"replication_factor_min":0,"replication_factor_max":0,"name":"","mode":"recursive","#,
        r#""shard_size":0,"user_allocations":null,"expire_at":"0001-01-01T00:00:00Z","metadata":null,"#,
        r#""pin_update":null,"origins":[],"path":"/ipfs/Qa/b"}"#
    );
    assert_eq!(round_trip::<PinPath>(text).path, "/ipfs/Qa/b");
}

#[test]
fn global_pin_info() {
    let info: GlobalPinInfo = round_trip(concat!(
        r#"{"cid":"Qa","name":"n","allocations":["Qp"],"origins":[],"created":"2026-05-11T10:00:00Z","#,
        r#""metadata":null,"peer_map":{"Qp":{"peername":"cluster0","ipfs_peer_id":"Qi","#,
        r#""ipfs_peer_addresses":["/ip4/1.2.3.4/tcp/1"],"status":"pinned","#,
        r#""timestamp":"2026-05-11T10:00:00Z","error":"","attempt_count":3,"priority_pin":true},"#,
        r#""Qq":{"peername":"cluster1","status":"unexpectedly_unpinned","#,
        r#""timestamp":"0001-01-01T00:00:00Z","error":"x","attempt_count":0,"priority_pin":false}}}"#
    ));
    assert!(info.matches(StatusFilter::only(TrackerStatus::Pinned)));
    assert!(!info.matches(StatusFilter::only(TrackerStatus::Remote)));
}

#[test]
fn pin_infos_are_merged_into_the_global_one() {
    let text = concat!(
        r#"{"cid":"Qa","name":"n","peer":"Qp","allocations":[],"origins":[],"#,
        r#""created":"2026-05-11T10:00:00Z","metadata":null,"peername":"c","status":"remote","#,
        r#""timestamp":"2026-05-11T10:00:00Z","error":"","attempt_count":0,"priority_pin":false}"#
    );
    let info: PinInfo = round_trip(text);
    let mut global = GlobalPinInfo::default();
    let mut lost = info.clone();
    lost.peer = "Qq".into();
    lost.name = String::new();
    lost.info.status = TrackerStatus::ClusterError;
    global.add(info);
    global.add(lost);
    assert_eq!((global.name.as_str(), global.peer_map.len()), ("n", 2));
}

#[test]
fn added_output_omits_zero_fields() {
    round_trip::<AddedOutput>(r#"{"name":"a","cid":"Qa"}"#);
    round_trip::<AddedOutput>(r#"{"name":"a","cid":"Qa","bytes":14,"size":22,"allocations":["Qp"]}"#);
    let progress: AddedOutput = serde_json::from_str(r#"{"name":"a","cid":null,"bytes":14}"#).unwrap();
    assert_eq!((progress.cid.as_str(), progress.bytes), ("", 14));
}

#[test]
fn metric_and_alert() {
    let metric = concat!(
        r#"{"name":"freespace","peer":"Qp","value":"547","expire":1778000000000000000,"valid":true,"#,
        r#""weight":547,"partitionable":false,"received_at":1778000000000000001"#
    );
    assert!(round_trip::<Metric>(&format!("{metric}}}")).valid);
    let alert: Alert = round_trip(&format!("{metric},\"triggered_at\":\"2026-05-11T10:00:00.1Z\"}}"));
    assert_eq!(alert.metric.weight, 547);
}

#[test]
fn connect_graph_and_bandwidth() {
    round_trip::<ConnectGraph>(concat!(
        r#"{"cluster_id":"Qa","id_to_peername":{"Qa":"a"},"ipfs_links":{"Qi":["Qj"]},"#,
        r#""cluster_links":{"Qa":[]},"cluster_trust_links":{"Qa":true},"cluster_to_ipfs":{"Qa":"Qi"}}"#
    ));
    round_trip::<BandwidthByProtocol>(concat!(
        r#"{"":{"total_in":0,"total_out":0,"rate_in":0,"rate_out":0},"#,
        r#""/ipfscluster/1.0/rpc":{"total_in":1,"total_out":2,"rate_in":0.5,"rate_out":12.25}}"#
    ));
}

#[test]
fn garbage_collection_and_repository_size() {
    let gc: GlobalRepoGc = round_trip(concat!(
        r#"{"peer_map":{"Qp":{"peer":"Qp","peername":"c","keys":[{"key":"Qa"},{"key":null,"error":"x"}],"#,
        r#""error":"y"},"Qq":{"peer":"Qq","peername":"d","keys":[]}}}"#
    ));
    assert_eq!(gc.peer_map["Qp"].keys[1].error, "x");
    round_trip::<IpfsRepoStat>(r#"{"RepoSize":123,"StorageMax":456}"#);
    round_trip::<IpfsPinInfo>(r#"{"Cid":"Qa","Type":"recursive"}"#);
    round_trip::<PeerAdd>(r#"{"peer_id":"Qp"}"#);
}

#[test]
fn created_pins_have_empty_metadata_and_null_origins() {
    let pin = Pin {
        cid: "Qa".to_owned(),
        ..Pin::default()
    };
    let text = serde_json::to_string(&CreatedPin::from(&pin)).unwrap();
    let listed = serde_json::to_string(&pin).unwrap();
    let expected = listed
        .replace("\"metadata\":null", "\"metadata\":{}")
        .replace("\"origins\":[]", "\"origins\":null");
    assert_eq!(text, expected);
    assert_ne!(text, listed);
}
