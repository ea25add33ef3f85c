//! `ipfs-cluster-ctl`: command-line client of the REST API of a cluster peer.

mod args;
mod argv;
mod commands;
mod failure;
mod graph;
mod human;
mod import;
mod output;
mod text;
mod validate;
mod wait;

use args::Cli;
use clap::error::ErrorKind;
use clap::{Command, CommandFactory, FromArgMatches};
use std::process::ExitCode;

fn main() -> ExitCode {
    let command = with_help_alias(Cli::command());
    let arguments = argv::rewrite(&command, std::env::args_os().collect());
    let cli = match command
        .try_get_matches_from(arguments)
        .and_then(|m| Cli::from_arg_matches(&m))
    {
        Ok(cli) => cli,
        Err(error) => return refused(&error),
    };
    // One thread is enough: the tool mostly waits for one peer.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error starting: {error}");
            return ExitCode::from(failure::LOCAL);
        }
    };
    let encoding = cli.global.encoding;
    match runtime.block_on(commands::run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print(encoding);
            ExitCode::from(failure.exit_code())
        }
    }
}

/// Adds the alias `h` of `help` to every command with subcommands, as in the Go tool.
fn with_help_alias(mut command: Command) -> Command {
    // Only a built command has `help` among its subcommands.
    command.build();
    alias_help(command)
}

fn alias_help(command: Command) -> Command {
    command.mut_subcommands(|child| match child.get_name() {
        "help" => child.alias("h"),
        _ => alias_help(child),
    })
}

/// Returns the exit code of a clap error: 0 for help, 3 for an unknown command (as the Go tool), else 1.
fn refused(error: &clap::Error) -> ExitCode {
    print(error);
    let kind = error.kind();
    let help = ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    if matches!(kind, ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) || kind == help {
        ExitCode::SUCCESS
    } else if kind == ErrorKind::InvalidSubcommand {
        ExitCode::from(failure::NO_SUCH_COMMAND)
    } else {
        ExitCode::from(failure::LOCAL)
    }
}

/// Prints help with styles; errors plain and escaped, because they quote arguments, which a script may have
/// from elsewhere.
fn print(error: &clap::Error) {
    if error.use_stderr() {
        eprint!("{}", cluster_api::terminal::lines(error.render()));
    } else {
        // A failure of standard output cannot be reported anywhere.
        let _ = error.print();
    }
}
