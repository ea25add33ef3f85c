//! Uploads through the proxy.

use serde_json::json;
use tests::{Peer, cids};

use super::requests::{DIRECTORY, Part, add, call, kubo_error, last_hash, proxy_port, upload, with_proxies};

#[test]
fn add_through_the_proxy_gives_the_same_cids_as_at_the_node() {
    let cluster = with_proxies(1);
    let peer = &cluster.peers[0];
    let queries = [
        "",
        "progress=true",
        "cid-version=1",
        "raw-leaves=true&chunker=size-1024",
        "hash=sha2-512&cid-version=1",
        "trickle=true",
        "wrap-with-directory=true",
        "w=true&silent=false&quieter=true",
        "silent=true",
        "inline=true&cid-version=1",
        "cid-base=base36&cid-version=1",
        "chunker=nonsense",
        "cid-version=9",
        "pin-name=x&pin=false",
    ];
    for query in queries {
        compare_add(peer, query);
    }
    assert_each_root_is_one_pin(peer);
}

/// Asserts that the proxy responds to `add` like the node, and that the cluster pins the root; unpins it.
fn compare_add(peer: &Peer, query: &str) {
    let (proxy, node) = (proxy_port(peer), peer.ipfs_port);
    // Directly at the node without a pin, so that only the proxy's uploads are pinned.
    let straight = upload(
        node,
        &format!("add?{query}&pin=false").replace("?&", "?"),
        &DIRECTORY,
    );
    let through = upload(proxy, &format!("add?{query}"), &DIRECTORY);
    if query.starts_with("pin-name") {
        assert!(kubo_error(&through).contains("pin-name"), "{}", through.text());
        return;
    }
    assert_eq!(
        (through.status, through.text()),
        (straight.status, straight.text()),
        "{query}"
    );
    assert_eq!(through.error(), None, "{query}");
    if through.status != 200 {
        return;
    }
    // Only the outermost directory is pinned.
    let root = last_hash(&through);
    let pins = peer.pinset().expect("a pinset");
    assert_eq!(pins.len(), 1, "{query}: {pins:?}");
    if !query.contains("cid-base") {
        assert_eq!(pins, std::slice::from_ref(&root), "{query}");
    }
    assert_eq!(call(proxy, &format!("pin/rm?arg={root}")).status, 200, "{query}");
}

/// Asserts that several files are several pins, with the name and the cluster's options of the request.
fn assert_each_root_is_one_pin(peer: &Peer) {
    let proxy = proxy_port(peer);
    let files: [Part<'_>; 2] = [
        (
            "Content-Disposition: form-data; name=\"file\"; filename=\"a\"",
            b"a",
        ),
        (
            "Content-Disposition: form-data; name=\"file\"; filename=\"b\"",
            b"b",
        ),
    ];
    let two = upload(proxy, "add?pin-name=both", &files).values();
    let mut hashes: Vec<_> = two
        .iter()
        .map(|line| line["Hash"].as_str().expect("a CID").to_owned())
        .collect();
    hashes.sort();
    assert_eq!(peer.pinset().expect("a pinset"), hashes);
    let named = call(proxy, "pin/ls?names=true&stream=true&type=recursive").values();
    assert!(
        named.len() == 2 && named.iter().all(|pin| pin["Name"] == "both"),
        "{named:?}"
    );
    // The cluster's own parameters work too.
    let cid = last_hash(&add(
        proxy,
        "meta-colour=blue&expire-in=1h&replication-min=1&replication-max=1",
        "c",
        b"c",
    ));
    let pin = peer
        .try_get(&format!("/allocations/{cid}"))
        .expect("a pin")
        .json();
    assert_eq!(
        (&pin["metadata"]["colour"], &pin["replication_factor_max"]),
        (&json!("blue"), &json!(1))
    );
}

#[test]
fn add_without_pin_pins_nothing() {
    let cluster = with_proxies(1);
    let peer = &cluster.peers[0];
    let port = proxy_port(peer);
    let content = cids::bytes(3, 300_000);
    for query in ["only-hash=true", "n=true", "pin=false", "no-pin=true"] {
        let cid = last_hash(&add(port, query, "file", &content));
        assert_eq!(peer.pinset().expect("a pinset"), Vec::<String>::new(), "{query}");
        let there = call(peer.ipfs_port, &format!("block/stat?arg={cid}&offline=true")).status == 200;
        assert_eq!(there, !["only-hash=true", "n=true"].contains(&query), "{query}");
        call(port, "repo/gc");
    }
    let bad = add(port, "pin=maybe", "file", b"x");
    assert_eq!(bad.status, 400);
    assert!(
        bad.text().starts_with("could not convert value \"maybe\""),
        "{}",
        bad.text()
    );
    let none = upload(port, "add", &[]);
    assert_eq!(kubo_error(&none), "expected a file argument");
}
