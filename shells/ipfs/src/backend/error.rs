//! [`Error`]: the error type of both kinds of node.

use std::fmt;

/// Kind of failure of a request to an IPFS node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// No connection to its address, or the connection broke before the answer was complete.
    Unreachable,
    /// The node refused the request, with its own message.
    Refused,
    /// No answer, or no progress, within the configured time.
    TimedOut,
    /// Cancelled by the caller, or because the node shuts down.
    Cancelled,
    /// The node has no storage left for the request.
    StorageFull,
    /// The answer violates the RPC API: another service listens there, or the answer is damaged.
    BadAnswer,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Cause::Unreachable => "unreachable",
            Cause::Refused => "refused",
            Cause::TimedOut => "timed out",
            Cause::Cancelled => "cancelled",
            Cause::StorageFull => "storage full",
            Cause::BadAnswer => "bad answer",
        })
    }
}

/// A failed request to an IPFS node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("ipfs {request}: {message}")]
pub struct Error {
    cause: Cause,
    request: String,
    message: String,
}

impl Error {
    /// Creates an error of `request` (an RPC command such as `pin/add`).
    pub fn new(cause: Cause, request: impl Into<String>, message: impl Into<String>) -> Self {
        Error {
            cause,
            request: request.into(),
            message: message.into(),
        }
    }

    /// Creates an error from the node's message. The cause is derived from the text: Kubo has no error codes.
    pub fn from_message(request: impl Into<String>, message: impl Into<String>) -> Self {
        let message = message.into();
        Error {
            cause: cause_of(&message),
            request: request.into(),
            message,
        }
    }

    /// Returns the kind of failure.
    pub fn cause(&self) -> Cause {
        self.cause
    }

    /// Returns the RPC command that failed, such as `pin/add`.
    pub fn request(&self) -> &str {
        &self.request
    }

    /// Returns the message without the command; the node's own text if the node refused.
    pub fn message(&self) -> &str {
        &self.message
    }
}

/// Derives the cause from texts of Go's runtime and of the kernel, which Kubo passes on. Any other text is a
/// refusal.
fn cause_of(message: &str) -> Cause {
    const PATTERNS: [(&str, Cause); 6] = [
        ("no space left on device", Cause::StorageFull),
        ("disk quota exceeded", Cause::StorageFull),
        ("storage limit", Cause::StorageFull),
        ("context deadline exceeded", Cause::TimedOut),
        ("request timed out", Cause::TimedOut),
        ("context canceled", Cause::Cancelled),
    ];
    PATTERNS
        .iter()
        .find(|(sign, _)| message.contains(sign))
        .map_or(Cause::Refused, |(_, cause)| *cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cause_is_derived_from_the_message() {
        for (message, cause) in [
            ("pin: context deadline exceeded", Cause::TimedOut),
            (
                "write /data/blocks/X: no space left on device",
                Cause::StorageFull,
            ),
            ("context canceled", Cause::Cancelled),
            ("not pinned or pinned indirectly", Cause::Refused),
        ] {
            assert_eq!(
                Error::from_message("pin/add", message).cause(),
                cause,
                "{message}"
            );
        }
    }

    #[test]
    fn error_names_the_request_before_the_message() {
        let error = Error::from_message("pin/rm", "not pinned or pinned indirectly");
        assert_eq!(error.to_string(), "ipfs pin/rm: not pinned or pinned indirectly");
        assert_eq!(error.message(), "not pinned or pinned indirectly");
    }
}
