//! `id`: who this peer is.

use clap::Args;
use ipfs_cluster_service::config::{self, Config, Identity};

use super::{Doing, Failure, Global, say};

/// What to show.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Show the addresses that this peer listens on instead, as others need them for --peers. Put the
    /// machine's own address in the place of 0.0.0.0
    #[arg(long)]
    addresses: bool,
}

pub(super) fn run(global: &Global, options: &Options) -> Result<(), Failure> {
    let folder = global.folder()?;
    let environment = config::environment();
    let identity = Identity::load(&folder, &environment).doing("loading identity")?;
    if !options.addresses {
        say(identity.peer);
        return Ok(());
    }
    let loaded = Config::load(&folder, &environment).doing("loading configurations")?;
    for address in loaded.config.cluster.listen_multiaddress.iter() {
        say(format_args!("{}/p2p/{}", address.0, identity.peer));
    }
    Ok(())
}
