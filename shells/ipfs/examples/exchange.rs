//! Measures a node: `add` of a random file, and its transfer by bitswap to another node in another process.
//!
//! ```text
//! cargo run --release -p cluster-ipfs --example exchange -- [MEGABYTES] [FOLDER]
//! ```
//!
//! The second node is this program again. Every figure includes the final fsync; blocks are on disk.

use cluster_ipfs::unixfs::{AddOptions, Metadata};
use cluster_ipfs::{Cid, Config, Multiaddr, Node, PinMode};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Times each figure is taken.
const ROUNDS: u64 = 5;
/// Pins of identity CIDs, and callers that make them.
const PINS: u32 = 40_000;
const CALLERS: u32 = 16;

#[tokio::main]
async fn main() -> Outcome<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [mode, folder, address, cid] = args.as_slice()
        && mode == "fetch"
    {
        return fetch(Path::new(folder), address.parse()?, cid.parse()?).await;
    }
    let megabytes: usize = args.first().map_or(Ok(300), |text| text.parse())?;
    let base = args.get(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let base = base.join(format!("exchange-{}", std::process::id()));
    std::fs::create_dir_all(&base)?;
    let result = measure(megabytes, &base).await;
    std::fs::remove_dir_all(&base)?;
    result
}

async fn open(folder: &Path) -> Outcome<Node> {
    let swarm_listen = vec!["/ip4/127.0.0.1/tcp/0".parse()?];
    Ok(Node::open(Config {
        path: folder.to_owned(),
        swarm_listen,
        storage_max: None,
    })
    .await?)
}

fn random(length: usize, seed: u64) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(length + 8);
    while out.len() < length {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        out.extend_from_slice(&x.to_le_bytes());
    }
    out.truncate(length);
    out
}

fn rate(bytes: usize, since: Instant) -> f64 {
    bytes as f64 / 1e6 / since.elapsed().as_secs_f64()
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}

fn resident_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kib.unwrap_or_default() / 1024.0
}

async fn measure(megabytes: usize, base: &Path) -> Outcome<()> {
    let length = megabytes * 1_000_000;
    let (mut adds, mut fetches) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let node = open(&base.join(format!("a{round}"))).await?;
        let data = random(length, round + 1);
        let started = Instant::now();
        let mut adding = node.add(AddOptions::default())?;
        adding
            .file("f", Metadata::default(), data.as_slice(), |_| {})
            .await?;
        let root = adding.finish(Some(String::new())).await?.roots[0].cid;
        adds.push(rate(length, started));
        drop(data);
        let address = node.id().addresses[0].to_string();
        let folder = base.join(format!("b{round}"));
        let mut child = Command::new(std::env::current_exe()?);
        child.args([
            "fetch",
            &folder.display().to_string(),
            &address,
            &root.to_string(),
        ]);
        let child = child.stdout(Stdio::piped()).spawn()?;
        let output = tokio::task::spawn_blocking(|| child.wait_with_output()).await??;
        let text = String::from_utf8(output.stdout)?;
        let seconds: f64 = text
            .trim()
            .parse()
            .map_err(|_| format!("the other node said {text:?}"))?;
        fetches.push(length as f64 / 1e6 / seconds);
        println!(
            "round {round}: add {:.0} MB/s, bitswap {:.0} MB/s",
            adds[adds.len() - 1],
            fetches[fetches.len() - 1]
        );
        node.shutdown().await;
    }
    println!("add {megabytes} MB: median {:.0} MB/s", median(adds));
    println!("bitswap {megabytes} MB: median {:.0} MB/s", median(fetches));
    pins(&base.join("pins")).await
}

async fn pins(folder: &Path) -> Outcome<()> {
    let node = open(folder).await?;
    let started = Instant::now();
    let callers = (0..CALLERS).map(|caller| {
        let node = node.clone();
        tokio::spawn(async move {
            for i in 0..PINS / CALLERS {
                let digest = [caller.to_be_bytes(), i.to_be_bytes()].concat();
                let cid = Cid::new_v1(
                    0x55,
                    cid::multihash::Multihash::wrap(0, &digest).unwrap_or_default(),
                );
                node.pin(cid, PinMode::Recursive, String::new(), |_| {}).await?;
            }
            Ok::<(), cluster_ipfs::Error>(())
        })
    });
    for caller in futures::future::join_all(callers).await {
        caller??;
    }
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "pins of identity CIDs, {CALLERS} callers: {:.0}/s",
        f64::from(PINS) / seconds
    );
    println!("resident memory: {:.0} MB", resident_mb());
    Ok(())
}

async fn fetch(folder: &Path, address: Multiaddr, cid: Cid) -> Outcome<()> {
    let node = open(folder).await?;
    node.connect(address).await?;
    let started = Instant::now();
    node.pin(cid, PinMode::Recursive, String::new(), |_| {}).await?;
    println!("{}", started.elapsed().as_secs_f64());
    node.shutdown().await;
    Ok(())
}
