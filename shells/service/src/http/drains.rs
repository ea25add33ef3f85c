//! Handlers of `/drains`.

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::Response;
use cluster_core::PeerId;
use serde::Deserialize;

use super::answer::{self, Answer, invalid};
use crate::cluster::{Cluster, DrainWish, Error};

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

pub(super) async fn show(State(cluster): State<Cluster>, Path(peer): Path<String>) -> Answer {
    Ok(answer::json(&cluster.drain_of(&parse(&peer)?).await?))
}

pub(super) async fn start(
    State(cluster): State<Cluster>,
    Path(peer): Path<String>,
    wish: Result<Query<Wish>, axum::extract::rejection::QueryRejection>,
) -> Answer {
    let Query(wish) = wish.map_err(|rejection| invalid(rejection.body_text()))?;
    let wish = DrainWish {
        moves_max: wish.moves,
        force: wish.force,
    };
    Ok(answer::json(&cluster.start_drain(&parse(&peer)?, wish).await?))
}

pub(super) async fn end(State(cluster): State<Cluster>, Path(peer): Path<String>) -> Answer {
    Ok(answer::json(&cluster.end_drain(&parse(&peer)?).await?))
}

fn parse(peer: &str) -> Result<PeerId, Error> {
    peer.parse().map_err(|_| invalid("error decoding Peer ID"))
}
