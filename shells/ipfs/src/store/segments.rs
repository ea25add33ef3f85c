//! Segment files, which hold the bytes of large blocks. They are written from front to back and never
//! changed, so that a block's bytes are written to disk once. The database records where each block is.

use super::lock;
use crate::Error;
use bytes::{Bytes, BytesMut};
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// Size limit of a segment, in bytes; a block that would exceed it starts another. Small enough to be
/// rewritten in less than a second when most of it is dead, large enough that a full disk has only thousands
/// of files.
pub(super) const SEGMENT_BYTES: u64 = 128 << 20;
/// Length of a segment's header: [`MAGIC`] and the segment's number.
pub(super) const HEADER_BYTES: u64 = 16;
/// Magic number of segments, including the layout version.
const MAGIC: [u8; 8] = *b"ipfsseg1";
/// Segments kept open for reading; far below the usual limit of 1024 open files.
const OPEN_MAX: usize = 64;

/// Allocation unit of file systems, in bytes.
const PAGE: u64 = 4096;
/// Unit of `st_blocks`, on every file system.
const STAT_BLOCK: u64 = 512;

/// Place of a block's bytes, and their checksum.
///
/// A CRC rather than the hash: every peer that receives a block checks the hash anyhow, and a CRC detects
/// faults of disks at a tenth of the cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) segment: u32,
    pub(super) offset: u32,
    pub(super) length: u32,
    pub(super) crc: u32,
}

/// Result of reading a place.
#[derive(Debug)]
pub(super) enum Read {
    Data(Bytes),
    /// The segment does not exist (any more): look the block up again.
    Gone,
    /// The bytes are not those written; the text says where and why.
    Damaged(String),
}

/// The folder of segments.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) folder: PathBuf,
    open: Mutex<OpenFiles>,
}

#[derive(Debug, Default)]
struct OpenFiles {
    /// Open files, with the time of the last use.
    files: HashMap<u32, (Arc<File>, u64)>,
    clock: u64,
}

impl Files {
    /// Creates the folder if it is missing.
    pub(super) fn new(folder: PathBuf) -> Result<Files, Error> {
        let made = || {
            std::fs::create_dir_all(&folder)?;
            folder.parent().map_or(Ok(()), sync_folder)
        };
        made().map_err(|error| Error::io(format!("making {}", folder.display()), error))?;
        Ok(Files {
            folder,
            open: Mutex::default(),
        })
    }

    pub(super) fn path(&self, segment: u32) -> PathBuf {
        self.folder.join(format!("{segment:010}.seg"))
    }

    /// Returns the numbers of the existing segments. Other files in the folder are ignored.
    pub(super) fn list(&self) -> Result<Vec<u32>, Error> {
        let read = || -> io::Result<Vec<u32>> {
            let mut numbers = Vec::new();
            for entry in std::fs::read_dir(&self.folder)? {
                let name = entry?.file_name();
                let number = name.to_str().and_then(|name| name.strip_suffix(".seg"));
                numbers.extend(number.and_then(|number| number.parse::<u32>().ok()));
            }
            Ok(numbers)
        };
        read().map_err(|error| Error::io(format!("listing {}", self.folder.display()), error))
    }

    /// Creates a segment; as a file it is durable, still without blocks.
    pub(super) fn create(&self, segment: u32) -> Result<Arc<File>, Error> {
        let path = self.path(segment);
        let made = || -> io::Result<File> {
            let mut options = OpenOptions::new();
            let file = options.read(true).write(true).create_new(true).open(&path)?;
            file.write_all_at(&header(segment), 0)?;
            file.sync_data()?;
            sync_folder(&self.folder)?;
            Ok(file)
        };
        match made() {
            Ok(file) => {
                let file = Arc::new(file);
                self.remember(segment, &file);
                Ok(file)
            }
            Err(error) => {
                // Remove it, or a later attempt would fail.
                let _ = std::fs::remove_file(&path);
                Err(write_error(&path, error))
            }
        }
    }

    /// Opens a segment for appending at `end`, truncating what a crash left behind it.
    pub(super) fn resume(&self, segment: u32, end: u64) -> Result<Arc<File>, Error> {
        let path = self.path(segment);
        let opened = || -> io::Result<File> {
            let file = OpenOptions::new().read(true).write(true).open(&path)?;
            file.set_len(end)?;
            Ok(file)
        };
        let file =
            Arc::new(opened().map_err(|error| Error::io(format!("opening {}", path.display()), error))?);
        self.remember(segment, &file);
        Ok(file)
    }

    /// Checks that a segment is valid and has at least `end` bytes; the inner error describes the damage.
    ///
    /// # Errors
    /// The operating system refuses to open the file, which does not indicate damage.
    pub(super) fn check(&self, segment: u32, end: u64) -> Result<Result<(), String>, Error> {
        let path = self.path(segment);
        let name = path.display();
        let refused = |error| Error::io(format!("opening {name}"), error);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Ok(Err(format!("segment {name}: {error}")));
            }
            Err(error) => return Err(refused(error)),
        };
        let mut found = [0; HEADER_BYTES as usize];
        if file.read_exact_at(&mut found, 0).is_err() || found != header(segment) {
            return Ok(Err(format!("{name} is not segment {segment} of this format")));
        }
        let length = file.metadata().map_err(refused)?.len();
        if length < end {
            return Ok(Err(format!("segment {name} has {length} bytes instead of {end}")));
        }
        Ok(Ok(()))
    }

    /// Reads and checks a block's bytes.
    pub(super) fn read(&self, place: &Place) -> Result<Read, Error> {
        let path = || self.path(place.segment).display().to_string();
        let file = match self.file(place.segment) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Read::Gone),
            Err(error) => return Err(Error::io(format!("opening {}", path()), error)),
        };
        let damaged = |why: &str| {
            Ok(Read::Damaged(format!(
                "{} at byte {}: {why}",
                path(),
                place.offset
            )))
        };
        let mut data = BytesMut::zeroed(place.length as usize);
        match file.read_exact_at(&mut data, u64::from(place.offset)) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return damaged("it is cut short"),
            // A bad sector, or damage that the file system has found by its own checksums.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => {
                return damaged(&error.to_string());
            }
            Err(error) => return Err(Error::io(format!("reading {}", path()), error)),
        }
        if crc32fast::hash(&data) != place.crc {
            return damaged("the checksum differs");
        }
        Ok(Read::Data(data.freeze()))
    }

    /// Returns the bytes of disk that a segment occupies: less than its length if it has holes.
    pub(super) fn allocated(&self, segment: u32) -> io::Result<u64> {
        let data = std::fs::metadata(self.path(segment))?;
        Ok(data.blocks().saturating_mul(STAT_BLOCK))
    }

    /// Returns the bytes of disk that all segments occupy.
    pub(super) fn allocated_all(&self) -> Result<u64, Error> {
        // A segment removed since the listing occupies nothing.
        let each = self
            .list()?
            .into_iter()
            .map(|segment| self.allocated(segment).unwrap_or(0));
        Ok(each.sum())
    }

    /// Frees the disk under whole pages of a range without live blocks. Needs no free space, keeps the file's
    /// length, and may be repeated. Returns `false` if the file system does not support holes.
    pub(super) fn punch_hole(&self, segment: u32, range: Range<u64>) -> Result<bool, Error> {
        let (start, end) = (range.start.next_multiple_of(PAGE), range.end / PAGE * PAGE);
        if start >= end {
            return Ok(true);
        }
        let path = self.path(segment);
        let punched = OpenOptions::new()
            .write(true)
            .open(&path)
            .and_then(|file| deallocate(&file, start, end));
        match punched {
            Ok(()) => Ok(true),
            // It was removed in the meantime, which frees all of it.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
            Err(error) if error.kind() == ErrorKind::Unsupported => Ok(false),
            Err(error) => Err(Error::io(format!("freeing a part of {}", path.display()), error)),
        }
    }

    /// Returns the free bytes of the disk for this process; `None` if the file system does not report them.
    pub(super) fn room(&self) -> Option<u64> {
        room(&self.folder)
    }

    /// Deletes a segment; readers that have it open can still read.
    pub(super) fn remove(&self, segment: u32) {
        lock(&self.open).files.remove(&segment);
        let path = self.path(segment);
        if let Err(error) = std::fs::remove_file(&path) {
            // The next opening of the repository removes it.
            tracing::warn!(path = %path.display(), %error, "a dead segment could not be removed");
        }
    }

    fn file(&self, segment: u32) -> io::Result<Arc<File>> {
        {
            let mut open = lock(&self.open);
            open.clock += 1;
            let now = open.clock;
            if let Some((file, used)) = open.files.get_mut(&segment) {
                *used = now;
                return Ok(file.clone());
            }
        }
        let file = Arc::new(File::open(self.path(segment))?);
        self.remember(segment, &file);
        Ok(file)
    }

    fn remember(&self, segment: u32, file: &Arc<File>) {
        let mut open = lock(&self.open);
        open.clock += 1;
        let now = open.clock;
        if open.files.len() >= OPEN_MAX
            && let Some(oldest) = open
                .files
                .iter()
                .min_by_key(|(_, (_, used))| *used)
                .map(|(number, _)| *number)
        {
            open.files.remove(&oldest);
        }
        open.files.insert(segment, (file.clone(), now));
    }
}

/// Returns the free bytes of the disk under `folder` for this process; `None` if the file system does not
/// report them.
pub(super) fn room(folder: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(folder)
        .ok()
        .filter(|disk| disk.f_blocks > 0)?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(target_os = "linux")]
fn deallocate(file: &File, start: u64, end: u64) -> io::Result<()> {
    use rustix::fs::FallocateFlags;
    let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    Ok(rustix::fs::fallocate(file, mode, start, end - start)?)
}

#[cfg(not(target_os = "linux"))]
fn deallocate(_: &File, _: u64, _: u64) -> io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}

fn header(segment: u32) -> [u8; HEADER_BYTES as usize] {
    let mut header = [0; HEADER_BYTES as usize];
    let (magic, number) = header.split_at_mut(MAGIC.len());
    magic.copy_from_slice(&MAGIC);
    number.copy_from_slice(&u64::from(segment).to_be_bytes());
    header
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Converts a failed write; a full disk gets a text that says what to do.
pub(super) fn write_error(path: &Path, error: io::Error) -> Error {
    if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) {
        let what = format!(
            "the disk of the ipfs repository is full (writing {}); free space on it or collect garbage",
            path.display()
        );
        return Error::io(what, error);
    }
    Error::io(format!("writing {}", path.display()), error)
}
