//! Headers of answers: caching, validators, file names, cross-origin access, security.

use std::time::{Duration, SystemTime};

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::Cid;

/// `Cache-Control` of content that never changes.
pub(super) const IMMUTABLE: &str = "public, max-age=29030400, immutable";

/// `Cache-Control` of generated pages, whose form may change.
const GENERATED: &str = "public, max-age=604800, stale-while-revalidate=2678400";

/// Version of the generated pages, in their validators.
const PAGES: &str = "1";

/// Characters that a file name keeps in `filename*`.
const IN_FILE_NAME: &percent_encoding::AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'=')
    .remove(b'&')
    .remove(b'$')
    .remove(b'@')
    .remove(b'+')
    .remove(b':');

/// Sets a header, unless the value contains control characters.
pub(super) fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
        headers.insert(name, value);
    }
}

/// Sets the headers of every answer: any page may read it, no browser guesses its type.
pub(super) fn add_common(headers: &mut HeaderMap) {
    for (name, value) in [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, OPTIONS"),
        (
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            "Content-Type, Range, User-Agent, X-Requested-With",
        ),
        (
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            "Content-Length, Content-Range, X-Chunked-Output, X-Ipfs-Path, X-Ipfs-Roots, X-Stream-Output",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

/// Returns `Cache-Control` of content; `None` if it is unknown how long a name resolves to it.
pub(super) fn cache_control(mutable: bool, ttl: Option<Duration>) -> Option<String> {
    match (mutable, ttl) {
        (false, _) => Some(IMMUTABLE.to_owned()),
        (true, Some(ttl)) if !ttl.is_zero() => Some(format!("public, max-age={}", ttl.as_secs())),
        (true, _) => None,
    }
}

/// Returns `Cache-Control` of a generated page.
pub(super) fn page_cache_control(mutable: bool, ttl: Option<Duration>) -> Option<String> {
    match (mutable, ttl) {
        (false, _) => Some(GENERATED.to_owned()),
        (true, Some(ttl)) if !ttl.is_zero() => Some(format!(
            "public, max-age={}, stale-while-revalidate=2678400",
            ttl.as_secs()
        )),
        (true, _) => None,
    }
}

/// Returns the validator of content, in a format with this name.
pub(super) fn etag(cid: &Cid, format: Option<&str>) -> String {
    match format {
        None => format!("\"{cid}\""),
        Some("tar") => format!("W/\"{cid}.x-tar\""),
        Some(format) => format!("\"{cid}.{format}\""),
    }
}

/// Returns the validator of a directory's generated page.
pub(super) fn listing_etag(cid: &Cid) -> String {
    format!("\"DirIndex-{PAGES}_CID-{cid}\"")
}

/// Returns the validator of the generated page of a DAG-JSON or DAG-CBOR block.
pub(super) fn node_etag(cid: &Cid) -> String {
    format!("\"DagIndex-{PAGES}_CID-{cid}\"")
}

/// Returns whether `If-None-Match` contains this validator (RFC 9110, section 13.1.2: weak comparison).
pub(super) fn matches(headers: &HeaderMap, etag: &str) -> bool {
    let opaque = |etag: &str| etag.trim().trim_start_matches("W/").to_owned();
    let wanted = opaque(etag);
    let values = headers.get_all(header::IF_NONE_MATCH).iter();
    let values = values.filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .any(|given| given.trim() == "*" || opaque(given) == wanted)
}

/// Returns whether the content has not changed since `If-Modified-Since`.
pub(super) fn unchanged_since(headers: &HeaderMap, modified: Option<SystemTime>) -> bool {
    let since = headers.get(header::IF_MODIFIED_SINCE);
    let since = since
        .and_then(|value| value.to_str().ok())
        .and_then(|value| httpdate::parse_http_date(value).ok());
    match (since, modified) {
        // The header has whole seconds.
        (Some(since), Some(modified)) => modified < since + Duration::from_secs(1),
        _ => false,
    }
}

/// Returns the time of a UnixFS entry for `Last-Modified`.
pub(super) fn modified(mtime: Option<(i64, u32)>) -> Option<SystemTime> {
    /// The last year that the header can express is 9999.
    const SECONDS_MAX: u64 = 253_402_300_799;
    let seconds = u64::try_from(mtime?.0)
        .ok()
        .filter(|it| *it > 0 && *it <= SECONDS_MAX)?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// Returns `Content-Disposition` with a name in ASCII and in UTF-8.
pub(super) fn disposition(kind: &str, name: &str) -> String {
    let ascii: String = name
        .chars()
        .map(|it| if it.is_ascii() { it } else { '_' })
        .collect();
    let encoded = |name: &str| utf8_percent_encode(name, IN_FILE_NAME).to_string();
    format!(
        "{kind}; filename=\"{}\"; filename*=UTF-8''{}",
        encoded(&ascii),
        encoded(name)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_given_in_ascii_and_in_utf8() {
        assert_eq!(
            disposition("attachment", "testтест.tar"),
            "attachment; filename=\"test____.tar\"; filename*=UTF-8''test%D1%82%D0%B5%D1%81%D1%82.tar"
        );
        // Nothing leaves the quotes.
        assert!(disposition("inline", "a\"\r\nX: y").contains("filename=\"a%22%0D%0AX:%20y\""));
    }

    #[test]
    fn validators_match_weakly_in_lists_and_by_wildcard() {
        let given = |value: &str| HeaderMap::from_iter([(header::IF_NONE_MATCH, value.parse().unwrap())]);
        for value in ["\"x\"", "W/\"x\"", "\"a\", \"b\",\"x\"", "*"] {
            assert!(matches(&given(value), "\"x\""), "{value}");
        }
        assert!(matches(&given("\"x\""), "W/\"x\""));
        assert!(!matches(&given("\"y\""), "\"x\"") && !matches(&HeaderMap::new(), "\"x\""));
    }

    #[test]
    fn content_is_unchanged_since_its_time() {
        let at = modified(Some((1_604_320_482, 5)));
        let since = |value: &str| HeaderMap::from_iter([(header::IF_MODIFIED_SINCE, value.parse().unwrap())]);
        assert!(unchanged_since(&since("Mon, 02 Nov 2020 12:34:42 GMT"), at));
        assert!(!unchanged_since(&since("Mon, 02 Nov 2020 12:34:40 GMT"), at));
        assert!(!unchanged_since(&since("Mon, 02 Nov 2020 12:34:42 GMT"), None));
        assert_eq!(
            (modified(Some((-1, 0))), modified(Some((i64::MAX, 0)))),
            (None, None)
        );
    }
}
