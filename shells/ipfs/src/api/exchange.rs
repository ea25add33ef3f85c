//! The commands `bitswap/…`: what is exchanged with other nodes.

use cluster_http::rpc::Failure;
use libp2p::PeerId;
use serde::Serialize;

use super::reply::Reply;
use super::repo::Link;
use super::request::Call;
use crate::Cid;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct BitswapStat {
    wantlist: Vec<Link>,
    peers: Vec<String>,
    blocks_received: u64,
    data_received: u64,
    dup_blks_received: u64,
    dup_data_received: u64,
    messages_received: u64,
    blocks_sent: u64,
    data_sent: u64,
}

#[derive(Serialize)]
struct KeyList {
    #[serde(rename = "Keys")]
    keys: Vec<Link>,
}

/// Formats a wantlist, sorted.
fn links(call: &Call, mut wanted: Vec<Cid>) -> Vec<Link> {
    wanted.sort_unstable();
    let cids = wanted.iter().map(|cid| call.format_cid(cid));
    cids.map(|cid| Link { cid }).collect()
}

/// Handles `bitswap/stat`: lists the peers of the exchange and counts wanted blocks. Messages and duplicates
/// are not counted.
pub(super) async fn stat(call: Call) -> Result<Reply, Failure> {
    let peers = call.node.peers().await;
    let exchanged = call.node.exchange_stat();
    Reply::once(&BitswapStat {
        wantlist: links(&call, call.node.wantlist()),
        peers: peers.iter().map(|peer| peer.peer_id.to_string()).collect(),
        blocks_received: exchanged.received.0,
        data_received: exchanged.received.1,
        dup_blks_received: 0,
        dup_data_received: 0,
        messages_received: 0,
        blocks_sent: exchanged.sent.0,
        data_sent: exchanged.sent.1,
    })
}

/// Handles `bitswap/wantlist`: lists the blocks that this node waits for, or with `peer` those that another
/// node wants and this one lacks.
pub(super) async fn wantlist(call: Call) -> Result<Reply, Failure> {
    let peer = call.text("peer").map(str::parse::<PeerId>);
    let peer = peer
        .transpose()
        .map_err(|error| Failure::failed(format!("failed to parse peer ID: {error}")))?;
    let wanted = match peer {
        Some(peer) if peer != call.node.id().peer_id => call.node.wantlist_of(&peer),
        Some(_) | None => call.node.wantlist(),
    };
    Reply::once(&KeyList {
        keys: links(&call, wanted),
    })
}
