//! A command that the proxy answers: its arguments and options, parsed as Kubo parses them.

use std::time::Duration;

use axum::http::{HeaderMap, Request, StatusCode, header};
use cid::multibase::Base;
use cluster_api::GoDuration;
use cluster_http::multipart::{self, Multipart};
use cluster_http::query;
use cluster_http::rpc::{Failure, argument_lines, parse_bool};
use cluster_ipfs::Cid;
use cluster_ipfs::api::{RequestBody, parse_base};
use cluster_ipfs::unixfs::Name;
use futures::stream::StreamExt;
use http_body_util::BodyStream;
use percent_encoding::percent_decode_str;
use tokio::time::timeout;

/// Maximum number of arguments and options in a query, which holds paths of some KiB and at most a few
/// thousand CIDs.
const PAIRS_MAX: usize = 4096;

/// Maximum size of the arguments in a body (`pin add` from standard input), in bytes.
const BODY_ARGS_MAX: usize = 1024 * 1024;

/// Time for those arguments to arrive.
const BODY_WAIT: Duration = Duration::from_secs(60);

/// The commands that the proxy answers or watches; all others are forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    PinAdd,
    PinRm,
    PinLs,
    PinUpdate,
    RepoStat,
    RepoGc,
    Add,
    Put(Put),
}

/// Commands besides `add` that store blocks and may pin them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    Block,
    Dag,
    Import,
}

/// All commands by path, with their required arguments.
const COMMANDS: [(&str, Command, &[&str]); 11] = [
    ("pin/add", Command::PinAdd, &["ipfs-path"]),
    ("pin/rm", Command::PinRm, &["ipfs-path"]),
    ("pin/ls", Command::PinLs, &[]),
    ("pin/update", Command::PinUpdate, &["from-path", "to-path"]),
    ("repo/stat", Command::RepoStat, &[]),
    ("stats/repo", Command::RepoStat, &[]),
    ("repo/gc", Command::RepoGc, &[]),
    ("add", Command::Add, &[]),
    ("block/put", Command::Put(Put::Block), &[]),
    ("dag/put", Command::Put(Put::Dag), &[]),
    ("dag/import", Command::Put(Put::Import), &[]),
];

impl Command {
    /// Returns the label of the command in metrics.
    pub(super) fn name(self) -> &'static str {
        let named = COMMANDS.iter().find(|(_, command, _)| *command == self);
        named.map_or("", |(path, ..)| path)
    }

    /// Returns the command of a path, and the argument that may be its last segment.
    pub(super) fn find(path: &str) -> Option<(Self, Option<Name>)> {
        let path = path.strip_prefix("/api/v0/")?;
        let path = path.strip_suffix('/').unwrap_or(path);
        let exact = |path: &str| COMMANDS.iter().find(|(known, ..)| *known == path);
        if let Some((_, command, _)) = exact(path) {
            return Some((*command, None));
        }
        let (above, last) = path.rsplit_once('/')?;
        let (_, command, _) = exact(above)?;
        let takes = [Self::PinAdd, Self::PinRm, Self::PinLs].contains(command) && !last.is_empty();
        let last = || Name::from(percent_decode_str(last).collect::<Vec<u8>>());
        takes.then(|| (*command, Some(last())))
    }

    fn required(self) -> &'static [&'static str] {
        let found = COMMANDS.iter().find(|(_, command, _)| *command == self);
        found.map_or(&[], |(.., required)| required)
    }
}

/// A parsed request for a command.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) args: Vec<Name>,
    /// Credentials of the client, for requests to the node on its behalf.
    pub(super) credentials: HeaderMap,
    pub(super) options: Options,
}

impl Call {
    /// Parses a request for `command`; `first` is the argument from its path.
    pub(super) async fn read(
        command: Command,
        first: Option<Name>,
        request: Request<RequestBody>,
    ) -> Result<Self, Failure> {
        let (args, options) = Options::parse(request.uri().query().unwrap_or_default())?;
        let mut args: Vec<Name> = first.into_iter().chain(args).collect();
        let credentials = credentials(request.headers());
        let required = command.required();
        if args.len() < required.len() {
            let arguments = timeout(BODY_WAIT, body_args(request)).await;
            args.extend(arguments.map_err(|_| {
                let why = format!("the arguments in the body did not arrive within {BODY_WAIT:?}");
                Failure::plain(StatusCode::REQUEST_TIMEOUT, why)
            })??);
        }
        if let Some(missing) = required.get(args.len()) {
            return Err(Failure::bad_request(format!("argument {missing:?} is required")));
        }
        Ok(Self {
            args,
            credentials,
            options,
        })
    }

    /// Formats a CID in the base that the client asked for.
    pub(super) fn format_cid(&self, cid: &Cid) -> String {
        self.options.format_cid(cid)
    }
}

/// Returns those headers that authenticate the client.
pub(super) fn credentials(headers: &HeaderMap) -> HeaderMap {
    let authorization = headers.get(header::AUTHORIZATION);
    authorization
        .map(|value| (header::AUTHORIZATION, value.clone()))
        .into_iter()
        .collect()
}

/// Reads the arguments, one a line, from the first part of a multipart body.
async fn body_args(request: Request<RequestBody>) -> Result<Vec<Name>, Failure> {
    let kind = request.headers().get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let Some(boundary) = multipart::boundary(kind) else {
        return Ok(Vec::new());
    };
    let data = BodyStream::new(request.into_body()).filter_map(|frame| {
        std::future::ready(match frame {
            Ok(frame) => frame.into_data().ok().map(Ok),
            Err(error) => Some(Err(error)),
        })
    });
    let mut parts = Multipart::new(data, &boundary);
    if parts.next_part().await.map_err(Failure::bad_request)?.is_none() {
        return Ok(Vec::new());
    }
    let mut text = Vec::new();
    let mut content = parts.content();
    while let Some(piece) = content.next().await {
        text.extend_from_slice(&piece.map_err(Failure::bad_request)?);
        if text.len() > BODY_ARGS_MAX {
            let why = format!("the arguments in the body have more than {BODY_ARGS_MAX} bytes");
            return Err(Failure::bad_request(why));
        }
    }
    Ok(argument_lines(&text).map(Name::from).collect())
}

/// The options of a request, parsed and as they were sent.
#[derive(Debug, Clone, Default)]
pub(super) struct Options {
    query: String,
    pairs: Vec<(String, String)>,
}

impl Options {
    /// Parses a query into arguments and options.
    pub(super) fn parse(query: &str) -> Result<(Vec<Name>, Self), Failure> {
        let (mut args, mut pairs) = (Vec::new(), Vec::new());
        for (name, value) in query::pairs(query) {
            if args.len() + pairs.len() == PAIRS_MAX {
                let why = format!("more than {PAIRS_MAX} arguments and options");
                return Err(Failure::bad_request(why));
            }
            if name == b"arg" {
                args.push(Name::from(value));
            } else {
                pairs.push((utf8(name)?, utf8(value)?));
            }
        }
        let query = query.to_owned();
        Ok((args, Self { query, pairs }))
    }

    /// Formats a CID in the base that the client asked for (`cid-base`).
    pub(super) fn format_cid(&self, cid: &Cid) -> String {
        let Some(base) = self.text(&["cid-base"]).and_then(parse_base) else {
            return cid.to_string();
        };
        if base == Base::Base58Btc && cid.version() == cid::Version::V0 {
            return cid.to_string();
        }
        // Version 0 can only be written in base58btc.
        let upgraded = cid.into_v1().unwrap_or(*cid);
        let shown = upgraded.to_string_of_base(base);
        shown.unwrap_or_else(|_| upgraded.to_string())
    }

    /// Returns the query as it was sent.
    pub(super) fn query(&self) -> &str {
        &self.query
    }

    /// Returns the value of an option under any of its names.
    pub(super) fn text(&self, names: &[&str]) -> Option<&str> {
        let named = |pair: &&(String, String)| names.contains(&pair.0.as_str());
        self.pairs.iter().find(named).map(|(_, value)| value.as_str())
    }

    /// Returns a boolean option under any of its names; the first is Kubo's.
    pub(super) fn flag(&self, names: &[&str], default: bool) -> Result<bool, Failure> {
        let mut given = self
            .pairs
            .iter()
            .filter(|(name, _)| names.contains(&name.as_str()));
        let Some((_, value)) = given.next() else {
            return Ok(default);
        };
        if let Some((_, second)) = given.next() {
            let (name, values) = (names[0], format!("[{value} {second}]"));
            let why = format!("expected key {name} to have only a single value, received {values}");
            return Err(Failure::bad_request(why));
        }
        parse_bool(value).ok_or_else(|| {
            let option = format!("(for option \"-{}\")", names[0]);
            let why = format!("could not convert value {value:?} to type \"bool\" {option}");
            Failure::bad_request(why)
        })
    }

    /// Returns the time limit that the client set (`timeout`).
    pub(super) fn timeout(&self) -> Result<Option<Duration>, Failure> {
        let Some(text) = self.text(&["timeout"]).filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let limit = text.parse::<GoDuration>().ok().and_then(GoDuration::to_std);
        limit.map(Some).ok_or_else(|| {
            Failure::bad_request(format!("invalid timeout {text:?}: use a duration like 30s or 5m"))
        })
    }

    /// Returns the query without the options `without`, and with `with` appended.
    pub(super) fn rewritten(&self, without: &[&str], with: &[(&str, &str)]) -> String {
        let kept = self.query.split('&').filter(|pair| {
            let name = pair.split('=').next().unwrap_or(pair);
            let name = query::unescape(name.as_bytes()).unwrap_or_default();
            !pair.is_empty() && !without.iter().any(|without| without.as_bytes() == name)
        });
        let with = with.iter().map(|(name, value)| format!("{name}={value}"));
        let all: Vec<String> = kept.map(str::to_owned).chain(with).collect();
        all.join("&")
    }
}

fn utf8(text: Vec<u8>) -> Result<String, Failure> {
    String::from_utf8(text).map_err(|_| Failure::bad_request("the query is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, StreamBody};
    use hyper::body::Frame;

    use super::*;

    #[test]
    fn paths_name_a_command_and_optionally_its_argument() {
        let found = |path| Command::find(path).map(|(command, first)| (command, first.unwrap_or_default()));
        assert_eq!(found("/api/v0/pin/add"), Some((Command::PinAdd, Name::default())));
        assert_eq!(
            found("/api/v0/pin/rm/Qm%2Fa"),
            Some((Command::PinRm, "Qm/a".into()))
        );
        assert_eq!(found("/api/v0/add/"), Some((Command::Add, Name::default())));
        for path in [
            "/api/v0/pin/add/a/b",
            "/api/v0/add/x",
            "/api/v0/cat",
            "/add",
            "/api/v0/pin",
        ] {
            assert_eq!(found(path), None, "{path}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn missing_body_arguments_are_a_request_timeout() {
        type Piece = Result<Frame<bytes::Bytes>, Box<dyn std::error::Error + Send + Sync>>;
        let silent = StreamBody::new(futures::stream::pending::<Piece>());
        let request = Request::post("/api/v0/pin/add")
            .header(header::CONTENT_TYPE, "multipart/form-data; boundary=b")
            .body(BodyExt::boxed(silent))
            .unwrap();
        let failure = Call::read(Command::PinAdd, None, request).await.unwrap_err();
        assert_eq!(failure.into_response().status(), StatusCode::REQUEST_TIMEOUT);
    }

    #[test]
    fn options_are_parsed_as_kubo_parses_them() {
        let (args, options) = Options::parse("arg=a&r=false&names&arg=b%2Fc&name=x+y&pin=maybe").unwrap();
        assert_eq!(args, ["a", "b/c"]);
        assert_eq!(options.flag(&["recursive", "r"], true), Ok(false));
        assert_eq!(options.flag(&["names"], false), Ok(true));
        assert_eq!(options.text(&["name"]), Some("x y"));
        assert_eq!(
            options.flag(&["pin"], true).unwrap_err().message(),
            "could not convert value \"maybe\" to type \"bool\" (for option \"-pin\")"
        );
        let (_, twice) = Options::parse("pin=true&pin=false").unwrap();
        assert!(twice.flag(&["pin"], true).is_err());
    }

    #[test]
    fn rewritten_query_keeps_other_options_unchanged() {
        let (_, options) = Options::parse("hash=sha2-256&silent=true&pin%2Dname=a%20b&silent").unwrap();
        assert_eq!(
            options.rewritten(&["silent"], &[("pin", "false")]),
            "hash=sha2-256&pin%2Dname=a%20b&pin=false"
        );
    }
}
