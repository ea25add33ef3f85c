//! Keys of Kubo's configuration, with the types of their values.
//!
//! `keys.txt` has one key a line: its dotted path, where `*` stands for any name, its type, and for keys that
//! Kubo writes even when they are unset, the empty value. Keys of secrets are left out: nothing here uses
//! them.

use serde_json::{Map, Value};
use std::sync::LazyLock;

/// A wrong key or value; the texts of the first two are Kubo's.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeyError {
    #[error("{0} not found")]
    NotFound(String),
    #[error("{0} key is not a map")]
    NoMap(String),
    #[error("{key:?} must be {expected}")]
    WrongType {
        /// Path of the value.
        key: String,
        /// Types that it may have.
        expected: &'static str,
    },
}

/// Type of a value. Every key may be `null`, which unsets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Flag,
    Number,
    Text,
    Texts,
    Any,
}

impl Kind {
    fn parse(name: &str) -> Option<Kind> {
        match name {
            "flag" => Some(Kind::Flag),
            "number" => Some(Kind::Number),
            "text" => Some(Kind::Text),
            "texts" => Some(Kind::Texts),
            "any" => Some(Kind::Any),
            _ => None,
        }
    }

    fn admits(self, value: &Value) -> bool {
        match (self, value) {
            (_, Value::Null) | (Kind::Any, _) => true,
            (Kind::Flag, value) => value.is_boolean(),
            (Kind::Number, value) => value.is_i64() || value.is_u64(),
            (Kind::Text, value) => value.is_string(),
            (Kind::Texts, Value::Array(items)) => items.iter().all(Value::is_string),
            (Kind::Texts, _) => false,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Kind::Flag => "true or false",
            Kind::Number => "a whole number",
            Kind::Text => "a text",
            Kind::Texts => "a list of texts",
            Kind::Any => "any value",
        }
    }
}

struct Key {
    path: Vec<&'static str>,
    kind: Kind,
    /// Value that Kubo writes where the key is unset.
    empty: Option<Value>,
}

impl Key {
    fn parse(line: &'static str) -> Option<Key> {
        let mut fields = line.splitn(3, ' ');
        let path = fields.next()?.split('.').collect();
        let kind = Kind::parse(fields.next()?)?;
        let empty = fields.next().map(serde_json::from_str).transpose().ok()?;
        Some(Key { path, kind, empty })
    }

    /// Returns whether the first segments of this key are those of `path`, which is not longer.
    fn begins_with(&self, path: &[&str]) -> bool {
        let matches = |(own, given): (&&str, &&str)| *own == "*" || own == given;
        self.path.len() >= path.len() && self.path.iter().zip(path).all(matches)
    }

    fn is(&self, path: &[&str]) -> bool {
        self.path.len() == path.len() && self.begins_with(path)
    }
}

static KEYS: LazyLock<Vec<Key>> =
    LazyLock::new(|| include_str!("keys.txt").lines().filter_map(Key::parse).collect());

/// Result of looking up a path.
enum Found {
    Key(&'static Key),
    /// A part of the configuration that has keys below it.
    Section,
    /// Inside a value of any type.
    Inside,
}

fn find(path: &[&str]) -> Result<Found, KeyError> {
    for length in 1..=path.len() {
        let (start, above) = (&path[..length], &path[..length - 1]);
        if KEYS.iter().any(|key| key.begins_with(start)) {
            continue;
        }
        return match KEYS.iter().find(|key| key.is(above)) {
            Some(key) if key.kind == Kind::Any => Ok(Found::Inside),
            Some(_) => Err(KeyError::NoMap(above.join("."))),
            None => Err(KeyError::NotFound(start.join("."))),
        };
    }
    Ok(KEYS
        .iter()
        .find(|key| key.is(path))
        .map_or(Found::Section, Found::Key))
}

/// Checks that a path is one of Kubo's, and that the value below it has Kubo's types.
pub(crate) fn check(path: &[&str], value: &Value) -> Result<(), KeyError> {
    let wrong = |expected| KeyError::WrongType {
        key: path.join("."),
        expected,
    };
    match (find(path)?, value) {
        (Found::Inside, _) | (Found::Section, Value::Null) => Ok(()),
        (Found::Key(key), value) if key.kind.admits(value) => Ok(()),
        (Found::Key(key), _) => Err(wrong(key.kind.name())),
        (Found::Section, Value::Object(map)) => map.iter().try_for_each(|(name, value)| {
            let path: Vec<&str> = path.iter().copied().chain([name.as_str()]).collect();
            check(&path, value)
        }),
        (Found::Section, _) => Err(wrong("an object")),
    }
}

/// Returns whether a value has the meaning of none: `null`, an empty text, or the one that Kubo writes where
/// the key is unset.
pub(crate) fn is_unset(path: &[&str], value: &Value) -> bool {
    let empty = || match find(path) {
        Ok(Found::Key(key)) => key.empty.as_ref() == Some(value),
        _ => false,
    };
    value.is_null() || *value == "" || empty()
}

/// Returns the keys that Kubo writes when nothing is set.
pub(crate) fn empty() -> Map<String, Value> {
    let mut document = Map::new();
    for key in KEYS.iter() {
        if let Some(value) = &key.empty {
            // No key is a part of another one's path.
            let _ = super::document::set(&mut document, &key.path, value.clone());
        }
    }
    document
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn checked(path: &str, value: &Value) -> Result<(), String> {
        let path: Vec<&str> = path.split('.').collect();
        check(&path, value).map_err(|error| error.to_string())
    }

    #[test]
    fn every_line_of_the_list_is_a_key() {
        assert_eq!(KEYS.len(), include_str!("keys.txt").lines().count());
        let empty = empty();
        assert_eq!(empty["Datastore"]["StorageMax"], "");
        assert_eq!(empty["Discovery"], json!({"MDNS": {"Enabled": false}}));
        for key in KEYS.iter() {
            assert!(
                key.empty.as_ref().is_none_or(|value| key.kind.admits(value)),
                "{:?}",
                key.path
            );
        }
    }

    #[test]
    fn values_of_known_keys_have_their_type() {
        assert_eq!(checked("Gateway.RootRedirect", &json!("/x")), Ok(()));
        assert_eq!(checked("Gateway.RootRedirect", &json!(null)), Ok(()));
        assert_eq!(checked("Gateway.MaxConcurrentRequests", &json!(11)), Ok(()));
        assert_eq!(checked("API.HTTPHeaders.X-A", &json!(["a"])), Ok(()));
        assert_eq!(checked("API.HTTPHeaders", &json!({"X-A": ["a"]})), Ok(()));
        assert_eq!(checked("Datastore.Spec.mounts", &json!([])), Ok(()));
        assert_eq!(
            checked("Gateway.PublicGateways.a.Paths", &json!(["/ipfs"])),
            Ok(())
        );
        let wrong = |path: &str, value: &Value| checked(path, value).unwrap_err();
        assert_eq!(wrong("Fruit", &json!("banana")), "Fruit not found");
        assert_eq!(
            wrong("Gateway.Fruit.x", &json!("banana")),
            "Gateway.Fruit not found"
        );
        assert_eq!(
            wrong("Bootstrap.x", &json!("banana")),
            "Bootstrap key is not a map"
        );
        assert_eq!(
            wrong("API.HTTPHeaders.X.y", &json!("a")),
            "API.HTTPHeaders.X key is not a map"
        );
        assert_eq!(
            wrong("Discovery", &json!({"MDNS": {"Enabled": "x"}})),
            "\"Discovery.MDNS.Enabled\" must be true or false"
        );
        assert_eq!(wrong("Discovery", &json!({"X": 1})), "Discovery.X not found");
        assert_eq!(wrong("Discovery", &json!(1)), "\"Discovery\" must be an object");
        assert_eq!(
            wrong("Addresses.Swarm", &json!(["a", 1])),
            "\"Addresses.Swarm\" must be a list of texts"
        );
        assert_eq!(
            wrong("Swarm.ConnMgr.LowWater", &json!("many")),
            "\"Swarm.ConnMgr.LowWater\" must be a whole number"
        );
    }
}
