//! Parsing of calls: arguments, options, body.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cluster_http::multipart::{self, Multipart};
use cluster_http::rpc::{Failure, argument_lines, parse_bool};
use cluster_http::{GoDuration, query};
use futures::stream::{BoxStream, StreamExt};
use http_body_util::BodyStream;
use http_body_util::combinators::BoxBody;
use hyper::{Request, header};
use tokio::sync::OwnedSemaphorePermit;

use super::commands::{Command, OptionType};
use super::request_log::RequestLog;
use crate::Cid;
use crate::unixfs::Name;
use crate::{DagPath, Node};

/// Maximum number of query parameters: a few thousand CIDs. hyper's own limit on the head is near.
const PAIRS_MAX: usize = 4096;

/// Maximum size of arguments in the body (`pin add` from standard input), in bytes.
const BODY_ARGS_MAX: usize = 1024 * 1024;

/// Options of every command.
const GLOBAL: [(&[&str], OptionType); 4] = [
    (&["encoding", "enc"], OptionType::Text),
    (&["timeout"], OptionType::Text),
    (&["cid-base"], OptionType::Text),
    (&["offline"], OptionType::Bool),
];

/// Body of a request from any source.
pub type RequestBody = BoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// A call of a command.
pub(super) struct Call {
    pub(super) node: Node,
    pub(super) command: &'static Command,
    pub(super) args: Vec<Name>,
    options: Vec<(&'static str, String)>,
    body: Option<RequestBody>,
    boundary: Option<String>,
    pub(super) log: Arc<RequestLog>,
    /// Place among the running uploads, if the call needs one.
    pub(super) place: Option<OwnedSemaphorePermit>,
}

impl Call {
    /// Parses a request for `command`; `first` is an argument from the path.
    pub(super) async fn read(
        (node, log): (&Node, &Arc<RequestLog>),
        command: &'static Command,
        first: Option<Name>,
        request: Request<RequestBody>,
    ) -> Result<Self, Failure> {
        let (args, options) = parse_query(command, request.uri().query().unwrap_or_default())?;
        let content_type = request.headers().get(header::CONTENT_TYPE);
        let content_type = content_type
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let mut call = Call {
            node: node.clone(),
            log: log.clone(),
            command,
            args: first.into_iter().chain(args).collect(),
            options,
            boundary: multipart::boundary(content_type),
            body: Some(request.into_body()),
            place: None,
        };
        if call.flag("offline", false) {
            call.node = node.offline();
        }
        call.check_encoding()?;
        call.check_args().await?;
        Ok(call)
    }

    fn check_encoding(&self) -> Result<(), Failure> {
        match self.text("encoding") {
            None | Some("json") => Ok(()),
            Some(other) => Err(Failure::bad_request(format!("invalid encoding: {other}"))),
        }
    }

    async fn check_args(&mut self) -> Result<(), Failure> {
        if self.command.file {
            if self.boundary.is_none() {
                let message = format!("file argument '{}' is required", self.command.file_name());
                return Err(Failure::bad_request(message));
            }
        } else if self.args.len() < self.command.args.len() && self.boundary.is_some() {
            self.read_body_args().await?;
        }
        match self.command.args.get(self.args.len()) {
            Some(missing) => Err(Failure::bad_request(format!("argument {missing:?} is required"))),
            None => Ok(()),
        }
    }

    /// Reads arguments from the first part of the body, one per line.
    async fn read_body_args(&mut self) -> Result<(), Failure> {
        let mut parts = self.multipart()?;
        if parts.next_part().await.map_err(Failure::bad_request)?.is_none() {
            return Ok(());
        }
        let text = read_part(&mut parts, BODY_ARGS_MAX).await?;
        self.args.extend(argument_lines(&text).map(Name::from));
        Ok(())
    }

    /// Takes the body as multipart; possible only once.
    pub(super) fn multipart(&mut self) -> Result<Multipart, Failure> {
        let missing = || {
            Failure::bad_request(format!(
                "file argument '{}' is required",
                self.command.file_name()
            ))
        };
        let boundary = self.boundary.as_deref().ok_or_else(missing)?;
        let body = self.body.take().ok_or_else(missing)?;
        Ok(Multipart::new(data_of(body), boundary))
    }

    /// Returns the given options, by their first names.
    pub(super) fn options(&self) -> &[(&'static str, String)] {
        &self.options
    }

    /// Returns the value of an option under any of its names.
    pub(super) fn text(&self, option: &str) -> Option<&str> {
        self.options
            .iter()
            .find(|(name, _)| *name == option)
            .map(|(_, value)| value.as_str())
    }

    pub(super) fn flag(&self, option: &str, default: bool) -> bool {
        self.text(option).and_then(parse_bool).unwrap_or(default)
    }

    pub(super) fn maybe_flag(&self, option: &str) -> Option<bool> {
        self.text(option).and_then(parse_bool)
    }

    pub(super) fn number(&self, option: &str) -> Option<i64> {
        self.text(option).and_then(parse_number)
    }

    /// Returns the time limit set by the caller.
    pub(super) fn timeout(&self) -> Result<Option<Duration>, Failure> {
        let Some(text) = self.text("timeout") else {
            return Ok(None);
        };
        match text.parse::<GoDuration>().ok().and_then(GoDuration::to_std) {
            Some(limit) => Ok(Some(limit)),
            None => Err(Failure::bad_request(format!(
                "invalid timeout {text:?}: use a duration like 30s or 5m"
            ))),
        }
    }

    /// Returns an argument; an empty one if it is missing.
    pub(super) fn arg(&self, at: usize) -> Name {
        self.args.get(at).cloned().unwrap_or_default()
    }

    /// Returns an argument that is no path; an empty one if it is missing.
    ///
    /// # Errors
    /// It is not UTF-8.
    pub(super) fn text_arg(&self, at: usize) -> Result<&str, Failure> {
        self.args.get(at).map_or(Ok(""), text_of)
    }

    /// Returns the arguments, none of which is a path.
    ///
    /// # Errors
    /// One is not UTF-8.
    pub(super) fn text_args(&self) -> Result<Vec<&str>, Failure> {
        self.args.iter().map(text_of).collect()
    }

    /// Parses an argument as a path, and resolves the name that it may begin with. Errors are Kubo's.
    pub(super) async fn dag_path(&self, path: &Name) -> Result<DagPath, Failure> {
        Ok(self.node.resolve_names(path).await?)
    }

    /// Resolves an argument to a CID.
    pub(super) async fn resolve(&self, path: &Name) -> Result<Cid, Failure> {
        let path = self.dag_path(path).await?;
        if path.segments.is_empty() {
            return Ok(path.root);
        }
        Ok(self.node.resolve(&path).await?.cid)
    }

    /// Formats a CID in the base that the caller wants.
    pub(super) fn format_cid(&self, cid: &Cid) -> String {
        let Some(base) = self.text("cid-base").and_then(parse_base) else {
            return cid.to_string();
        };
        if base == multibase::Base::Base58Btc && cid.version() == cid::Version::V0 {
            return cid.to_string();
        }
        // CIDs of version 0 are always base58btc.
        let upgraded = cid.into_v1().unwrap_or(*cid);
        upgraded
            .to_string_of_base(base)
            .unwrap_or_else(|_| upgraded.to_string())
    }
}

/// Reads the rest of the current part, at most `max` bytes.
pub(super) async fn read_part(parts: &mut Multipart, max: usize) -> Result<Vec<u8>, Failure> {
    let mut all = Vec::new();
    let mut content = parts.content();
    while let Some(piece) = content.next().await {
        all.extend_from_slice(&piece.map_err(Failure::bad_request)?);
        if all.len() > max {
            return Err(Failure::failed(format!(
                "a part of the body is longer than {max} bytes"
            )));
        }
    }
    Ok(all)
}

fn data_of(body: RequestBody) -> BoxStream<'static, Result<Bytes, Box<dyn std::error::Error + Send + Sync>>> {
    BodyStream::new(body)
        .filter_map(|frame| {
            std::future::ready(match frame {
                Ok(frame) => frame.into_data().ok().map(Ok),
                Err(error) => Some(Err(error)),
            })
        })
        .boxed()
}

type Pairs = (Vec<Name>, Vec<(&'static str, String)>);

fn parse_query(command: &Command, query: &str) -> Result<Pairs, Failure> {
    let (mut args, mut options) = (Vec::new(), Vec::<(&'static str, String)>::new());
    for (count, (key, value)) in query::pairs(query).enumerate() {
        if count == PAIRS_MAX {
            return Err(Failure::bad_request(format!(
                "more than {PAIRS_MAX} arguments and options"
            )));
        }
        if key == b"arg" {
            args.push(Name::from(value));
            continue;
        }
        let (key, value) = (utf8(key)?, utf8(value)?);
        let known = GLOBAL
            .iter()
            .map(|(names, kind)| (*names, *kind))
            .chain(command.known_options());
        let Some((names, kind)) = known.into_iter().find(|(names, _)| names.contains(&key.as_str())) else {
            continue;
        };
        if let Some((_, first)) = options.iter().find(|(known, _)| *known == names[0]) {
            let message = format!(
                "expected key {} to have only a single value, received [{first} {value}]",
                names[0]
            );
            return Err(Failure::bad_request(message));
        }
        check_value(names[0], kind, &value)?;
        options.push((names[0], value));
    }
    Ok((args, options))
}

fn check_value(name: &str, kind: OptionType, value: &str) -> Result<(), Failure> {
    let (fits, kind) = match kind {
        OptionType::Text => (true, "string"),
        OptionType::Bool => (parse_bool(value).is_some(), "bool"),
        OptionType::Number => (parse_number(value).is_some(), "int"),
    };
    if fits {
        return Ok(());
    }
    let shown = if value.is_empty() {
        "empty value".to_owned()
    } else {
        format!("value {value:?}")
    };
    let message = format!("could not convert {shown} to type {kind:?} (for option \"-{name}\")");
    Err(Failure::bad_request(message))
}

fn text_of(arg: &Name) -> Result<&str, Failure> {
    arg.as_text()
        .ok_or_else(|| Failure::bad_request(format!("the argument {arg:?} is not UTF-8")))
}

fn utf8(text: Vec<u8>) -> Result<String, Failure> {
    String::from_utf8(text).map_err(|_| Failure::bad_request("the query is not UTF-8"))
}

/// Parses a number like Go's `ParseInt` with base 0.
fn parse_number(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let value = if let Some(hex) = lower.strip_prefix("0x") {
        i64::from_str_radix(hex, 16)
    } else if let Some(octal) = lower
        .strip_prefix("0o")
        .or(lower.strip_prefix('0').filter(|it| !it.is_empty()))
    {
        i64::from_str_radix(octal, 8)
    } else {
        lower.parse()
    };
    value
        .ok()
        .filter(|_| !digits.starts_with(['+', '-']))
        .map(|value| if negative { -value } else { value })
}

/// Returns the multibase named by the option `cid-base`.
pub fn parse_base(name: &str) -> Option<multibase::Base> {
    use multibase::Base;
    Some(match name {
        "base58btc" => Base::Base58Btc,
        "base32" => Base::Base32Lower,
        "base32upper" => Base::Base32Upper,
        "base36" => Base::Base36Lower,
        "base36upper" => Base::Base36Upper,
        "base64" => Base::Base64,
        "base64url" => Base::Base64Url,
        "base64pad" => Base::Base64Pad,
        "base64urlpad" => Base::Base64UrlPad,
        "base16" => Base::Base16Lower,
        "base16upper" => Base::Base16Upper,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_parsed_like_in_go() {
        assert_eq!(parse_number("0x10"), Some(16));
        assert_eq!(parse_number("-1"), Some(-1));
        assert_eq!(parse_number("010"), Some(8));
        assert_eq!(parse_number("x"), None);
    }
}
