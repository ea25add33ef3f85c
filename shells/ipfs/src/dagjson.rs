//! DAG-JSON: JSON in which `{"/": …}` is a link or bytes.

use cid::Cid;
use ipld_core::ipld::Ipld;
use multibase::Base;
use serde_json::{Number, Value};

/// Reads a block. The nesting is bounded by the JSON parser.
pub(crate) fn decode(data: &[u8]) -> Result<Ipld, String> {
    let value = serde_json::from_slice(data).map_err(|error| format!("dag-json: {error}"))?;
    from_json(value)
}

fn from_json(value: Value) -> Result<Ipld, String> {
    Ok(match value {
        Value::Null => Ipld::Null,
        Value::Bool(value) => Ipld::Bool(value),
        Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(number), _, _) => Ipld::Integer(number.into()),
            (_, Some(number), _) => Ipld::Integer(number.into()),
            (_, _, Some(number)) => Ipld::Float(number),
            (None, None, None) => return Err(format!("dag-json: number {number} is out of range")),
        },
        Value::String(text) => Ipld::String(text),
        Value::Array(values) => Ipld::List(values.into_iter().map(from_json).collect::<Result<_, _>>()?),
        Value::Object(map) => {
            if map.len() == 1
                && let Some(reserved) = map.get("/")
            {
                return special(reserved);
            }
            let entries = map.into_iter().map(|(key, value)| Ok((key, from_json(value)?)));
            Ipld::Map(entries.collect::<Result<_, String>>()?)
        }
    })
}

fn special(value: &Value) -> Result<Ipld, String> {
    match value {
        Value::String(cid) => {
            let cid =
                Cid::try_from(cid.as_str()).map_err(|error| format!("dag-json: link {cid:?}: {error}"))?;
            Ok(Ipld::Link(cid))
        }
        Value::Object(map) => match map.get("bytes") {
            Some(Value::String(text)) if map.len() == 1 => {
                let bytes = Base::Base64.decode(text.trim_end_matches('='));
                Ok(Ipld::Bytes(
                    bytes.map_err(|error| format!("dag-json: bytes: {error}"))?,
                ))
            }
            _ => Err("dag-json: \"/\" holds neither a link nor bytes".into()),
        },
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => {
            Err("dag-json: \"/\" holds neither a link nor bytes".into())
        }
    }
}

/// Writes data, without spaces, the keys of maps sorted. What JSON has no words for is refused: it would come
/// back as something else.
pub(crate) fn encode(data: &Ipld) -> Result<String, String> {
    to_json(data).map(|value| value.to_string())
}

fn to_json(data: &Ipld) -> Result<Value, String> {
    Ok(match data {
        Ipld::Null => Value::Null,
        Ipld::Bool(value) => Value::Bool(*value),
        Ipld::Integer(number) => match (i64::try_from(*number), u64::try_from(*number)) {
            (Ok(number), _) => number.into(),
            (_, Ok(number)) => number.into(),
            // CBOR goes down to -2^64.
            (Err(_), Err(_)) => return Err(format!("dag-json: number {number} is out of range")),
        },
        Ipld::Float(number) => match Number::from_f64(*number) {
            Some(number) => Value::Number(number),
            None => return Err(format!("dag-json: {number} is no number")),
        },
        Ipld::String(text) => Value::String(text.clone()),
        Ipld::Bytes(bytes) => serde_json::json!({"/": {"bytes": Base::Base64.encode(bytes)}}),
        Ipld::List(list) => Value::Array(list.iter().map(to_json).collect::<Result<_, _>>()?),
        Ipld::Map(map) if map.len() == 1 && map.contains_key("/") => {
            return Err("dag-json: a map with nothing but \"/\" would be a link or bytes".into());
        }
        Ipld::Map(map) => {
            let entries = map.iter().map(|(key, value)| Ok((key.clone(), to_json(value)?)));
            Value::Object(entries.collect::<Result<_, String>>()?)
        }
        Ipld::Link(cid) => serde_json::json!({"/": cid.to_string()}),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::{hash_map, vec};
    use proptest::prelude::*;

    /// Any JSON, much of it with the key that is reserved.
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
        fn what_is_read_is_written_in_one_form(json in json()) {
            if let Ok(data) = decode(json.to_string().as_bytes()) {
                let written = encode(&data).unwrap();
                prop_assert_eq!(decode(written.as_bytes()), Ok(data), "{}", written);
            }
        }
    }

    #[test]
    fn what_would_come_back_as_something_else_is_refused() {
        let lowest = -(1_i128 << 64);
        let link = Ipld::String(Cid::default().to_string());
        for (data, said) in [
            (Ipld::Integer(lowest), lowest.to_string()),
            (Ipld::Float(f64::NAN), "NaN".to_owned()),
            (Ipld::Float(f64::NEG_INFINITY), "-inf".to_owned()),
            (Ipld::Map([("/".to_owned(), link)].into()), "\"/\"".to_owned()),
        ] {
            let refused = encode(&Ipld::List(vec![data])).unwrap_err();
            assert!(refused.contains(&said), "{refused}");
        }
    }

    #[test]
    fn a_float_is_read_as_it_was_written() {
        for text in ["-1.8880399754022678e-205", "3.0192061764492083e+305", "0.1"] {
            let read = decode(text.as_bytes());
            assert_eq!(read, Ok(Ipld::Float(text.parse().unwrap())), "{text}");
        }
    }
}
