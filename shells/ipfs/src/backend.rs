//! [`Backend`]: the calls that a cluster peer makes to its IPFS node, for both kinds of node.
//!
//! An enum rather than a trait: there are two kinds only. Each call is forwarded to [`kubo::Client`] or to
//! the [`Node`]; results and [`Error`] are the same for both.

mod embedded;
mod error;
mod scrub;
mod types;

use crate::Cid;
use bytes::Bytes;
use futures::stream::{BoxStream, Stream, StreamExt};
use libp2p::{Multiaddr, PeerId};

pub use self::error::{Cause, Error};
pub use self::scrub::Scrub;
pub use self::types::{Collected, Identity, PinRequest, PinState, RepoStat, Stored};
use crate::unixfs::Name;
use crate::{Block, Node, PinMode, Progress, kubo};

/// A peer's IPFS node. Cheap to clone. Dropping the future of a call cancels it.
#[derive(Debug, Clone)]
pub enum Backend {
    /// A Kubo daemon, over its RPC API.
    Kubo(kubo::Client),
    /// The node inside this process.
    Embedded(Node),
}

impl Backend {
    /// Returns the identity of the node; also the cheapest check that it is up.
    ///
    /// # Errors
    /// The node cannot be reached or does not answer in time.
    pub async fn id(&self) -> Result<Identity, Error> {
        match self {
            Backend::Kubo(client) => client.id().await,
            Backend::Embedded(node) => Ok(embedded::id(node)),
        }
    }

    /// Pins `pin.cid` and returns once the node holds the whole pin. Calls `progress` whenever the pin gets
    /// further. A Kubo daemon without progress for its `pin_timeout` fails the call; the embedded node waits
    /// as long as its caller does.
    ///
    /// # Errors
    /// The node fails or refuses the request, or the time limit passes.
    pub async fn pin(
        &self,
        pin: &PinRequest,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<(), Error> {
        if pin.mode == PinMode::Direct
            && self.pin_status(&pin.cid).await? == PinState::Pinned(PinMode::Recursive)
        {
            // Neither kind of node turns a recursive pin into a direct one.
            self.unpin(&pin.cid).await?;
        }
        match self {
            // Boxed, as all that most pins do not need: a cluster spawns one of these futures for each pin.
            Backend::Kubo(client) => Box::pin(client.pin(pin, progress)).await,
            Backend::Embedded(node) => embedded::pin(node, pin, progress).await,
        }
    }

    /// Removes the pin of `cid`, whatever its mode. Succeeds if there is no pin.
    ///
    /// # Errors
    /// The node fails or refuses the request; Kubo with `unpin_disable` refuses all.
    pub async fn unpin(&self, cid: &Cid) -> Result<(), Error> {
        match self {
            Backend::Kubo(client) => Box::pin(client.unpin(cid)).await,
            Backend::Embedded(node) => embedded::unpin(node, cid).await,
        }
    }

    /// Returns how `cid` itself is pinned; recursive pins above it may go unnoticed.
    ///
    /// # Errors
    /// The node cannot be reached, fails, or its answer is invalid.
    pub async fn pin_status(&self, cid: &Cid) -> Result<PinState, Error> {
        match self {
            Backend::Kubo(client) => Box::pin(client.pin_state(cid)).await,
            Backend::Embedded(node) => embedded::pin_state(node, cid),
        }
    }

    /// Reads and hashes all blocks of a pin, and has damaged and missing ones fetched again; until then the
    /// pin does not count as pinned. Returns the number of such blocks. Kubo can verify only all pins at
    /// once, so it is not asked: the result is 0.
    ///
    /// # Errors
    /// The embedded node cannot read its disk, or is shut down.
    pub async fn verify_pin(&self, cid: &Cid) -> Result<u64, Error> {
        match self {
            Backend::Kubo(_) => Ok(0),
            Backend::Embedded(node) => embedded::verify_pin(node, cid).await,
        }
    }

    /// Waits for a pin whose blocks are damaged or missing. Never returns with Kubo, which does not report
    /// them.
    pub async fn next_broken_pin(&self) -> Cid {
        match self {
            Backend::Kubo(_) => std::future::pending().await,
            Backend::Embedded(node) => node.next_broken_pin().await,
        }
    }

    /// Streams all pins, recursive and direct, in the node's order, in constant memory.
    ///
    /// # Errors
    /// An item is an error when the listing breaks off; it is the last item.
    pub fn pins(&self) -> BoxStream<'static, Result<(Cid, PinMode), Error>> {
        match self {
            Backend::Kubo(client) => client.pins().boxed(),
            Backend::Embedded(node) => embedded::pins(node),
        }
    }

    /// Returns the storage used and available.
    ///
    /// # Errors
    /// The node cannot be reached or fails.
    pub async fn repo_stat(&self) -> Result<RepoStat, Error> {
        match self {
            Backend::Kubo(client) => client.repo_stat().await,
            Backend::Embedded(node) => embedded::repo_stat(node),
        }
    }

    /// Returns the number of stored blocks. Kubo counts them one by one.
    ///
    /// # Errors
    /// The node cannot be reached or fails.
    pub async fn repo_objects(&self) -> Result<u64, Error> {
        match self {
            Backend::Kubo(client) => client.repo_objects().await,
            Backend::Embedded(node) => embedded::repo_objects(node),
        }
    }

    /// Collects garbage and streams the CIDs removed. Dropping the stream stops the collection.
    ///
    /// # Errors
    /// An item is an error when the collection fails as a whole; it is the last item.
    pub fn repo_gc(&self) -> BoxStream<'static, Result<Collected, Error>> {
        match self {
            Backend::Kubo(client) => client.repo_gc().boxed(),
            Backend::Embedded(node) => embedded::repo_gc(node),
        }
    }

    /// Resolves a path (a CID, `/ipfs/…`, `/ipns/…`) to a CID.
    ///
    /// # Errors The path is invalid or does not exist, or its blocks cannot be fetched in time.
    pub async fn resolve(&self, path: &Name) -> Result<Cid, Error> {
        match self {
            Backend::Kubo(client) => client.resolve(path).await,
            Backend::Embedded(node) => embedded::resolve(node, path).await,
        }
    }

    /// Stores blocks as they come, without pinning them; returns once all are stored. Blocks stored before an
    /// error stay until the next garbage collection.
    ///
    /// # Errors
    /// The first error item of `blocks`, or the node refuses or fails to store a block.
    pub async fn put_blocks<S>(&self, blocks: S) -> Result<Stored, Error>
    where
        S: Stream<Item = Result<Block, Error>> + Send + 'static,
    {
        match self {
            Backend::Kubo(client) => client.put_blocks(blocks).await,
            Backend::Embedded(node) => {
                embedded::put_blocks(node, blocks, embedded::BlockSource::Untrusted).await
            }
        }
    }

    /// Stores blocks like [`Backend::put_blocks`], for blocks just made by an [`Adder`](crate::unixfs::Adder)
    /// of this process: the embedded node does not hash them again.
    ///
    /// # Errors
    /// As [`Backend::put_blocks`].
    pub async fn put_verified<S>(&self, blocks: S) -> Result<Stored, Error>
    where
        S: Stream<Item = Result<Block, Error>> + Send + 'static,
    {
        match self {
            Backend::Kubo(client) => client.put_blocks(blocks).await,
            Backend::Embedded(node) => embedded::put_blocks(node, blocks, embedded::BlockSource::Adder).await,
        }
    }

    /// Returns the bytes of a block, from the node's store or from its peers.
    ///
    /// # Errors The block cannot be fetched in time, or the node fails.
    pub async fn get_block(&self, cid: &Cid) -> Result<Bytes, Error> {
        match self {
            Backend::Kubo(client) => client.get_block(cid).await,
            Backend::Embedded(node) => embedded::get_block(node, cid).await,
        }
    }

    /// Connects to the nodes at these addresses, each ending in `/p2p/…`, one after the other; returns how
    /// many connected. Failures are only logged: addresses are hints about where content may be.
    pub async fn connect(&self, addresses: &[Multiaddr]) -> usize {
        let mut connected = 0;
        for address in addresses {
            let done = match self {
                Backend::Kubo(client) => client.connect(address).await,
                Backend::Embedded(node) => embedded::connect(node, address).await,
            };
            match done {
                Ok(()) => connected += 1,
                Err(error) => tracing::debug!(%address, %error, "the ipfs node cannot connect"),
            }
        }
        connected
    }

    /// Returns the peers the node is connected to.
    ///
    /// # Errors
    /// The node cannot be reached or fails.
    pub async fn swarm_peers(&self) -> Result<Vec<PeerId>, Error> {
        match self {
            Backend::Kubo(client) => client.swarm_peers().await,
            Backend::Embedded(node) => Ok(node.peers().await.into_iter().map(|peer| peer.peer_id).collect()),
        }
    }

    /// Shuts down the embedded node; leaves a Kubo daemon running.
    pub async fn shutdown(&self) {
        match self {
            Backend::Kubo(_) => {}
            Backend::Embedded(node) => node.shutdown().await,
        }
    }
}
