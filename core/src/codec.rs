//! The encoding of everything that is sent or stored: a version byte, then postcard. Decoding is total: for
//! any bytes it returns a value or an error.
//!
//! # Versions
//!
//! Peers of adjacent releases interoperate, so that a cluster can be upgraded one peer at a time:
//!
//! - The version byte is the lowest version whose releases can read the record. A release refuses records of
//!   a version above its own.
//! - A type changes only by variants appended to an enum, whose version its function `min_version` returns. A
//!   record without such variants is encoded as by the older release, byte for byte. A struct never changes;
//!   a new variant with another struct replaces it.
//! - The version that all members can read is recorded in [`Members::version`](crate::Members), and so in the
//!   log. Nothing of a later version is proposed before. Each message announces what its sender can read;
//!   once all members have announced a later version, the leader raises the recorded one by a command.
//! - From then on peers of older releases are refused, and an older release refuses to start on the newer
//!   data.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes could not be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Empty input.
    #[error("empty record")]
    Empty,
    /// Invalid postcard for the requested type.
    #[error("damaged record: {0}")]
    Damaged(String),
    /// The record is followed by this many bytes.
    #[error("damaged record: {0} bytes too many")]
    Trailing(usize),
    /// The version byte is higher than this release's.
    #[error("record of version {found}, this release knows {known}")]
    Version {
        /// The version byte.
        found: u8,
        /// Highest version that this release can read.
        known: u8,
    },
}

/// Highest protocol version of this release; written once all members can read it.
///
/// | version | adds |
/// |---|---|
/// | 2 | credentials, owners of pins, drains and rebalancing: [`POLICY_VERSION`] |
pub const VERSION: u8 = 2;

/// Protocol version of the policy: its commands, the stored record, and a chunk of snapshots.
pub const POLICY_VERSION: u8 = 2;

/// Highest protocol version that [`decode`] reads. Debug builds, and the simulator's, have the next one too:
/// tests of upgrades run peers of both releases, by [`Config::version`](crate::Config::version).
pub const READABLE_VERSION: u8 = if cfg!(any(debug_assertions, planted_bugs)) {
    VERSION + 1
} else {
    VERSION
};

/// Protocol version of the first release.
pub const FIRST_VERSION: u8 = 1;

/// Encodes a record that all releases can read.
pub fn encode<T: Serialize>(record: &T) -> Vec<u8> {
    encode_for_version(FIRST_VERSION, record)
}

/// Encodes a record that releases from `version` on can read.
pub fn encode_for_version<T: Serialize>(version: u8, record: &T) -> Vec<u8> {
    let bytes = vec![version];
    postcard::to_extend(record, bytes).expect("all records are serialisable")
}

/// Returns the length of a record as written by [`encode`], without the version byte.
pub(crate) fn encoded_len<T: Serialize>(record: &T) -> usize {
    let size = postcard::ser_flavors::Size::default();
    postcard::serialize_with_flavor(record, size).expect("all records are serialisable")
}

/// Decodes a record of any version up to [`READABLE_VERSION`].
///
/// # Errors
///
/// As [`decode_up_to`].
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    decode_up_to(READABLE_VERSION, bytes)
}

/// Decodes a record as the release whose highest protocol version is `known`.
///
/// # Errors
///
/// [`DecodeError::Version`] if the record needs a later release, and the other variants if the bytes are not
/// exactly one record of this type.
pub fn decode_up_to<T: DeserializeOwned>(known: u8, bytes: &[u8]) -> Result<T, DecodeError> {
    let (&found, body) = bytes.split_first().ok_or(DecodeError::Empty)?;
    if !(FIRST_VERSION..=known).contains(&found) {
        return Err(DecodeError::Version { found, known });
    }
    match postcard::take_from_bytes(body) {
        Ok((record, [])) => Ok(record),
        Ok((_, rest)) => Err(DecodeError::Trailing(rest.len())),
        Err(error) => Err(DecodeError::Damaged(error.to_string())),
    }
}

#[cfg(test)]
mod tests;
