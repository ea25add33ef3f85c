//! Keys of the search index: one generation's pins by creation time, by name and by metadata. Batches keep
//! it up to date (`write.rs`), searches read it (`search.rs`), and a folder whose index is missing or
//! outdated gets a new one at opening (`reindex.rs`).
//!
//! | key | keyspace | value |
//! |---|---|---|
//! | `t`, position | `search.N` | name |
//! | `n`, folded name, 0xff, position | `search-names.N` | name; empty if it equals the folded one |
//! | `m`, hash of a metadata pair, position | `search-meta.N` | empty |
//!
//! A position is the creation time in eight bytes, big-endian, then the CID: under each prefix the pins are
//! in the order of their creation.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use cluster_core::{Cid, NAME_MAX, Pin, Timestamp};
use serde::{Deserialize, Serialize};

use super::record::Head;

/// Version of this encoding. A release that changes it raises it, and rebuilds the index of older folders.
const VERSION: u32 = 2;

const BY_TIME: u8 = b't';
const BY_NAME: u8 = b'n';
const BY_META: u8 = b'm';

/// Kind of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// By creation time: one of each pin.
    Time,
    /// By name: one of each pin with a name.
    Name,
    /// By a pair of metadata: one of each pair of a pin.
    Meta,
}

/// Returns the kind of a key or of the start of one.
pub(super) fn kind(key: &[u8]) -> Kind {
    match key.first() {
        Some(&BY_NAME) => Kind::Name,
        Some(&BY_META) => Kind::Meta,
        _ => Kind::Time,
    }
}

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
        key([prefix], self.created, &self.cid)
    }
}

/// Returns the key of a position behind the parts of a prefix, with one allocation: each batch makes many.
fn key<const N: usize>(prefix: [&[u8]; N], created: Timestamp, cid: &Cid) -> Vec<u8> {
    let (created, cid) = (created.0.to_be_bytes(), cid.as_bytes());
    let prefix_len: usize = prefix.iter().map(|part| part.len()).sum();
    let mut key = Vec::with_capacity(prefix_len + created.len() + cid.len());
    prefix.iter().for_each(|part| key.extend_from_slice(part));
    key.extend_from_slice(&created);
    key.extend_from_slice(cid);
    key
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
pub(super) fn fold(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return match text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            true => Cow::Owned(text.to_ascii_lowercase()),
            false => Cow::Borrowed(text),
        };
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
    [&[BY_NAME], cut(start)].concat()
}

/// Returns the part of a folded name that keys have.
fn cut(folded: &str) -> &[u8] {
    &folded.as_bytes()[..folded.len().min(FOLDED_MAX)]
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
pub(super) fn by_meta(key: &str, value: &str) -> [u8; META_LIST] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(key.len() as u64).to_be_bytes());
    hasher.update(key.as_bytes());
    hasher.update(value.as_bytes());
    let mut list = [BY_META; META_LIST];
    list[1..].copy_from_slice(&hasher.finalize().as_bytes()[..HASH]);
    list
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
    let (created, cid, name) = (pin.timestamp, &pin.cid, &pin.options.name);
    let mut entries = Vec::with_capacity(pin.options.metadata.len() + 2);
    let pairs = pin.options.metadata.iter();
    entries.extend(pairs.map(|(k, v)| (key([&by_meta(k, v)[..]], created, cid), Vec::new())));
    if !name.is_empty() {
        let folded = fold(name);
        let value = match folded == *name && folded.len() <= FOLDED_MAX {
            true => Vec::new(),
            false => name_value(name),
        };
        let prefix = [&[BY_NAME][..], cut(&folded), &[NAME_END]];
        entries.push((key(prefix, created, cid), value));
    }
    entries.push((key([&[BY_TIME][..]], created, cid), name_value(name)));
    entries.sort_unstable();
    entries.dedup_by(|a, b| a.0 == b.0);
    entries
}
