//! Benchmark of a node: `add` of a random file, its transfer by bitswap to a node in another process, blocks
//! of several sizes put, read and removed, and pins of identity CIDs.
//!
//! ```text
//! cargo run --release -p cluster-ipfs --example exchange -- [MEGABYTES] [FOLDER] [PINS]
//! ```
//!
//! The other nodes are child processes of this program. Every figure includes the final fsync; blocks are on
//! disk. The limits of the machine are measured in each round, as it may have other work: SHA-256 on one
//! core, and as many bytes written to a plain file and synced.

use bytes::Bytes;
use cid::multihash::Multihash;
use cluster_ipfs::unixfs::{AddOptions, Metadata};
use cluster_ipfs::{Block, Cid, Config, Multiaddr, Node, PinFilter, PinMode};
use futures::StreamExt;
use multihash_codetable::{Code, MultihashDigest};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Number of measurements of each figure.
const ROUNDS: u64 = 5;
/// Default number of pins of identity CIDs, and of concurrent callers that make them.
const PINS: u32 = 40_000;
const CALLERS: u32 = 16;
/// Sizes of blocks, and total size of the blocks of one size, in bytes.
const SIZES: [usize; 5] = [1 << 10, 4 << 10, 8 << 10, 16 << 10, 64 << 10];
const SIZED_BYTES: usize = 64_000_000;
/// Ticks per second of the times in `/proc/self/stat`.
const TICKS: f64 = 100.0;

#[tokio::main]
async fn main() -> Outcome<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [mode, folder, address, cid] = args.as_slice()
        && mode == "fetch"
    {
        return fetch(Path::new(folder), address.parse()?, cid.parse()?).await;
    }
    if let [mode, folder, count] = args.as_slice()
        && mode == "pins"
    {
        return pins(Path::new(folder), count.parse()?).await;
    }
    let megabytes: usize = args.first().map_or(Ok(300), |text| text.parse())?;
    let base = args.get(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let base = base.join(format!("exchange-{}", std::process::id()));
    std::fs::create_dir_all(&base)?;
    let count = args.get(2).map_or(Ok(PINS), |text| text.parse())?;
    let mut result = measure(megabytes, &base).await;
    for size in SIZES {
        if result.is_ok() {
            result = blocks(&base.join(format!("blocks{size}")), size).await;
        }
    }
    if result.is_ok() {
        let folder = base.join("pins").display().to_string();
        let text = child(&["pins", &folder, &count.to_string()]).await;
        result = text.map(|text| print!("{text}"));
    }
    std::fs::remove_dir_all(&base)?;
    result
}

async fn open(folder: &Path) -> Outcome<Node> {
    let swarm_listen = vec!["/ip4/127.0.0.1/tcp/0".parse()?];
    Ok(Node::open(Config {
        path: folder.to_owned(),
        swarm_listen,
        storage_max: None,
        network: cluster_ipfs::PublicNetwork::default(),
        fixed: std::collections::BTreeMap::new(),
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

/// Returns the processor time that this process has used, seconds.
fn processor() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = rest.split_whitespace().skip(11).take(2);
    ticks.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / TICKS
}

/// Runs this program as a child process and returns its output.
async fn child(args: &[&str]) -> Outcome<String> {
    let mut child = Command::new(std::env::current_exe()?);
    let child = child.args(args).stdout(Stdio::piped()).spawn()?;
    let output = tokio::task::spawn_blocking(|| child.wait_with_output()).await??;
    Ok(String::from_utf8(output.stdout)?)
}

fn limits(data: &[u8], file: &Path) -> Outcome<(f64, f64)> {
    let started = Instant::now();
    for chunk in data.chunks(256 << 10) {
        std::hint::black_box(Code::Sha2_256.digest(chunk));
    }
    let sha = rate(data.len(), started);
    let started = Instant::now();
    let mut out = std::fs::File::create(file)?;
    for chunk in data.chunks(1 << 20) {
        out.write_all(chunk)?;
    }
    out.sync_data()?;
    let disk = rate(data.len(), started);
    std::fs::remove_file(file)?;
    Ok((sha, disk))
}

async fn measure(megabytes: usize, base: &Path) -> Outcome<()> {
    let length = megabytes * 1_000_000;
    let mut figures: [Vec<f64>; 4] = Default::default();
    for round in 0..ROUNDS {
        let data = random(length, round + 1);
        let (sha, disk) = limits(&data, &base.join("limit"))?;
        let node = open(&base.join(format!("a{round}"))).await?;
        let (started, used) = (Instant::now(), processor());
        let mut upload = node.add(AddOptions::default())?;
        upload
            .file("f", Metadata::default(), data.as_slice(), |_| {})
            .await?;
        // Without directories nothing is sent.
        let (directories, _) = tokio::sync::mpsc::channel(1);
        let root = upload.finish(Some(String::new()), directories).await?[0].cid;
        let add = rate(length, started);
        let add_cost = (processor() - used) * 1e3 / megabytes as f64;
        drop(data);
        let address = node.id().addresses[0].to_string();
        let folder = base.join(format!("b{round}")).display().to_string();
        let used = processor();
        let text = child(&["fetch", &folder, &address, &root.to_string()]).await?;
        let serve_cost = (processor() - used) * 1e3 / megabytes as f64;
        let times: Vec<f64> = text
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        let [seconds, used] = times.as_slice() else {
            return Err(format!("the other node said {text:?}").into());
        };
        let fetch = length as f64 / 1e6 / seconds;
        println!(
            "round {round}: add {add:.0} MB/s ({add_cost:.2} ms of processor per MB), bitswap {fetch:.0} MB/s \
             ({serve_cost:.2} + {:.2}); SHA-256 {sha:.0} MB/s, write and sync {disk:.0} MB/s",
            used * 1e3 / megabytes as f64
        );
        for (figures, figure) in figures.iter_mut().zip([add, fetch, sha, disk]) {
            figures.push(figure);
        }
        node.shutdown().await;
    }
    let [add, fetch, sha, disk] = figures.map(median);
    println!(
        "{megabytes} MB, medians: add {add:.0} MB/s, bitswap {fetch:.0} MB/s; limits: SHA-256 {sha:.0} MB/s, \
         write and sync {disk:.0} MB/s"
    );
    Ok(())
}

async fn blocks(folder: &Path, size: usize) -> Outcome<()> {
    let node = open(folder).await?;
    let data = Bytes::from(random(SIZED_BYTES / size * size, size as u64));
    let block = |data: Bytes| Block {
        cid: Cid::new_v1(0x55, Code::Sha2_256.digest(&data).resize().expect("grows only")),
        data,
    };
    let blocks: Vec<Block> = (0..data.len() / size)
        .map(|at| block(data.slice(at * size..(at + 1) * size)))
        .collect();
    let (started, used) = (Instant::now(), processor());
    for group in blocks.chunks((1 << 20) / size) {
        node.put_many(group.to_vec()).await?;
    }
    node.sync().await?;
    let (put, put_cost) = (rate(data.len(), started), processor() - used);
    let (started, used) = (Instant::now(), processor());
    for block in &blocks {
        if node.get_local(&block.cid)?.as_ref() != Some(&block.data) {
            return Err(format!("{} is not what was put", block.cid).into());
        }
    }
    let (got, got_cost) = (rate(data.len(), started), processor() - used);
    let started = Instant::now();
    let removed = node.gc().count().await;
    println!(
        "blocks of {size} bytes: put {put:.0} MB/s ({:.2} ms of processor per MB), read {got:.0} MB/s ({:.2}), \
         {removed} collected in {:.2} s",
        put_cost * 1e9 / data.len() as f64,
        got_cost * 1e9 / data.len() as f64,
        started.elapsed().as_secs_f64()
    );
    node.shutdown().await;
    Ok(())
}

async fn pins(folder: &Path, count: u32) -> Outcome<()> {
    let node = open(folder).await?;
    let before = resident_mb();
    let callers = if count > PINS { CALLERS * 16 } else { CALLERS };
    let started = Instant::now();
    let tasks = (0..callers).map(|caller| {
        let node = node.clone();
        tokio::spawn(async move {
            for i in 0..count / callers {
                let digest = [caller.to_be_bytes(), i.to_be_bytes()].concat();
                let cid = Cid::new_v1(0x55, Multihash::wrap(0, &digest).unwrap_or_default());
                node.pin(cid, PinMode::Recursive, String::new(), |_| {}).await?;
            }
            Ok::<(), cluster_ipfs::Error>(())
        })
    });
    for task in futures::future::join_all(tasks).await {
        task??;
    }
    let rate = f64::from(count) / started.elapsed().as_secs_f64();
    let pinned = resident_mb();
    let started = Instant::now();
    let listed = node.pins(PinFilter::default()).count().await;
    println!(
        "{count} pins of identity CIDs, {callers} callers: {rate:.0}/s; {listed} listed in {:.2} s",
        started.elapsed().as_secs_f64()
    );
    println!(
        "resident memory: {before:.0} MB when opened, {pinned:.0} MB with the pins, {:.0} MB after listing them",
        resident_mb()
    );
    node.shutdown().await;
    Ok(())
}

async fn fetch(folder: &Path, address: Multiaddr, cid: Cid) -> Outcome<()> {
    let node = open(folder).await?;
    node.connect(address).await?;
    let started = Instant::now();
    node.pin(cid, PinMode::Recursive, String::new(), |_| {}).await?;
    println!("{} {}", started.elapsed().as_secs_f64(), processor());
    node.shutdown().await;
    Ok(())
}
