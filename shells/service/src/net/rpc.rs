//! Calls: one stream each. The caller sends a head, the request and, for an upload, chunks; the peer sends
//! chunks; each side ends with success or a reason. Both directions flow at the pace of their reader, and
//! dropping either end ends the call at the other.

mod call;
mod incoming;

use std::time::Duration;

use cluster_core::{DecodeError, decode, encode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub(super) use call::open;
pub use call::{Call, CallSender};
pub(super) use incoming::serve;
pub use incoming::{Body, Incoming, Responder};

use super::error::CallError;
use super::shared::Origin;

/// Maximum size of a member's request, in bytes: long lists travel as chunks.
pub const REQUEST_MAX: usize = 1 << 20;

/// Maximum size of a non-member's request, in bytes.
pub const STRANGER_REQUEST_MAX: usize = 64 << 10;

/// Maximum size of a chunk in either direction, in bytes. Chunks over a mebibyte gain no speed.
pub const CHUNK_MAX: usize = 8 << 20;

/// Maximum length of a method's name, in bytes.
const METHOD_MAX: usize = 64;

/// Read-ahead of a call's stream. Long chunks bypass it.
const READ_AHEAD: usize = 4 << 10;

/// Time limit of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deadline {
    /// Limit on the whole call, the round trip included.
    Within(Duration),
    /// Limit on the peer's silence, for bulk and streams; the call as a whole has none.
    Silence(Duration),
}

impl Deadline {
    fn length(self) -> Duration {
        match self {
            Self::Within(length) | Self::Silence(length) => length,
        }
    }
}

/// The first frame of a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    origin: Origin,
    method: String,
}

/// Encodes a value for a call.
///
/// # Errors
/// [`CallError::Invalid`] when it is longer than `max` bytes.
pub fn encode_within<T: Serialize>(value: &T, max: usize) -> Result<Vec<u8>, CallError> {
    let bytes = encode(value);
    if bytes.len() > max {
        let size = bytes.len();
        return Err(CallError::Invalid(format!(
            "a value of {size} bytes is too long, at most {max} are sent"
        )));
    }
    Ok(bytes)
}

/// Decodes a value that came with a call.
///
/// # Errors
/// [`CallError::Invalid`] when the bytes are no such value.
pub fn decode_value<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CallError> {
    decode(bytes).map_err(|error: DecodeError| CallError::Invalid(error.to_string()))
}
