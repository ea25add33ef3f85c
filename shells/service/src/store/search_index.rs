//! Keys of the search index: one generation's pins by creation time, by name and by metadata. Batches keep
//! it up to date (`write.rs`), searches read it (`search.rs`), and a folder whose index is missing or
//! outdated gets a new one at opening (`reindex.rs`).
//!
//! | key in `search.N` | value |
//! |---|---|
//! | `t`, position | name |
//! | `n`, folded name, 0xff, position | name; empty if it equals the folded one |
//! | `m`, hash of a metadata pair, position | empty |
//!
//! A position is the creation time in eight bytes, big-endian, then the CID: under each prefix the pins are
//! in the order of their creation.

use std::fmt;
use std::str::FromStr;

use cluster_core::{Cid, NAME_MAX, Pin, Timestamp};
use serde::{Deserialize, Serialize};

use super::record::Head;

/// Version of this encoding. A release that changes it raises it, and rebuilds the index of older folders.
const VERSION: u32 = 1;

const BY_TIME: u8 = b't';
const BY_NAME: u8 = b'n';
const BY_META: u8 = b'm';

/// Maximum length of the part of a folded name in a key, in bytes: keys must stay below fjall's 64 KiB.
const FOLDED_MAX: usize = 512;

/// End of a folded name; not a byte of UTF-8.
const NAME_END: u8 = 0xff;

/// Bytes of a creation time.
const TIME: usize = 8;

/// Bytes of the hash of a metadata pair.
const HASH: usize = 16;

/// First byte of a value: the name is complete, or only its start.
const WHOLE: u8 = 0;
const CUT: u8 = 1;

/// Record of the search index in use. Each batch rewrites it: an index that another release did not update
/// has an outdated number of batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SearchMarker {
    version: u32,
    /// Tables of upper and lower case that folded the names.
    unicode: (u8, u8, u8),
    /// Number of its keyspace.
    pub(super) number: u64,
    /// Generation of the pinset that it describes.
    generation: u64,
    /// Number of the last batch that it includes.
    seq: u64,
}

impl SearchMarker {
    /// Describes the index `number` as of `head`.
    pub(super) fn new(number: u64, head: &Head) -> Self {
        Self {
            version: VERSION,
            unicode: char::UNICODE_VERSION,
            number,
            generation: head.generation,
            seq: head.seq,
        }
    }

    /// Returns whether the index is complete as of `head`, and encoded as by this release.
    pub(super) fn is_current(&self, head: &Head) -> bool {
        *self == Self::new(self.number, head)
    }
}

/// Place of a pin in the order of creation, and with that of CIDs. A later search continues after it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Creation time of the pin.
    pub created: Timestamp,
    /// Its CID.
    pub cid: Cid,
}

impl Position {
    /// Returns the position of a pin.
    pub fn of(pin: &Pin) -> Self {
        Self {
            created: pin.timestamp,
            cid: pin.cid.clone(),
        }
    }

    /// Parses the end of a key.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (created, cid) = bytes.split_first_chunk::<TIME>()?;
        Some(Self {
            created: Timestamp(u64::from_be_bytes(*created)),
            cid: Cid::from_bytes(cid).ok()?,
        })
    }

    /// Appends the position to a prefix.
    pub(super) fn key(&self, prefix: &[u8]) -> Vec<u8> {
        [prefix, &self.created.0.to_be_bytes(), self.cid.as_bytes()].concat()
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{}", self.created.0, self.cid)
    }
}

/// A text that is no [`Position`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not from an earlier answer")]
pub struct ParsePositionError(String);

impl FromStr for Position {
    type Err = ParsePositionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (created, cid) = text.split_once('-')?;
            Some(Self {
                created: Timestamp(u64::from_str_radix(created, 16).ok()?),
                cid: cid.parse().ok()?,
            })
        };
        parse().ok_or_else(|| ParsePositionError(text.to_owned()))
    }
}

/// Maps a name to lower case, one character at a time, so that each part of a name is folded as within it.
/// Both small sigmas are one, as in upper case.
pub(super) fn fold(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    let lower = text.chars().flat_map(char::to_lowercase);
    lower.map(|c| if c == 'ς' { 'σ' } else { c }).collect()
}

/// Prefix of all pins.
pub(super) fn by_time() -> Vec<u8> {
    vec![BY_TIME]
}

/// Start of the keys of all pins whose folded name starts with `start`, as far as keys have it.
pub(super) fn by_name_start(start: &str) -> Vec<u8> {
    let cut = &start.as_bytes()[..start.len().min(FOLDED_MAX)];
    [&[BY_NAME], cut].concat()
}

/// Prefix of the pins with this folded name, and of others as long if it does not fit into a key.
pub(super) fn by_name(folded: &str) -> Vec<u8> {
    let mut key = by_name_start(folded);
    key.push(NAME_END);
    key
}

/// Bytes of [`by_meta`].
pub(super) const META_LIST: usize = 1 + HASH;

/// Returns [`by_meta`] of a key with that prefix.
pub(super) fn meta_list(key: &[u8]) -> Option<[u8; META_LIST]> {
    let list = key.first_chunk().filter(|list| list.first() == Some(&BY_META));
    list.copied()
}

/// Prefix of the pins with this pair in their metadata.
pub(super) fn by_meta(key: &str, value: &str) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(key.len() as u64).to_be_bytes());
    hasher.update(key.as_bytes());
    hasher.update(value.as_bytes());
    [&[BY_META], &hasher.finalize().as_bytes()[..HASH]].concat()
}

/// Returns the position in a key of [`by_name_start`].
pub(super) fn position_by_name(key: &[u8]) -> Option<Position> {
    let end = key.iter().position(|byte| *byte == NAME_END)?;
    Position::parse(key.get(end + 1..)?)
}

/// Name of a pin in its entries.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum IndexedName<'a> {
    Whole(&'a str),
    /// It is too long: the pin has it.
    Cut,
}

impl<'a> IndexedName<'a> {
    /// Parses the value of an entry by time.
    pub(super) fn parse(value: &'a [u8]) -> Option<Self> {
        match value.split_first()? {
            (&WHOLE, name) => std::str::from_utf8(name).ok().map(Self::Whole),
            (&CUT, _) => Some(Self::Cut),
            _ => None,
        }
    }

    /// Parses the key and value of an entry by name.
    pub(super) fn parse_by_name(key: &'a [u8], value: &'a [u8]) -> Option<Self> {
        if !value.is_empty() {
            return Self::parse(value);
        }
        let end = key.iter().position(|byte| *byte == NAME_END)?;
        std::str::from_utf8(key.get(1..end)?).ok().map(Self::Whole)
    }
}

fn name_value(name: &str) -> Vec<u8> {
    // Longer names are from the first release, which had no limit.
    let (kind, kept) = match name.len() <= NAME_MAX {
        true => (WHOLE, name.as_bytes()),
        false => (CUT, &[][..]),
    };
    [&[kind], kept].concat()
}

/// Returns the entries of a pin in the order of their keys, each key once.
pub(super) fn entries(pin: &Pin) -> Vec<(Vec<u8>, Vec<u8>)> {
    let position = Position::of(pin);
    let name = &pin.options.name;
    let mut entries = Vec::with_capacity(pin.options.metadata.len() + 2);
    let meta = pin.options.metadata.iter();
    entries.extend(meta.map(|(key, value)| (position.key(&by_meta(key, value)), Vec::new())));
    if !name.is_empty() {
        let folded = fold(name);
        let value = match folded == *name && folded.len() <= FOLDED_MAX {
            true => Vec::new(),
            false => name_value(name),
        };
        entries.push((position.key(&by_name(&folded)), value));
    }
    entries.push((position.key(&by_time()), name_value(name)));
    entries.sort_unstable();
    entries.dedup_by(|a, b| a.0 == b.0);
    entries
}
