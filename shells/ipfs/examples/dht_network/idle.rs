//! Resident memory of an idle node that serves the DHT, with many connections. The other ends are in a
//! process of their own.

use crate::servers::{run as run_server, server};
use crate::{Outcome, open};
use cluster_ipfs::Multiaddr;
use cluster_ipfs::settings::{PublicNetwork, Routing};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

/// Runs servers until standard input ends; prints their addresses.
pub(crate) async fn serve(count: usize) -> Outcome<()> {
    for _ in 0..count {
        let (swarm, address) = server(None).await?;
        println!("{address}/p2p/{}", swarm.local_peer_id());
        drop(run_server(swarm));
    }
    let end = || std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
    tokio::task::spawn_blocking(end).await??;
    Ok(())
}

/// Returns the resident memory of this process, in bytes.
fn resident() -> Outcome<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line
        .ok_or("no VmRSS in /proc/self/status")?
        .trim()
        .trim_end_matches(" kB");
    Ok(kib.parse::<u64>()? * 1024)
}

/// Measures the memory, some time after the last connection.
pub(crate) async fn run(connections: usize, settle: Duration) -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    let network = PublicNetwork {
        private: false,
        routing: Routing::Dht,
        connections_low_water: 2 * connections,
        connections_high_water: 2 * connections,
        ..PublicNetwork::default()
    };
    let node = open(folder.path(), network).await?;
    let before = resident()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("idle-servers").arg(connections.to_string());
    let mut others = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(others.stdout.take().ok_or("is piped")?).lines();
    for _ in 0..connections {
        let line = lines.next_line().await?.ok_or("the servers ended")?;
        node.connect(line.parse::<Multiaddr>()?).await?;
    }
    tokio::time::sleep(settle).await;
    let open = node.peers().await.len();
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!(
        "server of the dht with {open} connections and {} peers in its table: {:.0} MiB resident, {:.0} MiB without",
        node.dhts().iter().map(|dht| dht.peers).sum::<usize>(),
        mib(resident()?),
        mib(before)
    );
    Ok(())
}
