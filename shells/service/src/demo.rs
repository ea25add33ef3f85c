//! A cluster at work, for somebody who has never seen one: three peers on this machine, a file with two
//! copies, and the death of the peer that leads.

mod peers;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use cluster_api::client::Upload;
use cluster_api::{AddParams, GlobalPinInfo, TrackerStatus};
use tokio_util::sync::CancellationToken;

use self::peers::Process;

/// How long each part of the story may take before it counts as not coming true.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the command line says.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The file to add.
    pub file: Option<PathBuf>,
    /// Whether to end after the story.
    pub once: bool,
}

/// Tells the story.
///
/// # Errors
/// A part of it did not come true.
pub async fn run(options: Options, shutdown: CancellationToken) -> anyhow::Result<()> {
    let folder = std::env::temp_dir().join(format!("ipfs-cluster-demo-{}", std::process::id()));
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let told = tokio::select! {
        told = tell(&folder, &options, &shutdown) => told,
        () = shutdown.cancelled() => Ok(()),
    };
    // After a failure the logs are what helps.
    if told.is_ok() {
        let _ = std::fs::remove_dir_all(&folder);
    } else {
        say(&format!(
            "The peers' folders and logs are left in {}",
            folder.display()
        ));
    }
    told
}

async fn tell(folder: &Path, options: &Options, shutdown: &CancellationToken) -> anyhow::Result<()> {
    let program = std::env::current_exe().context("cannot tell where this program is")?;
    let first = match &options.file {
        Some(file) => file.clone(),
        None => sample(folder, "hello.txt", "Hello from a cluster of three!\n")?,
    };
    let second = sample(folder, "second.txt", "Pinned while a peer was down.\n")?;

    step("Three peers start, each with an IPFS node inside");
    let mut peers = peers::prepare(folder, 3)?;
    for peer in &mut peers {
        peer.start(&program)?;
    }
    wait("they have not found each other", &mut peers, async |peers| {
        all_see_all(peers).await
    })
    .await?;
    for peer in &peers {
        say(&format!(
            "    {}  {}  REST 127.0.0.1:{}  IPFS 127.0.0.1:{}",
            peer.name, peer.id, peer.rest, peer.ipfs
        ));
    }
    wait("no leader was elected", &mut peers, async |peers| {
        Ok(leader(peers).is_some())
    })
    .await?;
    let leader = leader(&peers).context("no log says who leads")?;
    say(&format!("    {} was elected to lead", peers[leader].name));

    step(&format!(
        "{} is added with two copies, one of them on {}",
        first.display(),
        peers[leader].name
    ));
    let other = (leader + 1) % 3;
    let third = (leader + 2) % 3;
    let chosen = vec![peers[leader].id.clone(), peers[other].id.clone()];
    let cid = add(&peers[third], &first, chosen).await?;
    say(&format!("    {cid}"));
    wait("the copies are not there", &mut peers, async |peers| {
        copies(&peers[third], &cid, 2).await
    })
    .await?;
    show(&peers[third], &cid).await?;

    step(&format!(
        "{} is killed: it leads, and it holds a copy",
        peers[leader].name
    ));
    peers[leader].kill()?;
    let killed = Instant::now();

    step("A second file is pinned without it");
    let late = add_soon(&mut peers, third, &second).await?;
    say(&format!(
        "    {late}, {:.1} s after the kill",
        killed.elapsed().as_secs_f32()
    ));

    step("The lost copy is made again");
    let (lost, others) = (peers[leader].id.clone(), third);
    wait("the copy was not restored", &mut peers, async |peers| {
        copies_without(&peers[others], &cid, 2, &lost).await
    })
    .await?;
    wait("the second file is not pinned", &mut peers, async |peers| {
        copies(&peers[third], &late, 2).await
    })
    .await?;
    say(&format!(
        "    two living copies again, {:.1} s after the kill",
        killed.elapsed().as_secs_f32()
    ));
    show(&peers[third], &cid).await?;
    show(&peers[third], &late).await?;

    if options.once {
        step("Everything came true");
        return Ok(());
    }
    step("The cluster is yours until Ctrl-C");
    for line in [
        "peers ls".to_owned(),
        format!("status {cid}"),
        "pin ls".to_owned(),
        "add README.md".to_owned(),
        "health metrics freespace".to_owned(),
    ] {
        say(&format!(
            "    ipfs-cluster-ctl --host /ip4/127.0.0.1/tcp/{} {line}",
            peers[third].rest
        ));
    }
    say(&format!(
        "    curl -X POST 'http://127.0.0.1:{}/api/v0/cat?arg={cid}'",
        peers[third].ipfs
    ));
    shutdown.cancelled().await;
    Ok(())
}

fn sample(folder: &Path, name: &str, text: &str) -> anyhow::Result<PathBuf> {
    let path = folder.join(name);
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// Asks until the answer is yes. A question that cannot be answered yet is asked again.
async fn wait(
    what: &str,
    peers: &mut [Process],
    holds: impl AsyncFn(&[Process]) -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let since = Instant::now();
    loop {
        for peer in &mut *peers {
            peer.check()?;
        }
        let last = match holds(peers).await {
            Ok(true) => return Ok(()),
            Ok(false) => String::new(),
            Err(error) => format!(": {error:#}"),
        };
        anyhow::ensure!(since.elapsed() < PATIENCE, "{what} after {PATIENCE:?}{last}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn all_see_all(peers: &[Process]) -> anyhow::Result<bool> {
    for peer in peers {
        let client = peer.client()?;
        let mut ids = client.peers().await?;
        let mut seen = 0;
        while let Some(id) = ids.next().await? {
            seen += usize::from(id.value.error.is_empty());
        }
        // Allocation goes by the metrics: when they have come, everything else has.
        let known = client.metrics("freespace").await?.value.len();
        if seen < peers.len() || known < peers.len() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The last one that a log names.
fn leader(peers: &[Process]) -> Option<usize> {
    let log = std::fs::read_to_string(peers[0].log()).ok()?;
    let line = log
        .lines()
        .rev()
        .find_map(|line| line.split_once("the cluster's leader is "))?;
    peers.iter().position(|peer| line.1.starts_with(&peer.id))
}

async fn add(peer: &Process, file: &Path, allocations: Vec<String>) -> anyhow::Result<String> {
    let mut params = AddParams::default();
    params.pin.replication_factor_min = 2;
    params.pin.replication_factor_max = 2;
    params.pin.user_allocations = allocations;
    params.pin.name = file
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    let upload = Upload::new(&[file.display().to_string()], false, true)?;
    let mut added = peer.client()?.add(upload, &params).await?;
    let mut last = None;
    while let Some(output) = added.next().await? {
        last = Some(output.value.cid);
    }
    last.context("nothing was added")
}

/// Adds while a new leader is being elected: an upload that came too early is made again.
async fn add_soon(peers: &mut [Process], at: usize, file: &Path) -> anyhow::Result<String> {
    let since = Instant::now();
    loop {
        peers[at].check()?;
        match add(&peers[at], file, Vec::new()).await {
            Ok(cid) => return Ok(cid),
            Err(error) if since.elapsed() > PATIENCE => {
                return Err(error.context("the second file was not added"));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}

async fn status(peer: &Process, cid: &str) -> anyhow::Result<GlobalPinInfo> {
    Ok(peer.client()?.status(cid, false).await?.value)
}

async fn copies(peer: &Process, cid: &str, count: usize) -> anyhow::Result<bool> {
    copies_without(peer, cid, count, "").await
}

async fn copies_without(peer: &Process, cid: &str, count: usize, lost: &str) -> anyhow::Result<bool> {
    let status = status(peer, cid).await?;
    let pinned = status
        .peer_map
        .iter()
        .filter(|(id, info)| **id != lost && info.status == TrackerStatus::Pinned);
    Ok(pinned.count() == count && !status.allocations.iter().any(|id| id == lost))
}

async fn show(peer: &Process, cid: &str) -> anyhow::Result<()> {
    let status = status(peer, cid).await?;
    say(&format!("    {}", status.name));
    for info in status.peer_map.values() {
        say(&format!("        {:<8} {}", info.peername, info.status));
    }
    Ok(())
}

fn step(text: &str) {
    if std::io::stdout().is_terminal() {
        say(&format!("\n\u{1b}[1m{text}\u{1b}[0m"));
    } else {
        say(&format!("\n{text}"));
    }
}

fn say(text: &str) {
    // Whoever watched may have gone away.
    let _ = writeln!(std::io::stdout(), "{text}");
}
