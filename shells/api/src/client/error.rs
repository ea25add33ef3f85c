//! Why a request failed.

use crate::Error;
use std::time::Duration;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The service answered with an error, or its stream ended with one (code 500).
    #[error("{0}")]
    Api(Error),
    /// No service could be reached.
    #[error("{0}")]
    Unreachable(String),
    /// The connection broke, or what came is no HTTP.
    #[error("{method} {url}: {reason}")]
    Broken {
        /// The method asked for.
        method: String,
        /// Where.
        url: String,
        /// What happened.
        reason: String,
    },
    /// The time allowed ran out.
    #[error("{method} {url}: no complete answer within {limit:?}: context deadline exceeded")]
    TimedOut {
        /// The method asked for.
        method: String,
        /// Where.
        url: String,
        /// The time allowed.
        limit: Duration,
    },
    /// An answer that is not what it should be.
    #[error("{method} {url}: cannot make sense of the answer: {reason}")]
    Nonsense {
        /// The method asked for.
        method: String,
        /// Where.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An address that cannot be used.
    #[error("cannot use host {host:?}: {why}")]
    BadHost {
        /// What was given.
        host: String,
        /// What is wrong with it.
        why: String,
    },
    /// TLS was asked for, and cannot be prepared.
    #[error("cannot use TLS: {0}")]
    Tls(String),
    /// A file to be added cannot be read.
    #[error("{path}: {reason}")]
    File {
        /// The file, directory or URL.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl ClientError {
    /// Whether the time allowed ran out.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::TimedOut { .. })
    }

    /// The error as the REST API would say it; the code is 0 if no service said it.
    pub fn to_api(&self) -> Error {
        match self {
            Self::Api(error) => error.clone(),
            Self::Unreachable(_)
            | Self::Broken { .. }
            | Self::TimedOut { .. }
            | Self::Nonsense { .. }
            | Self::BadHost { .. }
            | Self::Tls(_)
            | Self::File { .. } => Error {
                code: 0,
                message: self.to_string(),
            },
        }
    }
}
