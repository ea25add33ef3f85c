//! `cluster.lock`: one process per configuration folder.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use anyhow::Context;

/// Name of the file, as in the Go peer.
const LOCK_FILE: &str = "cluster.lock";

/// An exclusive lock on a folder. The system releases it when the process dies.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Locks `folder`. The error has the process that holds the lock.
    pub(super) fn take(folder: &Path) -> anyhow::Result<Self> {
        match Self::attempt(folder)? {
            Ok(lock) => Ok(lock),
            Err(holder) => anyhow::bail!(
                "{holder} is using {}: stop it first, or give this peer its own folder with --config",
                folder.display()
            ),
        }
    }

    /// Locks `folder`; `None` when another process holds the lock.
    pub(super) fn try_take(folder: &Path) -> anyhow::Result<Option<Self>> {
        Ok(Self::attempt(folder)?.ok())
    }

    /// Tries to lock the folder. Returns the lock, or a description of its holder.
    fn attempt(folder: &Path) -> anyhow::Result<Result<Self, String>> {
        let path = folder.join(LOCK_FILE);
        let mut options = OpenOptions::new();
        let mut file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // It may be about to write its id.
                let _ = Read::by_ref(&mut file).take(20).read_to_string(&mut holder);
                let holder = match holder.trim() {
                    "" => "another process".to_owned(),
                    id => format!("the process with id {id}"),
                };
                return Ok(Err(holder));
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        file.set_len(0)?;
        file.seek(SeekFrom::Start(0))?;
        writeln!(file, "{}", std::process::id())?;
        Ok(Ok(Self { _file: file }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_locked_by_one_process_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let first = Lock::take(folder.path()).unwrap();
        let refused = Lock::take(folder.path()).unwrap_err().to_string();
        let holder = format!("the process with id {} is using", std::process::id());
        assert!(refused.starts_with(&holder), "{refused}");
        drop(first);
        // A program that another test starts at this moment holds all files of this process, until it is
        // executed.
        let began = std::time::Instant::now();
        while let Err(error) = Lock::take(folder.path()) {
            assert!(began.elapsed().as_secs() < 60, "{error}");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}
