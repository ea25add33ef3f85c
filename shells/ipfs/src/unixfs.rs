//! UnixFS: building and reading files and directories whose CIDs are Kubo's.

mod adder;
mod budget;
mod build;
mod chunker;
mod directory;
mod hamt;
mod layout;
mod name;
mod options;
pub(crate) mod pb;
pub(crate) mod read;
pub(crate) mod tar;

pub use adder::{Added, Adder};
pub use name::Name;
pub use options::{AddOptions, Chunker, HamtSize, HashKind, Layout, Metadata, mode_from_go, mode_to_go};

use crate::Cid;
use crate::Error;
use bytes::Bytes;

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
    pub name: Name,
    /// Where it leads.
    pub cid: Cid,
    /// Bytes of all blocks below, as the directory says.
    pub size: u64,
    /// What is there; `None` when the listing was asked not to fetch the entries.
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
    pub link_target: Option<Name>,
}

/// Content read in order.
pub type ByteStream = futures::stream::BoxStream<'static, Result<Bytes, Error>>;
