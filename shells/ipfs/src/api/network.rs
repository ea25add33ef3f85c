//! Commands about contact with other nodes: `bootstrap/…`, `swarm/peering/…`, `ping`, `stats/bw` and
//! `stats/dht`.

use std::time::Duration;

use cluster_http::GoDuration;
use cluster_http::rpc::{Failure, LineSender};
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use serde::Serialize;

use super::reply::{Reply, stream_lines};
use super::request::Call;
use super::routing::check_online;
use crate::Node;
use crate::config_file::{PeerAddresses, Peerings, check_bootstrap_address};
use crate::provider::{common_bits, kad_key};
use crate::swarm::dht::PUBLIC_PROTOCOL;
use crate::swarm::{TrafficStat, split};

/// Answer to `bootstrap/…`.
#[derive(Serialize)]
struct Bootstrap {
    #[serde(rename = "Peers")]
    peers: Vec<String>,
}

fn peers(addresses: &[Multiaddr]) -> Result<Reply, Failure> {
    Reply::once(&Bootstrap {
        peers: addresses.iter().map(Multiaddr::to_string).collect(),
    })
}

/// Parses an address; errors are Kubo's.
fn address(text: &str) -> Result<Multiaddr, Failure> {
    text.parse()
        .map_err(|error| Failure::failed(format!("failed to parse multiaddr {text:?}: {error}")))
}

/// Parses a peer id.
fn peer_id(text: &str) -> Result<PeerId, Failure> {
    crate::ipns::parse_name(text).ok_or_else(|| Failure::failed(format!("failed to parse peer ID: {text:?}")))
}

/// Handles `bootstrap` and `bootstrap/list`.
pub(super) async fn bootstrap_list(call: Call) -> Result<Reply, Failure> {
    peers(&call.node.bootstrap())
}

/// Handles `bootstrap/add`. The arguments `default` and `auto` stand for the well-known peers.
pub(super) async fn bootstrap_add(call: Call) -> Result<Reply, Failure> {
    let mut added = Vec::new();
    if call.flag("default", false) {
        added.extend(Node::default_bootstrap());
    }
    for arg in call.text_args()? {
        if matches!(arg, "default" | "auto") {
            added.extend(Node::default_bootstrap());
            continue;
        }
        let address = address(arg)?;
        check_bootstrap_address(&address)?;
        added.push(address);
    }
    if added.is_empty() {
        return Err(Failure::failed("no bootstrap peers to add"));
    }
    call.node.add_bootstrap(added.clone()).await?;
    peers(&added)
}

/// Handles `bootstrap/rm`, and with the option or the argument `all` removes all.
pub(super) async fn bootstrap_rm(call: Call) -> Result<Reply, Failure> {
    if call.flag("all", false) || call.text_args()? == ["all"] {
        return peers(&call.node.remove_bootstrap(None).await?);
    }
    let mut removed = Vec::with_capacity(call.args.len());
    for arg in call.text_args()? {
        let address = address(arg)?;
        match address.iter().last() {
            Some(Protocol::P2p(_)) => removed.push(address),
            _ => return Err(Failure::failed(format!("invalid p2p multiaddr: {arg}"))),
        }
    }
    peers(&call.node.remove_bootstrap(Some(removed)).await?)
}

/// Line of `swarm/peering/add` and `swarm/peering/rm`.
#[derive(Serialize)]
struct Peered {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Status")]
    status: &'static str,
}

impl Peered {
    fn new(peer: &PeerId) -> Peered {
        Peered {
            id: peer.to_string(),
            status: "success",
        }
    }
}

/// Handles `swarm/peering/add`.
pub(super) async fn peering_add(call: Call) -> Result<Reply, Failure> {
    check_online(&call)?;
    let mut added = Peerings::new();
    for arg in call.text_args()? {
        let (peer, plain) = split(address(arg)?)?;
        let addresses = added.entry(peer).or_default();
        if !plain.is_empty() && !addresses.contains(&plain) {
            addresses.push(plain);
        }
    }
    let lines: Vec<_> = added.keys().map(|peer| Ok(Peered::new(peer))).collect();
    call.node.add_peerings(added).await?;
    Reply::objects(futures::stream::iter(lines))
}

/// Handles `swarm/peering/rm`.
pub(super) async fn peering_rm(call: Call) -> Result<Reply, Failure> {
    check_online(&call)?;
    let parsed = call.text_args()?.into_iter().map(peer_id);
    let removed = parsed.collect::<Result<Vec<_>, _>>()?;
    for peer in &removed {
        call.node.remove_peering(*peer).await?;
    }
    let lines: Vec<_> = removed.iter().map(|peer| Ok(Peered::new(peer))).collect();
    Reply::objects(futures::stream::iter(lines))
}

/// Answer to `swarm/peering/ls`.
#[derive(Serialize)]
struct PeeringList {
    #[serde(rename = "Peers")]
    peers: Vec<PeerAddresses>,
}

/// Handles `swarm/peering/ls`.
pub(super) async fn peering_ls(call: Call) -> Result<Reply, Failure> {
    check_online(&call)?;
    let all = call.node.peerings().into_iter();
    Reply::once(&PeeringList {
        peers: all
            .map(|(peer, addresses)| PeerAddresses { addresses, peer })
            .collect(),
    })
}

/// Line of `ping`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Ping {
    success: bool,
    /// Time until the answer, nanoseconds.
    time: u64,
    text: String,
}

impl Ping {
    fn text(success: bool, text: String) -> Ping {
        Ping {
            success,
            time: 0,
            text,
        }
    }

    fn pong(time: Duration) -> Ping {
        Ping {
            success: true,
            time: u64::try_from(time.as_nanos()).unwrap_or(u64::MAX),
            text: String::new(),
        }
    }
}

/// Default number of pings; Kubo's.
const PINGS: i64 = 10;
/// Interval of pings.
const PING_INTERVAL: Duration = Duration::from_secs(1);

/// Returns the peer of an argument, which is a peer id or an address, and the address.
fn target(text: &str) -> Result<(PeerId, Option<Multiaddr>), Failure> {
    let failed = |why: String| Failure::failed(format!("failed to parse peer address '{text}': {why}"));
    if !text.starts_with('/') {
        let peer = crate::ipns::parse_name(text);
        let peer = peer.ok_or_else(|| failed("invalid peer id".to_owned()))?;
        return Ok((peer, None));
    }
    let address: Multiaddr = text
        .parse()
        .map_err(|error: libp2p::multiaddr::Error| failed(error.to_string()))?;
    let (peer, plain) = split(address).map_err(|error| failed(error.to_string()))?;
    Ok((peer, Some(plain).filter(|plain| !plain.is_empty())))
}

/// Handles `ping`.
pub(super) async fn ping(call: Call) -> Result<Reply, Failure> {
    check_online(&call)?;
    let (peer, address) = target(call.text_arg(0)?)?;
    if peer == call.node.id().peer_id {
        return Err(Failure::failed("error: can't ping self"));
    }
    let count = call.number("count").unwrap_or(PINGS);
    if count <= 0 {
        return Err(Failure::failed(format!(
            "ping count must be greater than 0, was {count}"
        )));
    }
    stream_lines(move |sink| async move {
        let addresses = addresses_of(&call.node, peer, address, &sink).await?;
        sink.send(&Ping::text(true, format!("PING {peer}."))).await?;
        let (mut answered, mut total) = (0_u32, Duration::ZERO);
        let mut interval = tokio::time::interval(PING_INTERVAL);
        for _ in 0..count {
            interval.tick().await;
            match call.node.ping(peer, addresses.clone()).await {
                Ok(time) => {
                    answered += 1;
                    total += time;
                    sink.send(&Ping::pong(time)).await?;
                }
                Err(why) => {
                    sink.send(&Ping::text(false, format!("Ping error: {why}")))
                        .await?;
                    break;
                }
            }
        }
        if answered == 0 {
            return Err(Failure::failed("ping failed"));
        }
        let average = total.as_secs_f64() * 1000.0 / f64::from(answered);
        let text = format!("Average latency: {average:.2}ms");
        sink.send(&Ping::text(true, text)).await
    })
}

/// Returns the addresses at which a peer is pinged: the given one, or those that are looked up unless it is
/// connected.
async fn addresses_of(
    node: &Node,
    peer: PeerId,
    given: Option<Multiaddr>,
    sink: &LineSender,
) -> Result<Vec<Multiaddr>, Failure> {
    if given.is_some() || node.is_connected(&peer) {
        return Ok(given.into_iter().collect());
    }
    let text = format!("Looking up peer {peer}");
    sink.send(&Ping::text(true, text)).await?;
    let found = node.find_peer(peer).await;
    let found = found.map_err(|error| Failure::failed(format!("peer lookup failed: {error}")))?;
    match found.is_empty() {
        true => Err(Failure::failed("peer lookup failed: routing: not found")),
        false => Ok(found),
    }
}

/// Line of `stats/bw`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Bandwidth {
    total_in: u64,
    total_out: u64,
    rate_in: f64,
    rate_out: f64,
}

impl From<TrafficStat> for Bandwidth {
    fn from(stat: TrafficStat) -> Bandwidth {
        Bandwidth {
            total_in: stat.total_in,
            total_out: stat.total_out,
            rate_in: stat.rate_in,
            rate_out: stat.rate_out,
        }
    }
}

/// Shortest interval of `stats/bw`: the counters' own rates are measured once per second.
const POLL_MIN: Duration = Duration::from_millis(100);

/// Handles `stats/bw`. Bytes are counted per peer, and not per protocol.
pub(super) async fn bandwidth(call: Call) -> Result<Reply, Failure> {
    check_online(&call)?;
    if call.text("peer").is_some() && call.text("proto").is_some() {
        return Err(Failure::failed("please only specify peer OR protocol"));
    }
    if call.text("proto").is_some() {
        return Err(Failure::failed(
            "the embedded node counts no bytes per protocol: leave out \"proto\"",
        ));
    }
    let peer = call.text("peer").map(peer_id).transpose()?;
    let text = call.text("interval").unwrap_or("1s");
    let interval = text.parse::<GoDuration>().ok().and_then(GoDuration::to_std);
    let interval = interval.ok_or_else(|| Failure::failed(format!("time: invalid duration {text:?}")))?;
    let poll = call.flag("poll", false);
    stream_lines(move |sink| async move {
        loop {
            let stat = match &peer {
                Some(peer) => call.node.traffic_of(peer),
                None => call.node.traffic(),
            };
            sink.send(&Bandwidth::from(stat)).await?;
            if !poll {
                return Ok(());
            }
            tokio::time::sleep(interval.max(POLL_MIN)).await;
        }
    })
}

/// Line of `stats/dht`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Dht {
    name: String,
    buckets: Vec<Bucket>,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Bucket {
    last_refresh: &'static str,
    peers: Vec<DhtPeer>,
}

/// A peer of a routing table. When it was useful or queried is not recorded.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DhtPeer {
    #[serde(rename = "ID")]
    id: String,
    connected: bool,
    agent_version: String,
    last_useful_at: &'static str,
    last_queried_at: &'static str,
}

/// Handles `stats/dht`: the routing tables, their peers by the number of bits that their keys share with the
/// own one.
pub(super) async fn dht(call: Call) -> Result<Reply, Failure> {
    check_online(&call)?;
    if !call.node.network_settings().effective_routing().uses_dht() {
        return Err(Failure::failed("routing service is not a DHT"));
    }
    let names = match call.args.is_empty() {
        true => vec!["wan", "lan"],
        false => call.text_args()?,
    };
    let own = kad_key(&call.node.id().peer_id.to_bytes());
    let tables = call.node.routing_tables().await?;
    let mut lines = Vec::with_capacity(names.len());
    for name in names {
        let is_public = match name {
            "wan" | "wanserver" => true,
            "lan" | "lanserver" => false,
            _ => return Err(Failure::failed(format!("unknown dht type: {name}"))),
        };
        let mut tables = tables.iter();
        let table = tables.find(|(protocol, _)| (*protocol == PUBLIC_PROTOCOL) == is_public);
        let mut buckets: Vec<Bucket> = Vec::new();
        for peer in table.iter().flat_map(|(_, peers)| peers) {
            let bucket = common_bits(&own, &kad_key(&peer.to_bytes())) as usize;
            if buckets.len() <= bucket {
                buckets.resize_with(bucket + 1, Bucket::default);
            }
            let known = call.node.identified(peer);
            buckets[bucket].peers.push(DhtPeer {
                id: peer.to_string(),
                connected: call.node.is_connected(peer),
                agent_version: known.map(|known| known.agent_version).unwrap_or_default(),
                last_useful_at: "",
                last_queried_at: "",
            });
        }
        lines.push(Ok(Dht {
            name: name.to_owned(),
            buckets,
        }));
    }
    Reply::objects(futures::stream::iter(lines))
}
