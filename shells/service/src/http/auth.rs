//! Authentication of requests: user names with passwords (Basic) or JWTs signed with them (Bearer), as in the
//! Go peer, and tokens of the cluster's credentials, in either form.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::http::header::{AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::http::{Method, Request, Response, StatusCode};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cluster_core::{Credential, Scope};
use subtle::{Choice, ConstantTimeEq};

use super::scopes::ErrorBody;
use super::{page, token};
use crate::cluster::{Cluster, TokenError, is_token};

/// Author of a request.
#[derive(Debug, Clone)]
pub(super) enum Caller {
    /// Holder of a token.
    Credential(Box<Credential>),
    /// Anyone: the API demands no credentials.
    Anyone,
    /// Nobody: only what is public needs no credentials.
    Nobody,
    /// Configured user.
    User(String),
}

impl Caller {
    /// Returns the name of the user or credential.
    pub(super) fn name(&self) -> Option<&str> {
        match self {
            Self::Credential(credential) => Some(&credential.name),
            Self::User(name) => Some(name),
            Self::Anyone | Self::Nobody => None,
        }
    }

    /// Returns whether the caller may do what needs `scope`.
    pub(super) fn may(&self, scope: Scope) -> bool {
        match self {
            Self::Credential(credential) => credential.scopes.iter().any(|own| own.includes(scope)),
            Self::Anyone | Self::User(_) => Scope::Admin.includes(scope),
            Self::Nobody => false,
        }
    }

    /// Iterates over all scopes that the caller has.
    pub(super) fn scopes(&self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(|scope| self.may(*scope))
    }

    /// Returns the operations as the caller may use them.
    pub(super) fn acting(&self, cluster: &Cluster) -> Cluster {
        match self {
            Self::Credential(credential) => cluster.acting_as(credential),
            Self::Anyone | Self::Nobody | Self::User(_) => cluster.clone(),
        }
    }

    /// Returns whether the API demands no credentials of this caller.
    pub(super) fn is_open(&self) -> bool {
        matches!(self, Self::Anyone)
    }
}

/// Extractor of the operations as the caller of a request may use them: a credential with the scope `own`
/// on its own pins only. Handlers of routes for pins take these, and not the router's state.
pub(super) struct Acting(pub(super) Cluster);

impl FromRequestParts<Cluster> for Acting {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, cluster: &Cluster) -> Result<Self, Infallible> {
        let caller = parts.extensions.get::<Caller>();
        Ok(Self(caller.unwrap_or(&Caller::Nobody).acting(cluster)))
    }
}

/// The credentials that an API accepts.
pub(super) struct Auth {
    users: BTreeMap<String, String>,
    /// Set if requests without credentials are refused.
    is_required: bool,
    cluster: Cluster,
}

impl Auth {
    /// With `users`, requests need credentials; without, only if `is_required`.
    pub(super) fn new(cluster: Cluster, users: Option<BTreeMap<String, String>>, is_required: bool) -> Self {
        Self {
            is_required: is_required || users.is_some(),
            users: users.unwrap_or_default(),
            cluster,
        }
    }

    /// Returns who makes the request, or why it is denied. Preflight requests, which carry no credentials,
    /// `/health` and `/health/ready`, for load balancers, and the files of the page are admitted as nobody.
    pub(super) fn admit<B>(&self, request: &Request<B>) -> Result<Caller, Denied> {
        if request.method() == Method::OPTIONS
            || page::is_public(request)
            || ["/health", "/health/ready"].contains(&request.uri().path())
        {
            return Ok(Caller::Nobody);
        }
        self.authenticate(request.headers())
    }

    /// Returns who sends these headers. A token is verified even if credentials are not required, so that it
    /// permits the same everywhere.
    pub(super) fn authenticate(&self, headers: &HeaderMap) -> Result<Caller, Denied> {
        let given = Credentials::of(headers);
        match &given {
            Credentials::Bearer(text) if is_token(text) => return self.holder(text),
            Credentials::Basic(name, text) if is_token(text) => {
                let holder = self.holder(text)?;
                if holder.name() == Some(name) {
                    return Ok(holder);
                }
                return Err(Denied::Password);
            }
            Credentials::Basic(..) | Credentials::Bearer(_) | Credentials::Nothing => {}
        }
        if !self.is_required {
            return Ok(Caller::Anyone);
        }
        match self.user(&given) {
            Some(user) => Ok(Caller::User(user)),
            None => Err(match given {
                Credentials::Basic(..) => Denied::Password,
                Credentials::Bearer(_) => Denied::Token(TokenError::Unknown),
                Credentials::Nothing => Denied::Missing,
            }),
        }
    }

    fn holder(&self, token: &str) -> Result<Caller, Denied> {
        let verified = self.cluster.verify_token(token).map_err(Denied::Token)?;
        Ok(Caller::Credential(Box::new(verified)))
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

/// Reason for which a request is denied.
#[derive(Debug)]
pub(super) enum Denied {
    /// It has no credentials.
    Missing,
    /// The password is not the user's.
    Password,
    /// The token is not accepted.
    Token(TokenError),
}

impl Denied {
    /// Returns the label of the reason in metrics.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Missing | Self::Password | Self::Token(TokenError::Unknown) => "unauthorized",
            Self::Token(TokenError::Expired { .. }) => "expired",
            Self::Token(TokenError::TooManyRequests { .. }) => "rate",
        }
    }

    /// Returns the reason, for display; without secrets.
    pub(super) fn why(&self) -> String {
        match self {
            Self::Missing => "unauthorized: no auth provided".to_owned(),
            Self::Password => "unauthorized: access denied".to_owned(),
            Self::Token(why @ TokenError::TooManyRequests { .. }) => why.to_string(),
            Self::Token(why) => format!("unauthorized: {why}"),
        }
    }

    /// Returns the answer, with a body that `error` builds.
    pub(super) fn response(&self, error: ErrorBody) -> Response<Body> {
        let (status, challenges): (_, &[_]) = match self {
            Self::Missing => (StatusCode::UNAUTHORIZED, &[BEARER, BASIC]),
            Self::Password => (StatusCode::UNAUTHORIZED, &[BASIC]),
            Self::Token(TokenError::TooManyRequests { .. }) => (StatusCode::TOO_MANY_REQUESTS, &[]),
            Self::Token(_) => (StatusCode::UNAUTHORIZED, &[INVALID_TOKEN]),
        };
        let mut response = error(status, &self.why());
        let headers = response.headers_mut();
        for challenge in challenges {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if status == StatusCode::TOO_MANY_REQUESTS {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::super::answer;
    use super::*;
    use crate::cluster::testing::TestCluster;

    fn check(test: &TestCluster, header: Option<&str>) -> Option<u16> {
        let users = BTreeMap::from([
            ("ann".to_owned(), "s:cret".to_owned()),
            ("nil".to_owned(), String::new()),
        ]);
        let mut request = Request::builder().uri("/id");
        if let Some(header) = header {
            request = request.header(AUTHORIZATION, header);
        }
        let request = request.body(()).unwrap();
        let auth = Auth::new(test.cluster(1), Some(users), false);
        auth.admit(&request).err().map(|denied| {
            denied
                .response(|status, why| answer::error(status, why))
                .status()
                .as_u16()
        })
    }

    #[tokio::test]
    async fn tokens_are_valid_only_with_the_password_that_signed_them() {
        let test = TestCluster::new(1).await;
        let bearer = |user: &str, password: &str| format!("Bearer {}", token::sign(user, password));
        assert_eq!(check(&test, Some(&bearer("ann", "s:cret"))), None);
        for (user, password) in [("ann", "other"), ("bob", "s:cret"), ("nil", ""), ("", "")] {
            assert_eq!(check(&test, Some(&bearer(user, password))), Some(401), "{user}");
        }
    }

    #[tokio::test]
    async fn only_the_right_password_is_accepted() {
        let test = TestCluster::new(1).await;
        let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
        assert_eq!(check(&test, Some(&basic("ann:s:cret"))), None);
        assert_eq!(
            check(&test, Some(&basic("ann:s:cret").replace("Basic", "basic"))),
            None
        );
        for text in ["ann:", "ann:s:cre", ":s:cret", "nil:", "bob:s:cret", "ann"] {
            assert_eq!(check(&test, Some(&basic(text))), Some(401), "{text}");
        }
        for header in [
            None,
            Some(""),
            Some("Basic"),
            Some("Basic !!!"),
            Some("Bearer x"),
            Some("Bäsic é"),
        ] {
            assert_eq!(check(&test, header), Some(401), "{header:?}");
        }
    }
}
