//! A cluster at work.

use std::path::PathBuf;

use tokio_util::sync::CancellationToken;

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
    anyhow::bail!("the parts of the peers are not connected yet ({options:?}, {})", shutdown.is_cancelled())
}
