//! `/id`, `/version`, `/peers`.

use axum::body::{Body, to_bytes};
use axum::extract::{Path, State};
use axum::http::{Response, StatusCode};
use cluster_api::{PeerAdd, Version};
use cluster_core::PeerId;
use futures::StreamExt;

use super::answer;
use crate::cluster::Cluster;

/// The largest body of `POST /peers`: one peer id in JSON.
const BODY_MAX: usize = 16 << 10;

pub(super) async fn id(State(cluster): State<Cluster>) -> Response<Body> {
    answer::result(cluster.id().await)
}

pub(super) async fn version(State(cluster): State<Cluster>) -> Response<Body> {
    answer::json(&Version {
        version: cluster.version().to_owned(),
    })
}

pub(super) async fn list(State(cluster): State<Cluster>) -> Response<Body> {
    match cluster.peers().await {
        Ok(peers) => answer::lines(peers.map(|peer| Ok(vec![peer]))).await,
        Err(failure) => answer::failed(&failure),
    }
}

pub(super) async fn add(body: Body) -> Response<Body> {
    let decoded = to_bytes(body, BODY_MAX).await.ok();
    let decoded = decoded.and_then(|bytes| serde_json::from_slice::<PeerAdd>(&bytes).ok());
    let Some(asked) = decoded else {
        return answer::bad_request("error decoding request body");
    };
    if asked.peer_id.parse::<PeerId>().is_err() {
        return answer::bad_request("error decoding peer_id");
    }
    not_yet("adding peers to a running cluster")
}

pub(super) async fn remove(
    peer: Result<Path<String>, axum::extract::rejection::PathRejection>,
) -> Response<Body> {
    let decoded = peer.ok().and_then(|Path(peer)| peer.parse::<PeerId>().ok());
    if decoded.is_none() {
        return answer::bad_request("error decoding Peer ID");
    }
    not_yet("removing peers from a running cluster")
}

fn not_yet(what: &str) -> Response<Body> {
    let why = format!("{what} is not supported yet: the members are those that init_peerset names");
    answer::error(StatusCode::NOT_IMPLEMENTED, why)
}
