//! Runs an embedded node with its API until interrupted, for trying clients against it:
//!
//! `cargo run -p cluster-ipfs --example embedded_node -- FOLDER [API_ADDRESS]`
//!
//! It prints two lines: the address of the API, and an address of its swarm.

use std::path::PathBuf;

use cluster_ipfs::{Config, Node, api};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let folder = args.next().ok_or("usage: embedded_node FOLDER [API_ADDRESS]")?;
    let listener = tokio::net::TcpListener::bind(args.next().unwrap_or("127.0.0.1:0".to_owned())).await?;
    let swarm_listen = vec!["/ip4/127.0.0.1/tcp/0".parse()?];
    let node = Node::open(Config {
        path: PathBuf::from(folder),
        swarm_listen,
        storage_max: None,
        network: cluster_ipfs::PublicNetwork::default(),
        fixed: std::collections::BTreeMap::new(),
    })
    .await?;
    println!("{}", listener.local_addr()?);
    for address in node.id().addresses.iter().take(1) {
        println!("{address}");
    }
    let requested = node.shutdown_requested();
    let ended = async {
        tokio::select! {
            // Without the signal the process can only be killed, or ended by a client.
            _ = tokio::signal::ctrl_c() => {}
            () = requested => {}
        }
    };
    api::serve(node.clone(), listener.try_into()?, ended).await;
    node.shutdown().await;
    Ok(())
}
