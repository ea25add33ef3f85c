//! Credentials of clients: records of the replicated state that name a secret and what it permits. The
//! secret itself is never replicated, only its hash. Shells mint the secrets, verify them, and enforce
//! scopes, expiry and limits; the core agrees on the list.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::planted::planted;
use crate::time::Timestamp;

/// Most credentials of a cluster. Each change writes all of them: about 200 KiB at this limit.
pub const CREDENTIALS_MAX: usize = 1000;

/// Longest name of a credential, in bytes.
pub const CREDENTIAL_NAME_MAX: usize = 64;

/// Most limits of a credential: one of each kind, and room for later kinds.
pub const CREDENTIAL_LIMITS_MAX: usize = 8;

/// Identifies a credential. Random, drawn by the shell that creates it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CredentialId(pub u64);

impl fmt::Debug for CredentialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for CredentialId {
    /// Writes 16 hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A text is not a credential id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the id of a credential: 16 hexadecimal digits")]
pub struct ParseCredentialIdError(String);

impl FromStr for CredentialId {
    type Err = ParseCredentialIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_hex = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let id = is_hex.then(|| u64::from_str_radix(text, 16).ok()).flatten();
        id.map(Self)
            .ok_or_else(|| ParseCredentialIdError(text.to_owned()))
    }
}

/// A permission of a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Scope {
    /// Reads of pins, status, peers and events; includes `Metrics`.
    Read,
    /// Additions, changes, removals and recovery of pins.
    Pin,
    /// Uploads of content.
    Add,
    /// Everything: peers, garbage collection and credentials, and all that the other scopes permit.
    Admin,
    /// Reads of metrics.
    Metrics,
    /// No permission, but a restriction of the others to the pins of this credential.
    Own,
}

impl Scope {
    /// All scopes.
    pub const ALL: [Self; 6] = [
        Self::Read,
        Self::Pin,
        Self::Add,
        Self::Admin,
        Self::Metrics,
        Self::Own,
    ];

    /// Returns the name, as in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Pin => "pin",
            Self::Add => "add",
            Self::Admin => "admin",
            Self::Metrics => "metrics",
            Self::Own => "own",
        }
    }

    /// Returns whether this scope permits what needs `needed`.
    pub fn includes(self, needed: Self) -> bool {
        match self {
            Self::Admin => needed != Self::Own,
            Self::Read => [Self::Read, Self::Metrics].contains(&needed),
            Self::Add | Self::Metrics | Self::Own | Self::Pin => self == needed,
        }
    }
}

/// A limit on the use of a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum CredentialLimit {
    /// Most requests per second at each peer, on average; as many may come at once.
    RequestsPerSecond(u32),
    /// Most pins that its owner holds.
    Pins(u64),
    /// Most bytes that its owner holds by uploads.
    Bytes(u64),
}

/// A credential, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential {
    /// Id, part of the token that the client presents.
    pub id: CredentialId,
    /// Name, unique in the cluster. With the scope `own` it names the owner of the pins: a later credential
    /// of the same name has them.
    pub name: String,
    /// Hash of the secret, computed by the shell that minted it.
    pub hash: [u8; 32],
    /// Scopes of its token.
    pub scopes: BTreeSet<Scope>,
    /// Time of creation, by the clock of the peer that was asked.
    pub created: Timestamp,
    /// Time from which it is invalid, by the clock of the peer that verifies it; `None` for never.
    pub expire_at: Option<Timestamp>,
    /// Limits on its use.
    pub limits: Vec<CredentialLimit>,
}

impl Credential {
    /// Returns the owner as which the credential acts; `None` if it acts on all pins.
    pub fn owner(&self) -> Option<&str> {
        let acts_for_itself = self.scopes.contains(&Scope::Own);
        acts_for_itself.then_some(self.name.as_str())
    }
}

/// A change of the credentials contradicts the existing ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum CredentialError {
    /// A credential with this name exists.
    #[error("there is a credential named {0:?} already: revoke it, or choose another name")]
    Exists(String),
    /// [`CREDENTIALS_MAX`] credentials exist.
    #[error("there are {CREDENTIALS_MAX} credentials already: revoke those that are not needed any more")]
    Full,
    /// The credential does not exist.
    #[error("there is no such credential")]
    Missing,
}

/// Returns the credentials with a new one, sorted by id.
pub(crate) fn create(known: &[Credential], new: Credential) -> Result<Vec<Credential>, CredentialError> {
    let is_taken = |other: &Credential| other.id == new.id || other.name == new.name;
    if known.iter().any(is_taken) {
        return Err(CredentialError::Exists(new.name));
    }
    if known.len() >= CREDENTIALS_MAX {
        return Err(CredentialError::Full);
    }
    let mut all = known.to_vec();
    let at = all.partition_point(|other| other.id < new.id);
    all.insert(at, new);
    Ok(all)
}

/// Returns the credentials without one, and that one.
pub(crate) fn revoke(
    known: &[Credential],
    id: CredentialId,
) -> Result<(Vec<Credential>, Credential), CredentialError> {
    let at = known.iter().position(|credential| credential.id == id);
    let at = at.ok_or(CredentialError::Missing)?;
    let mut all = known.to_vec();
    let revoked = if planted!(RevocationForgotten) {
        all[at].clone()
    } else {
        all.remove(at)
    };
    Ok((all, revoked))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::credential;

    #[test]
    fn ids_parse_from_their_display_form_only() {
        for id in [CredentialId(0), CredentialId(0xabc), CredentialId(u64::MAX)] {
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        for wrong in [
            "",
            "abc",
            "+000000000000abc",
            "0000000000000abcd",
            "000000000000000g",
        ] {
            assert!(wrong.parse::<CredentialId>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn credentials_are_sorted_by_id_and_have_unique_names() {
        let (first, second) = (credential(1, "ci"), credential(2, "page"));
        let all = create(&[], second.clone()).and_then(|all| create(&all, first.clone()));
        let all = all.unwrap();
        assert_eq!(all, [first.clone(), second.clone()]);
        let exists = |name: &str| Err(CredentialError::Exists(name.to_owned()));
        assert_eq!(create(&all, credential(3, "ci")), exists("ci"));
        assert_eq!(create(&all, credential(2, "other")), exists("other"));
        assert_eq!(revoke(&all, CredentialId(1)), Ok((vec![second], first)));
        assert_eq!(revoke(&all, CredentialId(3)), Err(CredentialError::Missing));
    }

    #[test]
    fn number_of_credentials_is_bounded() {
        let full: Vec<Credential> = (0..CREDENTIALS_MAX as u64)
            .map(|number| credential(number, &number.to_string()))
            .collect();
        let one_more = credential(u64::MAX, "one more");
        assert_eq!(create(&full, one_more.clone()), Err(CredentialError::Full));
        let (fewer, _) = revoke(&full, CredentialId(7)).unwrap();
        assert_eq!(create(&fewer, one_more).unwrap().len(), CREDENTIALS_MAX);
    }

    #[test]
    fn scopes_include_only_what_they_say() {
        for scope in Scope::ALL {
            for needed in Scope::ALL {
                let expected = match scope {
                    Scope::Admin => needed != Scope::Own,
                    Scope::Read => [Scope::Read, Scope::Metrics].contains(&needed),
                    Scope::Pin | Scope::Add | Scope::Metrics | Scope::Own => scope == needed,
                };
                assert_eq!(scope.includes(needed), expected, "{scope:?} {needed:?}");
            }
        }
    }
}
