//! `id`: shows this peer's id.

use clap::Args;
use ipfs_cluster_service::config::{self, Config, Identity};

use super::{Doing, Failure, Global, print_output};

/// Options of the output.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Show this peer's listen addresses instead, as other peers need them for --peers. Replace 0.0.0.0 by
    /// the machine's own address
    #[arg(long)]
    addresses: bool,
}

pub(super) fn run(global: &Global, options: &Options) -> Result<(), Failure> {
    let folder = global.folder()?;
    let environment = config::environment().doing("reading the environment")?;
    let identity = Identity::load(&folder, &environment).doing("loading identity")?;
    if !options.addresses {
        print_output(identity.peer);
        return Ok(());
    }
    let loaded = Config::load(&folder, &environment).doing("loading configurations")?;
    for address in loaded.config.cluster.listen_multiaddress.iter() {
        print_output(format_args!("{}/p2p/{}", address.0, identity.peer));
    }
    Ok(())
}
