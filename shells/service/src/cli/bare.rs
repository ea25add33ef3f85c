//! The program without a command: runs the peer, with the flags of Go ipfs-cluster 0.0.12.

use clap::{Args, Parser, ValueEnum};
use ipfs_cluster_service::config::Address;

use super::{Cli, Command, Doing, Failure, List, daemon};

/// Flags before a command, or without one, for scripts written for Go ipfs-cluster 0.0.12.
#[derive(Debug, Args)]
pub(super) struct Flags {
    /// The same as the command `init`
    #[arg(long, hide = true)]
    init: bool,
    /// The same as `daemon --bootstrap`
    #[arg(long, short = 'j', hide = true, value_name = "MULTIADDRS")]
    bootstrap: Vec<List<Address>>,
    /// The same as `daemon --leave`
    #[arg(long, short = 'x', hide = true)]
    leave: bool,
    /// The allocation strategy of 0.0.12; replaced by the sections `allocator` and `informer`
    #[arg(long, short, hide = true, value_name = "STRATEGY")]
    alloc: Option<Strategy>,
}

/// Allocation strategies of 0.0.12.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Strategy {
    Disk,
    Reposize,
    Numpin,
    Pincount,
}

impl Flags {
    /// Returns the command that the flags select.
    ///
    /// # Errors
    /// The flags do not apply to this command.
    pub(super) fn complete(self, command: Option<Command>) -> Result<Command, Failure> {
        let is_set = self.init || self.leave || !self.bootstrap.is_empty() || self.alloc.is_some();
        let mut flags = match command {
            None if self.init => {
                let init = Cli::parse_from(["ipfs-cluster-service", "init"]).command;
                return Ok(init.expect("it was just named"));
            }
            None => daemon::Flags::default(),
            Some(Command::Daemon(flags)) if !self.init => flags,
            Some(_) if is_set => {
                let why = "--init, --bootstrap, --leave and --alloc go with no other command: see --help";
                return Err(anyhow::anyhow!(why)).doing("reading the command line");
            }
            Some(command) => return Ok(command),
        };
        flags.bootstrap.extend(self.bootstrap);
        flags.leave |= self.leave;
        flags.alloc_ignored |= self.alloc.is_some();
        Ok(Command::Daemon(flags))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(line: &[&str]) -> Result<Command, String> {
        let cli = Cli::try_parse_from([&["ipfs-cluster-service"], line].concat());
        let cli = cli.map_err(|error| error.to_string())?;
        let completed = cli.bare.complete(cli.command);
        completed.map_err(|failure| failure.error.to_string())
    }

    #[test]
    fn without_a_command_the_peer_runs_with_the_flags_of_0_0_12() {
        const PEER: &str = "/ip4/127.0.0.1/tcp/9096/ipfs/QmXZrtE5jQwXNqCJMfHUTQkvhQ4ZAnqMnmzFMJfLewuabc";
        for line in [
            &["-x", "--bootstrap", PEER][..],
            &["-j", PEER, "daemon", "--leave"],
        ] {
            let Ok(Command::Daemon(flags)) = completed(line) else {
                panic!("{line:?} runs the peer");
            };
            assert_eq!((flags.bootstrap.len(), flags.leave), (1, true), "{line:?}");
        }
        assert!(matches!(
            completed(&["--alloc", "numpin"]),
            Ok(Command::Daemon(_))
        ));
        assert!(matches!(completed(&["--init"]), Ok(Command::Init(_))));
    }

    #[test]
    fn the_flags_are_refused_with_other_commands() {
        let why = completed(&["--leave", "version"]).unwrap_err();
        assert!(why.contains("--leave"), "{why}");
        assert!(completed(&["--alloc", "luck"]).is_err());
    }
}
