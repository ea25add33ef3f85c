//! Media types of files: by the extension of the name, otherwise by the first bytes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::Cid;

/// First bytes that decide.
pub(super) const SNIFFED: u64 = 3072;

/// Maximum number of files whose type is remembered.
const REMEMBERED_MAX: usize = 4096;

/// Types of files that were found by their first bytes; clones share them. Content of a CID never changes.
#[derive(Debug, Clone, Default)]
pub(super) struct Sniffed(Arc<Mutex<HashMap<Cid, &'static str>>>);

impl Sniffed {
    pub(super) fn get(&self, cid: &Cid) -> Option<&'static str> {
        crate::store::lock(&self.0).get(cid).copied()
    }

    pub(super) fn set(&self, cid: Cid, kind: &'static str) {
        let mut known = crate::store::lock(&self.0);
        if known.len() >= REMEMBERED_MAX {
            known.clear();
        }
        known.insert(cid, kind);
    }
}

/// Returns the type of a name's extension.
pub(super) fn by_name(name: &str) -> Option<String> {
    let guess = mime_guess::from_path(name).first_raw()?;
    Some(match guess {
        // The page itself says its encoding.
        "text/html" => guess.to_owned(),
        text if text.starts_with("text/") => format!("{text}; charset=utf-8"),
        other => other.to_owned(),
    })
}

/// Returns the type of content with these first bytes; `whole` if there are no more.
pub(super) fn by_content(start: &[u8], whole: bool) -> &'static str {
    if start.is_empty() {
        return "text/plain; charset=utf-8";
    }
    // Kinds of text are distinguished below.
    if let Some(found) = infer::get(start).filter(|found| !found.mime_type().starts_with("text/")) {
        return found.mime_type();
    }
    let text = match std::str::from_utf8(start) {
        Ok(text) => text,
        // The last character may be cut off.
        Err(error) if !whole && error.error_len().is_none() => {
            std::str::from_utf8(&start[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => return "application/octet-stream",
    };
    let is_binary = |character: char| character.is_control() && !"\t\n\r\u{c}\u{1b}".contains(character);
    if text.is_empty() || text.contains(is_binary) {
        return "application/octet-stream";
    }
    let begins = text.trim_start_matches(|it: char| it.is_whitespace() || it == '\u{feff}');
    let tag = |tag: &str| {
        begins
            .get(..tag.len())
            .is_some_and(|it| it.eq_ignore_ascii_case(tag))
    };
    if tag("<!doctype html") || tag("<html") || tag("<head") || tag("<body") || tag("<script") {
        return "text/html";
    }
    if tag("<svg") {
        return "image/svg+xml";
    }
    if tag("<?xml") {
        return if text.contains("<svg") {
            "image/svg+xml"
        } else {
            "text/xml; charset=utf-8"
        };
    }
    let is_json = begins.starts_with(['{', '['])
        && whole
        && serde_json::from_str::<serde::de::IgnoredAny>(begins).is_ok();
    if is_json {
        "application/json"
    } else {
        "text/plain; charset=utf-8"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_decide_first() {
        assert_eq!(by_name("a.txt").as_deref(), Some("text/plain; charset=utf-8"));
        assert_eq!(by_name("INDEX.HTML").as_deref(), Some("text/html"));
        assert_eq!(by_name("a.json").as_deref(), Some("application/json"));
        assert_eq!(by_name("a.png").as_deref(), Some("image/png"));
        assert_eq!((by_name("a"), by_name("a.unknown-extension")), (None, None));
    }

    #[test]
    fn content_decides_without_an_extension() {
        for (content, expected) in [
            (&b"{ \"test\": \"a file\" }\n"[..], "application/json"),
            (b"{ no json", "text/plain; charset=utf-8"),
            (b"hello", "text/plain; charset=utf-8"),
            (b"  <!DOCTYPE html><p>", "text/html"),
            (b"<?xml version=\"1.0\"?><svg/>", "image/svg+xml"),
            (b"\x89PNG\r\n\x1a\n....", "image/png"),
            (b"\x00\x01\x02\x03", "application/octet-stream"),
            (b"\xff\xfe\xfd", "application/octet-stream"),
        ] {
            assert_eq!(by_content(content, true), expected, "{content:?}");
        }
        assert_eq!(
            by_content(&"zł".as_bytes()[..2], false),
            "text/plain; charset=utf-8"
        );
    }
}
