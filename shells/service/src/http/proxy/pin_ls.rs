//! `pin/ls`: lists the cluster's pins as if one node held them.
//!
//! Recursive and direct pins come from the pinset. Indirect pins come from the node, as far as it has them.

use std::future::ready;

use axum::body::Body;
use axum::http::{Response, StatusCode};
use bytes::{Bytes, BytesMut};
use cluster_api::{Pin, PinMode};
use cluster_core::Cid;
use cluster_http::rpc::{Failure, json_line};
use cluster_ipfs::api::{PinKey, PinKinds, PinLine};
use cluster_ipfs::unixfs::Name;
use futures::stream::{self, BoxStream, Stream, StreamExt, TryStreamExt};
use http_body_util::{BodyExt, BodyStream};
use serde::Deserialize;

use super::call::Call;
use super::kubo_response::{json_lines, json_stream};
use super::pin_progress::{PinProgress, pin_progress};
use super::pins::format_cid;
use super::{Proxy, upstream};
use crate::cluster::Cluster;

/// Number of CIDs from the node that are looked up in the pinset at once.
const LOOKUP_BATCH: usize = 256;

/// Maximum length of a line of the node's listing in bytes, which holds one CID and its type.
const LINE_MAX: usize = 4096;

/// Option with which a cluster that uses this proxy as its IPFS node asks for held pins only.
const HELD_ONLY: &str = "cluster-held";

type Rows = BoxStream<'static, Result<PinLine, Failure>>;

/// Answers `pin/ls`.
pub(super) async fn ls(proxy: &Proxy, call: Call) -> Result<Response<Body>, Failure> {
    let wanted =
        PinKinds::parse(call.options.text(&["type", "t"]).unwrap_or_default()).map_err(Failure::failed)?;
    let stream = call.options.flag(&["stream", "s"], false)?;
    let filter = call.options.text(&["name", "n"]).filter(|name| !name.is_empty());
    let names = call.options.flag(&["names"], false)? || filter.is_some();
    let rows = if call.args.is_empty() {
        let filter = filter.map(str::to_owned);
        all_pins(proxy, call, wanted, names, filter)
    } else {
        let mut found = Vec::with_capacity(call.args.len());
        for arg in &call.args {
            found.push(Ok(one_pin(proxy, &call, arg, wanted, names).await?));
        }
        stream::iter(found).boxed()
    };
    if stream {
        return json_lines(rows.map_ok(|row| json_line(&row))).await;
    }
    json_stream(single_object(rows)).await
}

/// Streams one JSON object with all rows: a pinset may be larger than memory.
fn single_object(rows: Rows) -> impl Stream<Item = Result<Bytes, Failure>> + Send {
    let mut first = true;
    let rows = rows.map(Some).chain(stream::iter([None]));
    rows.map(move |row| {
        let Some(row) = row.transpose()? else {
            let end: &'static [u8] = if first { b"{}\n" } else { b"}}\n" };
            return Ok(Bytes::from_static(end));
        };
        let cid = json_line(&row.cid);
        let key = json_line(&PinKey {
            kind: row.kind,
            name: row.name,
        });
        let begin: &[u8] = if first { b"{\"Keys\":{" } else { b"," };
        first = false;
        Ok([begin, cid.trim_ascii_end(), b":", key.trim_ascii_end()]
            .concat()
            .into())
    })
}

fn all_pins(proxy: &Proxy, call: Call, wanted: PinKinds, names: bool, filter: Option<String>) -> Rows {
    let (cluster, upstream) = (proxy.cluster.clone(), proxy.upstream.clone());
    // An indirect pin has no name that a filter could match. Of an owner's pins it is unknown what is below.
    let below = wanted.indirect && filter.is_none() && cluster.owner().is_none();
    let strict = !wanted.recursive;
    let credentials = call.credentials.clone();
    let call = std::sync::Arc::new(call);
    let call_below = call.clone();
    let own = cluster.allocations().map_err(Failure::from);
    let own = own.map_ok(move |page| {
        let call = call.clone();
        let fits = |pin: &Pin| {
            let named = filter.as_ref().is_none_or(|part| pin.options.name.contains(part));
            kind_matches(wanted, pin.options.mode) && named
        };
        let rows: Vec<_> = page
            .iter()
            .filter(|pin| fits(pin))
            .map(|pin| Ok(pin_line(&call, pin, names)))
            .collect();
        stream::iter(rows)
    });
    let own = own.try_flatten();
    if !below {
        return own.boxed();
    }
    let below = async move {
        match indirect(upstream, &credentials).await {
            Ok(cids) => without_own_pin(cluster, cids, call_below),
            Err(why) if strict => stream::iter([Err(why)]).boxed(),
            // The pinset can be listed without the node.
            Err(why) => {
                tracing::warn!("indirect pins are not listed: {}", why.message());
                stream::empty().boxed()
            }
        }
    };
    own.chain(stream::once(below).flatten()).boxed()
}

fn kind_matches(wanted: PinKinds, mode: PinMode) -> bool {
    match mode {
        PinMode::Recursive => wanted.recursive,
        PinMode::Direct => wanted.direct,
    }
}

fn pin_line(call: &Call, pin: &Pin, names: bool) -> PinLine {
    let cid = match (call.options.text(&["cid-base"]), pin.cid.parse::<Cid>()) {
        (Some(_), Ok(cid)) => format_cid(call, &cid),
        (Some(_), Err(_)) | (None, _) => pin.cid.clone(),
    };
    let name = if names {
        pin.options.name.clone()
    } else {
        String::new()
    };
    let kind = kind(pin).to_owned();
    PinLine { cid, name, kind }
}

fn kind(pin: &Pin) -> &'static str {
    match pin.options.mode {
        PinMode::Recursive => "recursive",
        PinMode::Direct => "direct",
    }
}

#[derive(Deserialize)]
struct NodeLine {
    #[serde(rename = "Cid")]
    cid: String,
}

/// Lists the CIDs that the node holds indirectly.
async fn indirect(
    upstream: upstream::Upstream,
    credentials: &axum::http::HeaderMap,
) -> Result<BoxStream<'static, Result<Cid, Failure>>, Failure> {
    let answer = upstream
        .post("/api/v0/pin/ls?type=indirect&stream=true", credentials)
        .await?;
    if answer.status() != StatusCode::OK {
        let why = format!("the IPFS node answers {} to pin/ls", answer.status());
        return Err(Failure::failed(why));
    }
    let lines = lines(answer.into_body());
    Ok(lines
        .and_then(|line| {
            let cid = serde_json::from_slice::<NodeLine>(&line).ok();
            let cid = cid.and_then(|line| line.cid.parse().ok());
            ready(cid.ok_or_else(|| Failure::failed("the IPFS node lists pins that cannot be read")))
        })
        .boxed())
}

/// Splits a body into lines; ends with the error in its trailer, if there is one.
fn lines(body: Body) -> impl Stream<Item = Result<Bytes, Failure>> + Send {
    let start = (BodyStream::new(body.map_err(Failure::failed)), BytesMut::new());
    stream::try_unfold(start, |(mut frames, mut buffer)| async move {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &buffer) {
                let line = buffer.split_to(end + 1).freeze();
                return Ok(Some((line, (frames, buffer))));
            }
            if buffer.len() > LINE_MAX {
                return Err(Failure::failed(
                    "the IPFS node lists pins in lines that are too long",
                ));
            }
            let Some(frame) = frames.try_next().await? else {
                return Ok(None);
            };
            match frame.into_data() {
                Ok(data) => buffer.extend_from_slice(&data),
                Err(frame) => {
                    let trailers = frame.trailers_ref();
                    let error = trailers.and_then(|all| all.get(cluster_http::stream_error::STREAM_ERROR));
                    let error = error.map(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
                    if let Some(error) = error.filter(|error| !error.is_empty()) {
                        return Err(Failure::failed(error));
                    }
                }
            }
        }
    })
}

/// Returns the rows of those CIDs that have no pin of their own in the pinset.
fn without_own_pin(
    cluster: Cluster,
    cids: BoxStream<'static, Result<Cid, Failure>>,
    call: std::sync::Arc<Call>,
) -> Rows {
    let batches = cids.try_chunks(LOOKUP_BATCH).map_err(|error| error.1);
    let rows = batches.and_then(move |cids| {
        let (cluster, call) = (cluster.clone(), call.clone());
        async move {
            let pins = cluster.pins_of(cids.clone()).await?;
            let below = cids.into_iter().zip(pins).filter(|(_, pin)| pin.is_none());
            let rows: Vec<_> = below
                .map(|(cid, _)| {
                    Ok(PinLine {
                        cid: format_cid(&call, &cid),
                        name: String::new(),
                        kind: "indirect".to_owned(),
                    })
                })
                .collect();
            Ok(stream::iter(rows))
        }
    });
    rows.try_flatten().boxed()
}

async fn one_pin(
    proxy: &Proxy,
    call: &Call,
    arg: &Name,
    wanted: PinKinds,
    names: bool,
) -> Result<PinLine, Failure> {
    let not_pinned = || Failure::failed(format!("path '{arg}' is not pinned"));
    let cid = proxy.resolve(call, arg).await?;
    // A CID with a pin of another kind than asked for may also be held indirectly.
    let pin = proxy.pin_of(&cid).await?;
    if let Some(pin) = pin.filter(|pin| kind_matches(wanted, pin.options.mode)) {
        if !is_listed(proxy, call, &cid, &pin).await? {
            return Err(not_pinned());
        }
        return Ok(pin_line(call, &pin, names));
    }
    let above = if wanted.indirect {
        pinned_ancestor(proxy, call, &cid).await?
    } else {
        None
    };
    let above = above.ok_or_else(not_pinned)?;
    Ok(PinLine {
        cid: format_cid(call, &cid),
        name: String::new(),
        kind: format!("indirect through {}", format_cid(call, &above)),
    })
}

/// Returns whether to list this pin: with [`HELD_ONLY`] only if enough peers hold it, because the cluster
/// that asks takes a listed pin for held.
async fn is_listed(proxy: &Proxy, call: &Call, cid: &Cid, pin: &Pin) -> Result<bool, Failure> {
    if !call.options.flag(&[HELD_ONLY], false)? {
        return Ok(true);
    }
    let status = proxy.cluster.status(cid.clone()).await?;
    Ok(pin_progress(pin, &status) == PinProgress::Held)
}

#[derive(Deserialize)]
struct NodeKeys {
    #[serde(rename = "Keys", default)]
    keys: std::collections::BTreeMap<String, NodeKey>,
}

#[derive(Deserialize)]
struct NodeKey {
    #[serde(rename = "Type")]
    kind: String,
}

/// Returns the pin of the cluster below which the node holds a CID indirectly.
async fn pinned_ancestor(proxy: &Proxy, call: &Call, cid: &Cid) -> Result<Option<Cid>, Failure> {
    let query = format!("/api/v0/pin/ls?type=indirect&arg={cid}");
    let answer = proxy.upstream.object::<NodeKeys>(&query, &call.credentials).await;
    let keys = match answer {
        Ok(NodeKeys { keys }) => keys,
        Err(why) if why.message().ends_with("is not pinned") => return Ok(None),
        Err(why) => return Err(why),
    };
    let through = |key: NodeKey| key.kind.strip_prefix("indirect through ")?.parse::<Cid>().ok();
    let Some(root) = keys.into_values().find_map(through) else {
        return Ok(None);
    };
    Ok(proxy.pin_of(&root).await?.map(|_| root))
}
