//! Requests of other programs, forwarded to a daemon unchanged.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use hyper::body::Incoming;
use hyper::{Request, Response, Uri, header};

use super::config::{BadAddress, Endpoint};
use super::connector::Http;
use super::traceparent;
use super::transport::error_chain;
use crate::backend::{Cause, Error};

/// Body of a forwarded request.
pub type ForwardBody = BoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// Forwards requests of other programs to one daemon. Bodies stream in both directions, without a limit on
/// size or time. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Forward {
    http: Arc<Http<ForwardBody>>,
    host: String,
}

impl Forward {
    /// Creates a forwarder to the daemon at `address`: `/ip4|ip6|dns|dns4|dns6/…/tcp/…` or `/unix/…`.
    /// Connects with the first request.
    ///
    /// # Errors
    /// [`BadAddress`] for any other kind of address.
    pub fn new(address: &libp2p::Multiaddr) -> Result<Self, BadAddress> {
        let (http, host) = Http::new(Endpoint::parse(address)?);
        let http = Arc::new(http);
        Ok(Forward { http, host })
    }

    /// Sends a request to the daemon, whatever host its URI names, and waits for the head of the answer.
    /// Dropping the answer's body ends the exchange.
    ///
    /// # Errors
    /// The daemon cannot be reached, or the connection broke before the answer.
    pub async fn send(&self, mut request: Request<ForwardBody>) -> Result<Response<Incoming>, Error> {
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let uri: Uri = format!("http://{}{path}", self.host)
            .parse()
            .map_err(|error| Error::new(Cause::Refused, path, format!("bad request: {error}")))?;
        let command = uri.path().to_owned();
        *request.uri_mut() = uri;
        request.headers_mut().remove(header::HOST);
        traceparent::set(&mut request);
        self.http.request(request).await.map_err(|error| {
            let message = format!("no answer from {}: {}", self.host, error_chain(&error));
            Error::new(Cause::Unreachable, command, message)
        })
    }
}
