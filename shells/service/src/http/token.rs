//! Bearer tokens: JSON Web Tokens (RFC 7519) for a user, signed with the user's own password.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Sha256, Sha384, Sha512};

/// A parsed token whose signature has not been verified.
pub(super) struct UnverifiedToken<'a> {
    signed: &'a str,
    signature: Vec<u8>,
    algorithm: Algorithm,
    claims: Claims,
}

#[derive(Clone, Copy, Deserialize)]
enum Algorithm {
    #[serde(rename = "HS256")]
    Sha256,
    #[serde(rename = "HS384")]
    Sha384,
    #[serde(rename = "HS512")]
    Sha512,
}

#[derive(Deserialize)]
struct Header {
    alg: Algorithm,
}

/// Claims of a token; times in seconds since 1970, with fractions.
#[derive(Deserialize)]
struct Claims {
    iss: String,
    #[serde(default)]
    exp: Option<f64>,
    #[serde(default)]
    nbf: Option<f64>,
    #[serde(default)]
    iat: Option<f64>,
}

/// Returns a token for this user, valid until the password changes.
pub(super) fn sign(user: &str, password: &str) -> String {
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let head = part(json!({"alg": "HS256", "typ": "JWT"}));
    let signed = format!("{head}.{}", part(json!({"iss": user})));
    let signature = mac::<Hmac<Sha256>>(password, &signed).map(|mac| mac.finalize().into_bytes());
    let signature = signature.map(|bytes| URL_SAFE_NO_PAD.encode(bytes));
    format!("{signed}.{}", signature.unwrap_or_default())
}

/// Parses a token; `None` if it is malformed.
pub(super) fn parse(token: &str) -> Option<UnverifiedToken<'_>> {
    let (signed, signature) = token.rsplit_once('.')?;
    let (head, claims) = signed.split_once('.')?;
    let header: Header = decode(head)?;
    Some(UnverifiedToken {
        signed,
        signature: URL_SAFE_NO_PAD.decode(signature).ok()?,
        algorithm: header.alg,
        claims: decode(claims)?,
    })
}

fn decode<T: for<'de> Deserialize<'de>>(part: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

impl UnverifiedToken<'_> {
    /// Returns the user that the token names (`iss`).
    pub(super) fn user(&self) -> &str {
        &self.claims.iss
    }

    /// Verifies the signature with this password, and the time limits at `now`, in seconds since 1970.
    pub(super) fn verify(&self, password: &str, now: f64) -> bool {
        let (signed, signature) = (self.signed, &self.signature);
        let genuine = match self.algorithm {
            Algorithm::Sha256 => is_signed::<Hmac<Sha256>>(password, signed, signature),
            Algorithm::Sha384 => is_signed::<Hmac<Sha384>>(password, signed, signature),
            Algorithm::Sha512 => is_signed::<Hmac<Sha512>>(password, signed, signature),
        };
        let Claims { exp, nbf, iat, .. } = &self.claims;
        let begun = nbf.is_none_or(|at| at <= now) && iat.is_none_or(|at| at <= now);
        genuine && begun && exp.is_none_or(|at| now < at)
    }
}

fn mac<M: Mac + KeyInit>(key: &str, text: &str) -> Option<M> {
    // HMAC takes keys of any length.
    let mut mac = <M as KeyInit>::new_from_slice(key.as_bytes()).ok()?;
    mac.update(text.as_bytes());
    Some(mac)
}

/// Verifies the signature, in constant time.
fn is_signed<M: Mac + KeyInit>(key: &str, text: &str, signature: &[u8]) -> bool {
    mac::<M>(key, text).is_some_and(|mac| mac.verify_slice(signature).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_verify_only_with_the_password_that_signed_them() {
        let token = sign("ann", "secret");
        let claimed = parse(&token).unwrap();
        assert_eq!(claimed.user(), "ann");
        assert!(claimed.verify("secret", 0.0));
        assert!(!claimed.verify("Secret", 0.0));
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let other = sign("bob", "secret");
        let forged = format!("{}.{signature}", other.rsplit_once('.').unwrap().0);
        assert!(!parse(&forged).unwrap().verify("secret", 0.0));
        assert!(!parse(&format!("{signed}.")).unwrap().verify("secret", 0.0));
    }

    #[test]
    fn tokens_match_other_implementations() {
        // Computed with Python's `hmac` over the header and claims that the Go peer writes.
        let expected = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJhbm4ifQ.\
                        C6SFetxgiP1n7xP3Z4a-b3Vu4yiqA7LcPT9PClWTkGo";
        assert_eq!(sign("ann", "secret"), expected);
    }

    #[test]
    fn time_limits_are_checked_and_malformed_tokens_are_rejected() {
        let signed = |claims: Value| {
            let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
            let signed = format!("{}.{}", part(json!({"alg": "HS512"})), part(claims));
            let mac = mac::<Hmac<Sha512>>("s", &signed).unwrap().finalize();
            format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac.into_bytes()))
        };
        for (claims, holds) in [
            (json!({"iss": "a", "exp": 101}), true),
            (json!({"iss": "a", "exp": 100}), false),
            (json!({"iss": "a", "nbf": 100.5}), false),
            (json!({"iss": "a", "iat": 99, "nbf": 99}), true),
            (json!({"iss": "a", "iat": 101}), false),
        ] {
            assert_eq!(
                parse(&signed(claims.clone())).unwrap().verify("s", 100.0),
                holds,
                "{claims}"
            );
        }
        let none = format!("{}.e30.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#));
        for token in [
            "",
            ".",
            "..",
            "a.b.c",
            none.as_str(),
            "eyJhbGciOiJIUzI1NiJ9.e30.x",
        ] {
            assert!(parse(token).is_none(), "{token}");
        }
    }
}
