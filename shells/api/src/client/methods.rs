//! One method for each thing the API can do.

use super::upload::Upload;
use super::{Answer, Ask, Body, Client, ClientError, Lines};
use crate::query::escape_path;
use crate::{
    AddParams, AddedOutput, Alert, BandwidthByProtocol, ConnectGraph, GlobalPinInfo, GlobalRepoGc, Id,
    Metric, Pin, PinOptions, PinTypeFilter, Query, StatusFilter, Token, Version,
};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Method;
use hyper::header::HeaderValue;
use serde::de::DeserializeOwned;

/// A query that says only whether to stay at the peer that is asked.
fn local_query(local: bool) -> Query {
    let mut query = Query::default();
    query.set("local", local);
    query
}

/// `/ipfs/…`, `/ipns/…` and `/ipld/…` as they are, anything else below `/ipfs/`.
fn ipfs_path(path: &str) -> String {
    let full = ["/ipfs/", "/ipns/", "/ipld/"]
        .iter()
        .any(|root| path.starts_with(root));
    let path = if full {
        path.to_owned()
    } else {
        format!("/ipfs/{}", path.trim_start_matches('/'))
    };
    escape_path(path.trim_end_matches('/'))
}

fn full(body: &Bytes) -> Body {
    http_body_util::Full::new(body.clone())
        .map_err(|e| match e {})
        .boxed_unsync()
}

impl Client {
    /// The query of a read that may have to be fresh.
    fn fresh(&self, mut query: Query) -> String {
        if self.consistent {
            query.set("consistent", true);
        }
        query.encode()
    }

    async fn one<T: DeserializeOwned>(&self, method: Method, path: String) -> Result<Answer<T>, ClientError> {
        self.ask(method, path).await?.value().await
    }

    async fn many<T: DeserializeOwned>(&self, method: Method, path: String) -> Result<Lines<T>, ClientError> {
        Ok(self.ask(method, path).await?.lines())
    }

    /// What the peer says of itself.
    pub async fn id(&self) -> Result<Answer<Id>, ClientError> {
        self.one(Method::GET, "/id".into()).await
    }

    /// The peer's version.
    pub async fn version(&self) -> Result<Answer<Version>, ClientError> {
        self.one(Method::GET, "/version".into()).await
    }

    /// Whether the peer answers at all.
    pub async fn health(&self) -> Result<(), ClientError> {
        self.ask(Method::GET, "/health".into()).await?.nothing().await
    }

    /// A token that stands for the credentials.
    pub async fn token(&self) -> Result<Answer<Token>, ClientError> {
        self.one(Method::POST, "/token".into()).await
    }

    /// All peers.
    pub async fn peers(&self) -> Result<Lines<Id>, ClientError> {
        self.many(Method::GET, "/peers".into()).await
    }

    /// Adds a peer by its id, and where it is if that is known: a multiaddress, else empty.
    pub async fn peer_add(&self, peer_id: &str, address: &str) -> Result<Answer<Id>, ClientError> {
        let body = crate::PeerAdd {
            peer_id: peer_id.to_owned(),
            peer_multiaddress: address.to_owned(),
        };
        let json = Bytes::from(crate::json::to_vec(&body).unwrap_or_default());
        let content_type = Some(HeaderValue::from_static("application/json"));
        let ask = Ask {
            method: Method::POST,
            path: "/peers".into(),
            content_type,
        };
        self.send(ask, |_| full(&json)).await?.value().await
    }

    /// Removes a peer.
    pub async fn peer_rm(&self, peer_id: &str) -> Result<(), ClientError> {
        self.ask(Method::DELETE, format!("/peers/{}", escape_path(peer_id)))
            .await?
            .nothing()
            .await
    }

    /// Pins a CID or a path.
    pub async fn pin(&self, path: &str, options: &PinOptions) -> Result<Answer<Pin>, ClientError> {
        self.one(
            Method::POST,
            format!("/pins{}?{}", ipfs_path(path), options.to_query().encode()),
        )
        .await
    }

    /// Unpins a CID or a path.
    pub async fn unpin(&self, path: &str) -> Result<Answer<Pin>, ClientError> {
        self.one(Method::DELETE, format!("/pins{}", ipfs_path(path)))
            .await
    }

    /// The pinset.
    pub async fn allocations(&self, filter: PinTypeFilter) -> Result<Lines<Pin>, ClientError> {
        let mut query = Query::default();
        query.set("filter", filter);
        self.many(Method::GET, format!("/allocations?{}", self.fresh(query)))
            .await
    }

    /// The pinset, with all that is known of each pin: what an export has. A Go peer leaves out the
    /// peers that users prefer.
    pub async fn whole_allocations(&self) -> Result<Lines<Pin>, ClientError> {
        let mut query = Query::default();
        query.set("filter", PinTypeFilter::ALL);
        query.set("whole", true);
        self.many(Method::GET, format!("/allocations?{}", self.fresh(query)))
            .await
    }

    /// Adds pins as they are, each a line of JSON as [`Client::whole_allocations`] lists it. When this
    /// fails some may have been added; done again it changes nothing. A Go peer has no such thing.
    pub async fn import(&self, lines: Bytes) -> Result<(), ClientError> {
        let ask = Ask {
            method: Method::POST,
            path: "/allocations".into(),
            content_type: Some(HeaderValue::from_static("application/json")),
        };
        self.send(ask, |_| full(&lines)).await?.nothing().await
    }

    /// One pin.
    pub async fn allocation(&self, cid: &str) -> Result<Answer<Pin>, ClientError> {
        let mut path = format!("/allocations/{}", escape_path(cid));
        if self.consistent {
            path += "?consistent=true";
        }
        self.one(Method::GET, path).await
    }

    /// The status of one CID at all peers, or at the one that is asked.
    pub async fn status(&self, cid: &str, local: bool) -> Result<Answer<GlobalPinInfo>, ClientError> {
        self.one(
            Method::GET,
            format!("/pins/{}?{}", escape_path(cid), self.fresh(local_query(local))),
        )
        .await
    }

    /// The status of these CIDs; of all CIDs in `filter` if there are none.
    pub async fn status_all(
        &self,
        cids: &[String],
        filter: StatusFilter,
        local: bool,
    ) -> Result<Lines<GlobalPinInfo>, ClientError> {
        let mut query = local_query(local);
        query.set("filter", filter);
        query.set("cids", cids.join(","));
        self.many(Method::GET, format!("/pins?{}", self.fresh(query)))
            .await
    }

    /// Tries one CID again.
    pub async fn recover(&self, cid: &str, local: bool) -> Result<Answer<GlobalPinInfo>, ClientError> {
        self.one(
            Method::POST,
            format!(
                "/pins/{}/recover?{}",
                escape_path(cid),
                local_query(local).encode()
            ),
        )
        .await
    }

    /// Tries again all CIDs that failed.
    pub async fn recover_all(&self, local: bool) -> Result<Lines<GlobalPinInfo>, ClientError> {
        self.many(
            Method::POST,
            format!("/pins/recover?{}", local_query(local).encode()),
        )
        .await
    }

    /// Compares one CID with what the IPFS nodes hold.
    pub async fn sync(&self, cid: &str, local: bool) -> Result<Answer<GlobalPinInfo>, ClientError> {
        self.one(
            Method::POST,
            format!("/pins/{}/sync?{}", escape_path(cid), local_query(local).encode()),
        )
        .await
    }

    /// Compares all CIDs with what the IPFS nodes hold.
    pub async fn sync_all(&self, local: bool) -> Result<Lines<GlobalPinInfo>, ClientError> {
        self.many(
            Method::POST,
            format!("/pins/sync?{}", local_query(local).encode()),
        )
        .await
    }

    /// The names of the metrics there are.
    pub async fn metric_names(&self) -> Result<Answer<Vec<String>>, ClientError> {
        self.one(Method::GET, "/monitor/metrics".into()).await
    }

    /// The latest valid samples of one metric.
    pub async fn metrics(&self, name: &str) -> Result<Answer<Vec<Metric>>, ClientError> {
        self.one(Method::GET, format!("/monitor/metrics/{}", escape_path(name)))
            .await
    }

    /// The latest alerts.
    pub async fn alerts(&self) -> Result<Answer<Vec<Alert>>, ClientError> {
        self.one(Method::GET, "/health/alerts".into()).await
    }

    /// Traffic by protocol.
    pub async fn bandwidth(&self) -> Result<Answer<BandwidthByProtocol>, ClientError> {
        self.one(Method::GET, "/health/bandwidth".into()).await
    }

    /// Who is connected to whom.
    pub async fn graph(&self) -> Result<Answer<ConnectGraph>, ClientError> {
        self.one(Method::GET, "/health/graph".into()).await
    }

    /// Collects garbage at all peers, or at the one that is asked.
    pub async fn repo_gc(&self, local: bool) -> Result<Answer<GlobalRepoGc>, ClientError> {
        self.one(Method::POST, format!("/ipfs/gc?{}", local_query(local).encode()))
            .await
    }

    /// Adds files. The lines come while the files are still being read. A file that cannot be read ends
    /// the request with an error that names it.
    pub async fn add(&self, upload: Upload, params: &AddParams) -> Result<Added, ClientError> {
        let content_type =
            HeaderValue::from_str(&format!("multipart/form-data; boundary={}", upload.boundary()));
        let path = format!("/add?{}", params.to_query().encode());
        let ask = Ask {
            method: Method::POST,
            path,
            content_type: content_type.ok(),
        };
        let failure = upload.failure();
        match self.send(ask, |_| upload.body()).await {
            Ok(reply) => Ok(Added {
                lines: reply.lines(),
                failure,
            }),
            Err(error) => Err(failure.take().unwrap_or(error)),
        }
    }
}

/// What `POST /add` answers.
pub struct Added {
    lines: Lines<AddedOutput>,
    failure: super::upload::Failure,
}

impl Added {
    /// The next line; see [`Lines::next`].
    pub async fn next(&mut self) -> Result<Option<Answer<AddedOutput>>, ClientError> {
        // A file that could not be read breaks the request, and is the better explanation.
        self.lines
            .next()
            .await
            .map_err(|error| self.failure.take().unwrap_or(error))
    }
}
