//! The routes of the REST API.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, Response, StatusCode};
use axum::routing::{delete, get, post};
use axum::{Extension, Router};
use cluster_api::Token;

use super::auth::Auth;
use super::{Observed, add, answer, events, health, import, metrics, page, peers, pins};
use crate::cluster::Cluster;

/// Builds the router. `auth` issues tokens; `None` if no credentials are configured.
pub(super) fn router(cluster: Cluster, observed: Observed, auth: Option<Arc<Auth>>) -> Router {
    Router::new()
        .route("/id", get(peers::id))
        .route("/version", get(peers::version))
        .route("/peers", get(peers::list).post(peers::add))
        .route("/peers/{peer}", delete(peers::remove))
        .route("/add", post(add::add))
        .route("/allocations", get(pins::allocations).post(import::import))
        .route("/allocations/{hash}", get(pins::allocation))
        // Routes of Go ipfs-cluster 0.0.12: this one, and those that end in `sync`.
        .route("/pinlist", get(pins::list))
        .route("/pins", get(pins::status_all))
        .route(
            "/pins/recover",
            post(pins::recover_all)
                .get(pins::not_a_cid)
                .delete(pins::not_a_cid),
        )
        .route(
            "/pins/sync",
            post(pins::sync_all).get(pins::not_a_cid).delete(pins::not_a_cid),
        )
        .route(
            "/pins/{hash}",
            get(pins::status).post(pins::pin).delete(pins::unpin),
        )
        .route("/pins/{hash}/recover", post(pins::recover))
        .route("/pins/{hash}/sync", post(pins::sync))
        .route(
            "/pins/ipfs/{*path}",
            post(pins::pin_path).delete(pins::unpin_path),
        )
        .route(
            "/pins/ipns/{*path}",
            post(pins::pin_path).delete(pins::unpin_path),
        )
        .route(
            "/pins/ipld/{*path}",
            post(pins::pin_path).delete(pins::unpin_path),
        )
        .route("/ipfs/gc", post(health::repo_gc))
        .route("/health", get(|| async { answer::no_content() }))
        .merge(observing(observed))
        .route("/health/graph", get(health::graph))
        .route("/health/alerts", get(health::alerts))
        .route("/health/bandwidth", get(health::bandwidth))
        .route("/monitor/metrics", get(health::metric_names))
        .route("/monitor/metrics/{name}", get(health::metrics))
        .merge(page::routes())
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(cluster)
        .merge(token(auth))
}

/// Builds the route that issues tokens.
pub(super) fn token(auth: Option<Arc<Auth>>) -> Router {
    let issue = move |headers: HeaderMap| async move {
        match auth.and_then(|auth| auth.token(&headers)) {
            Some(token) => answer::json(&Token { token }),
            None => answer::error(StatusCode::UNAUTHORIZED, "unauthorized"),
        }
    };
    Router::new().route("/token", post(issue))
}

/// Routes that show the running peer.
fn observing(observed: Observed) -> Router<Cluster> {
    Router::new()
        .route("/health/ready", get(health::ready))
        .route("/metrics", get(metrics::scrape))
        .route(
            "/metrics/history",
            get(|| async { answer::json(&crate::metrics::history()) }),
        )
        .route("/events", get(events::stream))
        .layer(Extension(observed))
}

async fn not_found() -> Response<Body> {
    answer::error(StatusCode::NOT_FOUND, "not found")
}

async fn method_not_allowed() -> Response<Body> {
    answer::error(StatusCode::METHOD_NOT_ALLOWED, "method not allowed")
}
