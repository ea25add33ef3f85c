//! A demonstration of a cluster: three peers on this machine, a file with two copies, and the failure of
//! the leader.

mod peers;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use cluster_api::client::Upload;
use cluster_api::{AddParams, GlobalPinInfo, TrackerStatus};
use tokio_util::sync::CancellationToken;

use self::peers::Process;

/// Time limit of each step of the demonstration.
const PATIENCE: Duration = Duration::from_secs(120);

/// Options of the `demo` command.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The file to add.
    pub file: Option<PathBuf>,
    /// End after the last step.
    pub once: bool,
}

/// Runs the demonstration.
///
/// # Errors
/// A step failed or took longer than two minutes.
pub async fn run(options: Options, shutdown: CancellationToken) -> anyhow::Result<()> {
    let folder = std::env::temp_dir().join(format!("ipfs-cluster-demo-{}", std::process::id()));
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let outcome = tokio::select! {
        outcome = show_steps(&folder, &options, &shutdown) => outcome,
        () = shutdown.cancelled() => Ok(()),
    };
    // After a failure the logs are kept.
    if outcome.is_ok() {
        let _ = std::fs::remove_dir_all(&folder);
    } else {
        print_line(&format!(
            "The peers' folders and logs are left in {}",
            folder.display()
        ));
    }
    outcome
}

async fn show_steps(folder: &Path, options: &Options, shutdown: &CancellationToken) -> anyhow::Result<()> {
    let first = match &options.file {
        Some(file) => file.clone(),
        None => sample(folder, "hello.txt", "Hello from a cluster of three!\n")?,
    };
    let second = sample(folder, "second.txt", "Pinned while a peer was down.\n")?;

    let mut story = Story::begin(folder).await?;
    let cid = story.add_first(&first).await?;
    story.kill_leader()?;
    let late = story.add_second(&second).await?;
    story.see_restored(&cid, &late).await?;
    if options.once {
        step("All steps succeeded");
        return Ok(());
    }
    story.hand_over(&cid);
    shutdown.cancelled().await;
    Ok(())
}

/// The three peers and their roles.
struct Story {
    peers: Vec<Process>,
    /// Leader and holder of a copy, until it is killed.
    leader: usize,
    /// Holder of the other copy.
    holder: usize,
    /// The peer that is queried, and that gets the lost copy.
    survivor: usize,
    killed: Instant,
}

impl Story {
    async fn begin(folder: &Path) -> anyhow::Result<Self> {
        step("Three peers start, each with an IPFS node inside");
        let program = std::env::current_exe().context("cannot find the path of this program")?;
        let mut peers = peers::prepare(folder, 3)?;
        for peer in &mut peers {
            peer.start(&program)?;
        }
        wait("they have not found each other", &mut peers, async |peers| {
            all_see_all(peers).await
        })
        .await?;
        for peer in &peers {
            print_line(&format!(
                "    {}  {}  REST 127.0.0.1:{}  IPFS 127.0.0.1:{}",
                peer.name, peer.id, peer.rest, peer.ipfs
            ));
        }
        wait("no leader was elected", &mut peers, async |peers| {
            Ok(leader(peers).is_some())
        })
        .await?;
        let leader = leader(&peers).context("no log says who leads")?;
        print_line(&format!("    {} was elected to lead", peers[leader].name));
        Ok(Self {
            peers,
            leader,
            holder: (leader + 1) % 3,
            survivor: (leader + 2) % 3,
            killed: Instant::now(),
        })
    }

    async fn add_first(&mut self, file: &Path) -> anyhow::Result<String> {
        let leader = &self.peers[self.leader];
        step(&format!(
            "{} is added with two copies, one of them on {}",
            file.display(),
            leader.name
        ));
        let chosen = [leader.id.clone(), self.peers[self.holder].id.clone()];
        let cid = add_soon(&mut self.peers, self.survivor, file, &chosen).await?;
        print_line(&format!("    {cid}"));
        let survivor = self.survivor;
        wait("the copies are not there", &mut self.peers, async |peers| {
            copies(&peers[survivor], &cid, 2).await
        })
        .await?;
        show(&self.peers[survivor], &cid).await?;
        Ok(cid)
    }

    fn kill_leader(&mut self) -> anyhow::Result<()> {
        let leader = &mut self.peers[self.leader];
        step(&format!(
            "{} is killed: it leads, and it holds a copy",
            leader.name
        ));
        leader.kill()?;
        self.killed = Instant::now();
        Ok(())
    }

    async fn add_second(&mut self, file: &Path) -> anyhow::Result<String> {
        step("A second file is pinned without it");
        let cid = add_soon(&mut self.peers, self.survivor, file, &[]).await?;
        print_line(&format!("    {cid}, {}", self.since_the_kill()));
        Ok(cid)
    }

    async fn see_restored(&mut self, first: &str, second: &str) -> anyhow::Result<()> {
        step("The lost copy is made again");
        let survivor = self.survivor;
        let lost = self.peers[self.leader].id.clone();
        wait("the copy was not restored", &mut self.peers, async |peers| {
            copies_without(&peers[survivor], first, 2, &lost).await
        })
        .await?;
        wait("the second file is not pinned", &mut self.peers, async |peers| {
            copies(&peers[survivor], second, 2).await
        })
        .await?;
        print_line(&format!("    two living copies again, {}", self.since_the_kill()));
        show(&self.peers[survivor], first).await?;
        show(&self.peers[survivor], second).await
    }

    fn hand_over(&self, cid: &str) {
        step("The cluster is yours until Ctrl-C");
        let survivor = &self.peers[self.survivor];
        let status = format!("status {cid}");
        for line in [
            "peers ls",
            &status,
            "pin ls",
            "add README.md",
            "health metrics freespace",
        ] {
            print_line(&format!(
                "    ipfs-cluster-ctl --host /ip4/127.0.0.1/tcp/{} {line}",
                survivor.rest
            ));
        }
        print_line(&format!(
            "    curl -X POST 'http://127.0.0.1:{}/api/v0/cat?arg={cid}'",
            survivor.ipfs
        ));
    }

    fn since_the_kill(&self) -> String {
        format!("{:.1} s after the kill", self.killed.elapsed().as_secs_f32())
    }
}

fn sample(folder: &Path, name: &str, text: &str) -> anyhow::Result<PathBuf> {
    let path = folder.join(name);
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// Polls until the condition is true. Errors count as not yet.
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
        // Allocation needs the metrics: when they have arrived, everything else has.
        let known = client.metrics("freespace").await?.value.len();
        if seen < peers.len() || known < peers.len() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Returns the last leader named in a log.
fn leader(peers: &[Process]) -> Option<usize> {
    let log = std::fs::read_to_string(peers[0].log()).ok()?;
    let line = log
        .lines()
        .rev()
        .find_map(|line| line.split_once("the cluster's leader is "))?;
    peers.iter().position(|peer| line.1.starts_with(&peer.id))
}

async fn add(peer: &Process, file: &Path, allocations: &[String]) -> anyhow::Result<String> {
    let mut params = AddParams::default();
    params.pin.replication_factor_min = 2;
    params.pin.replication_factor_max = 2;
    params.pin.user_allocations = allocations.to_vec();
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

/// Adds a file, repeating the upload while there is no leader yet.
async fn add_soon(
    peers: &mut [Process],
    at: usize,
    file: &Path,
    allocations: &[String],
) -> anyhow::Result<String> {
    let since = Instant::now();
    loop {
        peers[at].check()?;
        match add(&peers[at], file, allocations).await {
            Ok(cid) => return Ok(cid),
            Err(error) if since.elapsed() > PATIENCE => {
                return Err(error.context(format!("{} was not added", file.display())));
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
    print_line(&format!("    {}", status.name));
    for info in status.peer_map.values() {
        print_line(&format!("        {:<8} {}", info.peername, info.status));
    }
    Ok(())
}

fn step(text: &str) {
    if std::io::stdout().is_terminal() {
        print_line(&format!("\n\u{1b}[1m{text}\u{1b}[0m"));
    } else {
        print_line(&format!("\n{text}"));
    }
}

fn print_line(text: &str) {
    // The reader may be gone.
    let _ = writeln!(std::io::stdout(), "{text}");
}
