//! Index of blocks: entries in the database, and fresh ones that are not in it yet.

use super::segments::Place;
use crate::Error;
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

/// Size from which blocks are stored in segments, in bytes. In the example `exchange`, blocks of 1 KiB are
/// written and read one and a half times as fast there as in the database, at half the processor time, and
/// blocks of 4 KiB more than twice as fast. For smaller ones the overhead of an entry dominates.
pub(super) const SEGMENT_FROM: usize = 512;

/// Database entry of a block: the bytes, or their place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry {
    Inline(Bytes),
    At(Place),
}

/// First byte of an entry; a new layout needs a new value.
const INLINE: u8 = 0;
const AT: u8 = 1;

impl Entry {
    /// Returns the size of the block, in bytes.
    pub(super) fn size(&self) -> u64 {
        match self {
            Entry::Inline(data) => data.len() as u64,
            Entry::At(place) => u64::from(place.length),
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        match self {
            Entry::Inline(data) => [&[INLINE], &data[..]].concat(),
            Entry::At(place) => {
                let mut out = Vec::with_capacity(17);
                out.push(AT);
                for number in [place.segment, place.offset, place.length, place.crc] {
                    out.extend_from_slice(&number.to_be_bytes());
                }
                out
            }
        }
    }

    pub(super) fn decode(value: Bytes) -> Result<Entry, Error> {
        match (
            value.first(),
            value.get(1..).and_then(|rest| rest.as_chunks().0.first_chunk()),
        ) {
            (Some(&INLINE), _) => Ok(Entry::Inline(value.slice(1..))),
            (Some(&AT), Some(numbers)) if value.len() == 17 => {
                let [segment, offset, length, crc] = numbers.map(u32::from_be_bytes);
                Ok(Entry::At(Place {
                    segment,
                    offset,
                    length,
                    crc,
                }))
            }
            _ => Err(Error::Damaged(
                "the record of a block is not readable by this version".into(),
            )),
        }
    }
}

/// Blocks that are written but not in the database, because their bytes may not be durable. Readers look here
/// first, then in the database; the writing thread writes to the database first, then removes here.
#[derive(Debug, Default)]
pub(super) struct Fresh {
    entries: RwLock<HashMap<Vec<u8>, Entry>>,
}

impl Fresh {
    pub(super) fn with<T>(&self, look: impl FnOnce(&HashMap<Vec<u8>, Entry>) -> T) -> T {
        look(&self.entries.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn change<T>(&self, change: impl FnOnce(&mut HashMap<Vec<u8>, Entry>) -> T) -> T {
        change(&mut self.entries.write().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<Entry> {
        self.with(|entries| entries.get(key).cloned())
    }

    /// Returns all keys, sorted.
    pub(super) fn keys(&self) -> Vec<Vec<u8>> {
        let mut keys: Vec<Vec<u8>> = self.with(|entries| entries.keys().cloned().collect());
        keys.sort_unstable();
        keys
    }
}

/// Merges two sorted listings without duplicates.
pub(super) fn merge<I>(fresh: Vec<Vec<u8>>, stored: I) -> impl Iterator<Item = Result<Vec<u8>, Error>>
where
    I: Iterator<Item = Result<Vec<u8>, Error>>,
{
    let mut fresh = fresh.into_iter().peekable();
    let mut stored = stored.peekable();
    std::iter::from_fn(move || {
        let Some(key) = fresh.peek() else {
            return stored.next();
        };
        match stored.peek() {
            Some(Ok(other)) if other < key => stored.next(),
            Some(Ok(other)) if other == key => {
                fresh.next();
                stored.next()
            }
            Some(Err(_)) => stored.next(),
            Some(Ok(_)) | None => fresh.next().map(Ok),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn entries() -> impl Strategy<Value = Entry> {
        let inline = vec(any::<u8>(), 0..40).prop_map(|data| Entry::Inline(data.into()));
        let at = any::<(u32, u32, u32, u32)>().prop_map(|(segment, offset, length, crc)| {
            Entry::At(Place {
                segment,
                offset,
                length,
                crc,
            })
        });
        prop_oneof![inline, at]
    }

    proptest! {
        #[test]
        fn entries_round_trip(entry in entries()) {
            prop_assert_eq!(Entry::decode(entry.encode().into()).unwrap(), entry);
        }

        #[test]
        fn unknown_layouts_and_lengths_are_refused(entry in entries(), layout in 2_u8.., more: bool) {
            let mut bytes = entry.encode();
            if matches!(entry, Entry::At(_)) {
                if more { bytes.push(0) } else { bytes.truncate(bytes.len() - 1) }
                prop_assert!(Entry::decode(bytes.clone().into()).is_err());
            }
            bytes[0] = layout;
            let refused = Entry::decode(bytes.into()).unwrap_err().to_string();
            prop_assert!(refused.contains("not readable by this version"), "{}", refused);
        }

        #[test]
        fn arbitrary_bytes_are_parsed_or_refused(bytes in vec(any::<u8>(), 0..40)) {
            let _ = Entry::decode(bytes.into());
        }

        #[test]
        fn merge_is_sorted_without_duplicates(
            fresh in proptest::collection::btree_set(0_u8..20, 0..10),
            stored in proptest::collection::btree_set(0_u8..20, 0..10),
        ) {
            let keys = |set: &std::collections::BTreeSet<u8>| set.iter().map(|key| vec![*key]).collect();
            let fresh_keys: Vec<Vec<u8>> = keys(&fresh);
            let stored_keys: Vec<Vec<u8>> = keys(&stored);
            let merged = merge(fresh_keys, stored_keys.into_iter().map(Ok));
            let merged: Vec<Vec<u8>> = merged.collect::<Result<_, _>>().unwrap();
            let expected: Vec<Vec<u8>> = keys(&(&fresh | &stored));
            prop_assert_eq!(merged, expected);
        }
    }
}
