//! The node's keypair, stored in the file `identity` of its folder.

use crate::Error;
use libp2p::identity::Keypair;
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::path::Path;

/// Reads the keypair, or creates one that only the file's owner can read.
pub(crate) fn load_or_create(folder: &Path) -> Result<Keypair, Error> {
    let path = folder.join("identity");
    let shown = path.display().to_string();
    match std::fs::File::open(&path) {
        Ok(mut file) => {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)
                .map_err(|error| Error::io(format!("reading {shown}"), error))?;
            Keypair::from_protobuf_encoding(&bytes).map_err(|error| {
                let advice = "restore it from a backup, or remove it to get a new peer id";
                Error::Damaged(format!("{shown} is not a private key ({error}); {advice}"))
            })
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let keypair = Keypair::generate_ed25519();
            let bytes = keypair.to_protobuf_encoding();
            let bytes = bytes.map_err(|error| Error::Damaged(format!("encoding a new key: {error}")))?;
            save_private(folder, &path, &bytes)
                .map_err(|error| Error::io(format!("writing {shown}"), error))?;
            Ok(keypair)
        }
        Err(error) => Err(Error::io(format!("reading {shown}"), error)),
    }
}

/// Saves a private key by writing a temporary file and renaming it, so that a crash leaves no partial key.
pub(crate) fn save_private(folder: &Path, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let partial = path.with_extension("partial");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    let mut file = options.open(&partial)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&partial, path)?;
    std::fs::File::open(folder)?.sync_all()
}
