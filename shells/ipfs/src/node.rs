//! The handle of an embedded node.

use crate::unixfs::{AddOptions, Added, ByteStream, DirEntry, Finished, Metadata, Stat};
use crate::{
    Block, Config, ConnectedPeer, DagPath, Error, Identity, Pin, PinFilter, PinMode, PinStatus, Progress,
    Ref, RepoStat, Resolved,
};
use bytes::Bytes;
use cid::Cid;
use futures::stream::BoxStream;
use libp2p::{Multiaddr, PeerId};
use tokio::io::AsyncRead;

/// An open node; clones share it. It runs until [`Node::shutdown`] or the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Node {}

impl Node {
    /// Opens the data folder, making it if needed, and starts listening.
    ///
    /// # Errors
    /// [`Error::Locked`] when another process has it open; the folder cannot be used or is damaged; an
    /// address cannot be listened on.
    pub async fn open(_config: Config) -> Result<Node, Error> {
        Err(Error::Closed)
    }

    /// Stops the network, syncs and closes the database. Every later call fails with [`Error::Closed`].
    pub async fn shutdown(&self) {}

    /// The same node, but reading only what is local: nothing is asked of other peers.
    pub fn offline(&self) -> Node {
        self.clone()
    }

    // Network.

    /// Who this node is.
    pub fn id(&self) -> Identity {
        unreachable!()
    }

    /// Dials an address that ends in `/p2p/<peer id>` and returns once connected. From then on the peer
    /// is dialled again, with growing pauses, whenever the connection is lost, until
    /// [`Node::disconnect`].
    pub async fn connect(&self, _addr: Multiaddr) -> Result<(), Error> {
        Err(Error::Closed)
    }

    /// Keeps a connection to a peer at these addresses from now on, without waiting for it. A second
    /// call replaces the addresses.
    pub fn keep_connected(&self, _peer: PeerId, _addresses: Vec<Multiaddr>) {}

    /// Closes all connections to a peer and dials it no more.
    pub async fn disconnect(&self, _peer: PeerId) -> Result<(), Error> {
        Err(Error::Closed)
    }

    /// Who is connected, sorted by peer id.
    pub async fn peers(&self) -> Vec<ConnectedPeer> {
        Vec::new()
    }

    // Blocks.

    /// The block, if it is local. Blocks the thread for a read of the disk.
    pub fn get_local(&self, _cid: &Cid) -> Result<Option<Bytes>, Error> {
        Err(Error::Closed)
    }

    /// Whether the block is local. CIDs that hold their content always are.
    pub fn has(&self, _cid: &Cid) -> Result<bool, Error> {
        Err(Error::Closed)
    }

    /// The size of a local block, bytes.
    pub fn size_of(&self, _cid: &Cid) -> Result<Option<u64>, Error> {
        Err(Error::Closed)
    }

    /// The block, from here or from any connected peer; waits until one has it. Drop the future to stop
    /// asking.
    pub async fn get(&self, _cid: Cid) -> Result<Bytes, Error> {
        Err(Error::Closed)
    }

    /// Checks the hash and stores the block. It is visible at once, and durable after [`Node::sync`].
    pub async fn put(&self, block: Block) -> Result<(), Error> {
        self.put_many(vec![block]).await
    }

    /// Checks and stores many blocks in one go; all or none of them.
    pub async fn put_many(&self, _blocks: Vec<Block>) -> Result<(), Error> {
        Err(Error::Closed)
    }

    /// Makes everything that was put before durable. Callers at the same time share one fsync.
    pub async fn sync(&self) -> Result<(), Error> {
        Err(Error::Closed)
    }

    /// Removes a block that has no pin of its own. Fails with [`Error::Pinned`] if it is pinned, directly,
    /// recursively or by a recursive pin above it.
    pub async fn delete(&self, _cid: &Cid) -> Result<(), Error> {
        Err(Error::Closed)
    }

    /// Every local block, as a CIDv1 with the raw codec, in order of the hash.
    pub fn local_refs(&self) -> BoxStream<'static, Result<Cid, Error>> {
        Box::pin(futures::stream::empty())
    }

    // Pins.

    /// Fetches what is missing of a DAG and records the pin once all of it is local and synced. Drop the
    /// future to cancel. Pinning again with the same mode replaces the name.
    ///
    /// # Errors
    /// [`Error::Pinned`] when a direct pin is asked where a recursive one is; [`Error::Full`];
    /// [`Error::Malformed`].
    pub async fn pin(
        &self,
        _cid: Cid,
        _mode: PinMode,
        _name: String,
        _progress: impl Fn(Progress) + Send + Sync,
    ) -> Result<(), Error> {
        Err(Error::Closed)
    }

    /// Removes a pin of either mode (the blocks stay until a collection).
    pub async fn unpin(&self, _cid: &Cid) -> Result<PinMode, Error> {
        Err(Error::Closed)
    }

    /// Pins `to` recursively as `from` is, with its name, and removes `from` if `unpin`.
    pub async fn pin_update(&self, _from: &Cid, _to: Cid, _unpin: bool) -> Result<(), Error> {
        Err(Error::Closed)
    }

    /// The recorded pins in order of the CID's bytes, as of now, in constant memory.
    pub fn pins(&self, _filter: PinFilter) -> BoxStream<'static, Result<Pin, Error>> {
        Box::pin(futures::stream::empty())
    }

    /// The recorded pin of this CID.
    pub fn pin_of(&self, _cid: &Cid) -> Result<Option<Pin>, Error> {
        Err(Error::Closed)
    }

    /// Why this CID is kept, if it is; may walk all recursive pins.
    pub async fn pin_status(&self, _cid: &Cid) -> Result<Option<PinStatus>, Error> {
        Err(Error::Closed)
    }

    /// Every block below a recursive pin that has no pin of its own, each once, unordered.
    pub fn indirect_pins(&self) -> BoxStream<'static, Result<Cid, Error>> {
        Box::pin(futures::stream::empty())
    }

    // Files and directories.

    /// Starts an upload into this node.
    pub fn add(&self, _options: AddOptions) -> Result<Adding, Error> {
        Err(Error::Closed)
    }

    /// A file's content from `offset`, at most `length` bytes. The root is read before this returns.
    pub async fn cat(&self, _cid: Cid, _offset: u64, _length: Option<u64>) -> Result<ByteStream, Error> {
        Err(Error::Closed)
    }

    /// What is at a CID.
    pub async fn file_stat(&self, _cid: Cid) -> Result<Stat, Error> {
        Err(Error::Closed)
    }

    /// The names in a directory (of a file: none), sharded or not; with `resolve`, each entry is fetched
    /// to tell what it is.
    pub async fn ls(
        &self,
        _cid: Cid,
        _resolve: bool,
    ) -> Result<BoxStream<'static, Result<DirEntry, Error>>, Error> {
        Err(Error::Closed)
    }

    /// A file or directory tree as a tar archive whose entries are below `name`.
    pub fn tar(&self, _cid: Cid, _name: String) -> ByteStream {
        Box::pin(futures::stream::empty())
    }

    // DAGs.

    /// Follows a path.
    pub async fn resolve(&self, _path: &DagPath) -> Result<Resolved, Error> {
        Err(Error::Closed)
    }

    /// The links of one block, with their names where the codec has them.
    pub async fn links(&self, _cid: Cid) -> Result<Vec<(String, Cid)>, Error> {
        Err(Error::Closed)
    }

    /// The links below a block, depth first, down to `max_depth` (`None`: all), each target once if
    /// `unique`.
    pub fn refs(
        &self,
        _cid: Cid,
        _max_depth: Option<u64>,
        _unique: bool,
    ) -> BoxStream<'static, Result<Ref, Error>> {
        Box::pin(futures::stream::empty())
    }

    /// What is at a path, as DAG-JSON.
    pub async fn dag_get(&self, _path: &DagPath) -> Result<String, Error> {
        Err(Error::Closed)
    }

    /// The DAG below a root as CARv1, each block once, depth first.
    pub fn dag_export(&self, _root: Cid) -> ByteStream {
        Box::pin(futures::stream::empty())
    }

    /// Stores the blocks of a CAR (v1 or v2), checks each hash, syncs, and returns the roots it names
    /// with the number of blocks and bytes. Pins nothing.
    pub async fn dag_import(
        &self,
        _car: impl AsyncRead + Send + Unpin,
    ) -> Result<(Vec<Cid>, u64, u64), Error> {
        Err(Error::Closed)
    }

    // Repository.

    /// What the repository holds; cheap.
    pub fn stat(&self) -> Result<RepoStat, Error> {
        Err(Error::Closed)
    }

    /// Removes every block that no pin keeps and no running upload or pin needs, and tells which. Only
    /// one runs at a time; dropping the stream stops it, which is safe at any moment.
    pub fn gc(&self) -> BoxStream<'static, Result<Cid, Error>> {
        Box::pin(futures::stream::empty())
    }
}

/// An upload into a node: an [`crate::unixfs::Adder`] whose blocks are stored, and safe from collections
/// until it ends.
#[derive(Debug)]
pub struct Adding {}

impl Adding {
    /// See [`crate::unixfs::Adder::file`].
    pub async fn file(
        &mut self,
        _path: &str,
        _meta: Metadata,
        _content: impl AsyncRead + Send + Unpin,
        _progress: impl FnMut(u64) + Send,
    ) -> Result<Added, Error> {
        Err(Error::Closed)
    }

    /// See [`crate::unixfs::Adder::directory`].
    pub fn directory(&mut self, _path: &str, _meta: Metadata) -> Result<(), Error> {
        Err(Error::Closed)
    }

    /// See [`crate::unixfs::Adder::symlink`].
    pub async fn symlink(&mut self, _path: &str, _meta: Metadata, _target: &str) -> Result<Added, Error> {
        Err(Error::Closed)
    }

    /// Builds the directories, makes everything durable, and pins the roots recursively under `pin`, a
    /// name (possibly empty), if given.
    pub async fn finish(self, _pin: Option<String>) -> Result<Finished, Error> {
        Err(Error::Closed)
    }
}
