//! The export format of the Go peer: JSON, one pin per line.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail};

use super::Progress;
use crate::cluster::convert;
use crate::store::Listing;

/// Bytes gathered for one write.
const BUFFER: usize = 256 << 10;

/// Result of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exported {
    /// Number of pins.
    pub pins: u64,
}

/// Writes all pins of `listing`, in the order of their CIDs. Gives up at the `deadline`, if there is one.
///
/// # Errors
/// The database cannot be read, `out` cannot be written, or the deadline passes.
pub fn export(listing: &Listing, out: impl Write, deadline: Option<Instant>) -> anyhow::Result<Exported> {
    let mut out = BufWriter::with_capacity(BUFFER, out);
    let total = listing.applied()?.pins;
    let mut progress = Progress::new("exported", Some(total));
    for pin in listing.pins(None) {
        cluster_http::json::write(&mut out, &convert::whole_pin(&pin?))?;
        out.write_all(b"\n")?;
        progress.one_more();
        let checks = progress.count.is_multiple_of(1024);
        if checks && deadline.is_some_and(|deadline| Instant::now() > deadline) {
            bail!(
                "only {} of {total} pins were written in the time allowed",
                progress.count
            );
        }
    }
    out.flush()?;
    Ok(Exported { pins: progress.count })
}

/// Fills the file at `path` by `write`, atomically, readable by its owner only. Anything but a regular
/// file, such as a pipe, is written directly.
///
/// # Errors
/// The error of `write`, or the file cannot be written.
pub fn to_file<T>(path: &Path, write: impl FnOnce(&mut File) -> anyhow::Result<T>) -> anyhow::Result<T> {
    let special = fs::metadata(path).is_ok_and(|there| !there.is_file());
    if special {
        let mut file = OpenOptions::new().write(true).open(path);
        let file = file.as_mut().map_err(|error| named(path, error))?;
        return write(file).with_context(|| path.display().to_string());
    }
    let new = unfinished(path);
    let written = write_new(&new, write).and_then(|done| {
        fs::rename(&new, path)?;
        sync_folder(path)?;
        Ok(done)
    });
    if written.is_err() {
        // The partial file is of no use; it may not exist.
        let _ = fs::remove_file(&new);
    }
    written.with_context(|| path.display().to_string())
}

fn write_new<T>(new: &Path, write: impl FnOnce(&mut File) -> anyhow::Result<T>) -> anyhow::Result<T> {
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(new)?;
    let done = write(&mut file)?;
    file.sync_all()?;
    Ok(done)
}

/// Returns the temporary name of an incomplete file.
pub(super) fn unfinished(path: &Path) -> PathBuf {
    let mut name: OsString = path.file_name().unwrap_or_default().to_owned();
    name.push(".unfinished");
    path.with_file_name(name)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

fn named(path: &Path, error: &io::Error) -> anyhow::Error {
    anyhow::anyhow!("{}: {error}", path.display())
}
