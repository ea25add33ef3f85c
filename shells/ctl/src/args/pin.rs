//! Arguments of `pin`.

use super::import::{self, PinImport};
use super::options::{Label, NewPin, OptionalDuration};
use super::{Ignored, ReadArgs};
use clap::{Args, Subcommand};
use cluster_api::GoDuration;
use std::ffi::OsString;

const PIN_ADD: &str = "\
Has the cluster hold a CID: it chooses peers, and their IPFS nodes fetch and pin the content. Prints the \
status right after; \"status\" shows its progress, and --wait waits for it.";

const PIN_ADD_EXAMPLES: &str = "\
Examples:
  ipfs-cluster-ctl pin add --name docs QmP63D…
  ipfs-cluster-ctl pin add -r 2 --wait --wait-timeout 5m QmP63D…
  ipfs-cluster-ctl pin add --expire-in 24h --metadata owner=me /ipns/example.org";

const PIN_UPDATE: &str = "\
Pins new content with all options and at the same peers as an existing pin, which makes it cheap when the \
two have much in common. The existing one stays pinned: remove it with \"pin rm\".";

const PIN_LS: &str = "\
Lists the pins that the cluster has agreed on, with their options and the peers chosen for them. \
Conditions on name, metadata and time are answered from indexes. \
\"status\" shows what the IPFS nodes really hold.";

const PIN_LS_EXAMPLES: &str = "\
Examples:
  ipfs-cluster-ctl pin ls --name docs/ --name-match prefix
  ipfs-cluster-ctl pin ls --meta owner=me --since 24h --sort newest --limit 20";

/// Subcommands of `pin`.
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
    /// Pin new content with the options and peers of an existing pin
    #[command(long_about = PIN_UPDATE)]
    Update(PinUpdate),
    /// List the pinset
    #[command(long_about = PIN_LS, after_help = PIN_LS_EXAMPLES)]
    Ls(PinLs),
    /// Pin many CIDs: of a file, another cluster or a pinning service
    #[command(long_about = import::ABOUT, after_help = import::EXAMPLES)]
    Import(Box<PinImport>),
}

/// Options of waiting after a change of a pin.
#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    /// Print the pin and do not fetch its status (faster)
    #[arg(long, visible_alias = "ns")]
    pub(crate) no_status: bool,
    /// Wait for the minimum number of copies (or until none is left, when unpinning)
    #[arg(long, short = 'w')]
    pub(crate) wait: bool,
    /// Wait for this number of peers instead
    #[arg(
        long,
        visible_alias = "wl",
        value_name = "PEERS",
        allow_negative_numbers = true
    )]
    pub(crate) wait_limit: Option<i64>,
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
}

/// Arguments of `pin add`.
#[derive(Debug, Args)]
pub(crate) struct PinAdd {
    /// CID or path to pin
    #[arg(value_name = "CID|PATH")]
    pub(crate) path: OsString,
    /// Exact number of copies; -1 on every peer
    #[arg(
        long,
        short = 'r',
        default_value_t = 0,
        hide_default_value = true,
        allow_negative_numbers = true
    )]
    pub(crate) replication: i32,
    #[command(flatten)]
    pub(crate) pin: NewPin,
    /// Pin mode: "recursive" for the whole graph, "direct" for the one block
    #[arg(long, default_value = "recursive")]
    pub(crate) mode: String,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// Arguments of `pin rm`.
#[derive(Debug, Args)]
pub(crate) struct PinRm {
    /// CID or path to unpin
    #[arg(value_name = "CID|PATH")]
    pub(crate) path: OsString,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// Arguments of `pin update`.
#[derive(Debug, Args)]
pub(crate) struct PinUpdate {
    /// Pin whose options and peers are copied
    #[arg(value_name = "EXISTING-CID")]
    pub(crate) existing: String,
    /// New CID or path to pin
    #[arg(value_name = "NEW-CID|PATH")]
    pub(crate) path: OsString,
    #[command(flatten)]
    pub(crate) label: Label,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// Arguments of `pin ls`.
#[derive(Debug, Args)]
pub(crate) struct PinLs {
    /// Only this CID
    #[arg(value_name = "CID")]
    pub(crate) cid: Option<String>,
    /// Types to list: all, pin, meta-pin, clusterdag-pin, shard-pin; comma-separated
    #[arg(long, default_value = "all")]
    pub(crate) filter: String,
    /// Only pins of this name
    #[arg(long, conflicts_with = "cid")]
    pub(crate) name: Option<String>,
    /// Comparison of names: exact, prefix or partial; iexact, iprefix or ipartial to ignore case
    #[arg(long, value_name = "MATCH", requires = "name")]
    pub(crate) name_match: Option<String>,
    /// Only pins with this metadata; can be given several times
    #[arg(long, value_name = "KEY=VALUE", conflicts_with = "cid")]
    pub(crate) meta: Vec<String>,
    /// Only pins of this last time, as in 24h
    #[arg(long, value_name = "DURATION", conflicts_with = "cid")]
    pub(crate) since: Option<GoDuration>,
    /// Only pins allocated to this peer
    #[arg(long, value_name = "PEER", conflicts_with = "cid")]
    pub(crate) peer: Option<String>,
    /// Only pins with fewer confirmed copies than their minimum; "status --under-replicated" shows why
    #[arg(long, conflicts_with_all = ["cid", "name", "meta", "since", "peer", "limit", "sort"])]
    pub(crate) under_replicated: bool,
    /// Maximum number of pins
    #[arg(long, value_name = "PINS", conflicts_with = "cid")]
    pub(crate) limit: Option<u64>,
    /// Order: cid, newest or oldest; cid without conditions, newest with them
    #[arg(long, value_name = "ORDER", conflicts_with = "cid")]
    pub(crate) sort: Option<String>,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
    #[command(flatten)]
    ignored: Ignored,
}
