//! The handle of an embedded node: opening, blocks, the network.

mod adding;
mod collect;
mod files;
mod pins;
mod repair;

pub use adding::Adding;
pub use collect::Collected;

use crate::Cid;
use crate::Multihash;
use crate::budget::{self, Budget};
use crate::reader::{Reader, batched, blocking};
use crate::store::{Lease, Store};
use crate::swarm::{self, Network};
use crate::{Block, Config, ConnectedPeer, Error, Identity, PinStatus, RepoStat, hash};
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use libp2p::identity::PublicKey;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use repair::BrokenPins;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// The repository's version as Kubo counts them; clients only compare it with their own.
const REPO_VERSION: &str = "fs-repo@16";

/// An open node; clones share it. It runs until [`Node::shutdown`] or the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Node {
    inner: Arc<Inner>,
    offline: bool,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    network: Network,
    broken: Arc<BrokenPins>,
    memory: budget::Total,
    public_key: PublicKey,
    path: PathBuf,
    storage_max: Option<u64>,
    closed: CancellationToken,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.closed.cancel();
        self.store.close();
    }
}

/// Keeps every block that is written while it lives from being collected. For callers that put blocks
/// first and pin them after.
#[derive(Debug)]
pub struct Hold {
    _lease: Lease,
}

/// Size of the file system under `path` and the space on it that this process may still use, in bytes.
fn disk_space(path: &Path) -> Result<(u64, u64), Error> {
    let disk = rustix::fs::statvfs(path).map_err(|error| {
        let what = format!("asking for the free space of {}", path.display());
        Error::io(what, error.into())
    })?;
    let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
    Ok((bytes(disk.f_blocks), bytes(disk.f_bavail)))
}

impl Node {
    /// Opens the data folder, making it if needed, and starts listening.
    ///
    /// # Errors
    /// [`Error::Locked`] when another process has it open; the folder cannot be used or is damaged; an
    /// address cannot be listened on.
    pub async fn open(config: Config) -> Result<Node, Error> {
        let Config {
            path,
            swarm_listen,
            storage_max,
        } = config;
        let folder = path.clone();
        let (store, keypair) = blocking(move || {
            let made = std::fs::create_dir_all(&folder);
            made.map_err(|error| Error::io(format!("making {}", folder.display()), error))?;
            // The database's lock also guards the identity.
            let store = Store::open(&folder, storage_max)?;
            match swarm::load_or_make(&folder) {
                Ok(keypair) => Ok((store, keypair)),
                Err(error) => {
                    store.close();
                    Err(error)
                }
            }
        })
        .await?;
        let public_key = keypair.public();
        let closed = CancellationToken::new();
        match Network::start(keypair, &swarm_listen, store.clone(), closed.clone()).await {
            Ok(network) => {
                let broken = Arc::new(BrokenPins::default());
                let repairing = repair::run(
                    store.clone(),
                    network.bitswap.clone(),
                    broken.clone(),
                    closed.clone(),
                );
                tokio::spawn(repairing);
                let inner = Inner {
                    store,
                    network,
                    broken,
                    memory: budget::Total::default(),
                    public_key,
                    path,
                    storage_max,
                    closed,
                };
                Ok(Node {
                    inner: Arc::new(inner),
                    offline: false,
                })
            }
            Err(error) => {
                closed.cancel();
                blocking(move || {
                    store.close();
                    Ok(())
                })
                .await?;
                Err(error)
            }
        }
    }

    /// Stops the network, syncs and closes the database. Every later call fails with [`Error::Closed`].
    pub async fn shutdown(&self) {
        self.inner.closed.cancel();
        let store = self.inner.store.clone();
        let closing = blocking(move || {
            store.close();
            Ok(())
        });
        // It fails only if the runtime itself ends, and then the drop of the node closes the store.
        let _ = closing.await;
    }

    /// The same node, but reading only what is local: nothing is asked of other peers.
    pub fn offline(&self) -> Node {
        Node {
            inner: self.inner.clone(),
            offline: true,
        }
    }

    /// Who this node is.
    pub fn id(&self) -> Identity {
        let peer_id = self.inner.public_key.to_peer_id();
        let addresses = self.inner.network.listening();
        Identity {
            peer_id,
            public_key: self.inner.public_key.clone(),
            addresses: addresses
                .into_iter()
                .map(|address| address.with(Protocol::P2p(peer_id)))
                .collect(),
            agent_version: swarm::AGENT.to_owned(),
            protocols: swarm::protocols(),
        }
    }

    /// Dials an address that ends in `/p2p/<peer id>` and returns once connected. From then on the peer
    /// is dialled again, with growing pauses, whenever the connection is lost, until
    /// [`Node::disconnect`].
    pub async fn connect(&self, addr: Multiaddr) -> Result<(), Error> {
        self.inner.network.connect(addr).await
    }

    /// Keeps a connection to a peer at these addresses from now on, without waiting for it. A second
    /// call replaces the addresses.
    pub async fn keep_connected(&self, peer: PeerId, addresses: Vec<Multiaddr>) -> Result<(), Error> {
        self.inner.network.keep(peer, addresses).await
    }

    /// Closes all connections to a peer and dials it no more.
    ///
    /// # Errors
    /// [`Error::NotConnected`], and nothing changes but that it is dialled no more.
    pub async fn disconnect(&self, peer: PeerId) -> Result<(), Error> {
        self.inner.network.disconnect(peer, None).await
    }

    /// As [`Node::disconnect`], if a connection with this address is open.
    ///
    /// # Errors
    /// [`Error::NoConnection`], and nothing changes.
    pub async fn disconnect_at(&self, peer: PeerId, address: Multiaddr) -> Result<(), Error> {
        self.inner.network.disconnect(peer, Some(address)).await
    }

    /// Who is connected, sorted by peer id.
    pub async fn peers(&self) -> Vec<ConnectedPeer> {
        self.inner.network.peers()
    }

    /// What a connected peer said of itself, once it has.
    pub fn identified(&self, peer: &PeerId) -> Option<Identity> {
        self.inner.network.identified(peer)
    }

    /// The block, if it is local. Blocks the thread for a read of the disk.
    pub fn get_local(&self, cid: &Cid) -> Result<Option<Bytes>, Error> {
        self.inner.store.get(cid)
    }

    /// Whether the block is local. CIDs that hold their content always are.
    pub fn has(&self, cid: &Cid) -> Result<bool, Error> {
        self.inner.store.has(cid)
    }

    /// The size of a local block, bytes.
    pub fn size_of(&self, cid: &Cid) -> Result<Option<u64>, Error> {
        self.inner.store.size_of(cid)
    }

    /// The block, from here or from any connected peer; waits until one has it. Drop the future to stop
    /// asking.
    pub async fn get(&self, cid: Cid) -> Result<Bytes, Error> {
        self.reader().get(cid).await
    }

    /// Checks the hash and stores the block. It is visible at once, and durable after [`Node::sync`].
    pub async fn put(&self, block: Block) -> Result<(), Error> {
        self.put_many(vec![block]).await
    }

    /// Checks and stores many blocks in one go; all or none of them.
    pub async fn put_many(&self, blocks: Vec<Block>) -> Result<(), Error> {
        let blocks = blocking(move || {
            blocks.iter().try_for_each(hash::verify)?;
            Ok(blocks)
        })
        .await?;
        self.put_checked(blocks).await
    }

    /// Stores blocks of which it is known that they hash to their CIDs.
    pub(crate) async fn put_checked(&self, blocks: Vec<Block>) -> Result<(), Error> {
        self.inner.store.put(blocks.clone()).await?;
        self.inner.network.bitswap.arrived(&blocks);
        Ok(())
    }

    /// Makes everything that was put before durable. Callers at the same time share one fsync.
    pub async fn sync(&self) -> Result<(), Error> {
        self.inner.store.sync().await
    }

    /// Keeps what is written from now on from being collected, until the value is dropped.
    pub fn hold(&self) -> Hold {
        Hold {
            _lease: self.inner.store.protect().upload(),
        }
    }

    /// Removes a block. Fails with [`Error::Pinned`] if it is pinned, directly, recursively or by a
    /// recursive pin above it.
    pub async fn delete(&self, cid: &Cid) -> Result<(), Error> {
        let why = match self.pin_status(cid).await? {
            None => {
                self.inner
                    .store
                    .delete(vec![crate::store::key_of(cid)], false)
                    .await?;
                return Ok(());
            }
            Some(PinStatus::Pinned(pin)) => match pin.mode {
                crate::PinMode::Recursive => "pinned: recursive",
                crate::PinMode::Direct => "pinned: direct",
            },
            Some(PinStatus::Indirect(_)) => "pinned: indirect",
        };
        Err(Error::Pinned { cid: *cid, why })
    }

    /// Every local block, as a CIDv1 with the raw codec, in order of the hash.
    pub fn local_refs(&self) -> BoxStream<'static, Result<Cid, Error>> {
        let cid = |key: Result<Vec<u8>, Error>| {
            let hash = Multihash::from_bytes(&key?);
            let hash = hash.map_err(|error| Error::Damaged(format!("a block's key: {error}")))?;
            Ok(Cid::new_v1(crate::codec::RAW, hash))
        };
        batched(self.inner.store.keys()).map(cid).boxed()
    }

    /// What the repository holds; cheap.
    pub fn stat(&self) -> Result<RepoStat, Error> {
        let counters = self.inner.store.counters();
        let (disk_size, free) = disk_space(&self.inner.path)?;
        let fits = counters.bytes.saturating_add(free);
        Ok(RepoStat {
            repo_size: counters.bytes,
            storage_max: self.inner.storage_max,
            storage_fits: self.inner.storage_max.map_or(fits, |allowed| allowed.min(fits)),
            disk_size,
            num_objects: counters.blocks,
            num_pins: counters.pins,
            version: REPO_VERSION.to_owned(),
            path: self.inner.path.clone(),
        })
    }

    /// Reads here, and from other peers unless offline; what is read through one reader belongs together.
    fn reader(&self) -> Reader {
        let session = (!self.offline).then(|| Arc::new(self.inner.network.bitswap.session()));
        Reader {
            store: self.inner.store.clone(),
            session,
            budget: self.budget(),
        }
    }

    /// What a new request may hold.
    pub(crate) fn budget(&self) -> Budget {
        Budget::new(&self.inner.memory)
    }
}
