//! Types of configuration values, as written in JSON and in the environment.

use std::fmt;
use std::ops::Deref;
use std::time::Duration;

use cluster_api::GoDuration;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use serde::{Deserialize, Serialize, Serializer};

/// Placeholder printed for a secret.
pub const HIDDEN: &str = "XXX_hidden_XXX";

/// A list that is written as its only element if it has just one. Both forms are read for every list.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Strings<T>(pub Vec<T>);

impl<T> Default for Strings<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Deref for Strings<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T: Serialize> Serialize for Strings<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [only] => only.serialize(serializer),
            many => many.serialize(serializer),
        }
    }
}

/// A multiaddress. `/ipfs/<peer id>` is read as `/p2p/<peer id>`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address(pub Multiaddr);

impl Address {
    /// Returns the peer id at the end of the address, if there is one.
    pub fn peer(&self) -> Option<PeerId> {
        self.0.iter().find_map(|part| {
            let Protocol::P2p(peer) = part else {
                return None;
            };
            Some(peer)
        })
    }
}

impl Deref for Address {
    type Target = Multiaddr;

    fn deref(&self) -> &Multiaddr {
        &self.0
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.0.to_string()
    }
}

impl TryFrom<String> for Address {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl std::str::FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        // As in Go, the rest is one path; rust-multiaddr takes a single segment.
        if let Some(path) = text.strip_prefix("/unix/").filter(|path| !path.is_empty()) {
            return Ok(Self(Multiaddr::empty().with(Protocol::Unix(path.into()))));
        }
        text.parse().map(Self).map_err(|error| {
            format!("{text:?} is not a multiaddress ({error}): write it like /ip4/127.0.0.1/tcp/9094")
        })
    }
}

/// A peer id in base58, `12D3Koo…` or `Qm…`.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Peer(pub PeerId);

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl From<Peer> for String {
    fn from(peer: Peer) -> Self {
        peer.0.to_base58()
    }
}

impl TryFrom<String> for Peer {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let text = text.trim();
        text.parse().map(Self).map_err(|error| {
            format!("{text:?} is not a peer id ({error}): `ipfs-cluster-service id` shows a peer's own")
        })
    }
}

/// A non-negative duration, written as Go does: `1m30s`.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "GoDuration", into = "GoDuration")]
pub struct Period(pub Duration);

impl Period {
    /// Returns a period of whole seconds.
    pub const fn secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// Returns a period of whole milliseconds.
    pub const fn millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// Returns whether the period is zero, which most limits treat as "none".
    pub fn is_zero(&self) -> bool {
        self.0.is_zero()
    }
}

impl fmt::Debug for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&GoDuration::from(self.0), f)
    }
}

impl From<Period> for GoDuration {
    fn from(period: Period) -> Self {
        period.0.into()
    }
}

impl TryFrom<GoDuration> for Period {
    type Error = String;

    fn try_from(duration: GoDuration) -> Result<Self, String> {
        let period = duration.to_std();
        period
            .map(Self)
            .ok_or_else(|| format!("{duration} is negative: write a span of time like 30s or 1m30s"))
    }
}

/// Secret that the peers of a cluster share: 32 bytes in hexadecimal, or empty for none. `Debug` does not
/// show it.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Secret(pub Option<[u8; 32]>);

impl Secret {
    /// Generates a random secret.
    pub fn random() -> Self {
        Self(Some(rand::random()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { HIDDEN } else { "none" })
    }
}

impl From<Secret> for String {
    fn from(secret: Secret) -> Self {
        let bytes = secret.0.iter().flatten();
        bytes.map(|byte| format!("{byte:02x}")).collect()
    }
}

impl TryFrom<String> for Secret {
    type Error = String;

    /// The invalid text stays out of the error: most of it may be right.
    fn try_from(text: String) -> Result<Self, String> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(Self(None));
        }
        let wrong = || {
            let count = text.chars().count();
            format!(
                "a secret must be 64 hexadecimal digits, this one has {count} characters, or others: \
                 `od -vN 32 -An -tx1 /dev/urandom | tr -d ' \\n'` makes one"
            )
        };
        if text.len() != 64 || !text.is_ascii() {
            return Err(wrong());
        }
        let mut secret = [0; 32];
        for (byte, at) in secret.iter_mut().zip((0..64).step_by(2)) {
            let digits = &text[at..at + 2];
            // `from_str_radix` would accept a sign.
            if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(wrong());
            }
            *byte = u8::from_str_radix(digits, 16).map_err(|_| wrong())?;
        }
        Ok(Self(Some(secret)))
    }
}
