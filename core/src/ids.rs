//! Names of things. Each is a type of its own, so that one can never be taken for another.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A position in the Raft log.
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
    /// The receipt of a client's request. The shell mints it, and gets exactly one reply for it.
    Ticket
);
number!(
    /// One atomic write to disk. Grows by one from write to write of a process.
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
    /// A received snapshot that waits on disk to be installed or discarded. The shell mints it.
    SnapshotId
);
number!(
    /// What Raft calls a peer. Never used twice: a peer that lost its data comes back under a new one.
    RaftId
);
number!(
    /// Drawn at random when a data folder is created, so that a peer whose data was lost can be told
    /// from the one that it was.
    Incarnation
);

/// Says which cluster a peer belongs to, so that the data of two clusters never mix.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClusterId(pub [u8; 16]);

impl ClusterId {
    /// The cluster of a peer that has not been told yet which one it joins.
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

/// Identifies one attempt of one peer to have a command agreed on. A proposal that gets lost is made
/// again under the same id, and the pinset applies each id at most once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProposalId {
    /// Who proposed it.
    pub origin: RaftId,
    /// How many times that peer's process has been started.
    pub boot: u64,
    /// Grows by one from proposal to proposal of a process, from 1.
    pub seq: u64,
}

/// A peer's libp2p identity: the multihash of its public key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(Arc<[u8]>);

/// The longest multihash that a peer id may be: SHA-256 takes 34 bytes, an inlined Ed25519 key 38 and an
/// inlined secp256k1 key 39.
const PEER_ID_MAX: usize = 64;

impl PeerId {
    /// Takes the binary form of a peer id; `None` when it is no multihash of a sane length.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let valid = bytes.len() > 2 && bytes.len() <= PEER_ID_MAX && usize::from(bytes[1]) == bytes.len() - 2;
        valid.then(|| Self(bytes.into()))
    }

    /// The binary form.
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

/// Why a text or bytes are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseIdError {
    /// Not a CID.
    #[error("{0:?} is not a CID: {1}")]
    Cid(String, String),
    /// Not a peer id.
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

/// The widest digest that a CID may carry, in bytes: Kubo inlines at most 128.
const DIGEST_MAX: usize = 128;

/// A content identifier, in its binary form. Ordered by those bytes, as the store orders its keys.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cid(Arc<[u8]>);

impl Cid {
    /// Takes the binary form; fails when it is not exactly one well-formed CID.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ParseIdError> {
        Self::checked(bytes).map_err(|why| ParseIdError::Cid(format!("{bytes:02x?}"), why))
    }

    fn checked(bytes: &[u8]) -> Result<Self, String> {
        let parsed = cid::CidGeneric::<DIGEST_MAX>::try_from(bytes).map_err(|error| error.to_string())?;
        if parsed.encoded_len() != bytes.len() {
            return Err("trailing bytes".to_owned());
        }
        Ok(Self(bytes.into()))
    }

    /// The binary form.
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
        // Not by the crate's own parser: it looks for `/ipfs/` anywhere, and ignores what follows a CID.
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
    fn a_text_is_exactly_one_cid() {
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
}
