//! One method per route of the REST API.

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Method;
use hyper::header::HeaderValue;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;
use tokio::time::Instant;

use super::upload::Upload;
use super::{Answer, Ask, Body, Client, ClientError, Lines};
use crate::query::escape_path;
use crate::{
    AddParams, AddedOutput, Alert, BandwidthByProtocol, Caller, ConnectGraph, Credential, CredentialAdd,
    CredentialCreated, CredentialUsage, Drain, Event, GlobalPinInfo, GlobalRepoGc, GlobalScrub,
    HealthSummary, Id, Metric, Pin, PinOptions, PinTypeFilter, Query, Rebalance, StatusFilter, Token,
    Version,
};

/// Time for which an import is repeated to a peer that is too busy, or has no leader.
const IMPORT_PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two attempts.
const IMPORT_PAUSE: Duration = Duration::from_millis(250);

/// Returns a query with only the parameter `local`.
fn local_query(local: bool) -> Query {
    let mut query = Query::default();
    query.set("local", local);
    query
}

/// Escapes a path: `/ipfs/…`, `/ipns/…` and `/ipld/…` unchanged, anything else below `/ipfs/`.
fn ipfs_path(path: &[u8]) -> String {
    let full = [b"/ipfs/", b"/ipns/", b"/ipld/"]
        .iter()
        .any(|root| path.starts_with(*root));
    let escaped = escape_path(path);
    let escaped = escaped.trim_end_matches('/');
    match full {
        true => escaped.to_owned(),
        false => format!("/ipfs/{}", escaped.trim_start_matches('/')),
    }
}

fn full(body: &Bytes) -> Body {
    http_body_util::Full::new(body.clone())
        .map_err(|e| match e {})
        .boxed_unsync()
}

impl Client {
    /// Encodes the query of a read, with `consistent` if the client asks for it.
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

    /// Returns the id, addresses and versions of the peer that is asked.
    ///
    /// # Errors
    /// See [`Client`].
    pub async fn id(&self) -> Result<Answer<Id>, ClientError> {
        self.one(Method::GET, "/id".into()).await
    }

    /// Returns the version of the peer that is asked.
    ///
    /// # Errors
    /// See [`Client`].
    pub async fn version(&self) -> Result<Answer<Version>, ClientError> {
        self.one(Method::GET, "/version".into()).await
    }

    /// Checks that the peer serves requests.
    ///
    /// # Errors
    /// See [`Client`].
    pub async fn health(&self) -> Result<(), ClientError> {
        self.ask(Method::GET, "/health".into()).await?.nothing().await
    }

    /// Requests a JWT that can be used instead of the credentials.
    ///
    /// # Errors
    /// See [`Client`].
    pub async fn token(&self) -> Result<Answer<Token>, ClientError> {
        self.one(Method::POST, "/token".into()).await
    }

    /// Lists all peers.
    ///
    /// # Errors
    /// See [`Client`].
    pub async fn peers(&self) -> Result<Lines<Id>, ClientError> {
        self.many(Method::GET, "/peers".into()).await
    }

    /// Adds a peer by its id. `address` is its multiaddress, or empty.
    ///
    /// # Errors
    /// See [`Client`].
    pub async fn peer_add(&self, peer_id: &str, address: &str) -> Result<Answer<Id>, ClientError> {
        let body = crate::PeerAdd {
            peer_id: peer_id.to_owned(),
            peer_multiaddress: address.to_owned(),
        };
        self.post("/peers", &body).await
    }

    /// Posts a value as JSON.
    async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Answer<T>, ClientError> {
        let json = Bytes::from(cluster_http::json::to_vec(body).unwrap_or_default());
        let content_type = Some(HeaderValue::from_static("application/json"));
        let ask = Ask {
            method: Method::POST,
            path: path.into(),
            content_type,
        };
        self.send(ask, |_| full(&json)).await?.value().await
    }

    /// Creates a credential. Its token is in the answer, and nowhere else.
    ///
    /// # Errors
    /// See [`Client`]; 409 if the name is taken, 503 while an older release runs on some peer.
    pub async fn credential_add(
        &self,
        new: &CredentialAdd,
    ) -> Result<Answer<CredentialCreated>, ClientError> {
        self.post("/auth/credentials", new).await
    }

    /// Lists the credentials.
    ///
    /// # Errors
    /// See [`Client`].
    pub async fn credentials(&self) -> Result<Answer<Vec<Credential>>, ClientError> {
        self.one(Method::GET, "/auth/credentials".into()).await
    }

    /// Revokes a credential, by id or name.
    ///
    /// # Errors
    /// See [`Client`]; 404 if there is no such credential.
    pub async fn credential_rm(&self, id_or_name: &str) -> Result<Answer<Credential>, ClientError> {
        let path = format!("/auth/credentials/{}", escape_path(id_or_name));
        self.one(Method::DELETE, path).await
    }

    /// Returns what the owner of a credential holds, by id or name.
    ///
    /// # Errors
    /// See [`Client`]; 404 if there is no such credential, 400 if it lacks the scope `own`.
    pub async fn credential_usage(&self, id_or_name: &str) -> Result<Answer<CredentialUsage>, ClientError> {
        let path = format!("/auth/credentials/{}/usage", escape_path(id_or_name));
        self.one(Method::GET, path).await
    }

    /// Drains a peer: its pins move to others. At most `moves` of its copies wait for their replacements at
    /// once; `force` drains it although some pins cannot move.
    ///
    /// # Errors
    /// See [`Client`]; the reason if its pins cannot move.
    pub async fn drain(
        &self,
        peer: &str,
        moves: Option<u32>,
        force: bool,
    ) -> Result<Answer<Drain>, ClientError> {
        let mut query = Query::default();
        if let Some(moves) = moves {
            query.set("moves", moves);
        }
        if force {
            query.set("force", true);
        }
        let path = format!("/drains/{}?{}", escape_path(peer), query.encode());
        self.one(Method::POST, path).await
    }

    /// Ends the drain of a peer. Returns its last progress.
    ///
    /// # Errors
    /// See [`Client`]; 404 if the peer is not being drained.
    pub async fn drain_end(&self, peer: &str) -> Result<Answer<Drain>, ClientError> {
        let path = format!("/drains/{}", escape_path(peer));
        self.one(Method::DELETE, path).await
    }

    /// Returns the progress of the drain of a peer.
    ///
    /// # Errors
    /// See [`Client`]; 404 if the peer is not being drained.
    pub async fn drain_progress(&self, peer: &str) -> Result<Answer<Drain>, ClientError> {
        let path = format!("/drains/{}", escape_path(peer));
        self.one(Method::GET, path).await
    }

    /// Returns the progress of all drains.
    ///
    /// # Errors
    /// See [`Client`].
    pub async fn drains(&self) -> Result<Answer<Vec<Drain>>, ClientError> {
        self.one(Method::GET, "/drains".into()).await
    }

    /// Returns how far the peers are from their targets, and the settings of the rebalancing.
    ///
    /// # Errors
    /// See [`Client`].
    pub async fn rebalance(&self) -> Result<Answer<Rebalance>, ClientError> {
        self.one(Method::GET, "/rebalance".into()).await
    }

    /// Starts a run of the rebalancing, unless one is under way.
    ///
    /// # Errors
    /// See [`Client`].
    pub async fn rebalance_start(&self) -> Result<Answer<Rebalance>, ClientError> {
        self.one(Method::POST, "/rebalance".into()).await
    }

    /// Ends the run of the rebalancing.
    ///
    /// # Errors
    /// See [`Client`]; 404 if none is under way.
    pub async fn rebalance_end(&self) -> Result<Answer<Rebalance>, ClientError> {
        self.one(Method::DELETE, "/rebalance".into()).await
    }

    /// Changes the settings of the rebalancing: `automatic`, `threshold`, `moves`, `total-moves`. Absent ones
    /// stay.
    ///
    /// # Errors
    /// See [`Client`]; 400 if one is out of its range.
    pub async fn rebalance_set(&self, settings: &Query) -> Result<Answer<Rebalance>, ClientError> {
        let path = format!("/rebalance/settings?{}", settings.encode());
        self.one(Method::POST, path).await
    }

    /// Returns who this client is to the peer, and what it may do.
    ///
    /// # Errors
    /// See [`Client`].
    pub async fn caller(&self) -> Result<Answer<Caller>, ClientError> {
        self.one(Method::GET, "/auth/self".into()).await
    }

    /// Removes a peer from the cluster.
    ///
    /// # Errors
    /// See [`Client`]. Removing a peer that is not a member succeeds.
    pub async fn peer_rm(&self, peer_id: &str) -> Result<(), ClientError> {
        let path = format!("/peers/{}", escape_path(peer_id));
        self.ask(Method::DELETE, path).await?.nothing().await
    }

    /// Pins a CID or an IPFS path, whose names need not be UTF-8.
    ///
    /// # Errors
    /// See [`Client`]; 500 if too few peers can hold the pin.
    pub async fn pin(
        &self,
        path: impl AsRef<[u8]>,
        options: &PinOptions,
    ) -> Result<Answer<Pin>, ClientError> {
        let (path, query) = (ipfs_path(path.as_ref()), options.to_query().encode());
        self.one(Method::POST, format!("/pins{path}?{query}")).await
    }

    /// Unpins a CID or an IPFS path.
    ///
    /// # Errors
    /// See [`Client`]; 404 if it is not pinned.
    pub async fn unpin(&self, path: impl AsRef<[u8]>) -> Result<Answer<Pin>, ClientError> {
        let path = format!("/pins{}", ipfs_path(path.as_ref()));
        self.one(Method::DELETE, path).await
    }

    /// Lists the pinset.
    ///
    /// # Errors
    /// See [`Client`].
    pub async fn allocations(&self, filter: PinTypeFilter) -> Result<Lines<Pin>, ClientError> {
        self.matching_allocations(filter, Query::default()).await
    }

    /// Lists the pins that meet conditions, parameters of `GET /allocations`: `name`, `name-match`,
    /// `meta-KEY`, `before`, `after`, `peer`, `sort`, `limit`, `cursor`. A listing with a limit is a page:
    /// [`Lines::next_cursor`] continues it. A Go peer ignores them.
    ///
    /// # Errors
    /// See [`Client`].
    pub async fn matching_allocations(
        &self,
        filter: PinTypeFilter,
        mut conditions: Query,
    ) -> Result<Lines<Pin>, ClientError> {
        conditions.set("filter", filter);
        let path = format!("/allocations?{}", self.fresh(conditions));
        self.many(Method::GET, path).await
    }

    /// Lists the pinset with all fields that an export contains. A Go peer omits the preferred peers.
    ///
    /// # Errors
    /// See [`Client`].
    pub async fn whole_allocations(&self) -> Result<Lines<Pin>, ClientError> {
        let mut query = Query::default();
        query.set("whole", true);
        self.matching_allocations(PinTypeFilter::ALL, query).await
    }

    /// Imports pins unchanged, each a line of JSON as [`Client::whole_allocations`] lists it. The request is
    /// repeated for a minute while the peer is too busy or has no leader, since that is harmless. Go peers
    /// have no such route.
    ///
    /// # Errors
    /// See [`Client`]. After an error some pins may have been imported.
    pub async fn import(&self, lines: Bytes) -> Result<(), ClientError> {
        let until = Instant::now() + IMPORT_PATIENCE;
        loop {
            match self.import_once(&lines).await {
                Err(ClientError::Api(error))
                    if matches!(error.code, 429 | 503 | 504) && Instant::now() < until =>
                {
                    tokio::time::sleep(IMPORT_PAUSE).await;
                }
                other => return other,
            }
        }
    }

    async fn import_once(&self, lines: &Bytes) -> Result<(), ClientError> {
        let ask = Ask {
            method: Method::POST,
            path: "/allocations".into(),
            content_type: Some(HeaderValue::from_static("application/json")),
        };
        self.send(ask, |_| full(lines)).await?.nothing().await
    }

    /// Returns one pin.
    ///
    /// # Errors
    /// See [`Client`]; 404 if `cid` is not pinned.
    pub async fn allocation(&self, cid: &str) -> Result<Answer<Pin>, ClientError> {
        let mut path = format!("/allocations/{}", escape_path(cid));
        if self.consistent {
            path += "?consistent=true";
        }
        self.one(Method::GET, path).await
    }

    /// Returns the status of one CID at all peers, or with `local` at the peer that is asked.
    ///
    /// # Errors
    /// See [`Client`].
    pub async fn status(&self, cid: &str, local: bool) -> Result<Answer<GlobalPinInfo>, ClientError> {
        let (cid, query) = (escape_path(cid), self.fresh(local_query(local)));
        self.one(Method::GET, format!("/pins/{cid}?{query}")).await
    }

    /// Lists the status of `cids`, or of all CIDs if `cids` is empty; only those in `filter`.
    ///
    /// # Errors
    /// See [`Client`].
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

    /// Lists the status of pins with fewer confirmed copies than they need. A Go peer lists all pins.
    ///
    /// # Errors
    /// See [`Client`].
    pub async fn under_replicated(&self) -> Result<Lines<GlobalPinInfo>, ClientError> {
        let mut query = Query::default();
        query.set("under-replicated", true);
        self.many(Method::GET, format!("/pins?{}", self.fresh(query)))
            .await
    }

    /// Retries one CID that failed.
    ///
    /// # Errors
    /// See [`Client`].
    pub async fn recover(&self, cid: &str, local: bool) -> Result<Answer<GlobalPinInfo>, ClientError> {
        let path = format!("/pins/{}/recover?local={local}", escape_path(cid));
        self.one(Method::POST, path).await
    }

    /// Retries all CIDs that failed.
    ///
    /// # Errors
    /// See [`Client`].
    pub async fn recover_all(&self, local: bool) -> Result<Lines<GlobalPinInfo>, ClientError> {
        let path = format!("/pins/recover?local={local}");
        self.many(Method::POST, path).await
    }

    /// Compares the local state of one CID with the IPFS nodes.
    ///
    /// # Errors
    /// See [`Client`].
    pub async fn sync(&self, cid: &str, local: bool) -> Result<Answer<GlobalPinInfo>, ClientError> {
        let path = format!("/pins/{}/sync?local={local}", escape_path(cid));
        self.one(Method::POST, path).await
    }

    /// Compares the local state of all CIDs with the IPFS nodes.
    ///
    /// # Errors
    /// See [`Client`].
    pub async fn sync_all(&self, local: bool) -> Result<Lines<GlobalPinInfo>, ClientError> {
        let path = format!("/pins/sync?local={local}");
        self.many(Method::POST, path).await
    }

    /// Lists the names of the known metrics.
    ///
    /// # Errors
    /// See [`Client`].
    pub async fn metric_names(&self) -> Result<Answer<Vec<String>>, ClientError> {
        self.one(Method::GET, "/monitor/metrics".into()).await
    }

    /// Returns the latest valid samples of one metric, one per peer.
    ///
    /// # Errors
    /// See [`Client`].
    pub async fn metrics(&self, name: &str) -> Result<Answer<Vec<Metric>>, ClientError> {
        self.one(Method::GET, format!("/monitor/metrics/{}", escape_path(name)))
            .await
    }

    /// Lists the latest alerts.
    ///
    /// # Errors
    /// See [`Client`].
    pub async fn alerts(&self) -> Result<Answer<Vec<Alert>>, ClientError> {
        self.one(Method::GET, "/health/alerts".into()).await
    }

    /// Returns what is wrong in the cluster. Go peers have no such route.
    ///
    /// # Errors
    /// See [`Client`].
    pub async fn health_summary(&self) -> Result<Answer<HealthSummary>, ClientError> {
        self.one(Method::GET, "/health/summary".into()).await
    }

    /// Returns the traffic by protocol.
    ///
    /// # Errors
    /// See [`Client`].
    pub async fn bandwidth(&self) -> Result<Answer<BandwidthByProtocol>, ClientError> {
        self.one(Method::GET, "/health/bandwidth".into()).await
    }

    /// Returns the graph of connections between peers and IPFS nodes.
    ///
    /// # Errors
    /// See [`Client`].
    pub async fn graph(&self) -> Result<Answer<ConnectGraph>, ClientError> {
        self.one(Method::GET, "/health/graph".into()).await
    }

    /// Follows the events that fit a query with `type`, `cid`, `peer` and `after`, as they happen.
    ///
    /// # Errors
    /// See [`Client`].
    pub async fn events(&self, query: &Query) -> Result<Lines<Event>, ClientError> {
        self.many(Method::GET, format!("/events?{}", query.encode()))
            .await
    }

    /// Collects garbage at the IPFS nodes of all peers, or with `local` of the peer that is asked.
    ///
    /// # Errors
    /// See [`Client`].
    pub async fn repo_gc(&self, local: bool) -> Result<Answer<GlobalRepoGc>, ClientError> {
        let path = format!("/ipfs/gc?local={local}");
        self.one(Method::POST, path).await
    }

    /// Returns the state of the scrubs of all peers, or of those that the query names: `local`, `peer`.
    ///
    /// # Errors
    /// See [`Client`].
    pub async fn scrubs(&self, query: &Query) -> Result<Answer<GlobalScrub>, ClientError> {
        self.one(Method::GET, format!("/ipfs/scrub?{}", query.encode()))
            .await
    }

    /// Starts, pauses, resumes or slows the scrubs of all peers, or of some: `action`, `fraction`, `local`,
    /// `peer`. Returns their state.
    ///
    /// # Errors
    /// See [`Client`].
    pub async fn change_scrubs(&self, query: &Query) -> Result<Answer<GlobalScrub>, ClientError> {
        self.one(Method::POST, format!("/ipfs/scrub?{}", query.encode()))
            .await
    }

    /// Adds files. The first lines arrive while later files are still being read.
    ///
    /// # Errors
    /// See [`Client`]; [`ClientError::File`] if a file cannot be read.
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

/// Stream of the response to `POST /add`.
pub struct Added {
    lines: Lines<AddedOutput>,
    failure: super::upload::Failure,
}

impl Added {
    /// Returns the next line, or `None` after the last.
    ///
    /// # Errors
    /// As for [`Lines::next`]; [`ClientError::File`] if a file cannot be read.
    pub async fn next(&mut self) -> Result<Option<Answer<AddedOutput>>, ClientError> {
        // A file that cannot be read breaks the request: its error explains more than that of the connection.
        self.lines
            .next()
            .await
            .map_err(|error| self.failure.take().unwrap_or(error))
    }
}
