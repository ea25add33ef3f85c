//! Generated pages: listings of directories, and views of DAG-JSON and DAG-CBOR blocks.
//!
//! Entries are sent as they are read, so that a directory of any size takes little memory.

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use hyper::header::{self, HeaderMap};

use super::content_path::escape;
use super::handler::Asked;
use super::headers;
use super::hosts::Origin;
use super::reply::Content;
use crate::unixfs::DirEntry;
use crate::{Cid, Error};

/// Entries joined into one piece.
const ENTRIES_PER_PIECE: usize = 64;

/// Limit on the shown part of a block, in bytes.
const SHOWN_MAX: usize = 64 << 10;

/// Policy of generated pages, which contain names that strangers chose: no scripts, nothing from elsewhere.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'self'";

const STYLE: &str = "body{font:16px/1.5 sans-serif;margin:2em;color:#222}table{border-collapse:collapse}\
                     td{padding:.15em 1.5em .15em 0;vertical-align:top}td.size{text-align:right}\
                     .ipfs-hash{font-family:monospace;color:#666}pre{background:#f4f4f4;padding:1em;\
                     overflow:auto}";

/// Sets the headers of a generated page.
pub(super) fn add_headers(headers: &mut HeaderMap) {
    headers::set(headers, header::CONTENT_TYPE, "text/html");
    headers::set(headers, header::CONTENT_SECURITY_POLICY, POLICY);
}

/// Escapes text for HTML, in elements and in quoted attributes.
fn html(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&#34;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

fn head(title: &str) -> String {
    let title = html(title);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
    )
}

/// Returns links to the roots of the path, as far as they have one on this host.
fn breadcrumbs(asked: &Asked<'_>) -> String {
    let path = &asked.path;
    if asked.origin.is_isolated() {
        return html(&path.to_string());
    }
    let mut url = format!("/{}/{}", path.namespace.as_str(), escape(&path.root));
    let mut shown = format!(
        "/{}/<a href=\"{url}\">{}</a>",
        path.namespace.as_str(),
        html(&path.root)
    );
    for segment in &path.segments {
        url = format!("{url}/{}", escape(segment));
        shown.push_str(&format!("/<a href=\"{url}\">{}</a>", html(&segment.to_string())));
    }
    shown
}

/// Returns the prefix of links to other roots.
fn other_roots(origin: &Origin) -> String {
    match origin {
        Origin::Shared => String::new(),
        Origin::Subdomain { gateway } | Origin::Domain { gateway } => gateway
            .as_ref()
            .map(|host| format!("//{host}"))
            .unwrap_or_default(),
    }
}

/// Returns the page of a directory.
pub(super) fn directory(
    asked: &Asked<'_>,
    cid: &Cid,
    entries: BoxStream<'static, Result<DirEntry, Error>>,
) -> Content {
    let folder = asked.url_path.trim_end_matches('/').to_owned();
    let roots = other_roots(&asked.origin);
    let mut start = head(&asked.path.to_string());
    start.push_str(&format!(
        "<h1>Index of {}</h1>\n<p class=\"ipfs-hash\" translate=\"no\">{cid}</p>\n<table>\n",
        breadcrumbs(asked)
    ));
    if !asked.path.segments.is_empty() {
        start.push_str(&format!(
            "<tr><td><a href=\"{}/..\">..</a></td></tr>\n",
            html(&folder)
        ));
    }
    let rows = entries.ready_chunks(ENTRIES_PER_PIECE).flat_map(move |entries| {
        let mut rows = String::new();
        let mut failed = None;
        for entry in entries {
            match entry {
                Ok(entry) => rows.push_str(&row(&folder, &roots, &entry)),
                Err(error) => failed = Some(Err(error)),
            }
        }
        stream::iter([Ok(Bytes::from(rows))].into_iter().chain(failed))
    });
    let end = "</table>\n</body>\n</html>\n";
    stream::iter([Ok(Bytes::from(start))])
        .chain(rows)
        .chain(stream::iter([Ok(Bytes::from_static(end.as_bytes()))]))
        .boxed()
}

fn row(folder: &str, roots: &str, entry: &DirEntry) -> String {
    let name = entry.name.to_string();
    let escaped = escape(&entry.name);
    let cid = entry.cid.to_string();
    let short = match cid.as_bytes() {
        [_, .., _] if cid.len() > 9 => format!("{}\u{2026}{}", &cid[..4], &cid[cid.len() - 4..]),
        _ => cid.clone(),
    };
    format!(
        "<tr><td><a href=\"{}/{escaped}\">{}</a></td>\
         <td><a class=\"ipfs-hash\" translate=\"no\" href=\"{roots}/ipfs/{cid}?filename={}\">{short}</a></td>\
         <td class=\"size\" title=\"size of all blocks\">{}</td></tr>\n",
        html(folder),
        html(&name),
        // Escaped twice, as Kubo does.
        escape(&escaped),
        size(entry.size)
    )
}

/// Formats a size like Kubo: three significant digits at most.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in UNITS {
        if value < 1000.0 {
            break;
        }
        value /= 1000.0;
        unit = next;
    }
    if value < 10.0 {
        return format!("{value:.1} {unit}");
    }
    format!("{value:.0} {unit}")
}

/// Returns the page of a DAG-JSON or DAG-CBOR block, whose data is given as JSON.
pub(super) fn node(asked: &Asked<'_>, cid: &Cid, codec: &str, data: Option<&str>) -> String {
    let mut page = head(&asked.path.to_string());
    page.push_str(&format!(
        "<h1>{}</h1>\n<p class=\"ipfs-hash\" translate=\"no\">{cid}</p>\n<p>Codec {codec}: \
         <a href=\"?format=raw\">raw block</a>, <a href=\"?format={codec}\">{codec}</a></p>\n",
        breadcrumbs(asked)
    ));
    match data {
        Some(data) if data.len() <= SHOWN_MAX => {
            page.push_str(&format!("<pre>{}</pre>\n", html(data)));
        }
        Some(_) | None => page.push_str("<p>The block is not shown: it is too large or malformed.</p>\n"),
    }
    page.push_str("</body>\n</html>\n");
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_formatted_like_in_kubo() {
        for (bytes, expected) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (262_158, "262 kB"),
            (1_048_885, "1.0 MB"),
            (u64::MAX, "18 EB"),
        ] {
            assert_eq!(size(bytes), expected);
        }
    }

    #[test]
    fn names_cannot_leave_their_element() {
        let entry = DirEntry {
            name: "\"><script>'&".into(),
            cid: "bafkqaaa".parse().unwrap(),
            size: 1,
            target: None,
        };
        let row = row("/ipfs/x", "", &entry);
        assert!(!row.contains("<script>"), "{row}");
        assert!(row.contains("href=\"/ipfs/x/%22%3E%3Cscript%3E%27&\""), "{row}");
    }
}
