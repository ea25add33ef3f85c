//! Handlers of `/health/…`, `/monitor/…` and `/ipfs/gc`.

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::{Response, StatusCode};
use cluster_api::Query;

use super::answer::{Answer, invalid};
use super::{Observed, answer};
use crate::cluster::Cluster;

/// Answers whether this peer can serve: 200, or 503 with the reasons.
pub(super) async fn ready(Extension(observed): Extension<Observed>) -> Response<Body> {
    let Some(observer) = &observed.observer else {
        return answer::error(StatusCode::SERVICE_UNAVAILABLE, "the peer is starting");
    };
    let readiness = observer.readiness().await;
    let mut response = answer::json(&readiness);
    if !readiness.ready {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}

pub(super) async fn graph(State(cluster): State<Cluster>) -> Response<Body> {
    answer::result(cluster.connect_graph().await)
}

pub(super) async fn summary(State(cluster): State<Cluster>) -> Response<Body> {
    answer::result(cluster.health_summary().await)
}

pub(super) async fn alerts(State(cluster): State<Cluster>) -> Response<Body> {
    answer::result(cluster.alerts().await)
}

pub(super) async fn bandwidth(State(cluster): State<Cluster>) -> Response<Body> {
    answer::json(&cluster.bandwidth())
}

pub(super) async fn metric_names(State(cluster): State<Cluster>) -> Response<Body> {
    answer::result(cluster.metric_names().await)
}

pub(super) async fn metrics(State(cluster): State<Cluster>, Path(name): Path<String>) -> Response<Body> {
    answer::result(cluster.metrics(&name).await)
}

pub(super) async fn repo_gc(State(cluster): State<Cluster>, RawQuery(query): RawQuery) -> Answer {
    let query = Query::parse(query.as_deref().unwrap_or_default());
    Ok(match query.bool("local", false).map_err(invalid)? {
        true => answer::json(&cluster.repo_gc_local().await),
        false => answer::json(&cluster.repo_gc().await?),
    })
}
