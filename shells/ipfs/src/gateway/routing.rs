//! `/routing/v1`: answers from this node's own knowledge
//! ([specification](https://specs.ipfs.tech/routing/http-routing-v1/)). It asks no other peer, so that nobody
//! can have it search for them.

use hyper::header::{self, HeaderMap};
use hyper::{Response, StatusCode};
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use serde::Serialize;

use super::failure::Refusal;
use super::format::Format;
use super::handler::Query;
use super::reply::{Body, whole};
use super::{Gateway, headers};
use crate::{Cid, Lookup, ipns};

/// Protocol name of bitswap in these answers.
const BITSWAP: &str = "transport-bitswap";

/// `Cache-Control` of an answer with results.
const FOUND: &str = "public, max-age=300, stale-while-revalidate=172800, stale-if-error=172800";
/// `Cache-Control` of an answer without results, which soon may have some.
const NOT_FOUND: &str = "public, max-age=15, stale-while-revalidate=172800, stale-if-error=172800";

/// A peer in an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Peer {
    schema: &'static str,
    #[serde(rename = "ID")]
    id: String,
    addrs: Vec<String>,
    protocols: Vec<&'static str>,
}

/// Answers a request for a path below `/routing/v1/`.
pub(super) async fn answer(
    gateway: &Gateway,
    path: &str,
    query: &Query,
    headers: &HeaderMap,
) -> Result<Response<Body>, Refusal> {
    let missing = || Refusal::new(StatusCode::NOT_FOUND, "404 page not found");
    let (kind, key) = path.split_once('/').ok_or_else(missing)?;
    match kind {
        "providers" => {
            let cid = Cid::try_from(key);
            let cid = cid.map_err(|error| Refusal::bad_request(format!("invalid cid {key:?}: {error}")))?;
            list("Providers", providers(gateway, &cid)?, query, headers)
        }
        "peers" => {
            let peer = ipns::parse_name(key);
            let peer = peer.ok_or_else(|| Refusal::bad_request(format!("invalid peer id {key:?}")))?;
            list("Peers", peers(gateway, &peer).await, query, headers)
        }
        "ipns" => record(gateway, key, headers).await,
        _ => Err(missing()),
    }
}

/// Returns this node, if it has the block.
fn providers(gateway: &Gateway, cid: &Cid) -> Result<Vec<Peer>, Refusal> {
    // Such CIDs contain their content: it needs no provider.
    let holds_content = cid.hash().code() == crate::store::IDENTITY;
    if holds_content || !gateway.node.has(cid)? {
        return Ok(Vec::new());
    }
    Ok(vec![own(gateway)])
}

fn own(gateway: &Gateway) -> Peer {
    let own = gateway.node.id();
    peer(&own.peer_id, own.addresses)
}

async fn peers(gateway: &Gateway, wanted: &PeerId) -> Vec<Peer> {
    if gateway.node.id().peer_id == *wanted {
        return vec![own(gateway)];
    }
    let known = gateway.node.identified(wanted);
    known
        .into_iter()
        .map(|known| peer(wanted, known.addresses))
        .collect()
}

fn peer(id: &PeerId, addresses: Vec<Multiaddr>) -> Peer {
    let is_loopback = |address: &Multiaddr| match address.iter().next() {
        Some(Protocol::Ip4(ip)) => ip.is_loopback(),
        Some(Protocol::Ip6(ip)) => ip.is_loopback(),
        _ => false,
    };
    // Of use only to programs on this machine, which reach the others too.
    let all_local = addresses.iter().all(is_loopback);
    let useful = addresses.into_iter().filter(|it| all_local || !is_loopback(it));
    let bare = |address: Multiaddr| -> String {
        let parts = address.iter().filter(|part| !matches!(part, Protocol::P2p(_)));
        parts.collect::<Multiaddr>().to_string()
    };
    Peer {
        schema: "peer",
        id: id.to_string(),
        addrs: useful.map(bare).collect(),
        protocols: vec![BITSWAP],
    }
}

/// Returns a list as JSON, or with `Accept: application/x-ndjson` one peer per line.
fn list(
    name: &'static str,
    peers: Vec<Peer>,
    query: &Query,
    headers: &HeaderMap,
) -> Result<Response<Body>, Refusal> {
    let peers: Vec<Peer> = peers
        .into_iter()
        .filter_map(|peer| filtered(peer, query))
        .collect();
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let lines = accept.is_some_and(|accept| accept.contains("application/x-ndjson"));
    let cache_control = if peers.is_empty() { NOT_FOUND } else { FOUND };
    let line = |peer: &Peer| cluster_http::rpc::json_line(peer);
    let (kind, text) = match lines {
        true => (
            "application/x-ndjson",
            peers.iter().map(line).collect::<Vec<_>>().concat(),
        ),
        false => (
            "application/json",
            serde_json::to_vec(&serde_json::json!({ name: peers }))
                .map_err(|error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?,
        ),
    };
    let mut response = Response::new(whole(text));
    let headers = response.headers_mut();
    headers::set(headers, header::CONTENT_TYPE, kind);
    headers::set(headers, header::CACHE_CONTROL, cache_control);
    headers::set(headers, header::VARY, "Accept");
    Ok(response)
}

/// Applies `filter-addrs` and `filter-protocols` ([IPIP-484](https://specs.ipfs.tech/ipips/ipip-0484/)).
fn filtered(mut peer: Peer, query: &Query) -> Option<Peer> {
    let words = |name: &str| -> Vec<String> {
        let value = query.get(name).unwrap_or_default().to_ascii_lowercase();
        value
            .split(',')
            .filter(|it| !it.is_empty())
            .map(str::to_owned)
            .collect()
    };
    let wanted = words("filter-protocols");
    if !wanted.is_empty()
        && !peer
            .protocols
            .iter()
            .any(|known| wanted.iter().any(|it| it == known))
    {
        return None;
    }
    let wanted = words("filter-addrs");
    if wanted.is_empty() {
        return Some(peer);
    }
    if peer.addrs.is_empty() {
        return wanted.iter().any(|it| it == "unknown").then_some(peer);
    }
    let (excluded, included): (Vec<&String>, Vec<&String>) =
        wanted.iter().partition(|it| it.starts_with('!'));
    peer.addrs.retain(|address| {
        let has = |protocol: &str| address.split('/').any(|part| part == protocol);
        let excluded = excluded.iter().any(|it| has(it.trim_start_matches('!')));
        let included = included.iter().any(|it| has(it));
        !excluded && (included || !wanted.iter().any(|it| !it.starts_with('!') && it != "unknown"))
    });
    (!peer.addrs.is_empty()).then_some(peer)
}

async fn record(gateway: &Gateway, key: &str, headers: &HeaderMap) -> Result<Response<Body>, Refusal> {
    let name = ipns::parse_name(key);
    let name = name.ok_or_else(|| Refusal::bad_request(format!("invalid ipns name {key:?}")))?;
    let kind = Format::IpnsRecord.media_type();
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    if accept.is_some_and(|accept| !accept.contains(kind) && !accept.contains("*/*")) {
        let why = format!("only {kind} is supported");
        return Err(Refusal::new(StatusCode::NOT_ACCEPTABLE, why));
    }
    let found = gateway.node.offline().find_record(&name, Lookup::Cached).await;
    let found = found.map_err(|error| Refusal::new(StatusCode::NOT_FOUND, error.to_string()))?;
    let mut response = Response::new(whole(found.bytes().clone()));
    let headers = response.headers_mut();
    headers::set(headers, header::CONTENT_TYPE, kind);
    headers::set(headers, header::VARY, "Accept");
    if let Some(value) = headers::cache_control(true, Some(found.ttl())) {
        headers::set(headers, header::CACHE_CONTROL, &value);
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer_with(addresses: &[&str]) -> Peer {
        Peer {
            schema: "peer",
            id: "x".to_owned(),
            addrs: addresses.iter().map(|it| (*it).to_owned()).collect(),
            protocols: vec![BITSWAP],
        }
    }

    fn addresses(filter: &str) -> Option<Vec<String>> {
        let peer = peer_with(&["/ip4/1.2.3.4/tcp/1", "/ip4/1.2.3.4/udp/1/quic-v1"]);
        filtered(peer, &Query::parse(Some(filter))).map(|peer| peer.addrs)
    }

    #[test]
    fn filters_keep_and_exclude_addresses_and_protocols() {
        let (tcp, quic) = (
            "/ip4/1.2.3.4/tcp/1".to_owned(),
            "/ip4/1.2.3.4/udp/1/quic-v1".to_owned(),
        );
        assert_eq!(addresses("filter-addrs=TCP"), Some(vec![tcp.clone()]));
        assert_eq!(addresses("filter-addrs=!tcp"), Some(vec![quic]));
        assert_eq!(addresses("filter-addrs=!quic-v1,ip4"), Some(vec![tcp]));
        assert_eq!(addresses("filter-addrs=webrtc"), None);
        assert_eq!(addresses("filter-protocols=transport-bitswap").unwrap().len(), 2);
        assert_eq!(addresses("filter-protocols=other"), None);
        let none = |filter| filtered(peer_with(&[]), &Query::parse(Some(filter)));
        assert!(none("filter-addrs=tcp").is_none() && none("filter-addrs=unknown").is_some());
    }
}
