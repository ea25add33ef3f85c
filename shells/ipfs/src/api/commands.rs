//! Table of the API's commands with their arguments and options.

use cluster_http::rpc::Failure;
use futures::future::BoxFuture;
use serde::Serialize;

use super::reply::Reply;
use super::request::Call;
use super::{
    add, blocks, cids, config, dags, diag, exchange, files, info, keys, mfs, names, network, pins, provide,
    repo, request_log, routing,
};
use crate::unixfs::Name;

/// Type of an option's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OptionType {
    Text,
    Bool,
    Number,
}

type Options = &'static [(&'static [&'static str], OptionType)];

/// A command with its arguments and options.
pub(super) struct Command {
    /// Path below `/api/v0/`.
    pub(super) path: &'static str,
    /// Names of the required arguments.
    pub(super) args: &'static [&'static str],
    /// True if the command reads files from the body.
    pub(super) file: bool,
    options: Options,
    pub(super) run: fn(Call) -> BoxFuture<'static, Result<Reply, Failure>>,
}

impl Command {
    pub(super) fn known_options(&self) -> impl Iterator<Item = (&'static [&'static str], OptionType)> {
        self.options.iter().copied()
    }

    /// Returns Kubo's name of the file argument.
    pub(super) fn file_name(&self) -> &'static str {
        match self.path {
            "block/put" => "data",
            "config/replace" => "file",
            "dag/put" => "object data",
            "files/write" => "data",
            "key/import" => "key",
            "name/inspect" | "name/put" => "record",
            "routing/put" => "value-file",
            _ => "path",
        }
    }
}

/// Result of looking up a path.
pub(super) enum Lookup {
    /// A command, and the last segment of the path if that is an argument.
    Command(&'static Command, Option<Name>),
    Unknown,
}

/// Commands of Kubo that this node lacks, below a path that is itself a command. They must be reported as
/// unknown, not parsed as arguments of that command.
const ABSENT: [&str; 6] = [
    "commands/completion",
    "config/edit",
    "config/profile",
    "swarm/addrs/autonat",
    "version/check",
    "version/deps",
];

/// Finds a command by its path, or by the path without its last segment, which is then an argument.
pub(super) fn find(path: &str) -> Lookup {
    let exact = |path: &str| COMMANDS.iter().find(|command| command.path == path);
    if let Some(command) = exact(path) {
        return Lookup::Command(command, None);
    }
    if ABSENT.contains(&path) {
        return Lookup::Unknown;
    }
    let above = path
        .rsplit_once('/')
        .and_then(|(above, last)| Some((exact(above)?, last)));
    match above {
        Some((command, last)) if !last.is_empty() => {
            let last: Vec<u8> = percent_encoding::percent_decode_str(last).collect();
            Lookup::Command(command, Some(Name::from(last)))
        }
        Some(_) | None => Lookup::Unknown,
    }
}

macro_rules! command {
    ($path:literal, [$($arg:literal)*], $run:path, [$($names:tt $kind:ident)*]) => {
        Command {
            path: $path,
            args: &[$($arg),*],
            file: false,
            options: &[$((&$names, OptionType::$kind)),*],
            run: |call| Box::pin($run(call)),
        }
    };
    ($path:literal, files [$($arg:literal)*], $run:path, [$($names:tt $kind:ident)*]) => {
        Command { file: true, ..command!($path, [$($arg)*], $run, [$($names $kind)*]) }
    };
    ($path:literal, files, $run:path, [$($names:tt $kind:ident)*]) => {
        Command { file: true, ..command!($path, [], $run, [$($names $kind)*]) }
    };
}

static COMMANDS: &[Command] = &[
    command!("add", files, add::add, [
        ["quiet", "q"] Bool ["quieter", "Q"] Bool ["silent"] Bool ["progress", "p"] Bool ["trickle", "t"] Bool
        ["only-hash", "n"] Bool ["wrap-with-directory", "w"] Bool ["pin"] Bool ["pin-name"] Text
        ["to-files"] Text ["chunker", "s"] Text ["raw-leaves"] Bool ["cid-version"] Number ["hash"] Text
        ["inline"] Bool ["inline-limit"] Number ["max-file-links"] Number ["max-directory-links"] Number
        ["max-hamt-fanout"] Number ["nocopy"] Bool ["fscache"] Bool ["preserve-mode"] Bool
        ["preserve-mtime"] Bool ["mode"] Number ["mtime"] Number ["mtime-nsecs"] Number
        ["recursive", "r"] Bool
    ]),
    command!("cat", ["ipfs-path"], files::cat, [["offset", "o"] Number ["length", "l"] Number]),
    command!("get", ["ipfs-path"], files::get, [
        ["archive", "a"] Bool ["compress", "C"] Bool ["compression-level", "l"] Number
    ]),
    command!("ls", ["ipfs-path"], files::ls, [["resolve-type"] Bool ["size"] Bool ["stream", "s"] Bool]),
    command!("pin/add", ["ipfs-path"], pins::add, [
        ["recursive", "r"] Bool ["name", "n"] Text ["progress"] Bool
    ]),
    command!("pin/rm", ["ipfs-path"], pins::rm, [["recursive", "r"] Bool]),
    command!("pin/ls", [], pins::ls, [
        ["type", "t"] Text ["quiet", "q"] Bool ["stream", "s"] Bool ["names"] Bool ["name", "n"] Text
    ]),
    command!("pin/update", ["from-path" "to-path"], pins::update, [["unpin"] Bool]),
    command!("pin/verify", [], pins::verify, [["verbose"] Bool ["quiet", "q"] Bool]),
    command!("block/get", ["cid"], blocks::get, []),
    command!("block/stat", ["cid"], blocks::stat, []),
    command!("block/put", files, blocks::put, [
        ["cid-codec"] Text ["mhtype"] Text ["mhlen"] Number ["pin"] Bool ["allow-big-block"] Bool
        ["format", "f"] Text
    ]),
    command!("block/rm", ["cid"], blocks::rm, [["force", "f"] Bool ["quiet", "q"] Bool]),
    command!("dag/get", ["ref"], dags::get, [["output-codec"] Text]),
    command!("dag/put", files, dags::put, [
        ["store-codec"] Text ["input-codec"] Text ["pin"] Bool ["hash"] Text ["allow-big-block"] Bool
    ]),
    command!("dag/resolve", ["ref"], dags::resolve, []),
    command!("dag/import", files, dags::import, [["pin-roots"] Bool ["silent"] Bool ["stats"] Bool]),
    command!("dag/export", ["root"], dags::export, [["progress", "p"] Bool]),
    command!("dag/stat", ["root"], dags::stat, [["progress", "p"] Bool]),
    command!("refs", ["ipfs-path"], dags::refs, [
        ["format"] Text ["edges", "e"] Bool ["unique", "u"] Bool ["recursive", "r"] Bool ["max-depth"] Number
    ]),
    command!("refs/local", [], repo::local_refs, []),
    command!("repo/ls", [], repo::local_refs, []),
    command!("repo/stat", [], repo::stat, [["size-only", "s"] Bool ["human", "H"] Bool]),
    command!("stats/repo", [], repo::stat, [["size-only", "s"] Bool ["human", "H"] Bool]),
    command!("repo/gc", [], repo::gc, [["stream-errors"] Bool ["quiet", "q"] Bool ["silent"] Bool]),
    command!("repo/version", [], repo::version, [["quiet", "q"] Bool]),
    command!("repo/verify", [], repo::verify, []),
    command!("id", [], info::id, [["format", "f"] Text ["peerid-base"] Text]),
    command!("version", [], info::version, [
        ["number", "n"] Bool ["commit"] Bool ["repo"] Bool ["all"] Bool
    ]),
    command!("commands", [], info::commands, [["flags", "f"] Bool]),
    command!("config", ["key"], config::get, [["bool"] Bool ["json"] Bool ["expand-auto"] Bool]),
    command!("config/profile/apply", ["profile"], config::apply_profile, [["dry-run"] Bool]),
    command!("config/replace", files, config::replace, []),
    command!("config/show", [], config::show, []),
    command!("bootstrap", [], network::bootstrap_list, [["expand-auto"] Bool]),
    command!("bootstrap/list", [], network::bootstrap_list, [["expand-auto"] Bool]),
    command!("bootstrap/add", [], network::bootstrap_add, [["default"] Bool]),
    command!("bootstrap/rm", [], network::bootstrap_rm, [["all"] Bool]),
    command!("swarm/peering/add", ["address"], network::peering_add, []),
    command!("swarm/peering/rm", ["ID"], network::peering_rm, []),
    command!("swarm/peering/ls", [], network::peering_ls, []),
    command!("ping", ["peer ID"], network::ping, [["count", "n"] Number]),
    command!("stats/bw", [], network::bandwidth, [
        ["peer", "p"] Text ["proto", "t"] Text ["poll"] Bool ["interval", "i"] Text
    ]),
    command!("stats/dht", [], network::dht, []),
    command!("stats/provide", [], provide::stat, [["lan"] Bool ["all", "a"] Bool]),
    command!("provide/stat", [], provide::stat, [["lan"] Bool ["all", "a"] Bool]),
    command!("provide/clear", [], provide::clear, [["quiet", "q"] Bool]),
    command!("provide/once", ["cid"], provide::once, [["recursive", "r"] Bool]),
    command!("swarm/peers", [], info::swarm_peers, [
        ["verbose", "v"] Bool ["streams"] Bool ["latency"] Bool ["direction"] Bool ["identify"] Bool
    ]),
    command!("swarm/connect", ["address"], info::swarm_connect, []),
    command!("swarm/disconnect", ["address"], info::swarm_disconnect, []),
    command!("swarm/addrs", [], info::swarm_addrs, []),
    command!("swarm/addrs/local", [], info::swarm_addrs_local, [["id"] Bool]),
    command!("swarm/addrs/listen", [], info::swarm_addrs_local, [["id"] Bool]),
    command!("resolve", ["name"], info::resolve, [["recursive", "r"] Bool]),
    command!("bitswap/stat", [], exchange::stat, [["verbose", "v"] Bool ["human"] Bool]),
    command!("stats/bitswap", [], exchange::stat, [["verbose", "v"] Bool ["human"] Bool]),
    command!("bitswap/wantlist", [], exchange::wantlist, [["peer", "p"] Text]),
    command!("cid/format", ["cid"], cids::format, [["f"] Text ["v"] Text ["mc"] Text ["b"] Text]),
    command!("cid/base32", ["cid"], cids::base32, []),
    command!("cid/bases", [], cids::bases, [["prefix"] Bool ["numeric"] Bool]),
    command!("cid/codecs", [], cids::codecs, [["numeric", "n"] Bool ["supported", "s"] Bool]),
    command!("cid/hashes", [], cids::hashes, [["numeric", "n"] Bool ["supported", "s"] Bool]),
    command!("cid/inspect", ["cid"], cids::inspect, []),
    command!("diag/sys", [], diag::sys, []),
    command!("diag/cmds", [], request_log::list, [["verbose", "v"] Bool]),
    command!("diag/cmds/clear", [], request_log::clear, []),
    command!("diag/cmds/set-time", ["time"], request_log::set_time, []),
    command!("shutdown", [], diag::shutdown, []),
    command!("files/stat", ["path"], mfs::stat, [
        ["format"] Text ["hash"] Bool ["size"] Bool ["with-local"] Bool
    ]),
    command!("files/ls", [], mfs::ls, [["long", "l"] Bool ["U"] Bool]),
    command!("files/read", ["path"], mfs::read, [["offset", "o"] Number ["count", "n"] Number]),
    command!("files/write", files ["path"], mfs::write, [
        ["offset", "o"] Number ["create", "e"] Bool ["parents", "p"] Bool ["truncate", "t"] Bool
        ["count", "n"] Number ["raw-leaves"] Bool ["cid-version", "cid-ver"] Number ["hash"] Text
        ["flush", "f"] Bool
    ]),
    command!("files/mkdir", ["path"], mfs::mkdir, [
        ["parents", "p"] Bool ["cid-version", "cid-ver"] Number ["hash"] Text ["flush", "f"] Bool
    ]),
    command!("files/cp", ["source" "dest"], mfs::cp, [
        ["force"] Bool ["parents", "p"] Bool ["flush", "f"] Bool
    ]),
    command!("files/mv", ["source" "dest"], mfs::mv, [["flush", "f"] Bool]),
    command!("files/rm", ["path"], mfs::rm, [["recursive", "r"] Bool ["force"] Bool ["flush", "f"] Bool]),
    command!("files/flush", [], mfs::flush, []),
    command!("files/chcid", ["path"], mfs::chcid, [
        ["cid-version", "cid-ver"] Number ["hash"] Text ["flush", "f"] Bool
    ]),
    command!("files/chmod", ["mode" "path"], mfs::chmod, []),
    command!("files/touch", ["path"], mfs::touch, [["mtime"] Number ["mtime-nsecs"] Number]),
    command!("key/list", [], keys::list, [["l"] Bool ["ipns-base"] Text]),
    command!("key/ls", [], keys::list, [["l"] Bool ["ipns-base"] Text]),
    command!("key/gen", ["name"], keys::generate, [
        ["type", "t"] Text ["size", "s"] Number ["ipns-base"] Text
    ]),
    command!("key/import", files ["name"], keys::import, [
        ["ipns-base"] Text ["format", "f"] Text ["allow-any-key-type"] Bool
    ]),
    command!("key/rename", ["name" "newName"], keys::rename, [["force", "f"] Bool ["ipns-base"] Text]),
    command!("key/rm", ["name"], keys::rm, [["l"] Bool ["ipns-base"] Text]),
    command!("name/publish", ["ipfs-path"], names::publish, [
        ["key", "k"] Text ["resolve"] Bool ["lifetime", "t"] Text ["ttl"] Text ["quieter", "Q"] Bool
        ["v1compat"] Bool ["allow-offline"] Bool ["allow-delegated"] Bool ["sequence"] Number
        ["ipns-base"] Text
    ]),
    command!("name/resolve", [], names::resolve, [
        ["recursive", "r"] Bool ["nocache", "n"] Bool ["dht-record-count", "dhtrc"] Number
        ["dht-timeout", "dhtt"] Text ["stream", "s"] Bool
    ]),
    command!("name/inspect", files, names::inspect, [["verify"] Text ["dump"] Bool]),
    command!("name/get", ["name"], names::get, []),
    command!("name/put", files ["name"], names::put, [
        ["force"] Bool ["allow-offline"] Bool ["allow-delegated"] Bool ["quiet", "q"] Bool
    ]),
    command!("routing/findprovs", ["key"], routing::find_providers, [
        ["verbose", "v"] Bool ["num-providers", "n"] Number
    ]),
    command!("routing/findpeer", ["peerID"], routing::find_peer, [["verbose", "v"] Bool]),
    command!("routing/provide", ["key"], routing::provide, [["verbose", "v"] Bool ["recursive", "r"] Bool]),
    command!("routing/reprovide", [], routing::reprovide, []),
    command!("routing/get", ["key"], names::routing_get, [["verbose", "v"] Bool]),
    command!("routing/put", files ["key"], names::routing_put, [
        ["allow-offline"] Bool ["verbose", "v"] Bool
    ]),
];

/// Entry of the answer to `commands`.
#[derive(Serialize)]
pub(super) struct CommandDescription {
    #[serde(rename = "Name")]
    name: String,
    #[serde(rename = "Subcommands")]
    subcommands: Vec<CommandDescription>,
    #[serde(rename = "Options")]
    options: Vec<OptionDescription>,
}

#[derive(Serialize)]
struct OptionDescription {
    #[serde(rename = "Names")]
    names: &'static [&'static str],
}

/// Returns the tree of all commands.
pub(super) fn command_tree() -> CommandDescription {
    let mut root = CommandDescription {
        name: "ipfs".to_owned(),
        subcommands: Vec::new(),
        options: Vec::new(),
    };
    for command in COMMANDS {
        let mut at = &mut root;
        for name in command.path.split('/') {
            let known = at.subcommands.iter().position(|it| it.name == name);
            let index = known.unwrap_or_else(|| {
                let new = CommandDescription {
                    name: name.to_owned(),
                    subcommands: Vec::new(),
                    options: Vec::new(),
                };
                at.subcommands.push(new);
                at.subcommands.len() - 1
            });
            at = &mut at.subcommands[index];
        }
        at.options = command
            .known_options()
            .map(|(names, _)| OptionDescription { names })
            .collect();
    }
    root
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_that_the_manual_calls_missing_are_unknown() {
        let manual = include_str!("../../../../docs/guide.md");
        let table = manual
            .split("### What the embedded node does not do")
            .nth(1)
            .unwrap();
        let table = table.split("\nAn unsupported command").next().unwrap();
        let rows = table.lines().filter(|line| line.starts_with('|'));
        let missing = rows.filter_map(|row| row.split('|').nth(1)).flat_map(|cell| {
            let quoted = cell.split('`').skip(1).step_by(2);
            quoted.filter(|text| text.contains('/') && !text.starts_with('/'))
        });
        let missing: Vec<&str> = missing.collect();
        assert!(missing.len() > 15, "{missing:?}");
        for path in missing {
            assert!(matches!(find(path), Lookup::Unknown), "{path} is there");
        }
    }
}
