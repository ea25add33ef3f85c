//! Identifiers. Each is a newtype, so that the compiler keeps them apart.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A position in the Raft log, from 1.
pub type Index = u64;
/// A Raft term.
pub type Term = u64;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// The receipt of a client's request. Minted by the shell, which gets exactly one reply for it.
    Ticket
);
number!(
    /// Number of an atomic write to disk. Starts at 1 with each process and grows by one per write.
    BatchId
);
number!(
    /// One operation on this peer's IPFS node.
    OpId
);
number!(
    /// A linearizable read in progress.
    ReadId
);
number!(
    /// A received snapshot that is staged on disk until it is installed or discarded. Minted by the shell.
    SnapshotId
);
number!(
    /// A peer's Raft id, unique to one incarnation: never reused, a peer that lost its data gets a new one.
    RaftId
);
number!(
    /// Random number drawn when a data folder is created. It distinguishes a peer with its old data from
    /// the same peer with an empty data folder.
    Incarnation
);

/// Identifies a cluster, so that data and messages of two clusters never mix.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClusterId(pub [u8; 16]);

impl ClusterId {
    /// Placeholder of a peer that does not know yet which cluster it joins.
    pub const UNKNOWN: Self = Self([0; 16]);
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Identifies a proposal across retries. A lost proposal is proposed again under the same id, and the pinset
/// applies each id at most once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProposalId {
    /// Raft id of the proposing peer.
    pub origin: RaftId,
    /// Number of times that a process has been started on the proposing peer's data folder.
    pub boot: u64,
    /// Sequence number within that process, from 1.
    pub seq: u64,
}

/// A peer's libp2p identity: the multihash of its public key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(Arc<[u8]>);

/// Maximum length of a peer id's multihash, in bytes: SHA-256 takes 34 bytes, an inlined Ed25519 key 38 and
/// an inlined secp256k1 key 39.
const PEER_ID_MAX: usize = 64;

impl PeerId {
    /// Wraps the binary form of a peer id; `None` unless it is a multihash with a digest of 1 to 62 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let valid = bytes.len() > 2 && bytes.len() <= PEER_ID_MAX && usize::from(bytes[1]) == bytes.len() - 2;
        valid.then(|| Self(bytes.into()))
    }

    /// Returns the binary form.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&bs58::encode(&self.0).into_string())
    }
}

/// A text or byte string is not a valid identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseIdError {
    /// Invalid CID: the input and the parser's reason.
    #[error("{0:?} is not a CID: {1}")]
    Cid(String, String),
    /// Invalid peer id: the input.
    #[error("{0:?} is not a peer id")]
    PeerId(String),
}

impl FromStr for PeerId {
    type Err = ParseIdError;

    /// Parses the base58 form (`12D3Koo…`, `Qm…`).
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        bs58::decode(text)
            .into_vec()
            .ok()
            .and_then(|bytes| Self::from_bytes(&bytes))
            .ok_or_else(|| ParseIdError::PeerId(text.to_owned()))
    }
}

impl Serialize for PeerId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for PeerId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes: &[u8] = Deserialize::deserialize(deserializer)?;
        Self::from_bytes(bytes).ok_or_else(|| serde::de::Error::custom("not a peer id"))
    }
}

/// Maximum length of a CID's digest, in bytes: Kubo inlines at most 128.
const DIGEST_MAX: usize = 128;

/// A content identifier in its binary form. Ordered by those bytes, as in the store's keys.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cid(Arc<[u8]>);

impl Cid {
    /// Validates and wraps the binary form of a CID.
    ///
    /// # Errors
    ///
    /// [`ParseIdError::Cid`] if the bytes are not exactly one well-formed CID, or its digest exceeds 128
    /// bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ParseIdError> {
        Self::checked(bytes).map_err(|why| ParseIdError::Cid(format!("{bytes:02x?}"), why))
    }

    fn checked(bytes: &[u8]) -> Result<Self, String> {
        // Almost all CIDs: versions 0 and 1 with a SHA-256 digest. Parsing copies 128 bytes several times.
        if let [0x12, 32, digest @ ..] | [1, ..0x80, 0x12, 32, digest @ ..] = bytes
            && digest.len() == 32
        {
            return Ok(Self(bytes.into()));
        }
        let parsed = cid::CidGeneric::<DIGEST_MAX>::try_from(bytes).map_err(|error| error.to_string())?;
        if parsed.encoded_len() != bytes.len() {
            return Err("trailing bytes".to_owned());
        }
        Ok(Self(bytes.into()))
    }

    /// Returns the binary form.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Cid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Cid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parsed = cid::CidGeneric::<DIGEST_MAX>::try_from(&self.0[..]).map_err(|_| fmt::Error)?;
        fmt::Display::fmt(&parsed, f)
    }
}

impl FromStr for Cid {
    type Err = ParseIdError;

    /// Parses a CIDv0 (`Qm…`) or a CIDv1 in any multibase.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // The `cid` crate's own parser accepts `/ipfs/` anywhere and ignores what follows a CID.
        let decoded = if cid::Version::is_v0_str(text) {
            cid::multibase::Base::Base58Btc.decode(text)
        } else {
            cid::multibase::decode(text).map(|(_, bytes)| bytes)
        };
        let checked = decoded
            .map_err(|error| error.to_string())
            .and_then(|bytes| Self::checked(&bytes));
        checked.map_err(|why| ParseIdError::Cid(text.to_owned(), why))
    }
}

impl Serialize for Cid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Cid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes: &[u8] = Deserialize::deserialize(deserializer)?;
        Self::from_bytes(bytes).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_with_more_than_a_cid_is_refused() {
        let text = "bafkqablimvwgy3y";
        let cid: Cid = text.parse().unwrap();
        assert_eq!(cid.to_string(), text);
        let old = "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn";
        assert_eq!(old.parse::<Cid>().unwrap().to_string(), old);
        let longer = [cid.as_bytes(), &[0]].concat();
        let longer = cid::multibase::encode(cid::multibase::Base::Base32Lower, longer);
        for wrong in [
            &longer,
            "",
            "x",
            "Qm",
            "/ipfs/bafkqablimvwgy3y",
            "x/ipfs/bafkqablimvwgy3y",
        ] {
            assert!(wrong.parse::<Cid>().is_err(), "{wrong}");
        }
    }

    proptest::proptest! {
        #[test]
        fn bytes_are_accepted_as_the_parser_accepts_them(
            head in proptest::sample::select(vec![
                &[0x12, 32][..], &[0x12, 31], &[1, 0, 0x12, 32], &[1, 0x7f, 0x12, 32], &[1, 0x80, 0x12, 32],
                &[1, 0x80, 1, 0x12, 32], &[2, 0x55, 0x12, 32], &[1, 0x55, 0x12, 33], &[],
            ]),
            digest in proptest::collection::vec(proptest::prelude::any::<u8>(), 30..35),
        ) {
            let bytes = [head, &digest].concat();
            let parsed = cid::CidGeneric::<DIGEST_MAX>::try_from(&bytes[..]);
            let valid = parsed.is_ok_and(|cid| cid.encoded_len() == bytes.len());
            proptest::prop_assert_eq!(Cid::from_bytes(&bytes).is_ok(), valid);
        }
    }
}
