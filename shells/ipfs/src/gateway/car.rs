//! CAR archives of DAGs and of parts of them, for clients that verify the blocks.

use std::time::Duration;

use hyper::Response;
use hyper::header;
use siphasher::sip::SipHasher13;
use std::hash::Hasher;

use super::block::disposition;
use super::failure::Refusal;
use super::format::Format;
use super::handler::{Asked, Target, not_modified};
use super::reply::{Body, CHECKED, empty, started, streamed};
use super::{Gateway, headers};
use crate::DagPath;
use crate::dag::{ByteRange, Scope, Selection};

/// Order of the blocks that the client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    DepthFirst,
    /// Any; they are sent depth first.
    Unknown,
}

/// Parameters of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Parameters {
    selection: Selection,
    order: Order,
}

/// Sends the archive of the content at the end of the path.
pub(super) async fn answer(
    gateway: &Gateway,
    asked: &Asked<'_>,
    path: DagPath,
    ttl: Option<Duration>,
) -> Result<Response<Body>, Refusal> {
    let parameters = Parameters::read(asked)?;
    let etag = etag(&path, &parameters);
    let mutable = asked.path.is_mutable();
    if headers::matches(asked.headers, &etag) {
        let cache_control = headers::cache_control(mutable, ttl);
        return Ok(not_modified(&etag, cache_control.as_deref()));
    }
    let trace = gateway.node.trace(&path).await?;
    let blocks = trace.blocks.clone();
    let inside = !trace.resolved.remainder.is_empty();
    let target = Target::new(trace, mutable, ttl);
    let mut selection = parameters.selection;
    if inside {
        // The path ends at a value inside the block.
        selection.scope = Scope::Block;
    }
    let mut response = Response::new(empty());
    let headers = response.headers_mut();
    target.add_headers(headers, &etag);
    headers::set(headers, header::CONTENT_TYPE, &parameters.media_type());
    headers::set(headers, header::ACCEPT_RANGES, "none");
    let name = match path.segments.last() {
        Some(last) => format!("{}_{last}.car", path.root),
        None => format!("{}.car", path.root),
    };
    headers::set(
        headers,
        header::CONTENT_DISPOSITION,
        &disposition(asked, "attachment", &name),
    );
    // Before the answer, so that a missing root yields a status.
    gateway.node.get(target.cid).await?;
    if !asked.head {
        let archive = gateway.node.dag_select(blocks, target.cid, selection);
        *response.body_mut() = streamed(started(archive, CHECKED).await?);
    }
    Ok(response)
}

impl Parameters {
    /// Reads the parameters of the URL, which win over those of `Accept`.
    fn read(asked: &Asked<'_>) -> Result<Parameters, Refusal> {
        let parameter = |in_url: &str, in_accept: &str| {
            let found = asked.query.get(in_url).or(asked.format.parameter(in_accept));
            found.map(str::to_owned)
        };
        let unsupported =
            |what: &str| Refusal::bad_request(format!("unsupported application/vnd.ipld.car {what}"));
        match parameter("car-version", "version").as_deref() {
            None | Some("1") => {}
            Some(_) => return Err(unsupported("version: only version=1 is supported")),
        }
        let order = match parameter("car-order", "order").as_deref() {
            None | Some("dfs") => Order::DepthFirst,
            Some("unk") => Order::Unknown,
            Some(_) => return Err(unsupported("block order parameter: use dfs or unk")),
        };
        let duplicates = match parameter("car-dups", "dups").as_deref() {
            None | Some("n") => false,
            Some("y") => true,
            Some(_) => return Err(unsupported("duplicates parameter: use y or n")),
        };
        let scope = match asked.query.get("dag-scope") {
            None | Some("all") => Scope::All,
            Some("entity") => Scope::Entity,
            Some("block") => Scope::Block,
            Some(_) => return Err(unsupported("dag-scope: use block, entity or all")),
        };
        let bytes = asked.query.get("entity-bytes").map(byte_range).transpose()?;
        Ok(Parameters {
            selection: Selection {
                scope,
                bytes,
                duplicates,
            },
            order,
        })
    }

    fn media_type(&self) -> String {
        let order = match self.order {
            Order::DepthFirst => "dfs",
            Order::Unknown => "unk",
        };
        let duplicates = if self.selection.duplicates { "y" } else { "n" };
        let kind = Format::Car.media_type();
        format!("{kind}; version=1; order={order}; dups={duplicates}")
    }
}

fn byte_range(text: &str) -> Result<ByteRange, Refusal> {
    let invalid = || {
        let why = "invalid entity-bytes: write it like 0:1023, -1024:* or 512:-1";
        Refusal::bad_request(why)
    };
    let (from, to) = text.split_once(':').ok_or_else(invalid)?;
    let number = |text: &str| text.parse::<i64>().map_err(|_| invalid());
    let from = number(from)?;
    let to = match to {
        "*" => None,
        to => Some(number(to)?),
    };
    match to {
        // Only with the size of the file could other ones be compared.
        Some(to) if from > to && (from < 0) == (to < 0) => Err(invalid()),
        to => Ok(ByteRange { from, to }),
    }
}

/// Returns a weak validator: the same archive may be encoded in several ways.
fn etag(path: &DagPath, parameters: &Parameters) -> String {
    // Without a key: the value must be the same after a restart.
    let mut hasher = SipHasher13::new();
    hasher.write(path.to_string().as_bytes());
    hasher.write(format!("{parameters:?}").as_bytes());
    format!("W/\"{}.car.{:x}\"", path.root, hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_ranges_are_parsed() {
        let range = |from, to| Ok(ByteRange { from, to });
        assert_eq!(byte_range("0:*"), range(0, None));
        assert_eq!(byte_range("-9999:-3"), range(-9999, Some(-3)));
        assert_eq!(byte_range("512:-256"), range(512, Some(-256)));
        for text in ["", "1", "a:b", "5:1", "-1:-5", "*:*", "0:"] {
            assert_eq!(byte_range(text).unwrap_err().status, 400, "{text}");
        }
    }
}
