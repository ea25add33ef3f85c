//! The folder around the database: its lock and its format version.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use super::error::OpenError;
use super::sync_marker;

/// Format version of everything in the folder. A release that changes the layout raises it, and reads the
/// older ones.
pub const FORMAT: u32 = 1;

const FORMAT_FILE: &str = "format";
/// Temporary name of the format file while it is written.
const FORMAT_NEW: &str = "format.new";
const LOCK_FILE: &str = "lock";
const DATABASE: &str = "db";

/// Temporary file for sorting, unlinked as soon as it is created.
pub(super) const SORTING: &str = "sorting";

/// Entries allowed in a folder of ours.
const OURS: [&str; 6] = [
    FORMAT_FILE,
    FORMAT_NEW,
    LOCK_FILE,
    DATABASE,
    SORTING,
    sync_marker::NAME,
];

/// A folder that only this process has open.
pub(super) struct Folder {
    /// Path as given to [`Folder::open`].
    pub(super) path: PathBuf,
    /// Unlocked when closed.
    _lock: File,
}

impl Folder {
    /// Creates the folder if it is missing, takes its lock and checks its format.
    pub(super) fn open(path: &Path) -> Result<Self, OpenError> {
        let io_error = |at: &Path| {
            let path = at.to_path_buf();
            move |source| OpenError::Io { path, source }
        };
        fs::create_dir_all(path).map_err(io_error(path))?;
        refuse_foreign(path)?;
        let lock = lock(path)?;
        let format = path.join(FORMAT_FILE);
        match fs::read_to_string(&format) {
            Ok(text) => check_format(path, &text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !path.join(DATABASE).exists() => {
                write_format(path).map_err(io_error(&format))?;
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => {
                return Err(damaged(path, format!("the file {FORMAT_FILE:?}: {error}")));
            }
            Err(error) => return Err(io_error(&format)(error)),
        }
        Ok(Self {
            path: path.to_path_buf(),
            _lock: lock,
        })
    }

    /// Path of the database.
    pub(super) fn database(&self) -> PathBuf {
        self.path.join(DATABASE)
    }

    /// An error for contradictory content of this folder.
    pub(super) fn damaged(&self, what: impl Into<String>) -> OpenError {
        damaged(&self.path, what.into())
    }

    /// An error for a failed operation of the operating system on this folder.
    pub(super) fn io(&self, source: io::Error) -> OpenError {
        /// Too many open files: the same number on Linux and macOS.
        const EMFILE: i32 = 24;
        let source = match source.raw_os_error() {
            Some(EMFILE) => io::Error::other(format!(
                "{source}. Raise this process's limit of open files (`ulimit -n`, `LimitNOFILE`)"
            )),
            _ => source,
        };
        OpenError::Io {
            path: self.path.clone(),
            source,
        }
    }

    /// An error for a format of a later release.
    pub(super) fn newer(&self, found: u32) -> OpenError {
        newer(&self.path, found)
    }
}

/// Returns the format of the store in `path`, supported or not; `None` without a store. Takes no lock.
///
/// # Errors
/// [`OpenError`] when the format file cannot be read, or holds no number.
pub fn format_of(path: &Path) -> Result<Option<u32>, OpenError> {
    let format = path.join(FORMAT_FILE);
    match fs::read_to_string(&format) {
        Ok(text) => match text.trim_end().parse() {
            Ok(found) => Ok(Some(found)),
            Err(_) => Err(damaged(path, format!("the file {FORMAT_FILE:?} has {text:?}"))),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(OpenError::Io { path: format, source }),
    }
}

fn damaged(folder: &Path, what: String) -> OpenError {
    OpenError::Damaged {
        folder: folder.to_path_buf(),
        what,
    }
}

fn newer(folder: &Path, found: u32) -> OpenError {
    OpenError::Newer {
        folder: folder.to_path_buf(),
        found,
        known: FORMAT,
    }
}

/// Refuses a folder with files of other programs, such as a Go peer's, before anything is written to it.
fn refuse_foreign(path: &Path) -> Result<(), OpenError> {
    let io_error = |source| OpenError::Io {
        path: path.to_path_buf(),
        source,
    };
    for file in fs::read_dir(path).map_err(io_error)? {
        let found = file.map_err(io_error)?.file_name();
        if !OURS.iter().any(|name| found == *name) {
            return Err(OpenError::Foreign {
                folder: path.to_path_buf(),
                found: found.to_string_lossy().into_owned(),
            });
        }
    }
    Ok(())
}

fn lock(folder: &Path) -> Result<File, OpenError> {
    let path = folder.join(LOCK_FILE);
    let io_error = |source| OpenError::Io {
        path: path.clone(),
        source,
    };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(io_error)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::Error(error)) => return Err(io_error(error)),
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            // The owner's id is only advice; that the file is locked is certain.
            let known = file.read_to_string(&mut pid).is_ok() && !pid.trim().is_empty();
            return Err(OpenError::Locked {
                folder: folder.to_path_buf(),
                pid: if known {
                    pid.trim().to_owned()
                } else {
                    "?".to_owned()
                },
            });
        }
    }
    let note = format!("{}\n", std::process::id());
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| file.write_all(note.as_bytes()))
        .map_err(io_error)?;
    Ok(file)
}

fn check_format(folder: &Path, text: &str) -> Result<(), OpenError> {
    match text.strip_suffix('\n').map(str::parse::<u32>) {
        Some(Ok(FORMAT)) => Ok(()),
        Some(Ok(found)) if found > FORMAT => Err(newer(folder, found)),
        Some(Ok(_) | Err(_)) | None => Err(damaged(
            folder,
            format!("the file {FORMAT_FILE:?} has {text:?}, which is no format"),
        )),
    }
}

/// Written under a temporary name first, so that a crash leaves no partial file.
fn write_format(folder: &Path) -> io::Result<()> {
    let path = folder.join(FORMAT_FILE);
    let new = folder.join(FORMAT_NEW);
    let mut file = File::create(&new)?;
    writeln!(file, "{FORMAT}")?;
    file.sync_all()?;
    fs::rename(&new, &path)?;
    File::open(folder)?.sync_all()
}
