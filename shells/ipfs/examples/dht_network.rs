//! Measures finding and being found in a DHT of many small servers on loopback, some of whose table entries
//! are dead: the time from a pin to its completion when the only provider is known through the DHT, and the
//! time until a record of new content is found by another node.
//!
//! ```sh
//! cargo run --release -p cluster-ipfs --example dht_network -- 100 20 15   # servers, dead %, rounds
//! ```

use cluster_ipfs::settings::{PublicNetwork, Routing};
use cluster_ipfs::{Block, Cid, Config, Multiaddr, Node, PeerId, PinMode};
use futures::StreamExt;
use libp2p::swarm::{NetworkBehaviour, StreamProtocol, SwarmEvent};
use libp2p::{Swarm, SwarmBuilder, identify, kad, noise, tcp, yamux};
use multihash_codetable::{Code, MultihashDigest};
use std::error::Error;
use std::time::{Duration, Instant};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

#[derive(NetworkBehaviour)]
struct Server {
    identify: identify::Behaviour,
    kad: kad::Behaviour<kad::store::MemoryStore>,
}

/// Creates a server that listens on loopback.
async fn server() -> Outcome<(Swarm<Server>, Multiaddr)> {
    let mut swarm = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(
            tcp::Config::new().nodelay(true),
            noise::Config::new,
            yamux::Config::default,
        )?
        .with_behaviour(|key| {
            let id = key.public().to_peer_id();
            let config = kad::Config::new(StreamProtocol::new("/ipfs/lan/kad/1.0.0"));
            let mut kad = kad::Behaviour::with_config(id, kad::store::MemoryStore::new(id), config);
            kad.set_mode(Some(kad::Mode::Server));
            let identify = identify::Config::new("/ipfs/id/1.0.0".into(), key.public());
            Server {
                identify: identify::Behaviour::new(identify),
                kad,
            }
        })?
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(60)))
        .build();
    swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse()?)?;
    loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            return Ok((swarm, address));
        }
    }
}

/// Runs a network in which each server knows some others and some dead ones. Returns addresses of a few.
async fn network(count: usize, dead_percent: usize) -> Outcome<Vec<Multiaddr>> {
    let mut servers = Vec::new();
    for _ in 0..count {
        servers.push(server().await?);
    }
    let known: Vec<(PeerId, Multiaddr)> = servers
        .iter()
        .map(|(swarm, address)| (*swarm.local_peer_id(), address.clone()))
        .collect();
    let dead: Vec<(PeerId, Multiaddr)> = (0..count * dead_percent / 100)
        .map(|number| {
            let address = format!("/ip4/127.0.0.1/tcp/{}", 1 + number % 9);
            Ok((PeerId::random(), address.parse()?))
        })
        .collect::<Outcome<_>>()?;
    for (mut swarm, _) in servers {
        for (peer, address) in known.iter().chain(&dead) {
            if peer != swarm.local_peer_id() {
                swarm.behaviour_mut().kad.add_address(peer, address.clone());
            }
        }
        tokio::spawn(async move {
            loop {
                swarm.select_next_some().await;
            }
        });
    }
    let entries = known.iter().take(4);
    Ok(entries
        .map(|(peer, address)| {
            address
                .clone()
                .with_p2p(*peer)
                .map_err(|_| "an address of another peer")
        })
        .collect::<Result<_, _>>()?)
}

async fn node(folder: &tempfile::TempDir, name: &str, bootstrap: &[Multiaddr]) -> Outcome<Node> {
    let node = Node::open(Config {
        path: folder.path().join(name),
        swarm_listen: vec!["/ip4/127.0.0.1/tcp/0".parse()?],
        storage_max: None,
        network: PublicNetwork {
            private: false,
            routing: Routing::DhtClient,
            bootstrap: bootstrap.to_vec(),
            ..PublicNetwork::default()
        },
    })
    .await?;
    while node.dhts().iter().all(|dht| dht.peers < 4) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(node)
}

fn shown(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |part: usize| times[(times.len() * part / 100).min(times.len() - 1)];
    println!("{what}: p50 {:?}, p95 {:?}, max {:?}", at(50), at(95), at(100));
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: usize| -> Outcome<usize> {
        Ok(arguments
            .next()
            .map(|text| text.parse())
            .transpose()?
            .unwrap_or(default))
    };
    let (count, dead, rounds) = (number(100)?, number(20)?, number(15)?);
    let bootstrap = network(count, dead).await?;
    println!("{count} servers, {dead} % dead entries");
    let (mut provided, mut findable, mut pinned) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        let folder = tempfile::tempdir()?;
        let holder = node(&folder, "holder", &bootstrap).await?;
        let fetcher = node(&folder, "fetcher", &bootstrap).await?;
        let data = format!("content of round {round}").into_bytes();
        let cid = Cid::new_v1(0x55, Code::Sha2_256.digest(&data).resize()?);
        holder
            .put(Block {
                cid,
                data: data.into(),
            })
            .await?;
        let start = Instant::now();
        let searching = async {
            while fetcher.find_providers(&cid, 1).next().await.is_none() {}
            start.elapsed()
        };
        let (records, found) = tokio::join!(holder.provide(&cid), searching);
        records?;
        provided.push(start.elapsed());
        findable.push(found);
        let other = node(&folder, "other", &bootstrap).await?;
        let start = Instant::now();
        other.pin(cid, PinMode::Recursive, String::new(), |_| {}).await?;
        pinned.push(start.elapsed());
        for node in [holder, fetcher, other] {
            node.shutdown().await;
        }
    }
    shown("new content announced to all servers", provided);
    shown("new content found by another node", findable);
    shown("pin found through the dht, to its completion", pinned);
    Ok(())
}
