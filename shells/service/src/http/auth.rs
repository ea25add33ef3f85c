//! Who may use the API: user names with passwords.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::http::header::{AUTHORIZATION, HeaderValue, WWW_AUTHENTICATE};
use axum::http::{Method, Request, Response, StatusCode};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use subtle::{Choice, ConstantTimeEq};

use super::answer;

/// The users.
pub(super) struct Auth {
    users: BTreeMap<String, String>,
}

impl Auth {
    pub(super) fn new(users: BTreeMap<String, String>) -> Self {
        Self { users }
    }

    /// How to answer a request that may not pass. Preflight requests of web pages carry no credentials,
    /// and `/health` is for load balancers.
    pub(super) fn denial<B>(&self, request: &Request<B>) -> Option<Response<Body>> {
        if request.method() == Method::OPTIONS || request.uri().path() == "/health" {
            return None;
        }
        let given = request
            .headers()
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        let basic = given
            .and_then(|given| after(given, "Basic "))
            .and_then(credentials);
        let bearer = given.and_then(|given| after(given, "Bearer "));
        match (basic, bearer) {
            (Some((user, password)), _) if self.knows(&user, &password) => None,
            (Some(_), _) => Some(denied("unauthorized: access denied", &[BASIC])),
            (None, Some(_)) => Some(denied("unauthorized: invalid token", &[INVALID_TOKEN])),
            (None, None) => Some(denied("unauthorized: no auth provided", &[BEARER, BASIC])),
        }
    }

    /// Compares with every user, each in constant time, so that the time tells nothing.
    fn knows(&self, user: &str, password: &str) -> bool {
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

const BASIC: &str = r#"Basic realm="Restricted IPFS Cluster API""#;
const BEARER: &str = r#"Bearer realm="Restricted IPFS Cluster API""#;
const INVALID_TOKEN: &str = r#"Bearer realm="Restricted IPFS Cluster API", error="invalid_token""#;

fn after<'a>(given: &'a str, scheme: &str) -> Option<&'a str> {
    let (head, rest) = given.split_at_checked(scheme.len())?;
    head.eq_ignore_ascii_case(scheme).then_some(rest)
}

fn credentials(encoded: &str) -> Option<(String, String)> {
    let text = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

fn denied(why: &str, challenges: &[&'static str]) -> Response<Body> {
    let mut response = answer::error(StatusCode::UNAUTHORIZED, why);
    for challenge in challenges {
        response
            .headers_mut()
            .append(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
    response
}

#[cfg(test)]
mod tests {
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
        Auth::new(users)
            .denial(&request)
            .map(|denied| denied.status().as_u16())
    }

    #[test]
    fn the_right_password_opens_and_nothing_else() {
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
