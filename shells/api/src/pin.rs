//! Pins as the REST API lists and accepts them.

use crate::nullable::or_default;
use crate::{PinMode, PinOptions, Time};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

/// Type of a pin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum PinType {
    /// Unknown type.
    #[default]
    Bad,
    /// An ordinary pin.
    Data,
    /// Root of sharded content; not pinned itself.
    Meta,
    /// Root node that links to the shards.
    ClusterDag,
    /// One shard.
    Shard,
}

impl PinType {
    /// Every type but `Bad`.
    pub const ALL: [Self; 4] = [Self::Data, Self::Meta, Self::ClusterDag, Self::Shard];

    /// Returns the name in JSON and filters.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bad => "bad-type",
            Self::Data => "pin",
            Self::Meta => "meta-pin",
            Self::ClusterDag => "clusterdag-pin",
            Self::Shard => "shard-pin",
        }
    }

    /// Returns the type called `name`, or `Bad`.
    pub fn from_name(name: &str) -> Self {
        Self::ALL
            .into_iter()
            .find(|t| t.as_str() == name)
            .unwrap_or_default()
    }

    fn bit(self) -> u8 {
        match self {
            Self::Bad => 1,
            Self::Data => 2,
            Self::Meta => 4,
            Self::ClusterDag => 8,
            Self::Shard => 16,
        }
    }
}

impl fmt::Display for PinType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for PinType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl JsonSchema for PinType {
    fn schema_name() -> Cow<'static, str> {
        "PinType".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "enum": Self::ALL.map(Self::as_str)})
    }
}

impl<'de> Deserialize<'de> for PinType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Ok(Self::from_name(&name))
    }
}

/// Set of pin types to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PinTypeFilter(u8);

impl PinTypeFilter {
    /// All types.
    pub const ALL: Self = Self(2 | 4 | 8 | 16);

    /// Parses a comma-separated list of types; an empty name and `all` mean all types. `None` if no name in
    /// it is known.
    pub fn parse(text: &str) -> Option<Self> {
        let bits = text.split(',').map(|name| match name.trim() {
            "" | "all" => Self::ALL.0,
            name => PinType::from_name(name).bit(),
        });
        let known = bits.fold(0, |all, bit| all | bit) & Self::ALL.0;
        (known != 0).then_some(Self(known))
    }

    /// Returns whether the set contains `pin_type`.
    pub fn matches(self, pin_type: PinType) -> bool {
        pin_type.bit() & self.0 != 0
    }
}

impl fmt::Display for PinTypeFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::ALL {
            return f.write_str("all");
        }
        let names = PinType::ALL.into_iter().filter(|t| self.matches(*t));
        for (index, name) in names.enumerate() {
            write!(f, "{}{name}", if index == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// One entry of the pinset, as `GET /allocations` lists it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "FlatPin")]
pub struct Pin {
    /// Options of the user, with defaults filled in.
    #[serde(flatten)]
    pub options: PinOptions,
    /// Pinned CID.
    pub cid: String,
    /// Type of the pin.
    #[serde(rename = "type")]
    pub pin_type: PinType,
    /// Ids of the peers that must hold it; empty for all peers.
    pub allocations: Vec<String>,
    /// Depth: -1 recursive, 0 direct.
    pub max_depth: i32,
    /// CID that a part of sharded content belongs to.
    pub reference: Option<String>,
    /// Time of the pin request.
    pub timestamp: Time,
}

/// Response to `POST /pins`. Empty metadata are `{}` and no origins are `null`, because the Go peer shows the
/// parsed request; its listings, from the pinset, have `null` and `[]`.
#[derive(Debug, Serialize, JsonSchema)]
#[allow(missing_docs, reason = "the fields are those of Pin")]
pub struct CreatedPin<'a> {
    pub replication_factor_min: i32,
    pub replication_factor_max: i32,
    pub name: &'a str,
    pub mode: PinMode,
    pub shard_size: u64,
    pub user_allocations: Option<&'a [String]>,
    pub expire_at: Time,
    pub metadata: &'a BTreeMap<String, String>,
    pub pin_update: Option<&'a str>,
    pub origins: Option<&'a [String]>,
    pub cid: &'a str,
    #[serde(rename = "type")]
    pub pin_type: PinType,
    pub allocations: &'a [String],
    pub max_depth: i32,
    pub reference: Option<&'a str>,
    pub timestamp: Time,
}

impl<'a> From<&'a Pin> for CreatedPin<'a> {
    fn from(pin: &'a Pin) -> Self {
        let options = &pin.options;
        let or_null = |list: &'a Vec<String>| (!list.is_empty()).then_some(list.as_slice());
        Self {
            replication_factor_min: options.replication_factor_min,
            replication_factor_max: options.replication_factor_max,
            name: &options.name,
            mode: options.mode,
            shard_size: options.shard_size,
            user_allocations: or_null(&options.user_allocations),
            expire_at: options.expire_at,
            metadata: &options.metadata,
            pin_update: options.pin_update.as_deref(),
            origins: or_null(&options.origins),
            cid: &pin.cid,
            pin_type: pin.pin_type,
            allocations: &pin.allocations,
            max_depth: pin.max_depth,
            reference: pin.reference.as_deref(),
            timestamp: pin.timestamp,
        }
    }
}

impl Pin {
    /// Returns whether every peer must hold it.
    pub fn is_everywhere(&self) -> bool {
        self.options.replication_factor_min == -1 && self.options.replication_factor_max == -1
    }
}

/// Flat form of [`Pin`] for decoding: `flatten` would buffer every value, which doubles the cost.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
struct FlatPin {
    replication_factor_min: i32,
    replication_factor_max: i32,
    name: String,
    mode: PinMode,
    shard_size: u64,
    #[serde(deserialize_with = "or_default")]
    user_allocations: Vec<String>,
    expire_at: Time,
    #[serde(deserialize_with = "or_default")]
    metadata: BTreeMap<String, String>,
    pin_update: Option<String>,
    #[serde(deserialize_with = "or_default")]
    origins: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    cid: String,
    #[serde(rename = "type")]
    pin_type: PinType,
    #[serde(deserialize_with = "or_default")]
    allocations: Vec<String>,
    max_depth: i32,
    reference: Option<String>,
    timestamp: Time,
}

impl From<FlatPin> for Pin {
    fn from(flat: FlatPin) -> Self {
        Self {
            options: PinOptions {
                replication_factor_min: flat.replication_factor_min,
                replication_factor_max: flat.replication_factor_max,
                name: flat.name,
                mode: flat.mode,
                shard_size: flat.shard_size,
                user_allocations: flat.user_allocations,
                expire_at: flat.expire_at,
                metadata: flat.metadata,
                pin_update: flat.pin_update,
                origins: flat.origins,
            },
            cid: flat.cid,
            pin_type: flat.pin_type,
            allocations: flat.allocations,
            max_depth: flat.max_depth,
            reference: flat.reference,
            timestamp: flat.timestamp,
        }
    }
}

/// Pin in the form of Go ipfs-cluster 0.0.12, with the fields of later versions.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct OldPin {
    /// Pin in the current form.
    #[serde(flatten)]
    pub pin: Pin,
    /// Number of copies: the maximum, or -1 for every peer.
    pub replication_factor: i32,
}

impl From<Pin> for OldPin {
    fn from(pin: Pin) -> Self {
        let replication_factor = pin.options.replication_factor_max;
        Self {
            pin,
            replication_factor,
        }
    }
}

/// Result of one pin of an import that is streamed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ImportedPin {
    /// CID of the pin; empty if the line could not be decoded.
    pub cid: String,
    /// HTTP status of a request for this pin alone: 200 if it is committed.
    pub code: u16,
    /// Description of an error for people; empty if the pin is committed.
    pub message: String,
}

impl ImportedPin {
    /// Creates the result of a pin that is committed.
    pub fn committed(cid: String) -> Self {
        Self {
            cid,
            code: 200,
            message: String::new(),
        }
    }

    /// Creates the result of a pin that was refused.
    pub fn refused(cid: String, code: u16, message: String) -> Self {
        Self { cid, code, message }
    }
}

/// Unresolved path to pin, with options.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinPath {
    /// Options of the pin.
    #[serde(flatten)]
    pub options: PinOptions,
    /// IPFS path: `/ipfs/…` or `/ipns/…`.
    #[serde(default)]
    pub path: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_filters_parse_lists() {
        assert_eq!(PinTypeFilter::parse(""), Some(PinTypeFilter::ALL));
        assert_eq!(PinTypeFilter::parse("all").unwrap().to_string(), "all");
        let some = PinTypeFilter::parse("shard-pin,pin,nonsense").unwrap();
        assert_eq!(some.to_string(), "pin,shard-pin");
        assert!(some.matches(PinType::Data) && !some.matches(PinType::Meta));
        assert_eq!(PinTypeFilter::parse("nonsense"), None);
    }
}
