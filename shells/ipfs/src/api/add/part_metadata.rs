//! Parses the metadata that a part of an upload carries in its field name.

use crate::unixfs::{Metadata, mode_from_go};

/// Metadata of a part as sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct PartMetadata {
    /// Go's `os.FileMode`; 0 if absent.
    pub(super) mode: u32,
    /// Seconds since 1970, and nanoseconds.
    pub(super) mtime: Option<(i64, u32)>,
}

impl PartMetadata {
    /// Converts to the metadata of an entry.
    pub(super) fn metadata(self) -> Metadata {
        Metadata {
            mode: Some(mode_from_go(self.mode)).filter(|mode| *mode != 0),
            mtime: self.mtime,
        }
    }
}

/// Parses the metadata in a field name like `file?mode=0644&mtime=1604320482&mtime-nsecs=55`.
pub(super) fn parse_field_name(name: &str) -> PartMetadata {
    let mut parse_field_name = PartMetadata::default();
    let Some((_, query)) = name.split_once('?') else {
        return parse_field_name;
    };
    let (mut seconds, mut nanos) = (None, 0);
    for (key, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        match key {
            "mode" => parse_field_name.mode = u32::from_str_radix(value, 8).unwrap_or(0),
            "mtime" => seconds = value.parse().ok(),
            "mtime-nsecs" => nanos = value.parse().unwrap_or(0),
            _ => {}
        }
    }
    parse_field_name.mtime = seconds.map(|seconds| (seconds, nanos));
    parse_field_name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_parsed_from_the_field_name() {
        let expected = PartMetadata {
            mode: 0o644,
            mtime: Some((1_604_320_482, 55)),
        };
        assert_eq!(
            parse_field_name("file?mode=0644&mtime=1604320482&mtime-nsecs=55"),
            expected
        );
        assert_eq!(parse_field_name("file"), PartMetadata::default());
        assert_eq!(parse_field_name("file?mode=x&mtime="), PartMetadata::default());
    }

    #[test]
    fn twelve_bits_of_the_mode_are_kept() {
        let mode = |name| parse_field_name(name).metadata().mode;
        assert_eq!(mode("file?mode=040000755"), Some(0o4755));
        assert_eq!(mode("file?mode=020000644"), Some(0o2644));
        assert_eq!(mode("file?mode=04000777"), Some(0o1777));
        assert_eq!(mode("file?mode=020000000755"), Some(0o755));
        assert_eq!(mode("file?mode=0"), None);
    }
}
