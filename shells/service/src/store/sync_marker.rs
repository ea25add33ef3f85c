//! A file beside the database with the number of durable batches.
//!
//! A fjall journal with damage near its end looks like one torn by a power cut: it opens with everything
//! after the damage gone, and the remainder is consistent (fjall's issue 311). For a voter that is fatal,
//! since it forgets its promises. So every sync is followed by a note in this file of the number of durable
//! batches; a database with fewer is refused.
//!
//! The note is written after the sync, and synced itself only at intervals: after a power cut it may be
//! old, which weakens the check, but it never claims too much.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use xxhash_rust::xxh3::xxh3_64;

/// Name of the file.
pub(super) const NAME: &str = "synced";

/// Bytes of a note: number, checksum. Two places, a sector apart, are written alternately, so that a torn
/// write spares the other one.
const NOTE: usize = 16;
const PLACES: [u64; 2] = [0, 512];

/// Maximum age of the marker on the disk while batches are synced. Syncing it once a second costs nothing.
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// The open file.
pub(super) struct SyncMarker {
    file: File,
    next_place: usize,
    synced_at: Option<Instant>,
}

impl SyncMarker {
    /// Opens or creates the file, and reads the number of batches that are durable at least; `None` when
    /// the file holds no complete note.
    pub(super) fn open(folder: &Path) -> io::Result<(Self, Option<u64>)> {
        let path = folder.join(NAME);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)?;
        let noted = PLACES
            .iter()
            .filter_map(|place| read_note(&mut file, *place))
            .max();
        let marker = Self {
            file,
            next_place: 0,
            synced_at: None,
        };
        Ok((marker, noted))
    }

    /// Writes that `seq` batches are durable. They must be.
    pub(super) fn note(&mut self, seq: u64) -> io::Result<()> {
        let mut note = [0; NOTE];
        note[..8].copy_from_slice(&seq.to_le_bytes());
        note[8..].copy_from_slice(&xxh3_64(&seq.to_le_bytes()).to_le_bytes());
        self.file.seek(SeekFrom::Start(PLACES[self.next_place]))?;
        self.file.write_all(&note)?;
        self.next_place = 1 - self.next_place;
        if self.synced_at.is_none_or(|at| at.elapsed() >= SYNC_EVERY) {
            self.sync()?;
        }
        Ok(())
    }

    /// Makes the note survive power loss.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        self.synced_at = Some(Instant::now());
        Ok(())
    }
}

fn read_note(file: &mut File, place: u64) -> Option<u64> {
    let mut note = [0; NOTE];
    file.seek(SeekFrom::Start(place)).ok()?;
    file.read_exact(&mut note).ok()?;
    let (seq, sum) = note.split_at(8);
    let sum: [u8; 8] = sum.try_into().ok()?;
    let whole = xxh3_64(seq) == u64::from_le_bytes(sum);
    whole.then(|| u64::from_le_bytes(seq.try_into().unwrap_or_default()))
}
