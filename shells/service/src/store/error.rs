//! What can go wrong with the store, and what to do about it.

use std::io;
use std::path::PathBuf;

/// Why a folder was not opened. Nothing of it has been used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// What is on disk is not what was written.
    #[error(
        "the database in {folder} is damaged: {what}. Move that folder away and start this peer again: it \
         fetches its state from the other peers. If it is the only peer, import the last `state export`"
    )]
    Damaged {
        /// Which folder.
        folder: PathBuf,
        /// What does not fit.
        what: String,
    },
    /// The folder holds something that is not ours.
    #[error(
        "{folder} holds {found:?}, which is not of this program's making: move that folder away first \
         (a state of the Go peer comes over with its `state export` and our `state import`)"
    )]
    Foreign {
        /// Which folder.
        folder: PathBuf,
        /// What was found in it.
        found: String,
    },
    /// The operating system refuses.
    #[error("{}: {source}", path.display())]
    Io {
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process has it open.
    #[error("{folder} is in use by the process with id {pid}: stop that one first")]
    Locked {
        /// Which folder.
        folder: PathBuf,
        /// Who has it; a question mark when that is not known.
        pid: String,
    },
    /// A later release wrote it.
    #[error(
        "{folder} was written by a later release (format {found}, this one knows {known}): start that release"
    )]
    Newer {
        /// Which folder.
        folder: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format that this release reads.
        known: u32,
    },
}

/// Why an open store failed. The process must end: what it has promised may not be on disk.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A batch contradicts what is stored: a bug in who made it.
    #[error("batch refused, nothing of it is written: {0}")]
    Contract(String),
    /// A record is not what was written.
    #[error("the database is damaged: {0}")]
    Damaged(String),
    /// The database cannot be read.
    #[error("the database cannot be read: {0}")]
    Read(#[source] fjall::Error),
    /// What waits on disk to be sorted cannot be written or read.
    #[error("pins cannot be sorted: {0}; is the disk full?")]
    Sort(#[source] io::Error),
    /// What has been written cannot be made durable.
    #[error("the database cannot be synced: {0}; is the disk full?")]
    Sync(#[source] io::Error),
    /// The database cannot be written. It refuses every later write until it is opened again.
    #[error("the database cannot be written: {0}; is the disk full?")]
    Write(#[source] fjall::Error),
}

/// Why a snapshot was not staged.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// Too many snapshots wait to be installed or discarded.
    #[error("{0} snapshots are being received already")]
    Busy(usize),
    /// It is not a snapshot, or not the one that was announced.
    #[error("snapshot refused: {0}")]
    Rejected(String),
    /// The store failed: the process must end.
    #[error(transparent)]
    Store(#[from] StoreError),
}
