//! Authentication of REST requests: user names with passwords (Basic), or tokens signed with them (Bearer).

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::http::header::{AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use axum::http::{Method, Request, Response, StatusCode};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use subtle::{Choice, ConstantTimeEq};

use super::{page, token};

/// The configured users.
pub(super) struct Auth {
    users: BTreeMap<String, String>,
}

impl Auth {
    pub(super) fn new(users: BTreeMap<String, String>) -> Self {
        Self { users }
    }

    /// Returns the authenticated user, or why the request is denied. Preflight requests, which carry no
    /// credentials, `/health` and `/health/ready`, for load balancers, and the files of the page are admitted
    /// without a user.
    pub(super) fn admit<B>(&self, request: &Request<B>) -> Result<Option<String>, Denied> {
        if request.method() == Method::OPTIONS
            || page::is_public(request)
            || ["/health", "/health/ready"].contains(&request.uri().path())
        {
            return Ok(None);
        }
        let given = Credentials::of(request.headers());
        match self.user(&given) {
            Some(user) => Ok(Some(user)),
            None => Err(match given {
                Credentials::Basic(..) => Denied("unauthorized: access denied", &[BASIC]),
                Credentials::Bearer(_) => Denied("unauthorized: invalid token", &[INVALID_TOKEN]),
                Credentials::Nothing => Denied("unauthorized: no auth provided", &[BEARER, BASIC]),
            }),
        }
    }

    /// Issues a token for the authenticated user.
    pub(super) fn token(&self, headers: &HeaderMap) -> Option<String> {
        let user = self.user(&Credentials::of(headers))?;
        Some(token::sign(&user, self.users.get(&user)?))
    }

    /// Returns the user of these credentials, if they are valid.
    fn user(&self, given: &Credentials) -> Option<String> {
        match given {
            Credentials::Basic(user, password) => self.is_valid(user, password).then(|| user.clone()),
            Credentials::Bearer(text) => {
                let token = token::parse(text)?;
                let user = token.user();
                let password = self.users.get(user).filter(|password| !password.is_empty())?;
                let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs_f64();
                (!user.is_empty() && token.verify(password, now)).then(|| user.to_owned())
            }
            Credentials::Nothing => None,
        }
    }

    /// Compares with every user, each in constant time, so that timing reveals nothing.
    fn is_valid(&self, user: &str, password: &str) -> bool {
        if user.is_empty() || password.is_empty() {
            return false;
        }
        let same = |a: &str, b: &str| a.as_bytes().ct_eq(b.as_bytes());
        let matches = self
            .users
            .iter()
            .map(|(name, secret)| same(name, user) & same(secret, password));
        matches.fold(Choice::from(0), |any, this| any | this).into()
    }
}

/// Credentials of a request, unverified.
enum Credentials {
    Basic(String, String),
    Bearer(String),
    Nothing,
}

impl Credentials {
    fn of(headers: &HeaderMap) -> Self {
        let given = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        if let Some((user, password)) = strip_scheme(given, "Basic ").and_then(decode_basic) {
            return Self::Basic(user, password);
        }
        match strip_scheme(given, "Bearer ") {
            Some(token) => Self::Bearer(token.trim().to_owned()),
            None => Self::Nothing,
        }
    }
}

const BASIC: &str = r#"Basic realm="Restricted IPFS Cluster API""#;
const BEARER: &str = r#"Bearer realm="Restricted IPFS Cluster API""#;
const INVALID_TOKEN: &str = r#"Bearer realm="Restricted IPFS Cluster API", error="invalid_token""#;

fn strip_scheme<'a>(given: &'a str, scheme: &str) -> Option<&'a str> {
    let (head, rest) = given.split_at_checked(scheme.len())?;
    head.eq_ignore_ascii_case(scheme).then_some(rest)
}

fn decode_basic(encoded: &str) -> Option<(String, String)> {
    let text = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

/// A request without valid credentials: the reason, and the challenges of the answer.
pub(super) struct Denied(&'static str, &'static [&'static str]);

impl Denied {
    /// Returns the answer, with a body that `error` builds.
    pub(super) fn response(&self, error: fn(StatusCode, &str) -> Response<Body>) -> Response<Body> {
        let Self(why, challenges) = self;
        let mut response = error(StatusCode::UNAUTHORIZED, why);
        for challenge in *challenges {
            response
                .headers_mut()
                .append(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::super::answer;
    use super::*;

    fn check(header: Option<&str>) -> Option<u16> {
        let users = BTreeMap::from([
            ("ann".to_owned(), "s:cret".to_owned()),
            ("nil".to_owned(), String::new()),
        ]);
        let mut request = Request::builder().uri("/id");
        if let Some(header) = header {
            request = request.header(AUTHORIZATION, header);
        }
        let request = request.body(()).unwrap();
        Auth::new(users).admit(&request).err().map(|denied| {
            denied
                .response(|status, why| answer::error(status, why))
                .status()
                .as_u16()
        })
    }

    #[test]
    fn tokens_are_valid_only_with_the_password_that_signed_them() {
        let bearer = |user: &str, password: &str| format!("Bearer {}", token::sign(user, password));
        assert_eq!(check(Some(&bearer("ann", "s:cret"))), None);
        for (user, password) in [("ann", "other"), ("bob", "s:cret"), ("nil", ""), ("", "")] {
            assert_eq!(check(Some(&bearer(user, password))), Some(401), "{user}");
        }
    }

    #[test]
    fn only_the_right_password_is_accepted() {
        let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
        assert_eq!(check(Some(&basic("ann:s:cret"))), None);
        assert_eq!(check(Some(&basic("ann:s:cret").replace("Basic", "basic"))), None);
        for text in ["ann:", "ann:s:cre", ":s:cret", "nil:", "bob:s:cret", "ann"] {
            assert_eq!(check(Some(&basic(text))), Some(401), "{text}");
        }
        for header in [
            None,
            Some(""),
            Some("Basic"),
            Some("Basic !!!"),
            Some("Bearer x"),
            Some("Bäsic é"),
        ] {
            assert_eq!(check(header), Some(401), "{header:?}");
        }
    }
}
