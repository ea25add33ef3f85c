//! Owners of pins, as a second implementation of the rules: it takes the metadata apart into a map of holders
//! and writes it anew, instead of editing keys.

use std::collections::{BTreeMap, BTreeSet};

use cluster_core::{Mode, Pin, PinOptions, Replicas};

/// Name and metadata of a pin as one holder gave them.
type Fields = (String, BTreeMap<String, String>);

/// Takes the metadata apart: the fields of each holder, of which the empty name stands for all without an
/// owner, and the holder whose fields are the pin's own.
fn parse(options: &PinOptions) -> (BTreeMap<String, Fields>, String) {
    let mut plain = BTreeMap::new();
    let mut marked = BTreeSet::new();
    let mut apart: BTreeMap<String, Fields> = BTreeMap::new();
    for (key, value) in &options.metadata {
        let Some(rest) = key.strip_prefix("owner/") else {
            plain.insert(key.clone(), value.clone());
            continue;
        };
        match rest.split_once('/') {
            None => drop(marked.insert(rest.to_owned())),
            Some((holder, field)) => {
                let fields = apart.entry(holder.to_owned()).or_default();
                match field.strip_prefix("meta/") {
                    None => fields.0.clone_from(value),
                    Some(key) => drop(fields.1.insert(key.to_owned(), value.clone())),
                }
            }
        }
    }
    if marked.is_empty() {
        marked.insert(String::new());
    }
    let own = marked.iter().find(|holder| !apart.contains_key(*holder));
    let own = own.expect("one holder's fields are the pin's").clone();
    apart.insert(own.clone(), (options.name.clone(), plain));
    (apart, own)
}

/// Writes the holders into options; the fields of `own` become the pin's.
fn write(mut holders: BTreeMap<String, Fields>, own: &str, options: &mut PinOptions) {
    let is_plain = holders.keys().all(String::is_empty);
    let (name, mut metadata) = holders.remove(own).expect("is a holder");
    if !is_plain {
        metadata.insert(format!("owner/{own}"), String::new());
    }
    for (holder, (name, given)) in holders {
        metadata.insert(format!("owner/{holder}"), String::new());
        metadata.insert(format!("owner/{holder}/name"), name);
        for (key, value) in given {
            metadata.insert(format!("owner/{holder}/meta/{key}"), value);
        }
    }
    (options.name, options.metadata) = (name, metadata);
}

/// Returns all holders of a pin.
pub(crate) fn holders(options: &PinOptions) -> BTreeSet<String> {
    parse(options).0.into_keys().collect()
}

/// Returns the fields that the last request gave a pin.
pub(crate) fn own_fields(options: &PinOptions) -> Fields {
    let (mut holders, own) = parse(options);
    holders.remove(&own).expect("is a holder")
}

/// Returns the pin's options as an owner sees them.
pub(crate) fn seen_by(options: &PinOptions, owner: &str) -> Option<PinOptions> {
    let (mut holders, own) = parse(options);
    let (name, metadata) = holders.remove(owner)?;
    let mut seen = PinOptions {
        name,
        metadata,
        ..options.clone()
    };
    if owner != own {
        seen.pin_update = None;
        seen.origins.clear();
        seen.user_allocations.clear();
    }
    Some(seen)
}

/// Returns the options of a pin after a request, and whether others hold it.
pub(crate) fn joined(
    existing: Option<&PinOptions>,
    wish: PinOptions,
    owner: Option<&str>,
) -> (PinOptions, bool) {
    let me = owner.unwrap_or_default();
    let mut holders = existing.map_or_else(BTreeMap::new, |options| parse(options).0);
    holders.remove(me);
    let is_shared = !holders.is_empty();
    holders.insert(me.to_owned(), (wish.name.clone(), wish.metadata.clone()));
    let mut options = wish;
    write(holders, me, &mut options);
    if let (Some(before), true, true) = (existing, is_shared, owner.is_some()) {
        options.replicas = stronger(before.replicas, options.replicas);
        let ends = before.expire_at.zip(options.expire_at);
        options.expire_at = ends.map(|(before, asked)| before.max(asked));
        if before.mode == Mode::Recursive {
            options.mode = Mode::Recursive;
        }
    }
    (options, is_shared)
}

fn stronger(a: Replicas, b: Replicas) -> Replicas {
    match (a, b) {
        (Replicas::Range { min, max }, Replicas::Range { min: low, max: high }) => Replicas::Range {
            min: min.max(low),
            max: max.max(high),
        },
        _ => Replicas::Everywhere,
    }
}

/// Returns whether a request is no worse off with `given` than with what it asked for.
pub(crate) fn is_kept(asked: &PinOptions, given: &PinOptions) -> bool {
    let ends_late = match (asked.expire_at, given.expire_at) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(asked), Some(given)) => asked <= given,
    };
    stronger(asked.replicas, given.replicas) == given.replicas
        && ends_late
        && (asked.mode == Mode::Direct || given.mode == Mode::Recursive)
}

/// Returns a pin without one of its owners: `None` if nobody else holds it.
///
/// # Errors
/// The owner does not hold it.
pub(crate) fn released(pin: &Pin, owner: &str) -> Result<Option<Pin>, ()> {
    let (mut holders, own) = parse(&pin.options);
    if owner.is_empty() || holders.remove(owner).is_none() {
        return Err(());
    }
    let Some(first) = holders.keys().next().cloned() else {
        return Ok(None);
    };
    let own = if own == owner { first } else { own };
    let mut left = pin.clone();
    write(holders, &own, &mut left.options);
    Ok(Some(left))
}
