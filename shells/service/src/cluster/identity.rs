//! Identity of this peer and of its IPFS node.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cluster_api as api;
use cluster_core::PeerId;
use tokio::time::timeout;

use super::rpc::{Identity, IpfsIdentity, PeerDetails};
use super::{Cluster, Error};

/// Age at which the IPFS node's identity is refreshed: its addresses change seldom.
const AGE_MAX: Duration = Duration::from_secs(5);

/// Time limit for the IPFS node's identity, after which the node is reported as failing.
const IPFS_ID_TIMEOUT: Duration = Duration::from_secs(2);

/// Protocol name that `id` reports for the calls between peers.
const RPC_PROTOCOL: &str = "/ipfscluster-rs/1.0/rpc";

/// The last identity of the IPFS node.
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
            .filter(|(at, _)| at.elapsed() < AGE_MAX)
            .map(|(_, identity)| identity.clone())
    }
}

impl Cluster {
    /// Describes this peer. A failing IPFS node is not an error but reported in `ipfs.error`.
    ///
    /// # Errors
    /// This peer is shutting down.
    pub async fn id(&self) -> Result<api::Id, Error> {
        let identity = self.identity().await?;
        Ok(api_id(&self.inner.config.peer, identity))
    }

    pub(super) async fn identity(&self) -> Result<Identity, Error> {
        let members = self.members().await?;
        let net = &self.inner.net;
        let known = net.peerstore();
        let config = &self.inner.config;
        Ok(Identity {
            addresses: net.addresses().iter().map(ToString::to_string).collect(),
            cluster_peers: members.peer_ids().map(PeerId::to_string).collect(),
            cluster_peers_addresses: known.values().flatten().map(ToString::to_string).collect(),
            version: config.version.clone(),
            commit: String::new(),
            ipfs: self.ipfs_identity().await,
            peername: config.peername.clone(),
        })
    }

    /// Returns the IPFS node's identity, at most [`AGE_MAX`] old.
    pub(super) async fn ipfs_identity(&self) -> IpfsIdentity {
        let cache = &self.inner.ipfs;
        if let Some(identity) = cache.fresh() {
            return identity;
        }
        let _one_at_a_time = cache.asking.lock().await;
        if let Some(identity) = cache.fresh() {
            return identity;
        }
        let identity = match timeout(IPFS_ID_TIMEOUT, self.inner.backend.id()).await {
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
                error: format!("the ipfs node did not return its id within {IPFS_ID_TIMEOUT:?}"),
                ..IpfsIdentity::default()
            },
        };
        *cache.lock() = Some((Instant::now(), identity.clone()));
        identity
    }

    /// Returns this peer's details for statuses. Waits for the IPFS node only before its first answer, so
    /// that the first status after a start names it; later ones use the cached identity.
    pub(super) async fn own_details(&self) -> PeerDetails {
        let known = self.inner.ipfs.lock().clone();
        let ipfs = match known {
            None => self.ipfs_identity().await,
            Some((at, ipfs)) => {
                if at.elapsed() >= AGE_MAX {
                    let cluster = self.clone();
                    tokio::spawn(async move { cluster.ipfs_identity().await });
                }
                ipfs
            }
        };
        PeerDetails {
            peername: self.inner.config.peername.clone(),
            ipfs_id: ipfs.id,
            ipfs_addresses: ipfs.addresses,
        }
    }
}

/// Converts a peer's identity.
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
