//! The folder `backups/`: exports of the pinset, of which the newest are kept.
//!
//! File names are `pins-<date>-<cluster>-<log position>.json`. `state import` restores them.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cluster_core::Members;

use super::export::{export, to_file};
use crate::config::Folder;
use crate::store::Reader;

/// Name of the folder in the configuration folder, as in Go ipfs-cluster 0.0.12.
pub const FOLDER: &str = "backups";

/// Time limit of the backup at a shutdown. A million pins take some seconds; service managers kill a
/// process 90 seconds after the signal.
const SHUTDOWN_MAX: Duration = Duration::from_secs(60);

const PREFIX: &str = "pins-";
const SUFFIX: &str = ".json";

/// Writes a backup of the store, and deletes the oldest beyond `consensus.raft.backups_rotate`. `None` when
/// there is nothing to save, or the newest backup is of the same state. Gives up after `time`, if there is
/// one.
///
/// # Errors
/// It cannot be written; existing backups stay.
pub fn save(folder: &Folder, reader: &Reader, time: Option<Duration>) -> anyhow::Result<Option<PathBuf>> {
    let listing = reader.listing();
    let applied = listing.applied()?;
    let members = listing.members()?.filter(|_| applied.pins > 0);
    let Some(members) = members else {
        return Ok(None);
    };
    let backups = folder.path.join(FOLDER);
    make(&backups)?;
    let state = state_name(&members, applied.index);
    let newest = list(&backups)?.pop();
    if newest.as_ref().is_some_and(|newest| newest.ends_with(&state)) {
        return Ok(None);
    }
    let date = jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S");
    let path = backups.join(format!("{PREFIX}{date}{state}"));
    let deadline = time.map(|time| Instant::now() + time);
    to_file(&path, |file| export(&listing, file, deadline))?;
    // The log grows without changes of the pinset: each start adds an entry to it.
    if let Some(newest) = newest
        && is_same(&backups.join(newest), &path)?
    {
        fs::remove_file(&path)?;
        return Ok(None);
    }
    rotate(&backups, folder.config.consensus.raft.backups_rotate)?;
    Ok(Some(path))
}

/// Saves a backup while the daemon ends. Failure is only logged: the state itself is safe.
pub fn at_shutdown(folder: &Folder, reader: &Reader) {
    match save(folder, reader, Some(SHUTDOWN_MAX)) {
        Ok(Some(path)) => tracing::info!("the state is saved in {}", path.display()),
        Ok(None) => {}
        Err(error) => tracing::error!("no backup of the state was made: {error:#}"),
    }
}

/// Returns the part of a file name that identifies the state.
fn state_name(members: &Members, index: u64) -> String {
    let cluster = members.cluster.to_string();
    format!("-{}-{index}{SUFFIX}", &cluster[..8])
}

/// Lists the backups, oldest first.
fn list(backups: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(backups)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with(PREFIX) && name.ends_with(SUFFIX) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Returns whether two files have the same content.
fn is_same(one: &Path, other: &Path) -> io::Result<bool> {
    let (one, other) = (fs::File::open(one)?, fs::File::open(other)?);
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut one, mut other) = (BufReader::new(one), BufReader::new(other));
    loop {
        let (left, right) = (one.fill_buf()?, other.fill_buf()?);
        let length = left.len().min(right.len());
        if length == 0 {
            return Ok(left.len() == right.len());
        }
        if left[..length] != right[..length] {
            return Ok(false);
        }
        one.consume(length);
        other.consume(length);
    }
}

/// Deletes the oldest backups. Files with other names are not touched.
fn rotate(backups: &Path, keep: u32) -> io::Result<()> {
    let names = list(backups)?;
    let surplus = names.len().saturating_sub(keep as usize);
    for name in &names[..surplus] {
        fs::remove_file(backups.join(name))?;
    }
    Ok(())
}

fn make(backups: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(backups)
}

/// Returns the newest state that Go ipfs-cluster 0.0.12 saved: its file names are dates, `20060102_15:04:05`.
///
/// # Errors
/// The folder cannot be read.
pub fn newest_of_0_0_12(folder: &Path) -> io::Result<Option<PathBuf>> {
    let backups = folder.join(FOLDER);
    if !backups.is_dir() {
        return Ok(None);
    }
    let mut newest: Option<String> = None;
    for entry in fs::read_dir(&backups)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if is_date(&name) && newest.as_ref().is_none_or(|newest| *newest < name) {
            newest = Some(name);
        }
    }
    Ok(newest.map(|name| backups.join(name)))
}

fn is_date(name: &str) -> bool {
    let shape = "dddddddd_dd:dd:dd";
    name.len() == shape.len()
        && name.bytes().zip(shape.bytes()).all(|(byte, shape)| match shape {
            b'd' => byte.is_ascii_digit(),
            other => byte == other,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_backups_are_kept_and_other_files_stay() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in [
            "pins-20260101-000000-ab-1.json",
            "pins-20260102-000000-ab-2.json",
            "mine.json",
        ] {
            fs::write(at(name), "").unwrap();
        }
        rotate(folder.path(), 1).unwrap();
        assert!(!at("pins-20260101-000000-ab-1.json").exists());
        assert!(at("pins-20260102-000000-ab-2.json").exists() && at("mine.json").exists());
    }

    #[test]
    fn the_newest_state_of_0_0_12_is_found_by_its_date() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(newest_of_0_0_12(folder.path()).unwrap(), None);
        let backups = folder.path().join(FOLDER);
        make(&backups).unwrap();
        for name in [
            "20170630_10:00:00",
            "20170701_09:00:00",
            "zzz",
            "pins-20260101-000000-ab-1.json",
        ] {
            fs::write(backups.join(name), "").unwrap();
        }
        let newest = newest_of_0_0_12(folder.path()).unwrap();
        assert_eq!(newest, Some(backups.join("20170701_09:00:00")));
    }
}
