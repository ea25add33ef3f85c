//! Tracker status of a CID, and filters of statuses.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;

/// Status of one CID at one peer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TrackerStatus {
    /// Unknown status.
    #[default]
    Undefined,
    /// The peer does not respond.
    ClusterError,
    /// Pinning failed.
    PinError,
    /// Unpinning failed.
    UnpinError,
    /// The IPFS node has it pinned.
    Pinned,
    /// The IPFS node is fetching it.
    Pinning,
    /// The IPFS node is unpinning it.
    Unpinning,
    /// The IPFS node does not have it pinned, as intended.
    Unpinned,
    /// It is allocated to other peers only.
    Remote,
    /// Pinning is queued.
    PinQueued,
    /// Unpinning is queued.
    UnpinQueued,
    /// It is pinned through the shards of another CID.
    Sharded,
    /// It should be pinned, is not, and no operation is queued.
    UnexpectedlyUnpinned,
}

impl TrackerStatus {
    /// Every status.
    pub const ALL: [Self; 13] = [
        Self::Undefined,
        Self::ClusterError,
        Self::PinError,
        Self::UnpinError,
        Self::Pinned,
        Self::Pinning,
        Self::Unpinning,
        Self::Unpinned,
        Self::Remote,
        Self::PinQueued,
        Self::UnpinQueued,
        Self::Sharded,
        Self::UnexpectedlyUnpinned,
    ];

    /// Returns the name in JSON and in filters.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Undefined => "undefined",
            Self::ClusterError => "cluster_error",
            Self::PinError => "pin_error",
            Self::UnpinError => "unpin_error",
            Self::Pinned => "pinned",
            Self::Pinning => "pinning",
            Self::Unpinning => "unpinning",
            Self::Unpinned => "unpinned",
            Self::Remote => "remote",
            Self::PinQueued => "pin_queued",
            Self::UnpinQueued => "unpin_queued",
            Self::Sharded => "sharded",
            Self::UnexpectedlyUnpinned => "unexpectedly_unpinned",
        }
    }

    /// Returns the status called `name`.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }

    /// Returns the bit in a filter; 0 for `Undefined`.
    pub fn bit(self) -> u16 {
        // In the order of their declaration, as in the Go peer.
        (1 << self as u16) & !1
    }

    /// Returns the status with this bit.
    pub fn from_bit(bit: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.bit() == bit)
    }

    /// Returns whether it is an error status or `Undefined`.
    pub fn is_error(self) -> bool {
        matches!(
            self,
            Self::Undefined | Self::ClusterError | Self::PinError | Self::UnpinError
        )
    }
}

impl fmt::Display for TrackerStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for TrackerStatus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl JsonSchema for TrackerStatus {
    fn schema_name() -> Cow<'static, str> {
        "TrackerStatus".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "enum": Self::ALL.map(Self::as_str)})
    }
}

impl<'de> Deserialize<'de> for TrackerStatus {
    /// Reads an unknown name as `Undefined`: a newer peer may have more statuses.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Ok(Self::from_name(&name).unwrap_or_default())
    }
}

/// Set of statuses to list; the empty set means all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StatusFilter(u16);

/// Bits of `cluster_error`, `pin_error` and `unpin_error`.
const ERROR: u16 = 2 | 4 | 8;
/// Bits of `pin_queued` and `unpin_queued`.
const QUEUED: u16 = 512 | 1024;

impl StatusFilter {
    /// Every status.
    pub const ALL: Self = Self(0);

    /// Parses a comma-separated list of statuses, `error` and `queued`. Unknown names are skipped: a list of
    /// unknown names only gives [`StatusFilter::ALL`]; see [`StatusFilter::parse`].
    pub fn from_names(text: &str) -> Self {
        let bits = text.split(',').map(|name| match name.trim() {
            "error" => ERROR,
            "queued" => QUEUED,
            name => TrackerStatus::from_name(name).map_or(0, TrackerStatus::bit),
        });
        Self(bits.fold(0, |all, bit| all | bit))
    }

    /// Parses a list as the REST API and the command line do: an empty text means all; `None` if no name is
    /// known.
    pub fn parse(text: &str) -> Option<Self> {
        let filter = Self::from_names(text);
        (text.is_empty() || filter != Self::ALL).then_some(filter)
    }

    /// Returns the set of this status only.
    pub fn only(status: TrackerStatus) -> Self {
        Self(status.bit())
    }

    /// Returns whether `status` is listed. The empty filter lists everything; every filter lists `Undefined`.
    pub fn matches(self, status: TrackerStatus) -> bool {
        self.0 == 0 || status == TrackerStatus::Undefined || status.bit() & self.0 != 0
    }

    /// Iterates over the statuses in the set; empty for [`StatusFilter::ALL`].
    pub fn statuses(self) -> impl Iterator<Item = TrackerStatus> {
        TrackerStatus::ALL
            .into_iter()
            .filter(move |status| status.bit() & self.0 != 0)
    }

    /// Returns all names that a filter may contain, sorted.
    pub fn names() -> Vec<&'static str> {
        let single = TrackerStatus::ALL.into_iter().skip(1).map(TrackerStatus::as_str);
        let mut names: Vec<_> = single.chain(["error", "queued"]).collect();
        names.sort_unstable();
        names
    }
}

impl fmt::Display for StatusFilter {
    /// Returns the value of the query parameter: empty for [`StatusFilter::ALL`].
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ERROR => return f.write_str("error"),
            QUEUED => return f.write_str("queued"),
            _ => {}
        }
        for (index, status) in self.statuses().enumerate() {
            write!(f, "{}{status}", if index == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn filters_parse_lists_and_composites() {
        let filter = StatusFilter::from_names("error, pinned,nonsense");
        let names: Vec<_> = filter.statuses().map(TrackerStatus::as_str).collect();
        assert_eq!(names, ["cluster_error", "pin_error", "unpin_error", "pinned"]);
        assert!(filter.matches(TrackerStatus::PinError));
        assert!(filter.matches(TrackerStatus::Undefined));
        assert!(!filter.matches(TrackerStatus::Remote));
        assert!(StatusFilter::ALL.matches(TrackerStatus::Remote));
    }

    #[test]
    fn a_filter_of_unknown_names_only_is_refused() {
        assert_eq!(StatusFilter::parse("nonsense"), None);
        assert_eq!(StatusFilter::parse("undefined"), None);
        assert_eq!(StatusFilter::parse(""), Some(StatusFilter::ALL));
        assert_eq!(StatusFilter::parse("queued").unwrap().to_string(), "queued");
    }

    #[test]
    fn an_unknown_status_reads_as_undefined() {
        let status: TrackerStatus = serde_json::from_str("\"brand_new\"").unwrap();
        assert_eq!(status, TrackerStatus::Undefined);
    }

    proptest! {
        #[test]
        fn every_filter_reads_back(bits in any::<u16>()) {
            let filter = StatusFilter(bits & 0b1_1111_1111_1110);
            prop_assert_eq!(StatusFilter::from_names(&filter.to_string()), filter);
        }
    }
}
