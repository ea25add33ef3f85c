//! Measures a node in networks of many small DHT servers on loopback; nothing leaves this machine. Each
//! measurement is a command:
//!
//! ```sh
//! cargo run --release -p cluster-ipfs --example dht_network -- dht 100 20 15
//! ```
//!
//! | command and default arguments | measured |
//! |---|---|
//! | `dht 100 20 15`: servers, % of dead entries, rounds | announcing and finding new content; a pin |
//! | `http 15`: rounds | a pin through a delegated router and a gateway |
//! | `sweep 100000 60 600`: roots, servers, interval in seconds | records per root; roots without one |
//! | `links 300 10`: MB, MB/s of a link | a pin from one and from three providers |
//! | `idle 300 60`: connections, seconds until the measurement | resident memory of a server of the DHT |

mod finding;
mod idle;
mod links;
mod servers;
mod sweep;

use cluster_ipfs::settings::PublicNetwork;
use cluster_ipfs::{Cid, Config, Node};
use multihash_codetable::{Code, MultihashDigest};
use std::error::Error;
use std::path::Path;
use std::time::Duration;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Opens a node on loopback in a folder.
async fn open(folder: &Path, network: PublicNetwork) -> Outcome<Node> {
    let node = Node::open(Config {
        path: folder.to_owned(),
        swarm_listen: vec!["/ip4/127.0.0.1/tcp/0".parse()?],
        storage_max: None,
        network,
        fixed: std::collections::BTreeMap::new(),
    });
    Ok(node.await?)
}

/// Returns the CID of a raw block.
fn raw_cid(data: &[u8]) -> Outcome<Cid> {
    Ok(Cid::new_v1(0x55, Code::Sha2_256.digest(data).resize()?))
}

/// Prints the distribution of times.
fn print_times(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |part: usize| times[(times.len() * part / 100).min(times.len() - 1)];
    println!("{what}: p50 {:?}, p95 {:?}, max {:?}", at(50), at(95), at(100));
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next().unwrap_or_default();
    let mut number =
        |default: usize| -> Outcome<usize> { Ok(arguments.next().map_or(Ok(default), |text| text.parse())?) };
    match command.as_str() {
        "dht" => finding::through_the_dht(number(100)?, number(20)?, number(15)?).await,
        "http" => finding::over_http(number(15)?).await,
        "sweep" => {
            let (roots, servers, seconds) = (number(100_000)?, number(60)?, number(600)?);
            sweep::run(roots, servers, Duration::from_secs(seconds as u64)).await
        }
        "links" => links::run(number(300)? * 1_000_000, number(10)? * 1_000_000).await,
        "idle" => {
            let (connections, seconds) = (number(300)?, number(60)?);
            idle::run(connections, Duration::from_secs(seconds as u64)).await
        }
        // Started by `idle` as a process of its own.
        "idle-servers" => idle::serve(number(300)?).await,
        _ => Err("usage: dht_network dht|http|sweep|links|idle [NUMBERS]".into()),
    }
}
