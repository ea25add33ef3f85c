//! Credentials: creation, listing, revocation, and the verification of tokens.
//!
//! A token is `icc_`, the credential's id, `_`, and the secret: 256 random bits in base64. The cluster agrees
//! on a BLAKE3 hash of the secret. A fast hash is enough: slow ones protect passwords, which can be guessed,
//! and nobody can guess 256 random bits. The id finds the credential, so that exactly one hash is compared,
//! in constant time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cluster_api as api;
use cluster_core::{
    CREDENTIALS_MAX, Credential, CredentialError, CredentialId, CredentialLimit, Refusal, Reply, Request,
    Scope, Timestamp,
};
use subtle::ConstantTimeEq;

use super::quota::BYTES_PINS_MAX;
use super::{Cluster, Error, convert, now};

/// Start of every token; tells tokens from JWTs and passwords, and lets scanners find leaked ones.
const PREFIX: &str = "icc_";

/// Bytes of a secret.
const SECRET_LEN: usize = 32;

/// A token is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The credential has expired.
    #[error("the credential {name:?} has expired")]
    Expired {
        /// Name of the credential.
        name: String,
    },
    /// More requests came than the credential permits.
    #[error("the credential {name:?} is limited to {limit} requests per second: try again later")]
    TooManyRequests {
        /// Name of the credential.
        name: String,
        /// Permitted requests per second.
        limit: u32,
    },
    /// No credential has this token: it was never created, or has been revoked.
    #[error("invalid token")]
    Unknown,
}

/// A token, parsed but not verified.
struct Token {
    id: CredentialId,
    secret: [u8; SECRET_LEN],
}

impl Token {
    fn parse(text: &str) -> Option<Self> {
        let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
        let secret = URL_SAFE_NO_PAD.decode(secret).ok()?;
        Some(Self {
            id: id.parse().ok()?,
            secret: secret.try_into().ok()?,
        })
    }

    fn text(&self) -> String {
        format!("{PREFIX}{}_{}", self.id, URL_SAFE_NO_PAD.encode(self.secret))
    }

    fn hash(&self) -> [u8; 32] {
        *blake3::hash(&self.secret).as_bytes()
    }

    /// Returns the credential with this token among `known`, which are sorted by id.
    fn find<'a>(&self, known: &'a [Credential]) -> Option<&'a Credential> {
        let at = known
            .binary_search_by_key(&self.id, |credential| credential.id)
            .ok()?;
        let same: bool = self.hash().ct_eq(&known[at].hash).into();
        same.then_some(&known[at])
    }
}

/// Returns whether a text has the form of a token of a credential.
pub(crate) fn is_token(text: &str) -> bool {
    text.starts_with(PREFIX)
}

/// Requests that credentials with a limit may still make, at this peer.
#[derive(Debug, Default)]
pub(super) struct Rates {
    buckets: Mutex<BTreeMap<CredentialId, Bucket>>,
}

/// Token bucket of one credential.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// Requests that may be made now.
    left: f64,
    at: Instant,
}

impl Rates {
    /// Takes one request of `limit` per second; `false` if none is left.
    fn take(&self, credential: &Credential, limit: u32, now: Instant, known: &[Credential]) -> bool {
        let most = f64::from(limit);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= CREDENTIALS_MAX {
            // Those of revoked credentials.
            let ids: BTreeSet<CredentialId> = known.iter().map(|credential| credential.id).collect();
            buckets.retain(|id, _| ids.contains(id));
        }
        let bucket = buckets
            .entry(credential.id)
            .or_insert(Bucket { left: most, at: now });
        let passed = now.saturating_duration_since(bucket.at).as_secs_f64();
        bucket.left = (bucket.left + passed * most).min(most);
        bucket.at = now;
        let may = bucket.left >= 1.0;
        if may {
            bucket.left -= 1.0;
        }
        may
    }
}

impl Cluster {
    /// Verifies a token as of the applied state of this peer, and counts the request against its limit.
    ///
    /// # Errors
    /// The token is unknown, has expired, or has made too many requests.
    pub fn verify_token(&self, text: &str) -> Result<Credential, TokenError> {
        let policy = self.inner.reader.policy();
        let known = &policy.credentials;
        let token = Token::parse(text).ok_or(TokenError::Unknown)?;
        let credential = token.find(known).ok_or(TokenError::Unknown)?;
        let name = || credential.name.clone();
        if credential.expire_at.is_some_and(|at| at <= now()) {
            return Err(TokenError::Expired { name: name() });
        }
        for limit in &credential.limits {
            if let CredentialLimit::RequestsPerSecond(limit) = *limit
                && !self.inner.rates.take(credential, limit, Instant::now(), known)
            {
                return Err(TokenError::TooManyRequests { name: name(), limit });
            }
        }
        Ok(credential.clone())
    }

    /// Creates a credential; returns it with its token, which is not stored.
    ///
    /// # Errors
    /// The request is invalid, or the cluster refuses.
    pub async fn create_credential(
        &self,
        asked: &api::CredentialAdd,
    ) -> Result<(api::Credential, String), Error> {
        let token = Token {
            id: CredentialId(rand::random()),
            secret: rand::random(),
        };
        let credential = new_credential(asked, &token, now())?;
        let reply = self.request(Request::CreateCredential { credential }).await?;
        let Reply::CredentialCreated(credential) = reply else {
            return Err(unexpected(&reply));
        };
        Ok((shown(&credential), token.text()))
    }

    /// Lists the credentials, sorted by name.
    pub fn credentials(&self) -> Vec<api::Credential> {
        let policy = self.inner.reader.policy();
        let mut all: Vec<api::Credential> = policy.credentials.iter().map(shown).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// Revokes a credential, by id or by name. This peer refuses its token from here on, the others as soon
    /// as they have applied the revocation.
    ///
    /// # Errors
    /// There is no such credential, or the cluster refuses.
    pub async fn revoke_credential(&self, id_or_name: &str) -> Result<api::Credential, Error> {
        // It may have been created at another peer a moment ago.
        self.request(Request::Barrier).await?;
        let id = self.find_credential(id_or_name)?.id;
        let reply = self.request(Request::RevokeCredential { id }).await?;
        let Reply::CredentialRevoked(credential) = reply else {
            return Err(unexpected(&reply));
        };
        Ok(shown(&credential))
    }

    /// Returns what the owner of a credential holds as far as this peer has applied it, by id or by name.
    /// The bytes are added up only for a credential with a limit of bytes, whose pins are at most
    /// `BYTES_PINS_MAX`.
    ///
    /// # Errors
    /// There is no such credential, it has no pins of its own, or the database cannot be read.
    pub async fn credential_usage(&self, id_or_name: &str) -> Result<api::CredentialUsage, Error> {
        let credential = self.find_credential(id_or_name)?;
        if !credential.scopes.contains(&Scope::Own) {
            let why = format!(
                "the credential {:?} has no pins of its own: it lacks the scope own",
                credential.name
            );
            return Err(Error::Invalid(why));
        }
        let is_limited = credential
            .limits
            .iter()
            .any(|limit| matches!(limit, CredentialLimit::Bytes(_)));
        let pins = self.owned_pins(&credential.name).await?;
        let bytes = match is_limited {
            true => Some(self.owned_bytes(&credential.name, &[]).await?),
            false => None,
        };
        Ok(api::CredentialUsage { pins, bytes })
    }

    fn find_credential(&self, id_or_name: &str) -> Result<Credential, Error> {
        let policy = self.inner.reader.policy();
        let id = id_or_name.parse::<CredentialId>().ok();
        let named = |credential: &&Credential| Some(credential.id) == id || credential.name == id_or_name;
        let found = policy.credentials.iter().find(named).cloned();
        found.ok_or(Error::Refused(Refusal::Credential(CredentialError::Missing)))
    }
}

/// Returns the error for the reply to another request, which never comes.
fn unexpected(reply: &Reply) -> Error {
    tracing::error!(?reply, "the core answers another request");
    Error::Closed
}

/// Builds the credential that a client asks for.
fn new_credential(asked: &api::CredentialAdd, token: &Token, now: Timestamp) -> Result<Credential, Error> {
    let invalid = |why: String| Err(Error::Invalid(why));
    let is_plain = |c: char| c.is_ascii_alphanumeric() || ".-_@".contains(c);
    if asked.name.is_empty() || !asked.name.chars().all(is_plain) {
        let name = &asked.name;
        return invalid(format!(
            "the name {name:?} is not made of letters, digits, and \".\", \"_\", \"-\", \"@\""
        ));
    }
    let mut scopes = BTreeSet::new();
    for name in &asked.scopes {
        let known = Scope::ALL.into_iter().find(|scope| scope.name() == name);
        let names = Scope::ALL.map(Scope::name).join(", ");
        let scope = known
            .ok_or_else(|| Error::Invalid(format!("there is no scope {name:?}: use some of {names}")))?;
        scopes.insert(scope);
    }
    if scopes.is_empty() {
        return invalid("a credential needs at least one scope".to_owned());
    }
    let is_with = |others: &[Scope]| others.iter().any(|other| scopes.contains(other));
    if scopes.contains(&Scope::Own) && !is_with(&[Scope::Read, Scope::Pin, Scope::Add]) {
        return invalid("the scope own restricts others: add read, pin or add".to_owned());
    }
    if scopes.contains(&Scope::Own) && is_with(&[Scope::Admin]) {
        return invalid("the scope own cannot restrict admin: leave one of them out".to_owned());
    }
    let expire_at = (!asked.expire_at.is_zero()).then(|| convert::timestamp(asked.expire_at));
    if expire_at.is_some_and(|at| at <= now) {
        return invalid("expire_at is in the past".to_owned());
    }
    let limits = limits(asked, scopes.contains(&Scope::Own))?;
    let credential = Credential {
        id: token.id,
        name: asked.name.clone(),
        hash: token.hash(),
        scopes,
        created: now,
        expire_at,
        limits,
    };
    credential.check().map_err(Refusal::TooLarge)?;
    Ok(credential)
}

/// Returns the limits that a client asks for.
fn limits(asked: &api::CredentialAdd, is_owner: bool) -> Result<Vec<CredentialLimit>, Error> {
    let invalid = |why: String| Err(Error::Invalid(why));
    let (rate, pins, bytes) = (asked.requests_per_second, asked.max_pins, asked.max_bytes);
    if (pins > 0 || bytes > 0) && !is_owner {
        return invalid(
            "max_pins and max_bytes need the scope own: others have no pins of their own".to_owned(),
        );
    }
    if bytes > 0 && !(1..=BYTES_PINS_MAX).contains(&pins) {
        return invalid(format!(
            "max_bytes needs max_pins, of 1 to {BYTES_PINS_MAX}: each upload adds up the bytes of all pins"
        ));
    }
    let Ok(rate) = u32::try_from(rate) else {
        return invalid(format!("requests_per_second is above {}", u32::MAX));
    };
    let limits = [
        (rate > 0).then_some(CredentialLimit::RequestsPerSecond(rate)),
        (pins > 0).then_some(CredentialLimit::Pins(pins)),
        (bytes > 0).then_some(CredentialLimit::Bytes(bytes)),
    ];
    Ok(limits.into_iter().flatten().collect())
}

/// Returns a credential as the API shows it, without the hash.
fn shown(credential: &Credential) -> api::Credential {
    let scopes = credential.scopes.iter().map(|scope| scope.name().to_owned());
    let (mut requests_per_second, mut max_pins, mut max_bytes) = (0, 0, 0);
    for limit in &credential.limits {
        match *limit {
            CredentialLimit::RequestsPerSecond(limit) => requests_per_second = u64::from(limit),
            CredentialLimit::Pins(limit) => max_pins = limit,
            CredentialLimit::Bytes(limit) => max_bytes = limit,
        }
    }
    api::Credential {
        id: credential.id.to_string(),
        name: credential.name.clone(),
        scopes: scopes.collect(),
        created: convert::time(credential.created),
        expire_at: credential.expire_at.map(convert::time).unwrap_or_default(),
        requests_per_second,
        max_pins,
        max_bytes,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn token(id: u64, fill: u8) -> Token {
        Token {
            id: CredentialId(id),
            secret: [fill; SECRET_LEN],
        }
    }

    fn asked(name: &str, scopes: &[&str]) -> api::CredentialAdd {
        api::CredentialAdd {
            name: name.to_owned(),
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
            ..api::CredentialAdd::default()
        }
    }

    #[test]
    fn only_the_whole_token_finds_its_credential() {
        let minted = token(7, 1);
        let credential = new_credential(&asked("ci", &["read"]), &minted, Timestamp(1)).unwrap();
        let known = [credential];
        let text = minted.text();
        assert!(is_token(&text));
        let found = |text: &str| Token::parse(text).is_some_and(|token| token.find(&known).is_some());
        assert!(found(&text));
        let cut = &text[..text.len() - 1];
        let other_id = token(8, 1).text();
        let other_secret = token(7, 2).text();
        for wrong in [cut, &other_id, &other_secret, "", "icc_", "icc_7_x", &text[4..]] {
            assert!(!found(wrong), "{wrong}");
        }
        let shown = format!("{:?} {:?}", known[0], super::shown(&known[0]));
        assert!(!shown.contains(&text[21..]), "{shown}");
    }

    #[test]
    fn invalid_requests_are_refused_with_the_reason() {
        let why = |asked: &api::CredentialAdd| {
            new_credential(asked, &token(1, 1), Timestamp(1_000))
                .unwrap_err()
                .to_string()
        };
        for name in ["", "a b", "a:b", "a/b", "ä", "\n"] {
            assert!(why(&asked(name, &["read"])).starts_with("the name "), "{name}");
        }
        let long = "n".repeat(65);
        assert!(why(&asked(&long, &["read"])).contains("has 65 bytes, at most 64"));
        assert_eq!(why(&asked("ci", &[])), "a credential needs at least one scope");
        assert_eq!(
            why(&asked("ci", &["read", "write"])),
            "there is no scope \"write\": use some of read, pin, add, admin, metrics, own"
        );
        for scopes in [
            &["own"][..],
            &["own", "metrics"],
            &["own", "admin"],
            &["own", "pin", "admin"],
        ] {
            assert!(
                why(&asked("ci", scopes)).starts_with("the scope own "),
                "{scopes:?}"
            );
        }
        let limited = |scopes: &[&str], max_pins, max_bytes| api::CredentialAdd {
            max_pins,
            max_bytes,
            ..asked("ci", scopes)
        };
        assert!(why(&limited(&["pin"], 1, 0)).contains("need the scope own"));
        let own = ["add", "own"];
        assert!(why(&limited(&own, 0, 1)).contains("needs max_pins"));
        assert!(why(&limited(&own, BYTES_PINS_MAX + 1, 1)).contains("needs max_pins"));
        let fine = new_credential(&limited(&own, 5, 7), &token(1, 1), Timestamp(1)).unwrap();
        let fine = super::shown(&fine);
        assert_eq!((fine.max_pins, fine.max_bytes), (5, 7));
        let late = api::CredentialAdd {
            expire_at: api::Time::from_unix_nanos(1_000),
            ..asked("ci", &["read"])
        };
        assert_eq!(why(&late), "expire_at is in the past");
    }

    #[test]
    fn rate_is_limited_for_each_credential_by_itself() {
        let (start, rates) = (Instant::now(), Rates::default());
        let of = |id| new_credential(&asked("x", &["read"]), &token(id, 1), Timestamp(1)).unwrap();
        let (first, second) = (of(1), of(2));
        let take = |credential: &Credential, after: u64| {
            rates.take(credential, 2, start + Duration::from_millis(after), &[])
        };
        assert_eq!([0, 0, 0].map(|after| take(&first, after)), [true, true, false]);
        assert!(take(&second, 0));
        assert!(!take(&first, 400));
        assert!(take(&first, 600), "one more after half a second");
        assert!(!take(&first, 600));
        let later = [60_000; 3].map(|after| take(&first, after));
        assert_eq!(later, [true, true, false], "unused requests are not saved");
    }
}
