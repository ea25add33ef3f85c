//! `demo`: shows a cluster at work.

use std::path::PathBuf;

use clap::Args;
use ipfs_cluster_service::demo;

use super::{Doing, Failure, signals};

const LONG: &str = "\
Starts three peers on free ports of this machine, each with an IPFS node of its own, in a temporary folder. \
Adds a file with two copies, shows where it is pinned, kills the peer that leads, and shows the copies come \
back. Needs nothing but this program, and leaves nothing behind.";

/// Options of the demonstration.
#[derive(Debug, Args)]
#[command(long_about = LONG)]
pub(super) struct Flags {
    /// The file to add [default: a generated one]
    file: Option<PathBuf>,
    /// End after the last step, with code 1 if any step failed
    #[arg(long)]
    once: bool,
}

pub(super) fn run(flags: Flags) -> Result<(), Failure> {
    let runtime = tokio::runtime::Runtime::new().doing("starting")?;
    let options = demo::Options {
        file: flags.file,
        once: flags.once,
    };
    runtime.block_on(async {
        let shutdown = signals::listen().doing("listening for signals")?;
        demo::run(options, shutdown).await.doing("running the demo")
    })
}
