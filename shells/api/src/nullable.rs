//! Go's nil slices and maps: written as `null`, and `null` is read as empty.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;

/// Deserialises `null` as the default.
pub(crate) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Collections that are `null` when empty.
pub(crate) trait Emptiness {
    /// Returns whether the collection is empty.
    fn is_nothing(&self) -> bool;
}

impl<T> Emptiness for Vec<T> {
    fn is_nothing(&self) -> bool {
        self.is_empty()
    }
}

impl<K, V> Emptiness for BTreeMap<K, V> {
    fn is_nothing(&self) -> bool {
        self.is_empty()
    }
}

impl Emptiness for String {
    fn is_nothing(&self) -> bool {
        self.is_empty()
    }
}

/// Serialises an empty list, map or text as `null`.
pub(crate) fn null_if_empty<S, T>(value: &T, serializer: S) -> Result<S::Ok, S::Error>
where
    S: Serializer,
    T: Emptiness + Serialize,
{
    if value.is_nothing() {
        serializer.serialize_none()
    } else {
        value.serialize(serializer)
    }
}

/// Go's `omitempty` on a number, for `skip_serializing_if`.
pub(crate) fn is_zero(value: &u64) -> bool {
    *value == 0
}
