//! Time until content is found: through the DHT, and through a delegated router over HTTP.

use crate::servers::network;
use crate::{Outcome, open, print_times, raw_cid};
use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use cluster_ipfs::settings::{PublicNetwork, Routing};
use cluster_ipfs::{Block, Cid, Multiaddr, Node, PeerId, PinMode, gateway};
use futures::StreamExt;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;

/// Opens a client of the DHT, and waits until it has joined.
async fn client(folder: &Path, bootstrap: &[Multiaddr]) -> Outcome<Node> {
    let network = PublicNetwork {
        private: false,
        routing: Routing::DhtClient,
        bootstrap: bootstrap.to_vec(),
        ..PublicNetwork::default()
    };
    let node = open(folder, network).await?;
    while node.dhts().iter().all(|dht| dht.peers < 4) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(node)
}

/// Stores a new block.
async fn put(node: &Node, round: usize) -> Outcome<Cid> {
    let data = format!("content of round {round}").into_bytes();
    let cid = raw_cid(&data)?;
    let block = Block {
        cid,
        data: data.into(),
    };
    node.put(block).await?;
    Ok(cid)
}

/// Measures a pin.
async fn pin(node: &Node, cid: Cid) -> Outcome<Duration> {
    let start = Instant::now();
    node.pin(cid, PinMode::Recursive, String::new(), |_| {}).await?;
    Ok(start.elapsed())
}

/// Measures announcing and finding in a DHT, some of whose table entries are dead.
pub(crate) async fn through_the_dht(count: usize, dead: usize, rounds: usize) -> Outcome<()> {
    let bootstrap = network(count, dead, None).await?;
    let (mut provided, mut findable, mut pinned) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        let folder = tempfile::tempdir()?;
        let holder = client(&folder.path().join("holder"), &bootstrap).await?;
        let finder = client(&folder.path().join("finder"), &bootstrap).await?;
        let cid = put(&holder, round).await?;
        let start = Instant::now();
        let searching = async {
            while finder.find_providers(&cid, 1).next().await.is_none() {}
            start.elapsed()
        };
        let (records, found) = tokio::join!(holder.provide(&cid), searching);
        records?;
        provided.push(start.elapsed());
        findable.push(found);
        let other = client(&folder.path().join("other"), &bootstrap).await?;
        pinned.push(pin(&other, cid).await?);
        let times = (provided.last(), found, pinned.last());
        eprintln!("round {round}: announced, found, pinned after {times:?}");
        for node in [holder, finder, other] {
            node.shutdown().await;
        }
    }
    let network = format!("{count} servers, {dead} % dead entries");
    print_times(
        &format!("{network}: new content announced to all servers"),
        provided,
    );
    print_times(&format!("{network}: new content found by another node"), findable);
    print_times(
        &format!("{network}: pin found through the dht, to its completion"),
        pinned,
    );
    Ok(())
}

/// Starts a delegated router that reports one gateway for everything. Returns its URL.
async fn router(gateway: u16) -> Outcome<String> {
    let record = format!(
        r#"{{"Providers":[{{"Schema":"peer","ID":"{}","Addrs":["/ip4/127.0.0.1/tcp/{gateway}/http"],"Protocols":["transport-ipfs-gateway-http"]}}]}}"#,
        PeerId::random()
    );
    let answer = move || std::future::ready(([(CONTENT_TYPE, "application/json")], record));
    let routes = Router::new().route("/routing/v1/providers/{cid}", get(answer));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, routes).await });
    Ok(url)
}

/// Measures a pin whose only provider is a gateway that a delegated router reports.
pub(crate) async fn over_http(rounds: usize) -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    let holder = open(&folder.path().join("holder"), PublicNetwork::default()).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = router(listener.local_addr()?.port()).await?;
    let settings = gateway::Settings::default();
    let served = gateway::serve(
        holder.clone(),
        settings,
        listener.try_into()?,
        std::future::pending(),
    );
    tokio::spawn(served);
    let mut pinned = Vec::new();
    for round in 0..rounds {
        let cid = put(&holder, round).await?;
        let network = PublicNetwork {
            private: false,
            routing: Routing::Delegated,
            delegated_routers: vec![url.parse()?],
            http_retrieval: true,
            ..PublicNetwork::default()
        };
        let fetcher = open(&folder.path().join(round.to_string()), network).await?;
        pinned.push(pin(&fetcher, cid).await?);
        fetcher.shutdown().await;
    }
    print_times(
        "pin through a delegated router and a gateway, to its completion",
        pinned,
    );
    Ok(())
}
