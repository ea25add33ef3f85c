//! The IPFS node that the proxy forwards to.

use axum::body::Body;
use axum::http::{HeaderMap, Request, Response, StatusCode};
use cluster_http::rpc::{self, Failure};
use cluster_ipfs::api::{Api, RequestBody};
use cluster_ipfs::kubo::{BadAddress, Forward};
use cluster_ipfs::{Multiaddr, Node};
use http_body_util::{BodyExt, Limited};
use serde::de::DeserializeOwned;

use super::empty;

/// Maximum size of a response that is read as a whole, in bytes: `resolve` and `pin/ls` of one CID are far
/// shorter.
const ANSWER_MAX: usize = 64 * 1024;

/// An IPFS node that answers Kubo's RPC API.
#[derive(Debug, Clone)]
pub enum Upstream {
    /// A Kubo daemon, or another server with its API.
    Kubo(Box<Forward>),
    /// The node inside this process, called without a socket.
    Embedded(Api),
}

impl Upstream {
    /// Returns the daemon at an address.
    ///
    /// # Errors
    /// The address is of a kind that cannot be connected to.
    pub fn kubo(address: &Multiaddr) -> Result<Self, BadAddress> {
        Ok(Self::Kubo(Box::new(Forward::new(address)?)))
    }

    /// Returns the node inside this process. Web pages that were served from `port` may use it.
    pub fn embedded(node: Node, port: Option<u16>) -> Self {
        Self::Embedded(Api::new(node, port))
    }

    /// Sends a request and waits for the head of the response.
    pub(super) async fn send(
        &self,
        request: Request<RequestBody>,
    ) -> Result<Response<Body>, cluster_ipfs::backend::Error> {
        match self {
            Self::Kubo(forward) => Ok(forward.send(request).await?.map(Body::new)),
            Self::Embedded(api) => Ok(api.answer(request).await.map(Body::new)),
        }
    }

    /// Calls a command with the client's credentials in `headers`.
    pub(super) async fn post(
        &self,
        path_and_query: &str,
        headers: &HeaderMap,
    ) -> Result<Response<Body>, Failure> {
        let mut request = Request::post(path_and_query)
            .body(empty())
            .map_err(Failure::failed)?;
        request.headers_mut().clone_from(headers);
        self.send(request)
            .await
            .map_err(|error| Failure::failed(error.message()))
    }

    /// Calls a command and parses its response as one JSON object. An error of the node is returned in its
    /// own words.
    pub(super) async fn object<T: DeserializeOwned>(
        &self,
        path_and_query: &str,
        headers: &HeaderMap,
    ) -> Result<T, Failure> {
        let response = self.post(path_and_query, headers).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
        let body = body.map_err(Failure::failed)?.to_bytes();
        if status == StatusCode::OK {
            return serde_json::from_slice(&body).map_err(|error| {
                Failure::failed(format!("the response of the IPFS node cannot be parsed: {error}"))
            });
        }
        if let Some(message) = rpc::error_message(&body) {
            return Err(Failure::failed(message));
        }
        let text = String::from_utf8_lossy(&body).trim_end().to_owned();
        Err(Failure::plain(status, text))
    }
}
