//! How the tool fails, and what it exits with.

use crate::args::Encoding;
use cluster_api::{ClientError, Error, json, terminal};
use std::fmt;
use std::io;

/// Arguments, files, or no answer from the service.
pub(crate) const LOCAL: u8 = 1;
/// The service answered with an error.
pub(crate) const ANSWERED: u8 = 2;
/// There is no such command.
pub(crate) const NO_SUCH_COMMAND: u8 = 3;
/// The time allowed ran out (`ETIME`).
pub(crate) const TIMED_OUT: u8 = 62;
/// Nobody reads the output any more (what `SIGPIPE` would have made of it).
pub(crate) const BROKEN_PIPE: u8 = 141;

/// Why the tool ends early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Something here: said on standard error.
    Local {
        /// `parsing cid`, ….
        doing: &'static str,
        /// What is wrong.
        error: String,
    },
    /// A request failed: said on standard output, in the encoding asked for.
    Request(ClientError),
    /// Waiting took longer than allowed.
    WaitedTooLong(&'static str),
    /// The output cannot be written.
    Output(io::Error),
}

impl Failure {
    /// Something here.
    pub(crate) fn local(doing: &'static str, error: impl fmt::Display) -> Self {
        Self::Local {
            doing,
            error: error.to_string(),
        }
    }

    /// Prints it: on standard output what the service answered, on standard error all else.
    pub(crate) fn tell(&self, encoding: Encoding) {
        match self {
            Self::Local { doing, error } => say(format_args!("error {doing}: {error}")),
            Self::WaitedTooLong(doing) => say(format_args!("error {doing}: context deadline exceeded")),
            Self::Request(error @ ClientError::BadHost { .. }) => {
                say(format_args!("error parsing host multiaddress: {error}"));
            }
            Self::Request(error @ ClientError::Tls(_)) => say(format_args!("error preparing TLS: {error}")),
            Self::Request(ClientError::File { path, reason }) => {
                say(format_args!("error adding: {path}: {reason}"));
            }
            Self::Request(error) => {
                use io::Write;
                let text = describe(&error.to_api(), encoding);
                // There is no other place to say it.
                let _ = io::stdout().write_all(text.as_bytes());
            }
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Self::Output(error) => say(format_args!("error writing output: {error}")),
        }
    }

    /// What the process ends with.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Local { .. } => LOCAL,
            Self::WaitedTooLong(_) => TIMED_OUT,
            Self::Request(error) if error.is_timeout() => TIMED_OUT,
            Self::Request(ClientError::Api(_)) => ANSWERED,
            Self::Request(_) => LOCAL,
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => BROKEN_PIPE,
            Self::Output(_) => LOCAL,
        }
    }
}

/// Prints one line on standard error, escaped: parts of it may come from the service.
pub(crate) fn say(text: fmt::Arguments<'_>) {
    eprintln!("{}", terminal::line(text));
}

/// An error as it is shown.
fn describe(error: &Error, encoding: Encoding) -> String {
    match encoding {
        Encoding::Text => {
            let message = terminal::line(&error.message);
            format!(
                "An error occurred:\n  Code: {}\n  Message: {message}\n",
                error.code
            )
        }
        Encoding::Json => {
            // An error is a number and a text, which is always JSON.
            let text = json::to_string_indented(error, "    ").unwrap_or_default();
            terminal::json(&text).into_owned() + "\n"
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::Request(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}
