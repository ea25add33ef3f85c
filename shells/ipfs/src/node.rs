//! [`Node`], the handle of an embedded node: opening and closing, blocks, peers.

mod admission;
mod files;
mod gc;
mod network;
mod pins;
mod repair;
mod routing;
mod scrub;
mod unmended;
mod upload;

pub(crate) use files::Trace;
pub use gc::{Collected, Pace};
pub use scrub::{Scrub, Scrubbed};
pub use unmended::Unmended;
pub use upload::Upload;

use crate::Cid;
use crate::Multihash;
use crate::config_file::ConfigFile;
use crate::mfs::Mfs;
use crate::names::{self, Names};
use crate::provider::Provider;
use crate::reader::{Reader, blocking, stream_in_batches};
use crate::request_budget::{NodeMemory, RequestBudget};
use crate::retrieval::{Finder, Gateways};
use crate::routing::ContentRouting;
use crate::store::{Lease, Store};
use crate::swarm::dht::{RecordDatabase, StoredRecords};
use crate::swarm::{self, Network, Setup};
use crate::{
    Block, Config, ConnectedPeer, Error, ExchangeStat, Identity, PinStatus, PublicNetwork, RepoStat, hash,
};
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use libp2p::identity::PublicKey;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use repair::BrokenPins;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Reported version of the repository, as Kubo counts them; clients only compare it with their own.
const REPO_VERSION: &str = "fs-repo@16";

/// An open node; clones share it. It runs until [`Node::shutdown`], or until the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Node {
    pub(crate) inner: Arc<Inner>,
    pub(crate) offline: bool,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) names: Names,
    pub(crate) mfs: Mfs,
    config: Arc<ConfigFile>,
    pub(crate) store: Store,
    network: Arc<Network>,
    pub(crate) routing: Arc<ContentRouting>,
    finder: Arc<Finder>,
    provider: Arc<Provider>,
    broken: Arc<BrokenPins>,
    reserved: admission::Reserved,
    memory: NodeMemory,
    public_key: PublicKey,
    path: PathBuf,
    storage_max: Option<u64>,
    closed: CancellationToken,
    ending: CancellationToken,
    pub(crate) settings: Arc<PublicNetwork>,
    records: RecordDatabase,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.closed.cancel();
        self.records.close();
        self.store.close();
    }
}

/// Protects every block written during its lifetime from garbage collection. For callers that put blocks
/// first and pin them later.
#[derive(Debug)]
pub struct GcGuard {
    _lease: Lease,
}

/// Returns the size of the file system under `path` and its free space for this process, in bytes.
fn disk_space(path: &Path) -> Result<(u64, u64), Error> {
    let disk = rustix::fs::statvfs(path).map_err(|error| {
        let what = format!("asking for the free space of {}", path.display());
        Error::io(what, error.into())
    })?;
    let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
    Ok((bytes(disk.f_blocks), bytes(disk.f_bavail)))
}

impl Node {
    /// Opens the data folder, creating it if needed, and starts listening.
    ///
    /// # Errors
    /// [`Error::Locked`] if another process has it open; other errors if the folder is damaged or cannot be
    /// used, or an address cannot be listened on.
    pub async fn open(config: Config) -> Result<Node, Error> {
        let (config, store, keypair, files, records) = blocking(move || {
            let mut config = config;
            let folder = config.path.clone();
            let made = std::fs::create_dir_all(&folder);
            made.map_err(|error| Error::io(format!("making {}", folder.display()), error))?;
            let saved = ConfigFile::open(&mut config)?;
            // The database's lock also guards the identity file.
            let store = Store::open(&folder, config.storage_max)?;
            let loaded = swarm::load_or_create(&folder)
                .and_then(|keypair| Ok((keypair, (Mfs::open(&folder)?, saved))));
            match loaded {
                Ok((keypair, files)) => {
                    let records = StoredRecords::open(&folder, &config.network);
                    Ok((config, store, keypair, files, records))
                }
                Err(error) => {
                    store.close();
                    Err(error)
                }
            }
        })
        .await?;
        let storage_max = config.storage_max;
        let closed = CancellationToken::new();
        let setup = Setup {
            keypair,
            listen: config.swarm_listen,
            settings: Arc::new(config.network),
            folder: config.path,
            bootstrap: files.1.bootstrap(),
            records,
            traffic: Arc::default(),
        };
        // Boxed: it is large, and would be a part of each caller's future.
        let started = Box::pin(Node::start(
            setup,
            (store.clone(), files),
            storage_max,
            closed.clone(),
        ));
        match started.await {
            Ok(inner) => {
                let inner = Arc::new(inner);
                tokio::spawn(names::republish(Arc::downgrade(&inner), inner.closed.clone()));
                Ok(Node {
                    inner,
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

    /// Starts the network and the background tasks of an open store.
    async fn start(
        setup: Setup,
        (store, (mfs, config)): (Store, (Mfs, ConfigFile)),
        storage_max: Option<u64>,
        closed: CancellationToken,
    ) -> Result<Inner, Error> {
        let (public_key, path) = (setup.keypair.public(), setup.folder.clone());
        let names = Names::new(&path, setup.keypair.clone());
        let (settings, records) = (setup.settings.clone(), setup.records.database.clone());
        let network = Arc::new(Network::start(setup, store.clone(), closed.clone()).await?);
        for (peer, addresses) in config.peerings() {
            network.keep(peer, addresses).await?;
        }
        let local = public_key.to_peer_id();
        let routing = Arc::new(ContentRouting::new(network.clone(), settings.clone(), local)?);
        let gateways = (settings.http_retrieval && settings.effective_routing().uses_delegated())
            .then(|| Gateways::new(network.local_scope()))
            .transpose();
        let gateways = gateways.map_err(|error| Error::io("starting the http client", error))?;
        let finder = Finder::new(routing.clone(), network.clone(), gateways);
        let provider = Provider::start(store.clone(), routing.clone(), settings.clone(), &path, &closed);
        let broken = Arc::new(BrokenPins::default());
        let (known, found) = (store.clone(), broken.clone());
        let folder = path.clone();
        blocking(move || unmended::load(&folder, &known, &found)).await?;
        tokio::spawn(unmended::save_changes(
            path.clone(),
            store.clone(),
            broken.clone(),
            closed.clone(),
        ));
        let repairing = repair::run(store.clone(), finder.clone(), broken.clone(), closed.clone());
        tokio::spawn(repairing);
        Ok(Inner {
            names,
            mfs,
            config: Arc::new(config),
            store,
            network,
            routing,
            finder,
            provider,
            broken,
            reserved: admission::Reserved::default(),
            memory: NodeMemory::default(),
            public_key,
            path,
            storage_max,
            closed,
            ending: CancellationToken::new(),
            settings,
            records,
        })
    }

    /// Closes all connections, syncs and closes the database. Every later call fails with [`Error::Closed`].
    pub async fn shutdown(&self) {
        self.inner.closed.cancel();
        let (store, records) = (self.inner.store.clone(), self.inner.records.clone());
        let closing = blocking(move || {
            // Before the store, whose lock guards the whole folder.
            records.close();
            store.close();
            Ok(())
        });
        // Fails only if the runtime itself ends; the drop of the node then closes the store.
        let _ = closing.await;
    }

    /// Returns whether a client has asked for the end of the node.
    pub(crate) fn is_ending(&self) -> bool {
        self.inner.ending.is_cancelled()
    }

    /// Asks the program that runs the node to end; see [`Node::shutdown_requested`].
    pub fn request_shutdown(&self) {
        self.inner.ending.cancel();
    }

    /// Waits until a client of the API asks for the end of the program.
    pub fn shutdown_requested(&self) -> impl Future<Output = ()> + Send + use<> {
        self.inner.ending.clone().cancelled_owned()
    }

    /// Returns a handle of the same node that reads only local blocks and asks no peers.
    pub fn offline(&self) -> Node {
        Node {
            inner: self.inner.clone(),
            offline: true,
        }
    }

    /// Returns the identity of this node.
    pub fn id(&self) -> Identity {
        let peer_id = self.inner.public_key.to_peer_id();
        let mut addresses = self.inner.network.listening();
        for address in self.inner.network.external() {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
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

    /// Dials an address that ends in `/p2p/<peer id>` and returns once connected. From then on the peer is
    /// redialled, with growing pauses, whenever the connection is lost, until [`Node::disconnect`].
    ///
    /// # Errors
    /// [`Error::Dial`] if the peer cannot be reached, [`Error::Invalid`] without a peer id in the address.
    pub async fn connect(&self, addr: Multiaddr) -> Result<(), Error> {
        self.inner.network.connect(addr).await
    }

    /// Closes all connections to a peer and stops dialling it.
    ///
    /// # Errors
    /// [`Error::NotConnected`] without a connection; dialling is stopped all the same.
    pub async fn disconnect(&self, peer: PeerId) -> Result<(), Error> {
        self.inner.network.disconnect(peer, None).await
    }

    /// As [`Node::disconnect`], but only if a connection with this address is open.
    ///
    /// # Errors
    /// [`Error::NoConnection`] without such a connection; nothing changes then.
    pub async fn disconnect_at(&self, peer: PeerId, address: Multiaddr) -> Result<(), Error> {
        self.inner.network.disconnect(peer, Some(address)).await
    }

    /// Returns the connected peers, sorted by peer id.
    pub async fn peers(&self) -> Vec<ConnectedPeer> {
        self.inner.network.peers()
    }

    /// Returns whether a connection to a peer is open.
    pub fn is_connected(&self, peer: &PeerId) -> bool {
        self.inner.network.is_connected(peer)
    }

    /// Returns what a connected peer reports by the identify protocol, once received.
    pub fn identified(&self, peer: &PeerId) -> Option<Identity> {
        self.inner.network.identified(peer)
    }

    /// Returns the block if it is local. Blocks the thread for a disk read.
    ///
    /// # Errors
    /// [`Error::DamagedBlock`] if the disk returns other bytes than were written; the store cannot be read.
    pub fn get_local(&self, cid: &Cid) -> Result<Option<Bytes>, Error> {
        self.inner.store.get(cid)
    }

    /// Returns whether the block is local. CIDs that hold their content always are.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn has(&self, cid: &Cid) -> Result<bool, Error> {
        self.inner.store.has(cid)
    }

    /// Returns the size of a local block, in bytes.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn size_of(&self, cid: &Cid) -> Result<Option<u64>, Error> {
        self.inner.store.size_of(cid)
    }

    /// Returns the block from the local store or from any connected peer; waits until one has it. Dropping
    /// the future cancels the request.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the handle is [`Node::offline`] and the block is not local;
    /// [`Error::DamagedBlock`] if no peer replaces a damaged one in time; the store cannot be read.
    pub async fn get(&self, cid: Cid) -> Result<Bytes, Error> {
        self.reader().get(cid).await
    }

    /// Verifies the hash and stores the block. It is visible at once, and durable after [`Node::sync`].
    ///
    /// # Errors
    /// [`Error::Mismatch`], [`Error::TooLarge`] or [`Error::UnsupportedHash`] if the block is invalid;
    /// [`Error::Full`]; the store cannot be written.
    pub async fn put(&self, block: Block) -> Result<(), Error> {
        self.put_many(vec![block]).await
    }

    /// Verifies and stores many blocks together; all or none.
    ///
    /// # Errors
    /// As [`Node::put`].
    pub async fn put_many(&self, blocks: Vec<Block>) -> Result<(), Error> {
        let blocks = blocking(move || {
            blocks.iter().try_for_each(hash::verify)?;
            Ok(blocks)
        })
        .await?;
        self.put_verified(blocks).await
    }

    /// Stores blocks known to match their CIDs.
    pub(crate) async fn put_verified(&self, blocks: Vec<Block>) -> Result<(), Error> {
        self.inner.store.put(blocks.clone()).await?;
        self.inner.network.bitswap.deliver_stored(&blocks);
        Ok(())
    }

    /// Makes everything that was put before durable. Concurrent callers share one fsync.
    ///
    /// # Errors
    /// The store cannot be written.
    pub async fn sync(&self) -> Result<(), Error> {
        self.inner.store.sync().await
    }

    /// Protects blocks written from now on from garbage collection, until the value is dropped.
    pub fn protect_from_gc(&self) -> GcGuard {
        GcGuard {
            _lease: self.inner.store.protect().upload(),
        }
    }

    /// Removes a block.
    ///
    /// # Errors
    /// [`Error::Pinned`] if it is pinned, directly, recursively or by a recursive pin above it; the store
    /// cannot be read or written.
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

    /// Streams every local block, as a CIDv1 with the raw codec, in order of the hash.
    ///
    /// # Errors
    /// An item is an error when the store cannot be read; it is the last item.
    pub fn local_refs(&self) -> BoxStream<'static, Result<Cid, Error>> {
        let cid = |key: Result<Vec<u8>, Error>| {
            let hash = Multihash::from_bytes(&key?);
            let hash = hash.map_err(|error| Error::Damaged(format!("a block's key: {error}")))?;
            Ok(Cid::new_v1(crate::codec::RAW, hash))
        };
        stream_in_batches(self.inner.store.keys()).map(cid).boxed()
    }

    /// Returns usage and limits of the repository; cheap.
    ///
    /// # Errors
    /// The file system does not report its free space.
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

    /// Returns the blocks exchanged with other nodes.
    pub fn exchange_stat(&self) -> ExchangeStat {
        self.inner.network.bitswap.stat()
    }

    /// Returns the CIDs of the blocks that this node waits for.
    pub(crate) fn wantlist(&self) -> Vec<Cid> {
        self.inner.network.bitswap.wantlist()
    }

    /// Returns the CIDs of the blocks that a connected node wants and this one lacks, at most 1024.
    pub(crate) fn wantlist_of(&self, peer: &PeerId) -> Vec<Cid> {
        self.inner.network.bitswap.wantlist_of(peer)
    }

    /// Creates a reader of local blocks and, unless offline, of other peers' blocks. Its reads share a
    /// session.
    pub(crate) fn reader(&self) -> Reader {
        let session = (!self.offline).then(|| Arc::new(self.inner.finder.session()));
        Reader {
            store: self.inner.store.clone(),
            session,
            budget: self.budget(),
        }
    }

    /// Returns the memory budget of a new request.
    pub(crate) fn budget(&self) -> RequestBudget {
        RequestBudget::new(&self.inner.memory)
    }
}
