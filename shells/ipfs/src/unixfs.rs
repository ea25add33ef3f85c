//! UnixFS: building and reading files and directories whose CIDs are Kubo's.

mod options;

pub use options::{AddOptions, Chunker, HamtSize, HashKind, Layout, Metadata};

use crate::{Block, Error};
use bytes::Bytes;
use cid::Cid;
use tokio::io::AsyncRead;
use tokio::sync::mpsc;

/// What an [`Adder`] says about an entry it has finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Added {
    /// The path within the upload; empty for the root of a wrap.
    pub name: String,
    /// The root of the entry's DAG.
    pub cid: Cid,
    /// Bytes of content, for a file.
    pub bytes: u64,
    /// Bytes of all blocks of its DAG, each counted where it is linked: what Kubo calls `Size`.
    pub size: u64,
}

/// What a name in a directory leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A file, raw blocks included.
    File,
    /// A directory, sharded or not.
    Directory,
    /// A symbolic link.
    Symlink,
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// The name.
    pub name: String,
    /// Where it leads.
    pub cid: Cid,
    /// Bytes of all blocks below, as the directory says.
    pub size: u64,
    /// What is there, and its content's bytes; `None` when the listing was asked not to fetch the entries.
    pub target: Option<Stat>,
}

/// A file's, directory's or link's own data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// What it is.
    pub kind: Kind,
    /// Bytes of content.
    pub bytes: u64,
    /// Permissions and time of change, where recorded.
    pub meta: Metadata,
    /// The target of a symbolic link.
    pub link_target: Option<String>,
}

/// Builds UnixFS DAGs from streams and gives their blocks to a channel, children before parents.
///
/// It stores nothing: the receiver of the blocks decides. A slow receiver slows the adder down.
#[derive(Debug)]
pub struct Adder {
    _options: AddOptions,
    _blocks: mpsc::Sender<Block>,
}

impl Adder {
    /// Starts an upload. Fails when the options contradict each other.
    pub fn new(options: AddOptions, blocks: mpsc::Sender<Block>) -> Result<Adder, Error> {
        Ok(Adder {
            _options: options,
            _blocks: blocks,
        })
    }

    /// Adds one file at a path within the upload. `progress` is told the bytes read so far.
    ///
    /// # Errors
    /// The content cannot be read, the path is taken or escapes the upload, or the receiver is gone.
    pub async fn file(
        &mut self,
        _path: &str,
        _meta: Metadata,
        _content: impl AsyncRead + Send + Unpin,
        _progress: impl FnMut(u64) + Send,
    ) -> Result<Added, Error> {
        Err(Error::Closed)
    }

    /// Adds a directory, which may be empty. The ones above it are made as needed.
    pub fn directory(&mut self, _path: &str, _meta: Metadata) -> Result<(), Error> {
        Err(Error::Closed)
    }

    /// Adds a symbolic link.
    pub async fn symlink(&mut self, _path: &str, _meta: Metadata, _target: &str) -> Result<Added, Error> {
        Err(Error::Closed)
    }

    /// Builds the directories, deepest first; the last one is the root of the upload. Without any
    /// directory the list is empty, and the files that were added are roots themselves.
    pub async fn finish(self) -> Result<Finished, Error> {
        Err(Error::Closed)
    }
}

/// The end of an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// The directories, deepest first.
    pub directories: Vec<Added>,
    /// What to pin: one root, unless several names were added side by side and not wrapped.
    pub roots: Vec<Added>,
}

/// Content read in order.
pub type ByteStream = futures::stream::BoxStream<'static, Result<Bytes, Error>>;
