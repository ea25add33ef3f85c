//! Handlers of `/drains`.

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::Response;
use cluster_core::PeerId;
use serde::Deserialize;

use super::answer;
use crate::cluster::{Cluster, DrainWish};

/// Parameters of `POST /drains/{peer}`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Wish {
    moves: Option<u32>,
    force: bool,
}

pub(super) async fn list(State(cluster): State<Cluster>) -> Response<Body> {
    answer::result(cluster.drains().await)
}

pub(super) async fn show(State(cluster): State<Cluster>, Path(peer): Path<String>) -> Response<Body> {
    match parse(&peer) {
        Ok(peer) => answer::result(cluster.drain_of(&peer).await),
        Err(refusal) => *refusal,
    }
}

pub(super) async fn start(
    State(cluster): State<Cluster>,
    Path(peer): Path<String>,
    wish: Result<Query<Wish>, axum::extract::rejection::QueryRejection>,
) -> Response<Body> {
    let wish = match wish {
        Ok(Query(wish)) => DrainWish {
            moves_max: wish.moves,
            force: wish.force,
        },
        Err(rejection) => return answer::bad_request(rejection.body_text()),
    };
    match parse(&peer) {
        Ok(peer) => answer::result(cluster.start_drain(&peer, wish).await),
        Err(refusal) => *refusal,
    }
}

pub(super) async fn end(State(cluster): State<Cluster>, Path(peer): Path<String>) -> Response<Body> {
    match parse(&peer) {
        Ok(peer) => answer::result(cluster.end_drain(&peer).await),
        Err(refusal) => *refusal,
    }
}

fn parse(peer: &str) -> Result<PeerId, Box<Response<Body>>> {
    peer.parse()
        .map_err(|_| Box::new(answer::bad_request("error decoding Peer ID")))
}
