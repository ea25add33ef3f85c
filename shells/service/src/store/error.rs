//! Errors of the store, with advice for operators.

use std::io;
use std::path::PathBuf;

/// Failure to open a folder. Nothing in it has been used or changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The contents of the disk contradict themselves or their checksums.
    #[error(
        "the database in {folder} is damaged: {what}. Move that folder away and start this peer again: it \
         fetches its state from the other peers. If it is the only peer, import the last `state export`"
    )]
    Damaged {
        /// The store's folder.
        folder: PathBuf,
        /// The contradiction.
        what: String,
    },
    /// The folder holds a file or folder of another program.
    #[error(
        "{folder} holds {found:?}, which is not from this program: move that folder away first \
         (a state of the Go peer comes over with its `state export` and our `state import`)"
    )]
    Foreign {
        /// The store's folder.
        folder: PathBuf,
        /// Name of the foreign entry.
        found: String,
    },
    /// The operating system reports an error.
    #[error("{}: {source}", path.display())]
    Io {
        /// File or folder of the failed operation.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Another process has it open.
    #[error("{folder} is in use by the process with id {pid}: stop that one first")]
    Locked {
        /// The store's folder.
        folder: PathBuf,
        /// Process id of the owner; a question mark when unknown.
        pid: String,
    },
    /// A later release wrote the folder.
    #[error(
        "{folder} was written by a later release (format {found}, this one knows {known}): start that release"
    )]
    Newer {
        /// The store's folder.
        folder: PathBuf,
        /// Format of the folder.
        found: u32,
        /// Newest format that this release reads.
        known: u32,
    },
}

/// Failure of an open store. The process must end: a batch reported as durable may be lost.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A batch contradicts the stored state: a bug in the caller.
    #[error("batch refused, nothing of it is written: {0}")]
    Contract(String),
    /// A record does not match its checksum, or cannot be decoded.
    #[error("the database is damaged: {0}")]
    Damaged(String),
    /// The database cannot be read.
    #[error("the database cannot be read: {0}")]
    Read(#[source] fjall::Error),
    /// The search index contradicts the pins, which are not affected.
    #[error("the search index is damaged: {0}; restart this peer, which rebuilds it")]
    SearchIndex(String),
    /// The temporary file for sorting cannot be written or read.
    #[error("pins cannot be sorted: {0}; is the disk full?")]
    Sort(#[source] io::Error),
    /// Written batches cannot be made durable.
    #[error("the database cannot be synced: {0}; is the disk full?")]
    Sync(#[source] io::Error),
    /// The database cannot be written. It refuses every later write until it is opened again.
    #[error("the database cannot be written: {0}; is the disk full?")]
    Write(#[source] fjall::Error),
}

/// Failure to stage a snapshot.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// As many snapshots as allowed are being received, or wait to be installed or discarded.
    #[error("{0} snapshots are being received already")]
    Busy(usize),
    /// The chunks are no snapshot, or not the announced one.
    #[error("snapshot refused: {0}")]
    Rejected(String),
    /// The store failed: the process must end.
    #[error(transparent)]
    Store(#[from] StoreError),
}
