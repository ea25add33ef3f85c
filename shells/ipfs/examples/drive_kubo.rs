//! Makes every call of a cluster peer to a daemon with Kubo's RPC API, and prints the answers:
//!
//! `cargo run -p cluster-ipfs --example drive_kubo -- /ip4/127.0.0.1/tcp/5001`
//!
//! It adds two small blocks, pins and unpins one, and collects garbage: not for a node with content.

use cluster_ipfs::backend::{Backend, PinRequest, PinState};
use cluster_ipfs::kubo::{Client, Config, parse_node_address};
use cluster_ipfs::{Block, Cid, PinMode};
use futures::{TryStreamExt, stream};
use multihash_codetable::{Code, MultihashDigest};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args()
        .nth(1)
        .ok_or("usage: drive_kubo NODE_MULTIADDRESS")?;
    let config = Config {
        node_multiaddress: parse_node_address(&address)?,
        ..Config::default()
    };
    let client = Client::new(config)?;
    let node = Backend::Kubo(client.clone());
    println!("id            {:?}", node.id().await?);
    println!("swarm peers   {:?}", node.swarm_peers().await?);
    println!("repo stat     {:?}", node.repo_stat().await?);
    println!(
        "storage max   {:?}",
        client
            .config_value("Datastore")
            .await
            .map_err(|error| error.to_string())
    );
    let block = |text: &'static str| {
        let hash = Code::Sha2_256.digest(text.as_bytes());
        Block {
            cid: Cid::new_v1(0x55, hash.resize().expect("grows only")),
            data: text.into(),
        }
    };
    let (kept, lost) = (block("drive_kubo keeps this"), block("drive_kubo loses this"));
    // One request each: js-ipfs accepts no more.
    for block in [&kept, &lost] {
        println!(
            "put blocks    {:?}",
            node.put_blocks(stream::iter([Ok(block.clone())])).await?
        );
    }
    assert_eq!(node.get_block(&kept.cid).await?, kept.data);
    for mode in [PinMode::Recursive, PinMode::Direct] {
        assert_eq!(node.pin_status(&kept.cid).await?, PinState::Unpinned);
        let pin = PinRequest {
            mode,
            name: "drive".to_owned(),
            ..PinRequest::recursive(kept.cid)
        };
        node.pin(&pin, &|progress| println!("progress      {progress:?}"))
            .await?;
        assert_eq!(node.pin_status(&kept.cid).await?, PinState::Pinned(mode));
        let pins: Vec<_> = node.pins().try_collect().await?;
        println!("pins          {pins:?}");
        assert!(pins.contains(&(kept.cid, mode)));
        node.unpin(&kept.cid).await?;
        node.unpin(&kept.cid).await?;
    }
    let path = format!("/ipfs/{}", kept.cid).into();
    assert_eq!(node.resolve(&path).await?, kept.cid);
    let collected: Vec<_> = node.repo_gc().try_collect().await?;
    println!("collected     {} blocks", collected.len());
    let missing = PinRequest::recursive(lost.cid);
    let missing = node.pin(&missing, &|_| ());
    match tokio::time::timeout(std::time::Duration::from_secs(3), missing).await {
        Ok(done) => println!(
            "missing       {:?}",
            done.map_err(|error| (error.cause(), error.to_string()))
        ),
        Err(_) => println!("missing       waits, cancelled"),
    }
    println!("all calls done");
    Ok(())
}
