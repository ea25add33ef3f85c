//! The command line: every command and flag of the Go tool, and what each is for.

mod add;
mod options;
mod pin;

pub(crate) use add::Add;
pub(crate) use pin::{Pin, PinAdd, PinLs, PinUpdate, WaitArgs};

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
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
    /// Ignored: the cluster's secret, which only HTTP over libp2p needs
    #[arg(long, value_name = "HEX", hide = true)]
    pub(crate) secret: Option<String>,
    /// Use HTTPS. The server's certificate must be one that this machine trusts; the variable SSL_CERT_FILE
    /// names a file of others
    #[arg(long, short = 's')]
    pub(crate) https: bool,
    /// Take any certificate: whoever can redirect the connection can then read along
    #[arg(long)]
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
    Id(Ignored),
    /// List and manage the peers of the cluster
    #[command(subcommand)]
    Peers(Peers),
    /// Add files or folders to IPFS and pin them in the cluster
    #[command(long_about = add::ABOUT, after_help = add::EXAMPLES)]
    Add(Box<Add>),
    /// Pin, unpin and list what the cluster holds
    #[command(subcommand)]
    Pin(Pin),
    /// Tell what the peers really hold
    #[command(long_about = STATUS, after_help = STATUS_EXAMPLES)]
    Status(Status),
    /// Compare what the peers believe with what their IPFS nodes hold, and pin again what is missing there
    #[command(long_about = SYNC)]
    Sync(OneOrAll),
    /// Try again what failed
    #[command(long_about = RECOVER)]
    Recover(OneOrAll),
    /// Tell the version of the peer
    Version(Ignored),
    /// Tell how the cluster is doing
    #[command(subcommand)]
    Health(Health),
    /// Manage the IPFS nodes
    #[command(subcommand)]
    Ipfs(Ipfs),
    /// List all commands
    #[command(hide = true)]
    Commands(Ignored),
    /// Write a completion script for a shell
    #[command(after_help = "Example:\n  ipfs-cluster-ctl completions bash \
                      > ~/.local/share/bash-completion/completions/ipfs-cluster-ctl")]
    Completions {
        /// Which shell
        shell: Shell,
    },
}

/// `peers …`
#[derive(Debug, Subcommand)]
pub(crate) enum Peers {
    /// List all peers, with their addresses and IPFS nodes
    Ls(Ignored),
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
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

/// How fresh what is shown must be.
#[derive(Debug, Args)]
pub(crate) struct ReadArgs {
    /// Show all that was acknowledged anywhere before, or fail; otherwise what the peer that is contacted has
    #[arg(long)]
    pub(crate) consistent: bool,
}

/// `recover` and `sync`
#[derive(Debug, Args)]
pub(crate) struct OneOrAll {
    /// Only this one
    #[arg(value_name = "CID")]
    cid: Option<String>,
    /// Only at the peer that is contacted
    #[arg(long)]
    pub(crate) local: bool,
    #[command(flatten)]
    ignored: Ignored,
}

impl OneOrAll {
    /// The CID given, if any.
    pub(crate) fn cid(&self) -> Option<&str> {
        self.cid.as_deref().filter(|cid| !cid.is_empty())
    }
}

/// Arguments beyond those that a command reads. The Go tool ignores them everywhere. Here only commands that
/// show or retry something do: `pin rm A B` that silently removes A alone is refused.
#[derive(Debug, Args)]
pub(crate) struct Ignored {
    #[arg(hide = true, value_name = "IGNORED")]
    _arguments: Vec<String>,
}

/// `health …`
#[derive(Debug, Subcommand)]
pub(crate) enum Health {
    /// Draw who is connected to whom, as a Graphviz file
    #[command(after_help = "Example:\n  ipfs-cluster-ctl health graph | dot -Tsvg > cluster.svg")]
    Graph {
        /// Write to this file
        // An empty one is none, as in the Go tool.
        #[arg(
            long,
            short = 'f',
            value_name = "FILE",
            value_parser = OsStringValueParser::new().map(PathBuf::from)
        )]
        file: Option<PathBuf>,
        /// Draw also the IPFS nodes outside the cluster
        #[arg(long)]
        all_ipfs_peers: bool,
        #[command(flatten)]
        ignored: Ignored,
    },
    /// List the latest samples of a metric, or which metrics there are
    Metrics {
        /// freespace, ping, …
        #[arg(value_name = "METRIC")]
        name: Option<String>,
        #[command(flatten)]
        ignored: Ignored,
    },
    /// List metrics that have run out: peers that have gone silent
    Alerts(Ignored),
    /// List traffic between peers by protocol
    Bandwidth(Ignored),
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

const STATUS: &str = "\
Tells for each pin what each peer says of it. Without a CID it lists all.

States to filter by: cluster_error, error, pin_error, pin_queued, pinned, pinning, queued, remote, sharded, \
unexpectedly_unpinned, unpin_error, unpin_queued, unpinned, unpinning.";

const STATUS_EXAMPLES: &str = "\
Examples:
  ipfs-cluster-ctl status
  ipfs-cluster-ctl status --filter error,queued      what is not yet or not at all there
  ipfs-cluster-ctl status --local QmP63D…";

const SYNC: &str = "\
Has the peers compare what they should hold with what their IPFS nodes really have pinned, and pin again \
what is missing there. Prints what was missing or is in error. What the cluster never pinned is left alone. \
The peers also do this by themselves, every cluster.state_sync_interval.";

const RECOVER: &str = "\
Has the peers try again what failed, at once instead of at their next turn. Prints the status of what was \
queued again. Without a CID it does so for all that failed.";
