//! UnixFS: builds and reads files and directories, with the same CIDs as Kubo
//! ([specification](https://specs.ipfs.tech/unixfs/)).

mod adder;
mod build;
mod chunker;
mod directory;
mod hamt;
mod layout;
mod name;
mod name_budget;
mod options;
pub(crate) mod pb;
pub(crate) mod read;
pub(crate) mod tar;

pub use adder::{Added, Adder};
pub(crate) use directory::build_directory;
pub use name::Name;
pub use options::{AddOptions, Chunker, HamtSize, HashKind, Layout, Metadata, mode_from_go, mode_to_go};

use crate::Cid;
use crate::Error;
use bytes::Bytes;

/// Kind of a UnixFS entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A file, or a raw block.
    File,
    /// A directory, sharded or not.
    Directory,
    /// A symbolic link.
    Symlink,
}

/// An entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// Name of the entry.
    pub name: Name,
    /// Root of the entry's DAG.
    pub cid: Cid,
    /// Size of all blocks of the DAG as recorded in the directory, in bytes.
    pub size: u64,
    /// Kind and size of the entry; `None` if the listing did not fetch the entries.
    pub target: Option<Stat>,
}

/// Kind, size and metadata of a file, directory or link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// Kind of the entry.
    pub kind: Kind,
    /// Size of the content, in bytes.
    pub bytes: u64,
    /// Permissions and modification time, if recorded.
    pub meta: Metadata,
    /// Target of a symbolic link.
    pub link_target: Option<Name>,
}

/// A stream of content, in order.
pub type ByteStream = futures::stream::BoxStream<'static, Result<Bytes, Error>>;
