//! Signed IPNS records, for clients that verify them.

use hyper::header;
use hyper::{Response, StatusCode};

use super::block::disposition;
use super::failure::Refusal;
use super::format::Format;
use super::handler::{Asked, not_modified};
use super::reply::{Body, empty, whole};
use super::{Gateway, headers};
use crate::ipns::{format_name, parse_name};

/// Sends the record of the name in the path.
pub(super) async fn answer(gateway: &Gateway, asked: &Asked<'_>) -> Result<Response<Body>, Refusal> {
    let path = &asked.path;
    let name = parse_name(&path.root).filter(|_| path.is_mutable() && path.segments.is_empty());
    let name = name.ok_or_else(|| {
        let why = format!("{path} is not the name of a key, which alone has an IPNS record");
        Refusal::bad_request(why)
    })?;
    let record = gateway.node.find_record(&name, crate::Lookup::Cached).await;
    let record =
        record.map_err(|error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    let etag = format!("\"{}\"", blake_of(record.bytes()));
    let cache_control = headers::cache_control(true, Some(record.ttl()));
    if headers::matches(asked.headers, &etag) {
        return Ok(not_modified(&etag, cache_control.as_deref()));
    }
    let mut response = Response::new(empty());
    let headers = response.headers_mut();
    headers::set(headers, header::ETAG, &etag);
    headers::set(headers, header::CONTENT_TYPE, Format::IpnsRecord.media_type());
    if let Some(value) = cache_control {
        headers::set(headers, header::CACHE_CONTROL, &value);
    }
    let file = format!("{}.ipns-record", format_name(&name));
    headers::set(
        headers,
        header::CONTENT_DISPOSITION,
        &disposition(asked, "attachment", &file),
    );
    headers.insert(header::CONTENT_LENGTH, record.bytes().len().into());
    if !asked.head {
        *response.body_mut() = whole(record.bytes().clone());
    }
    Ok(response)
}

/// Returns a short hash in hexadecimal digits.
fn blake_of(bytes: &[u8]) -> String {
    let hash = blake2b_simd::Params::new().hash_length(16).hash(bytes);
    hash.to_hex().to_string()
}
