//! Owners of pins: names of credentials that act for themselves only. A pin stays while an owner holds it.
//!
//! Owners are recorded in reserved keys of the pin's metadata, so that pins are stored, sent and exported as
//! ever, and the index of the metadata lists the pins of an owner:
//!
//! | key | value |
//! |---|---|
//! | `owner/NAME` | empty: NAME holds the pin; an empty NAME stands for all that act without an owner |
//! | `owner/NAME/name` | name of the pin as NAME gave it |
//! | `owner/NAME/meta/KEY` | metadata as NAME gave it |
//! | `owner/NAME/bytes` | size of the DAG, if NAME holds the pin by an upload |
//!
//! A pin without such keys is held without an owner. The fields of the last request are those of the pin
//! itself; only the other owners' are under their keys, without the origins and preferred peers, which are
//! hints. Replication, expiry and depth are common to all.

use std::collections::{BTreeMap, BTreeSet};

use crate::limits::TooLarge;
use crate::pin::{Mode, Pin, PinOptions, Replicas};
use crate::planted::planted;

/// Maximum number of owners of a pin. Their fields share the limit of the pin's metadata.
pub const OWNERS_MAX: usize = 32;

/// Start of all reserved keys.
const RESERVED: &str = "owner/";

/// Returns whether a key of the metadata is reserved for owners, so that clients may not set it.
pub fn is_reserved_key(key: &str) -> bool {
    key.starts_with(RESERVED)
}

/// Returns the key of the metadata, with an empty value, of the pins that an owner holds.
pub fn owner_key(owner: &str) -> String {
    format!("{RESERVED}{owner}")
}

/// Start of the keys with an owner's fields.
fn fields_key(owner: &str) -> String {
    format!("{RESERVED}{owner}/")
}

/// Key of the name that an owner gave. Present if and only if the owner's fields are not those of the pin.
fn name_key(owner: &str) -> String {
    format!("{RESERVED}{owner}/name")
}

/// Start of the keys of the metadata that an owner gave.
fn meta_key(owner: &str) -> String {
    format!("{RESERVED}{owner}/meta/")
}

/// Returns the key of the metadata with the size of the DAG that an owner has uploaded: bytes, as a decimal
/// number. The shell that takes the upload sets it; later requests of the owner keep it.
pub fn bytes_key(owner: &str) -> String {
    format!("{RESERVED}{owner}/bytes")
}

/// Returns the owners that a pin's metadata names; empty if it is held without an owner only.
pub fn owners_in(metadata: &BTreeMap<String, String>) -> impl Iterator<Item = &str> {
    let reserved = metadata.range(RESERVED.to_owned()..);
    let reserved = reserved.map_while(|(key, value)| Some((key.strip_prefix(RESERVED)?, value)));
    let marks = reserved.filter(|(name, value)| value.is_empty() && !name.contains('/'));
    marks.map(|(name, _)| name)
}

/// Returns all that hold a pin, an empty name for those without an owner.
fn holders(options: &PinOptions) -> BTreeSet<String> {
    let mut named: BTreeSet<String> = owners_in(&options.metadata).map(str::to_owned).collect();
    if named.is_empty() {
        named.insert(String::new());
    }
    named
}

/// Returns the metadata without the reserved keys.
pub fn without_owners(metadata: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let plain = metadata.iter().filter(|(key, _)| !is_reserved_key(key));
    plain.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// Returns the name and the metadata that a holder gave.
fn fields_of(options: &PinOptions, owner: &str) -> (String, BTreeMap<String, String>) {
    let Some(name) = options.metadata.get(&name_key(owner)) else {
        return (options.name.clone(), without_owners(&options.metadata));
    };
    let start = meta_key(owner);
    let given = options.metadata.range(start.clone()..);
    let given = given.map_while(|(key, value)| Some((key.strip_prefix(&start)?.to_owned(), value.clone())));
    (name.clone(), given.collect())
}

impl Pin {
    /// Iterates over the names of its owners; none if it is held without an owner only.
    pub fn owners(&self) -> impl Iterator<Item = &str> {
        owners_in(&self.options.metadata).filter(|name| !name.is_empty())
    }

    /// Returns whether an owner holds the pin.
    pub fn is_owned_by(&self, owner: &str) -> bool {
        self.owners().any(|name| name == owner)
    }

    /// Returns the pin as an owner sees it: with the name and metadata that this owner gave, and nothing of
    /// the others; `None` if it does not hold the pin.
    pub fn seen_by(&self, owner: &str) -> Option<Self> {
        if !self.is_owned_by(owner) {
            return None;
        }
        let (name, metadata) = fields_of(&self.options, owner);
        let is_last = !self.options.metadata.contains_key(&name_key(owner));
        let mut options = PinOptions {
            name,
            metadata,
            ..self.options.clone()
        };
        if !is_last {
            // These are the last owner's.
            options.pin_update = None;
            options.origins.clear();
            options.user_allocations.clear();
        }
        Some(Self {
            options,
            ..self.clone()
        })
    }
}

/// Options of a pin after a request.
pub(crate) struct Joined {
    pub(crate) options: PinOptions,
    /// Set if others hold the pin, too.
    pub(crate) is_shared: bool,
}

/// Adds the requester to the holders of a pin. While others hold it, their names and metadata are kept, and
/// an owner cannot reduce replication, expiry or depth.
///
/// # Errors
/// The pin has [`OWNERS_MAX`] owners.
pub(crate) fn join(
    existing: Option<&Pin>,
    mut options: PinOptions,
    owner: Option<&str>,
) -> Result<Joined, TooLarge> {
    if let Some(owner) = owner {
        options.metadata.insert(owner_key(owner), String::new());
    }
    let requesting = holders(&options);
    for key in requesting.iter().map(|holder| bytes_key(holder)) {
        let uploaded = existing.and_then(|pin| pin.options.metadata.get(&key));
        if let Some(bytes) = uploaded.filter(|_| !options.metadata.contains_key(&key)) {
            options.metadata.insert(key, bytes.clone());
        }
    }
    let before = existing.map_or_else(BTreeSet::new, |pin| holders(&pin.options));
    let others: BTreeSet<&String> = before.difference(&requesting).collect();
    TooLarge::unless("the pin", "owners", requesting.len() + others.len(), OWNERS_MAX)?;
    let shared = existing.filter(|_| !others.is_empty() && !planted!(OwnerForgotten));
    let Some(pin) = shared else {
        let is_shared = false;
        return Ok(Joined { options, is_shared });
    };
    for holder in requesting.iter().chain(others.iter().copied()) {
        options.metadata.insert(owner_key(holder), String::new());
    }
    for other in others {
        let (name, metadata) = fields_of(&pin.options, other);
        options.metadata.insert(name_key(other), name);
        let uploaded = pin.options.metadata.get_key_value(&bytes_key(other));
        options
            .metadata
            .extend(uploaded.map(|(key, bytes)| (key.clone(), bytes.clone())));
        let start = meta_key(other);
        let given = metadata.into_iter();
        let kept = given.map(|(key, value)| (format!("{start}{key}"), value));
        options.metadata.extend(kept);
    }
    if owner.is_some() {
        keep_promises(&pin.options, &mut options);
    }
    let is_shared = true;
    Ok(Joined { options, is_shared })
}

/// Raises what `before` promises to others.
fn keep_promises(before: &PinOptions, options: &mut PinOptions) {
    options.replicas = match (before.replicas, options.replicas) {
        (Replicas::Everywhere, _) | (_, Replicas::Everywhere) => Replicas::Everywhere,
        (Replicas::Range { min, max }, Replicas::Range { min: a, max: b }) => Replicas::Range {
            min: min.max(a),
            max: max.max(b),
        },
    };
    options.expire_at = match (before.expire_at, options.expire_at) {
        (Some(before), Some(asked)) => Some(before.max(asked)),
        (None, _) | (_, None) => None,
    };
    if before.mode == Mode::Recursive {
        options.mode = Mode::Recursive;
    }
}

/// Effect of an owner letting go of a pin.
pub(crate) enum Release {
    /// None: it does not hold the pin.
    NotHeld,
    /// The pin goes.
    Last,
    /// The pin stays, with these options, for its other holders.
    Kept(PinOptions),
}

/// Removes an owner from the holders of a pin.
pub(crate) fn release(pin: &Pin, owner: &str) -> Release {
    let mut left = holders(&pin.options);
    if !pin.is_owned_by(owner) {
        return Release::NotHeld;
    }
    left.remove(owner);
    if left.is_empty() || planted!(UnpinIgnoresOwners) {
        return Release::Last;
    }
    let mut options = pin.options.clone();
    let (mark, fields) = (owner_key(owner), fields_key(owner));
    options
        .metadata
        .retain(|key, _| *key != mark && !key.starts_with(&fields));
    let is_apart = |holder: &String| pin.options.metadata.contains_key(&name_key(holder));
    if let Some(first) = left.first().filter(|_| left.iter().all(is_apart)) {
        // The pin's own fields were the owner's.
        let (name, metadata) = fields_of(&options, first);
        let (fields, bytes) = (fields_key(first), bytes_key(first));
        options
            .metadata
            .retain(|key, _| *key == bytes || is_reserved_key(key) && !key.starts_with(&fields));
        options.name = name;
        options.metadata.extend(metadata);
    }
    if left.iter().all(String::is_empty) {
        options.metadata.remove(&owner_key(""));
    }
    Release::Kept(options)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pin::PinType;
    use crate::testing::{cid, options};
    use crate::time::Timestamp;

    fn wish(name: &str) -> PinOptions {
        PinOptions {
            name: name.to_owned(),
            metadata: BTreeMap::from([("of".to_owned(), name.to_owned())]),
            ..options(Replicas::Range { min: 1, max: 2 })
        }
    }

    fn pin(options: PinOptions) -> Pin {
        Pin {
            cid: cid(1),
            pin_type: PinType::Data,
            allocations: Vec::new(),
            reference: None,
            options,
            timestamp: Timestamp(1),
            version: 1,
        }
    }

    fn joined(existing: Option<&Pin>, options: PinOptions, owner: Option<&str>) -> Pin {
        pin(join(existing, options, owner).unwrap().options)
    }

    fn kept(pin_before: &Pin, owner: &str) -> Pin {
        match release(pin_before, owner) {
            Release::Kept(options) => pin(options),
            Release::NotHeld | Release::Last => panic!("{pin_before:?} is not shared by {owner}"),
        }
    }

    fn owners(pin: &Pin) -> Vec<&str> {
        pin.owners().collect()
    }

    #[test]
    fn each_owner_sees_its_own_fields_only() {
        let shared = joined(None, wish("a"), Some("ann"));
        assert_eq!(shared.seen_by("ann").unwrap().options, wish("a"));
        let shared = joined(Some(&shared), wish("b"), Some("bob"));
        let shared = joined(Some(&shared), wish("c"), Some("cy"));
        assert_eq!(owners(&shared), ["ann", "bob", "cy"]);
        for (owner, name) in [("ann", "a"), ("bob", "b"), ("cy", "c")] {
            assert_eq!(shared.seen_by(owner).unwrap().options, wish(name));
        }
        assert_eq!(shared.seen_by("dan"), None);
        assert_eq!(shared.seen_by(""), None);
        let hinted = PinOptions {
            origins: vec!["/ip4/10.0.0.1/tcp/4001".to_owned()],
            pin_update: Some(cid(2)),
            ..wish("new")
        };
        let changed = joined(Some(&shared), hinted.clone(), Some("ann"));
        assert_eq!(changed.seen_by("ann").unwrap().options, hinted);
        assert_eq!(changed.seen_by("bob").unwrap().options, wish("b"));
        let changed = joined(Some(&shared), wish("new"), Some("ann"));
        for (owner, name) in [("ann", "new"), ("bob", "b"), ("cy", "c")] {
            assert_eq!(changed.seen_by(owner).unwrap().options, wish(name));
        }
    }

    #[test]
    fn pin_stays_as_the_others_gave_it_until_the_last_owner_lets_go() {
        let first = joined(None, wish("a"), Some("ann"));
        let shared = joined(Some(&first), wish("b"), Some("bob"));
        assert_eq!(kept(&shared, "bob"), first);
        let of_bob = joined(None, wish("b"), Some("bob"));
        assert_eq!(kept(&shared, "ann"), of_bob);
        assert!(matches!(release(&first, "ann"), Release::Last));
        assert!(matches!(release(&shared, "cy"), Release::NotHeld));
        assert!(matches!(release(&pin(wish("a")), "ann"), Release::NotHeld));
    }

    #[test]
    fn pin_without_an_owner_outlives_the_owners_that_join_it() {
        let plain = pin(wish("a"));
        let shared = joined(Some(&plain), wish("b"), Some("bob"));
        assert_eq!(owners(&shared), ["bob"]);
        assert_eq!(kept(&shared, "bob"), plain);
        let owned = joined(None, wish("b"), Some("bob"));
        let shared = joined(Some(&owned), wish("a"), None);
        assert_eq!(shared.options.name, "a");
        assert_eq!(shared.seen_by("bob").unwrap().options, wish("b"));
        assert_eq!(kept(&shared, "bob"), plain);
        assert_eq!(joined(Some(&plain), wish("z"), None).options, wish("z"));
    }

    #[test]
    fn owners_never_reduce_what_others_hold() {
        let strong = PinOptions {
            replicas: Replicas::Range { min: 2, max: 3 },
            expire_at: None,
            ..wish("a")
        };
        let weak = PinOptions {
            replicas: Replicas::Range { min: 1, max: 5 },
            expire_at: Some(Timestamp(9)),
            mode: Mode::Direct,
            ..wish("b")
        };
        let owned = joined(None, strong.clone(), Some("ann"));
        let shared = joined(Some(&owned), weak.clone(), Some("bob")).options;
        assert_eq!(shared.replicas, Replicas::Range { min: 2, max: 5 });
        assert_eq!((shared.expire_at, shared.mode), (None, Mode::Recursive));
        let alone = joined(Some(&owned), weak.clone(), Some("ann")).options;
        assert_eq!(alone.replicas, weak.replicas, "its own pin it may change");
        assert_eq!(alone.expire_at, weak.expire_at);
        let imposed = joined(Some(&owned), weak.clone(), None).options;
        assert_eq!(imposed.replicas, weak.replicas, "without an owner all is allowed");
        let everywhere = options(Replicas::Everywhere);
        let shared = joined(Some(&owned), everywhere, Some("bob")).options;
        assert_eq!(shared.replicas, Replicas::Everywhere);
    }

    #[test]
    fn uploaded_bytes_stay_with_their_owner() {
        let uploaded = |owner: &str, bytes: &str| {
            let mut options = wish(owner);
            options.metadata.insert(bytes_key(owner), bytes.to_owned());
            options
        };
        let bytes = |pin: &Pin, owner: &str| pin.options.metadata.get(&bytes_key(owner)).cloned();
        let pin = joined(None, uploaded("ann", "7"), Some("ann"));
        let pin = joined(Some(&pin), wish("again"), Some("ann"));
        let pin = joined(Some(&pin), uploaded("bob", "8"), Some("bob"));
        let pin = joined(Some(&pin), wish("x"), None);
        assert_eq!(bytes(&pin, "ann").as_deref(), Some("7"));
        assert_eq!(bytes(&pin, "bob").as_deref(), Some("8"));
        assert_eq!(pin.seen_by("ann").unwrap().options, wish("again"));
        let pin = kept(&joined(Some(&pin), wish("b"), Some("bob")), "bob");
        assert_eq!(
            (bytes(&pin, "bob"), bytes(&pin, "ann").as_deref()),
            (None, Some("7"))
        );
    }

    #[test]
    fn number_of_owners_is_bounded() {
        let mut pin = joined(None, wish("0"), Some("0"));
        for number in 1..OWNERS_MAX {
            pin = joined(Some(&pin), wish(""), Some(&number.to_string()));
        }
        assert_eq!(pin.owners().count(), OWNERS_MAX);
        let refused = join(Some(&pin), wish(""), Some("more")).err().unwrap();
        assert_eq!(
            refused.to_string(),
            "the pin has 33 owners, at most 32 are allowed"
        );
        assert!(join(Some(&pin), wish(""), Some("7")).is_ok());
    }

    #[test]
    fn keys_of_other_releases_name_no_owner() {
        let mut options = wish("a");
        options.metadata.insert("owner/me".to_owned(), "you".to_owned());
        options.metadata.insert("owner".to_owned(), String::new());
        let pin = pin(options);
        assert_eq!(owners(&pin), [""; 0]);
        assert!(is_reserved_key("owner/me") && !is_reserved_key("owner"));
    }
}
