//! `daemon`: runs the peer until a signal comes.

use clap::Args;
use ipfs_cluster_service::config::Address;
use ipfs_cluster_service::daemon;

use super::lock::Lock;
use super::{Doing, Failure, Global, List, elements, signals};

const LONG: &str = "\
Runs the peer until it gets SIGINT, SIGTERM or SIGHUP. When it is ready it says so, with the list of peers. \
A second signal warns, a third one ends the process at once.";

/// Options of the daemon.
#[derive(Debug, Default, Args)]
#[command(long_about = LONG)]
pub(super) struct Flags {
    /// Join the cluster of these peers: multiaddresses that end in /p2p/<peer id>
    #[arg(long, short = 'j', value_name = "MULTIADDRS")]
    pub(super) bootstrap: Vec<List<Address>>,
    /// Leave the cluster when shutting down
    #[arg(long, short = 'x', hide = true)]
    pub(super) leave: bool,
    /// Serve metrics for Prometheus, like observations.metrics.enable_stats
    #[arg(long)]
    stats: bool,
    /// Export spans to an OTLP collector, like observations.tracing.enable_tracing
    #[arg(long)]
    tracing: bool,
    /// Accepted for the Go peer's sake; the data needs no upgrade
    #[arg(long, short = 'u', hide = true)]
    upgrade: bool,
    /// Accepted for the Go peer's sake; with raft, all members are trusted
    #[arg(long, hide = true)]
    no_trust: bool,
    /// True if an allocation strategy was given on the command line
    #[arg(skip)]
    pub(super) alloc_ignored: bool,
}

pub(super) fn run(global: &Global, flags: Flags) -> Result<(), Failure> {
    let folder = global.folder()?;
    if !folder.is_dir() {
        let missing = anyhow::anyhow!(
            "{} does not exist: `ipfs-cluster-service init` makes it",
            folder.display()
        );
        return Err(missing).doing("loading configurations");
    }
    if flags.alloc_ignored {
        tracing::warn!(
            "--alloc has no effect: the sections allocator and informer of service.json say how peers are \
             chosen"
        );
    }
    let lock = Lock::take(&folder).doing("acquiring execution lock")?;
    let runtime = tokio::runtime::Runtime::new().doing("starting")?;
    let options = daemon::Options {
        bootstrap: elements(&flags.bootstrap),
        leave: flags.leave,
        stats: flags.stats,
        tracing: flags.tracing,
    };
    let ended = runtime.block_on(async {
        let shutdown = signals::listen().doing("listening for signals")?;
        daemon::run(&folder, options, shutdown)
            .await
            .doing("running the peer")
    });
    drop(lock);
    ended
}
