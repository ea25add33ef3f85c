//! The commands `name/…`, and `routing/get` and `routing/put`: IPNS records.

use std::time::Duration;

use bytes::Bytes;
use cluster_http::GoDuration;
use cluster_http::rpc::Failure;
use futures::stream::{self, StreamExt};
use libp2p::PeerId;
use multibase::Base;
use serde::Serialize;

use super::keys::{format_id, read_file};
use super::reply::Reply;
use super::request::Call;
use super::routing::{QueryEvent, VALUE};
use crate::ipns::{self, RECORD_MAX, Record};
use crate::names::{LIFETIME, TTL, named};
use crate::unixfs::Name;
use crate::{DagPath, Lookup, PublishOptions};

/// Answer to `name/publish`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Published {
    name: String,
    value: String,
}

/// Answer to `name/resolve`.
#[derive(Serialize)]
struct ResolvedPath {
    #[serde(rename = "Path")]
    path: String,
}

/// Parses a duration option in Go's format.
fn duration(call: &Call, option: &str) -> Result<Option<Duration>, Failure> {
    let Some(text) = call.text(option) else {
        return Ok(None);
    };
    let parsed = text.parse::<GoDuration>();
    let parsed = parsed.map_err(|why| Failure::failed(format!("error parsing {option} option: {why}")))?;
    let positive = parsed.to_std();
    positive
        .ok_or_else(|| Failure::failed(format!("{option} must not be negative, got {text}")))
        .map(Some)
}

/// Returns a path with its namespace.
fn full_path(text: &str) -> Result<String, Failure> {
    match named(text) {
        Some((name, rest)) if !name.is_empty() => {
            let rest = if rest.is_empty() {
                String::new()
            } else {
                format!("/{rest}")
            };
            Ok(format!("/ipns/{name}{rest}"))
        }
        Some(_) => Err(Failure::failed(format!(
            "invalid path {text:?}: path does not have enough components"
        ))),
        None => Ok(text.parse::<DagPath>()?.to_string()),
    }
}

/// Handles `name/publish`: stores the record and sends it to the routing systems.
pub(super) async fn publish(call: Call) -> Result<Reply, Failure> {
    let value = full_path(call.text_arg(0)?)?;
    let lifetime = duration(&call, "lifetime")?.unwrap_or(LIFETIME);
    if lifetime.is_zero() {
        return Err(Failure::failed("lifetime must be greater than zero, got 0s"));
    }
    let ttl = match duration(&call, "ttl")? {
        Some(ttl) if ttl > lifetime => {
            return Err(Failure::failed("ttl must not be greater than lifetime"));
        }
        Some(ttl) => ttl,
        None => TTL.min(lifetime),
    };
    let sequence = call.number("sequence").map(u64::try_from).transpose();
    let sequence = sequence.map_err(|_| Failure::failed("the sequence number must not be negative"))?;
    if call.flag("resolve", true) {
        call.resolve(&Name::from(&*value)).await?;
    }
    let options = PublishOptions {
        key: call.text("key").unwrap_or("self").to_owned(),
        lifetime,
        ttl,
        sequence,
    };
    let (name, record) = call.node.sign_record(&value, options).await?;
    let allowed = call.flag("allow-offline", false);
    call.node.announce_record(&name, &record, allowed).await?;
    Reply::once(&Published {
        name: format_id(&call, &name)?,
        value,
    })
}

/// Handles `name/resolve`; without a name, resolves the node's own.
pub(super) async fn resolve(call: Call) -> Result<Reply, Failure> {
    let path = match call.text_arg(0)? {
        "" => format!("/ipns/{}", ipns::format_name(&call.node.id().peer_id)),
        path if path.starts_with('/') || named(path).is_some() => full_path(path)?,
        name => format!("/ipns/{name}"),
    };
    let lookup = match call.flag("nocache", false) {
        true => Lookup::Fresh,
        false => Lookup::Cached,
    };
    let recursive = call.flag("recursive", true);
    let resolved = call.node.resolve_name(&path, recursive, lookup).await?;
    let answer = ResolvedPath { path: resolved.path };
    match call.flag("stream", false) {
        true => Reply::objects(stream::iter([Ok(answer)])),
        false => Reply::once(&answer),
    }
}

/// Answer to `name/inspect`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    entry: Entry,
    pb_size: usize,
    signature_type: &'static str,
    hex_dump: String,
    validation: Option<Validation>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    value: String,
    validity_type: u8,
    validity: String,
    sequence: u64,
    #[serde(rename = "TTL")]
    ttl: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Validation {
    valid: bool,
    reason: String,
    name: String,
}

/// Handles `name/inspect`.
pub(super) async fn inspect(mut call: Call) -> Result<Reply, Failure> {
    let bytes = read_file(&mut call, RECORD_MAX).await?;
    let record = Record::parse(&bytes).map_err(Failure::failed)?;
    let validation = match call.text("verify") {
        None => None,
        Some(text) => {
            let name = ipns::parse_name(text);
            let name = name.ok_or_else(|| Failure::failed(format!("invalid IPNS name {text:?}")))?;
            let verified = Record::verified(&name, &bytes, jiff::Timestamp::now());
            Some(Validation {
                valid: verified.is_ok(),
                reason: verified.err().map(|why| why.to_string()).unwrap_or_default(),
                name: ipns::format_name(&name),
            })
        }
    };
    Reply::once(&Inspected {
        entry: Entry {
            value: record.value().unwrap_or_default(),
            validity_type: 0,
            validity: record.valid_until().to_string(),
            sequence: record.sequence(),
            ttl: u64::try_from(record.ttl().as_nanos()).unwrap_or(u64::MAX),
        },
        pb_size: bytes.len(),
        signature_type: if record.has_version_1() { "V1+V2" } else { "V2" },
        hex_dump: match call.flag("dump", true) {
            true => hex_dump(&bytes),
            false => String::new(),
        },
        validation,
    })
}

/// Formats bytes like Go's `hex.Dump`: 16 per line, with the offset and the printable characters.
fn hex_dump(bytes: &[u8]) -> String {
    let mut out = String::new();
    for (at, line) in bytes.chunks(16).enumerate() {
        let mut hex = String::new();
        for place in 0..16 {
            hex.push_str(&match line.get(place) {
                Some(byte) => format!("{byte:02x} "),
                None => "   ".to_owned(),
            });
            if place == 7 {
                hex.push(' ');
            }
        }
        let printable = |byte: &u8| match byte {
            0x20..=0x7e => char::from(*byte),
            _ => '.',
        };
        let text: String = line.iter().map(printable).collect();
        out.push_str(&format!("{:08x}  {hex} |{text}|\n", at * 16));
    }
    out
}

/// Parses the name in a key of the routing system, `/ipns/<name>`.
fn name_of(key: &str) -> Result<PeerId, Failure> {
    let name = key.strip_prefix("/ipns/").unwrap_or(key);
    ipns::parse_name(name)
        .ok_or_else(|| Failure::failed(format!("invalid key {key:?}: it is not /ipns/<name>")))
}

/// Handles `routing/get`.
pub(super) async fn routing_get(call: Call) -> Result<Reply, Failure> {
    let name = name_of(call.text_arg(0)?)?;
    let record = call.node.find_record(&name, Lookup::Fresh).await;
    let record = record.map_err(|_| Failure::failed("routing: not found"))?;
    Reply::objects(stream::iter([Ok(QueryEvent {
        extra: Base::Base64Pad.encode(record.bytes()),
        id: String::new(),
        responses: None,
        kind: VALUE,
    })]))
}

/// Handles `name/get`: the signed record.
pub(super) async fn get(call: Call) -> Result<Reply, Failure> {
    let name = name_of(call.text_arg(0)?)?;
    let record = call.node.find_record(&name, Lookup::Fresh).await;
    let record = record.map_err(|_| Failure::failed("routing: not found"))?;
    let bytes = record.bytes().clone();
    Ok(Reply::Content {
        kind: "application/vnd.ipfs.ipns-record",
        length: None,
        pieces: stream::iter([Ok(bytes)]).boxed(),
    })
}

async fn store(call: &mut Call) -> Result<PeerId, Failure> {
    let name = name_of(call.text_arg(0)?)?;
    let bytes = Bytes::from(read_file(call, RECORD_MAX).await?);
    let record = call.node.store_record(name, bytes).await?;
    let allowed = call.flag("allow-offline", false);
    call.node.announce_record(&name, &record, allowed).await?;
    Ok(name)
}

/// Handles `routing/put`.
pub(super) async fn routing_put(mut call: Call) -> Result<Reply, Failure> {
    let name = store(&mut call).await?;
    Reply::objects(stream::iter([Ok(QueryEvent {
        extra: String::new(),
        id: name.to_string(),
        responses: None,
        kind: VALUE,
    })]))
}

/// Answer to `name/put`.
#[derive(Serialize)]
struct Stored {
    #[serde(rename = "Name")]
    name: String,
}

/// Handles `name/put`: stores a record that was signed elsewhere.
pub(super) async fn put(mut call: Call) -> Result<Reply, Failure> {
    let name = store(&mut call).await?;
    Reply::once(&Stored {
        name: ipns::format_name(&name),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_dumped_as_in_go() {
        let dump = hex_dump(b"0123456789abcdef\x00");
        let expected = "00000000  30 31 32 33 34 35 36 37  38 39 61 62 63 64 65 66  |0123456789abcdef|\n\
            00000010  00                                                |.|\n";
        assert_eq!(dump, expected);
    }

    #[test]
    fn values_are_paths_with_their_namespace() {
        let full = |text: &str| full_path(text).map_err(|failure| failure.message().to_owned());
        assert_eq!(full("bafkqaaa").as_deref(), Ok("/ipfs/bafkqaaa"));
        assert_eq!(full("/ipns/example.org/a").as_deref(), Ok("/ipns/example.org/a"));
        assert_eq!(full("ipns://example.org").as_deref(), Ok("/ipns/example.org"));
        assert!(full("/ipns/").is_err() && full("nonsense").is_err());
    }
}
