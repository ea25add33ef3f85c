//! Commands about the node and its peers: `id`, `version`, `swarm/…`, `resolve`.

use std::collections::BTreeMap;

use cluster_http::rpc::Failure;
use futures::future::join_all;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use multibase::Base;
use serde::Serialize;

use super::commands;
use super::reply::Reply;
use super::request::Call;
use crate::names::named;
use crate::{Identity, Lookup};

#[derive(Serialize)]
struct Id {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "PublicKey")]
    public_key: String,
    #[serde(rename = "Addresses")]
    addresses: Vec<String>,
    #[serde(rename = "AgentVersion")]
    agent: String,
    #[serde(rename = "Protocols")]
    protocols: Vec<String>,
}

impl From<Identity> for Id {
    fn from(identity: Identity) -> Self {
        let mut addresses: Vec<_> = identity.addresses.iter().map(Multiaddr::to_string).collect();
        addresses.sort_unstable();
        Id {
            id: identity.peer_id.to_string(),
            public_key: Base::Base64Pad.encode(identity.public_key.encode_protobuf()),
            addresses,
            agent: identity.agent_version,
            protocols: identity.protocols,
        }
    }
}

/// Handles `id`, for this node or a connected one.
pub(super) async fn id(call: Call) -> Result<Reply, Failure> {
    let own = call.node.id();
    let wanted = call.text_arg(0)?;
    if !wanted.is_empty() {
        let peer: PeerId = wanted.parse().map_err(|_| Failure::failed("invalid peer id"))?;
        if peer != own.peer_id {
            let known = call.node.identified(&peer);
            let known = known.ok_or_else(|| Failure::failed("routing: not found"))?;
            return Reply::once(&Id::from(known));
        }
    }
    Reply::once(&Id::from(own))
}

#[derive(Serialize)]
struct Version {
    #[serde(rename = "Version")]
    version: &'static str,
    #[serde(rename = "Commit")]
    commit: &'static str,
    #[serde(rename = "Repo")]
    repo: String,
    #[serde(rename = "System")]
    system: String,
    #[serde(rename = "Golang")]
    golang: &'static str,
}

/// Handles `version`.
pub(super) async fn version(call: Call) -> Result<Reply, Failure> {
    let repo = call.node.stat().map(|stat| stat.version).unwrap_or_default();
    let machine = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    Reply::once(&Version {
        version: super::API_VERSION,
        commit: super::PROGRAM,
        repo: repo.strip_prefix("fs-repo@").unwrap_or(&repo).to_owned(),
        system: format!("{machine}/{}", std::env::consts::OS),
        golang: "",
    })
}

/// Handles `commands`.
pub(super) async fn commands(_: Call) -> Result<Reply, Failure> {
    Reply::once(&commands::command_tree())
}

#[derive(Serialize)]
struct Peers {
    #[serde(rename = "Peers")]
    peers: Option<Vec<Peer>>,
}

#[derive(Serialize)]
struct Peer {
    #[serde(rename = "Addr")]
    address: String,
    #[serde(rename = "Peer")]
    peer: String,
    #[serde(rename = "Latency", skip_serializing_if = "Option::is_none")]
    latency: Option<&'static str>,
    #[serde(rename = "Direction", skip_serializing_if = "Option::is_none")]
    direction: Option<u8>,
    #[serde(rename = "Identify")]
    identify: Identify,
}

#[derive(Default, Serialize)]
struct Identify {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "PublicKey")]
    public_key: String,
    #[serde(rename = "Addresses")]
    addresses: Option<Vec<String>>,
    #[serde(rename = "AgentVersion")]
    agent: String,
    #[serde(rename = "Protocols")]
    protocols: Option<Vec<String>>,
}

/// Handles `swarm/peers`.
pub(super) async fn swarm_peers(call: Call) -> Result<Reply, Failure> {
    let verbose = call.flag("verbose", false);
    let latency = verbose || call.flag("latency", false);
    let direction = verbose || call.flag("direction", false);
    let identify = verbose || call.flag("identify", false);
    let mut peers: Vec<_> = call
        .node
        .peers()
        .await
        .into_iter()
        .map(|peer| Peer {
            address: peer.address.to_string(),
            peer: peer.peer_id.to_string(),
            // Kubo's text for a latency that was not measured.
            latency: latency.then_some("n/a"),
            direction: direction.then_some(if peer.inbound { 1 } else { 2 }),
            identify: Identify {
                id: if identify {
                    peer.peer_id.to_string()
                } else {
                    String::new()
                },
                agent: peer.agent_version.filter(|_| identify).unwrap_or_default(),
                ..Identify::default()
            },
        })
        .collect();
    peers.sort_unstable_by(|a, b| a.address.cmp(&b.address));
    Reply::once(&Peers {
        peers: (!peers.is_empty()).then_some(peers),
    })
}

#[derive(Serialize)]
struct Strings {
    #[serde(rename = "Strings")]
    strings: Option<Vec<String>>,
}

fn peer_of(address: &str) -> Result<(Multiaddr, PeerId), Failure> {
    let parsed: Multiaddr = address
        .parse()
        .map_err(|error| Failure::failed(format!("invalid multiaddr {address:?}: {error}")))?;
    let last = parsed.iter().last();
    if let Some(Protocol::P2p(peer)) = last {
        return Ok((parsed, peer));
    }
    Err(Failure::failed(format!(
        "invalid peer address {address:?}: it does not end in /p2p/<peer id>"
    )))
}

/// Handles `swarm/connect`: dials all given addresses concurrently.
pub(super) async fn swarm_connect(call: Call) -> Result<Reply, Failure> {
    let targets: Vec<_> = call
        .text_args()?
        .into_iter()
        .map(peer_of)
        .collect::<Result<_, _>>()?;
    let dials = targets.into_iter().map(|(address, peer)| {
        let node = call.node.clone();
        async move {
            match node.connect(address).await {
                Ok(()) => Ok(format!("connect {peer} success")),
                Err(error) => Err(Failure::failed(format!("connect {peer} failure: {error}"))),
            }
        }
    });
    let strings = join_all(dials).await.into_iter().collect::<Result<Vec<_>, _>>()?;
    Reply::once(&Strings {
        strings: Some(strings),
    })
}

/// Handles `swarm/disconnect`. Like Kubo, it lists failures with the successes, and a peer that is not
/// connected does not fail the request.
pub(super) async fn swarm_disconnect(call: Call) -> Result<Reply, Failure> {
    let mut strings = Vec::with_capacity(call.args.len());
    for arg in call.text_args()? {
        let (mut address, peer) = peer_of(arg)?;
        address.pop();
        let disconnected = match address.is_empty() {
            true => call.node.disconnect(peer).await,
            false => call.node.disconnect_at(peer, address).await,
        };
        strings.push(match disconnected {
            Ok(()) => format!("disconnect {peer} success"),
            Err(crate::Error::NotConnected(_)) => format!("disconnect {peer} failure: not connected"),
            Err(crate::Error::NoConnection(_)) => format!("disconnect {peer} failure: conn not found"),
            Err(error) => return Err(Failure::failed(format!("disconnect {peer} failure: {error}"))),
        });
    }
    Reply::once(&Strings {
        strings: Some(strings),
    })
}

#[derive(Serialize)]
struct Addresses {
    #[serde(rename = "Addrs")]
    addresses: BTreeMap<String, Vec<String>>,
}

/// Handles `swarm/addrs`.
pub(super) async fn swarm_addrs(call: Call) -> Result<Reply, Failure> {
    let peers = call.node.peers().await.into_iter();
    let addresses = peers
        .map(|peer| (peer.peer_id.to_string(), vec![peer.address.to_string()]))
        .collect();
    Reply::once(&Addresses { addresses })
}

/// Handles `swarm/addrs/local` and `swarm/addrs/listen`.
pub(super) async fn swarm_addrs_local(call: Call) -> Result<Reply, Failure> {
    let own = call.node.id();
    let with_id = call.flag("id", false);
    let show = |address: &Multiaddr| {
        let bare = address
            .iter()
            .filter(|part| with_id || !matches!(part, Protocol::P2p(_)));
        bare.collect::<Multiaddr>().to_string()
    };
    let mut strings: Vec<_> = own.addresses.iter().map(show).collect();
    strings.sort_unstable();
    Reply::once(&Strings {
        strings: (!strings.is_empty()).then_some(strings),
    })
}

#[derive(Serialize)]
struct Resolved {
    #[serde(rename = "Path")]
    path: String,
}

/// Handles `resolve`.
pub(super) async fn resolve(call: Call) -> Result<Reply, Failure> {
    if !call.flag("recursive", true)
        && let path = call.text_arg(0)?
        && named(path).is_some()
    {
        let one = call.node.resolve_name(path, false, Lookup::Cached).await?;
        return Reply::once(&Resolved { path: one.path });
    }
    let resolved = call.node.resolve(&call.dag_path(&call.arg(0)).await?).await?;
    let rest: String = resolved
        .remainder
        .iter()
        .map(|segment| format!("/{segment}"))
        .collect();
    Reply::once(&Resolved {
        path: format!("/ipfs/{}{rest}", call.format_cid(&resolved.cid)),
    })
}
