//! The operations that a peer offers, whoever asks. They stand on the peer's state machine, its database, its
//! IPFS node and calls to the other peers.

mod add;
mod claim;
pub(crate) mod convert;
mod error;
mod health;
mod identity;
mod info;
mod merge;
mod peers;
mod ping;
mod pinning;
mod recover;
mod repositories;
mod rpc;
mod scan;
mod status;
mod status_all;
mod sync;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub mod world;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cluster_core::{PeerId, Replicas, Request, Timestamp};
use cluster_ipfs::Backend;
use tokio::sync::Semaphore;

pub use self::add::{Adding, Failure as AddFailure};
pub use self::error::Error;
pub use self::ping::PingValue;
pub use self::repositories::Repositories;
pub use self::status_all::Rows;
use self::world::{Store, StoreError, World};

/// Listings of everything that may run at once. Each holds a snapshot of the database, which keeps the disk
/// space of what is deleted meanwhile, and a few pages of rows in memory.
const LISTINGS_MAX: usize = 64;

/// Uploads that may run at once: each has up to 40 MiB of blocks on the way.
const UPLOADS_MAX: usize = 16;

/// Claimed pins whose copies are elsewhere and not there yet. Each costs a question to a few peers now and
/// then.
const CLAIMS_MAX: usize = 256;

/// Calls of other peers that are served at once.
const CALLS_MAX: usize = 256;

/// How a peer presents itself, and what it does unless told otherwise.
#[derive(Debug, Clone)]
pub struct Config {
    /// Who this peer is.
    pub peer: PeerId,
    /// Its name for people.
    pub peername: String,
    /// For pins that do not say how many copies they want.
    pub default_replicas: Replicas,
    /// The version of this program.
    pub version: String,
    /// The commit it was built from; may be empty.
    pub commit: String,
}

/// The operations of this peer. Cheap to clone.
#[derive(Clone)]
pub struct Cluster {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    world: World,
    backend: Backend,
    ipfs: identity::Cache,
    listings: Arc<Semaphore>,
    uploads: Arc<Semaphore>,
    claims: Arc<Semaphore>,
    calls: Arc<Semaphore>,
    silence: Duration,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("peer", &self.inner.config.peer)
            .finish()
    }
}

impl Cluster {
    /// The operations on this world. Nothing runs until one is called.
    pub fn new(config: Config, world: World, backend: Backend) -> Self {
        Self::with_silence(config, world, backend, rpc::SILENCE)
    }

    /// The same, where peers are given up after this much silence.
    fn with_silence(config: Config, world: World, backend: Backend, silence: Duration) -> Self {
        Self {
            inner: Arc::new(Inner {
                config,
                world,
                backend,
                ipfs: identity::Cache::default(),
                listings: Arc::new(Semaphore::new(LISTINGS_MAX)),
                uploads: Arc::new(Semaphore::new(UPLOADS_MAX)),
                claims: Arc::new(Semaphore::new(CLAIMS_MAX)),
                calls: Arc::new(Semaphore::new(CALLS_MAX)),
                silence,
            }),
        }
    }

    /// The version of this program.
    pub fn version(&self) -> &str {
        &self.inner.config.version
    }

    /// Who this peer is.
    pub fn peer(&self) -> &PeerId {
        &self.inner.config.peer
    }

    async fn request(&self, request: Request) -> Result<cluster_core::Reply, Error> {
        Ok(self.inner.world.core.request(request).await?)
    }

    /// Reads the database off the threads that serve connections.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Error> {
        let store = self.inner.world.store.clone();
        let done = tokio::task::spawn_blocking(move || read(store.as_ref())).await;
        Ok(done.map_err(|_| Error::Closed)??)
    }
}

/// What the wall clock says.
fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    Timestamp(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
