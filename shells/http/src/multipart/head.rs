//! Header of a part: kind, path and metadata of an entry of an upload.

use super::MultipartError;
use crate::query;

/// Maximum length of a boundary, in bytes. RFC 2046 allows 70 characters; some clients exceed it.
const BOUNDARY_MAX: usize = 256;

/// Parsed header of one part.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PartHead {
    /// Media type in lower case without parameters; empty if absent.
    pub content_type: String,
    /// `name` of the disposition.
    pub name: String,
    /// `filename` of the disposition as sent.
    pub filename: Option<Vec<u8>>,
    /// Unescaped `abspath-encoded`: path or URL of the content at the sender.
    pub source: Option<Vec<u8>>,
}

/// Kind of entry that a part uploads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartKind {
    /// The content of a file.
    File,
    /// A directory, which has no content.
    Directory,
    /// A symbolic link, whose content is its target.
    Symlink,
}

/// Returns the boundary in a `Content-Type` header of a multipart form.
pub fn boundary(content_type: &str) -> Option<String> {
    let (kind, parameters) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let boundary = String::from_utf8(parameter(parameters.as_bytes(), "boundary")?).ok()?;
    (!boundary.is_empty() && boundary.len() <= BOUNDARY_MAX).then_some(boundary)
}

impl PartHead {
    pub(super) fn parse(head: &[u8]) -> Result<PartHead, MultipartError> {
        let mut parsed = PartHead::default();
        let lines = head.split(|byte| *byte == b'\n').skip(1);
        for line in lines.map(<[u8]>::trim_ascii_end).filter(|line| !line.is_empty()) {
            let Some((name, value)) = split_once(line, b':') else {
                return Err(MultipartError::Format("a line of a part's header has no colon"));
            };
            if name.eq_ignore_ascii_case(b"content-type") {
                let kind = value.split(|byte| *byte == b';').next().unwrap_or_default();
                parsed.content_type = text(kind.trim_ascii()).to_ascii_lowercase();
            } else if name.eq_ignore_ascii_case(b"content-disposition") {
                let parameters = split_once(value, b';').map_or(&b""[..], |(_, parameters)| parameters);
                parsed.name = text(&parameter(parameters, "name").unwrap_or_default());
                parsed.filename = parameter(parameters, "filename");
            } else if name.eq_ignore_ascii_case(b"abspath-encoded") {
                parsed.source = Some(unescaped(value.trim_ascii()));
            }
        }
        Ok(parsed)
    }

    /// Returns the kind of entry, as marked by the IPFS command line.
    pub fn kind(&self) -> PartKind {
        match self.content_type.as_str() {
            "application/x-directory" | "multipart/form-data" => PartKind::Directory,
            "application/symlink" => PartKind::Symlink,
            _ => PartKind::File,
        }
    }

    /// Returns the path of the entry within the upload: unescaped, and cleaned like in Go, without the
    /// leading slash. It need not be UTF-8.
    pub fn path(&self) -> Vec<u8> {
        let name = unescaped(self.filename.as_deref().unwrap_or_default());
        let mut path: Vec<&[u8]> = Vec::new();
        for segment in name.split(|byte| *byte == b'/') {
            match segment {
                b"" | b"." => {}
                b".." => {
                    path.pop();
                }
                segment => path.push(segment),
            }
        }
        path.join(&b'/')
    }
}

/// Unescapes query escaping. A name with a broken escape is taken literally.
fn unescaped(raw: &[u8]) -> Vec<u8> {
    query::unescape(raw).unwrap_or_else(|| raw.to_vec())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn split_once(bytes: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let position = bytes.iter().position(|byte| *byte == at)?;
    Some((&bytes[..position], &bytes[position + 1..]))
}

/// Returns a parameter of `; a=b; c="d"`, unquoted.
fn parameter(parameters: &[u8], wanted: &str) -> Option<Vec<u8>> {
    let mut rest = parameters;
    loop {
        let (name, after) = split_once(rest, b'=')?;
        let (value, after) = value(after.trim_ascii_start());
        let start = name.iter().position(|byte| !b" ;\t".contains(byte));
        let name = start.map_or(&b""[..], |start| name[start..].trim_ascii_end());
        if name.eq_ignore_ascii_case(wanted.as_bytes()) {
            return Some(value);
        }
        rest = after;
    }
}

/// Parses a token or a quoted string; returns it and the rest.
fn value(bytes: &[u8]) -> (Vec<u8>, &[u8]) {
    let Some(quoted) = bytes.strip_prefix(b"\"") else {
        let end = bytes.iter().position(|byte| *byte == b';').unwrap_or(bytes.len());
        return (bytes[..end].trim_ascii().to_vec(), &bytes[end..]);
    };
    let mut value = Vec::new();
    let mut at = 0;
    while let Some(byte) = quoted.get(at) {
        at += 1;
        match byte {
            b'"' => return (value, &quoted[at..]),
            b'\\' => {
                value.extend(quoted.get(at));
                at += 1;
            }
            byte => value.push(*byte),
        }
    }
    (value, b"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(filename: &[u8]) -> Vec<u8> {
        let filename = Some(filename.to_vec());
        PartHead {
            filename,
            ..PartHead::default()
        }
        .path()
    }

    #[test]
    fn file_names_are_unescaped_and_cleaned_like_in_go() {
        assert_eq!(path(b"a%2Fb+c"), b"a/b c");
        assert_eq!(path(b"100%"), b"100%");
        assert_eq!(path(b"../../etc/./passwd"), b"etc/passwd");
        assert_eq!(path(b"/a//b/../c/"), b"a/c");
        assert_eq!(path(b""), b"");
    }

    #[test]
    fn names_keep_bytes_that_are_not_utf8() {
        assert_eq!(path(b"d/caf%E9"), b"d/caf\xe9");
        let head = b"\r\nContent-Disposition: form-data; name=\"file\"; filename=\"d/caf\xe9\"";
        assert_eq!(PartHead::parse(head).unwrap().path(), b"d/caf\xe9");
    }

    #[test]
    fn boundary_may_be_quoted() {
        assert_eq!(
            boundary("multipart/form-data; boundary=\"a b\"").as_deref(),
            Some("a b")
        );
        assert_eq!(
            boundary("Multipart/Form-Data; charset=x; boundary=ab").as_deref(),
            Some("ab")
        );
        assert_eq!(boundary("multipart/form-data"), None);
        assert_eq!(boundary("application/json; boundary=ab"), None);
    }
}
