//! The one error of this package's two backends.

use std::fmt;

/// Why an IPFS node did not do what it was asked, in the words a caller can act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Nothing answers at its address, or the connection broke before the answer was complete.
    Unreachable,
    /// The node understood and said no; its own words are the message.
    Refused,
    /// No answer, or no progress, within the time the configuration allows.
    TimedOut,
    /// The request was given up on purpose: by its caller, or because the node shuts down.
    Cancelled,
    /// The node has no room for what it was asked to keep.
    StorageFull,
    /// What came back is not what the RPC API promises: another service listens there, or a damaged answer.
    BadAnswer,
}

impl Cause {
    /// Whether the same request may succeed later without anyone changing it.
    pub fn is_temporary(self) -> bool {
        match self {
            Cause::Unreachable | Cause::TimedOut | Cause::StorageFull => true,
            Cause::Refused | Cause::Cancelled | Cause::BadAnswer => false,
        }
    }
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

/// A request to an IPFS node that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("ipfs {request}: {message}")]
pub struct Error {
    cause: Cause,
    request: String,
    message: String,
}

impl Error {
    /// An error of `request` (an RPC command such as `pin/add`) with the node's or our own words.
    pub fn new(cause: Cause, request: impl Into<String>, message: impl Into<String>) -> Self {
        Error {
            cause,
            request: request.into(),
            message: message.into(),
        }
    }

    /// An error in the node's own words, from which the cause is told: Kubo has no codes for them.
    pub fn from_message(request: impl Into<String>, message: impl Into<String>) -> Self {
        let message = message.into();
        Error {
            cause: cause_of(&message),
            request: request.into(),
            message,
        }
    }

    /// What kind of failure it is.
    pub fn cause(&self) -> Cause {
        self.cause
    }

    /// The RPC command that failed, such as `pin/add`.
    pub fn request(&self) -> &str {
        &self.request
    }

    /// What went wrong, without the command; the node's own words when it was the node that refused.
    pub fn message(&self) -> &str {
        &self.message
    }
}

/// Kubo reports everything as text; these are the texts of Go's runtime and of the kernel that matter to a
/// caller. Anything else is a refusal.
fn cause_of(message: &str) -> Cause {
    const SIGNS: [(&str, Cause); 6] = [
        ("no space left on device", Cause::StorageFull),
        ("disk quota exceeded", Cause::StorageFull),
        ("storage limit", Cause::StorageFull),
        ("context deadline exceeded", Cause::TimedOut),
        ("request timed out", Cause::TimedOut),
        ("context canceled", Cause::Cancelled),
    ];
    SIGNS
        .iter()
        .find(|(sign, _)| message.contains(sign))
        .map_or(Cause::Refused, |(_, cause)| *cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_is_read_from_the_nodes_own_words() {
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
    fn an_error_names_the_request_and_keeps_the_message_apart() {
        let error = Error::from_message("pin/rm", "not pinned or pinned indirectly");
        assert_eq!(error.to_string(), "ipfs pin/rm: not pinned or pinned indirectly");
        assert_eq!(error.message(), "not pinned or pinned indirectly");
    }
}
