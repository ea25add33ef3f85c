//! Conversion between a pin in an export, as Go peers of all versions write it, and a stored pin.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt;

use cluster_api as api;
use cluster_core::{Cid, Mode, PeerId, Pin, PinOptions, PinType, Replicas, Timestamp};
use cluster_ipfs::Multiaddr;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::cluster::convert;

/// Options of an import: changes to every pin, where zero and empty mean no change, and the treatment of
/// invalid pins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImportOptions {
    /// Minimum number of copies; -1 for one on every peer.
    pub replication_min: i32,
    /// Maximum number of copies; -1 for one on every peer.
    pub replication_max: i32,
    /// Peers to allocate every pin to.
    pub allocations: Vec<PeerId>,
    /// Leave out invalid pins and log them, instead of refusing the import.
    pub skip_bad: bool,
}

/// A pin as any version writes it. `null` counts as absent, as in Go.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Line {
    cid: Option<Linked>,
    replication_factor_min: Option<i32>,
    replication_factor_max: Option<i32>,
    /// The only factor of Go ipfs-cluster 0.0.12.
    replication_factor: Option<i32>,
    /// From versions before that.
    everywhere: Option<bool>,
    name: Option<String>,
    mode: Option<String>,
    shard_size: Option<u64>,
    user_allocations: Option<Vec<String>>,
    expire_at: Option<api::Time>,
    metadata: Option<BTreeMap<String, String>>,
    pin_update: Option<Linked>,
    origins: Option<Vec<String>>,
    #[serde(rename = "type")]
    pin_type: Option<Type>,
    allocations: Option<Vec<String>>,
    max_depth: Option<i32>,
    reference: Option<Linked>,
    timestamp: Option<api::Time>,
}

impl Line {
    /// Converts to a pin. `key` is the CID where the pin is a value of a map. The error describes the
    /// problem.
    pub(super) fn pin(
        mut self,
        key: Option<&str>,
        over: &ImportOptions,
        default: Replicas,
        known: &mut Known,
    ) -> Result<Pin, String> {
        let own = parse("cid", self.cid.take())?;
        let cid = match (own, key) {
            (Some(cid), _) => cid,
            (None, Some(key)) => key.parse().map_err(|error| format!("cid: {error}"))?,
            (None, None) => return Err("there is no \"cid\"".to_owned()),
        };
        let replicas = self.replicas(over, default)?;
        let mut allocations = match over.allocations.as_slice() {
            [] => {
                let texts = self.allocations.unwrap_or_default();
                texts
                    .iter()
                    .map(|text| known.peer(text))
                    .collect::<Result<_, _>>()?
            }
            given => given.to_vec(),
        };
        if replicas == Replicas::Everywhere {
            allocations.clear();
        }
        allocations.sort();
        allocations.dedup();
        let origins = self.origins.unwrap_or_default();
        if let Some(bad) = origins.iter().find(|origin| origin.parse::<Multiaddr>().is_err()) {
            return Err(format!("origins: {bad:?} is no multiaddress"));
        }
        let direct = match self.mode.as_deref() {
            Some(mode) => mode == "direct",
            None => self.max_depth == Some(0),
        };
        let expire_at = self.expire_at.filter(|at| !at.is_zero());
        let pin = Pin {
            cid,
            pin_type: self.pin_type.map_or(PinType::Data, |Type(found)| found),
            allocations,
            reference: parse("reference", self.reference)?,
            options: PinOptions {
                replicas,
                name: self.name.unwrap_or_default(),
                mode: if direct { Mode::Direct } else { Mode::Recursive },
                shard_size: self.shard_size.unwrap_or_default(),
                // Invalid peer ids are skipped, as in Go.
                user_allocations: self
                    .user_allocations
                    .unwrap_or_default()
                    .iter()
                    .filter_map(|peer| peer.parse().ok())
                    .collect(),
                expire_at: expire_at.map(convert::timestamp),
                metadata: self.metadata.unwrap_or_default(),
                pin_update: parse("pin_update", self.pin_update)?,
                origins,
            },
            timestamp: self.timestamp.map_or(Timestamp(0), convert::timestamp),
            version: super::import::BASE,
        };
        pin.check().map_err(|refusal| refusal.to_string())?;
        Ok(pin)
    }

    fn replicas(&self, over: &ImportOptions, default: Replicas) -> Result<Replicas, String> {
        let (default_min, default_max) = convert::factors(default);
        let legacy = match self.everywhere {
            Some(true) => Some(-1),
            Some(false) | None => self.replication_factor,
        };
        let pick = |over: i32, own: Option<i32>, default: i32| {
            let given = [Some(over), own, legacy].into_iter().flatten();
            given.into_iter().find(|factor| *factor != 0).unwrap_or(default)
        };
        let min = pick(over.replication_min, self.replication_factor_min, default_min);
        let max = pick(over.replication_max, self.replication_factor_max, default_max);
        match (min, max) {
            (-1, -1) => Ok(Replicas::Everywhere),
            (1.., 1..) if min <= max => Ok(Replicas::Range {
                min: min.unsigned_abs(),
                max: max.unsigned_abs(),
            }),
            _ => Err(format!(
                "bad replication factors: min {min}, max {max}: both must be -1 (everywhere), or the minimum \
                 at least 1 and not above the maximum"
            )),
        }
    }
}

/// Parses the CID in `field`, if there is one: Go writes an undefined one as `null` or as an empty text.
fn parse(field: &str, link: Option<Linked>) -> Result<Option<Cid>, String> {
    let text = link.map(|Linked(text)| text).filter(|text| !text.is_empty());
    let parsed = text.map(|text| text.parse()).transpose();
    parsed.map_err(|error| format!("{field}: {error}"))
}

/// Text of a CID, in any field: since 1.0 a text; in 0.10 to 0.14 `{"/": text}`; a text before.
#[derive(Debug)]
struct Linked(String);

impl<'de> Deserialize<'de> for Linked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Linked;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a CID")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Linked, E> {
                Ok(Linked(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Linked, A::Error> {
                let only = map.next_entry::<Cow<'de, str>, String>()?;
                let Some((_, text)) = only.filter(|(key, _)| key == "/") else {
                    return Err(de::Error::custom("a link to a CID is written {\"/\": CID}"));
                };
                if map.next_key::<Cow<'de, str>>()?.is_some() {
                    return Err(de::Error::custom("a link to a CID has only the key \"/\""));
                }
                Ok(Linked(text))
            }
        }

        deserializer.deserialize_any(Either)
    }
}

/// Type of a pin: a name; before 0.11 its bit.
#[derive(Debug)]
struct Type(PinType);

impl<'de> Deserialize<'de> for Type {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl Visitor<'_> for Either {
            type Value = Type;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a type of a pin")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Type, E> {
                let found = convert::core_pin_type(api::PinType::from_name(name)).map(Type);
                found.ok_or_else(|| E::custom(format!("type: {name:?} is no type of a pin")))
            }

            fn visit_u64<E: de::Error>(self, bit: u64) -> Result<Type, E> {
                Ok(Type(match bit {
                    2 => PinType::Data,
                    4 => PinType::Meta,
                    8 => PinType::ClusterDag,
                    16 => PinType::Shard,
                    _ => return Err(E::custom(format!("type: {bit} is no type of a pin"))),
                }))
            }
        }

        deserializer.deserialize_any(Either)
    }
}

/// Cache of parsed peer ids: a state has the same few in every pin, and decoding base58 is slow.
#[derive(Debug, Default)]
pub(super) struct Known(HashMap<String, PeerId>);

/// Peer ids cached. More than a cluster has.
const KNOWN_MAX: usize = 4096;

impl Known {
    fn peer(&mut self, text: &str) -> Result<PeerId, String> {
        if let Some(peer) = self.0.get(text) {
            return Ok(peer.clone());
        }
        let peer: PeerId = text
            .parse()
            .map_err(|error| format!("allocations: {error}: this is no export of a cluster"))?;
        if self.0.len() < KNOWN_MAX {
            self.0.insert(text.to_owned(), peer.clone());
        }
        Ok(peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CID: &str = "bafkqabtimvwgy3yk";
    const PEER: &str = "12D3KooWGRYZDHBembyGJQqQ6WgLqJWYNjnECJwGBnCg8vbCeo8F";
    const DEFAULT: Replicas = Replicas::Range { min: 2, max: 3 };

    fn parse(text: &str, over: &ImportOptions) -> Result<Pin, String> {
        let line: Line = serde_json::from_str(text).map_err(|error| error.to_string())?;
        line.pin(None, over, DEFAULT, &mut Known::default())
    }

    fn plain(text: &str) -> Result<Pin, String> {
        parse(text, &ImportOptions::default())
    }

    #[test]
    fn all_fields_of_a_pin_survive_an_export_and_an_import() {
        let text = format!(
            r#"{{"cid":"{CID}","replication_factor_min":1,"replication_factor_max":2,"name":"a <b>",
            "mode":"direct","shard_size":7,"user_allocations":["{PEER}"],"expire_at":"2090-01-02T03:04:05.6Z",
            "metadata":{{"k":"v"}},"pin_update":"bafkqac3imvwgy3zao5xxe3de",
            "origins":["/ip4/10.0.0.1/tcp/4001/p2p/{PEER}"],"type":"meta-pin","allocations":["{PEER}"],
            "max_depth":0,"reference":"{CID}","timestamp":"2026-05-11T10:00:00+02:00"}}"#
        );
        let pin = plain(&text).unwrap();
        assert_eq!(pin.options.replicas, Replicas::Range { min: 1, max: 2 });
        assert_eq!((pin.options.mode, pin.pin_type), (Mode::Direct, PinType::Meta));
        assert_eq!(pin.options.user_allocations, pin.allocations);
        let written = cluster_http::json::to_vec(&convert::whole_pin(&pin)).unwrap();
        assert_eq!(plain(&String::from_utf8(written).unwrap()).unwrap(), pin);
    }

    #[test]
    fn pins_of_older_versions_are_read() {
        let legacy = plain(&format!(
            r#"{{"cid":"{CID}","allocations":[],"everywhere":true,"replication_factor":0}}"#
        ));
        assert_eq!(legacy.unwrap().options.replicas, Replicas::Everywhere);
        let two = plain(&format!(
            r#"{{"cid":"{CID}","allocations":["{PEER}"],"replication_factor":2}}"#
        ));
        assert_eq!(two.unwrap().options.replicas, Replicas::Range { min: 2, max: 2 });
        let linked = plain(&format!(r#"{{"cid":{{"/":"{CID}"}},"type":2,"max_depth":0}}"#)).unwrap();
        assert_eq!(
            (linked.cid.to_string().as_str(), linked.options.mode),
            (CID, Mode::Direct)
        );
        assert_eq!(linked.options.replicas, DEFAULT);
    }

    /// One pin as each version's `state export` (0.0.12: its backup) writes it, after `api/types.go` at the
    /// tags v0.4.0, v0.8.0, v0.10.1, v0.11.0, v0.12.1, v0.14.5 and v1.0.0.
    #[test]
    fn links_of_all_versions_are_read() {
        let other = "bafkqac3imvwgy3zao5xxe3de";
        let old = r#""name":"n","replication_factor_min":1,"replication_factor_max":2"#;
        for line in [
            format!(r#"{{"cid":"{CID}",{old},"allocations":[],"recursive":false}}"#),
            format!(
                r#"{{{old},"shard_size":0,"cid":"{CID}","type":8,"allocations":["{PEER}"],"max_depth":-1,
                    "reference":"{other}"}}"#
            ),
            format!(
                r#"{{{old},"shard_size":0,"user_allocations":null,"metadata":null,"cid":{{"/":"{CID}"}},
                    "type":8,"allocations":["{PEER}"],"max_depth":-1,"reference":{{"/":"{other}"}}}}"#
            ),
            format!(
                r#"{{{old},"shard_size":0,"user_allocations":["{PEER}"],"metadata":null,
                    "pin_update":{{"/":"{other}"}},"cid":{{"/":"{CID}"}},"type":8,"allocations":["{PEER}"],
                    "max_depth":-1,"reference":{{"/":"{other}"}}}}"#
            ),
            format!(
                r#"{{{old},"shard_size":0,"user_allocations":[],"expire_at":"0001-01-01T00:00:00Z",
                    "metadata":{{}},"pin_update":null,"cid":{{"/":"{CID}"}},"type":8,"allocations":["{PEER}"],
                    "max_depth":-1,"reference":{{"/":"{other}"}}}}"#
            ),
            format!(
                r#"{{{old},"mode":"recursive","shard_size":0,"user_allocations":null,
                    "expire_at":"2090-01-01T00:00:00.5+02:00","metadata":{{"k":"v"}},
                    "pin_update":{{"/":"{other}"}},"origins":null,"cid":{{"/":"{CID}"}},"type":8,
                    "allocations":["{PEER}"],"max_depth":-1,"reference":{{"/":"{other}"}},
                    "timestamp":"2022-02-02T02:02:02Z"}}"#
            ),
            format!(
                r#"{{{old},"mode":"recursive","shard_size":0,"user_allocations":null,
                    "expire_at":"0001-01-01T00:00:00Z","metadata":null,"pin_update":"{other}","origins":[],
                    "cid":"{CID}","type":"clusterdag-pin","allocations":["{PEER}"],"max_depth":-1,
                    "reference":"{other}","timestamp":"2022-02-02T02:02:02Z"}}"#
            ),
        ] {
            let pin = plain(&line).unwrap_or_else(|error| panic!("{line}: {error}"));
            assert_eq!(
                (pin.cid.to_string().as_str(), pin.options.name.as_str()),
                (CID, "n"),
                "{line}"
            );
            assert_eq!(pin.options.replicas, Replicas::Range { min: 1, max: 2 }, "{line}");
            assert_eq!(pin.options.mode, Mode::Recursive, "{line}");
            let link = |found: &Option<Cid>| found.as_ref().map(ToString::to_string);
            let written = |field: &str| {
                line.contains(&format!("\"{field}\":\"{other}"))
                    || line.contains(&format!("\"{field}\":{{\"/\":\"{other}"))
            };
            assert_eq!(
                link(&pin.reference),
                written("reference").then(|| other.to_owned()),
                "{line}"
            );
            let update = link(&pin.options.pin_update);
            assert_eq!(update, written("pin_update").then(|| other.to_owned()), "{line}");
        }
    }

    #[test]
    fn an_import_may_change_copies_and_allocations_of_every_pin() {
        let text = format!(r#"{{"cid":"{CID}","replication_factor_min":-1,"replication_factor_max":-1}}"#);
        let mut over = ImportOptions {
            replication_min: 1,
            ..ImportOptions::default()
        };
        let error = parse(&text, &over).unwrap_err();
        assert!(
            error.starts_with("bad replication factors: min 1, max -1"),
            "{error}"
        );
        over.replication_max = 2;
        over.allocations = vec![PEER.parse().unwrap()];
        let pin = parse(&text, &over).unwrap();
        assert_eq!(pin.options.replicas, Replicas::Range { min: 1, max: 2 });
        assert_eq!(pin.allocations, over.allocations);
    }

    #[test]
    fn an_invalid_pin_is_refused_with_the_problem() {
        for (text, expected) in [
            ("{}", "there is no \"cid\""),
            (r#"{"cid":"nonsense"}"#, "cid: \"nonsense\" is not a CID"),
            (
                r#"{"cid":"bafkqabtimvwgy3yk","type":"x"}"#,
                "type: \"x\" is no type",
            ),
            (
                r#"{"cid":"bafkqabtimvwgy3yk","allocations":["x"]}"#,
                "allocations: \"x\" is not a peer id",
            ),
            (
                r#"{"cid":"bafkqabtimvwgy3yk","origins":["x"]}"#,
                "origins: \"x\" is no multiaddress",
            ),
            (
                r#"{"cid":"bafkqabtimvwgy3yk","pin_update":"x"}"#,
                "pin_update: \"x\" is not a CID",
            ),
            (
                r#"{"cid":"bafkqabtimvwgy3yk","reference":{"/":"x"}}"#,
                "reference: \"x\" is not a CID",
            ),
            (
                r#"{"cid":{"/":"bafkqabtimvwgy3yk","x":1}}"#,
                "a link to a CID has only the key \"/\"",
            ),
            (
                r#"{"cid":{"x":"bafkqabtimvwgy3yk"}}"#,
                "a link to a CID is written",
            ),
            (r#"{"cid":"bafkqabtimvwgy3yk","expire_at":"x"}"#, "parsing time"),
        ] {
            let error = plain(text).unwrap_err();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
    }
}
