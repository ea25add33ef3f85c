//! Who this peer and its IPFS node are.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cluster_api as api;
use cluster_core::PeerId;
use tokio::time::timeout;

use super::rpc::{Identity, IpfsIdentity, Speaker};
use super::{Cluster, Error, PingValue};

/// The IPFS node is asked again after this time: its addresses change seldom.
const FRESH: Duration = Duration::from_secs(5);

/// An IPFS node that does not say who it is within this time is reported as failing.
const IPFS_ANSWER: Duration = Duration::from_secs(2);

/// What the RPC between peers is called.
const RPC_PROTOCOL: &str = "/ipfscluster-rs/1.0/rpc";

/// What the IPFS node said last.
#[derive(Default)]
pub(super) struct Cache {
    known: Mutex<Option<(Instant, IpfsIdentity)>>,
    asking: tokio::sync::Mutex<()>,
}

impl Cache {
    fn lock(&self) -> MutexGuard<'_, Option<(Instant, IpfsIdentity)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fresh(&self) -> Option<IpfsIdentity> {
        let known = self.lock();
        known
            .as_ref()
            .filter(|(at, _)| at.elapsed() < FRESH)
            .map(|(_, identity)| identity.clone())
    }
}

impl Cluster {
    /// Who this peer is. A failing IPFS node is no error; `ipfs.error` says so.
    pub async fn id(&self) -> Result<api::Id, Error> {
        let identity = self.identity().await?;
        Ok(api_id(&self.inner.config.peer, identity))
    }

    pub(super) async fn identity(&self) -> Result<Identity, Error> {
        let members = self.inner.world.core.members().await.ok_or(Error::Closed)?;
        let network = &self.inner.world.network;
        let config = &self.inner.config;
        Ok(Identity {
            addresses: network.addresses(),
            cluster_peers: members.peer_ids().map(PeerId::to_string).collect(),
            cluster_peers_addresses: network.peer_addresses(),
            version: config.version.clone(),
            commit: config.commit.clone(),
            ipfs: self.ipfs_identity().await,
            peername: config.peername.clone(),
        })
    }

    /// What this peer's `ping` says: to be sent with every one.
    pub async fn ping_value(&self) -> PingValue {
        let ipfs = self.ipfs_identity().await;
        PingValue {
            peer_name: self.inner.config.peername.clone(),
            ipfs_id: ipfs.id,
            ipfs_addresses: ipfs.addresses,
        }
    }

    /// Who this peer's IPFS node is, as of some seconds ago at most.
    pub(super) async fn ipfs_identity(&self) -> IpfsIdentity {
        let cache = &self.inner.ipfs;
        if let Some(identity) = cache.fresh() {
            return identity;
        }
        let _one_at_a_time = cache.asking.lock().await;
        if let Some(identity) = cache.fresh() {
            return identity;
        }
        let identity = match timeout(IPFS_ANSWER, self.inner.backend.id()).await {
            Ok(Ok(node)) => {
                let end = format!("/p2p/{}", node.id);
                let whole = |address: String| {
                    if address.contains("/p2p/") {
                        address
                    } else {
                        format!("{address}{end}")
                    }
                };
                let addresses = node
                    .addresses
                    .iter()
                    .map(|address| whole(address.to_string()))
                    .collect();
                IpfsIdentity {
                    id: node.id.to_string(),
                    addresses,
                    error: String::new(),
                }
            }
            Ok(Err(error)) => IpfsIdentity {
                error: error.to_string(),
                ..IpfsIdentity::default()
            },
            Err(_) => IpfsIdentity {
                error: format!("the ipfs node does not say who it is within {IPFS_ANSWER:?}"),
                ..IpfsIdentity::default()
            },
        };
        *cache.lock() = Some((Instant::now(), identity.clone()));
        identity
    }

    /// This peer as it appears in statuses. Waits for the IPFS node only if it has not been asked yet, so
    /// that the first status after a start names it; later ones use what is known.
    pub(super) async fn speaker(&self) -> Speaker {
        let known = self.inner.ipfs.lock().clone();
        let ipfs = match known {
            None => self.ipfs_identity().await,
            Some((at, ipfs)) => {
                if at.elapsed() >= FRESH {
                    let cluster = self.clone();
                    tokio::spawn(async move { cluster.ipfs_identity().await });
                }
                ipfs
            }
        };
        Speaker {
            peername: self.inner.config.peername.clone(),
            ipfs_id: ipfs.id,
            ipfs_addresses: ipfs.addresses,
        }
    }
}

/// A peer's own words as the API shows them.
pub(super) fn api_id(peer: &PeerId, identity: Identity) -> api::Id {
    api::Id {
        id: peer.to_string(),
        addresses: identity.addresses,
        cluster_peers: identity.cluster_peers,
        cluster_peers_addresses: identity.cluster_peers_addresses,
        version: identity.version,
        commit: identity.commit,
        rpc_protocol_version: RPC_PROTOCOL.to_owned(),
        error: String::new(),
        ipfs: api::IpfsId {
            id: identity.ipfs.id,
            addresses: identity.ipfs.addresses,
            error: identity.ipfs.error,
        },
        peername: identity.peername,
    }
}
