//! Handlers of `/id`, `/version` and `/peers`.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::Response;
use cluster_api::{PeerAdd, Version};
use cluster_core::PeerId;
use futures::StreamExt;

use super::answer::{self, Answer, invalid};
use super::json_body;
use crate::cluster::Cluster;

pub(super) async fn id(State(cluster): State<Cluster>) -> Response<Body> {
    answer::result(cluster.id().await)
}

pub(super) async fn version(State(cluster): State<Cluster>) -> Response<Body> {
    answer::json(&Version {
        version: cluster.version().to_owned(),
    })
}

pub(super) async fn list(State(cluster): State<Cluster>) -> Answer {
    let peers = cluster.peers().await?;
    Ok(answer::lines(peers.map(|peer| Ok(vec![peer]))).await)
}

pub(super) async fn add(State(cluster): State<Cluster>, body: Body) -> Response<Body> {
    let asked: PeerAdd = match json_body::read(body, |_| "error decoding request body".to_owned()).await {
        Ok(asked) => asked,
        Err(refusal) => return *refusal,
    };
    match parse_peer(&asked) {
        Ok((peer, addresses)) => answer::result(cluster.add_peer(&peer, addresses).await),
        Err(why) => answer::bad_request(why),
    }
}

/// Returns the peer to add and its addresses. The id may be a multiaddress that ends in it; Go ipfs-cluster
/// 0.0.12 has only that.
fn parse_peer(asked: &PeerAdd) -> Result<(PeerId, Vec<String>), &'static str> {
    let id = |text: &str| text.parse::<PeerId>().ok();
    let of_address = |text: &str| {
        let (_, last) = text.trim_end_matches('/').rsplit_once('/')?;
        id(last)
    };
    let mut addresses = Vec::new();
    let mut peer = id(&asked.peer_id);
    for text in [&asked.peer_id, &asked.peer_multiaddress] {
        if text.starts_with('/') {
            let named = of_address(text).ok_or("error decoding peer_multiaddress")?;
            if peer.get_or_insert_with(|| named.clone()) != &named {
                return Err("peer_id and peer_multiaddress name different peers");
            }
            addresses.push(text.clone());
        } else if !text.is_empty() && peer.is_none() {
            return Err("error decoding peer_id");
        }
    }
    Ok((peer.ok_or("error decoding peer_id")?, addresses))
}

pub(super) async fn remove(
    State(cluster): State<Cluster>,
    peer: Result<Path<String>, axum::extract::rejection::PathRejection>,
) -> Answer {
    let decoded = peer.ok().and_then(|Path(peer)| peer.parse::<PeerId>().ok());
    let peer = decoded.ok_or_else(|| invalid("error decoding Peer ID"))?;
    cluster.remove_peer(&peer).await?;
    Ok(answer::no_content())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_added_by_id_or_address_or_both() {
        const PEER: &str = "12D3KooWGRYZDHBembyGJQqQ6WgLqJWYNjnECJwGBnCg8vbCeo8F";
        const OTHER: &str = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp";
        let at = |peer: &str| format!("/ip4/10.0.0.1/tcp/9096/p2p/{peer}");
        let of = |id: &str, address: &str| {
            parse_peer(&PeerAdd {
                peer_id: id.to_owned(),
                peer_multiaddress: address.to_owned(),
            })
        };
        let peer: PeerId = PEER.parse().unwrap();
        assert_eq!(of(PEER, ""), Ok((peer.clone(), vec![])));
        assert_eq!(of(&at(PEER), ""), Ok((peer.clone(), vec![at(PEER)])));
        assert_eq!(of("", &at(PEER)), Ok((peer.clone(), vec![at(PEER)])));
        assert_eq!(of(PEER, &at(PEER)), Ok((peer, vec![at(PEER)])));
        assert!(of(OTHER, &at(PEER)).is_err());
        for (id, address) in [
            ("", ""),
            ("x", ""),
            ("", "/ip4/10.0.0.1/tcp/9096"),
            ("x", "y"),
            ("", "y"),
        ] {
            assert!(of(id, address).is_err(), "{id} {address}");
        }
    }
}
