//! Runs one peer.

use std::path::Path;

use tokio_util::sync::CancellationToken;

use crate::config::{self, Address, Folder};

/// What the command line says beside the configuration.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Peers whose cluster to join when this one is in none.
    pub bootstrap: Vec<Address>,
    /// Whether to leave the cluster at the end.
    pub leave: bool,
    /// Whether to serve counters.
    pub stats: bool,
}

/// Runs the peer of a configuration folder until `shutdown` is cancelled.
///
/// # Errors
/// It cannot start, or cannot go on.
pub async fn run(folder: &Path, options: Options, shutdown: CancellationToken) -> anyhow::Result<()> {
    let folder = Folder::open(folder, &config::environment())?;
    for warning in &folder.warnings {
        tracing::warn!(target: "config", "{warning}");
    }
    anyhow::bail!("the parts of peer {} are not connected yet ({options:?}, {})", folder.identity.peer, shutdown.is_cancelled())
}
