//! Small request bodies in JSON.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{Response, StatusCode};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::answer;
use super::server::close_after;

/// Maximum size of a body, in bytes: one peer id, or one credential.
const BODY_MAX: usize = 16 << 10;

/// Time for a body to arrive; it fits in a few packets.
const BODY_WAIT: Duration = Duration::from_secs(30);

/// Reads a body within [`BODY_WAIT`]. The answer to an invalid one is made of the reason by `invalid`.
pub(super) async fn read<T: DeserializeOwned>(
    body: Body,
    invalid: impl FnOnce(String) -> String,
) -> Result<T, Box<Response<Body>>> {
    let Ok(bytes) = timeout(BODY_WAIT, to_bytes(body, BODY_MAX)).await else {
        let why = format!("the request body did not arrive within {BODY_WAIT:?}");
        let mut refusal = answer::error(StatusCode::REQUEST_TIMEOUT, why);
        close_after(&mut refusal);
        return Err(Box::new(refusal));
    };
    let bytes = bytes.map_err(|error| error.to_string());
    let decoded = bytes.and_then(|bytes| serde_json::from_slice(&bytes).map_err(|error| error.to_string()));
    decoded.map_err(|why| Box::new(answer::bad_request(invalid(why))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn missing_body_is_a_request_timeout() {
        let silent = futures::stream::pending::<Result<bytes::Bytes, std::io::Error>>();
        let read = read::<()>(Body::from_stream(silent), |why| why).await;
        let refusal = read.unwrap_err();
        assert_eq!(refusal.status(), StatusCode::REQUEST_TIMEOUT);
        assert_eq!(refusal.headers()["connection"], "close");
    }
}
