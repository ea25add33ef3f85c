//! Finding and being found: the DHT of nodes on loopback, delegated routers, gateways. Nothing leaves this
//! machine.

use super::*;
use cluster_ipfs::settings::{ProvideStrategy, PublicNetwork, Routing};
use cluster_ipfs::{Multiaddr, PeerId, Provider, Step, Steps};
use futures::StreamExt;
use opentelemetry::Context;
use opentelemetry::context::FutureExt;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const TCP: &str = "/ip4/127.0.0.1/tcp/0";
const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";

/// Settings that use the DHT, joined through these peers.
fn dht(bootstrap: &[Multiaddr]) -> PublicNetwork {
    PublicNetwork {
        private: false,
        routing: Routing::Dht,
        bootstrap: bootstrap.to_vec(),
        ..PublicNetwork::default()
    }
}

/// Settings that use one delegated router, and gateways that it reports.
fn delegated(router: &str) -> PublicNetwork {
    PublicNetwork {
        private: false,
        routing: Routing::Delegated,
        delegated_routers: vec![router.parse().unwrap()],
        http_retrieval: true,
        ..PublicNetwork::default()
    }
}

async fn start(listen: &[&str], network: PublicNetwork) -> (Node, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        path: folder.path().to_owned(),
        swarm_listen: listen.iter().map(|address| address.parse().unwrap()).collect(),
        storage_max: None,
        network,
        fixed: std::collections::BTreeMap::new(),
    };
    (Node::open(config).await.unwrap(), folder)
}

/// Starts servers of a DHT that know each other.
async fn servers(count: usize, listen: &[&str]) -> Vec<(Node, TempDir)> {
    let mut nodes: Vec<(Node, TempDir)> = vec![start(listen, dht(&[])).await];
    let first = nodes[0].0.id().addresses[0].clone();
    for _ in 1..count {
        nodes.push(start(listen, dht(std::slice::from_ref(&first))).await);
    }
    for (node, _) in &nodes {
        joined(node, count / 2).await;
    }
    nodes
}

/// Waits until the local DHT's routing table has so many peers.
async fn joined(node: &Node, peers: usize) {
    until(|| node.dhts().iter().any(|dht| dht.peers >= peers)).await;
}

async fn until(mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, waiting).await.expect("in time");
}

async fn find(node: &Node, cid: &Cid) -> Option<Provider> {
    let mut found = node.find_providers(cid, 1);
    timeout(SOON, found.next()).await.expect("in time")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pin_of_content_that_no_connected_peer_has_completes_through_the_dht() {
    let servers = servers(4, &[TCP]).await;
    let entry = servers[1].0.id().addresses;
    let (holder, _f1) = start(&[TCP], dht(&entry)).await;
    let (fetcher, _f2) = start(&[TCP], dht(&entry)).await;
    joined(&holder, 3).await;
    joined(&fetcher, 3).await;
    let data = content(50_000, 31);
    let cid = add(&holder, deep(), &data, Some("")).await;
    // Peers that a lookup connected know each other; the record must be found anyway.
    let stored = timeout(SOON, holder.provide(&cid))
        .await
        .expect("in time")
        .unwrap();
    assert!(stored >= 3, "{stored}");
    let _ = fetcher.disconnect(holder.id().peer_id).await;
    let provider = find(&fetcher, &cid).await.expect("a provider");
    assert_eq!(provider.peer, holder.id().peer_id);
    assert!(!provider.addresses.is_empty());
    pin(&fetcher, cid).await;
    assert_eq!(cat(&fetcher.offline(), cid, 0, None).await, data);
    let found = timeout(SOON, fetcher.find_peer(holder.id().peer_id))
        .await
        .expect("in time");
    assert!(!found.unwrap().is_empty());
    let closest = fetcher.closest_peers(cid.hash().to_bytes()).await.unwrap();
    assert!(closest.len() >= 3, "{closest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn searches_of_ended_requests_make_room_for_others() {
    // As many as run at once, and one more. Each would run for ten seconds.
    const REQUESTS: u64 = 9;
    let router = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", router.local_addr().unwrap());
    let (node, _folder) = start(&[TCP], delegated(&url)).await;
    let (begun, mut unanswered) = (Instant::now(), Vec::new());
    for request in 0..REQUESTS {
        let cid = raw(&content(50, 900 + request)).cid;
        let lookup = async {
            let (mut socket, _) = router.accept().await.unwrap();
            let _head = socket.read(&mut [0; 4096]).await.unwrap();
            socket
        };
        tokio::select! {
            found = node.get(cid) => panic!("{found:?}"),
            socket = timeout(SOON, lookup) => unanswered.push(socket.expect("in time")),
        }
    }
    assert!(begun.elapsed() < Duration::from_secs(9), "{:?}", begun.elapsed());
}

/// Pins as the operation of a trace, and returns its steps.
async fn pin_in_steps(node: &Node, cid: Cid) -> Vec<Step> {
    let steps = Steps::default();
    let context = Context::new().with_value(steps.clone());
    pin(node, cid).with_context(context).await;
    let (taken, left_out) = steps.take();
    assert_eq!(left_out, 0, "{taken:?}");
    taken
}

/// Returns the attribute of the first step with this name as text; empty without one.
fn attribute(steps: &[Step], name: &str, key: &str) -> String {
    let step = steps.iter().find(|step| step.name == name);
    let found = step.and_then(|step| step.attributes.iter().find(|known| known.key.as_str() == key));
    found.map(|found| found.value.to_string()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_of_a_pin_name_its_lookup_its_dial_and_the_blocks_of_each_peer() {
    let servers = servers(3, &[TCP]).await;
    let entry = servers[0].0.id().addresses;
    // Clients are in no routing table, so that only a lookup of the content leads from one to the other.
    let client = PublicNetwork {
        routing: Routing::DhtClient,
        ..dht(&entry)
    };
    let (holder, _f1) = start(&[TCP], client.clone()).await;
    let (fetcher, _f2) = start(&[TCP], client).await;
    joined(&holder, 3).await;
    joined(&fetcher, 3).await;
    let cid = add(&holder, deep(), &content(50_000, 35), Some("")).await;
    let stored = timeout(SOON, holder.provide(&cid)).await.expect("in time");
    assert!(stored.unwrap() >= 1);
    let steps = pin_in_steps(&fetcher, cid).await;
    let of = |name, key| attribute(&steps, name, key);
    let id = holder.id().peer_id.to_string();
    assert_eq!(of("routing.search", "ipfs.block"), cid.to_string(), "{steps:?}");
    assert_eq!(of("routing.dht", "ipfs.providers"), "1", "{steps:?}");
    assert_eq!(of("swarm.dial", "ipfs.peer"), id, "{steps:?}");
    assert_eq!(of("bitswap.fetch", "ipfs.peer"), id, "{steps:?}");
    let stat = fetcher.exchange_stat();
    assert_eq!(of("bitswap.fetch", "ipfs.blocks"), stat.received.0.to_string());
    assert_eq!(of("bitswap.fetch", "ipfs.bytes"), stat.received.1.to_string());
    assert_eq!(of("dag.fetch", "ipfs.bytes"), stat.received.1.to_string());
    assert_eq!(steps.last().map(|step| step.name), Some("store.pin"));
    // Nothing is fetched again.
    assert_eq!(pin_in_steps(&fetcher, cid).await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_meet_and_exchange_blocks_over_quic_and_ipv6() {
    let mut listen = vec![QUIC];
    // Some machines have no IPv6.
    if std::net::UdpSocket::bind("[::1]:0").is_ok() {
        listen.push("/ip6/::1/udp/0/quic-v1");
    }
    let servers = servers(3, &listen).await;
    let data = content(300_000, 32);
    let cid = add(&servers[1].0, deep(), &data, Some("")).await;
    servers[1].0.provide(&cid).await.unwrap();
    for address in servers[1].0.id().addresses {
        let (fetcher, _folder) = start(&listen, PublicNetwork::default()).await;
        timeout(SOON, fetcher.connect(address.clone()))
            .await
            .expect("in time")
            .unwrap();
        pin(&fetcher, cid).await;
        let connected = fetcher.peers().await;
        assert!(
            connected[0].address.to_string().contains("/quic-v1"),
            "{connected:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn private_node_joins_no_dht_and_dials_nobody() {
    let (server, _f1) = start(&[TCP], dht(&[])).await;
    let mut settings = dht(&server.id().addresses);
    settings.private = true;
    settings.lan_discovery = true;
    settings.delegated_routers = vec!["http://127.0.0.1:1".parse().unwrap()];
    let (private, _f2) = start(&[TCP], settings).await;
    let (open, _f3) = start(&[TCP], dht(&server.id().addresses)).await;
    // The open one started later and has joined.
    joined(&open, 1).await;
    assert_eq!(private.dhts(), []);
    assert_eq!(private.peers().await.len(), 0);
    assert_eq!(find(&private, &raw(b"x").cid).await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_are_in_no_routing_table() {
    let (server, _f1) = start(&[TCP], dht(&[])).await;
    let settings = PublicNetwork {
        routing: Routing::DhtClient,
        ..dht(&server.id().addresses)
    };
    let (client, _f2) = start(&[TCP], settings).await;
    joined(&client, 1).await;
    let cid = add(&client, deep(), b"of a client", Some("")).await;
    assert_eq!(client.provide(&cid).await.unwrap(), 1);
    until(|| server.dhts().iter().any(|dht| dht.provider_records == 1)).await;
    assert!(
        server.dhts().iter().all(|dht| dht.peers == 0),
        "{:?}",
        server.dhts()
    );
    assert_eq!(find(&server, &cid).await.unwrap().peer, client.id().peer_id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn provider_records_of_others_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        path: folder.path().to_owned(),
        swarm_listen: vec![TCP.parse().unwrap()],
        storage_max: None,
        network: dht(&[]),
        fixed: std::collections::BTreeMap::new(),
    };
    let server = Node::open(config.clone()).await.unwrap();
    let settings = PublicNetwork {
        routing: Routing::DhtClient,
        ..dht(&server.id().addresses)
    };
    let (client, _folder) = start(&[TCP], settings).await;
    joined(&client, 1).await;
    let own = client.id().peer_id;
    let cid = add(&client, deep(), b"announced", Some("")).await;
    assert_eq!(client.provide(&cid).await.unwrap(), 1);
    until(|| server.dhts().iter().any(|dht| dht.provider_records == 1)).await;
    client.shutdown().await;
    server.shutdown().await;
    drop(server);
    let server = reopen(config).await;
    until(|| server.dhts().iter().any(|dht| dht.provider_records == 1)).await;
    let provider = find(&server, &cid).await.unwrap();
    assert_eq!(provider.peer, own);
    assert!(!provider.addresses.is_empty());
    server.shutdown().await;
    drop(server);
    // A node without the DHT opens no database for them.
    let (plain, other) = start(&[TCP], PublicNetwork::default()).await;
    assert!(!other.path().join("dht_records").exists());
    plain.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_pins_and_those_of_earlier_runs_are_announced_and_only_as_far_as_it_is_a_duty() {
    let servers = servers(3, &[TCP]).await;
    let entry = servers[0].0.id().addresses;
    let settings = PublicNetwork {
        provide_strategy: ProvideStrategy::Roots,
        ..dht(&entry)
    };
    let folder = tempfile::tempdir().unwrap();
    let config = |network| Config {
        path: folder.path().to_owned(),
        swarm_listen: vec![TCP.parse().unwrap()],
        storage_max: None,
        network,
        fixed: std::collections::BTreeMap::new(),
    };
    let before = Node::open(config(PublicNetwork::default())).await.unwrap();
    let (old, other) = (
        add(&before, deep(), b"pinned before", Some("")).await,
        add(&before, deep(), b"pinned before, announced by another", Some("")).await,
    );
    before.shutdown().await;
    drop(before);
    let holder = reopen(config(settings.clone())).await;
    let id = holder.id().peer_id;
    holder.set_duty(Arc::new(move |cid, _| *cid != other));
    joined(&holder, 3).await;
    let new = add(&holder, deep(), b"pinned now", Some("")).await;
    pin(&holder, new).await;
    let (fetcher, _f) = start(&[TCP], dht(&entry)).await;
    joined(&fetcher, 3).await;
    for cid in [new, old] {
        let searching = async {
            while find(&fetcher, &cid)
                .await
                .is_none_or(|provider| provider.peer != id)
            {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        timeout(SOON, searching).await.expect("in time");
    }
    until(|| holder.provide_stat().regions_current == holder.provide_stat().regions).await;
    assert!(find(&fetcher, &other).await.is_none());
    assert!(holder.announced_at(&old).is_some() && holder.announced_at(&new).is_some());
    assert_eq!(holder.announced_at(&other), None);
    let stat = holder.provide_stat();
    assert_eq!((stat.failed_sends, stat.lag), (0, Duration::ZERO), "{stat:?}");
    let records = stat.records;
    // A restart repeats nothing.
    holder.shutdown().await;
    drop(holder);
    let holder = reopen(config(settings)).await;
    joined(&holder, 3).await;
    let stat = holder.provide_stat();
    assert_eq!(
        stat.regions_current, stat.regions,
        "{stat:?} after {records} records"
    );
}

/// HTTP server with an answer for each path: status line with headers, body. Others are 404.
async fn http(answers: HashMap<String, (&'static str, Vec<u8>)>) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = asked.clone();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if socket.read(&mut byte).await.unwrap_or(0) == 0 {
                    break;
                }
                head.push(byte[0]);
            }
            let head = String::from_utf8_lossy(&head).into_owned();
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            let (status, body) = match answers.get(&path) {
                Some((status, body)) => (*status, body.clone()),
                None => ("404 Not Found", Vec::new()),
            };
            seen.lock().unwrap().push(path);
            let length = body.len();
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
            let _ = socket.write_all(&[head.into_bytes(), body].concat()).await;
        }
    });
    (base, asked)
}

fn record(id: &PeerId, addresses: &[String], protocol: &str) -> String {
    let addresses: Vec<String> = addresses.iter().map(|it| format!("{it:?}")).collect();
    let addresses = addresses.join(",");
    format!(r#"{{"Schema":"peer","ID":"{id}","Addrs":[{addresses}],"Protocols":["{protocol}"]}}"#)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delegated_router_names_a_provider_among_ten_thousand_dead_addresses() {
    let (holder, _f1) = start(&[TCP], PublicNetwork::default()).await;
    let cid = add(&holder, deep(), &content(20_000, 33), Some("")).await;
    let plain = |address: &Multiaddr| address.to_string().split("/p2p/").next().unwrap().to_owned();
    let dead: Vec<String> = (0..1000).map(|_| "/ip4/127.0.0.1/tcp/1".to_owned()).collect();
    let mut lines: Vec<String> = (0..9)
        .map(|_| record(&PeerId::random(), &dead, "transport-bitswap"))
        .collect();
    lines.push("not json".into());
    lines.push(record(
        &holder.id().peer_id,
        &[plain(&holder.id().addresses[0])],
        "transport-bitswap",
    ));
    for (kind, body) in [
        ("200 OK\r\nContent-Type: application/x-ndjson", lines.join("\n")),
        (
            "200 OK\r\nContent-Type: application/json",
            format!(
                r#"{{"Providers":[{},{}]}}"#,
                r#"{"Schema":"unknown"}"#,
                lines.last().unwrap()
            ),
        ),
    ] {
        let path = format!("/routing/v1/providers/{cid}");
        let (router, asked) = http(HashMap::from([(path.clone(), (kind, body.into_bytes()))])).await;
        let (fetcher, _f2) = start(&[TCP], delegated(&router)).await;
        pin(&fetcher, cid).await;
        assert!(asked.lock().unwrap().contains(&path));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocks_come_from_a_gateway_and_wrong_ones_are_refused() {
    let (source, _f1) = start(&[TCP], PublicNetwork::default()).await;
    let data = content(20_000, 34);
    let cid = add(&source, deep(), &data, Some("")).await;
    let (mut good, mut wrong) = (HashMap::new(), HashMap::new());
    let hashes: Vec<Cid> = source.local_refs().try_collect().await.unwrap();
    for hash in hashes {
        let block = source.get(hash).await.unwrap().to_vec();
        for codec in [0x55, 0x70] {
            let path = format!("/ipfs/{}?format=raw", Cid::new_v1(codec, *hash.hash()));
            wrong.insert(path.clone(), ("200 OK", b"something else".to_vec()));
            good.insert(path, ("200 OK", block.clone()));
        }
        if let Ok(v0) = Cid::new_v0(*hash.hash()) {
            wrong.insert(
                format!("/ipfs/{v0}?format=raw"),
                ("200 OK", b"something else".to_vec()),
            );
            good.insert(format!("/ipfs/{v0}?format=raw"), ("200 OK", block));
        }
    }
    let ((good, good_asked), (wrong, wrong_asked)) = (http(good).await, http(wrong).await);
    let address = |base: &str| {
        let port = base.rsplit(':').next().unwrap();
        format!("/ip4/127.0.0.1/tcp/{port}/http")
    };
    let lines = [&wrong, &good]
        .map(|base| record(&PeerId::random(), &[address(base)], "transport-ipfs-gateway-http"));
    let answer = (
        "200 OK\r\nContent-Type: application/x-ndjson",
        lines.join("\n").into_bytes(),
    );
    let (router, _) = http(HashMap::from([(format!("/routing/v1/providers/{cid}"), answer)])).await;
    let (fetcher, _f2) = start(&[TCP], delegated(&router)).await;
    let steps = pin_in_steps(&fetcher, cid).await;
    assert_eq!(cat(&fetcher.offline(), cid, 0, None).await, data);
    assert_eq!(
        attribute(&steps, "routing.delegated", "ipfs.providers"),
        "2",
        "{steps:?}"
    );
    // One step for each gateway.
    let gateways: HashMap<String, usize> = steps
        .iter()
        .filter(|step| step.name == "http.fetch")
        .map(|step| {
            let step = std::slice::from_ref(step);
            let blocks = attribute(step, "http.fetch", "ipfs.blocks");
            (attribute(step, "http.fetch", "url.full"), blocks.parse().unwrap())
        })
        .collect();
    let local = fetcher.stat().unwrap().num_objects;
    assert_eq!(gateways.len(), 2, "{steps:?}");
    assert_eq!(
        (gateways[&good] as u64, gateways[&wrong]),
        (local, 0),
        "{steps:?}"
    );
    assert!(good_asked.lock().unwrap().len() > 50);
    let wrong = wrong_asked.lock().unwrap().len();
    assert!(
        wrong <= 16,
        "a gateway that sends a wrong block is not asked again: {wrong}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn block_that_nobody_provides_costs_one_search_per_pause() {
    let cid = raw(b"nowhere").cid;
    let (router, asked) = http(HashMap::new()).await;
    let (fetcher, _folder) = start(&[TCP], delegated(&router)).await;
    let waiting = timeout(Duration::from_secs(3), fetcher.get(cid)).await;
    assert!(waiting.is_err());
    assert_eq!(asked.lock().unwrap().len(), 1);
}

/// Used by the other tests of this file only through their settings.
#[test]
fn default_settings_contact_nobody() {
    let settings = PublicNetwork::default();
    assert!(settings.private && !settings.lan_discovery && !settings.http_retrieval);
    assert_eq!(settings.effective_routing(), Routing::None);
    assert_eq!(settings.provide_strategy, ProvideStrategy::None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn public_dht_is_served_only_with_a_public_direct_address() {
    let relayed =
        "/ip4/1.2.3.4/tcp/4001/p2p/12D3KooWKnDdG3iXw9eTFijk3EWSunZcFi54Zka4wmtqtt6rPxc8/p2p-circuit";
    for (routing, announce, expected) in [
        (Routing::Dht, "/ip4/1.2.3.4/tcp/4001", true),
        (Routing::DhtClient, "/ip4/1.2.3.4/tcp/4001", false),
        (Routing::Dht, "/ip4/10.0.0.1/tcp/4001", false),
        (Routing::Dht, relayed, false),
    ] {
        let settings = PublicNetwork {
            routing,
            announce: vec![announce.parse().unwrap()],
            ..dht(&[])
        };
        let (node, _folder) = start(&[TCP], settings).await;
        until(|| node.dhts().len() == 2).await;
        let dhts = node.dhts();
        let served: Vec<_> = dhts.iter().map(|dht| (dht.is_public, dht.is_server)).collect();
        let local = (false, routing == Routing::Dht);
        assert_eq!(served, [(true, expected), local], "{routing:?} {announce}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_are_stored_by_servers_only_if_they_are_valid_records_of_their_key() {
    let servers = servers(3, &[TCP]).await;
    let (own, other) = (&servers[0].0, &servers[1].0);
    let options = cluster_ipfs::PublishOptions {
        key: "self".to_owned(),
        lifetime: Duration::from_secs(3600),
        ttl: Duration::from_secs(60),
        sequence: None,
    };
    let (name, record) = own.sign_record("/ipfs/bafkqaaa", options).await.unwrap();
    let key = cluster_ipfs::ipns::routing_key(&name);
    let others = cluster_ipfs::ipns::routing_key(&other.id().peer_id);
    // A server acknowledges a record that it does not store.
    own.put_value(others.clone(), record.bytes().to_vec())
        .await
        .unwrap();
    own.put_value(b"/pk/x".to_vec(), b"x".to_vec()).await.unwrap();
    assert!(own.put_value(key.clone(), record.bytes().to_vec()).await.unwrap() >= 2);
    until(|| other.dhts().iter().any(|dht| dht.value_records == 1)).await;
    let mut found = other.get_values(key).await.unwrap();
    let value = timeout(SOON, found.next()).await.expect("in time").unwrap();
    assert_eq!(value, record.bytes().to_vec());
    let found = servers[2].0.get_values(others).await.unwrap();
    let found: Vec<_> = timeout(SOON, found.collect()).await.expect("in time");
    let mine = |value: &Vec<u8>| *value == record.bytes().to_vec();
    assert!(
        found.iter().filter(|value| mine(value)).count() <= 1,
        "only its sender has it: {found:?}"
    );
}
