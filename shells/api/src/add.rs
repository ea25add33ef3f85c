//! Parameters and results of `POST /add`.

use crate::nullable::{is_zero, null_if_empty, or_default};
use crate::{PinOptions, Query, QueryError, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Bytes per shard if `shard-size` is absent: 100 MiB.
pub const DEFAULT_SHARD_SIZE: u64 = 100 * 1024 * 1024;

/// One line of the response to `POST /add`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct AddedOutput {
    /// Path of the file or directory, or its CID if it has no path.
    pub name: String,
    /// Its CID; empty in a line that only reports progress, which is `null` in JSON.
    #[schemars(with = "Option<String>")]
    #[serde(deserialize_with = "or_default", serialize_with = "null_if_empty")]
    pub cid: String,
    /// Content bytes read so far; omitted when 0.
    #[serde(skip_serializing_if = "is_zero")]
    pub bytes: u64,
    /// Bytes of all its blocks; omitted when 0.
    #[serde(skip_serializing_if = "is_zero")]
    pub size: u64,
    /// Ids of the peers that received the blocks; omitted when empty.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "or_default")]
    pub allocations: Vec<String>,
}

/// Layout of the graph built from a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AddLayout {
    /// All leaves at the same depth.
    #[default]
    Balanced,
    /// Leaves close to the root first: the start of the file is found quickly.
    Trickle,
}

impl AddLayout {
    /// Returns its name in a query.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Balanced => "balanced",
            Self::Trickle => "trickle",
        }
    }

    /// Returns the layout called `name`; empty means balanced, as in a query.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "" | "balanced" => Some(Self::Balanced),
            "trickle" => Some(Self::Trickle),
            _ => None,
        }
    }
}

/// Format of the request body.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AddFormat {
    /// Files, which the cluster splits into blocks.
    #[default]
    Unixfs,
    /// One CAR file with one root; its blocks are stored unchanged.
    Car,
}

impl AddFormat {
    /// Returns its name in a query.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unixfs => "unixfs",
            Self::Car => "car",
        }
    }

    /// Returns the format called `name`; empty means unixfs, as in a query.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "" | "unixfs" => Some(Self::Unixfs),
            "car" => Some(Self::Car),
            _ => None,
        }
    }
}

impl fmt::Display for AddLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for AddFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Parameters of `POST /add`: import options, and options of the resulting pin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddParams {
    /// Options of the resulting pin.
    pub pin: PinOptions,
    /// Store the blocks only at the peer that serves the request; pin as usual.
    pub local: bool,
    /// Add directories with all their content.
    pub recursive: bool,
    /// Add files whose name begins with a dot.
    pub hidden: bool,
    /// Wrap everything in one more directory.
    pub wrap: bool,
    /// Split one graph into shards on several peers.
    pub shard: bool,
    /// Stream one JSON object per line; otherwise one array at the end.
    pub stream_channels: bool,
    /// Format of the request body.
    pub format: AddFormat,
    /// Do not pin afterwards.
    pub no_pin: bool,
    /// Layout of the graph.
    pub layout: AddLayout,
    /// Chunker: `size-262144`, `rabin-…`.
    pub chunker: String,
    /// Leaves are raw blocks.
    pub raw_leaves: bool,
    /// Report progress in between.
    pub progress: bool,
    /// CID version: 0 or 1.
    pub cid_version: u64,
    /// Hash function: `sha2-256`, ….
    pub hash: String,
    /// Refer to URLs instead of storing their content.
    pub no_copy: bool,
}

impl Default for AddParams {
    fn default() -> Self {
        Self {
            pin: PinOptions {
                shard_size: DEFAULT_SHARD_SIZE,
                ..PinOptions::default()
            },
            local: false,
            recursive: false,
            hidden: false,
            wrap: false,
            shard: false,
            stream_channels: true,
            format: AddFormat::Unixfs,
            no_pin: false,
            layout: AddLayout::Balanced,
            chunker: "size-262144".to_owned(),
            raw_leaves: false,
            progress: false,
            cid_version: 0,
            hash: "sha2-256".to_owned(),
            no_copy: false,
        }
    }
}

impl AddParams {
    /// Returns the parameters as a query.
    pub fn to_query(&self) -> Query {
        let mut query = self.pin.to_query();
        query.set("shard", self.shard);
        query.set("local", self.local);
        query.set("recursive", self.recursive);
        query.set("layout", self.layout);
        query.set("chunker", &self.chunker);
        query.set("raw-leaves", self.raw_leaves);
        query.set("hidden", self.hidden);
        query.set("wrap-with-directory", self.wrap);
        query.set("progress", self.progress);
        query.set("cid-version", self.cid_version);
        query.set("hash", &self.hash);
        query.set("stream-channels", self.stream_channels);
        query.set("nocopy", self.no_copy);
        query.set("format", self.format);
        query.set("no-pin", self.no_pin);
        query
    }

    /// Parses a query; `expire-in` counts from `now`. `pin-update` is ignored: it makes no sense here.
    /// Without `raw-leaves`, a CID version above 0 means raw leaves.
    ///
    /// # Errors
    /// Fails at the first parameter whose value is invalid.
    pub fn from_query(query: &Query, now: Time) -> Result<Self, QueryError> {
        let default = Self::default();
        let mut pin = PinOptions::from_query(query, now)?;
        pin.pin_update = None;
        if query.get("shard-size").is_none() {
            pin.shard_size = DEFAULT_SHARD_SIZE;
        }
        let cid_version = query.number("cid-version", 0)?;
        let text = |name, default: String| query.get(name).map_or(default, str::to_owned);
        Ok(Self {
            pin,
            local: query.bool("local", false)?,
            recursive: query.bool("recursive", false)?,
            hidden: query.bool("hidden", false)?,
            wrap: query.bool("wrap-with-directory", false)?,
            shard: query.bool("shard", false)?,
            stream_channels: query.bool("stream-channels", true)?,
            format: choice(query, "format", "unixfs or car", AddFormat::from_name)?,
            no_pin: query.bool("no-pin", false)?,
            layout: choice(query, "layout", "balanced or trickle", AddLayout::from_name)?,
            chunker: text("chunker", default.chunker),
            raw_leaves: query.bool("raw-leaves", cid_version > 0)?,
            progress: query.bool("progress", false)?,
            cid_version,
            hash: text("hash", default.hash),
            no_copy: query.bool("nocopy", false)?,
        })
    }
}

fn choice<T>(
    query: &Query,
    name: &'static str,
    expected: &'static str,
    from_name: fn(&str) -> Option<T>,
) -> Result<T, QueryError> {
    let value = query.get(name).unwrap_or_default();
    from_name(value).ok_or_else(|| QueryError::Invalid {
        name,
        value: value.to_owned(),
        expected,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pin_options::tests::any_options;
    use proptest::prelude::*;

    fn from(text: &str) -> Result<AddParams, String> {
        AddParams::from_query(&Query::parse(text), Time::ZERO).map_err(|e| e.to_string())
    }

    #[test]
    fn an_empty_query_means_the_defaults() {
        assert_eq!(from("").unwrap(), AddParams::default());
    }

    #[test]
    fn cid_version_1_implies_raw_leaves_by_default() {
        assert!(from("cid-version=1").unwrap().raw_leaves);
        assert!(!from("cid-version=1&raw-leaves=false").unwrap().raw_leaves);
    }

    #[test]
    fn invalid_layouts_formats_booleans_and_numbers_are_refused() {
        assert!(
            from("layout=flat")
                .unwrap_err()
                .starts_with("parameter layout invalid")
        );
        assert!(
            from("format=tar")
                .unwrap_err()
                .starts_with("parameter format invalid")
        );
        assert!(
            from("local=yes")
                .unwrap_err()
                .starts_with("parameter local invalid")
        );
        assert!(from("cid-version=-1").is_err());
    }

    #[test]
    fn progress_lines_have_a_null_cid_as_in_go() {
        let line = AddedOutput {
            name: "f".to_owned(),
            bytes: 6,
            ..AddedOutput::default()
        };
        let text = serde_json::to_string(&line).unwrap();
        assert_eq!(text, r#"{"name":"f","cid":null,"bytes":6}"#);
        assert_eq!(serde_json::from_str::<AddedOutput>(&text).unwrap(), line);
    }

    proptest! {
        #[test]
        fn every_parameter_survives_the_query(
            mut pin in any_options(),
            flags in any::<[bool; 10]>(),
            trickle in any::<bool>(),
            car in any::<bool>(),
            chunker in "[a-z0-9-]{1,9}",
            hash in "[a-z0-9-]{1,9}",
            cid_version in 0_u64..3,
        ) {
            pin.pin_update = None;
            let [
                local, recursive, hidden, wrap, shard, stream_channels, no_pin, raw_leaves, progress, no_copy,
            ] = flags;
            let layout = if trickle { AddLayout::Trickle } else { AddLayout::Balanced };
            let format = if car { AddFormat::Car } else { AddFormat::Unixfs };
            let params = AddParams {
                pin, local, recursive, hidden, wrap, shard, stream_channels, format, no_pin, layout,
                chunker, raw_leaves, progress, cid_version, hash, no_copy,
            };
            let text = params.to_query().encode();
            prop_assert_eq!(AddParams::from_query(&Query::parse(&text), Time::ZERO).unwrap(), params);
        }
    }
}
