//! Handlers of `/rebalance`.

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::Response;
use serde::Deserialize;

use super::answer;
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
) -> Response<Body> {
    let Query(settings) = match settings {
        Ok(settings) => settings,
        Err(rejection) => return answer::bad_request(rejection.body_text()),
    };
    let parse = |text: Option<String>| text.as_deref().map(RebalanceWish::parse_bytes).transpose();
    let each = parse(settings.bytes_per_second);
    let rates = each.and_then(|each| Ok((each, parse(settings.total_bytes_per_second)?)));
    let (bytes_per_second, bytes_total_per_second) = match rates {
        Ok(rates) => rates,
        Err(why) => return answer::bad_request(why),
    };
    let wish = RebalanceWish {
        automatic: settings.automatic,
        threshold_percent: settings.threshold,
        moves_max: settings.moves,
        moves_total_max: settings.total_moves,
        bytes_per_second,
        bytes_total_per_second,
    };
    answer::result(cluster.set_rebalance(wish).await)
}
