//! Errors of the client.

use crate::Error;
use std::time::Duration;

/// Error of a request.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Error response of the service, or an error at the end of a stream (code 500).
    #[error("{0}")]
    Api(Error),
    /// No host accepted a connection.
    #[error("{0}")]
    Unreachable(String),
    /// The connection failed after the request was sent, or the response is not HTTP.
    #[error("{method} {url}: {reason}")]
    Broken {
        /// HTTP method of the request.
        method: String,
        /// URL of the request.
        url: String,
        /// Cause, for people.
        reason: String,
    },
    /// The time limit expired.
    #[error("{method} {url}: no complete answer within {limit:?}: context deadline exceeded")]
    TimedOut {
        /// HTTP method of the request.
        method: String,
        /// URL of the request.
        url: String,
        /// [`Options::timeout`](super::Options::timeout).
        limit: Duration,
    },
    /// The response is not of the expected form.
    #[error("{method} {url}: cannot make sense of the answer: {reason}")]
    Nonsense {
        /// HTTP method of the request.
        method: String,
        /// URL of the request.
        url: String,
        /// Cause, for people.
        reason: String,
    },
    /// The address of a host is unusable.
    #[error("cannot use host {host:?}: {why}")]
    BadHost {
        /// The address as given.
        host: String,
        /// Reason, for people.
        why: String,
    },
    /// The token has characters that cannot be in a header; it is not shown.
    #[error("the token has spaces, line breaks or other characters that no token has")]
    BadToken,
    /// TLS was requested, and the trusted certificates cannot be loaded.
    #[error("cannot use TLS: {0}")]
    Tls(String),
    /// A file to add cannot be read.
    #[error("{path}: {reason}")]
    File {
        /// File, directory or URL.
        path: String,
        /// Cause, for people.
        reason: String,
    },
}

impl ClientError {
    /// Returns whether the time limit expired.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::TimedOut { .. })
    }

    /// Converts to the REST API's error; the code is 0 if the error is not from the service.
    pub fn to_api(&self) -> Error {
        if let Self::Api(error) = self {
            return error.clone();
        }
        Error {
            code: 0,
            message: self.to_string(),
        }
    }
}
