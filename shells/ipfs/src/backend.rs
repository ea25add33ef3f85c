//! The one set of calls that a cluster peer makes to its IPFS node, whichever node that is.

mod embedded;
mod error;
mod types;

use crate::Cid;
use bytes::Bytes;
use futures::stream::{BoxStream, Stream, StreamExt};
use libp2p::{Multiaddr, PeerId};

pub use self::error::{Cause, Error};
pub use self::types::{Collected, Identity, PinRequest, PinState, RepoStat, Stored};
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
    /// Who the node is; also the cheapest way to learn whether it is up.
    pub async fn id(&self) -> Result<Identity, Error> {
        match self {
            Backend::Kubo(client) => client.id().await,
            Backend::Embedded(node) => Ok(embedded::id(node)),
        }
    }

    /// Makes the node hold what `pin` says and returns once it does. `progress` is called whenever it got
    /// further. A Kubo daemon that makes none for its `pin_timeout` fails the call; the embedded node
    /// waits for as long as its caller does.
    pub async fn pin(
        &self,
        pin: &PinRequest,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<(), Error> {
        if pin.mode == PinMode::Direct
            && self.pin_status(&pin.cid).await? == PinState::Pinned(PinMode::Recursive)
        {
            // No node makes a pin shallower.
            self.unpin(&pin.cid).await?;
        }
        match self {
            Backend::Kubo(client) => client.pin(pin, progress).await,
            Backend::Embedded(node) => embedded::pin(node, pin, progress).await,
        }
    }

    /// Removes the pin of `cid`, whatever its mode. What is not pinned counts as removed.
    pub async fn unpin(&self, cid: &Cid) -> Result<(), Error> {
        match self {
            Backend::Kubo(client) => client.unpin(cid).await,
            Backend::Embedded(node) => embedded::unpin(node, cid).await,
        }
    }

    /// How `cid` is pinned, if it has a pin of its own; pins above it may go unnoticed.
    pub async fn pin_status(&self, cid: &Cid) -> Result<PinState, Error> {
        match self {
            Backend::Kubo(client) => client.pin_state(cid).await,
            Backend::Embedded(node) => embedded::pin_state(node, cid),
        }
    }

    /// Reads and hashes all blocks of a pin, and has those fetched again that are damaged or missing; the pin
    /// does not count as pinned until that is done. Returns how many they are. Kubo checks single pins only
    /// as a part of all, and is not asked to.
    pub async fn verify_pin(&self, cid: &Cid) -> Result<u64, Error> {
        match self {
            Backend::Kubo(_) => Ok(0),
            Backend::Embedded(node) => embedded::verify_pin(node, cid).await,
        }
    }

    /// Waits for a pin whose blocks are damaged or missing; for ever with Kubo, which tells of none.
    pub async fn next_broken_pin(&self) -> Cid {
        match self {
            Backend::Kubo(_) => std::future::pending().await,
            Backend::Embedded(node) => node.next_broken_pin().await,
        }
    }

    /// All pins, recursive and direct, in the node's order, in constant memory. After an error it ends.
    pub fn pins(&self) -> BoxStream<'static, Result<(Cid, PinMode), Error>> {
        match self {
            Backend::Kubo(client) => client.pins().boxed(),
            Backend::Embedded(node) => embedded::pins(node),
        }
    }

    /// How much the node stores and may store.
    pub async fn repo_stat(&self) -> Result<RepoStat, Error> {
        match self {
            Backend::Kubo(client) => client.repo_stat().await,
            Backend::Embedded(node) => embedded::repo_stat(node),
        }
    }

    /// How many blocks the node stores. Kubo counts them one by one.
    pub async fn repo_objects(&self) -> Result<u64, Error> {
        match self {
            Backend::Kubo(client) => client.repo_objects().await,
            Backend::Embedded(node) => embedded::repo_objects(node),
        }
    }

    /// Collects garbage, telling what goes. Dropping the stream stops it.
    pub fn repo_gc(&self) -> BoxStream<'static, Result<Collected, Error>> {
        match self {
            Backend::Kubo(client) => client.repo_gc().boxed(),
            Backend::Embedded(node) => embedded::repo_gc(node),
        }
    }

    /// The CID that a path stands for: a CID, `/ipfs/…`, and with Kubo `/ipns/…`.
    pub async fn resolve(&self, path: &str) -> Result<Cid, Error> {
        match self {
            Backend::Kubo(client) => client.resolve(path).await,
            Backend::Embedded(node) => embedded::resolve(node, path).await,
        }
    }

    /// Stores blocks as they come, without pinning them; returns once all are stored. An error item of
    /// `blocks` ends the call with that error. Blocks before it stay until the next collection.
    pub async fn put_blocks<S>(&self, blocks: S) -> Result<Stored, Error>
    where
        S: Stream<Item = Result<Block, Error>> + Send + 'static,
    {
        match self {
            Backend::Kubo(client) => client.put_blocks(blocks).await,
            Backend::Embedded(node) => embedded::put_blocks(node, blocks, embedded::Origin::Elsewhere).await,
        }
    }

    /// As [`Backend::put_blocks`], for blocks that an [`Adder`](crate::unixfs::Adder) of this process has
    /// just made: the embedded node does not hash them a second time.
    pub async fn put_made<S>(&self, blocks: S) -> Result<Stored, Error>
    where
        S: Stream<Item = Result<Block, Error>> + Send + 'static,
    {
        match self {
            Backend::Kubo(client) => client.put_blocks(blocks).await,
            Backend::Embedded(node) => embedded::put_blocks(node, blocks, embedded::Origin::Adder).await,
        }
    }

    /// The bytes of a block, from here or from the node's peers.
    pub async fn get_block(&self, cid: &Cid) -> Result<Bytes, Error> {
        match self {
            Backend::Kubo(client) => client.get_block(cid).await,
            Backend::Embedded(node) => embedded::get_block(node, cid).await,
        }
    }

    /// Connects to the nodes at these addresses, each ending in `/p2p/…`, one after the other; says how
    /// many accepted. One that does not is no error: these are hints about where content may be.
    pub async fn connect(&self, addresses: &[Multiaddr]) -> usize {
        let mut connected = 0;
        for address in addresses {
            let done = match self {
                Backend::Kubo(client) => client.connect(address).await,
                Backend::Embedded(node) => embedded::connect(node, address).await,
            };
            match done {
                Ok(()) => connected += 1,
                Err(error) => tracing::debug!(%address, %error, "the ipfs node does not connect"),
            }
        }
        connected
    }

    /// The peers the node is connected to.
    pub async fn swarm_peers(&self) -> Result<Vec<PeerId>, Error> {
        match self {
            Backend::Kubo(client) => client.swarm_peers().await,
            Backend::Embedded(node) => Ok(node.peers().await.into_iter().map(|peer| peer.peer_id).collect()),
        }
    }

    /// Ends what this process runs: the embedded node is closed, a Kubo daemon is left alone.
    pub async fn shutdown(&self) {
        match self {
            Backend::Kubo(_) => {}
            Backend::Embedded(node) => node.shutdown().await,
        }
    }
}
