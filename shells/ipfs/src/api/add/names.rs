//! What a part of an upload says in its names: its path, and its metadata.

use percent_encoding::percent_decode_str;

use crate::api::multipart::PartHead;

/// A part's metadata as sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Carried {
    pub(super) mode: String,
    pub(super) mtime: Option<(i64, u32)>,
}

/// The path of an entry: unescaped and cleaned as Go does it, without the leading slash.
pub(super) fn entry_path(head: &PartHead) -> String {
    let raw = head.filename.as_deref().unwrap_or_default();
    let spaced = raw.replace('+', " ");
    let name = if well_escaped(raw) {
        percent_decode_str(&spaced).decode_utf8_lossy()
    } else {
        raw.into()
    };
    let mut path: Vec<&str> = Vec::new();
    for segment in name.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                path.pop();
            }
            segment => path.push(segment),
        }
    }
    path.join("/")
}

/// Whether every `%` begins an escape; otherwise the name is meant as it is.
fn well_escaped(name: &str) -> bool {
    let after_percent = name.split('%').skip(1);
    after_percent
        .into_iter()
        .all(|rest| rest.len() >= 2 && rest.bytes().take(2).all(|it| it.is_ascii_hexdigit()))
}

/// The metadata in a field name like `file?mode=0644&mtime=1604320482&mtime-nsecs=55`.
pub(super) fn carried(name: &str) -> Carried {
    let mut carried = Carried::default();
    let Some((_, query)) = name.split_once('?') else {
        return carried;
    };
    let (mut seconds, mut nanos) = (None, 0);
    for (key, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        match key {
            "mode" if value.bytes().all(|it| it.is_ascii_digit()) => carried.mode = value.to_owned(),
            "mtime" => seconds = value.parse().ok(),
            "mtime-nsecs" => nanos = value.parse().unwrap_or(0),
            _ => {}
        }
    }
    carried.mtime = seconds.map(|seconds| (seconds, nanos));
    carried
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(filename: &str) -> String {
        entry_path(&PartHead {
            filename: Some(filename.to_owned()),
            ..PartHead::default()
        })
    }

    #[test]
    fn names_are_unescaped_and_cleaned_as_go_does() {
        assert_eq!(path("a%2Fb+c"), "a/b c");
        assert_eq!(path("100%"), "100%");
        assert_eq!(path("../../etc/./passwd"), "etc/passwd");
        assert_eq!(path("/a//b/../c/"), "a/c");
        assert_eq!(path(""), "");
    }

    #[test]
    fn metadata_is_read_from_the_name_of_the_field() {
        let expected = Carried {
            mode: "0644".to_owned(),
            mtime: Some((1_604_320_482, 55)),
        };
        assert_eq!(
            carried("file?mode=0644&mtime=1604320482&mtime-nsecs=55"),
            expected
        );
        assert_eq!(carried("file"), Carried::default());
        assert_eq!(carried("file?mode=x&mtime="), Carried::default());
    }
}
