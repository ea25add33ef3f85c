//! The routes of the REST API, each with the scope that it needs.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, Response, StatusCode};
use axum::{Extension, Router};
use bytes::Bytes;
use cluster_api::Token;
use cluster_core::Scope::{Add, Admin, Metrics, Pin, Read};

use super::auth::Auth;
use super::scopes::Access::{Admitted, Needs};
#[cfg(test)]
use super::scopes::Route;
use super::scopes::Routes;
use super::server::Service;
use super::{
    Observed, add, answer, credentials, drains, events, health, import, metrics, openapi, page, peers, pins,
    rebalance, scrub,
};
use crate::cluster::Cluster;

/// Builds the router. `auth` issues JWTs to configured users.
pub(super) fn router(cluster: Cluster, observed: Observed, auth: Arc<Auth>) -> Router {
    let (router, table) = routes(auth).finish();
    let document: Bytes = serde_json::to_vec(&openapi::document(&table, cluster.version()))
        .unwrap_or_default()
        .into();
    router
        .layer(Extension(openapi::Document(document)))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(Extension(observed))
        .with_state(cluster)
}

/// Returns all routes, for tests.
#[cfg(test)]
pub(super) fn table(auth: Arc<Auth>) -> Vec<Route> {
    routes(auth).finish().1
}

fn routes(auth: Arc<Auth>) -> Routes {
    let routes = Routes::new(Service::Rest.label(), error)
        .get("/", Admitted, page::root)
        .get("/ui/{file}", Admitted, page::file)
        .get("/openapi.json", Admitted, openapi::show)
        .get("/health", Admitted, || async { answer::no_content() })
        .get("/health/ready", Admitted, health::ready)
        .get("/auth/self", Admitted, credentials::own)
        .get("/auth/credentials", Needs(Admin), credentials::list)
        .post("/auth/credentials", Needs(Admin), credentials::create)
        .delete(
            "/auth/credentials/{credential}",
            Needs(Admin),
            credentials::revoke,
        )
        .get(
            "/auth/credentials/{credential}/usage",
            Needs(Admin),
            credentials::usage,
        )
        .get("/id", Needs(Read), peers::id)
        .get("/version", Needs(Read), peers::version)
        .get("/peers", Needs(Read), peers::list)
        .post("/peers", Needs(Admin), peers::add)
        .delete("/peers/{peer}", Needs(Admin), peers::remove)
        .get("/drains", Needs(Read), drains::list)
        .get("/drains/{peer}", Needs(Read), drains::show)
        .post("/drains/{peer}", Needs(Admin), drains::start)
        .delete("/drains/{peer}", Needs(Admin), drains::end)
        .get("/rebalance", Needs(Read), rebalance::show)
        .post("/rebalance", Needs(Admin), rebalance::start)
        .delete("/rebalance", Needs(Admin), rebalance::end)
        .post("/rebalance/settings", Needs(Admin), rebalance::set)
        .get("/events", Needs(Read), events::stream)
        .get("/health/graph", Needs(Read), health::graph)
        .get("/health/summary", Needs(Read), health::summary)
        .get("/health/alerts", Needs(Read), health::alerts)
        .get("/health/bandwidth", Needs(Read), health::bandwidth)
        .get("/monitor/metrics", Needs(Metrics), health::metric_names)
        .get("/monitor/metrics/{name}", Needs(Metrics), health::metrics)
        .get("/metrics", Needs(Metrics), metrics::scrape)
        .get("/metrics/history", Needs(Metrics), || async {
            answer::json(&crate::metrics::history())
        })
        .post("/add", Needs(Add), add::add)
        .post("/ipfs/gc", Needs(Admin), health::repo_gc)
        .get("/ipfs/scrub", Needs(Read), scrub::show)
        .post("/ipfs/scrub", Needs(Admin), scrub::change);
    token(of_pins(routes), auth)
}

fn of_pins(routes: Routes) -> Routes {
    routes
        .get("/allocations", Needs(Read), pins::allocations)
        .post("/allocations", Needs(Pin), import::import)
        .get("/allocations/{hash}", Needs(Read), pins::allocation)
        // Routes of Go ipfs-cluster 0.0.12: this one, and those that end in `sync`.
        .get("/pinlist", Needs(Read), pins::list)
        .get("/pins", Needs(Read), pins::status_all)
        .post("/pins/recover", Needs(Pin), pins::recover_all)
        .get("/pins/recover", Needs(Read), pins::not_a_cid)
        .delete("/pins/recover", Needs(Pin), pins::not_a_cid)
        .post("/pins/sync", Needs(Pin), pins::sync_all)
        .get("/pins/sync", Needs(Read), pins::not_a_cid)
        .delete("/pins/sync", Needs(Pin), pins::not_a_cid)
        .get("/pins/{hash}", Needs(Read), pins::status)
        .post("/pins/{hash}", Needs(Pin), pins::pin)
        .delete("/pins/{hash}", Needs(Pin), pins::unpin)
        .post("/pins/{hash}/recover", Needs(Pin), pins::recover)
        .post("/pins/{hash}/sync", Needs(Pin), pins::sync)
        .post("/pins/ipfs/{*path}", Needs(Pin), pins::pin_path)
        .delete("/pins/ipfs/{*path}", Needs(Pin), pins::unpin_path)
        .post("/pins/ipns/{*path}", Needs(Pin), pins::pin_path)
        .delete("/pins/ipns/{*path}", Needs(Pin), pins::unpin_path)
        .post("/pins/ipld/{*path}", Needs(Pin), pins::pin_path)
        .delete("/pins/ipld/{*path}", Needs(Pin), pins::unpin_path)
}

/// Adds the route that issues JWTs to configured users.
pub(super) fn token(routes: Routes, auth: Arc<Auth>) -> Routes {
    let issue = move |headers: HeaderMap| async move {
        match auth.token(&headers) {
            Some(token) => answer::json(&Token { token }),
            None => answer::error(StatusCode::UNAUTHORIZED, "unauthorized"),
        }
    };
    routes.post("/token", Admitted, issue)
}

/// Returns an error response with a JSON body.
pub(super) fn error(status: StatusCode, why: &str) -> Response<Body> {
    answer::error(status, why)
}

async fn not_found() -> Response<Body> {
    answer::error(StatusCode::NOT_FOUND, "not found")
}

async fn method_not_allowed() -> Response<Body> {
    answer::error(StatusCode::METHOD_NOT_ALLOWED, "method not allowed")
}
