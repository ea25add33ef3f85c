//! Responses: one value, or a stream of lines that may end in an error.

use super::{ClientError, Exchange};
use crate::Error;
use bytes::{Buf, Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Response, StatusCode};
use serde::de::DeserializeOwned;
use std::marker::PhantomData;
use std::time::Duration;
use tokio::time::Instant;

/// Bytes of one line. The longest is a pin's status at every peer, half a kilobyte per peer.
const LINE_MAX: usize = 16 * 1024 * 1024;
/// Bytes of a single value. The longest lists the blocks removed by garbage collection, 80 bytes each.
const VALUE_MAX: usize = 512 * 1024 * 1024;

/// A decoded value and its JSON text.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer<T> {
    /// Decoded value.
    pub value: T,
    /// JSON as the service wrote it, with fields unknown to this version.
    pub text: String,
}

/// Response whose status is known and whose body is not yet read.
pub(super) struct Reply {
    pub(super) exchange: Exchange,
    pub(super) response: Response<Incoming>,
    /// End of the time limit, and the limit itself.
    pub(super) deadline: Option<(Instant, Duration)>,
}

impl Reply {
    /// Decodes the body as one value.
    pub(super) async fn value<T: DeserializeOwned>(mut self) -> Result<Answer<T>, ClientError> {
        let text = self.text().await?;
        let value = serde_json::from_str(&text).map_err(|e| self.exchange.nonsense(&e))?;
        Ok(Answer {
            value,
            text: text.trim().to_owned(),
        })
    }

    /// Discards the body, so that the connection can be reused.
    pub(super) async fn nothing(mut self) -> Result<(), ClientError> {
        self.text().await.map(drop)
    }

    /// Decodes the body as an error.
    pub(super) async fn error(mut self) -> ClientError {
        let status = self.response.status().as_u16();
        let text = match self.text().await {
            Ok(text) => text,
            Err(error) => return error,
        };
        let parsed = serde_json::from_str::<Error>(&text).ok();
        ClientError::Api(match parsed {
            Some(error) if error.code >= 400 => error,
            Some(error) => Error {
                code: status,
                message: error.message,
            },
            None => Error {
                code: status,
                message: text.trim_end().to_owned(),
            },
        })
    }

    /// Decodes the body line by line, as it arrives.
    pub(super) fn lines<T: DeserializeOwned>(self) -> Lines<T> {
        let over = self.response.status() == StatusCode::NO_CONTENT;
        Lines {
            reply: self,
            buffer: BytesMut::new(),
            searched: 0,
            over,
            value: PhantomData,
        }
    }

    async fn text(&mut self) -> Result<String, ClientError> {
        let mut all = BytesMut::new();
        while let Some(frame) = self.frame().await? {
            if let Ok(data) = frame.into_data() {
                all.extend_from_slice(&data);
            }
            if all.len() > VALUE_MAX {
                return Err(self
                    .exchange
                    .nonsense(&format!("it is longer than {VALUE_MAX} bytes")));
            }
        }
        String::from_utf8(all.into()).map_err(|e| self.exchange.nonsense(&e))
    }

    async fn frame(&mut self) -> Result<Option<hyper::body::Frame<Bytes>>, ClientError> {
        let next = self.response.body_mut().frame();
        let frame = match self.deadline {
            None => next.await,
            Some((at, limit)) => tokio::time::timeout_at(at, next)
                .await
                .map_err(|_| self.exchange.timed_out(limit))?,
        };
        frame.transpose().map_err(|e| self.exchange.broken(&e))
    }
}

/// Stream of the values of a listing.
pub struct Lines<T> {
    reply: Reply,
    buffer: BytesMut,
    /// Number of bytes at the start of `buffer` known to contain no line feed.
    searched: usize,
    over: bool,
    value: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Lines<T> {
    /// Returns the value of the parameter `cursor` that continues the listing; `None` at its end.
    pub fn next_cursor(&self) -> Option<String> {
        let value = self.reply.response.headers().get("x-next-cursor")?;
        value.to_str().ok().map(str::to_owned)
    }

    /// Returns the next value, or `None` after the last.
    ///
    /// # Errors
    /// As for all requests of [`Client`](super::Client). An error ends the listing; the service may report it
    /// after the last value (trailer `X-Stream-Error`), as [`ClientError::Api`] with code 500.
    pub async fn next(&mut self) -> Result<Option<Answer<T>>, ClientError> {
        loop {
            if let Some(line) = self.take_line()? {
                if line.is_empty() {
                    continue;
                }
                let text = std::str::from_utf8(&line).map_err(|e| self.reply.exchange.nonsense(&e))?;
                let value = serde_json::from_str(text).map_err(|e| self.reply.exchange.nonsense(&e))?;
                return Ok(Some(Answer {
                    value,
                    text: text.to_owned(),
                }));
            }
            if self.over {
                return Ok(None);
            }
            match self.reply.frame().await? {
                None => {
                    self.over = true;
                    if !self.buffer.is_empty() {
                        self.buffer.extend_from_slice(b"\n");
                    }
                }
                Some(frame) => self.take_in(frame)?,
            }
        }
    }

    fn take_in(&mut self, frame: hyper::body::Frame<Bytes>) -> Result<(), ClientError> {
        match frame.into_data() {
            Ok(data) => self.buffer.extend_from_slice(&data),
            Err(frame) => {
                let trailers = frame.into_trailers().unwrap_or_default();
                let errors: Vec<_> = trailers
                    .get_all("x-stream-error")
                    .iter()
                    .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
                    .filter(|message| !message.is_empty())
                    .collect();
                if !errors.is_empty() {
                    return Err(ClientError::Api(Error {
                        code: 500,
                        message: errors.join("; "),
                    }));
                }
            }
        }
        Ok(())
    }

    fn take_line(&mut self) -> Result<Option<Bytes>, ClientError> {
        let Some(at) = self.buffer[self.searched..].iter().position(|b| *b == b'\n') else {
            self.searched = self.buffer.len();
            if self.searched > LINE_MAX {
                return Err(self
                    .reply
                    .exchange
                    .nonsense(&format!("a line exceeds {LINE_MAX} bytes")));
            }
            return Ok(None);
        };
        let line = self.buffer.split_to(self.searched + at).freeze();
        self.buffer.advance(1);
        self.searched = 0;
        Ok(Some(line.slice_ref(line.trim_ascii())))
    }
}
