//! Content paths: `/ipfs/<cid>/…` and `/ipns/<name>/…`.

use std::fmt;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

use super::failure::Refusal;

/// Maximal number of segments, each of which may cost several blocks.
const SEGMENTS_MAX: usize = 512;

/// Characters that are escaped in a path, as in Go's `url.PathEscape` with slashes.
const ESCAPED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}')
    .add(b'\'');

/// Characters that are escaped in a value of a query.
const ESCAPED_IN_QUERY: &AsciiSet = &ESCAPED.add(b'&').add(b'=').add(b'+').add(b';');

/// First segment of a content path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Namespace {
    /// The root is a CID.
    Ipfs,
    /// The root is a name, whose content changes.
    Ipns,
}

impl Namespace {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Namespace::Ipfs => "ipfs",
            Namespace::Ipns => "ipns",
        }
    }
}

/// A content path, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ContentPath {
    pub(super) namespace: Namespace,
    /// CID or name.
    pub(super) root: String,
    pub(super) segments: Vec<String>,
    /// True if the path ends with a slash.
    pub(super) slash: bool,
}

impl ContentPath {
    /// Parses the escaped path of a URL. `.` and `..` are resolved.
    pub(super) fn parse(escaped: &str) -> Result<ContentPath, Refusal> {
        let decoded = percent_decode_str(escaped).decode_utf8();
        let decoded = decoded.map_err(|_| Refusal::bad_request("invalid path: it is not UTF-8"))?;
        let mut segments: Vec<&str> = Vec::new();
        for segment in decoded.split('/') {
            match segment {
                "" | "." => {}
                ".." => drop(segments.pop()),
                segment => segments.push(segment),
            }
        }
        if segments.len() > SEGMENTS_MAX {
            let why = format!("invalid path: more than {SEGMENTS_MAX} segments");
            return Err(Refusal::bad_request(why));
        }
        let mut segments = segments.into_iter().map(str::to_owned);
        let namespace = match segments.next().as_deref() {
            Some("ipfs") => Namespace::Ipfs,
            Some("ipns") => Namespace::Ipns,
            Some(_) | None => {
                let why = format!("invalid path {decoded:?}: it begins with neither /ipfs/ nor /ipns/");
                return Err(Refusal::bad_request(why));
            }
        };
        let root = segments.next().ok_or_else(|| {
            let why = format!("invalid path {decoded:?}: path does not have enough components");
            Refusal::bad_request(why)
        })?;
        Ok(ContentPath {
            namespace,
            root,
            segments: segments.collect(),
            slash: decoded.ends_with('/'),
        })
    }

    /// Returns the last segment; `None` for the root.
    pub(super) fn file_name(&self) -> Option<&str> {
        self.segments.last().map(String::as_str)
    }

    /// Returns whether the content of the path may change.
    pub(super) fn is_mutable(&self) -> bool {
        self.namespace == Namespace::Ipns
    }
}

impl fmt::Display for ContentPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}/{}", self.namespace.as_str(), self.root)?;
        self.segments
            .iter()
            .try_for_each(|segment| write!(f, "/{segment}"))?;
        f.write_str(if self.slash { "/" } else { "" })
    }
}

/// Escapes a segment of a path for a URL.
pub(super) fn escape(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).to_string()
}

/// Escapes a name or value of a query.
pub(super) fn escape_in_query(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED_IN_QUERY).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_decoded_and_cleaned() {
        let path = ContentPath::parse("/ipfs/cid/a%2Fb//./x/../%C4%85/").unwrap();
        assert_eq!(path.to_string(), "/ipfs/cid/a/b/ą/");
        assert_eq!(path.file_name(), Some("ą"));
        let path = ContentPath::parse("/ipns/example.com").unwrap();
        assert!(path.is_mutable() && !path.slash && path.file_name().is_none());
    }

    #[test]
    fn other_paths_are_refused() {
        let long = format!("/ipfs/cid{}", "/a".repeat(SEGMENTS_MAX));
        for path in ["/", "/ipfs", "/ipfs/", "/http/x", "/ipfs/..", "/ipfs/%ff", &long] {
            let refusal = ContentPath::parse(path).unwrap_err();
            assert_eq!(refusal.status, 400, "{path}");
        }
    }

    #[test]
    fn segments_are_escaped_for_urls() {
        assert_eq!(
            escape("file-źł \"<%>.txt"),
            "file-%C5%BA%C5%82%20%22%3C%25%3E.txt"
        );
    }
}
