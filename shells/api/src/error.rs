//! Error and token bodies.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Body of every response with status 400 or above.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Error {
    /// HTTP status; 0 if there was no response.
    pub code: u16,
    /// Description for people.
    pub message: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}

impl std::error::Error for Error {}

/// Response to `POST /token`.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Token {
    /// Signed JWT, to be sent as `Authorization: Bearer`.
    pub token: String,
}

impl fmt::Debug for Token {
    /// Hides the token, which is as good as a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}
