//! DAG-JSON: JSON in which `{"/": …}` is a link or bytes.

use cid::Cid;
use ipld_core::ipld::Ipld;
use multibase::Base;
use serde_json::Value;

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

/// Writes data, without spaces, the keys of maps sorted.
pub(crate) fn encode(data: &Ipld) -> String {
    to_json(data).to_string()
}

fn to_json(data: &Ipld) -> Value {
    match data {
        Ipld::Null => Value::Null,
        Ipld::Bool(value) => Value::Bool(*value),
        Ipld::Integer(number) => match (i64::try_from(*number), u64::try_from(*number)) {
            (Ok(number), _) => number.into(),
            (_, Ok(number)) => number.into(),
            // Beyond what CBOR can hold, so never read from a block.
            (Err(_), Err(_)) => Value::String(number.to_string()),
        },
        Ipld::Float(number) => (*number).into(),
        Ipld::String(text) => Value::String(text.clone()),
        Ipld::Bytes(bytes) => serde_json::json!({"/": {"bytes": Base::Base64.encode(bytes)}}),
        Ipld::List(list) => Value::Array(list.iter().map(to_json).collect()),
        Ipld::Map(map) => Value::Object(
            map.iter()
                .map(|(key, value)| (key.clone(), to_json(value)))
                .collect(),
        ),
        Ipld::Link(cid) => serde_json::json!({"/": cid.to_string()}),
    }
}
