//! The header `Range` (RFC 9110, section 14). Of several ranges only the first is answered, as that section
//! allows.

use std::ops::Range;

use hyper::StatusCode;
use hyper::header::{self, HeaderMap};

use super::failure::Refusal;

/// Returns the requested bytes of content of this size; `None` for all of it.
pub(super) fn requested(headers: &HeaderMap, size: u64, etag: &str) -> Result<Option<Range<u64>>, Refusal> {
    let Some(value) = headers.get(header::RANGE) else {
        return Ok(None);
    };
    // A range of another version of the content is useless.
    if let Some(condition) = headers.get(header::IF_RANGE)
        && condition.as_bytes() != etag.as_bytes()
    {
        return Ok(None);
    }
    let invalid = || Refusal::bad_request("invalid range request: write it like bytes=0-1023");
    let ranges = value.to_str().ok().and_then(|value| value.strip_prefix("bytes="));
    let first = ranges
        .ok_or_else(invalid)?
        .split(',')
        .next()
        .unwrap_or_default()
        .trim();
    let (from, to) = first.split_once('-').ok_or_else(invalid)?;
    let number = |text: &str| text.trim().parse::<u64>().map_err(|_| invalid());
    let range = match (from.trim(), to.trim()) {
        ("", last) => size.saturating_sub(number(last)?)..size,
        (from, "") => number(from)?..size,
        (from, to) => {
            let (from, to) = (number(from)?, number(to)?);
            if from > to {
                return Err(invalid());
            }
            from..to.saturating_add(1).min(size)
        }
    };
    if range.start >= size || range.is_empty() {
        return Err(Refusal {
            status: StatusCode::RANGE_NOT_SATISFIABLE,
            text: format!("the content has only {size} bytes"),
            size: Some(size),
        });
    }
    Ok(Some(range))
}

/// Returns whether the request begins at the start of the content, whose first bytes determine its type.
pub(super) fn starts_at_zero(headers: &HeaderMap) -> bool {
    let value = headers.get(header::RANGE).and_then(|value| value.to_str().ok());
    value.is_none_or(|value| value.trim_start_matches("bytes=").trim_start().starts_with("0-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(range: &str, size: u64) -> Result<Option<Range<u64>>, u16> {
        let headers = HeaderMap::from_iter([(header::RANGE, range.parse().unwrap())]);
        requested(&headers, size, "\"x\"").map_err(|refusal| refusal.status.as_u16())
    }

    #[test]
    fn the_first_range_is_read() {
        assert_eq!(read("bytes=6-16", 31), Ok(Some(6..17)));
        assert_eq!(read("bytes=6-16,0-4", 31), Ok(Some(6..17)));
        assert_eq!(read("bytes=-3", 31), Ok(Some(28..31)));
        assert_eq!(read("bytes=-99", 31), Ok(Some(0..31)));
        assert_eq!(read("bytes=30-", 31), Ok(Some(30..31)));
        assert_eq!(read("bytes=30-99", 31), Ok(Some(30..31)));
    }

    #[test]
    fn invalid_and_unsatisfiable_ranges_are_refused() {
        for range in ["bytes=", "bytes=x-1", "lines=1-2", "bytes=5-1", "bytes=--1"] {
            assert_eq!(read(range, 31), Err(400), "{range}");
        }
        for (range, size) in [("bytes=31-", 31), ("bytes=0-0", 0), ("bytes=-0", 31)] {
            assert_eq!(read(range, size), Err(416), "{range}");
        }
    }

    #[test]
    fn a_range_of_another_version_is_ignored() {
        let mut headers = HeaderMap::from_iter([(header::RANGE, "bytes=1-2".parse().unwrap())]);
        headers.insert(header::IF_RANGE, "\"old\"".parse().unwrap());
        assert_eq!(requested(&headers, 9, "\"new\""), Ok(None));
        assert_eq!(requested(&headers, 9, "\"old\""), Ok(Some(1..3)));
    }
}
