//! Error and token bodies.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The body of every answer whose status is 400 or more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Error {
    /// The HTTP status; 0 when there was no answer at all.
    pub code: u16,
    /// What went wrong, for a person.
    pub message: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}

impl std::error::Error for Error {}

/// The answer of `POST /token`.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// A signed JWT, to be sent as `Authorization: Bearer`.
    pub token: String,
}

impl fmt::Debug for Token {
    /// Never the token itself: it is as good as a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}
