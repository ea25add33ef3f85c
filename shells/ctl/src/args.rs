//! Command-line arguments: every command and flag of the Go tool, with help texts.

mod add;
mod auth;
mod import;
mod options;
mod pin;

pub(crate) use add::Add;
pub(crate) use auth::{Auth, AuthCreate};
pub(crate) use import::PinImport;
pub(crate) use pin::{Pin, PinAdd, PinLs, PinUpdate, WaitArgs};

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use std::path::PathBuf;

const OVERVIEW: &str = "\
Manages a cluster of IPFS nodes through the REST API of one of its peers.

A cluster keeps a set of pins: CIDs that must stay pinned, with how many copies. \"add\" puts files in, \
\"pin\" changes the set, \"status\" shows what the peers really hold, \"peers\" and \"health\" show \
the peers themselves.";

const OVERVIEW_EXAMPLES: &str = "\
Examples:
  ipfs-cluster-ctl peers ls                          list the peers of the cluster
  ipfs-cluster-ctl add -r my-folder                  add a folder and pin it
  ipfs-cluster-ctl pin add --name docs --wait <CID>  pin what is already on IPFS, and wait for it
  ipfs-cluster-ctl status <CID>                      its status at each peer
  ipfs-cluster-ctl --enc=json pin ls | jq -r .cid    for scripts
  ipfs-cluster-ctl --host /ip4/10.0.0.5/tcp/9094 id  ask another peer

Exit status: 0 success, 1 wrong arguments or no answer, 2 the cluster answered with an error,
3 no such command, 62 timeout.";

/// Complete command line.
#[derive(Debug, Parser)]
#[command(
    name = "ipfs-cluster-ctl",
    about = "Manages a cluster of IPFS nodes",
    long_about = OVERVIEW,
    after_help = OVERVIEW_EXAMPLES,
    version = concat!("version ", env!("CARGO_PKG_VERSION")),
    disable_version_flag = true,
    // As in the Go tool, the last of several values is used.
    args_override_self = true,
    max_term_width = 100
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// Output encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Encoding {
    /// For people
    Text,
    /// For programs: one object after the other
    Json,
}

/// Options before the command. The global ones are accepted after it too.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Address of the REST API: multiaddresses or host:port, comma-separated; the first that answers is used
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
    /// names another file of trusted certificates
    #[arg(long, short = 's')]
    pub(crate) https: bool,
    /// Accept any certificate: an attacker who can redirect the connection can then read it
    #[arg(long)]
    pub(crate) no_check_certificate: bool,
    /// Output format
    #[arg(
        long,
        visible_alias = "enc",
        global = true,
        default_value = "text",
        value_enum
    )]
    pub(crate) encoding: Encoding,
    /// Time limit of one request in seconds; 0 for no limit
    #[arg(long, short = 't', global = true, default_value_t = 0, value_name = "SECONDS")]
    pub(crate) timeout: u64,
    /// Print every request and its status on standard error
    #[arg(long, short = 'd', global = true)]
    pub(crate) debug: bool,
    /// User and password; implies --https unless --force-http
    #[arg(
        long,
        env = "CLUSTER_CREDENTIALS",
        hide_env_values = true,
        value_name = "USER[:PASSWORD]"
    )]
    pub(crate) basic_auth: Option<String>,
    /// Token of a credential, as "auth create" shows it; implies --https unless --force-http. Used instead
    /// of --basic-auth. The variable keeps it out of the list of processes
    #[arg(
        long,
        env = "CLUSTER_AUTH_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    pub(crate) auth_token: Option<String>,
    /// Send --basic-auth or --auth-token over plain HTTP, which others in the network can read
    #[arg(long, short = 'f')]
    pub(crate) force_http: bool,
    /// Print the version of this tool
    #[arg(long, short = 'v', action = ArgAction::Version)]
    version: Option<bool>,
}

/// Command to run.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the id and addresses of the contacted peer
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
    /// Show what the peers really hold
    #[command(long_about = STATUS, after_help = STATUS_EXAMPLES)]
    Status(Status),
    /// Compare the recorded status with what the IPFS nodes hold, and pin again what is missing there
    #[command(long_about = SYNC)]
    Sync(OneOrAll),
    /// Retry failed pins and unpins
    #[command(long_about = RECOVER)]
    Recover(OneOrAll),
    /// Show the version of the peer
    Version(Ignored),
    /// Show metrics, alerts and connections
    #[command(subcommand)]
    Health(Health),
    /// Follow changes of pins, peers and alerts as they happen
    #[command(after_help = EVENTS_EXAMPLES)]
    Events(Events),
    /// Create, list and revoke credentials: tokens with scopes
    #[command(subcommand, long_about = auth::ABOUT, after_help = auth::EXAMPLES)]
    Auth(Auth),
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
        /// Shell to write the script for
        shell: Shell,
    },
    /// Write the manual pages, one for each command
    #[command(hide = true)]
    Man {
        /// Folder to write them to
        folder: PathBuf,
    },
}

/// Subcommands of `peers`.
#[derive(Debug, Subcommand)]
pub(crate) enum Peers {
    /// List all peers, with their addresses and IPFS nodes
    Ls(Ignored),
    /// Add a running peer that waits to join
    Add {
        /// Peer id, or a multiaddress that ends in it
        peer: String,
    },
    /// Remove a peer; its pins are allocated to others
    #[command(
        after_help = "Example:\n  ipfs-cluster-ctl peers rm 12D3KooW…    ids are listed by \"peers ls\""
    )]
    Rm {
        /// Peer id
        peer: String,
    },
    /// Move the pins of a peer to others, so that it can be removed without losing a copy
    #[command(long_about = DRAIN, after_help = DRAIN_EXAMPLES)]
    Drain(Drain),
    /// Even out the copies among the peers, and repair the spread over zones
    #[command(long_about = REBALANCE, after_help = REBALANCE_EXAMPLES)]
    Rebalance(Rebalance),
}

const REBALANCE: &str = "\
Evens out the copies among the live peers: each is to hold its share by the capacity of its repository. \
Copies above the share of their peer move to peers below theirs, the fewest that are needed. A copy that \
shares a zone (the tag that pins are allocated by) with another copy moves to a zone without one. Each copy \
leaves only when all other holders that are alive have confirmed theirs. Copies stay where a pin prefers \
them (--allocations), and pins that every peer holds do not move.

A run ends by itself once each live peer has passed over its pins. With --automatic true, copies also move \
whenever a peer deviates from its share by more than the threshold, for instance when a peer was added. The \
settings are part of the state of the cluster, and hold until they are changed.";

const REBALANCE_EXAMPLES: &str = "\
Examples:
  ipfs-cluster-ctl peers rebalance --dry-run          show each peer's copies and share, and the moves needed
  ipfs-cluster-ctl peers rebalance --wait             rebalance once, with progress
  ipfs-cluster-ctl peers rebalance --stop             end the run; moved copies stay
  ipfs-cluster-ctl peers rebalance --automatic true   rebalance whenever it is needed
  ipfs-cluster-ctl peers rebalance --bytes-per-second 50MB
                                                      limit what each peer fetches for moves, also of drains";

/// Arguments of `peers rebalance`.
#[derive(Debug, Args)]
pub(crate) struct Rebalance {
    /// Only show what would move, and the progress of what does
    #[arg(long, visible_alias = "status", conflicts_with_all = ["stop", "wait", "settings"])]
    pub(crate) dry_run: bool,
    /// End the run that is under way
    #[arg(long, conflicts_with_all = ["wait", "settings"])]
    pub(crate) stop: bool,
    /// Wait, with progress, until the run has ended
    #[arg(long, short = 'w', conflicts_with = "settings")]
    pub(crate) wait: bool,
    #[command(flatten)]
    pub(crate) settings: RebalanceSettings,
}

/// Settings of `peers rebalance`. With one of them, no run is started.
#[derive(Debug, Args)]
#[group(id = "settings", multiple = true)]
pub(crate) struct RebalanceSettings {
    /// Rebalance whenever a peer deviates from its share by more than the threshold
    #[arg(long, value_name = "BOOL")]
    pub(crate) automatic: Option<bool>,
    /// Deviation that starts automatic rebalancing, in percent of the share, 0 to 1000; 10 by default
    #[arg(long, value_name = "PERCENT")]
    pub(crate) threshold: Option<u32>,
    /// Maximum number of copies of a peer that wait for their replacements at once, 1 to 4096; 64 by default
    #[arg(long, value_name = "NUMBER")]
    pub(crate) moves: Option<u32>,
    /// The same for all peers together, divided equally; 512 by default
    #[arg(long, value_name = "NUMBER")]
    pub(crate) total_moves: Option<u32>,
    /// Maximum rate at which a peer fetches copies that move to it, those of drains included, like 50MB; 0,
    /// the default, for no limit
    #[arg(long, value_name = "BYTES")]
    pub(crate) bytes_per_second: Option<String>,
    /// The same for all peers together, divided equally
    #[arg(long, value_name = "BYTES")]
    pub(crate) total_bytes_per_second: Option<String>,
}

const DRAIN: &str = "\
Moves the pins of a peer to others, so that it can be removed without losing a copy. No new pins are \
allocated to it. Each of its copies leaves only when all other holders that are alive have confirmed \
theirs. Pins that every peer holds do not move. The drain is part of the state of the cluster: it goes on \
after restarts, until the peer is removed or the drain is undone. Several peers can be drained at once.

Without a peer, shows the progress of all drains: the pins that are left, copies that wait for their \
replacements, an estimate of the remaining time, and pins that cannot move.

A peer is not drained if some of its pins need more peers than would be left, or if the others lack room.";

const DRAIN_EXAMPLES: &str = "\
Examples:
  ipfs-cluster-ctl peers drain 12D3KooW… --wait   drain a peer, with progress, until it may be removed
  ipfs-cluster-ctl peers rm 12D3KooW…             then remove it
  ipfs-cluster-ctl peers drain                    show the progress of all drains
  ipfs-cluster-ctl peers drain 12D3KooW… --undo   keep its remaining pins, and allocate new ones to it again";

/// Arguments of `peers drain`.
#[derive(Debug, Args)]
pub(crate) struct Drain {
    /// Peer id; all drains are shown without it
    pub(crate) peer: Option<String>,
    /// End the drain; pins that are left stay
    #[arg(long, requires = "peer", conflicts_with_all = ["wait", "moves", "force"])]
    pub(crate) undo: bool,
    /// Wait, with progress, until the peer may be removed; a blocked drain is an error
    #[arg(long, short = 'w', requires = "peer")]
    pub(crate) wait: bool,
    /// Maximum number of copies that wait for their replacements at once, 1 to 4096; 256 by default. Repeat
    /// the command to change it
    #[arg(long, value_name = "NUMBER", requires = "peer")]
    pub(crate) moves: Option<u32>,
    /// Drain the peer although some of its pins cannot move
    #[arg(long, requires = "peer")]
    pub(crate) force: bool,
}

/// Arguments of `status`.
#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Only these CIDs
    #[arg(value_name = "CID")]
    pub(crate) cids: Vec<String>,
    /// Ask only the contacted peer
    #[arg(long)]
    pub(crate) local: bool,
    /// Only CIDs with one of these statuses at some peer; comma-separated
    #[arg(long, value_name = "STATES")]
    pub(crate) filter: Option<String>,
    /// Only pins with fewer confirmed copies than their minimum
    #[arg(long, conflicts_with_all = ["cids", "local", "filter"])]
    pub(crate) under_replicated: bool,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

/// Consistency of reads.
#[derive(Debug, Args)]
pub(crate) struct ReadArgs {
    /// Show every change acknowledged before, or fail; otherwise the contacted peer's state, possibly older
    #[arg(long)]
    pub(crate) consistent: bool,
}

/// Arguments of `recover` and `sync`.
#[derive(Debug, Args)]
pub(crate) struct OneOrAll {
    /// Only this CID
    #[arg(value_name = "CID")]
    cid: Option<String>,
    /// Only at the contacted peer
    #[arg(long)]
    pub(crate) local: bool,
    #[command(flatten)]
    ignored: Ignored,
}

impl OneOrAll {
    /// Returns the CID, if one was given.
    pub(crate) fn cid(&self) -> Option<&str> {
        self.cid.as_deref().filter(|cid| !cid.is_empty())
    }
}

/// Surplus arguments. The Go tool ignores them everywhere. Here only commands that show or retry something
/// do: `pin rm A B` is refused, because it would silently remove A alone.
#[derive(Debug, Args)]
pub(crate) struct Ignored {
    #[arg(hide = true, value_name = "IGNORED")]
    _arguments: Vec<String>,
}

const SUMMARY: &str = "\
Shows what is wrong in the cluster, one line for each problem: peers that are down or have no leader, \
IPFS nodes that do not answer or are nearly full, pins that failed or have waited for long, missing copies, \
drains that are blocked, expired metrics. Errors affect content or service; warnings will, if nobody acts.

The counts of pins are from the last count of each peer, which is at most some minutes old.";

/// Subcommands of `health`.
#[derive(Debug, Subcommand)]
pub(crate) enum Health {
    /// Draw the connections between peers and IPFS nodes, as a Graphviz file
    #[command(after_help = "Example:\n  ipfs-cluster-ctl health graph | dot -Tsvg > cluster.svg")]
    Graph {
        /// Write to this file
        // An empty name means standard output, as in the Go tool.
        #[arg(
            long,
            short = 'f',
            value_name = "FILE",
            value_parser = OsStringValueParser::new().map(PathBuf::from)
        )]
        file: Option<PathBuf>,
        /// Include IPFS nodes outside the cluster
        #[arg(long)]
        all_ipfs_peers: bool,
        #[command(flatten)]
        ignored: Ignored,
    },
    /// List the latest samples of a metric, or the names of all metrics
    Metrics {
        /// Metric name: freespace, ping, …
        #[arg(value_name = "METRIC")]
        name: Option<String>,
        #[command(flatten)]
        ignored: Ignored,
    },
    /// Show what is wrong in the cluster, one line for each problem
    #[command(long_about = SUMMARY)]
    Summary(Ignored),
    /// List expired metrics, of peers that stopped responding
    Alerts(Ignored),
    /// List traffic between peers by protocol
    Bandwidth(Ignored),
}

const EVENTS_EXAMPLES: &str = "\
Examples:
  ipfs-cluster-ctl events                                    everything, until Ctrl-C
  ipfs-cluster-ctl events --type peer_up,peer_down,alert     peers only
  ipfs-cluster-ctl --enc=json events --after 1790000000000000  resume after the event with this id";

/// Arguments of `events`.
#[derive(Debug, Args)]
pub(crate) struct Events {
    /// Only events of these types: pin_added, pin_removed, status, peer_up, peer_down, leader, alert, …
    #[arg(long = "type", value_name = "TYPES")]
    pub(crate) kinds: Option<String>,
    /// Only events of this CID
    #[arg(long)]
    pub(crate) cid: Option<String>,
    /// Only events of this peer
    #[arg(long)]
    pub(crate) peer: Option<String>,
    /// Only statuses of the contacted peer
    #[arg(long)]
    pub(crate) local: bool,
    /// Begin after the event with this id, if it is still kept
    #[arg(long, value_name = "ID")]
    pub(crate) after: Option<u64>,
}

/// Subcommands of `ipfs`.
#[derive(Debug, Subcommand)]
pub(crate) enum Ipfs {
    /// Have all IPFS nodes of the cluster remove what is not pinned
    Gc {
        /// Only the node of the contacted peer
        #[arg(long)]
        local: bool,
    },
    /// Show or control the scrubs, which read and hash again everything that the IPFS nodes hold
    #[command(long_about = SCRUB, after_help = SCRUB_EXAMPLES)]
    Scrub(Scrub),
}

const SCRUB: &str = "\
Shows or controls the scrubs of the peers. In each cycle a peer reads and hashes everything that its IPFS \
node holds, slowly. Copies of damaged and missing blocks are fetched from other peers; what no peer has is \
listed as not mended, and its pins are in error. Changes survive restarts.";

const SCRUB_EXAMPLES: &str = "\
Examples:
  ipfs-cluster-ctl ipfs scrub                        show the scrubs of all peers
  ipfs-cluster-ctl ipfs scrub --now --fraction 0.5   begin now, and use half of the disks' time
  ipfs-cluster-ctl ipfs scrub --pause --local        pause the scrub of the contacted peer";

/// Arguments of `ipfs scrub`.
#[derive(Debug, Args)]
pub(crate) struct Scrub {
    /// Begin a cycle now, unless one runs; also ends a pause
    #[arg(long, conflicts_with_all = ["pause", "resume"])]
    pub(crate) now: bool,
    /// Check nothing until the scrub is resumed
    #[arg(long, conflicts_with = "resume")]
    pub(crate) pause: bool,
    /// End a pause
    #[arg(long)]
    pub(crate) resume: bool,
    /// Share of the time in which the disk may be read, 0.001 to 1; "default" for the configured one
    #[arg(long, value_name = "FRACTION")]
    pub(crate) fraction: Option<String>,
    /// Only the contacted peer
    #[arg(long, conflicts_with = "peer")]
    pub(crate) local: bool,
    /// Only this peer; can be repeated
    #[arg(long, value_name = "PEER")]
    pub(crate) peer: Vec<String>,
}

const STATUS: &str = "\
Shows the status of each pin at each peer. Without a CID it lists all.

Statuses to filter by: cluster_error, error, pin_error, pin_queued, pinned, pinning, queued, remote, \
sharded, unexpectedly_unpinned, unpin_error, unpin_queued, unpinned, unpinning.";

const STATUS_EXAMPLES: &str = "\
Examples:
  ipfs-cluster-ctl status
  ipfs-cluster-ctl status --filter error,queued      what is missing or failed
  ipfs-cluster-ctl status --local QmP63D…";

const SYNC: &str = "\
Has the peers compare what they should hold with what their IPFS nodes really have pinned, and pin again \
what is missing there. Prints what was missing or is in error. What the cluster never pinned is left alone. \
The peers also do this by themselves, every cluster.state_sync_interval.";

const RECOVER: &str = "\
Retries failed pins and unpins at once instead of after their next pause. Prints the status of what was \
queued again. Without a CID it retries all that failed.";
