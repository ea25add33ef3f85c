//! Damaged blocks and incomplete pins that are not mended yet, kept in the file `unmended` so that a restart
//! does not forget them: the next scrub would find them again only after weeks.
//!
//! One line for each: `block CID` or `pin CID`.

use super::repair::BrokenPins;
use crate::reader::blocking;
use crate::store::{Store, key_of};
use crate::{Cid, Error, Multihash, codec};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Name of the file.
const FILE: &str = "unmended";
/// Maximum number of lines of either kind, about 5 MiB. What exceeds it is found by the next scrub.
const LINES_MAX: usize = 1 << 16;
/// Pause between two writes of the file.
const PAUSE: Duration = Duration::from_secs(1);
/// Damaged blocks and broken pins named by a summary.
const EXAMPLES: usize = 10;

/// Damaged blocks and incomplete pins of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unmended {
    /// Damaged blocks that are not replaced yet.
    pub blocks: u64,
    /// Pins that lack blocks or have damaged ones.
    pub pins: u64,
    /// Some of them: pins first, then blocks, as CIDs of their hashes.
    pub examples: Vec<Cid>,
    /// Damaged blocks that were replaced by copies of other peers, since the start.
    pub mended_blocks: u64,
    /// Pins that are complete again, since the start.
    pub mended_pins: u64,
}

impl super::Node {
    /// Returns what was found damaged or missing and is not mended yet.
    pub fn unmended(&self) -> Unmended {
        let damage = self.inner.store.damage();
        let (pins, mended_pins, mut examples) = self.inner.broken.summary(EXAMPLES);
        let blocks = damage.len() as u64;
        if blocks > 0 && examples.len() < EXAMPLES {
            let left = EXAMPLES - examples.len();
            examples.extend(cids(damage.keys()).take(left));
        }
        Unmended {
            blocks,
            pins,
            examples,
            mended_blocks: damage.replaced_count(),
            mended_pins,
        }
    }
}

fn cids(keys: impl IntoIterator<Item = Vec<u8>>) -> impl Iterator<Item = Cid> {
    let hashes = keys
        .into_iter()
        .filter_map(|key| Multihash::from_bytes(&key).ok());
    hashes.map(|hash| Cid::new_v1(codec::RAW, hash))
}

/// Records what an earlier process found. Blocks the thread.
pub(super) fn load(folder: &Path, store: &Store, broken: &BrokenPins) -> Result<(), Error> {
    let path = folder.join(FILE);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "the known damage cannot be read");
            return Ok(());
        }
    };
    for line in text.lines().take(2 * LINES_MAX) {
        let Some((kind, cid)) = line.split_once(' ') else {
            continue;
        };
        let Ok(cid) = Cid::try_from(cid) else { continue };
        match kind {
            "block" if store.has(&cid)? => store.damage().record(&key_of(&cid)),
            "pin" if store.pin_of(&cid)?.is_some() => drop(broken.insert(cid)),
            _ => {}
        }
    }
    Ok(())
}

/// Writes the file when something changes, until the node is closed.
pub(super) async fn save_changes(
    folder: PathBuf,
    store: Store,
    broken: Arc<BrokenPins>,
    closed: CancellationToken,
) {
    let mut written = None;
    loop {
        tokio::select! {
            () = closed.cancelled() => return,
            () = store.damage().unsaved() => {}
            () = broken.changed.notified() => {}
        }
        let blocks = cids(store.damage().keys()).take(LINES_MAX);
        let pins = broken.all().into_iter().take(LINES_MAX);
        let mut lines: Vec<String> = blocks.map(|cid| format!("block {cid}\n")).collect();
        lines.extend(pins.map(|cid| format!("pin {cid}\n")));
        lines.sort_unstable();
        let text = lines.concat();
        if written.as_ref() == Some(&text) {
            continue;
        }
        let (path, content) = (folder.join(FILE), text.clone());
        match blocking(move || write(&path, &content)).await {
            Ok(()) => written = Some(text),
            Err(error) => tracing::warn!(%error, "damage of the ipfs repository is not recorded"),
        }
        tokio::select! {
            () = closed.cancelled() => return,
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    let partial = path.with_extension("partial");
    let write = || {
        if text.is_empty() {
            return match std::fs::remove_file(path) {
                Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
                Ok(()) | Err(_) => Ok(()),
            };
        }
        std::fs::write(&partial, text)?;
        std::fs::rename(&partial, path)
    };
    write().map_err(|error| Error::io(format!("writing {}", path.display()), error))
}
