//! POST requests to the daemon: address, time limits, throttle, and which answers are successful.

use std::time::Duration;

use bytes::Bytes;
use cluster_http::rpc;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode, header};
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};

use super::config::{BadAddress, Endpoint};
use super::connector::Http;
use super::lines::Lines;
use super::throttle::Throttle;
use super::traceparent;
use crate::backend::{Cause, Error};

/// Body of a request: empty, or a stream of blocks.
pub(super) type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// Bytes read of an error text, usually a line or two; a proxy's HTML page is cut here.
const ERROR_BODY_MAX: usize = 64 * 1024;

/// Maximum size of a single answer, in bytes: `swarm/peers` of a node with some ten thousand connections.
const ANSWER_MAX: usize = 16 * 1024 * 1024;

/// Time limit of an exchange.
#[derive(Debug, Clone, Copy)]
pub(super) enum Limit {
    /// From the request to the last byte of the answer.
    Total(Duration),
    /// Between two signs of progress.
    Idle(Duration),
}

impl Limit {
    /// Starts the limit now.
    pub(super) fn start(self) -> Deadline {
        let (Limit::Total(span) | Limit::Idle(span)) = self;
        Deadline {
            limit: self,
            span,
            at: deadline_after(span),
        }
    }
}

/// A running [`Limit`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline {
    limit: Limit,
    span: Duration,
    at: Instant,
}

impl Deadline {
    /// Records a sign of progress.
    pub(super) fn progressed(&mut self) {
        match self.limit {
            Limit::Idle(span) => self.at = deadline_after(span),
            Limit::Total(_) => {}
        }
    }

    /// Waits for `future`, not beyond the limit.
    pub(super) async fn wait<T>(
        &self,
        request: &str,
        future: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        match timeout_at(self.at, future).await {
            Ok(done) => done,
            Err(_) => Err(self.timed_out(request)),
        }
    }

    fn timed_out(&self, request: &str) -> Error {
        let message = match self.limit {
            Limit::Total(_) => format!("no answer within {:?}", self.span),
            Limit::Idle(_) => format!("no data received for {:?}", self.span),
        };
        Error::new(Cause::TimedOut, request, message)
    }
}

/// Replaces a deadline that overflows `Instant` by one in a hundred years.
fn deadline_after(span: Duration) -> Instant {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
    Instant::now() + span.min(CENTURY)
}

/// The connections to one daemon.
#[derive(Debug)]
pub(super) struct Transport {
    http: Http<Body>,
    /// `http://host:port/api/v0/`.
    base: String,
    throttle: Throttle,
}

impl Transport {
    pub(super) fn new(address: &libp2p::Multiaddr) -> Result<Self, BadAddress> {
        let (http, host) = Http::new(Endpoint::parse(address)?);
        Ok(Transport {
            http,
            base: format!("http://{host}/api/v0/"),
            throttle: Throttle::default(),
        })
    }

    /// Sends `command?query` without a body and waits for the head of a successful answer.
    pub(super) async fn post(
        &self,
        command: &str,
        query: &str,
        deadline: &Deadline,
    ) -> Result<Response<Incoming>, Error> {
        let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
        deadline
            .wait(command, self.send(command, query, None, body))
            .await
    }

    /// Sends `command?query` with a body; the caller enforces the time limit.
    pub(super) async fn send(
        &self,
        command: &str,
        query: &str,
        content_type: Option<&str>,
        body: Body,
    ) -> Result<Response<Incoming>, Error> {
        let mut request = Request::post(format!("{}{command}{query}", self.base));
        if let Some(content_type) = content_type {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        let mut request = request
            .body(body)
            .map_err(|error| Error::new(Cause::Refused, command, format!("bad request: {error}")))?;
        traceparent::set(&mut request);
        self.throttle.wait_turn().await;
        match self.http.request(request).await {
            Ok(response) => {
                self.throttle.record_answer();
                check_status(command, response).await
            }
            Err(error) => {
                self.throttle.record_failure();
                let message = format!("no answer from {}: {}", self.base, error_chain(&error));
                Err(Error::new(Cause::Unreachable, command, message))
            }
        }
    }

    /// Sends a request whose answer is one JSON object.
    pub(super) async fn object<T: for<'de> Deserialize<'de>>(
        &self,
        command: &str,
        query: &str,
        limit: Duration,
    ) -> Result<T, Error> {
        let body = self.bytes(command, query, limit, ANSWER_MAX).await?;
        serde_json::from_slice(&body).map_err(|error| bad_answer(command, &body, &error))
    }

    /// Sends a request whose answer has at most `max` bytes.
    pub(super) async fn bytes(
        &self,
        command: &str,
        query: &str,
        limit: Duration,
        max: usize,
    ) -> Result<Bytes, Error> {
        let deadline = Limit::Total(limit).start();
        let response = self.post(command, query, &deadline).await?;
        deadline.wait(command, read_all(command, response, max)).await
    }

    /// Sends a request whose answer is a stream of JSON lines.
    pub(super) async fn lines(&self, command: &str, query: &str, limit: Limit) -> Result<Lines, Error> {
        let deadline = limit.start();
        let response = self.post(command, query, &deadline).await?;
        Ok(Lines::new(command, response.into_body(), deadline))
    }
}

/// Returns the answer if its status is 200, the only success in this API, and its error otherwise.
async fn check_status(command: &str, response: Response<Incoming>) -> Result<Response<Incoming>, Error> {
    let status = response.status();
    if status == StatusCode::OK {
        return Ok(response);
    }
    let body = match Limited::new(response.into_body(), ERROR_BODY_MAX).collect().await {
        Ok(body) => body.to_bytes(),
        // The status is enough if its text is missing or too long.
        Err(_) => Bytes::new(),
    };
    if let Some(message) = rpc::error_message(&body) {
        return Err(Error::from_message(command, message));
    }
    let text = String::from_utf8_lossy(&body);
    let message = match text.trim() {
        "" => format!("the node answers {status}"),
        text => format!("the node answers {status}: {}", excerpt(text)),
    };
    Err(Error::new(Cause::Refused, command, message))
}

async fn read_all(command: &str, response: Response<Incoming>, max: usize) -> Result<Bytes, Error> {
    let collected = Limited::new(response.into_body(), max)
        .collect()
        .await
        .map_err(|error| {
            if error.is::<http_body_util::LengthLimitError>() {
                Error::new(
                    Cause::BadAnswer,
                    command,
                    format!("the answer is longer than {max} bytes"),
                )
            } else {
                Error::new(
                    Cause::Unreachable,
                    command,
                    format!("the connection broke: {}", error_chain(&*error)),
                )
            }
        })?;
    if let Some(error) = collected
        .trailers()
        .and_then(|trailers| stream_error(command, trailers))
    {
        return Err(error);
    }
    Ok(collected.to_bytes())
}

/// Returns the error of a stream that began well, which Kubo appends as an HTTP trailer.
pub(super) fn stream_error(command: &str, trailers: &hyper::HeaderMap) -> Option<Error> {
    let message = trailers.get("x-stream-error")?;
    let message = String::from_utf8_lossy(message.as_bytes());
    (!message.is_empty()).then(|| Error::from_message(command, message))
}

pub(super) fn bad_answer(command: &str, body: &[u8], error: &serde_json::Error) -> Error {
    let text = String::from_utf8_lossy(&body[..body.len().min(200)]);
    let message = format!("not an answer of this API ({error}): {}", excerpt(&text));
    Error::new(Cause::BadAnswer, command, message)
}

/// Returns the first line of an untrusted text, short enough for a log.
fn excerpt(text: &str) -> String {
    text.lines()
        .next()
        .unwrap_or_default()
        .chars()
        .take(200)
        .collect()
}

/// Formats an error with its sources: hyper's own text is only "client error (Connect)".
pub(super) fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}
