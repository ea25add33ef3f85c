//! Credentials of the cluster: tokens with scopes.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Time;
use crate::nullable::{is_zero, or_default};

/// A credential, without its token: item of `GET /auth/credentials`, response to
/// `DELETE /auth/credentials/{id}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Credential {
    /// Id: 16 hexadecimal digits, part of the token.
    pub id: String,
    /// Name, unique in the cluster.
    pub name: String,
    /// Scopes: `read`, `pin`, `add`, `admin`, `metrics`, `own`.
    #[serde(deserialize_with = "or_default")]
    pub scopes: Vec<String>,
    /// Time of its creation.
    pub created: Time,
    /// Time from which it is invalid; zero for never.
    pub expire_at: Time,
    /// Most requests per second at each peer; omitted if unlimited.
    #[serde(skip_serializing_if = "is_zero")]
    pub requests_per_second: u64,
    /// Most pins that it holds; omitted if unlimited.
    #[serde(skip_serializing_if = "is_zero")]
    pub max_pins: u64,
    /// Most bytes that it holds by uploads; omitted if unlimited.
    #[serde(skip_serializing_if = "is_zero")]
    pub max_bytes: u64,
}

/// Response to `GET /auth/credentials/{id}/usage`: what the owner of a credential with the scope `own` holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct CredentialUsage {
    /// Pins that it holds, as [`Credential::max_pins`] limits them.
    pub pins: u64,
    /// Bytes that it holds by uploads, as [`Credential::max_bytes`] limits them; omitted without that limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// Body of `POST /auth/credentials`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CredentialAdd {
    /// Name: 1 to 64 letters, digits, and `.`, `_`, `-`, `@`.
    pub name: String,
    /// Scopes; at least one.
    #[serde(deserialize_with = "or_default")]
    pub scopes: Vec<String>,
    /// Time from which it is invalid; zero for never.
    pub expire_at: Time,
    /// Most requests per second at each peer; 0 for no limit.
    #[serde(skip_serializing_if = "is_zero")]
    pub requests_per_second: u64,
    /// Most pins that it holds; 0 for no limit. Needs the scope `own`.
    #[serde(skip_serializing_if = "is_zero")]
    pub max_pins: u64,
    /// Most bytes that it holds by uploads; 0 for no limit. Needs `max_pins`.
    #[serde(skip_serializing_if = "is_zero")]
    pub max_bytes: u64,
}

/// Response to `POST /auth/credentials`.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct CredentialCreated {
    /// The new credential.
    pub credential: Credential,
    /// Its token, which is shown only here: to be sent as `Authorization: Bearer`, or as the password of
    /// basic authentication with the credential's name.
    pub token: String,
    /// Set if the API that was asked demands credentials. Otherwise anyone who reaches it may do everything.
    pub required: bool,
}

impl fmt::Debug for CredentialCreated {
    /// Hides the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CredentialCreated")
            .field("credential", &self.credential)
            .finish_non_exhaustive()
    }
}

/// Response to `GET /auth/self`: who makes the request, and what is permitted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Caller {
    /// Name of the user or credential; empty if the API needs none.
    pub name: String,
    /// Scopes, as in [`Credential::scopes`]; those that a scope includes are listed too.
    #[serde(deserialize_with = "or_default")]
    pub scopes: Vec<String>,
}
