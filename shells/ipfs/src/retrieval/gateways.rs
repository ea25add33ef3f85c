//! Blocks over HTTP from [trustless gateways](https://specs.ipfs.tech/http-gateways/trustless-gateway/) that
//! routers report as providers.
//!
//! A session asks its gateways beside bitswap. Every block is verified; a gateway that sends a wrong one is
//! not asked again for [`WRONG_PAUSE`]. Redirects are answers without the block: following them would let a
//! stranger choose the target. Plain HTTP is used only in local networks.

use crate::bitswap;
use crate::outbound_http::{HttpClient, HttpError};
use crate::steps::{Recorder, Transfer};
use crate::store::lock;
use crate::swarm::addresses::{Reach, Scope, reach};
use crate::{Block, Cid, hash};
use hyper::header::RETRY_AFTER;
use hyper::{HeaderMap, StatusCode, Uri};
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use opentelemetry::KeyValue;
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, watch};
use tokio::time::sleep;

/// Media type of a block.
const RAW: &str = "application/vnd.ipld.raw";
/// Limit on a block, in bytes: that of bitswap.
const BLOCK_MAX: usize = 2 << 20;
/// Concurrent requests of all sessions; Kubo's number.
const REQUESTS_MAX: usize = 16;
/// Limit on gateways of one session.
const PER_SESSION_MAX: usize = 8;
/// Limit on known gateways.
const GATEWAYS_MAX: usize = 256;
/// Time that bitswap has before a gateway is asked, when peers of the session had blocks.
const BITSWAP_FIRST: Duration = Duration::from_secs(1);
/// Pause after all gateways failed or did not have the block; it doubles.
const RETRY_PAUSE: Duration = Duration::from_secs(5);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(60);
/// Maximum pause that a gateway can ask for.
const COOL_DOWN_MAX: Duration = Duration::from_secs(60);
/// Pause of a gateway that sent a wrong block or failed too often.
const WRONG_PAUSE: Duration = Duration::from_secs(600);
/// Number of consecutive failures after which a gateway is paused.
const FAILURES_MAX: u32 = 5;

/// A server.
#[derive(Debug)]
pub(super) struct Gateway {
    /// Scheme, host and port.
    base: String,
    is_public: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    failures: u32,
    paused_until: Option<Instant>,
}

/// Answer of a gateway about one block.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// The verified block was delivered.
    Delivered,
    /// The gateway does not have it, or is paused.
    Missing,
}

/// All known gateways and the clients for them.
#[derive(Debug)]
pub(crate) struct Gateways {
    public: HttpClient,
    local: HttpClient,
    requests: Semaphore,
    known: Mutex<HashMap<String, Arc<Gateway>>>,
}

/// Gateways of one session.
#[derive(Debug, Default)]
pub(super) struct SessionGateways {
    list: watch::Sender<Vec<Arc<Gateway>>>,
}

/// Returns the base URL of an HTTP address: `/dns4/…/tcp/443/https`, `/tls/http`, `/tls/sni/X/http`, `/http`.
fn base_of(address: &Multiaddr) -> Option<String> {
    let mut parts = address.iter();
    let host = match parts.next() {
        Some(Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name)) => name.into_owned(),
        Some(Protocol::Ip4(address)) => address.to_string(),
        Some(Protocol::Ip6(address)) => format!("[{address}]"),
        _ => return None,
    };
    let Protocol::Tcp(port) = parts.next()? else {
        return None;
    };
    let rest: Vec<Protocol<'_>> = parts.filter(|part| !matches!(part, Protocol::P2p(_))).collect();
    let is_secure = match rest.as_slice() {
        [Protocol::Https]
        | [Protocol::Tls, Protocol::Http]
        | [Protocol::Tls, Protocol::Sni(_), Protocol::Http] => true,
        [Protocol::Http] => false,
        _ => return None,
    };
    if !is_secure && reach(address) == Reach::Public {
        return None;
    }
    let scheme = if is_secure { "https" } else { "http" };
    Some(format!("{scheme}://{host}:{port}"))
}

/// Returns the pause that a busy server asks for.
fn cool_down(headers: &HeaderMap) -> Duration {
    let seconds = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let seconds = seconds.and_then(|value| value.trim().parse().ok());
    Duration::from_secs(seconds.unwrap_or(10)).min(COOL_DOWN_MAX)
}

impl Gateway {
    fn is_paused(&self) -> bool {
        lock(&self.state)
            .paused_until
            .is_some_and(|until| Instant::now() < until)
    }

    fn pause(&self, pause: Duration) {
        lock(&self.state).paused_until = Some(Instant::now() + pause);
    }

    fn failed(&self, why: &str) {
        tracing::debug!(gateway = %self.base, "a gateway failed: {why}");
        let mut state = lock(&self.state);
        state.failures += 1;
        if state.failures >= FAILURES_MAX {
            state.failures = 0;
            state.paused_until = Some(Instant::now() + WRONG_PAUSE);
        }
    }
}

impl Gateways {
    /// Creates the clients.
    ///
    /// # Errors
    /// The certificates of the machine cannot be read.
    pub(crate) fn new(local: Scope) -> std::io::Result<Gateways> {
        Ok(Gateways {
            public: HttpClient::new(Some(vec![Scope::Public]))?,
            local: HttpClient::new(Some(vec![local]))?,
            requests: Semaphore::new(REQUESTS_MAX),
            known: Mutex::default(),
        })
    }

    /// Returns the gateways at these addresses.
    pub(super) fn of(&self, addresses: &[Multiaddr]) -> Vec<Arc<Gateway>> {
        let mut known = lock(&self.known);
        let mut found = Vec::new();
        for address in addresses {
            let Some(base) = base_of(address) else { continue };
            if known.len() >= GATEWAYS_MAX && !known.contains_key(&base) {
                known.retain(|_, gateway| Arc::strong_count(gateway) > 1 || gateway.is_paused());
                if known.len() >= GATEWAYS_MAX {
                    continue;
                }
            }
            let gateway = known.entry(base.clone()).or_insert_with(|| {
                Arc::new(Gateway {
                    base,
                    is_public: reach(address) == Reach::Public,
                    state: Mutex::default(),
                })
            });
            found.push(gateway.clone());
        }
        found
    }

    /// Fetches a block from the gateways of a session and delivers it; the waiting want then ends.
    pub(super) async fn fetch(
        &self,
        gateways: &SessionGateways,
        session: &bitswap::Session,
        cid: Cid,
        recorder: &Recorder,
    ) -> Infallible {
        let mut list = gateways.list.subscribe();
        let mut pause = RETRY_PAUSE;
        loop {
            // Never fails: the sender outlives this call.
            let _ = list.wait_for(|list| !list.is_empty()).await;
            if session.has_peers() {
                sleep(BITSWAP_FIRST).await;
            }
            let mut usable = list.borrow_and_update().clone();
            // Blocks of one DAG are spread over the gateways.
            let start = usize::from(cid.hash().digest().last().copied().unwrap_or(0)) % usable.len().max(1);
            usable.rotate_left(start);
            for gateway in usable.iter().filter(|gateway| !gateway.is_paused()) {
                let Ok(_turn) = self.requests.acquire().await else {
                    return std::future::pending().await;
                };
                if self.ask(gateway, session, cid, recorder).await == Answer::Delivered {
                    return std::future::pending().await;
                }
            }
            tokio::select! {
                () = sleep(pause) => pause = (2 * pause).min(RETRY_PAUSE_MAX),
                changed = list.changed() => drop(changed),
            }
        }
    }

    async fn ask(
        &self,
        gateway: &Gateway,
        session: &bitswap::Session,
        cid: Cid,
        recorder: &Recorder,
    ) -> Answer {
        for _ in 0..2 {
            let since = recorder.now();
            let answer = self.request(gateway, cid).await;
            let block = answer.as_ref().ok().and_then(Option::as_ref);
            let transfer = Transfer {
                blocks: u64::from(block.is_some()),
                bytes: block.map_or(0, |block| block.data.len() as u64),
                requests: 1,
                failures: u64::from(answer.is_err()),
            };
            let label = || KeyValue::new("url.full", gateway.base.clone());
            recorder.received("http.fetch", since, label, transfer);
            match answer {
                Ok(Some(block)) => {
                    lock(&gateway.state).failures = 0;
                    session.deliver(block).await;
                    return Answer::Delivered;
                }
                Ok(None) => return Answer::Missing,
                Err(error) => gateway.failed(&error.to_string()),
            }
            if gateway.is_paused() {
                break;
            }
        }
        Answer::Missing
    }

    async fn request(&self, gateway: &Gateway, cid: Cid) -> Result<Option<Block>, HttpError> {
        let uri: Uri = format!("{}/ipfs/{cid}?format=raw", gateway.base)
            .parse()
            .map_err(|error: hyper::http::uri::InvalidUri| HttpError::Request(error.into()))?;
        let client = if gateway.is_public {
            &self.public
        } else {
            &self.local
        };
        let response = client.get(uri, RAW).await?;
        match response.status {
            StatusCode::OK => {}
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                gateway.pause(cool_down(&response.headers));
                return Ok(None);
            }
            status if status.is_server_error() => {
                return Err(HttpError::Connection(format!("status {status}")));
            }
            // Not there, refused, or a redirect.
            _ => return Ok(None),
        }
        let data = response.bytes(BLOCK_MAX).await?;
        let block = Block { cid, data };
        if let Err(error) = hash::verify(&block) {
            let gateway_url = &gateway.base;
            tracing::warn!(%gateway_url, %error, "a gateway sent a wrong block: not asked for ten minutes");
            gateway.pause(WRONG_PAUSE);
            return Ok(None);
        }
        Ok(Some(block))
    }
}

impl SessionGateways {
    /// Adds gateways that are reported as providers.
    pub(super) fn add(&self, gateways: Vec<Arc<Gateway>>) {
        self.list.send_if_modified(|list| {
            let before = list.len();
            for gateway in gateways {
                let is_new = !list.iter().any(|known| known.base == gateway.base);
                if is_new && list.len() < PER_SESSION_MAX {
                    list.push(gateway);
                }
            }
            list.len() > before
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_addresses_become_urls_and_plain_http_is_local_only() {
        for (address, base) in [
            (
                "/dns4/gw.example.com/tcp/443/https",
                Some("https://gw.example.com:443"),
            ),
            (
                "/dns/gw.example.com/tcp/8443/tls/http",
                Some("https://gw.example.com:8443"),
            ),
            (
                "/ip4/1.2.3.4/tcp/443/tls/sni/gw.example.com/http",
                Some("https://1.2.3.4:443"),
            ),
            ("/ip6/::1/tcp/8080/http", Some("http://[::1]:8080")),
            ("/ip4/127.0.0.1/tcp/8080/http", Some("http://127.0.0.1:8080")),
            ("/dns4/gw.example.com/tcp/80/http", None),
            ("/ip4/1.2.3.4/tcp/4001", None),
            ("/ip4/1.2.3.4/udp/4001/quic-v1", None),
        ] {
            let address: Multiaddr = address.parse().unwrap();
            assert_eq!(base_of(&address).as_deref(), base, "{address}");
        }
    }
}
