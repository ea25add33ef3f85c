//! Rewrites flags in Go's syntax into the syntax of clap.
//!
//! Go's flags take one dash or two for any name: `-wait`, `--n name`, `-rmin=2`, `--wait=false`.

use clap::{ArgAction, Command};
use std::ffi::OsString;

/// Names of a flag of a command, and whether it has a value.
struct Flag {
    names: Vec<String>,
    short: Option<char>,
    boolean: bool,
}

fn flags(command: &Command) -> Vec<Flag> {
    let own = command
        .get_arguments()
        .filter(|arg| !arg.is_positional())
        .map(|arg| Flag {
            names: arg
                .get_long_and_visible_aliases()
                .unwrap_or_default()
                .into_iter()
                .map(str::to_owned)
                .collect(),
            short: arg.get_short(),
            boolean: matches!(arg.get_action(), ArgAction::SetTrue),
        });
    own.chain(command.get_subcommands().flat_map(flags)).collect()
}

/// Rewrites the arguments, which begin with the program's name. Unknown flags are kept, for clap to refuse,
/// and so is everything after `--`. `pin <CID>` becomes `pin add <CID>`.
pub(crate) fn rewrite(command: &Command, arguments: Vec<OsString>) -> Vec<OsString> {
    let flags = flags(command);
    let mut rewritten = Vec::with_capacity(arguments.len());
    let mut literal = false;
    for (index, argument) in arguments.into_iter().enumerate() {
        literal |= argument == "--";
        match argument.to_str().filter(|_| index > 0 && !literal) {
            Some(text) => rewritten.extend(rewrite_one(&flags, text).map(OsString::from)),
            None => rewritten.push(argument),
        }
    }
    if let Some(at) = bare_pin(command, &rewritten) {
        rewritten.insert(at, "add".into());
    }
    rewritten
}

/// Returns the index at which to insert `add`, if the command is `pin` with a CID or path.
fn bare_pin(command: &Command, arguments: &[OsString]) -> Option<usize> {
    let text = |at: usize| arguments.get(at)?.to_str();
    let is_command = |name: &str| command.get_subcommands().any(|known| known.get_name() == name);
    let first = (1..arguments.len()).find(|at| text(*at).is_some_and(is_command))?;
    let what = text(first + 1)?;
    let is_meant = text(first) == Some("pin") && crate::validate::path(what.as_ref()).is_ok();
    is_meant.then_some(first + 1)
}

/// Rewrites one argument; `None` for `--flag=false`, which is omitted.
fn rewrite_one(flags: &[Flag], text: &str) -> Option<String> {
    let dashes = text.len() - text.trim_start_matches('-').len();
    let (name, value) = match text[dashes..].split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (&text[dashes..], None),
    };
    if !(1..=2).contains(&dashes) || name.is_empty() {
        return Some(text.to_owned());
    }
    let mut letters = name.chars();
    let single = letters.next().filter(|_| letters.next().is_none());
    let known = |flag: &&Flag| match single {
        Some(letter) => flag.short == Some(letter),
        None => flag.names.iter().any(|known| known == name),
    };
    let mut found = flags.iter().filter(known).peekable();
    if found.peek().is_none() {
        return Some(text.to_owned());
    }
    let boolean = found.all(|flag| flag.boolean);
    let prefix = if single.is_some() { "-" } else { "--" };
    match value {
        Some("true" | "1" | "t" | "T" | "TRUE" | "True") if boolean => Some(format!("{prefix}{name}")),
        Some("false" | "0" | "f" | "F" | "FALSE" | "False") if boolean => None,
        Some(value) => Some(format!("{prefix}{name}={value}")),
        None => Some(format!("{prefix}{name}")),
    }
}

#[cfg(test)]
mod tests {
    use crate::args::Cli;
    use clap::CommandFactory;

    fn rewritten(line: &str) -> String {
        let arguments = line.split(' ').map(Into::into).collect();
        let texts = super::rewrite(&Cli::command(), arguments).into_iter();
        texts
            .map(|text| text.into_string().unwrap())
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn one_dash_and_two_dashes_are_equivalent() {
        for (given, expected) in [
            (
                "ctl pin add Qa -ns -wl 2 -wt=5s",
                "ctl pin add Qa --ns --wl 2 --wt=5s",
            ),
            (
                "ctl pin add -rmin 1 --rmax=2 Qa",
                "ctl pin add --rmin 1 --rmax=2 Qa",
            ),
            ("ctl pin add --r -1 --n name Qa", "ctl pin add -r -1 -n name Qa"),
            (
                "ctl -enc json -l /ip4/x status",
                "ctl --enc json -l /ip4/x status",
            ),
            ("ctl --s id", "ctl -s id"),
        ] {
            assert_eq!(rewritten(given), expected);
        }
    }

    #[test]
    fn booleans_take_values_as_in_go() {
        assert_eq!(rewritten("ctl status --local=true"), "ctl status --local");
        assert_eq!(rewritten("ctl status -local=false"), "ctl status");
        assert_eq!(rewritten("ctl pin rm -w=1 Qa"), "ctl pin rm -w Qa");
    }

    #[test]
    fn pin_without_subcommand_means_pin_add() {
        const CID: &str = "bafkqablimvwgy3y";
        for (given, expected) in [
            (format!("ctl -d pin {CID}"), format!("ctl -d pin add {CID}")),
            (
                format!("ctl pin /ipfs/{CID}/a -w"),
                format!("ctl pin add /ipfs/{CID}/a -w"),
            ),
            (format!("ctl pin rm {CID}"), format!("ctl pin rm {CID}")),
            (
                format!("ctl add --name pin {CID}"),
                format!("ctl add --name pin {CID}"),
            ),
            ("ctl pin frob".to_owned(), "ctl pin frob".to_owned()),
        ] {
            assert_eq!(rewritten(&given), expected);
        }
    }

    #[test]
    fn values_and_unknown_flags_are_kept() {
        for line in [
            "ctl pin add -5 -xyz - --- --nonsense=1 -- -ns",
            "ctl add a=b -=c",
            "-ns",
        ] {
            assert_eq!(rewritten(line), line);
        }
    }
}
