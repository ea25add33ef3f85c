//! The command line: every command and flag of the Go tool, and what each is for.

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use cluster_api::GoDuration;
use std::path::PathBuf;

const OVERVIEW: &str = "\
Manages a cluster of IPFS nodes through the REST API of one of its peers.

A cluster keeps a set of pins: CIDs that must stay pinned, with how many copies. \"add\" puts files in, \
\"pin\" changes the set, \"status\" tells what the peers really hold, \"peers\" and \"health\" tell about \
the peers themselves.";

const OVERVIEW_EXAMPLES: &str = "\
Examples:
  ipfs-cluster-ctl peers ls                          who is in the cluster
  ipfs-cluster-ctl add -r my-folder                  add a folder and pin it
  ipfs-cluster-ctl pin add --name docs --wait <CID>  pin what is already on IPFS, and wait for it
  ipfs-cluster-ctl status <CID>                      where it is, and how it is doing
  ipfs-cluster-ctl --enc=json pin ls | jq -r .cid    for scripts
  ipfs-cluster-ctl --host /ip4/10.0.0.5/tcp/9094 id  ask another peer

Exit status: 0 success, 1 wrong arguments or no answer, 2 the cluster answered with an error,
3 no such command, 62 time is up.";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "ipfs-cluster-ctl",
    about = "Manages a cluster of IPFS nodes",
    long_about = OVERVIEW,
    after_help = OVERVIEW_EXAMPLES,
    version = concat!("version ", env!("CARGO_PKG_VERSION")),
    disable_version_flag = true,
    // As with the Go tool, the last one counts.
    args_override_self = true,
    max_term_width = 100
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Encoding {
    /// For people
    Text,
    /// For programs: one object after the other
    Json,
}

/// What goes before the command (most of it may also come after).
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Where the REST API is: multiaddresses or host:port, comma-separated; the first that answers serves
    #[arg(
        long,
        short = 'l',
        global = true,
        default_value = "/ip4/127.0.0.1/tcp/9094",
        value_name = "ADDRESSES"
    )]
    pub(crate) host: String,
    /// The cluster's secret, for HTTP over libp2p (not available in this version)
    #[arg(long, value_name = "HEX", hide = true)]
    pub(crate) secret: Option<String>,
    /// Use HTTPS (not available in this version)
    #[arg(long, short = 's')]
    pub(crate) https: bool,
    /// Do not check the server's certificate; only with --https
    #[arg(long, hide = true)]
    pub(crate) no_check_certificate: bool,
    /// How to write results
    #[arg(
        long,
        visible_alias = "enc",
        global = true,
        default_value = "text",
        value_enum
    )]
    pub(crate) encoding: Encoding,
    /// Seconds that one request may take; 0 for no limit
    #[arg(long, short = 't', global = true, default_value_t = 0, value_name = "SECONDS")]
    pub(crate) timeout: u64,
    /// Tell every request and its status on standard error
    #[arg(long, short = 'd', global = true)]
    pub(crate) debug: bool,
    /// Who asks; implies --https unless --force-http
    #[arg(
        long,
        env = "CLUSTER_CREDENTIALS",
        hide_env_values = true,
        value_name = "USER[:PASSWORD]"
    )]
    pub(crate) basic_auth: Option<String>,
    /// Send --basic-auth over plain HTTP, where anybody on the way can read it
    #[arg(long, short = 'f')]
    pub(crate) force_http: bool,
    /// Print the version of this tool
    #[arg(long, short = 'v', action = ArgAction::Version)]
    version: Option<bool>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Tell about the peer that is asked
    Id,
    /// List and manage the peers of the cluster
    #[command(subcommand)]
    Peers(Peers),
    /// Add files or folders to IPFS and pin them in the cluster
    #[command(long_about = ADD, after_help = ADD_EXAMPLES)]
    Add(Box<Add>),
    /// Pin, unpin and list what the cluster holds
    #[command(subcommand)]
    Pin(Pin),
    /// Tell what the peers really hold
    #[command(long_about = STATUS, after_help = STATUS_EXAMPLES)]
    Status(Status),
    /// Compare what the peers believe with what their IPFS nodes hold (v0.0.12)
    Sync(OneOrAll),
    /// Try again what failed
    #[command(long_about = RECOVER)]
    Recover(OneOrAll),
    /// Tell the version of the peer
    Version,
    /// Tell how the cluster is doing
    #[command(subcommand)]
    Health(Health),
    /// Manage the IPFS nodes
    #[command(subcommand)]
    Ipfs(Ipfs),
    /// List all commands
    #[command(hide = true)]
    Commands,
    /// Write a completion script for a shell
    #[command(
        after_help = "Example:\n  ipfs-cluster-ctl completions bash > ~/.local/share/bash-completion/completions/ipfs-cluster-ctl"
    )]
    Completions {
        /// Which shell
        shell: Shell,
    },
}

/// `peers …`
#[derive(Debug, Subcommand)]
pub(crate) enum Peers {
    /// List all peers, with their addresses and IPFS nodes
    Ls,
    /// Add a peer that is running and waits to be taken in
    Add {
        /// Its peer id, or a multiaddress that ends in it
        peer: String,
    },
    /// Remove a peer; its pins go to others
    #[command(
        after_help = "Example:\n  ipfs-cluster-ctl peers rm 12D3KooW…    ids are listed by \"peers ls\""
    )]
    Rm {
        /// Its peer id
        peer: String,
    },
}

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

/// `status`
#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Only these
    #[arg(value_name = "CID")]
    pub(crate) cids: Vec<String>,
    /// Ask only the peer that is contacted
    #[arg(long)]
    pub(crate) local: bool,
    /// Only what is in one of these states at some peer; comma-separated
    #[arg(long, value_name = "STATES")]
    pub(crate) filter: Option<String>,
}

/// `recover` and `sync`
#[derive(Debug, Args)]
pub(crate) struct OneOrAll {
    /// Only this one
    #[arg(value_name = "CID")]
    pub(crate) cid: Option<String>,
    /// Only at the peer that is contacted
    #[arg(long)]
    pub(crate) local: bool,
}

/// `health …`
#[derive(Debug, Subcommand)]
pub(crate) enum Health {
    /// Draw who is connected to whom, as a Graphviz file
    #[command(after_help = "Example:\n  ipfs-cluster-ctl health graph | dot -Tsvg > cluster.svg")]
    Graph {
        /// Write to this file
        #[arg(long, short = 'f', value_name = "FILE")]
        file: Option<PathBuf>,
        /// Draw also the IPFS nodes outside the cluster
        #[arg(long)]
        all_ipfs_peers: bool,
    },
    /// List the latest samples of a metric, or which metrics there are
    Metrics {
        /// freespace, ping, …
        #[arg(value_name = "METRIC")]
        name: Option<String>,
    },
    /// List metrics that have run out: peers that have gone silent
    Alerts,
    /// List traffic between peers by protocol
    Bandwidth,
}

/// `ipfs …`
#[derive(Debug, Subcommand)]
pub(crate) enum Ipfs {
    /// Have all IPFS nodes of the cluster remove what is not pinned
    Gc {
        /// Only the node of the peer that is contacted
        #[arg(long)]
        local: bool,
    },
}

/// `add`
#[derive(Debug, Args)]
pub(crate) struct Add {
    /// Files, folders or http:// URLs
    #[arg(value_name = "PATH|URL")]
    pub(crate) paths: Vec<String>,
    /// Take folders with all they contain
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
    /// Send the content only to the peer that is contacted; others fetch it from there
    #[arg(long)]
    pub(crate) local: bool,
    /// A name for the pin
    #[arg(
        long,
        short = 'n',
        default_value = "",
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    pub(crate) name: String,
    /// At least so many copies; 0 for the cluster's default, -1 on every peer
    #[arg(
        long,
        visible_alias = "rmin",
        default_value_t = 0,
        allow_negative_numbers = true,
        value_name = "COPIES"
    )]
    pub(crate) replication_min: i32,
    /// At most so many copies; 0 for the cluster's default, -1 on every peer
    #[arg(
        long,
        visible_alias = "rmax",
        default_value_t = 0,
        allow_negative_numbers = true,
        value_name = "COPIES"
    )]
    pub(crate) replication_max: i32,
    /// Unpin by itself after so long, as in 24h
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    pub(crate) expire_in: Option<GoDuration>,
    /// Something to remember with the pin; can be given several times
    #[arg(long, value_name = "KEY=VALUE", allow_hyphen_values = true)]
    pub(crate) metadata: Vec<String>,
    /// Prefer these peers
    #[arg(long, visible_alias = "allocs", value_name = "PEER,PEER")]
    pub(crate) allocations: Option<String>,
    /// Do not pin afterwards
    #[arg(long)]
    pub(crate) no_pin: bool,
    /// Wait until the least number of copies is there
    #[arg(long)]
    pub(crate) wait: bool,
    /// Give up waiting after so long, as in 90s or 5m; otherwise never
    #[arg(
        long,
        visible_alias = "wt",
        value_name = "DURATION",
        allow_hyphen_values = true
    )]
    pub(crate) wait_timeout: Option<GoDuration>,
    /// Put everything into one more folder; implied by several paths
    #[arg(long, short = 'w')]
    pub(crate) wrap_with_directory: bool,
    /// "unixfs" for files, "car" for one CAR file with one root
    #[arg(long, default_value = "unixfs")]
    pub(crate) format: String,
    /// "balanced" or "trickle"
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) layout: String,
    /// Take also what begins with a dot, inside folders
    #[arg(long, short = 'H')]
    pub(crate) hidden: bool,
    /// How files are cut: size-<bytes> or rabin-<min>-<avg>-<max>
    #[arg(long, short = 's', default_value = "size-262144")]
    pub(crate) chunker: String,
    /// Make leaves raw blocks
    #[arg(long)]
    pub(crate) raw_leaves: bool,
    /// 0 or 1; 1 implies --raw-leaves
    #[arg(long, default_value_t = 0, value_name = "VERSION")]
    pub(crate) cid_version: u64,
    /// The hash function; others than the default imply --cid-version 1
    #[arg(long, default_value = "sha2-256")]
    pub(crate) hash: String,
    /// Refer to the URL instead of storing its content; implies --raw-leaves
    #[arg(long)]
    pub(crate) nocopy: bool,
}

const ADD: &str = "\
Adds files or folders to IPFS and pins them in the cluster. The blocks go straight to the peers that will \
pin them, so the content is there with all its copies when the command ends. With --local they go only to \
the peer that is contacted, which is faster, and the others fetch them from there.";

const ADD_EXAMPLES: &str = "\
Examples:
  ipfs-cluster-ctl add picture.jpg
  ipfs-cluster-ctl add -r --name site --rmin 2 --rmax 3 public/
  ipfs-cluster-ctl add -Q backup.tar                 print the CID alone
  ipfs-cluster-ctl add --format car export.car";

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

const STATUS: &str = "\
Tells for each pin what each peer says of it. Without a CID it lists all.

States to filter by: cluster_error, error, pin_error, pin_queued, pinned, pinning, queued, remote, sharded, \
unexpectedly_unpinned, unpin_error, unpin_queued, unpinned, unpinning.";

const STATUS_EXAMPLES: &str = "\
Examples:
  ipfs-cluster-ctl status
  ipfs-cluster-ctl status --filter error,queued      what is not yet or not at all there
  ipfs-cluster-ctl status --local QmP63D…";

const RECOVER: &str = "\
Has the peers try again what failed, at once instead of at their next turn. Prints the status of what was \
queued again. Without a CID it does so for all that failed.";
