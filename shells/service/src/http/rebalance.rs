//! Handlers of `/rebalance`.

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::Response;
use serde::Deserialize;

use super::answer::{self, Answer, invalid};
use crate::cluster::{Cluster, RebalanceWish};

/// Parameters of `POST /rebalance/settings`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub(super) struct Settings {
    automatic: Option<bool>,
    threshold: Option<u32>,
    moves: Option<u32>,
    total_moves: Option<u32>,
    bytes_per_second: Option<String>,
    total_bytes_per_second: Option<String>,
}

pub(super) async fn show(State(cluster): State<Cluster>) -> Response<Body> {
    answer::result(cluster.rebalance().await)
}

pub(super) async fn start(State(cluster): State<Cluster>) -> Response<Body> {
    answer::result(cluster.start_rebalance().await)
}

pub(super) async fn end(State(cluster): State<Cluster>) -> Response<Body> {
    answer::result(cluster.end_rebalance().await)
}

pub(super) async fn set(
    State(cluster): State<Cluster>,
    settings: Result<Query<Settings>, QueryRejection>,
) -> Answer {
    let Query(settings) = settings.map_err(|rejection| invalid(rejection.body_text()))?;
    let parse = |text: Option<String>| {
        let bytes = text.as_deref().map(RebalanceWish::parse_bytes);
        bytes.transpose().map_err(invalid)
    };
    let wish = RebalanceWish {
        automatic: settings.automatic,
        threshold_percent: settings.threshold,
        moves_max: settings.moves,
        moves_total_max: settings.total_moves,
        bytes_per_second: parse(settings.bytes_per_second)?,
        bytes_total_per_second: parse(settings.total_bytes_per_second)?,
    };
    Ok(answer::json(&cluster.set_rebalance(wish).await?))
}
