//! Dotted keys in nested JSON objects.

use super::keys::KeyError;
use serde_json::{Map, Value};

/// Looks up a dotted key.
///
/// # Errors
/// It does not exist; the texts are Kubo's.
pub(crate) fn find<'a>(document: &'a Map<String, Value>, key: &str) -> Result<&'a Value, KeyError> {
    let parts: Vec<&str> = key.split('.').collect();
    let (mut map, mut at) = (Some(document), None);
    for (depth, part) in parts.iter().enumerate() {
        let above = map.ok_or_else(|| KeyError::NoMap(parts[..depth].join(".")))?;
        let value = above
            .get(*part)
            .ok_or_else(|| KeyError::NotFound(parts[..=depth].join(".")))?;
        (map, at) = (value.as_object(), Some(value));
    }
    at.ok_or_else(|| KeyError::NotFound(key.to_owned()))
}

/// Sets the value at a path; objects that are missing or `null` on the way are made.
///
/// # Errors
/// Something on the way is not an object.
pub(crate) fn set(document: &mut Map<String, Value>, path: &[&str], value: Value) -> Result<(), KeyError> {
    let Some((last, way)) = path.split_last() else {
        return Ok(());
    };
    let mut map = document;
    for (depth, part) in way.iter().enumerate() {
        let below = map.entry(*part).or_insert(Value::Null);
        if below.is_null() {
            *below = Value::Object(Map::new());
        }
        map = below
            .as_object_mut()
            .ok_or_else(|| KeyError::NoMap(path[..=depth].join(".")))?;
    }
    map.insert((*last).to_owned(), value);
    Ok(())
}

/// Puts the values of `over` in the places of those of `under`; only objects are merged.
pub(crate) fn merge(under: &mut Map<String, Value>, over: Map<String, Value>) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(Value::Object(below)), Value::Object(above)) => merge(below, above),
            (_, value) => {
                under.insert(key, value);
            }
        }
    }
}

/// Calls `visit` with the path and the value of everything that is not an object.
pub(crate) fn visit<'a>(
    map: &'a Map<String, Value>,
    path: &mut Vec<&'a str>,
    visit_leaf: &mut impl FnMut(&[&'a str], &'a Value),
) {
    for (name, value) in map {
        path.push(name);
        if let Value::Object(below) = value {
            visit(below, path, visit_leaf);
        } else {
            visit_leaf(path, value);
        }
        path.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn dotted_keys_are_looked_up_in_nested_objects() {
        let settings = map(json!({"A": {"B": [1], "C": {"D": 2}}}));
        assert_eq!(find(&settings, "A.B"), Ok(&json!([1])));
        assert_eq!(find(&settings, "A.C.D"), Ok(&json!(2)));
        let missing = |key: &str| Err(KeyError::NotFound(key.to_owned()));
        assert_eq!(find(&settings, "B"), missing("B"));
        assert_eq!(find(&settings, "A.X.Y"), missing("A.X"));
        assert_eq!(find(&settings, ""), missing(""));
        assert_eq!(find(&settings, "a.B"), missing("a"));
        assert_eq!(find(&settings, "A.B.0"), Err(KeyError::NoMap("A.B".to_owned())));
    }

    #[test]
    fn values_are_set_below_missing_objects_and_merged() {
        let mut settings = map(json!({"A": null, "B": 1}));
        set(&mut settings, &["A", "C"], json!(2)).unwrap();
        assert_eq!(
            set(&mut settings, &["B", "C"], json!(2)),
            Err(KeyError::NoMap("B".to_owned()))
        );
        merge(&mut settings, map(json!({"A": {"D": 3}, "B": null})));
        assert_eq!(settings, map(json!({"A": {"C": 2, "D": 3}, "B": null})));
        let mut leaves = Vec::new();
        visit(&settings, &mut Vec::new(), &mut |path, _| {
            leaves.push(path.join("."))
        });
        assert_eq!(leaves, ["A.C", "A.D", "B"]);
    }
}
