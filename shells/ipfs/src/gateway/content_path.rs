//! Content paths: `/ipfs/<cid>/…` and `/ipns/<name>/…`.

use std::fmt;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, percent_encode};

use super::failure::Refusal;
use crate::unixfs::Name;

/// Maximum number of segments, each of which may cost several blocks.
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
    pub(super) segments: Vec<Name>,
    /// True if the path ends with a slash.
    pub(super) slash: bool,
}

impl ContentPath {
    /// Parses the escaped path of a URL. `.` and `..` are resolved.
    pub(super) fn parse(escaped: &str) -> Result<ContentPath, Refusal> {
        let decoded: Vec<u8> = percent_decode_str(escaped).collect();
        let shown = Name::from(&*decoded).to_string();
        let mut segments: Vec<&[u8]> = Vec::new();
        for segment in decoded.split(|byte| *byte == b'/') {
            match segment {
                b"" | b"." => {}
                b".." => drop(segments.pop()),
                segment => segments.push(segment),
            }
        }
        if segments.len() > SEGMENTS_MAX {
            let why = format!("invalid path: more than {SEGMENTS_MAX} segments");
            return Err(Refusal::bad_request(why));
        }
        let mut segments = segments.into_iter().map(Name::from);
        let namespace = match segments.next().as_ref().map(Name::as_bytes) {
            Some(b"ipfs") => Namespace::Ipfs,
            Some(b"ipns") => Namespace::Ipns,
            Some(_) | None => {
                let why = format!("invalid path {shown:?}: it begins with neither /ipfs/ nor /ipns/");
                return Err(Refusal::bad_request(why));
            }
        };
        let root = segments.next().ok_or_else(|| {
            let why = format!("invalid path {shown:?}: path does not have enough components");
            Refusal::bad_request(why)
        })?;
        Ok(ContentPath {
            namespace,
            root: root.to_string(),
            segments: segments.collect(),
            slash: decoded.ends_with(b"/"),
        })
    }

    /// Returns the last segment; `None` for the root.
    pub(super) fn file_name(&self) -> Option<String> {
        self.segments.last().map(Name::to_string)
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
pub(super) fn escape(segment: impl AsRef<[u8]>) -> String {
    percent_encode(segment.as_ref(), ESCAPED).to_string()
}

/// Escapes a name or value of a query.
pub(super) fn escape_in_query(text: &str) -> String {
    percent_encode(text.as_bytes(), ESCAPED_IN_QUERY).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_decoded_and_cleaned() {
        let path = ContentPath::parse("/ipfs/cid/a%2Fb//./x/../%C4%85/").unwrap();
        assert_eq!(path.to_string(), "/ipfs/cid/a/b/ą/");
        assert_eq!(path.file_name().as_deref(), Some("ą"));
        let path = ContentPath::parse("/ipns/example.com").unwrap();
        assert!(path.is_mutable() && !path.slash && path.file_name().is_none());
        let path = ContentPath::parse("/ipfs/cid/caf%E9").unwrap();
        assert_eq!(path.segments, [Name::from(&b"caf\xe9"[..])]);
        assert_eq!(escape(&path.segments[0]), "caf%E9");
    }

    #[test]
    fn other_paths_are_refused() {
        let long = format!("/ipfs/cid{}", "/a".repeat(SEGMENTS_MAX));
        for path in ["/", "/ipfs", "/ipfs/", "/http/x", "/ipfs/..", "/%ff/x", &long] {
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
