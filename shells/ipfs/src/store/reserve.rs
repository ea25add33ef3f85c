//! Reserve of disk space, so that a full disk can still be freed: deletions write before they free anything,
//! and the database stops permanently at the first write that finds no room.
//!
//! New blocks are refused while [`FLOOR_BYTES`] are still free, so that this node does not fill the disk by
//! itself. Against other programs there is a file of [`RESERVE_BYTES`], removed when a collection or the next
//! start finds no room.

use super::segments::{self, Files, write_error};
use crate::Error;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// Free bytes below which new blocks are refused. The database journals 64 bytes for each deleted block and
/// writes tables of 8 MiB: this suffices for some 100,000 deletions before the first of them frees anything.
pub(super) const FLOOR_BYTES: u64 = 24 << 20;
/// Size of the reserve file, in bytes: what a collection on a full disk has to work with.
const RESERVE_BYTES: u64 = 16 << 20;

/// The reserve file.
#[derive(Debug, Clone)]
pub(super) struct Reserve {
    path: PathBuf,
}

impl Reserve {
    pub(super) fn new(folder: &Path) -> Reserve {
        Reserve {
            path: folder.join("reserve"),
        }
    }

    /// Removes the reserve file if the disk has less free space than its size.
    pub(super) fn release_if_short(&self) {
        if self.room().is_some_and(|room| room < RESERVE_BYTES) {
            match std::fs::remove_file(&self.path) {
                Ok(()) => tracing::warn!(
                    path = %self.path.display(),
                    "the disk of the ipfs repository is full; the space kept in reserve is used"
                ),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::warn!(path = %self.path.display(), %error, "cannot release the disk reserve")
                }
            }
        }
    }

    /// Creates the reserve file again if there is enough room.
    pub(super) fn fill(&self) {
        let plenty = self
            .room()
            .is_some_and(|room| room > FLOOR_BYTES + 4 * RESERVE_BYTES);
        if plenty
            && !self.path.exists()
            && let Err(error) = occupy(&self.path)
        {
            // Matters only if another program fills the disk.
            tracing::debug!(path = %self.path.display(), %error, "cannot create the disk reserve");
            let _ = std::fs::remove_file(&self.path);
        }
    }

    fn room(&self) -> Option<u64> {
        self.path.parent().and_then(segments::room)
    }
}

impl Files {
    /// Returns whether there is less room than the store keeps free.
    pub(super) fn is_short_of_room(&self) -> bool {
        self.room().is_some_and(|room| room < FLOOR_BYTES)
    }

    /// Refuses to write `bytes` more if that would leave the database no room to work.
    pub(super) fn check_room(&self, bytes: u64) -> Result<(), Error> {
        match self.room() {
            Some(room) if room < FLOOR_BYTES.saturating_add(bytes) => {
                Err(write_error(&self.folder, ErrorKind::StorageFull.into()))
            }
            Some(_) | None => Ok(()),
        }
    }
}

#[cfg(target_os = "linux")]
fn occupy(path: &Path) -> io::Result<()> {
    let file = File::create(path)?;
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, RESERVE_BYTES)?;
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn occupy(path: &Path) -> io::Result<()> {
    // Zeros, because a file that is only extended occupies nothing.
    let zeros = io::repeat(0);
    io::copy(
        &mut io::Read::take(zeros, RESERVE_BYTES),
        &mut File::create(path)?,
    )
    .map(drop)
}
