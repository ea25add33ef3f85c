//! Failures of the tool and their exit codes.

use crate::args::Encoding;
use cluster_api::{ClientError, Error, terminal};
use cluster_http::json;
use std::fmt;
use std::io;

/// Exit code for wrong arguments, unreadable files, and no answer from the service.
pub(crate) const LOCAL: u8 = 1;
/// Exit code for an error response of the service.
pub(crate) const ANSWERED: u8 = 2;
/// Exit code for an unknown command.
pub(crate) const NO_SUCH_COMMAND: u8 = 3;
/// Exit code for an expired time limit (`ETIME`).
pub(crate) const TIMED_OUT: u8 = 62;
/// Exit code for a closed output pipe: that of a process killed by `SIGPIPE`.
pub(crate) const BROKEN_PIPE: u8 = 141;

/// Failure that ends the tool.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Local failure, reported on standard error.
    Local {
        /// Action that failed: `parsing cid`, ….
        doing: &'static str,
        /// Reason, for people.
        error: String,
    },
    /// Failed request, reported on standard output in the requested encoding.
    Request(ClientError),
    /// Number of pins that were not imported; each was reported.
    Incomplete(u64),
    /// Timeout of `--wait`.
    WaitedTooLong(&'static str),
    /// The output cannot be written.
    Output(io::Error),
}

impl Failure {
    /// Creates a [`Failure::Local`].
    pub(crate) fn local(doing: &'static str, error: impl fmt::Display) -> Self {
        Self::Local {
            doing,
            error: error.to_string(),
        }
    }

    /// Prints the failure: responses of the service on standard output, all else on standard error.
    pub(crate) fn print(&self, encoding: Encoding) {
        match self {
            Self::Local { doing, error } => print_stderr(format_args!("error {doing}: {error}")),
            Self::Incomplete(failed) => {
                print_stderr(format_args!("error importing pins: {failed} failed, see above"));
            }
            Self::WaitedTooLong(doing) => {
                print_stderr(format_args!("error {doing}: context deadline exceeded"));
            }
            Self::Request(error @ ClientError::BadHost { .. }) => {
                print_stderr(format_args!("error parsing host multiaddress: {error}"));
            }
            Self::Request(error @ ClientError::Tls(_)) => {
                print_stderr(format_args!("error preparing TLS: {error}"));
            }
            Self::Request(ClientError::File { path, reason }) => {
                print_stderr(format_args!("error adding: {path}: {reason}"));
            }
            Self::Request(error) => {
                use io::Write;
                let text = describe(&error.to_api(), encoding);
                // A failure of standard output cannot be reported anywhere.
                let _ = io::stdout().write_all(text.as_bytes());
            }
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Self::Output(error) => print_stderr(format_args!("error writing output: {error}")),
        }
    }

    /// Returns the exit code.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Local { .. } => LOCAL,
            Self::WaitedTooLong(_) => TIMED_OUT,
            Self::Request(error) if error.is_timeout() => TIMED_OUT,
            Self::Incomplete(_) | Self::Request(ClientError::Api(_)) => ANSWERED,
            Self::Request(_) => LOCAL,
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => BROKEN_PIPE,
            Self::Output(_) => LOCAL,
        }
    }
}

/// Prints one line on standard error, escaped, because parts of it may come from the service.
pub(crate) fn print_stderr(text: fmt::Arguments<'_>) {
    eprintln!("{}", terminal::line(text));
}

/// Formats an error.
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
            // A number and a text can always be encoded.
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
