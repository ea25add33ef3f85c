//! Forwarding of requests to the node and of its responses to the client, unchanged but for hop-by-hop
//! headers.

use std::net::{IpAddr, SocketAddr};

use axum::body::Body;
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Request, Response, StatusCode};
use cluster_http::rpc::Failure;
use cluster_http::{SilenceFlag, Silent};
use cluster_ipfs::api::RequestBody;

use super::kubo_response::failed;
use super::upstream::Upstream;

/// Hop-by-hop headers (RFC 9110 §7.6.1). `Trailer` is not among them: it announces trailers that are
/// forwarded.
const HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    // Each hop answers it itself.
    header::EXPECT,
];

const KEEP_ALIVE: [HeaderName; 2] = [
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Forwards a request. If the node cannot be reached, the response is the Go peer's, with the reason.
pub(super) async fn pass(
    upstream: &Upstream,
    client: Option<SocketAddr>,
    mut request: Request<RequestBody>,
) -> Response<Body> {
    strip(request.headers_mut());
    if let Some(client) = client {
        name_client(client.ip(), request.headers_mut());
    }
    let path = request.uri().path().to_owned();
    let silent = request
        .extensions()
        .get::<SilenceFlag>()
        .cloned()
        .unwrap_or_default();
    match upstream.send(request).await {
        Ok(mut response) => {
            strip(response.headers_mut());
            response
        }
        Err(_) if silent.check().is_err() => failed(Failure::plain(StatusCode::REQUEST_TIMEOUT, Silent)),
        Err(error) => {
            tracing::warn!(
                path,
                "the IPFS node behind the proxy does not answer: {}",
                error.message()
            );
            let mut response = Response::new(Body::from(format!("{}\n", error.message())));
            *response.status_mut() = StatusCode::BAD_GATEWAY;
            let text = HeaderValue::from_static("text/plain; charset=utf-8");
            response.headers_mut().insert(header::CONTENT_TYPE, text);
            response
        }
    }
}

fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP).chain(&KEEP_ALIVE) {
        headers.remove(name);
    }
}

fn name_client(client: IpAddr, headers: &mut HeaderMap) {
    let before = headers
        .get_all(FORWARDED_FOR)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let address = client.to_string();
    let chain: Vec<&str> = before.chain([address.as_str()]).collect();
    if let Ok(chain) = HeaderValue::from_str(&chain.join(", ")) {
        headers.insert(FORWARDED_FOR, chain);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hop_by_hop_headers_are_not_forwarded() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Mine"),
            ("x-mine", "1"),
            ("keep-alive", "5"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("trailer", "X-Stream-Error"),
            ("x-theirs", "2"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        strip(&mut headers);
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["trailer", "x-theirs"]);
    }

    #[test]
    fn client_is_appended_to_x_forwarded_for() {
        let mut headers = HeaderMap::new();
        headers.insert(FORWARDED_FOR, HeaderValue::from_static("10.0.0.1"));
        name_client(IpAddr::from([127, 0, 0, 1]), &mut headers);
        assert_eq!(headers[FORWARDED_FOR], "10.0.0.1, 127.0.0.1");
    }
}
