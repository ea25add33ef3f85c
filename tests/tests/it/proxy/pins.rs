//! Pin commands through the proxy, and other commands that pin.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use serde_json::json;
use tests::Peer;
use tests::http;

use super::requests::{DIRECTORY, Part, add, call, kubo_error, last_hash, proxy_port, upload, with_proxies};

#[test]
fn pins_are_listed_and_changed_as_at_a_node() {
    let cluster = with_proxies(1);
    let peer = &cluster.peers[0];
    let port = proxy_port(peer);
    let lines = upload(port, "add?pin-name=the+root", &DIRECTORY).values();
    let hash = |name: &str| {
        let line = lines.iter().find(|line| line["Name"] == name).expect("a line");
        line["Hash"].as_str().expect("a CID").to_owned()
    };
    let (root, sub, file) = (hash("d"), hash("d/e"), hash("d/two"));
    peer.wait_state(&root, "pinned", 1);
    pin_paths_and_direct(peer, &root, &sub);
    list_by_type(peer, &root, &sub, &file);
    list_by_argument(port, &root, &sub, &file);
    pass_arguments_in_path_and_body(port, &root, &sub, &file);
    update_pin(port, &root);

    // With progress, the response ends when the pin is held.
    let progress = call(port, &format!("pin/add?arg={sub}&progress=true")).values();
    assert_eq!(progress.last(), Some(&json!({"Pins": [sub]})));
    assert_eq!(peer.count(&sub, "pinned"), Ok(1));
}

fn pin_paths_and_direct(peer: &Peer, root: &str, sub: &str) {
    let port = proxy_port(peer);
    // Paths, direct pins, and CIDs that are already pinned recursively.
    let direct = call(
        port,
        &format!("pin/add?arg=/ipfs/{root}/e&recursive=false&name=sub"),
    );
    assert_eq!(direct.json(), json!({"Pins": [sub]}));
    peer.wait_state(sub, "pinned", 1);
    let refused = call(port, &format!("pin/add?arg={root}&recursive=false"));
    assert_eq!(
        kubo_error(&refused),
        format!("pin: {root} already pinned recursively")
    );
    let nothing = call(port, &format!("pin/add?arg={root}/nothing"));
    assert!(
        kubo_error(&nothing).starts_with("no link named \"nothing\""),
        "{}",
        nothing.text()
    );
    let long = call(port, &format!("pin/add?arg={root}&name={}", "x".repeat(256)));
    assert_eq!(kubo_error(&long), "pin name is 256 bytes (max 255 bytes)");
}

fn list_by_type(peer: &Peer, root: &str, sub: &str, file: &str) {
    let port = proxy_port(peer);
    let types = |query: &str| {
        let keys = call(port, &format!("pin/ls?{query}")).json();
        let keys = keys["Keys"].as_object().cloned().unwrap_or_default();
        let types: Vec<String> = keys
            .iter()
            .map(|(cid, key)| format!("{cid} {} {}", key["Type"], key["Name"]))
            .collect();
        types
    };
    assert_eq!(types("type=recursive"), [format!("{root} \"recursive\" \"\"")]);
    assert_eq!(
        types("type=direct&names=true"),
        [format!("{sub} \"direct\" \"sub\"")]
    );
    assert_eq!(
        types("name=oo&type=all"),
        [format!("{root} \"recursive\" \"the root\"")]
    );
    assert_eq!(types("name=nobody"), Vec::<String>::new());
    let indirect = types("type=indirect");
    assert!(
        indirect.contains(&format!("{file} \"indirect\" \"\"")),
        "{indirect:?}"
    );
    assert!(
        !indirect.iter().any(|pin| pin.starts_with(sub)),
        "it has its own pin: {indirect:?}"
    );
    assert_eq!(types("").len(), 2 + indirect.len());
    // The same errors as the node's.
    let (ours, theirs) = (
        call(port, "pin/ls?names=true"),
        call(peer.ipfs_port, "pin/ls?names=true"),
    );
    assert_eq!(ours.json(), theirs.json());
}

fn list_by_argument(port: u16, root: &str, sub: &str, file: &str) {
    // Several at once, with names.
    let both = call(
        port,
        &format!("pin/ls?arg={root}&arg=/ipfs/{root}/two&names=true"),
    )
    .json();
    let through = format!("indirect through {root}");
    let expected = json!({"Keys": {
        root: {"Type": "recursive", "Name": "the root"},
        file: {"Type": through, "Name": ""},
    }});
    assert_eq!(both, expected);
    let streamed = call(port, &format!("pin/ls?arg={root}&stream=true"));
    assert_eq!(
        streamed.text(),
        format!("{{\"Cid\":\"{root}\",\"Type\":\"recursive\"}}\n")
    );
    let not = call(port, &format!("pin/ls?arg={root}&type=direct"));
    assert_eq!(kubo_error(&not), format!("path '{root}' is not pinned"));
    // A direct pin does not hide the indirect pin through the root.
    let both_ways = call(port, &format!("pin/ls?arg={sub}&type=indirect"));
    assert_eq!(both_ways.json()["Keys"][sub]["Type"], through.as_str());
    let bad = call(port, "pin/ls?type=x");
    assert_eq!(
        kubo_error(&bad),
        "invalid type 'x', must be one of {direct, indirect, recursive, all}"
    );
}

fn pass_arguments_in_path_and_body(port: u16, root: &str, sub: &str, file: &str) {
    let slash = http::request(port, "POST", &format!("/api/v0/pin/rm/{sub}"), &[], &[]).expect("an answer");
    assert_eq!(slash.json(), json!({"Pins": [sub]}));
    let stdin = [(
        "Content-Disposition: form-data; name=\"file\"; filename=\"\"",
        format!("{sub}\n{file}\n").into_bytes(),
    )];
    let parts: Vec<Part<'_>> = stdin
        .iter()
        .map(|(head, text)| (*head, text.as_slice()))
        .collect();
    assert_eq!(
        upload(port, "pin/add", &parts).json(),
        json!({"Pins": [sub, file]})
    );
    assert_eq!(call(port, "pin/add").status, 400);

    let kept = call(port, &format!("pin/rm?arg={root}&recursive=false"));
    assert_eq!(kubo_error(&kept), format!("{root} is pinned recursively"));
    // The first CID is unpinned although the second fails.
    let partly = call(port, &format!("pin/rm?arg={file}&arg={file}"));
    assert_eq!(kubo_error(&partly), "not pinned or pinned indirectly");
}

/// Asserts that an updated pin keeps its name.
fn update_pin(port: u16, root: &str) {
    let to = last_hash(&add(port, "pin=false", "to", b"the next version"));
    let missing = call(port, &format!("pin/update?arg={to}"));
    assert_eq!(
        (missing.status, missing.text()),
        (400, "argument \"to-path\" is required\n".to_owned())
    );
    let never = call(port, &format!("pin/update?arg={to}&arg={root}"));
    assert_eq!(
        kubo_error(&never),
        "'from' cid was not recursively pinned already"
    );
    let updated = call(port, &format!("pin/update?arg={root}&arg={to}"));
    assert_eq!(updated.json(), json!({"Pins": [root, to]}));
    let named = call(port, &format!("pin/ls?arg={to}&names=true")).json();
    assert_eq!(named["Keys"][&to]["Name"], "the root");
    assert_eq!(
        call(port, &format!("pin/ls?arg={root}&type=recursive")).status,
        500
    );
}

#[test]
fn blocks_and_dag_nodes_are_pinned_on_request() {
    let cluster = with_proxies(2);
    let (one, two) = (&cluster.peers[0], &cluster.peers[1]);
    let port = proxy_port(one);
    let part = |content: &'static [u8]| {
        [(
            "Content-Disposition: form-data; name=\"file\"; filename=\"x\"",
            content,
        )]
    };
    let block = upload(port, "block/put?cid-codec=raw", &part(b"not pinned")).json();
    assert_eq!(one.pinset().expect("a pinset").len(), 0, "{block}");
    let block = upload(port, "block/put?cid-codec=raw&pin=true", &part(b"pinned")).json();
    assert_eq!(block["Size"], 6);
    let block = block["Key"].as_str().expect("a key").to_owned();
    let node = upload(port, "dag/put?pin=true", &part(b"{\"a\":1}")).json();
    let node = node["Cid"]["/"].as_str().expect("a CID").to_owned();
    for cid in [&block, &node] {
        two.wait_state(cid, "pinned", 2);
    }

    let car = call(port, &format!("dag/export?arg={node}"));
    assert!(car.is_success());
    let fresh = with_proxies(1);
    let below = proxy_port(&fresh.peers[0]);
    let import = |query: &str| {
        let head = "Content-Disposition: form-data; name=\"file\"; filename=\"x.car\"";
        upload(below, &format!("dag/import?{query}"), &[(head, &car.body)])
    };
    assert!(import("pin-roots=false").is_success());
    assert_eq!(fresh.peers[0].pinset().expect("a pinset").len(), 0);
    let imported = import("stats=true").values();
    assert_eq!(
        imported[0],
        json!({"Root": {"Cid": {"/": node}, "PinErrorMsg": ""}})
    );
    assert_eq!(imported[1]["Stats"]["BlockCount"], 1);
    fresh.peers[0].wait_state(&node, "pinned", 1);
}

#[test]
fn names_that_are_not_utf8_are_pinned_by_path() {
    let cluster = with_proxies(1);
    let peer = &cluster.peers[0];
    let file = |name: &'static str| (name, name.as_bytes());
    let added = peer.add("", &[file("d%2Fcaf%E9"), file("d%2Fth%E8"), file("d%2Fna%EFf")]);
    let added = added.unwrap();
    let cid = |at: usize| added[at]["cid"].as_str().unwrap().to_owned();
    let root = cid(added.len() - 1);
    let by_rest = peer.ask("POST", &format!("/pins/ipfs/{root}/caf%E9")).unwrap();
    assert_eq!(by_rest.json()["cid"], cid(0));
    let by_proxy = call(proxy_port(peer), &format!("pin/add?arg=/ipfs/{root}/th%E8"));
    assert_eq!(by_proxy.json()["Pins"], json!([cid(1)]));
    let path = [format!("/ipfs/{root}/na").as_bytes(), b"\xeff"].concat();
    let arguments = [
        OsStr::new("--enc=json"),
        "pin".as_ref(),
        "add".as_ref(),
        "--no-status".as_ref(),
    ];
    let said = peer.ctl(&[&arguments[..], &[OsStr::from_bytes(&path)]].concat());
    assert_eq!(said.values()[0]["cid"], cid(2));
}
