//! Calls: one stream each. The caller sends a head, the request and, for an upload, chunks; the peer sends
//! chunks; either ends with how it went. Both directions flow at the pace of their reader, and dropping
//! either end ends the call at the other.

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

/// The longest request of a member: long lists travel as chunks.
pub const REQUEST_MAX: usize = 1 << 20;

/// The longest request of somebody who is no member.
pub const STRANGER_REQUEST_MAX: usize = 64 << 10;

/// The longest chunk, in either direction. A mebibyte is as fast as any.
pub const CHUNK_MAX: usize = 8 << 20;

/// The longest name of a method.
const METHOD_MAX: usize = 64;

/// Read ahead of a call's stream. Long chunks are read past it.
const READ_AHEAD: usize = 4 << 10;

/// How long a call may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deadline {
    /// Everything, the way there and back included, within this time.
    Within(Duration),
    /// However long, as long as the peer is never silent for this time. For bulk and for streams.
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

/// Writes a value down for a call, when it is no longer than `max` bytes.
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

/// Reads a value that came with a call.
pub fn decode_value<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CallError> {
    decode(bytes).map_err(|error: DecodeError| CallError::Invalid(error.to_string()))
}
