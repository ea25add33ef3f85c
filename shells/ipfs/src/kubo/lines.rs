//! Answers that are a stream of JSON objects, one per line, with a possible error in the trailer.

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::Deserialize;

use super::transport::{Deadline, bad_answer, error_chain, stream_error};
use crate::backend::{Cause, Error};

/// Maximum length of a line, in bytes. A line holds one pin or one key; even the longest name of a pin fits
/// easily.
const LINE_MAX: usize = 64 * 1024;

/// Reads line by line; holds one chunk and one line at most.
#[derive(Debug)]
pub(super) struct Lines {
    command: String,
    body: Incoming,
    deadline: Deadline,
    buffer: BytesMut,
    /// Length of the prefix of `buffer` known to hold no line end.
    searched: usize,
    ended: bool,
}

/// Error object in place of a value: proxies write one in mid-stream.
#[derive(Deserialize)]
struct ErrorLine {
    #[serde(rename = "Message")]
    message: String,
    #[serde(rename = "Type")]
    kind: String,
}

impl Lines {
    pub(super) fn new(command: &str, body: Incoming, deadline: Deadline) -> Self {
        Lines {
            command: command.to_owned(),
            body,
            deadline,
            buffer: BytesMut::new(),
            searched: 0,
            ended: false,
        }
    }

    /// Returns the next object, `None` at a proper end. An error ends the stream.
    pub(super) async fn next<T: for<'de> Deserialize<'de>>(&mut self) -> Result<Option<T>, Error> {
        let Some(line) = self.next_line().await? else {
            return Ok(None);
        };
        if let Ok(ErrorLine { message, kind }) = serde_json::from_slice(&line)
            && kind == "error"
        {
            return Err(Error::from_message(&self.command, message));
        }
        match serde_json::from_slice(&line) {
            Ok(value) => Ok(Some(value)),
            Err(error) => Err(bad_answer(&self.command, &line, &error)),
        }
    }

    /// Records progress beyond the arrival of a line: restarts limits of silence.
    pub(super) fn progressed(&mut self) {
        self.deadline.progressed();
    }

    async fn next_line(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            if let Some(line) = self.take_line() {
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return Ok(Some(line));
            }
            if self.ended {
                return Ok(None);
            }
            if self.buffer.len() > LINE_MAX {
                let message = format!("a line is longer than {LINE_MAX} bytes");
                return Err(Error::new(Cause::BadAnswer, &self.command, message));
            }
            self.read_more().await?;
        }
    }

    fn take_line(&mut self) -> Option<Bytes> {
        if let Some(at) = self.buffer[self.searched..]
            .iter()
            .position(|byte| *byte == b'\n')
        {
            let line = self.buffer.split_to(self.searched + at).freeze();
            self.buffer.advance(1);
            self.searched = 0;
            return Some(line);
        }
        self.searched = self.buffer.len();
        if self.ended && !self.buffer.is_empty() {
            self.searched = 0;
            return Some(self.buffer.split().freeze());
        }
        None
    }

    async fn read_more(&mut self) -> Result<(), Error> {
        let deadline = self.deadline;
        let frame = deadline
            .wait(&self.command, async { Ok(self.body.frame().await) })
            .await?;
        let frame = match frame {
            None => {
                self.ended = true;
                return Ok(());
            }
            Some(Err(error)) => {
                let message = format!("the connection broke: {}", error_chain(&error));
                return Err(Error::new(Cause::Unreachable, &self.command, message));
            }
            Some(Ok(frame)) => frame,
        };
        if let Some(trailers) = frame.trailers_ref() {
            if let Some(error) = stream_error(&self.command, trailers) {
                return Err(error);
            }
        } else if let Ok(data) = frame.into_data() {
            self.buffer.extend_from_slice(&data);
        }
        Ok(())
    }
}
