//! Handlers of `/auth/…`.

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::Response;
use cluster_api::CredentialAdd;

use super::auth::Caller;
use super::{answer, json_body};
use crate::cluster::Cluster;

pub(super) async fn list(State(cluster): State<Cluster>) -> Response<Body> {
    answer::json(&cluster.credentials())
}

pub(super) async fn create(
    State(cluster): State<Cluster>,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Response<Body> {
    let invalid = |why| format!("error decoding request body: {why}");
    let asked: CredentialAdd = match json_body::read(body, invalid).await {
        Ok(asked) => asked,
        Err(refusal) => return *refusal,
    };
    let created = cluster.create_credential(&asked).await;
    answer::result(created.map(|(credential, token)| cluster_api::CredentialCreated {
        credential,
        token,
        required: !caller.is_open(),
    }))
}

pub(super) async fn revoke(State(cluster): State<Cluster>, Path(id_or_name): Path<String>) -> Response<Body> {
    answer::result(cluster.revoke_credential(&id_or_name).await)
}

pub(super) async fn usage(State(cluster): State<Cluster>, Path(id_or_name): Path<String>) -> Response<Body> {
    answer::result(cluster.credential_usage(&id_or_name).await)
}

/// Answers who makes the request, and what is permitted.
pub(super) async fn own(Extension(caller): Extension<Caller>) -> Response<Body> {
    answer::json(&cluster_api::Caller {
        name: caller.name().unwrap_or_default().to_owned(),
        scopes: caller.scopes().map(|scope| scope.name().to_owned()).collect(),
    })
}
