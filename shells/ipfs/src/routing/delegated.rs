//! Client of the [delegated routing API](https://specs.ipfs.tech/routing/http-routing-v1/): servers that look
//! up providers, peers and IPNS records.
//!
//! All configured routers are asked at once. Answers are JSON, or NDJSON whose lines are used as they arrive.
//! Their length and the number of records are limited.

use super::{HTTP_TRANSPORT, Provider};
use crate::outbound_http::{HttpClient, HttpError, Response};
use crate::steps::{OpenStep, Recorder};
use crate::swarm::addresses::{ADDRESSES_MAX, Reach, Scope, named_or_dialable, reach_of_ip, reach_of_name};
use crate::{Cid, Multihash};
use bytes::{Bytes, BytesMut};
use futures::future::join_all;
use hyper::header::{ACCEPT, CONTENT_TYPE};
use hyper::{Method, StatusCode, Uri};
use libp2p::{Multiaddr, PeerId};
use serde::Deserialize;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;
use url::{Host, Url};

/// Formats of an answer, the preferred first.
const FORMATS: &str = "application/x-ndjson, application/json;q=0.9";
const NDJSON: &str = "application/x-ndjson";
/// Media type of IPNS records.
const IPNS_RECORD: &str = "application/vnd.ipfs.ipns-record";
/// Limit on the bytes of an answer: 100 records, the maximum of the specification, have some 100 KB.
const ANSWER_MAX: usize = 1 << 20;
/// Limit on the records of an answer that are used.
const RECORDS_MAX: usize = 100;
/// Limit on the bytes of an IPNS record.
const VALUE_MAX: usize = 10 << 10;
/// Codec of CIDs of public keys.
const LIBP2P_KEY: u64 = 0x72;

/// A configured router.
#[derive(Debug)]
struct Router {
    base: Url,
    /// Scopes of the addresses that its answers may contain: one in the local network knows local peers.
    scopes: Vec<Scope>,
}

/// Client of all configured routers.
#[derive(Debug)]
pub(super) struct Delegated {
    routers: Vec<Router>,
    client: HttpClient,
}

/// Record of a peer in an answer. Unknown fields and schemas are skipped.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PeerRecord {
    schema: String,
    #[serde(rename = "ID")]
    id: String,
    #[serde(default)]
    addrs: Option<Vec<String>>,
    #[serde(default)]
    protocols: Option<Vec<String>>,
    /// Protocol of the older schema `bitswap`.
    #[serde(default)]
    protocol: Option<String>,
}

/// Sender of the records of an answer, which counts them.
struct Found<'a> {
    sender: &'a mpsc::Sender<Provider>,
    step: &'a OpenStep,
    count: AtomicU64,
}

impl Found<'_> {
    fn new<'a>(sender: &'a mpsc::Sender<Provider>, step: &'a OpenStep) -> Found<'a> {
        Found {
            sender,
            step,
            count: AtomicU64::new(0),
        }
    }

    /// Returns `false` if no more are wanted.
    async fn send(&self, provider: Provider) -> bool {
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        self.step.set_number("ipfs.providers", count);
        self.sender.send(provider).await.is_ok()
    }
}

/// JSON answer about providers or peers.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default)]
    providers: Option<Vec<serde_json::Value>>,
    #[serde(default)]
    peers: Option<Vec<serde_json::Value>>,
}

fn parse_peer(text: &str) -> Option<PeerId> {
    if let Ok(peer) = text.parse::<PeerId>() {
        return Some(peer);
    }
    let cid: Cid = text.parse().ok()?;
    PeerId::from_bytes(&cid.hash().to_bytes()).ok()
}

/// Returns the name of a peer as a CID in base 36.
fn peer_name(peer: &PeerId) -> Option<String> {
    let hash = Multihash::from_bytes(&peer.to_bytes()).ok()?;
    Cid::new_v1(LIBP2P_KEY, hash)
        .to_string_of_base(multibase::Base::Base36Lower)
        .ok()
}

/// Converts a record of an answer; `None` for unknown schemas and invalid ones.
fn provider_of(record: serde_json::Value, scopes: &[Scope]) -> Option<Provider> {
    let record: PeerRecord = serde_json::from_value(record).ok()?;
    if record.schema != "peer" && record.schema != "bitswap" {
        return None;
    }
    let mut protocols = record.protocols.unwrap_or_default();
    protocols.extend(record.protocol);
    let texts = record
        .addrs
        .unwrap_or_default()
        .into_iter()
        .take(8 * ADDRESSES_MAX);
    let all = texts.filter_map(|text| text.parse::<Multiaddr>().ok());
    let addresses = match protocols.iter().any(|protocol| protocol == HTTP_TRANSPORT) {
        // Those of HTTP servers are checked again when their names are resolved.
        true => all
            .filter(|address| scopes.iter().any(|scope| scope.contains(address)))
            .take(ADDRESSES_MAX)
            .collect(),
        false => named_or_dialable(all, scopes),
    };
    Some(Provider {
        peer: parse_peer(&record.id)?,
        addresses,
        protocols,
    })
}

impl Delegated {
    pub(super) fn new(urls: &[Url], local: Scope) -> std::io::Result<Delegated> {
        let router = |base: &Url| {
            let reach = match base.host() {
                Some(Host::Domain(name)) => reach_of_name(name),
                Some(Host::Ipv4(address)) => reach_of_ip(address.into()),
                Some(Host::Ipv6(address)) => reach_of_ip(address.into()),
                None => Reach::Nowhere,
            };
            let mut scopes = vec![Scope::Public];
            if matches!(reach, Reach::Private | Reach::Loopback) {
                scopes.push(local);
            }
            Router {
                base: base.clone(),
                scopes,
            }
        };
        Ok(Delegated {
            routers: urls.iter().map(router).collect(),
            client: HttpClient::new(None)?,
        })
    }

    /// Sends the providers that the routers know, as they arrive.
    pub(super) async fn providers(&self, cid: &Cid, found: &mpsc::Sender<Provider>, recorder: &Recorder) {
        let path = format!("providers/{cid}");
        let asked = self.routers.iter().map(async |router| {
            let step = recorder.begin("routing.delegated");
            step.set_text("server.address", &router.base.host_str().unwrap_or_default());
            let found = Found::new(found, &step);
            if let Err(error) = self.ask(router, &path, &found).await {
                step.fail(&error);
                tracing::debug!(router = %router.base, %error, "a delegated router did not answer");
            }
        });
        join_all(asked).await;
    }

    /// Returns the addresses that the routers know of a peer.
    pub(super) async fn peer(&self, peer: &PeerId) -> Vec<Multiaddr> {
        let Some(name) = peer_name(peer) else {
            return Vec::new();
        };
        let (found, mut results) = mpsc::channel(RECORDS_MAX * self.routers.len().max(1));
        let path = format!("peers/{name}");
        let step = OpenStep::default();
        let sender = Found::new(&found, &step);
        join_all(self.routers.iter().map(|router| self.ask(router, &path, &sender))).await;
        drop(found);
        let mut addresses = Vec::new();
        while let Some(provider) = results.recv().await {
            if provider.peer == *peer {
                addresses.extend(provider.addresses);
            }
        }
        addresses.truncate(ADDRESSES_MAX);
        addresses
    }

    /// Sends the copies of an IPNS record that the routers have.
    pub(super) async fn value(&self, key: &[u8], found: &mpsc::Sender<Vec<u8>>) {
        let Some(path) = ipns_path(key) else { return };
        let asked = self.routers.iter().map(async |router| {
            let response = self.client.get(uri(router, &path)?, IPNS_RECORD).await?;
            if response.status == StatusCode::OK {
                let value = response.bytes(VALUE_MAX).await?;
                // The receiver is gone once it has enough.
                let _ = found.send(value.to_vec()).await;
            }
            Ok::<(), HttpError>(())
        });
        join_all(asked).await;
    }

    /// Stores an IPNS record at the routers; returns the number of them that accepted it.
    pub(super) async fn put_value(&self, key: &[u8], value: &[u8]) -> usize {
        let Some(path) = ipns_path(key) else { return 0 };
        let put = self.routers.iter().map(async |router| {
            let body = Bytes::copy_from_slice(value);
            let headers = [(CONTENT_TYPE, IPNS_RECORD), (ACCEPT, IPNS_RECORD)];
            let response = self
                .client
                .send(Method::PUT, uri(router, &path)?, &headers, body)
                .await?;
            Ok::<bool, HttpError>(response.status.is_success())
        });
        let stored = join_all(put).await;
        stored
            .into_iter()
            .filter(|stored| matches!(stored, Ok(true)))
            .count()
    }

    async fn ask(&self, router: &Router, path: &str, found: &Found<'_>) -> Result<(), HttpError> {
        let response = self.client.get(uri(router, path)?, FORMATS).await?;
        // Old servers answer 404 where nothing is known.
        if response.status == StatusCode::NOT_FOUND {
            return Ok(());
        }
        if response.status != StatusCode::OK {
            return Err(HttpError::Connection(format!("status {}", response.status)));
        }
        let kind = response.headers.get(CONTENT_TYPE);
        let is_ndjson = kind.is_some_and(|kind| kind.as_bytes().starts_with(NDJSON.as_bytes()));
        match is_ndjson {
            true => read_lines(response, &router.scopes, found).await,
            false => {
                let body = response.bytes(ANSWER_MAX).await?;
                let answer: Answer = serde_json::from_slice(&body)
                    .map_err(|error| HttpError::Connection(format!("invalid answer: {error}")))?;
                let records = answer.providers.or(answer.peers).unwrap_or_default();
                for record in records.into_iter().take(RECORDS_MAX) {
                    if let Some(provider) = provider_of(record, &router.scopes)
                        && !found.send(provider).await
                    {
                        break;
                    }
                }
                Ok(())
            }
        }
    }
}

fn uri(router: &Router, path: &str) -> Result<Uri, HttpError> {
    let base = router.base.as_str().trim_end_matches('/');
    let base = base.trim_end_matches("/routing/v1");
    let text = format!("{base}/routing/v1/{path}");
    text.parse::<Uri>()
        .map_err(|error| HttpError::Request(error.into()))
}

/// Returns the path of an IPNS record by its key in the DHT.
fn ipns_path(key: &[u8]) -> Option<String> {
    let peer = PeerId::from_bytes(key.strip_prefix(b"/ipns/")?).ok()?;
    Some(format!("ipns/{}", peer_name(&peer)?))
}

/// Reads records, one per line.
async fn read_lines(mut response: Response, scopes: &[Scope], found: &Found<'_>) -> Result<(), HttpError> {
    let mut buffer = BytesMut::new();
    let (mut received, mut records) = (0, 0);
    loop {
        let part = response.chunk().await?;
        let is_last = part.is_none();
        if let Some(part) = part {
            received += part.len();
            if received > ANSWER_MAX {
                return Err(HttpError::TooLong(ANSWER_MAX));
            }
            buffer.extend_from_slice(&part);
        } else {
            buffer.extend_from_slice(b"\n");
        }
        while let Some(end) = memchr::memchr(b'\n', &buffer) {
            let line = buffer.split_to(end + 1);
            let record = serde_json::from_slice(&line).ok();
            if let Some(provider) = record.and_then(|record| provider_of(record, scopes)) {
                records += 1;
                if !found.send(provider).await || records >= RECORDS_MAX {
                    return Ok(());
                }
            }
        }
        if is_last {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn records_of_both_schemas_are_read_and_others_skipped() {
        let id = "12D3KooWKnDdG3iXw9eTFijk3EWSunZcFi54Zka4wmtqtt6rPxc8";
        let addrs = ["/ip4/10.0.0.1/tcp/1", "/ip4/1.2.3.4/tcp/1", "nonsense"];
        let read = |record| provider_of(record, &[Scope::Public]);
        let provider = read(json!({"Schema": "peer", "ID": id, "Addrs": addrs, "Extra": 1})).unwrap();
        assert_eq!(provider.peer.to_string(), id);
        assert_eq!(provider.addresses, ["/ip4/1.2.3.4/tcp/1".parse().unwrap()]);
        let name = peer_name(&provider.peer).unwrap();
        assert!(name.starts_with("k51"), "{name}");
        let old = json!({"Schema": "bitswap", "Protocol": "transport-bitswap", "ID": name, "Addrs": null});
        let old = read(old).unwrap();
        assert_eq!(
            (old.peer, old.protocols),
            (provider.peer, vec!["transport-bitswap".to_owned()])
        );
        let http = json!({"Schema": "peer", "ID": id, "Protocols": [HTTP_TRANSPORT],
            "Addrs": ["/dns/gateway.example.com/tcp/443/https"]});
        assert_eq!(read(http).unwrap().addresses.len(), 1);
        assert_eq!(read(json!({"Schema": "graphsync", "ID": id})), None);
        assert_eq!(read(json!({"Schema": "peer", "ID": "x"})), None);
        assert_eq!(read(json!([])), None);
    }
}
