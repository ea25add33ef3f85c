//! Options of a pin, and their query parameters.

use crate::nullable::{null_if_empty, or_default};
use crate::{GoDuration, Query, QueryError, Time};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

const META_PREFIX: &str = "meta-";

/// Depth of a pin in the IPFS node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum PinMode {
    /// The block and all its descendants.
    #[default]
    Recursive,
    /// The block alone.
    Direct,
}

impl PinMode {
    /// Returns the name in JSON and queries.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Recursive => "recursive",
            Self::Direct => "direct",
        }
    }

    /// Returns the mode called `name`; an unknown name means recursive, as in the Go peer.
    pub fn from_name(name: &str) -> Self {
        if name == "direct" {
            Self::Direct
        } else {
            Self::Recursive
        }
    }

    /// Returns the mode as `max_depth`: -1 recursive, 0 direct.
    pub fn max_depth(self) -> i32 {
        match self {
            Self::Recursive => -1,
            Self::Direct => 0,
        }
    }
}

impl fmt::Display for PinMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for PinMode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl JsonSchema for PinMode {
    fn schema_name() -> Cow<'static, str> {
        "PinMode".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "enum": ["recursive", "direct"]})
    }
}

impl<'de> Deserialize<'de> for PinMode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Ok(Self::from_name(&name))
    }
}

/// Options of a pin. Each default leaves the choice to the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PinOptions {
    /// Minimum of copies, below which the pin is repaired; 0 the cluster's default, -1 every peer.
    pub replication_factor_min: i32,
    /// Maximum number of copies; 0 for the cluster's default, -1 every peer.
    pub replication_factor_max: i32,
    /// A name for people.
    pub name: String,
    /// Depth of the pin.
    pub mode: PinMode,
    /// Bytes per shard when content is added in shards.
    pub shard_size: u64,
    /// Ids of preferred peers; `null` when empty. Not stored.
    #[schemars(with = "Option<Vec<String>>")]
    #[serde(serialize_with = "null_if_empty", deserialize_with = "or_default")]
    pub user_allocations: Vec<String>,
    /// Expiry, when the pin is removed; zero means never.
    pub expire_at: Time,
    /// Key-value pairs of the user; `null` when empty.
    #[schemars(with = "Option<BTreeMap<String, String>>")]
    #[serde(serialize_with = "null_if_empty", deserialize_with = "or_default")]
    pub metadata: BTreeMap<String, String>,
    /// CID of the pin whose options and allocations are copied.
    pub pin_update: Option<String>,
    /// Multiaddresses with `/p2p/` of IPFS nodes that provide the content.
    #[serde(deserialize_with = "or_default")]
    pub origins: Vec<String>,
}

impl PinOptions {
    /// Returns the options as query parameters.
    pub fn to_query(&self) -> Query {
        let mut query = Query::default();
        query.set("replication-min", self.replication_factor_min);
        query.set("replication-max", self.replication_factor_max);
        query.set("name", &self.name);
        query.set("mode", self.mode);
        query.set("shard-size", self.shard_size);
        query.set("user-allocations", self.user_allocations.join(","));
        if !self.expire_at.is_zero() {
            query.set("expire-at", self.expire_at);
        }
        for (key, value) in self.metadata.iter().filter(|(key, _)| !key.is_empty()) {
            query.set(format!("{META_PREFIX}{key}"), value);
        }
        if let Some(cid) = &self.pin_update {
            query.set("pin-update", cid);
        }
        if !self.origins.is_empty() {
            query.set("origins", self.origins.join(","));
        }
        query
    }

    /// Parses query parameters; `expire-in` counts from `now`. `replication_factor`, of v0.0.12, is the
    /// default of the other replication parameters.
    ///
    /// Each origin must have a `/p2p/` part; peer ids, CIDs and multiaddresses are not validated further. The
    /// Go peer skips user allocations that are not peer ids, and responds 400 to an invalid `pin-update`.
    ///
    /// # Errors
    /// Fails at the first parameter whose value is invalid.
    pub fn from_query(query: &Query, now: Time) -> Result<Self, QueryError> {
        let both = query.get("replication").is_some();
        // The name in v0.0.12, which ignores values that are not numbers.
        let old = query.number("replication_factor", 0_i32).unwrap_or(0);
        let factor = |name| query.number(if both { "replication" } else { name }, old);
        let metadata = query.iter().filter_map(|(name, _)| {
            let key = name.strip_prefix(META_PREFIX).filter(|key| !key.is_empty())?;
            // The first of several values, as for other parameters; it may be empty.
            let first = query.iter().find(|(n, _)| *n == name)?.1;
            Some((key.to_owned(), first.to_owned()))
        });
        Ok(Self {
            replication_factor_min: factor("replication-min")?,
            replication_factor_max: factor("replication-max")?,
            name: query.get("name").unwrap_or_default().to_owned(),
            mode: PinMode::from_name(query.get("mode").unwrap_or_default()),
            shard_size: query.number("shard-size", 0)?,
            user_allocations: list(query.get("user-allocations")),
            expire_at: expire_at(query, now)?,
            metadata: metadata.collect(),
            pin_update: query.get("pin-update").map(str::to_owned),
            origins: origins(query)?,
        })
    }
}

fn list(text: Option<&str>) -> Vec<String> {
    text.map(|text| text.split(',').map(str::to_owned).collect())
        .unwrap_or_default()
}

fn expire_at(query: &Query, now: Time) -> Result<Time, QueryError> {
    if let Some(at) = query.get("expire-at") {
        return at.parse().map_err(QueryError::ExpireAt);
    }
    let Some(text) = query.get("expire-in") else {
        return Ok(Time::ZERO);
    };
    let duration: GoDuration = text.parse().map_err(QueryError::ExpireIn)?;
    if duration < GoDuration::from_secs(1) {
        return Err(QueryError::ExpireInTooShort);
    }
    Ok(now.plus_nanos(duration.as_nanos()))
}

fn origins(query: &Query) -> Result<Vec<String>, QueryError> {
    let origins = list(query.get("origins"));
    for origin in &origins {
        if !origin.starts_with('/') {
            return Err(QueryError::OriginNotMultiaddress(origin.clone()));
        }
        // Old peers write `/ipfs/` for `/p2p/`.
        let mut parts = origin.split('/').skip(1);
        let names_peer = parts.by_ref().any(|part| matches!(part, "p2p" | "ipfs"))
            && parts.next().is_some_and(|peer| !peer.is_empty());
        if !names_peer {
            return Err(QueryError::OriginWithoutPeer(origin.clone()));
        }
    }
    Ok(origins)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    fn from(text: &str) -> Result<PinOptions, String> {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        PinOptions::from_query(&Query::parse(text), now).map_err(|e| e.to_string())
    }

    #[test]
    fn replication_overrides_min_and_max() {
        let options = from("replication=3&replication-min=1&replication-max=2").unwrap();
        assert_eq!(
            (options.replication_factor_min, options.replication_factor_max),
            (3, 3)
        );
    }

    #[test]
    fn expiry_is_a_time_or_a_duration_of_at_least_a_second() {
        let at = from("expire-at=2027-01-01T00:00:00Z&expire-in=5m")
            .unwrap()
            .expire_at;
        assert_eq!(at.to_string(), "2027-01-01T00:00:00Z");
        assert_eq!(
            from("expire-in=1h").unwrap().expire_at.to_string(),
            "2026-01-01T01:00:00Z"
        );
        assert_eq!(
            from("expire-in=999ms").unwrap_err(),
            "expire-in duration too short"
        );
        assert!(
            from("expire-in=soon")
                .unwrap_err()
                .starts_with("expire-in cannot be parsed")
        );
        assert!(
            from("expire-at=soon")
                .unwrap_err()
                .starts_with("expire-at cannot be parsed")
        );
    }

    #[test]
    fn metadata_without_a_key_is_ignored() {
        let options = from("meta-=x&meta-a=1&meta-a=2&meta-b=").unwrap();
        let expected = BTreeMap::from([("a".into(), "1".into()), ("b".into(), String::new())]);
        assert_eq!(options.metadata, expected);
    }

    #[test]
    fn origins_must_name_a_peer() {
        let good = "origins=/ip4/1.2.3.4/tcp/4001/p2p/QmPeer,/dns4/a.b/tcp/1/ipfs/QmPeer";
        assert_eq!(from(good).unwrap().origins.len(), 2);
        assert!(
            from("origins=/ip4/1.2.3.4/tcp/4001")
                .unwrap_err()
                .contains("peer ID")
        );
        assert!(from("origins=/ip4/1.2.3.4/p2p/").unwrap_err().contains("peer ID"));
        assert!(
            from("origins=hello")
                .unwrap_err()
                .contains("decoding multiaddress")
        );
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        assert!(
            from("replication-min=x")
                .unwrap_err()
                .starts_with("parameter replication-min invalid")
        );
        assert!(from("replication=99999999999").is_err());
        assert!(from("shard-size=-1").is_err());
    }

    prop_compose! {
        pub(crate) fn any_options()(
            replication_factor_min in any::<i32>(),
            replication_factor_max in any::<i32>(),
            name in ".{0,12}",
            direct in any::<bool>(),
            shard_size in any::<u64>(),
            user_allocations in proptest::collection::vec("[a-zA-Z0-9]{1,9}", 0..3),
            expire in 0_i64..4_000_000_000,
            metadata in proptest::collection::btree_map(".{1,6}", ".{0,6}", 0..3),
            pin_update in proptest::option::of("[a-z0-9]{1,9}"),
            origins in proptest::collection::vec("/dns4/[a-z]{1,5}/tcp/1/p2p/[a-z0-9]{1,9}", 0..3),
        ) -> PinOptions {
            let mode = if direct { PinMode::Direct } else { PinMode::Recursive };
            let expire_at = if expire == 0 { Time::ZERO } else { Time::from_unix(expire) };
            PinOptions {
                replication_factor_min, replication_factor_max, name, mode, shard_size,
                user_allocations, expire_at, metadata, pin_update, origins,
            }
        }
    }

    proptest! {
        #[test]
        fn every_option_survives_the_query(options in any_options()) {
            let text = options.to_query().encode();
            let back = PinOptions::from_query(&Query::parse(&text), Time::ZERO).unwrap();
            prop_assert_eq!(back, options);
        }

        #[test]
        fn no_query_panics(text in "(replication|expire-in|expire-at|origins|shard-size|meta-)=\\PC{0,30}") {
            let _ = from(&text);
        }
    }
}
