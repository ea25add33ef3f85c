//! Options of `add` that determine CIDs. Their defaults are Kubo's.

use crate::{Error, hash};
use cid::Version;
use std::str::FromStr;

/// Method of splitting content into chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chunker {
    /// Chunks of this many bytes, 1 to [`Chunker::SIZE_MAX`]. Kubo's `size-N`.
    Size(usize),
    /// Cuts where the lower bits of the Rabin fingerprint of the last 16 bytes are 0. Kubo's
    /// `rabin-MIN-AVG-MAX`.
    Rabin {
        /// Minimum length of a chunk, at least [`Chunker::RABIN_MIN`] bytes.
        min: usize,
        /// Approximate average length of a chunk, in bytes.
        average: usize,
        /// Maximum length of a chunk, at most [`Chunker::SIZE_MAX`] bytes.
        max: usize,
    },
    /// Cuts where the lower bits of the buzhash of the last 32 bytes are 0: chunks of 128 to 512 KiB.
    Buzhash,
}

impl Chunker {
    /// Maximum chunk size, in bytes: in its envelope it still fits a bitswap block of 2 MiB.
    pub const SIZE_MAX: usize = 2_096_896;
    /// Window of the Rabin fingerprint, in bytes: no chunk is shorter.
    pub const RABIN_MIN: usize = 16;
    /// Kubo's default size, in bytes, and the average of its `rabin`.
    const DEFAULT_SIZE: usize = 262_144;

    /// Refuses parameters that cannot be used for chunking.
    pub(super) fn check(self) -> Result<(), Error> {
        match self {
            Chunker::Size(1..=Chunker::SIZE_MAX) | Chunker::Buzhash => Ok(()),
            Chunker::Size(size) => Err(Error::invalid(format!(
                "chunk size {size} is outside 1 to {} bytes",
                Chunker::SIZE_MAX
            ))),
            Chunker::Rabin { min, average, max } => {
                if min < Chunker::RABIN_MIN {
                    return Err(Error::invalid(format!(
                        "rabin min {min} is below {} bytes",
                        Chunker::RABIN_MIN
                    )));
                }
                if min >= average {
                    return Err(Error::invalid("rabin min must be smaller than its average"));
                }
                if average >= max {
                    return Err(Error::invalid("rabin average must be smaller than its max"));
                }
                if max > Chunker::SIZE_MAX {
                    return Err(Error::invalid(format!(
                        "rabin max {max} exceeds the longest chunk of {} bytes",
                        Chunker::SIZE_MAX
                    )));
                }
                Ok(())
            }
        }
    }

    /// Returns a Rabin chunker with Kubo's bounds for an average.
    fn rabin(average: usize) -> Chunker {
        Chunker::Rabin {
            min: average / 3,
            average,
            max: average.saturating_add(average / 2),
        }
    }
}

impl FromStr for Chunker {
    type Err = Error;

    /// Parses Kubo's names: `size-N`, `rabin`, `rabin-AVG`, `rabin-MIN-AVG-MAX`, `buzhash`.
    fn from_str(text: &str) -> Result<Chunker, Error> {
        let unknown = || Error::invalid(format!("unrecognized chunker option: {text}"));
        let number = |part: &str| part.parse::<usize>().map_err(|_| unknown());
        // The numbers of `rabin` may be labelled.
        let labelled = |part: &str, label: &str| {
            let (before, value) = part.split_once(':').unwrap_or((label, part));
            if before == label {
                number(value)
            } else {
                Err(unknown())
            }
        };
        let parts: Vec<&str> = text.split('-').collect();
        let chunker = match parts.as_slice() {
            [""] | ["default"] => Chunker::Size(Chunker::DEFAULT_SIZE),
            ["size", size] => Chunker::Size(number(size)?),
            ["rabin"] => Chunker::rabin(Chunker::DEFAULT_SIZE),
            ["rabin", average] => Chunker::rabin(number(average)?),
            ["rabin", min, average, max] => Chunker::Rabin {
                min: labelled(min, "min")?,
                average: labelled(average, "avg")?,
                max: labelled(max, "max")?,
            },
            ["buzhash", ..] => Chunker::Buzhash,
            _ => return Err(unknown()),
        };
        chunker.check()?;
        Ok(chunker)
    }
}

/// Multihash code of a hash function for new blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashKind(u64);

impl HashKind {
    /// SHA-256, the only function of CIDv0.
    pub const SHA2_256: HashKind = HashKind(0x12);
    /// SHA-512, with a digest of 64 bytes.
    pub const SHA2_512: HashKind = HashKind(0x13);
    /// BLAKE2b with a digest of 32 bytes.
    pub const BLAKE2B_256: HashKind = HashKind(0xb220);

    /// Returns the function with this multihash code, which must be one that blocks can be verified with.
    pub(crate) fn from_code(code: u64) -> HashKind {
        HashKind(code)
    }

    /// Returns the multihash code.
    pub fn code(self) -> u64 {
        self.0
    }
}

impl Default for HashKind {
    fn default() -> HashKind {
        HashKind::SHA2_256
    }
}

impl FromStr for HashKind {
    type Err = Error;

    /// Parses the name of a hash function that Kubo's `add` supports.
    fn from_str(text: &str) -> Result<HashKind, Error> {
        let name = text.to_ascii_lowercase();
        if name.is_empty() {
            return Ok(HashKind::default());
        }
        match hash::code_by_name(&name) {
            Some(code) => Ok(HashKind(code)),
            None => Err(Error::invalid(format!("unrecognized hash function: {name:?}"))),
        }
    }
}

/// Shape of a file's tree.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Layout {
    /// All leaves at the same depth.
    #[default]
    Balanced,
    /// First leaves near the root, for reading from the start.
    Trickle,
}

/// Estimate of a directory's size, used for deciding whether to shard it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HamtSize {
    /// Size of all names and CIDs.
    #[default]
    Links,
    /// Size of the directory's block.
    Block,
}

/// Permissions and modification time, recorded only if given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Lower 12 bits of a Unix mode: permissions, setuid, setgid, sticky. 0 counts as not given.
    pub mode: Option<u32>,
    /// Seconds since 1970, and nanoseconds.
    pub mtime: Option<(i64, u32)>,
}

/// Go's setuid and setgid bits, 12 above those of Unix.
const GO_SET_ID: u32 = 0o60_000_000;
/// Go's sticky bit, 11 above that of Unix.
const GO_STICKY: u32 = 0o4_000_000;

/// Converts Go's `os.FileMode`, which Kubo's clients send, to a Unix mode.
pub fn mode_from_go(mode: u32) -> u32 {
    (mode & GO_SET_ID) >> 12 | (mode & GO_STICKY) >> 11 | mode & 0o777
}

/// Converts a Unix mode to Go's `os.FileMode`, without the kind of file.
pub fn mode_to_go(mode: u32) -> u32 {
    mode << 12 & GO_SET_ID | mode << 11 & GO_STICKY | mode & 0o777
}

/// Options of one upload. [`AddOptions::default`] is Kubo's default profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddOptions {
    /// CID version. `None`: 0, or 1 if the hash function requires it.
    pub cid_version: Option<Version>,
    /// Whether leaves are raw blocks, without an envelope. `None`: the default of the CID version.
    pub raw_leaves: Option<bool>,
    /// Method of splitting content into chunks.
    pub chunker: Chunker,
    /// Hash function of the CIDs.
    pub hash: HashKind,
    /// Shape of files.
    pub layout: Layout,
    /// Maximum size of blocks inlined into their CID, in bytes (at most 128). `None`: no inlining.
    pub inline: Option<usize>,
    /// Maximum number of links in a node of a file.
    pub max_file_links: usize,
    /// Maximum number of links in a directory before it is sharded. 0: unlimited.
    pub max_directory_links: usize,
    /// Links per node of a sharded directory: a power of two, 8 to 1024.
    pub hamt_fanout: usize,
    /// Estimated size of a directory above which it is sharded, in bytes.
    pub hamt_threshold: u64,
    /// Method of estimating that size.
    pub hamt_size: HamtSize,
    /// Whether to wrap everything in one more directory.
    pub wrap: bool,
    /// Default metadata of files, links and directories.
    pub meta: Metadata,
    /// Whether the metadata given with an entry is recorded. Excludes raw leaves.
    pub preserve: bool,
}

impl Default for AddOptions {
    fn default() -> AddOptions {
        AddOptions {
            cid_version: None,
            raw_leaves: None,
            chunker: Chunker::Size(Chunker::DEFAULT_SIZE),
            hash: HashKind::default(),
            layout: Layout::Balanced,
            inline: None,
            max_file_links: 174,
            max_directory_links: 0,
            hamt_fanout: 256,
            hamt_threshold: 262_144,
            hamt_size: HamtSize::Links,
            wrap: false,
            meta: Metadata::default(),
            preserve: false,
        }
    }
}
