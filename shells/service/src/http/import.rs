//! `POST /allocations`: pins as `GET /allocations?whole=true` lists them, added as they are. The Go peer has
//! nothing like it; `state import` uses it at a peer that runs.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::{Response, StatusCode};
use cluster_api::Pin;
use tokio::time::timeout;

use super::answer;
use super::server::close_after;
use crate::cluster::Cluster;

/// The longest body. A pin has some 400 bytes, the longest that is taken some 40,000.
const BODY_MAX: usize = 8 << 20;

/// How long it may take to arrive: eight times as long as over a line of 2 Mbit/s.
const BODY_WAIT: Duration = Duration::from_secs(300);

/// Pins in one request: what is refused in its midst is asked for again as a whole.
const PINS_MAX: usize = 4096;

pub(super) async fn import(State(cluster): State<Cluster>, body: Body) -> Response<Body> {
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
    match cluster.import(&pins).await {
        Ok(()) => answer::no_content(),
        Err(failure) => answer::failed(&failure),
    }
}
