//! `state cleanup`: the data folder is moved away under the Go peer's names, `raft.old.0` for the newest,
//! `raft.old.1` for the one before, and the oldest are deleted.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Moves `data` away and keeps `keep` of the folders moved away. Returns its new path; `None` when it does
/// not exist. A crash loses nothing but the oldest.
///
/// # Errors
/// A folder cannot be renamed or deleted.
pub fn move_away(data: &Path, keep: u32) -> io::Result<Option<PathBuf>> {
    if !data.try_exists()? {
        return Ok(None);
    }
    let name = |number: u32| {
        let mut name = data.file_name().unwrap_or_default().to_owned();
        name.push(format!(".old.{number}"));
        data.with_file_name(name)
    };
    // Each folder moves on by one, up to the first free number or over the oldest.
    let last = (0..keep.max(1) - 1)
        .find(|number| !name(*number).exists())
        .unwrap_or(keep.max(1) - 1);
    if name(last).exists() {
        fs::remove_dir_all(name(last))?;
    }
    for number in (0..last).rev() {
        fs::rename(name(number), name(number + 1))?;
    }
    fs::rename(data, name(0))?;
    let parent = data.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(Some(name(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_folders_are_kept_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("raft");
        assert_eq!(move_away(&data, 2).unwrap(), None);
        for number in 1..=4 {
            fs::create_dir(&data).unwrap();
            fs::write(data.join("which"), number.to_string()).unwrap();
            let moved = move_away(&data, 2).unwrap();
            assert_eq!(moved, Some(folder.path().join("raft.old.0")));
            assert!(!data.exists());
        }
        let which = |name: &str| fs::read_to_string(folder.path().join(name).join("which")).unwrap();
        assert_eq!(
            (which("raft.old.0"), which("raft.old.1")),
            ("4".to_owned(), "3".to_owned())
        );
        assert!(!folder.path().join("raft.old.2").exists());
    }
}
