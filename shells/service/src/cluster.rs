//! The operations of a peer: pin, unpin, status, add, sync, recover, membership and metrics.
//!
//! [`Cluster`] serves the REST API, the IPFS proxy and the calls of other peers. It combines the peer's
//! database with its state machine, its connections to the other peers and its IPFS node; it knows neither
//! HTTP nor libp2p.

mod add;
mod claim;
mod contexts;
pub(crate) mod convert;
mod copies;
mod credentials;
mod drains;
mod error;
mod follow;
mod garbage;
mod health;
mod identity;
mod info;
mod merge;
mod moves;
mod owner;
mod peers;
mod ping;
mod pinning;
mod problems;
mod quota;
mod rebalance;
mod recover;
mod repositories;
mod rpc;
mod scan;
mod scrub;
pub(crate) mod search;
mod status;
mod status_all;
mod sync;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cluster_core::{Cid, Credential, Members, Now, PeerId, Replicas, Request, Timestamp, View};
use cluster_ipfs::Backend;
use tokio::sync::Semaphore;

pub use self::add::{Failure as AddFailure, Upload};
pub use self::credentials::TokenError;
pub(crate) use self::credentials::is_token;
pub use self::drains::DrainWish;
pub use self::error::Error;
pub use self::follow::StatusReader;
pub use self::garbage::Collected;
pub use self::ping::PingValue;
pub(crate) use self::problems::consensus_problem;
pub use self::rebalance::RebalanceWish;
pub use self::repositories::Repositories;
pub use self::scrub::{ScrubSettings, Scrubbers};
pub use self::status_all::Rows;
use crate::driver::Handle;
use crate::events::EventLog;
use crate::net::Net;
use crate::store::{Reader, StoreError};

/// Maximum number of concurrent listings. Each holds a snapshot of the database, which keeps the disk space
/// of what is deleted meanwhile, and a few pages of rows in memory.
const LISTINGS_MAX: usize = 64;

/// Maximum number of concurrent uploads; each buffers up to 40 MiB of blocks.
const UPLOADS_MAX: usize = 16;

/// Maximum number of claimed pins that wait for their copies at other peers. Each polls a few peers.
const CLAIMS_MAX: usize = 256;

/// Bytes of imported pins that are proposed at the same time, over all imports: a small part of what the core
/// and its leader accept, so that imports of large pins queue here instead of running into their deadline.
const IMPORT_BYTES: usize = 4 << 20;

/// Maximum number of concurrent calls from other peers.
const CALLS_MAX: usize = 256;

/// Identity and defaults of a peer.
#[derive(Debug, Clone)]
pub struct Config {
    /// This peer's id.
    pub peer: PeerId,
    /// Human-readable name of this peer.
    pub peername: String,
    /// Replication factors of pins that set none.
    pub default_replicas: Replicas,
    /// Version of this program.
    pub version: String,
    /// Highest protocol version that this peer reads: calls of later ones are refused.
    pub protocol: u8,
    /// Settings of the scrub.
    pub scrub: ScrubSettings,
    /// Share of the maximum in percent from which the repository of the IPFS node counts as nearly full.
    pub high_water: u64,
}

/// The components of a running peer that the operations combine.
#[derive(Clone)]
pub struct Parts {
    /// This peer's state machine.
    pub handle: Handle,
    /// Its database.
    pub reader: Reader,
    /// Its connections to the other peers.
    pub net: Net,
    /// Its IPFS node.
    pub backend: Backend,
    /// Its events.
    pub events: EventLog,
}

/// Handle to the operations of this peer. Cheap to clone.
#[derive(Clone)]
pub struct Cluster {
    inner: Arc<Inner>,
    /// Credential that shows and changes its own pins only; `None` for all pins.
    actor: Option<Arc<Credential>>,
}

struct Inner {
    config: Config,
    handle: Handle,
    reader: Reader,
    net: Net,
    backend: Backend,
    events: EventLog,
    ipfs: identity::Cache,
    listings: Arc<Semaphore>,
    uploads: Arc<Semaphore>,
    claims: Arc<Semaphore>,
    imports: Semaphore,
    calls: Arc<Semaphore>,
    rates: credentials::Rates,
    turns: quota::Turns,
    followers: Semaphore,
    following: follow::Following,
    scrub: scrub::Scrub,
    samples: copies::Sampling,
    answer_timeout: Duration,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("peer", &self.inner.config.peer)
            .finish()
    }
}

impl Cluster {
    /// Returns the operations over these components. Starts no task; reads the small file of the scrub.
    pub fn new(config: Config, parts: Parts) -> Self {
        Self::with_answer_timeout(config, parts, rpc::ANSWER_TIMEOUT)
    }

    /// As [`Self::new`], with a time limit for answers of other peers.
    fn with_answer_timeout(config: Config, parts: Parts, answer_timeout: Duration) -> Self {
        let scrub = scrub::Scrub::open(&config.scrub);
        Self {
            actor: None,
            inner: Arc::new(Inner {
                config,
                handle: parts.handle,
                reader: parts.reader,
                net: parts.net,
                backend: parts.backend,
                events: parts.events,
                ipfs: identity::Cache::default(),
                listings: Arc::new(Semaphore::new(LISTINGS_MAX)),
                uploads: Arc::new(Semaphore::new(UPLOADS_MAX)),
                claims: Arc::new(Semaphore::new(CLAIMS_MAX)),
                imports: Semaphore::new(IMPORT_BYTES),
                calls: Arc::new(Semaphore::new(CALLS_MAX)),
                rates: credentials::Rates::default(),
                turns: quota::Turns::default(),
                followers: Semaphore::new(follow::FOLLOWERS_MAX),
                following: follow::Following::default(),
                scrub,
                samples: copies::Sampling::default(),
                answer_timeout,
            }),
        }
    }

    /// Returns the version of this program.
    pub fn version(&self) -> &str {
        &self.inner.config.version
    }

    /// Returns this peer's id.
    pub fn peer(&self) -> &PeerId {
        &self.inner.config.peer
    }

    /// Lists the bounded queues: name, used places and all places.
    pub fn queues(&self) -> [(&'static str, usize, usize); 5] {
        let used = |places: &Semaphore, limit: usize| limit - places.available_permits().min(limit);
        let inner = &self.inner;
        [
            ("listings", used(&inner.listings, LISTINGS_MAX), LISTINGS_MAX),
            ("uploads", used(&inner.uploads, UPLOADS_MAX), UPLOADS_MAX),
            ("claims", used(&inner.claims, CLAIMS_MAX), CLAIMS_MAX),
            ("calls", used(&inner.calls, CALLS_MAX), CALLS_MAX),
            (
                "followers",
                used(&inner.followers, follow::FOLLOWERS_MAX),
                follow::FOLLOWERS_MAX,
            ),
        ]
    }

    async fn request(&self, request: Request) -> Result<cluster_core::Reply, Error> {
        Ok(self.inner.handle.request(request).await?)
    }

    /// Reads a value from the state machine.
    async fn view<T: Send + 'static>(
        &self,
        read: impl FnOnce(View<'_>, Now) -> T + Send + 'static,
    ) -> Result<T, Error> {
        self.inner.handle.view(read).await.ok_or(Error::Closed)
    }

    /// Returns the members.
    async fn members(&self) -> Result<Members, Error> {
        self.view(|view, _| view.members().clone()).await
    }

    /// Returns the CIDs with an operation running at the IPFS node, with `true` for an unpin.
    async fn running(&self) -> Result<BTreeMap<Cid, bool>, Error> {
        self.view(|view, _| {
            let running = view.running();
            running.map(|(cid, unpins)| (cid.clone(), unpins)).collect()
        })
        .await
    }

    /// Reads the database on a blocking thread.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Reader) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Error> {
        let reader = self.inner.reader.clone();
        let done = tokio::task::spawn_blocking(move || read(&reader)).await;
        Ok(done.map_err(|_| Error::Closed)??)
    }
}

/// Returns the wall clock's time.
fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    Timestamp(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
