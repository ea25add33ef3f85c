//! Handler of `POST /allocations`, which `state import` uses at a running peer: adds pins unchanged, in the
//! format of `GET /allocations?whole=true`. The Go peer has no such route.

use std::time::Duration;

use axum::Extension;
use axum::body::{Body, to_bytes};
use axum::http::{Response, StatusCode};
use cluster_api::Pin;
use cluster_core::Scope;
use tokio::time::timeout;

use super::answer;
use super::auth::{Acting, Caller};
use super::server::close_after;

/// Maximum size of the body, in bytes. A pin has some 400 bytes, the largest accepted one some 40,000.
const BODY_MAX: usize = 8 << 20;

/// Time for the body to arrive: eight times what it needs at 2 Mbit/s.
const BODY_WAIT: Duration = Duration::from_secs(300);

/// Maximum number of pins in one request: after a failure in the middle, the client repeats the whole
/// request.
const PINS_MAX: usize = 4096;

pub(super) async fn import(
    Acting(cluster): Acting,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Response<Body> {
    let Ok(body) = timeout(BODY_WAIT, to_bytes(body, BODY_MAX)).await else {
        let why = format!("the body did not arrive within {BODY_WAIT:?}: send fewer pins");
        let mut refusal = answer::error(StatusCode::REQUEST_TIMEOUT, why);
        close_after(&mut refusal);
        return refusal;
    };
    let Ok(body) = body else {
        let why =
            format!("the body did not arrive whole, or has more than {BODY_MAX} bytes: send fewer pins");
        return answer::error(StatusCode::PAYLOAD_TOO_LARGE, why);
    };
    let mut pins = Vec::new();
    for pin in serde_json::Deserializer::from_slice(&body).into_iter::<Pin>() {
        match pin {
            Ok(pin) if pins.len() < PINS_MAX => pins.push(pin),
            Ok(_) => return answer::bad_request(format!("at most {PINS_MAX} pins in one request")),
            Err(error) => return answer::bad_request(format!("error decoding pins: {error}")),
        }
    }
    // An export names the owners of its pins.
    let names_owners = caller.may(Scope::Admin);
    match cluster.import(&pins, names_owners).await {
        Ok(()) => answer::no_content(),
        Err(failure) => answer::failed(&failure),
    }
}
