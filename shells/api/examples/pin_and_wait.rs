//! Pins a CID in a running cluster, and waits until all peers that must hold it do:
//!
//! `cargo run -p cluster-api --example pin_and_wait -- /ip4/127.0.0.1/tcp/9094 bafkqablimvwgy3y`

use std::error::Error;
use std::time::Duration;

use cluster_api::client::Options;
use cluster_api::{Client, PinOptions, TrackerStatus};

/// Returns the names of the peers that hold the content.
pub async fn pin_and_wait(host: &str, cid: &str) -> Result<Vec<String>, Box<dyn Error>> {
    let client = Client::new(host, Options::default())?;
    client.pin(cid, &PinOptions::default()).await?;
    loop {
        let status = client.status(cid, false).await?.value;
        let mut pinned = Vec::new();
        let mut waiting = false;
        for peer in status.peer_map.into_values() {
            if peer.status == TrackerStatus::Pinned {
                pinned.push(peer.peername);
            } else if peer.status == TrackerStatus::PinError {
                return Err(format!("{}: {}", peer.peername, peer.error).into());
            } else if peer.status != TrackerStatus::Remote {
                // Remote: it is allocated to other peers only.
                waiting = true;
            }
        }
        if !waiting && !pinned.is_empty() {
            return Ok(pinned);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(host), Some(cid)) = (arguments.next(), arguments.next()) else {
        return Err("arguments: the address of a peer's REST API, and a CID".into());
    };
    println!("pinned by {}", pin_and_wait(&host, &cid).await?.join(", "));
    Ok(())
}
