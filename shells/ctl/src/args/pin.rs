//! The command line of `pin`.

use clap::{Args, Subcommand};
use cluster_api::GoDuration;

const PIN_ADD: &str = "\
Has the cluster hold a CID: it chooses peers, and their IPFS nodes fetch and pin the content. Prints the \
status right after; \"status\" tells how it goes on, and --wait waits for it.";

const PIN_ADD_EXAMPLES: &str = "\
Examples:
  ipfs-cluster-ctl pin add --name docs QmP63D…
  ipfs-cluster-ctl pin add -r 2 --wait --wait-timeout 5m QmP63D…
  ipfs-cluster-ctl pin add --expire-in 24h --metadata owner=me /ipns/example.org";

const PIN_UPDATE: &str = "\
Pins new content with all options and at the same peers as an existing pin, which makes it cheap when the \
two have much in common. The existing one stays pinned: remove it with \"pin rm\".";

const PIN_LS: &str = "\
Lists the pins that the cluster has agreed on, with their options and the peers chosen for them. How the \
IPFS nodes are doing with them is told by \"status\".";

/// `pin …`
#[derive(Debug, Subcommand)]
pub(crate) enum Pin {
    /// Pin a CID or path
    #[command(long_about = PIN_ADD, after_help = PIN_ADD_EXAMPLES)]
    Add(Box<PinAdd>),
    /// Unpin a CID or path
    #[command(
        long_about = "Has the cluster forget a CID. The IPFS nodes that hold it unpin it; their garbage \
        collection then frees the space. Prints the status afterwards."
    )]
    Rm(PinRm),
    /// Pin new content the way old content is pinned
    #[command(long_about = PIN_UPDATE)]
    Update(PinUpdate),
    /// List what the cluster has agreed to hold
    #[command(long_about = PIN_LS)]
    Ls(PinLs),
}

/// How long to wait, and for what, after a pin has changed.
#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    /// Print the pin and do not fetch its status (faster)
    #[arg(long, visible_alias = "ns")]
    pub(crate) no_status: bool,
    /// Wait until the least number of copies is there (or none is left, when unpinning)
    #[arg(long, short = 'w')]
    pub(crate) wait: bool,
    /// Wait for so many peers instead
    #[arg(
        long,
        visible_alias = "wl",
        value_name = "PEERS",
        allow_negative_numbers = true
    )]
    pub(crate) wait_limit: Option<i64>,
    /// Give up waiting after so long, as in 90s or 5m; otherwise never
    #[arg(
        long,
        visible_alias = "wt",
        value_name = "DURATION",
        allow_hyphen_values = true
    )]
    pub(crate) wait_timeout: Option<GoDuration>,
}

/// `pin add`
#[derive(Debug, Args)]
pub(crate) struct PinAdd {
    /// What to pin
    #[arg(value_name = "CID|PATH")]
    pub(crate) path: String,
    /// So many copies, no less and no more; -1 on every peer
    #[arg(
        long,
        short = 'r',
        default_value_t = 0,
        hide_default_value = true,
        allow_negative_numbers = true
    )]
    pub(crate) replication: i32,
    /// At least so many copies; 0 for the cluster's default
    #[arg(
        long,
        visible_alias = "rmin",
        default_value_t = 0,
        allow_negative_numbers = true,
        value_name = "COPIES"
    )]
    pub(crate) replication_min: i32,
    /// At most so many copies; 0 for the cluster's default
    #[arg(
        long,
        visible_alias = "rmax",
        default_value_t = 0,
        allow_negative_numbers = true,
        value_name = "COPIES"
    )]
    pub(crate) replication_max: i32,
    /// Prefer these peers
    #[arg(long, visible_alias = "allocs", value_name = "PEER,PEER")]
    pub(crate) allocations: Option<String>,
    /// A name for the pin
    #[arg(
        long,
        short = 'n',
        default_value = "",
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    pub(crate) name: String,
    /// "recursive" for all that it links to, "direct" for the one block
    #[arg(long, default_value = "recursive")]
    pub(crate) mode: String,
    /// Unpin by itself after so long, as in 24h
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    pub(crate) expire_in: Option<GoDuration>,
    /// Something to remember with it; can be given several times
    #[arg(long, value_name = "KEY=VALUE", allow_hyphen_values = true)]
    pub(crate) metadata: Vec<String>,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// `pin rm`
#[derive(Debug, Args)]
pub(crate) struct PinRm {
    /// What to unpin
    #[arg(value_name = "CID|PATH")]
    pub(crate) path: String,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// `pin update`
#[derive(Debug, Args)]
pub(crate) struct PinUpdate {
    /// The pin to take everything over from
    #[arg(value_name = "EXISTING-CID")]
    pub(crate) existing: String,
    /// What to pin
    #[arg(value_name = "NEW-CID|PATH")]
    pub(crate) path: String,
    /// A name for the new pin, instead of the old one's
    #[arg(
        long,
        short = 'n',
        default_value = "",
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    pub(crate) name: String,
    /// Unpin the new one by itself after so long, as in 24h
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    pub(crate) expire_in: Option<GoDuration>,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// `pin ls`
#[derive(Debug, Args)]
pub(crate) struct PinLs {
    /// Only this one
    #[arg(value_name = "CID")]
    pub(crate) cid: Option<String>,
    /// Types to list: all, pin, meta-pin, clusterdag-pin, shard-pin; comma-separated
    #[arg(long, default_value = "all")]
    pub(crate) filter: String,
}
