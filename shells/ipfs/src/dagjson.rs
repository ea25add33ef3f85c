//! DAG-JSON: JSON in which `{"/": …}` is a link or bytes
//! ([specification](https://ipld.io/specs/codecs/dag-json/spec/)).

use crate::codec::Data;
use multibase::Base;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Number, Value};
use std::collections::BTreeMap;

/// Decodes a block. The JSON parser limits the nesting.
pub(crate) fn decode(data: &[u8]) -> Result<Data, String> {
    let Node(node) = serde_json::from_slice(data).map_err(|error| format!("dag-json: {error}"))?;
    match find_oversized_integer(data) {
        None => Ok(node),
        Some(number) => Err(format!("dag-json: number {number} is out of range")),
    }
}

/// Returns an integer in this JSON that no integer type holds; the parser would take it for a float.
fn find_oversized_integer(json: &[u8]) -> Option<&str> {
    let mut rest = json;
    while let Some((&first, after)) = rest.split_first() {
        rest = match first {
            b'"' => skip_string(after),
            b'-' | b'0'..=b'9' => {
                let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
                let end = rest.iter().position(|byte| !is_part(byte)).unwrap_or(rest.len());
                let (number, after) = rest.split_at(end);
                let number = std::str::from_utf8(number).unwrap_or_default();
                let is_whole = !number.contains(['.', 'e', 'E']);
                if is_whole && number.parse::<i64>().is_err() && number.parse::<u64>().is_err() {
                    return Some(number);
                }
                after
            }
            _ => after,
        };
    }
    None
}

/// Skips a string whose first quote is left out; returns the rest.
fn skip_string(mut rest: &[u8]) -> &[u8] {
    loop {
        rest = match rest {
            [b'"', after @ ..] => return after,
            [b'\\', _, after @ ..] | [_, after @ ..] => after,
            [] => return rest,
        };
    }
}

struct Node(Data);

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        json.deserialize_any(DataVisitor).map(Node)
    }
}

struct DataVisitor;

impl<'de> Visitor<'de> for DataVisitor {
    type Value = Data;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("data")
    }

    fn visit_unit<E>(self) -> Result<Data, E> {
        Ok(Data::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Data, E> {
        Ok(Data::Bool(value))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Data, E> {
        Ok(Data::Integer(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Data, E> {
        Ok(Data::Integer(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Data, E> {
        Ok(Data::Float(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Data, E> {
        Ok(Data::String(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Data, A::Error> {
        let mut list = Vec::new();
        while let Some(Node(element)) = elements.next_element()? {
            list.push(element);
        }
        Ok(Data::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Data, A::Error> {
        let mut map = BTreeMap::new();
        while let Some((key, Node(value))) = entries.next_entry::<String, Node>()? {
            if map.contains_key(&key) {
                return Err(A::Error::custom(format!("duplicate key {key:?}")));
            }
            map.insert(key, value);
        }
        match map.get("/") {
            Some(reserved) if map.len() == 1 => decode_reserved(reserved).map_err(A::Error::custom),
            Some(_) | None => Ok(Data::Map(map)),
        }
    }
}

/// Decodes the value of a map with just the reserved key: a link or bytes.
fn decode_reserved(value: &Data) -> Result<Data, String> {
    if let Data::String(cid) = value {
        let parsed = crate::hash::parse_cid(cid).map_err(|why| format!("link {cid:?}: {why}"))?;
        return Ok(Data::from(parsed));
    }
    if let Data::Map(map) = value
        && let Some(Data::String(text)) = map.get("bytes")
        && map.len() == 1
    {
        let bytes = Base::Base64.decode(text.trim_end_matches('='));
        return bytes.map(Data::Bytes).map_err(|error| format!("bytes: {error}"));
    }
    Err("\"/\" holds neither a link nor bytes".into())
}

/// Encodes data without spaces, with sorted keys. Data that JSON cannot represent is refused: it would be
/// decoded as something else.
pub(crate) fn encode(data: &Data) -> Result<String, String> {
    to_json(data).map(|value| value.to_string())
}

/// Encodes data for readers: indented, with sorted keys.
pub(crate) fn encode_pretty(data: &Data) -> Result<String, String> {
    to_json(data).map(|value| format!("{value:#}"))
}

fn to_json(data: &Data) -> Result<Value, String> {
    Ok(match data {
        Data::Null => Value::Null,
        Data::Bool(value) => Value::Bool(*value),
        Data::Integer(number) => match (i64::try_from(*number), u64::try_from(*number)) {
            (Ok(number), _) => number.into(),
            (_, Ok(number)) => number.into(),
            // CBOR goes down to -2^64.
            (Err(_), Err(_)) => return Err(format!("dag-json: number {number} is out of range")),
        },
        Data::Float(number) => match Number::from_f64(*number) {
            Some(number) => Value::Number(number),
            None => return Err(format!("dag-json: {number} cannot be represented")),
        },
        Data::String(text) => Value::String(text.clone()),
        Data::Bytes(bytes) => serde_json::json!({"/": {"bytes": Base::Base64.encode(bytes)}}),
        Data::List(list) => Value::Array(list.iter().map(to_json).collect::<Result<_, _>>()?),
        Data::Map(map) if map.len() == 1 && map.contains_key("/") => {
            return Err("dag-json: a map with nothing but \"/\" would be a link or bytes".into());
        }
        Data::Map(map) => {
            let entries = map.iter().map(|(key, value)| Ok((key.clone(), to_json(value)?)));
            Value::Object(entries.collect::<Result<_, String>>()?)
        }
        Data::Link(cid) => serde_json::json!({"/": cid.to_string()}),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cid;
    use proptest::collection::{hash_map, vec};
    use proptest::prelude::*;

    /// Generates JSON, often with the reserved key.
    fn json() -> impl Strategy<Value = Value> {
        let cids = prop_oneof![
            crate::codec::any::cid().prop_map(|cid| cid.to_string()),
            "[a-zA-Z0-9+/=]{0,12}",
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            cids.prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 3, |inner| {
            let keys = prop::sample::select(vec!["/", "bytes", "a"]).prop_map(str::to_owned);
            prop_oneof![
                vec(inner.clone(), 0..3).prop_map(Value::from),
                hash_map(keys, inner, 0..3).prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn decoded_data_round_trips(json in json()) {
            if let Ok(data) = decode(json.to_string().as_bytes()) {
                let written = encode(&data).unwrap();
                prop_assert_eq!(decode(written.as_bytes()), Ok(data), "{}", written);
            }
        }
    }

    #[test]
    fn ambiguous_data_is_not_encoded() {
        let lowest = -(1_i128 << 64);
        let link = Data::String(Cid::default().to_string());
        for (data, said) in [
            (Data::Integer(lowest), lowest.to_string()),
            (Data::Float(f64::NAN), "NaN".to_owned()),
            (Data::Float(f64::NEG_INFINITY), "-inf".to_owned()),
            (Data::Map([("/".to_owned(), link)].into()), "\"/\"".to_owned()),
        ] {
            let refused = encode(&Data::List(vec![data])).unwrap_err();
            assert!(refused.contains(&said), "{refused}");
        }
    }

    #[test]
    fn ambiguous_json_is_not_decoded() {
        let cid = "bafkqablimvwgy3y";
        for (json, said) in [
            ("{\"a\":1,\"b\":2,\"a\":1}".to_owned(), "\"a\""),
            ("[1,18446744073709551616]".to_owned(), "18446744073709551616"),
            (
                "{\"a\\\"\":-9223372036854775809}".to_owned(),
                "-9223372036854775809",
            ),
            (format!("{{\"/\":\"/ipfs/{cid}\"}}"), "/ipfs/"),
            ("{\"/\":\"bafkqablimvwgy3ya\"}".to_owned(), "trailing"),
            ("{\"/\":7}".to_owned(), "neither"),
        ] {
            let refused = decode(json.as_bytes()).unwrap_err();
            assert!(refused.contains(said), "{json}: {refused}");
        }
        let text = "[\"18446744073709551616\",1.8446744073709552e19,18446744073709551615]";
        assert!(decode(text.as_bytes()).is_ok());
    }

    #[test]
    fn floats_are_decoded_exactly() {
        for text in ["-1.8880399754022678e-205", "3.0192061764492083e+305", "0.1"] {
            let read = decode(text.as_bytes());
            assert_eq!(read, Ok(Data::Float(text.parse().unwrap())), "{text}");
        }
    }
}
