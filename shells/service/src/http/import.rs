//! `POST /allocations`: pins as `GET /allocations?whole=true` lists them, added as they are. The Go peer has
//! nothing like it; `state import` uses it at a peer that runs.

use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::{Response, StatusCode};
use cluster_api::Pin;

use super::answer;
use crate::cluster::Cluster;

/// The longest body. A pin has some 400 bytes, the longest that is taken some 40,000.
const BODY_MAX: usize = 8 << 20;

/// Pins in one request: what is refused in its midst is asked for again as a whole.
const PINS_MAX: usize = 4096;

pub(super) async fn import(State(cluster): State<Cluster>, body: Body) -> Response<Body> {
    let Ok(body) = to_bytes(body, BODY_MAX).await else {
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
