//! Commands that use the DHT, through the API: names, providers, peers. The DHT is that of nodes on loopback.

mod support;

use std::time::Duration;

use cluster_ipfs::settings::{ProvideStrategy, PublicNetwork, Routing};
use cluster_ipfs::{Multiaddr, ProvideStat};
use serde_json::{Value, json};
use support::Served;
use tokio::time::timeout;

const OCTETS: &str = "application/octet-stream";
/// Far longer than any test here takes, even on a busy machine.
const SOON: Duration = Duration::from_secs(240);

/// Settings that use the DHT, joined through these peers.
fn dht(bootstrap: &[Multiaddr]) -> PublicNetwork {
    PublicNetwork {
        private: false,
        routing: Routing::Dht,
        bootstrap: bootstrap.to_vec(),
        ..PublicNetwork::default()
    }
}

async fn until(mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, waiting).await.expect("in time");
}

/// Starts nodes of one DHT, each of which knows at least two others.
async fn nodes(count: usize) -> Vec<Served> {
    let mut nodes = vec![Served::start_in(dht(&[])).await];
    let first = nodes[0].node.id().addresses;
    for _ in 1..count {
        nodes.push(Served::start_in(dht(&first)).await);
    }
    for served in &nodes {
        until(|| served.node.dhts().iter().any(|dht| dht.peers >= 2)).await;
    }
    nodes
}

/// Sends a command, which must succeed, and returns its objects.
async fn lines(served: &Served, path: &str) -> Vec<Value> {
    let answer = timeout(SOON, served.post(path)).await.expect("in time");
    assert_eq!(
        (answer.status, answer.trailer()),
        (200, None),
        "{path}: {}",
        answer.text()
    );
    answer.lines()
}

async fn ok(served: &Served, path: &str) -> Value {
    let mut lines = lines(served, path).await;
    assert_eq!(lines.len(), 1, "{path}: {lines:?}");
    lines.remove(0)
}

/// Sends a command, which must fail, and returns its message.
async fn refused(served: &Served, path: &str) -> String {
    let answer = timeout(SOON, served.post(path)).await.expect("in time");
    assert_eq!(answer.status, 500, "{path}: {}", answer.text());
    answer.json()["Message"].as_str().unwrap().to_owned()
}

async fn add(served: &Served, content: &str) -> String {
    let answer = served.upload("add", &[("f", OCTETS, content.as_bytes())]).await;
    answer.lines()[0]["Hash"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn name_published_at_one_node_resolves_at_another_through_the_dht() {
    let nodes = nodes(4).await;
    let (publisher, resolver) = (&nodes[1], &nodes[2]);
    let (one, two) = (add(publisher, "one").await, add(publisher, "two").await);
    let published = ok(publisher, &format!("name/publish?arg=/ipfs/{one}")).await;
    let name = published["Name"].as_str().unwrap().to_owned();
    let resolve = format!("name/resolve?arg=/ipns/{name}&nocache=true");
    assert_eq!(ok(resolver, &resolve).await["Path"], format!("/ipfs/{one}"));
    // The newer record wins, although servers may still have the old one.
    ok(publisher, &format!("name/publish?arg=/ipfs/{two}")).await;
    assert_eq!(ok(resolver, &resolve).await["Path"], format!("/ipfs/{two}"));
    // A record that was signed elsewhere is published by `routing/put`.
    let record = publisher.post(&format!("name/get?arg=/ipns/{name}")).await.body;
    let client = Served::start_in(PublicNetwork {
        routing: Routing::DhtClient,
        ..dht(&nodes[0].node.id().addresses)
    })
    .await;
    until(|| client.node.dhts().iter().any(|dht| dht.peers >= 2)).await;
    let path = format!("routing/put?arg=/ipns/{name}");
    let put = client.upload(&path, &[("value", OCTETS, &record)]).await;
    assert_eq!(put.status, 200, "{}", put.text());
    let got = ok(resolver, &format!("routing/get?arg=/ipns/{name}")).await;
    assert_eq!(got["Type"], 5);
    let unknown = "k51qzi5uqu5dgutdk6i1ynyzgkqngpha5xpgia3a5qqp4jsh0u4csozksxel2r";
    let why = refused(resolver, &format!("name/resolve?arg=/ipns/{unknown}")).await;
    assert!(why.contains("routing: not found"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn name_that_no_server_accepts_is_refused_unless_that_is_allowed() {
    let alone = Served::start_in(dht(&[])).await;
    let cid = add(&alone, "alone").await;
    let why = refused(&alone, &format!("name/publish?arg=/ipfs/{cid}")).await;
    assert!(why.contains("--allow-offline"), "{why}");
    let published = ok(
        &alone,
        &format!("name/publish?arg=/ipfs/{cid}&allow-offline=true"),
    )
    .await;
    let name = published["Name"].as_str().unwrap();
    let resolved = ok(&alone, &format!("name/resolve?arg=/ipns/{name}")).await;
    assert_eq!(resolved["Path"], format!("/ipfs/{cid}"));
}

#[tokio::test]
async fn private_node_asks_no_dns_server() {
    let private = Served::start().await;
    let why = refused(&private, "name/resolve?arg=/ipns/example.org").await;
    assert!(why.contains("the node is private"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn providers_and_peers_are_found_by_routing_commands() {
    let nodes = nodes(4).await;
    let (holder, searcher) = (&nodes[1], &nodes[3]);
    let id = holder.node.id().peer_id.to_string();
    let cid = add(holder, "provided").await;
    let why = refused(holder, &format!("routing/provide?arg={cid}")).await;
    assert!(why.contains("provide_strategy"), "{why}");
    holder.node.provide(&cid.parse().unwrap()).await.unwrap();
    let found = lines(searcher, &format!("routing/findprovs?arg={cid}&n=1")).await;
    let provider = |it: &Value| it["Type"] == 4 && it["Responses"][0]["ID"] == id.as_str();
    assert!(found.len() == 1 && provider(&found[0]), "{found:?}");
    assert!(
        !found[0]["Responses"][0]["Addrs"].as_array().unwrap().is_empty(),
        "{found:?}"
    );
    let why = refused(searcher, &format!("routing/findprovs?arg={cid}&num-providers=0")).await;
    assert_eq!(why, "number of providers must be greater than 0");
    let found = ok(searcher, &format!("routing/findpeer?arg={id}")).await;
    assert_eq!(
        (&found["Type"], &found["Responses"][0]["ID"]),
        (&2.into(), &id.as_str().into())
    );
    let own = searcher.node.id().peer_id;
    let why = refused(searcher, &format!("routing/findpeer?arg={own}")).await;
    assert_eq!(why, "querying self is unsupported");
    let unknown = cluster_ipfs::PeerId::random();
    let missing = searcher.post(&format!("routing/findpeer?arg={unknown}")).await;
    assert_eq!(missing.lines()[0]["Type"], 3, "{missing:?}");
    assert_eq!(missing.trailer(), Some("routing: not found"));
    let why = refused(searcher, &format!("routing/findprovs?arg={cid}&offline=true")).await;
    assert!(why.contains("online mode"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn announcements_are_counted_queued_and_repeated_on_request() {
    let others = nodes(3).await;
    let settings = PublicNetwork {
        provide_strategy: ProvideStrategy::Roots,
        ..dht(&others[0].node.id().addresses)
    };
    let served = Served::start_in(settings).await;
    until(|| served.node.dhts().iter().any(|dht| dht.peers >= 3)).await;
    let cid = add(&served, "announced at once").await;
    until(|| served.node.provide_stat().announced >= 1).await;
    assert_eq!(lines(&served, "routing/reprovide").await, Vec::<Value>::new());
    let swept = |stat: ProvideStat| (stat.regions_current, stat.keys) == (256, 1);
    until(|| swept(served.node.provide_stat())).await;
    let stat = ok(&served, "provide/stat?lan=true").await;
    let sweep = &stat["Sweep"];
    assert_eq!(stat["Legacy"], Value::Null);
    assert_eq!(sweep["connectivity"]["status"], "online", "{sweep}");
    assert_eq!(sweep["network"]["peers"], 3, "{sweep}");
    let records = sweep["operations"]["past"]["records_provided"].as_u64();
    assert!(records >= Some(6), "{sweep}");
    let stat = ok(&served, "stats/provide?lan=true").await;
    assert_eq!(stat["Sweep"]["schedule"]["regions"], 256);
    let announced = served.node.provide_stat().announced;
    let queued = lines(&served, &format!("provide/once?arg={cid}&recursive=true")).await;
    assert_eq!(queued, [json!({ "Queued": cid })]);
    until(|| served.node.provide_stat().announced > announced).await;
    assert_eq!(
        lines(&served, &format!("routing/provide?arg={cid}")).await,
        Vec::<Value>::new()
    );
    let absent = "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy";
    let why = refused(&served, &format!("routing/provide?arg={absent}")).await;
    assert!(why.contains("not found locally, cannot provide"), "{why}");
    assert_eq!(ok(&served, "provide/clear").await, json!(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_pins_wait_for_the_dht_and_can_be_taken_from_the_queue() {
    let settings = PublicNetwork {
        provide_strategy: ProvideStrategy::Roots,
        ..dht(&[])
    };
    let alone = Served::start_in(settings).await;
    for content in ["a", "b", "a"] {
        add(&alone, content).await;
    }
    assert_eq!(alone.node.provide_stat().queued, 2);
    assert_eq!(ok(&alone, "provide/clear").await, json!(2));
    assert_eq!(ok(&alone, "provide/clear").await, json!(0));
    assert_eq!(
        ok(&alone, "provide/stat").await["Sweep"]["connectivity"]["status"],
        "offline"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bootstrap_peers_are_changed_at_run_time() {
    let server = Served::start_in(dht(&[])).await;
    let address = server.node.id().addresses[0].to_string();
    let served = Served::start_in(dht(&[])).await;
    assert_eq!(ok(&served, "bootstrap/list").await, json!({ "Peers": [] }));
    let added = ok(&served, &format!("bootstrap/add?arg={address}")).await;
    assert_eq!(added, json!({ "Peers": [address] }));
    // The new list is in use.
    until(|| served.node.dhts().iter().any(|dht| dht.peers == 1)).await;
    assert_eq!(
        ok(&served, "config?arg=Bootstrap").await["Value"],
        json!([address])
    );
    for (path, why) in [
        ("bootstrap/add", "no bootstrap peers to add"),
        (
            "bootstrap/add?arg=/ip4/127.0.0.1/tcp/1",
            "invalid bootstrap address",
        ),
        ("bootstrap/add?arg=nonsense", "failed to parse multiaddr"),
        ("bootstrap/rm?arg=/ip4/127.0.0.1/tcp/1", "invalid p2p multiaddr"),
        ("config?arg=Bootstrap&arg=x", "maybe use --json?"),
    ] {
        let message = refused(&served, path).await;
        assert!(message.contains(why), "{path}: {message}");
    }
    let peer = server.node.id().peer_id;
    let removed = ok(&served, &format!("bootstrap/rm?arg=/p2p/{peer}")).await;
    assert_eq!(removed, json!({ "Peers": [address] }));
    let set = format!("config?arg=Bootstrap&json=true&arg=[%22{address}%22]");
    ok(&served, &set).await;
    assert_eq!(ok(&served, "bootstrap").await, json!({ "Peers": [address] }));
    assert_eq!(
        ok(&served, "bootstrap/rm/all").await,
        json!({ "Peers": [address] })
    );
    // A private node lists what it would use, and dials nobody.
    let private = Served::start().await;
    let defaults = ok(&private, "bootstrap/add/default").await;
    assert_eq!(defaults["Peers"].as_array().unwrap().len(), 7);
    assert_eq!(ok(&private, "bootstrap/rm?all=true").await, defaults);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peerings_are_connected_and_released() {
    let (served, other) = (Served::start().await, Served::start().await);
    let (id, address) = (other.node.id().peer_id, other.node.id().addresses[0].clone());
    let added = ok(&served, &format!("swarm/peering/add?arg={address}")).await;
    assert_eq!(added, json!({ "ID": id.to_string(), "Status": "success" }));
    until(|| served.node.is_connected(&id)).await;
    let plain = address.to_string().split("/p2p/").next().unwrap().to_owned();
    let list = json!({ "Peers": [{ "Addrs": [plain], "ID": id.to_string() }] });
    assert_eq!(ok(&served, "swarm/peering/ls").await, list);
    // A lost connection is dialled again.
    other.node.disconnect(served.node.id().peer_id).await.unwrap();
    until(|| served.node.is_connected(&id) && other.node.is_connected(&served.node.id().peer_id)).await;
    let removed = ok(&served, &format!("swarm/peering/rm?arg={id}")).await;
    assert_eq!(removed["Status"], "success");
    assert_eq!(ok(&served, "swarm/peering/ls").await, json!({ "Peers": [] }));
    let saved = json!([{ "ID": id.to_string(), "Addrs": [plain] }]).to_string();
    let saved = saved.replace('"', "%22").replace('{', "%7B").replace('}', "%7D");
    ok(
        &served,
        &format!("config?arg=Peering.Peers&json=true&arg={saved}"),
    )
    .await;
    assert_eq!(ok(&served, "swarm/peering/ls").await, list);
    assert_eq!(
        ok(&served, "config?arg=Peering.Peers").await["Value"],
        list["Peers"]
    );
    refused(&served, "swarm/peering/add?arg=/ip4/127.0.0.1/tcp/1").await;
    refused(&served, "swarm/peering/rm?arg=nonsense").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pings_are_answered_and_their_bytes_counted() {
    let (served, other) = (Served::start().await, Served::start().await);
    let (id, address) = (other.node.id().peer_id, other.node.id().addresses[0].clone());
    let pings = lines(&served, &format!("ping?arg={address}&count=2")).await;
    assert_eq!(
        pings[0],
        json!({ "Success": true, "Time": 0, "Text": format!("PING {id}.") })
    );
    assert!(
        pings[1]["Time"].as_u64() > Some(0) && pings[1]["Text"] == "",
        "{pings:?}"
    );
    assert_eq!(pings.len(), 4, "{pings:?}");
    let last = pings[3]["Text"].as_str().unwrap();
    assert!(
        last.starts_with("Average latency: ") && last.ends_with("ms"),
        "{last}"
    );
    let traffic = ok(&served, "stats/bw").await;
    assert!(traffic["TotalIn"].as_u64() >= Some(64), "{traffic}");
    assert!(traffic["TotalOut"].as_u64() >= Some(64), "{traffic}");
    assert!(
        traffic["RateIn"].is_number() && traffic["RateOut"].is_number(),
        "{traffic}"
    );
    let of_peer = ok(&served, &format!("stats/bw?peer={id}")).await;
    assert!(of_peer["TotalIn"].as_u64() >= Some(64), "{of_peer}");
    assert!(of_peer["TotalIn"].as_u64() <= ok(&served, "stats/bw").await["TotalIn"].as_u64());
    let unknown = cluster_ipfs::PeerId::random();
    let of_unknown = ok(&served, &format!("stats/bw?peer={unknown}")).await;
    assert_eq!(of_unknown["TotalIn"].as_u64(), Some(0), "{of_unknown}");
    for (query, expected) in [
        ("peer=x", "failed to parse peer ID: \"x\""),
        ("proto=/ipfs/bitswap/1.2.0", "counts no bytes per protocol"),
        ("peer=x&proto=y", "please only specify peer OR protocol"),
    ] {
        let why = refused(&served, &format!("stats/bw?{query}")).await;
        assert!(why.contains(expected), "{query}: {why}");
    }
    let own = served.node.id().peer_id;
    assert_eq!(
        refused(&served, &format!("ping?arg={own}")).await,
        "error: can't ping self"
    );
    let why = refused(&served, &format!("ping?arg={id}&count=0")).await;
    assert!(why.contains("ping count must be greater than 0"), "{why}");
    let nobody = cluster_ipfs::PeerId::random();
    let unknown = served.post(&format!("ping?arg={nobody}")).await;
    assert_eq!(unknown.lines()[0]["Text"], format!("Looking up peer {nobody}"));
    assert_eq!(unknown.trailer(), Some("peer lookup failed: routing: not found"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routing_tables_are_listed() {
    let nodes = nodes(3).await;
    let tables = lines(&nodes[0], "stats/dht").await;
    assert_eq!(
        (&tables[0]["Name"], &tables[1]["Name"]),
        (&json!("wan"), &json!("lan"))
    );
    let buckets = tables[1]["Buckets"].as_array().unwrap();
    let peers: Vec<&Value> = buckets
        .iter()
        .flat_map(|it| it["Peers"].as_array().unwrap())
        .collect();
    assert_eq!(peers.len(), 2, "{tables:?}");
    assert!(peers.iter().all(|it| it["Connected"] == true), "{peers:?}");
    assert!(
        refused(&nodes[0], "stats/dht?arg=x")
            .await
            .contains("unknown dht type")
    );
    let private = Served::start().await;
    assert_eq!(
        refused(&private, "stats/dht").await,
        "routing service is not a DHT"
    );
}

#[tokio::test]
async fn calls_are_listed_until_they_are_cleared() {
    let served = Served::start().await;
    served.post("version?number=true").await;
    let calls = served.post("diag/cmds").await.json();
    let calls = calls.as_array().unwrap();
    assert_eq!(calls.len(), 2, "{calls:?}");
    assert_eq!(
        (&calls[0]["Command"], &calls[0]["Active"]),
        (&json!("version"), &json!(false))
    );
    assert_eq!(calls[0]["Options"], json!({ "number": "true" }));
    assert_eq!(
        (&calls[1]["Command"], &calls[1]["Active"]),
        (&json!("diag/cmds"), &json!(true))
    );
    assert_eq!(calls[1]["EndTime"], "0001-01-01T00:00:00Z");
    assert_eq!(served.post("diag/cmds/clear").await.text(), "");
    // The call that cleared the log has ended since.
    assert_eq!(served.post("diag/cmds").await.json().as_array().unwrap().len(), 2);
    assert_eq!(served.post("diag/cmds/set-time?arg=0s").await.text(), "");
    assert_eq!(served.post("diag/cmds").await.json().as_array().unwrap().len(), 1);
    assert!(
        refused(&served, "diag/cmds/set-time?arg=soon")
            .await
            .contains("invalid duration")
    );
}
