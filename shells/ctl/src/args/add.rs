//! Arguments of `add`.

use super::options::{NewPin, OptionalDuration};
use clap::Args;
use std::ffi::OsString;

/// Long help text.
pub(super) const ABOUT: &str = "\
Adds files or folders to IPFS and pins them in the cluster. The blocks go straight to the peers that will \
pin them, so the content is there with all its copies when the command ends. With --local they go only to \
the contacted peer, which is faster, and the others fetch them from there.";

/// Examples in the help text.
pub(super) const EXAMPLES: &str = "\
Examples:
  ipfs-cluster-ctl add picture.jpg
  ipfs-cluster-ctl add -r --name site --rmin 2 --rmax 3 public/
  ipfs-cluster-ctl add -Q backup.tar                 print the CID alone
  ipfs-cluster-ctl add --format car export.car";

/// Arguments of `add`.
#[derive(Debug, Args)]
pub(crate) struct Add {
    /// Files, folders, or http:// and https:// URLs
    #[arg(value_name = "PATH|URL")]
    pub(crate) paths: Vec<OsString>,
    /// Add folders with all their content
    #[arg(long, short = 'r')]
    pub(crate) recursive: bool,
    /// Print only CIDs, one per line
    #[arg(long, short = 'q')]
    pub(crate) quiet: bool,
    /// Print only the last CID
    #[arg(long, short = 'Q')]
    pub(crate) quieter: bool,
    /// Print everything at the end; in JSON as one array
    #[arg(long)]
    pub(crate) no_stream: bool,
    /// Send the content only to the contacted peer; others fetch it from there
    #[arg(long)]
    pub(crate) local: bool,
    #[command(flatten)]
    pub(crate) pin: NewPin,
    /// Do not pin afterwards
    #[arg(long)]
    pub(crate) no_pin: bool,
    /// Wait for the minimum number of copies
    #[arg(long)]
    pub(crate) wait: bool,
    /// Time limit of --wait, as in 90s or 5m; otherwise none
    #[arg(
        long,
        visible_alias = "wt",
        value_name = "DURATION",
        default_value = "",
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    pub(crate) wait_timeout: OptionalDuration,
    /// Wrap everything in one more folder; implied by several paths
    #[arg(long, short = 'w')]
    pub(crate) wrap_with_directory: bool,
    /// Format: "unixfs" for files, "car" for one CAR file with one root
    #[arg(long, default_value = "unixfs")]
    pub(crate) format: String,
    /// Layout of the graph: "balanced" or "trickle"
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) layout: String,
    /// Include names that begin with a dot, inside folders
    #[arg(long, short = 'H')]
    pub(crate) hidden: bool,
    /// Chunker: size-BYTES, rabin, rabin-AVG, rabin-MIN-AVG-MAX or buzhash
    #[arg(long, short = 's', default_value = "size-262144")]
    pub(crate) chunker: String,
    /// Store leaves as raw blocks
    #[arg(long)]
    pub(crate) raw_leaves: bool,
    /// CID version: 0 or 1; 1 implies --raw-leaves
    #[arg(long, default_value_t = 0, value_name = "VERSION")]
    pub(crate) cid_version: u64,
    /// Hash function; others than the default imply --cid-version 1
    #[arg(long, default_value = "sha2-256")]
    pub(crate) hash: String,
    /// Only for URLs; the content is stored all the same; implies --raw-leaves
    #[arg(long)]
    pub(crate) nocopy: bool,
}
