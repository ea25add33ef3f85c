//! Single blocks: raw ones, and documents in JSON, CBOR, DAG-JSON and DAG-CBOR. Blocks are never converted to
//! another codec ([IPIP-524](https://specs.ipfs.tech/ipips/ipip-0524/)).

use bytes::Bytes;
use hyper::header;
use hyper::{Response, StatusCode};

use super::failure::Refusal;
use super::format::Format;
use super::handler::{Asked, Target, redirect};
use super::reply::{Body, empty, whole};
use super::unixfs::add_range;
use super::{Gateway, headers, pages, ranges};
use crate::unixfs::Name;
use crate::{Cid, codec, dagjson};

/// Plain CBOR, without links.
const CBOR: u64 = 0x51;
/// Plain JSON, without links.
const JSON: u64 = 0x0200;

/// Returns whether a block is a document in JSON or CBOR.
pub(super) fn is_document(cid: &Cid) -> bool {
    own_format(cid).is_some()
}

/// Returns the format of a document's block.
fn own_format(cid: &Cid) -> Option<Format> {
    match cid.codec() {
        JSON => Some(Format::Json),
        CBOR => Some(Format::Cbor),
        codec::DAG_JSON => Some(Format::DagJson),
        codec::DAG_CBOR => Some(Format::DagCbor),
        _ => None,
    }
}

/// Sends a block as it is.
pub(super) async fn raw(
    gateway: &Gateway,
    asked: &Asked<'_>,
    target: &Target,
) -> Result<Response<Body>, Refusal> {
    let data = gateway.node.get(target.cid).await?;
    let name = format!("{}.bin", target.cid);
    let etag = headers::etag(&target.cid, Some(Format::Raw.name()));
    let media_type = Format::Raw.media_type();
    send(
        asked,
        target,
        data,
        &etag,
        media_type,
        &disposition(asked, "attachment", &name),
    )
}

/// Sends a document, in its own format or, with `Accept: text/html`, as a page.
pub(super) async fn node(
    gateway: &Gateway,
    asked: &Asked<'_>,
    target: &Target,
) -> Result<Response<Body>, Refusal> {
    if !target.remainder.is_empty() {
        let rest: Vec<String> = target.remainder.iter().map(Name::to_string).collect();
        let rest = rest.join("/");
        let why = format!(
            "{rest:?} is a value inside the block {}: only blocks can be served; ask for the block",
            target.cid
        );
        return Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, why));
    }
    let own = own_format(&target.cid);
    let format = match (asked.format.format, own) {
        (None, Some(own)) => own,
        (Some(Format::Json), Some(Format::Json | Format::DagJson)) => Format::Json,
        (Some(Format::Cbor), Some(Format::Cbor | Format::DagCbor)) => Format::Cbor,
        (Some(asked), Some(own)) if asked == own => own,
        (asked, _) => {
            let asked = asked.map_or("", Format::name);
            let why = format!(
                "format {asked:?} requested but the block has codec 0x{:x}: codec conversion is not \
                 supported, fetch the raw block with ?format=raw and convert client-side",
                target.cid.codec()
            );
            return Err(Refusal::new(StatusCode::NOT_ACCEPTABLE, why));
        }
    };
    let data = gateway.node.get(target.cid).await?;
    let has_links = matches!(own, Some(Format::DagJson | Format::DagCbor));
    if asked.format.format.is_none() && has_links && wants_page(asked) {
        return Ok(page(asked, target, &data, format));
    }
    let is_json = matches!(format, Format::Json | Format::DagJson);
    let (kind, extension) = if is_json {
        ("inline", "json")
    } else {
        ("attachment", "cbor")
    };
    let name = format!("{}.{extension}", target.cid);
    let etag = headers::etag(&target.cid, Some(format.name()));
    send(
        asked,
        target,
        data,
        &etag,
        format.media_type(),
        &disposition(asked, kind, &name),
    )
}

fn wants_page(asked: &Asked<'_>) -> bool {
    let accept = asked.headers.get_all(header::ACCEPT).iter();
    let mut accept = accept.filter_map(|value| value.to_str().ok());
    asked.query.get("download") != Some("true") && accept.any(|value| value.contains("text/html"))
}

fn page(asked: &Asked<'_>, target: &Target, data: &Bytes, format: Format) -> Response<Body> {
    if !asked.url_path.ends_with('/') {
        let path = asked.url_path.trim_start_matches('/');
        let location = format!("/{path}/{}", asked.query.suffix());
        return redirect(StatusCode::MOVED_PERMANENTLY, &location);
    }
    let mut response = Response::new(empty());
    let headers = response.headers_mut();
    target.add_headers(headers, &headers::node_etag(&target.cid));
    headers.remove(header::CACHE_CONTROL);
    pages::add_headers(headers);
    if !asked.head {
        let json = codec::decode(&target.cid, data).ok();
        let json = json.and_then(|json| dagjson::encode_pretty(&json).ok());
        let page = pages::node(asked, &target.cid, format.name(), json.as_deref());
        *response.body_mut() = whole(page);
    }
    response
}

/// Returns `Content-Disposition` with the name that the request gives, if any.
pub(super) fn disposition(asked: &Asked<'_>, kind: &str, name: &str) -> String {
    let kind = match asked.query.get("download") {
        Some("true") => "attachment",
        Some(_) | None => kind,
    };
    headers::disposition(kind, asked.query.get("filename").unwrap_or(name))
}

fn send(
    asked: &Asked<'_>,
    target: &Target,
    data: Bytes,
    etag: &str,
    media_type: &str,
    disposition: &str,
) -> Result<Response<Body>, Refusal> {
    let size = data.len() as u64;
    let range = ranges::requested(asked.headers, size, etag)?;
    let mut response = Response::new(empty());
    target.add_headers(response.headers_mut(), etag);
    headers::set(response.headers_mut(), header::CONTENT_TYPE, media_type);
    headers::set(response.headers_mut(), header::CONTENT_DISPOSITION, disposition);
    add_range(&mut response, range.as_ref(), size);
    if !asked.head {
        // Both ends are at most the length of the block.
        let data = match range {
            Some(range) => data.slice(range.start as usize..range.end as usize),
            None => data,
        };
        *response.body_mut() = whole(data);
    }
    Ok(response)
}
