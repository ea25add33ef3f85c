//! Embedded nodes on real disks and sockets: restarts, exchange, repair.

mod admission;
mod content;
mod exchange;
mod keeping;
mod public;
mod reachability;
mod repairing;

use cluster_ipfs::unixfs::{AddOptions, Chunker, Metadata};
use cluster_ipfs::{Block, Cid, Collected, Config, Error, Node, PinMode, Upload};
use futures::TryStreamExt;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Far longer than any test here takes, even on a busy machine.
const SOON: Duration = Duration::from_secs(240);

fn config(path: &Path, storage_max: Option<u64>) -> Config {
    Config {
        path: path.to_owned(),
        swarm_listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
        storage_max,
        network: cluster_ipfs::PublicNetwork::default(),
        fixed: std::collections::BTreeMap::new(),
    }
}

async fn open(path: &Path, storage_max: Option<u64>) -> Result<Node, Error> {
    Node::open(config(path, storage_max)).await
}

/// Opens a folder that this process has closed. A child process forked by another test still holds the lock,
/// like all files open at the fork, until it calls exec.
async fn reopen(config: Config) -> Node {
    let began = std::time::Instant::now();
    loop {
        match Node::open(config.clone()).await {
            Err(Error::Locked(_)) if began.elapsed() < SOON => tokio::time::sleep(SOON / 10_000).await,
            opened => return opened.unwrap(),
        }
    }
}

async fn node() -> (Node, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (open(folder.path(), None).await.unwrap(), folder)
}

async fn connect_nodes(from: &Node, to: &Node) {
    from.connect(to.id().addresses.first().unwrap().clone())
        .await
        .unwrap();
}

/// Returns bytes in which no chunk repeats.
fn content(length: usize, seed: u64) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::repeat_with(|| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x.to_le_bytes()
    })
    .take(length / 8 + 1)
    .flatten()
    .take(length)
    .collect()
}

fn raw(data: &[u8]) -> Block {
    use multihash_codetable::{Code, MultihashDigest};
    Block {
        cid: Cid::new_v1(0x55, Code::Sha2_256.digest(data).resize().expect("grows only")),
        data: data.to_vec().into(),
    }
}

/// Options for a file of many small chunks, so that its tree is three levels deep.
fn deep() -> AddOptions {
    AddOptions {
        chunker: Chunker::Size(256),
        max_file_links: 20,
        ..AddOptions::default()
    }
}

async fn add(node: &Node, options: AddOptions, data: &[u8], pin: Option<&str>) -> Cid {
    let mut upload = node.add(options).unwrap();
    upload.file("f", Metadata::default(), data, |_| {}).await.unwrap();
    finish(upload, pin).await.unwrap()
}

/// Returns the first root; ignores the directories reported.
async fn finish(upload: Upload, pin: Option<&str>) -> Result<Cid, Error> {
    let (directories, mut lines) = mpsc::channel(1);
    tokio::spawn(async move { while lines.recv().await.is_some() {} });
    Ok(upload.finish(pin.map(str::to_owned), directories).await?[0].cid)
}

async fn cat(node: &Node, cid: Cid, offset: u64, length: Option<u64>) -> Vec<u8> {
    let parts: Vec<_> = node
        .cat(cid, offset, length)
        .await
        .unwrap()
        .try_collect()
        .await
        .unwrap();
    parts.concat()
}

/// Collects garbage; returns the blocks removed.
async fn collect(node: &Node) -> Vec<Cid> {
    let steps: Vec<Collected> = node.gc().try_collect().await.unwrap();
    let removed = steps.into_iter().filter_map(|step| match step {
        Collected::Removed(cid) => Some(cid),
        Collected::Freed { .. } => None,
    });
    removed.collect()
}

/// Returns bytes, blocks and pins of a node; its other statistics change with the free space of the disk.
fn held(node: &Node) -> (u64, u64, u64) {
    let stat = node.stat().unwrap();
    (stat.repo_size, stat.num_objects, stat.num_pins)
}

async fn pin(node: &Node, cid: Cid) {
    timeout(SOON, node.pin(cid, PinMode::Recursive, String::new(), |_| {}))
        .await
        .expect("in time")
        .unwrap();
}
