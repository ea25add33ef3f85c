//! Reading and writing of the small files in a configuration folder.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::Path;

#[cfg(unix)]
use std::os::unix::fs::OpenOptionsExt;

use super::{ConfigError, FILE_MAX};

/// Reads a file that must exist.
pub(super) fn read_small(path: &Path) -> Result<String, ConfigError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(ConfigError::Missing(path.to_owned()));
        }
        Err(error) => return Err(ConfigError::io("read", path)(error)),
    };
    let mut text = String::new();
    file.take(FILE_MAX + 1)
        .read_to_string(&mut text)
        .map_err(ConfigError::io("read", path))?;
    if text.len() as u64 > FILE_MAX {
        return Err(ConfigError::TooLarge(path.to_owned()));
    }
    Ok(text)
}

/// Replaces a file's content atomically, also across power loss; only the owner may read it.
///
/// # Errors
/// It cannot be written; the old content is kept.
pub fn write_private(path: &Path, content: &[u8]) -> Result<(), ConfigError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{}.new", std::process::id()));
    let write = || -> std::io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        options.mode(0o600);
        let mut file = options.open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        // The rename is durable once its folder is.
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    };
    write().map_err(|error| {
        let _ = fs::remove_file(&temporary);
        ConfigError::io("write", path)(error)
    })
}
