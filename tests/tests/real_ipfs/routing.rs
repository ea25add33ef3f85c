//! Content routing between peers and foreign nodes on loopback: Kubo, go-libp2p-kad-dht with boxo, and Helia
//! in the DHT of the local network, and boxo's delegated routing and trustless gateways.

use std::path::Path;

use serde_json::{Value, json};
use tests::{Cluster, Peer, cids, closed_port, wait_until};

use super::backends::prepared;
use super::{Node, installed};

/// Starts a cluster of one peer whose embedded node is in contact with others as these settings say.
fn public_peer(settings: &Value) -> Cluster {
    let mut cluster = prepared(1);
    cluster.peers[0].edit(|config| {
        let embedded = config["ipfs_connector"]["embedded"].as_object_mut().unwrap();
        let quiet = json!({
            "private": false, "routing": "none", "bootstrap": [], "delegated_routers": [], "lan_discovery": false,
            "http_retrieval": false, "provide_strategy": "roots",
        });
        for changes in [&quiet, settings] {
            embedded.extend(changes.as_object().unwrap().clone());
        }
    });
    cluster.peers[0].start_and_wait();
    cluster.wait_ready();
    cluster
}

/// Returns the address of a peer's embedded node.
fn swarm_address(peer: &Peer) -> String {
    let id = peer.ipfs("id").unwrap().json();
    id["Addresses"][0].as_str().unwrap().to_owned()
}

/// Returns the ids of the nodes that a peer's embedded node is connected to.
fn connected(peer: &Peer) -> Vec<String> {
    let peers = peer.ipfs("swarm/peers").unwrap().json();
    let peers = peers["Peers"].as_array().cloned().unwrap_or_default();
    peers
        .iter()
        .map(|peer| peer["Peer"].as_str().unwrap().to_owned())
        .collect()
}

fn id_of(address: &str) -> &str {
    address.rsplit('/').next().unwrap()
}

/// Adds a file at a foreign node. Returns its content and CID.
fn add_at(node: &mut Node, folder: &Path, seed: u64) -> (Vec<u8>, String) {
    let (path, content) = (
        folder.join(format!("theirs-{seed}")),
        cids::bytes(seed, 1_000_000),
    );
    std::fs::write(&path, &content).unwrap();
    let cid = node.order(&format!("add {}", path.display()));
    (content, cid)
}

/// Adds a file at a peer. Returns its content and CID.
fn add_at_peer(peer: &Peer, seed: u64) -> (Vec<u8>, String) {
    let content = cids::bytes(seed, 1_000_000);
    let added = peer
        .add("cid-version=1&raw-leaves=true", &[("file", &content)])
        .unwrap();
    (content, added[0]["cid"].as_str().unwrap().to_owned())
}

/// Pins content at a peer, and checks it.
fn pin_at_peer(peer: &Peer, cid: &str, content: &[u8]) {
    peer.ask("POST", &format!("/pins/{cid}")).unwrap();
    peer.wait_state(cid, "pinned", 1);
    assert!(peer.cat(cid) == content, "{cid} differs at {}", peer.name);
}

/// Fetches content at a foreign node, and checks it.
fn fetch_at(node: &mut Node, folder: &Path, cid: &str, content: &[u8]) {
    let path = folder.join("from-us");
    assert_eq!(node.order(&format!("pin {cid}")), "0", "the node pins {cid}");
    assert_eq!(node.order(&format!("get {cid} {}", path.display())), "0");
    assert!(
        std::fs::read(&path).unwrap() == content,
        "{cid} differs at the node"
    );
}

/// Waits until a foreign node finds a provider in the DHT.
fn wait_found(node: &mut Node, cid: &str, provider: &str) {
    wait_until("the node finds the provider", || {
        let found = node.order(&format!("find {cid}"));
        match found.split(' ').any(|id| id == provider) {
            true => Ok(()),
            false => Err(format!("{cid}: {found:?}, not {provider}")),
        }
    });
}

/// Three nodes in the DHT of the local network: one Kubo that both others join through, another Kubo, and a
/// peer.
#[test]
fn a_real_kubo_and_a_peer_find_each_others_content_through_the_dht() {
    let Some(installed) = installed() else { return };
    let folder = tempfile::tempdir().unwrap();
    let kubo = |name: &str| Node::kubo_with_routing(&installed, &folder.path().join(name), "dht");
    let (entry, mut other) = (kubo("entry"), kubo("other"));
    let cluster = public_peer(&json!({"routing": "dht", "bootstrap": [entry.address]}));
    let peer = &cluster.peers[0];
    assert_eq!(other.order(&format!("connect {}", entry.address)), "0");
    let (content, cid) = add_at(&mut other, folder.path(), 5);
    pin_at_peer(peer, &cid, &content);
    let (content, cid) = add_at_peer(peer, 6);
    fetch_at(&mut other, folder.path(), &cid, &content);
}

/// Exchanges content between a peer and clients of the DHT, which find each other through a server of
/// go-libp2p. Clients are in no routing table: nobody connects to one without having found a record of it.
/// The peer is a client too, and then another peer the only server.
fn exchange_through_the_dht(entry: &Node, client: impl Fn() -> Node) {
    let joined = |address: &str| {
        let mut node = client();
        assert_eq!(node.order(&format!("connect {address}")), "0");
        node
    };
    let entry_id = id_of(&entry.address);
    let folder = tempfile::tempdir().unwrap();
    let mut holder = joined(&entry.address);
    // Announced before the peer joins: the holder does not send a record to the peer.
    let (content, cid) = add_at(&mut holder, folder.path(), 1);
    assert_eq!(holder.order(&format!("provide {cid}")), "0");
    let cluster = public_peer(&json!({"routing": "dhtclient", "bootstrap": [entry.address]}));
    let peer = &cluster.peers[0];
    wait_until("the peer joins the DHT", || {
        let connected = connected(peer);
        match connected.contains(&entry_id.to_owned()) {
            true => Ok(()),
            false => Err(format!("{connected:?}")),
        }
    });
    let holder_id = id_of(&holder.address).to_owned();
    assert!(!connected(peer).contains(&holder_id));
    assert_eq!(holder.order("peers"), entry_id);
    pin_at_peer(peer, &cid, &content);
    assert!(connected(peer).contains(&holder_id));

    let mut finder = joined(&entry.address);
    let (content, cid) = add_at_peer(peer, 2);
    assert_eq!(finder.order("peers"), entry_id);
    wait_found(&mut finder, &cid, id_of(&swarm_address(peer)));
    fetch_at(&mut finder, folder.path(), &cid, &content);

    // A peer as their only server of the DHT.
    let cluster = public_peer(&json!({"routing": "dht"}));
    let own = swarm_address(&cluster.peers[0]);
    let (mut holder, mut finder) = (joined(&own), joined(&own));
    let (content, cid) = add_at(&mut holder, folder.path(), 3);
    assert_eq!(holder.order(&format!("provide {cid}")), "0");
    wait_found(&mut finder, &cid, id_of(&holder.address));
    fetch_at(&mut finder, folder.path(), &cid, &content);
}

#[test]
fn go_nodes_and_a_peer_find_each_others_content_through_the_dht() {
    let Some(installed) = installed() else { return };
    let entry = Node::go(&installed, "server");
    exchange_through_the_dht(&entry, || Node::go(&installed, "client"));
}

#[test]
fn helia_nodes_and_a_peer_find_each_others_content_through_the_dht() {
    let Some(installed) = installed() else { return };
    let entry = Node::go(&installed, "server");
    exchange_through_the_dht(&entry, || Node::helia_in_dht(&installed, "client"));
}

#[test]
fn a_peer_pins_over_http_only_from_a_gateway_that_a_router_of_boxo_reports() {
    let Some(installed) = installed() else { return };
    let mut gateway = Node::go(&installed, "http");
    let folder = tempfile::tempdir().unwrap();
    let (content, cid) = add_at(&mut gateway, folder.path(), 4);
    let url = gateway.order("serve");
    let settings = json!({"routing": "delegated", "delegated_routers": [url], "http_retrieval": true});
    let cluster = public_peer(&settings);
    let peer = &cluster.peers[0];
    pin_at_peer(peer, &cid, &content);
    assert_eq!(connected(peer), Vec::<String>::new(), "no blocks by bitswap");
}

#[test]
fn a_peer_and_boxo_find_content_at_each_others_delegated_routers() {
    let Some(installed) = installed() else { return };
    let (mut router, mut holder) = (Node::go(&installed, "server"), Node::go(&installed, "client"));
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(holder.order(&format!("connect {}", router.address)), "0");
    let (content, cid) = add_at(&mut holder, folder.path(), 5);
    assert_eq!(holder.order(&format!("provide {cid}")), "0");
    let (url, port) = (router.order("serve"), closed_port());
    let cluster = public_peer(&json!({
        "routing": "delegated", "delegated_routers": [url],
        "gateway_listen_multiaddress": [format!("/ip4/127.0.0.1/tcp/{port}")],
    }));
    let peer = &cluster.peers[0];
    pin_at_peer(peer, &cid, &content);
    assert_eq!(connected(peer), [id_of(&holder.address)]);

    let (content, cid) = add_at_peer(peer, 6);
    let gateway = format!("http://127.0.0.1:{port}");
    assert_eq!(
        router.order(&format!("route {gateway} {cid}")),
        id_of(&swarm_address(peer))
    );
    let path = folder.path().join("fetched");
    let fetched = router.order(&format!("fetch {gateway} {cid} {}", path.display()));
    assert_eq!(fetched, "0");
    assert!(std::fs::read(&path).unwrap() == content, "{cid} differs");
}
