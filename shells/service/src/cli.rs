//! The command line: parsing, dispatch and exit codes.

mod bare;
mod daemon;
mod demo;
mod id;
mod init;
mod lock;
mod prompt;
mod rescue;
mod signals;
mod state;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use cluster_api::terminal;
use ipfs_cluster_service::logging::{self, Format, Levels};

const ABOUT: &str = "Runs a peer of an IPFS cluster";

const LONG_ABOUT: &str = "\
Runs a peer of an IPFS cluster.

The peers of a cluster agree on what must stay pinned, with how many copies, and on which peers. Each makes \
its own IPFS node hold its part, and when a peer dies the others take over. Talk to a running peer with \
ipfs-cluster-ctl.";

const EXAMPLES: &str = "\
Examples:
  See what a cluster does, on this machine only:
    ipfs-cluster-service demo

  A peer of its own:
    ipfs-cluster-service init
    ipfs-cluster-service daemon

  Three peers that form one cluster. On each machine, with the same secret:
    CLUSTER_SECRET=<64 hex digits> ipfs-cluster-service init --peers \\
      /ip4/10.0.0.1/tcp/9096/p2p/<id of 1>,/ip4/10.0.0.2/tcp/9096/p2p/<id of 2>,/ip4/10.0.0.3/…
    ipfs-cluster-service daemon
  (`ipfs-cluster-service id` shows the id of a peer. init keeps the identity that is there already.)";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "ipfs-cluster-service",
    version = concat!("version ", env!("CARGO_PKG_VERSION")),
    disable_version_flag = true,
    about = ABOUT,
    long_about = LONG_ABOUT,
    after_help = EXAMPLES,
    arg_required_else_help = false,
    subcommand_help_heading = "Commands (without one, the peer is run)"
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(flatten)]
    bare: bare::Flags,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Options of all commands.
#[derive(Debug, Args)]
struct Global {
    /// The folder with the configuration and the data [default: ~/.ipfs-cluster]
    #[arg(
        long,
        short,
        global = true,
        value_name = "FOLDER",
        env = "IPFS_CLUSTER_PATH",
        hide_env_values = true,
        // A variable that is set but empty counts as unset.
        value_parser = path_or_empty()
    )]
    config: Option<PathBuf>,
    /// Do not ask before something is overwritten
    // Not for the commands: the Go peer's `state export -f` names a file.
    #[arg(long, short)]
    force: bool,
    /// Log everything, libraries included
    #[arg(long, short, global = true)]
    debug: bool,
    /// Levels to log: error, warn, info, debug or trace, for the whole program or for parts:
    /// info,restapi:debug
    #[arg(
        long,
        short,
        global = true,
        value_name = "LEVELS",
        env = "IPFS_CLUSTER_LOG_LEVEL",
        hide_env_values = true,
        default_value = "info"
    )]
    loglevel: Levels,
    /// Format of log lines
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        env = "IPFS_LOGGING_FMT",
        default_value = "color"
    )]
    logformat: LogFormat,
    /// Print the version of this program
    // `-v`, as with the Go peer, where clap would have `-V`.
    #[arg(long, short = 'v', action = clap::ArgAction::Version)]
    version: Option<bool>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    /// For people, with colours on a terminal
    // A variable that is set but empty counts as unset.
    #[value(alias = "")]
    Color,
    /// For people, without colours
    Nocolor,
    /// One JSON object a line
    Json,
}

impl From<LogFormat> for Format {
    fn from(format: LogFormat) -> Self {
        match format {
            LogFormat::Color => Self::Human,
            LogFormat::Nocolor => Self::Plain,
            LogFormat::Json => Self::Json,
        }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a configuration, an identity and an empty peerstore
    Init(init::Options),
    /// Run the peer
    #[command(visible_alias = "run")]
    Daemon(daemon::Flags),
    /// Show a cluster at work: three peers on this machine, one of which dies
    Demo(demo::Flags),
    /// Show this peer's id
    Id(id::Options),
    /// Export, import or remove this peer's state: the pinset
    State(state::Options),
    /// Show the version
    Version,
    /// Write a completion script for a shell
    #[command(after_help = "Example:\n  ipfs-cluster-service completions bash \
                      > ~/.local/share/bash-completion/completions/ipfs-cluster-service")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages, one for each command
    #[command(hide = true)]
    Man {
        /// Folder to write them to
        folder: PathBuf,
    },
}

/// A failed action and its error. It ends the program with code 1.
#[derive(Debug)]
struct Failure {
    doing: &'static str,
    error: anyhow::Error,
}

/// A comma-separated list, as one value of an option. Empty elements are ignored, as a script with an unset
/// variable produces them.
#[derive(Debug, Clone)]
struct List<T>(Vec<T>);

impl<T: FromStr> FromStr for List<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, T::Err> {
        let elements = text
            .split(',')
            .map(str::trim)
            .filter(|element| !element.is_empty());
        elements.map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

/// Returns the elements of all values of an option.
fn elements<T: Clone>(values: &[List<T>]) -> Vec<T> {
    values
        .iter()
        .flat_map(|List(elements)| elements.iter().cloned())
        .collect()
}

/// Parser of a path that may be empty, which counts as absent.
fn path_or_empty() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

/// Adds the attempted action to an error.
trait Doing<T> {
    fn doing(self, doing: &'static str) -> Result<T, Failure>;
}

impl<T, E: Into<anyhow::Error>> Doing<T> for Result<T, E> {
    fn doing(self, doing: &'static str) -> Result<T, Failure> {
        self.map_err(|error| Failure {
            doing,
            error: error.into(),
        })
    }
}

impl Global {
    /// Returns the configuration folder.
    fn folder(&self) -> Result<PathBuf, Failure> {
        let named = self
            .config
            .as_ref()
            .filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = named {
            return Ok(folder.clone());
        }
        let home = std::env::home_dir().filter(|home| !home.as_os_str().is_empty());
        home.map(|home| home.join(".ipfs-cluster"))
            .ok_or_else(|| anyhow::anyhow!("there is no home folder: name one with --config"))
            .doing("finding the configuration folder")
    }
}

/// Returns the command line for clap, with `h` for `help` at every command that has subcommands, as in the Go
/// peer.
fn command() -> clap::Command {
    let mut command = Cli::command();
    // Only a built command has `help` among its subcommands.
    command.build();
    alias_help(command)
}

fn alias_help(command: clap::Command) -> clap::Command {
    command.mut_subcommands(|child| match child.get_name() {
        "help" => child.alias("h"),
        _ => alias_help(child),
    })
}

/// Runs the command line.
pub(crate) fn main() -> ExitCode {
    let matches = command().try_get_matches();
    let cli = match matches.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        // As in the Go peer, wrong usage is code 1, not clap's 2; help and the version are no errors.
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::from(error.use_stderr()));
        }
    };
    let command = cli.bare.complete(cli.command);
    let levels = if cli.global.debug {
        Levels::debug()
    } else {
        cli.global.loglevel.clone()
    };
    logging::start(&levels, cli.global.logformat.into());
    let done = command.and_then(|command| run(&cli.global, command));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { doing, error }) => {
            note(format_args!("error {doing}: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(global: &Global, command: Command) -> Result<(), Failure> {
    match command {
        Command::Init(options) => init::run(global, &options),
        Command::Daemon(flags) => daemon::run(global, flags),
        Command::Demo(flags) => demo::run(flags),
        Command::Id(options) => id::run(global, &options),
        Command::State(options) => state::run(global, options),
        Command::Version => {
            print_output(env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "ipfs-cluster-service", &mut script);
            // The reader may be gone.
            let _ = std::io::stdout().write_all(&script);
            Ok(())
        }
        Command::Man { folder } => {
            clap_mangen::generate_to(Cli::command(), folder).doing("writing the manual")
        }
    }
}

/// Prints the output of a command, without terminal controls. The reader may be gone.
fn print_output(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{}", terminal::lines(text));
}

/// Prints a message to the standard error, without terminal controls.
fn note(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{}", terminal::lines(text));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_valid() {
        Cli::command().debug_assert();
    }

    #[test]
    fn h_means_help_at_every_level() {
        for arguments in [
            &["h"][..],
            &["h", "init"],
            &["state", "h"],
            &["state", "h", "import"],
            &["help", "state"],
        ] {
            let line = std::iter::once("ipfs-cluster-service").chain(arguments.iter().copied());
            let error = command().try_get_matches_from(line).unwrap_err();
            assert_eq!(error.kind(), clap::error::ErrorKind::DisplayHelp, "{arguments:?}");
        }
    }
}
