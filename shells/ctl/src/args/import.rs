//! Arguments of `pin import`.

use super::options::NewPin;
use clap::Args;
use std::path::PathBuf;

pub(crate) const ABOUT: &str = "\
Pins many CIDs. They come from a file or standard input, from another cluster, or from a pinning service. \
Ends when all are agreed on; \"status\" shows how the peers fetch them.

A line of a file is a CID; or CID,NAME (with a first line that names columns, all but cid and name are \
metadata); or what \"ipfs pin ls\" prints, as text or JSON; or a pin as JSON, as \"pin ls --enc=json\", \
\"state export\" and the Go cluster write it. Empty lines and lines that begin with # are skipped.

A pin that the cluster has already gets the imported options. Options given here replace those of each \
imported pin.";

pub(crate) const EXAMPLES: &str = "\
Examples:
  ipfs-cluster-ctl pin import --resume done.log cids.txt
  ipfs pin ls --type=recursive --names --stream | ipfs-cluster-ctl pin import
  ipfs-cluster-ctl pin import --from-cluster old.example.org:9094
  ipfs-cluster-ctl pin import --from-service https://api.pinata.cloud/psa --token-file token

What fails is printed on standard error, and the exit status is 2. With --resume, repeating the command \
tries only what is missing.";

/// Arguments of `pin import`.
#[derive(Debug, Args)]
pub(crate) struct PinImport {
    /// File to read; "-" or none for standard input
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Read the pinset of the cluster with this REST API instead of a file
    #[arg(long, value_name = "ADDRESSES", conflicts_with = "file")]
    pub(crate) from_cluster: Option<String>,
    /// User and password for --from-cluster; implies HTTPS
    #[arg(
        long,
        env = "FROM_CREDENTIALS",
        hide_env_values = true,
        value_name = "USER:PASSWORD",
        requires = "from_cluster"
    )]
    pub(crate) from_basic_auth: Option<String>,
    /// Read the pins of the pinning service with this URL instead of a file
    #[arg(long, value_name = "URL", conflicts_with_all = ["file", "from_cluster"], requires = "token_file")]
    pub(crate) from_service: Option<String>,
    /// File with the access token for --from-service
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Record in this file what was imported, and skip what it records already
    #[arg(long, value_name = "FILE")]
    pub(crate) resume: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) pin: NewPin,
}
