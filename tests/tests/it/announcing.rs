//! Announcing pins to the DHT: that of the peers' embedded nodes on loopback. Nothing leaves this machine.

use std::time::Duration;

use cluster_ipfs::settings::{PublicNetwork, Routing};
use cluster_ipfs::{Config, Multiaddr, Node};
use futures::StreamExt;
use serde_json::json;
use tests::{Cluster, Options, Peer, cids, wait_until};

/// Time limit of one search.
const SEARCH: Duration = Duration::from_secs(10);

/// Returns the address of a peer's embedded node.
fn swarm_address(peer: &Peer) -> Multiaddr {
    let id = peer.ipfs("id").unwrap().json();
    let address = id["Addresses"][0].as_str().unwrap();
    address.parse().unwrap()
}

/// Starts a node of the same DHT that is in no cluster.
async fn stranger(bootstrap: Multiaddr) -> (Node, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        path: folder.path().to_owned(),
        swarm_listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
        storage_max: None,
        fixed: std::collections::BTreeMap::new(),
        network: PublicNetwork {
            private: false,
            routing: Routing::Dht,
            bootstrap: vec![bootstrap],
            ..PublicNetwork::default()
        },
    };
    (Node::open(config).await.unwrap(), folder)
}

fn metric(peer: &Peer, line: &str) -> Result<f64, String> {
    let text = peer.try_get("/metrics")?.text();
    let found = text.lines().find_map(|it| it.strip_prefix(line));
    let found = found.and_then(|value| value.trim().parse().ok());
    found.ok_or_else(|| format!("no {line} in the metrics"))
}

/// Starts three peers whose embedded nodes form a DHT.
fn announcing_cluster() -> Cluster {
    let mut cluster = Cluster::prepare(&Options {
        edit: |config| {
            let embedded = &mut config["ipfs_connector"]["embedded"];
            embedded["private"] = json!(false);
            embedded["routing"] = json!("dht");
            embedded["bootstrap"] = json!([]);
            embedded["delegated_routers"] = json!([]);
            embedded["http_retrieval"] = json!(false);
            embedded["lan_discovery"] = json!(false);
            embedded["provide_strategy"] = json!("roots");
        },
        ..Options::default()
    });
    cluster.peers.iter_mut().for_each(Peer::start);
    cluster.wait_ready();
    for peer in &cluster.peers {
        wait_until("the peers' nodes form a DHT", || {
            match metric(peer, "ipfscluster_dht_peers{dht=\"local\"}")? {
                peers if peers >= 2.0 => Ok(()),
                peers => Err(format!("{} has {peers} peers", peer.name)),
            }
        });
    }
    cluster
}

#[test]
fn fresh_pin_is_announced_by_its_holders_and_found_by_a_node_outside_of_the_cluster() {
    let cluster = announcing_cluster();
    let content = cids::bytes(1, 100_000);
    let query = "replication-min=1&replication-max=1&cid-version=1";
    let added = cluster.peers[0].add(query, &[("file", &content)]).unwrap();
    let cid = added[0]["cid"].as_str().unwrap().to_owned();
    cluster.peers[0].wait_state(&cid, "pinned", 1);
    let pin = cluster.peers[0]
        .try_get(&format!("/allocations/{cid}"))
        .unwrap()
        .json();
    let holder = cluster
        .peers
        .iter()
        .find(|peer| pin["allocations"][0] == peer.id.as_str())
        .unwrap();
    wait_until("the holder has announced the pin", || {
        match metric(
            holder,
            "ipfscluster_ipfs_provide_pins_total{result=\"announced\"}",
        )? {
            announced if announced >= 1.0 => Ok(()),
            announced => Err(format!("{announced} announcements")),
        }
    });
    assert_eq!(metric(holder, "ipfscluster_ipfs_provide_lag_seconds"), Ok(0.0));
    let status = cluster.peers[2].try_get(&format!("/pins/{cid}")).unwrap().json();
    let announced = |peer: &Peer| status["peer_map"][&peer.id]["announced"].is_string();
    for peer in &cluster.peers {
        assert_eq!(announced(peer), peer.id == holder.id, "{status}");
    }
    let expected = swarm_address(holder).to_string();
    let bootstrap = swarm_address(&cluster.peers[0]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (node, _folder) = runtime.block_on(stranger(bootstrap));
    let provider = wait_until("a stranger finds the provider", || {
        let search = async {
            let mut found = node.find_providers(&cid.parse().unwrap(), 1);
            tokio::time::timeout(SEARCH, found.next()).await.ok().flatten()
        };
        runtime
            .block_on(search)
            .ok_or_else(|| "no provider yet".to_owned())
    });
    assert!(
        expected.ends_with(&provider.peer.to_string()),
        "{provider:?}, not {expected}"
    );
    let read = runtime.block_on(async {
        use futures::TryStreamExt;
        let parts: Vec<_> = node
            .cat(cid.parse().unwrap(), 0, None)
            .await?
            .try_collect()
            .await?;
        Ok::<_, cluster_ipfs::Error>(parts.concat())
    });
    assert!(read.unwrap() == content);
    runtime.block_on(node.shutdown());
}
