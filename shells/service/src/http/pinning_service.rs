//! The IPFS Pinning Service API, <https://ipfs.github.io/pinning-services-api-spec/>, over [`Cluster`].
//!
//! A request is one pin of the pinset. Its `requestid` is made of the pin's time and its CID: pinning or
//! replacing gives a new one, and any peer finds the pin of a `requestid` without further state. A second
//! request for a CID takes the place of the first. [`records`] has the JSON of the specification, and
//! [`list`] the filters of `GET /pins`.

mod list;
mod records;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Path, RawQuery};
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse;
use cluster_api::{GlobalPinInfo, PinOptions};
use cluster_core::{Cid, Scope};
use tokio::time::{Instant, timeout_at};

use self::records::{Failure, PinRequest, PinStatus, RequestId, Status};
use super::answer;
use super::auth::{Acting, Auth};
use super::scopes::Access::{Admitted, Needs};
#[cfg(test)]
use super::scopes::Route;
use super::scopes::Routes;
use super::server::Service;
use crate::cluster::{Cluster, Error};

/// Maximum size of a request's body, in bytes: a pin with all its origins and metadata.
const BODY_MAX: usize = 256 << 10;

/// Maximum length of a pin's name, in Unicode characters, from the specification.
const NAME_MAX: usize = 255;

/// Time that a new pin has to be held, so that a small one is answered as `pinned`. Clients poll for others.
const PINNED_WAIT: Duration = Duration::from_millis(200);

/// Interval of looking.
const POLL: Duration = Duration::from_millis(20);

type Answer = Result<Response<Body>, Failure>;

/// Builds the router of `/pins` and `/pins/{requestid}`. `auth` issues JWTs to configured users.
pub(super) fn router(cluster: Cluster, auth: Arc<Auth>) -> Router {
    let (router, _) = routes(auth).finish();
    router
        .fallback(|| async { error(StatusCode::NOT_FOUND, "there is no such route") })
        .method_not_allowed_fallback(|| async {
            error(StatusCode::METHOD_NOT_ALLOWED, "the route has no such method")
        })
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(cluster)
}

/// Returns all routes, for tests.
#[cfg(test)]
pub(super) fn table(auth: Arc<Auth>) -> Vec<Route> {
    routes(auth).finish().1
}

fn routes(auth: Arc<Auth>) -> Routes {
    let routes = Routes::new(Service::PinningService.label(), error)
        .get("/pins", Needs(Scope::Read), list)
        .post("/pins", Needs(Scope::Pin), add)
        .get("/pins/{requestid}", Needs(Scope::Read), status)
        .post("/pins/{requestid}", Needs(Scope::Pin), replace)
        .delete("/pins/{requestid}", Needs(Scope::Pin), remove)
        .get("/health", Admitted, || async { answer::no_content() });
    super::routes::token(routes, auth)
}

/// Returns an error response in the shape of the specification.
pub(super) fn error(status: StatusCode, details: &str) -> Response<Body> {
    Failure::new(status, details).into_response()
}

fn accepted(status: &PinStatus) -> Response<Body> {
    let mut response = answer::json(status);
    *response.status_mut() = StatusCode::ACCEPTED;
    response
}

async fn list(Acting(cluster): Acting, RawQuery(query): RawQuery) -> Answer {
    let asked = list::Asked::parse(query.as_deref().unwrap_or_default())?;
    Ok(answer::json(&list::list(&cluster, asked).await?))
}

async fn add(Acting(cluster): Acting, body: Bytes) -> Answer {
    let (cid, options) = parse(&body)?;
    Ok(accepted(&pin(&cluster, cid, options).await?))
}

async fn status(Acting(cluster): Acting, Path(id): Path<String>) -> Answer {
    let id = find(&cluster, &id).await?;
    let status = cluster.status(id.cid.clone()).await?;
    // It may have been replaced since.
    id.check(&status)?;
    Ok(answer::json(&PinStatus::new(&status)))
}

async fn replace(Acting(cluster): Acting, Path(id): Path<String>, body: Bytes) -> Answer {
    let old = find(&cluster, &id).await?.cid;
    let (cid, mut options) = parse(&body)?;
    if cid != old {
        // As in the Go peer: the same holders, which have most of the blocks.
        options.pin_update = Some(old.to_string());
    }
    let status = pin(&cluster, cid.clone(), options).await?;
    if cid != old {
        cluster.unpin(old).await?;
    }
    Ok(accepted(&status))
}

async fn remove(Acting(cluster): Acting, Path(id): Path<String>) -> Answer {
    let id = find(&cluster, &id).await?;
    cluster.unpin(id.cid).await?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::ACCEPTED;
    Ok(response)
}

/// Parses the body of a request for a pin.
fn parse(body: &[u8]) -> Result<(Cid, PinOptions), Failure> {
    let bad = |why: String| Failure::new(StatusCode::BAD_REQUEST, why);
    let asked: PinRequest =
        serde_json::from_slice(body).map_err(|error| bad(format!("the body is no pin: {error}")))?;
    let cid = asked
        .cid
        .parse()
        .map_err(|error| bad(format!("{:?} is no CID: {error}", asked.cid)))?;
    let characters = asked.name.chars().count();
    if characters > NAME_MAX {
        return Err(bad(format!(
            "the name has {characters} characters, at most {NAME_MAX} are allowed"
        )));
    }
    let options = PinOptions {
        name: asked.name,
        origins: asked.origins,
        metadata: asked.meta,
        ..PinOptions::default()
    };
    Ok((cid, options))
}

/// Pins, and returns the status of the new request.
async fn pin(cluster: &Cluster, cid: Cid, options: PinOptions) -> Result<PinStatus, Failure> {
    let pin = cluster.pin(cid.clone(), &options).await?;
    let until = Instant::now() + PINNED_WAIT;
    let mut latest = None;
    loop {
        let Ok(status) = timeout_at(until, cluster.status(cid.clone())).await else {
            break;
        };
        // The status may be of a later request for the same CID.
        let status = PinStatus::new(&GlobalPinInfo {
            created: pin.timestamp,
            ..status?
        });
        let is_pinned = status.status == Status::Pinned;
        latest = Some(status);
        if is_pinned || Instant::now() + POLL >= until {
            break;
        }
        tokio::time::sleep(POLL).await;
    }
    let status = match latest {
        Some(status) => status,
        // Some peer is slow to answer.
        None => PinStatus::new(&cluster.status_local(cid).await?),
    };
    // An error is of an attempt before this request.
    Ok(status.or_queued())
}

/// Returns the request of an id, if its pin is in the pinset.
async fn find(cluster: &Cluster, text: &str) -> Result<RequestId, Failure> {
    let missing = || Failure::new(StatusCode::NOT_FOUND, format!("there is no request {text:?}"));
    let id: RequestId = text.parse().map_err(|()| missing())?;
    match cluster.allocation(id.cid.clone()).await {
        Ok(pin) if id.is_of(pin.timestamp) => Ok(id),
        Ok(_) | Err(Error::Refused(cluster_core::Refusal::NotFound)) => Err(missing()),
        Err(error) => Err(error.into()),
    }
}
