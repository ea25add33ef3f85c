//! Deserialisation of JSON with environment variables applied on top.
//!
//! The name of a key's variable is `CLUSTER`, the component and the keys on the path, in upper case, joined
//! by underscores, with their own underscores removed: `cluster.connection_manager.high_water` is
//! `CLUSTER_CONNECTIONMANAGER_HIGHWATER` and `consensus.raft.init_peerset` `CLUSTER_RAFT_INITPEERSET`. A
//! variable that is set but empty counts as unset, and so do `null` and `""` in JSON.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, Visitor,
};
use serde::forward_to_deserialize_any;
use serde_json::Value;

/// Environment variables by name.
pub type Environment = BTreeMap<String, String>;

/// A value with notes about its sources.
pub(super) struct Layered<T> {
    pub(super) value: T,
    /// Paths of unknown keys.
    pub(super) unknown: Vec<String>,
    /// Names of the variables that were read.
    pub(super) variables: BTreeSet<String>,
}

/// Location of an invalid value, and the problem.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// The key at this path.
    Key(String, String),
    /// The environment variable of this name.
    Variable(String, String),
}

/// Deserialises `T`, whose sections are at the root of `json`.
pub(super) fn read<T: DeserializeOwned>(
    json: &Value,
    environment: &Environment,
) -> Result<Layered<T>, Wrong> {
    let notes = Notes {
        environment,
        unknown: RefCell::default(),
        variables: RefCell::default(),
    };
    let layer = Layer {
        json,
        notes: &notes,
        path: String::new(),
        variable: "CLUSTER".to_owned(),
    };
    let value = T::deserialize(layer).map_err(|error| match error.place {
        Some(Place::Key(path)) => Wrong::Key(path, error.problem),
        Some(Place::Variable(name)) => Wrong::Variable(name, error.problem),
        None => Wrong::Key("the whole file".to_owned(), error.problem),
    })?;
    Ok(Layered {
        value,
        unknown: notes.unknown.into_inner(),
        variables: notes.variables.into_inner(),
    })
}

struct Notes<'a> {
    environment: &'a Environment,
    unknown: RefCell<Vec<String>>,
    variables: RefCell<BTreeSet<String>>,
}

#[derive(Debug)]
enum Place {
    Key(String),
    Variable(String),
}

#[derive(Debug)]
struct Error {
    /// Set by the innermost known key.
    place: Option<Place>,
    problem: String,
}

impl Error {
    fn at(mut self, place: impl FnOnce() -> Place) -> Self {
        self.place.get_or_insert_with(place);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem)
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: fmt::Display>(problem: T) -> Self {
        Self {
            place: None,
            problem: problem.to_string(),
        }
    }
}

/// A JSON value, and the prefix of the variables below it.
#[derive(Clone)]
struct Layer<'a> {
    json: &'a Value,
    notes: &'a Notes<'a>,
    path: String,
    variable: String,
}

impl<'a> Layer<'a> {
    /// Path of a key and the name of its variable. The sections at the root add nothing to the name: their
    /// components do.
    fn below(&self, key: &str) -> (String, String) {
        if self.path.is_empty() {
            return (key.to_owned(), self.variable.clone());
        }
        let name = key.replace('_', "").to_uppercase();
        (
            format!("{}.{key}", self.path),
            format!("{}_{name}", self.variable),
        )
    }

    /// Returns the value of a key, if the JSON or the environment has one.
    fn get(&self, key: &str) -> Option<Source<'a>> {
        let (path, variable) = self.below(key);
        if !self.path.is_empty()
            && let Some(text) = self.notes.environment.get(&variable)
            && !text.trim().is_empty()
        {
            self.notes.variables.borrow_mut().insert(variable.clone());
            return Some(Source::Variable(variable, text));
        }
        let json = self.json.get(key).filter(|json| !json.is_null() && *json != "")?;
        Some(Source::Json(Layer {
            json,
            notes: self.notes,
            path,
            variable,
        }))
    }
}

enum Source<'a> {
    Json(Layer<'a>),
    Variable(String, &'a str),
}

/// The keys of one object that have a value.
struct Fields<'a> {
    layer: Layer<'a>,
    names: std::slice::Iter<'static, &'static str>,
    next: Option<Source<'a>>,
}

impl<'de> MapAccess<'de> for Fields<'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        for name in self.names.by_ref() {
            if let Some(source) = self.layer.get(name) {
                self.next = Some(source);
                return seed.deserialize((*name).into_deserializer()).map(Some);
            }
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let source = self
            .next
            .take()
            .ok_or_else(|| de::Error::custom("a value before its key"))?;
        match source {
            Source::Json(layer) => {
                let path = layer.path.clone();
                seed.deserialize(layer)
                    .map_err(|error| error.at(|| Place::Key(path)))
            }
            Source::Variable(name, text) => {
                let value = seed.deserialize(Text(text));
                value.map_err(|error| error.at(|| Place::Variable(name)))
            }
        }
    }
}

/// Methods of a deserializer for a value that is present.
macro_rules! present {
    () => {
        fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            visitor.visit_some(self)
        }

        fn deserialize_newtype_struct<V: Visitor<'de>>(
            self,
            _name: &'static str,
            visitor: V,
        ) -> Result<V::Value, Error> {
            visitor.visit_newtype_struct(self)
        }
    };
}

impl<'de> Deserializer<'de> for Layer<'de> {
    type Error = Error;

    present! {}

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.json.deserialize_any(visitor).map_err(de::Error::custom)
    }

    /// A single string is a list of one.
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let Value::String(only) = self.json else {
            return self.deserialize_any(visitor);
        };
        visitor.visit_seq(SeqDeserializer::<_, Error>::new(std::iter::once(only.as_str())))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let Value::Object(object) = self.json else {
            let problem = format!("invalid value: {}, expected an object {{…}}", self.json);
            return Err(de::Error::custom(problem));
        };
        let unknown = object.keys().filter(|key| !fields.contains(&key.as_str()));
        self.notes
            .unknown
            .borrow_mut()
            .extend(unknown.map(|key| self.below(key).0));
        visitor.visit_map(Fields {
            layer: self,
            names: fields.iter(),
            next: None,
        })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.json
            .deserialize_enum(name, variants, visitor)
            .map_err(de::Error::custom)
    }

    // JSON values describe their type.
    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf unit unit_struct tuple
        tuple_struct map identifier ignored_any
    }
}

/// Value of a variable, parsed as the requested type.
#[derive(Clone, Copy)]
struct Text<'a>(&'a str);

impl Text<'_> {
    fn parse<T: std::str::FromStr>(self, expected: &str) -> Result<T, Error> {
        let text = self.0.trim();
        let wrong = |_| de::Error::custom(format!("invalid value: {text:?}, expected {expected}"));
        text.parse().map_err(wrong)
    }
}

impl<'de, 'a> IntoDeserializer<'de, Error> for Text<'a> {
    type Deserializer = Text<'a>;

    fn into_deserializer(self) -> Text<'a> {
        self
    }
}

macro_rules! numbers {
    ($($method:ident $visit:ident $expected:literal)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            visitor.$visit(self.parse($expected)?)
        })*
    };
}

impl<'de> Deserializer<'de> for Text<'_> {
    type Error = Error;

    present! {}

    numbers! {
        deserialize_i8 visit_i8 "a whole number"
        deserialize_i16 visit_i16 "a whole number"
        deserialize_i32 visit_i32 "a whole number"
        deserialize_i64 visit_i64 "a whole number"
        deserialize_u8 visit_u8 "a whole number from 0"
        deserialize_u16 visit_u16 "a whole number from 0"
        deserialize_u32 visit_u32 "a whole number from 0"
        deserialize_u64 visit_u64 "a whole number from 0"
        deserialize_f32 visit_f32 "a number"
        deserialize_f64 visit_f64 "a number"
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_str(self.0)
    }

    /// Accepts what Go's `strconv.ParseBool` accepts.
    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0.trim() {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => visitor.visit_bool(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => visitor.visit_bool(false),
            other => {
                let problem = format!("invalid value: {other:?}, expected true or false");
                Err(de::Error::custom(problem))
            }
        }
    }

    /// `a,b,c`
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let elements = self.0.split(',').map(|element| Text(element.trim()));
        visitor.visit_seq(SeqDeserializer::<_, Error>::new(elements))
    }

    /// `key:value,key:value`
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let pair = |pair: &'_ str| -> Option<(String, String)> {
            let (key, value) = pair.split_once(':')?;
            Some((key.trim().to_owned(), value.trim().to_owned()))
        };
        let pairs: Option<Vec<(String, String)>> = self.0.split(',').map(pair).collect();
        let pairs = pairs.ok_or_else(|| {
            // The text may hold passwords.
            de::Error::custom("a pair without a colon: write key:value,key:value")
        })?;
        let pairs = pairs.iter().map(|(key, value)| (Text(key), Text(value)));
        visitor.visit_map(MapDeserializer::<_, Error>::new(pairs))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let name: de::value::StrDeserializer<'_, Error> = self.0.trim().into_deserializer();
        visitor.visit_enum(name)
    }

    forward_to_deserialize_any! {
        char str string bytes byte_buf unit unit_struct tuple tuple_struct struct identifier ignored_any
    }
}
