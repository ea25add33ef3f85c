//! The options of `add` that decide a CID, and their defaults, which are Kubo's.

use crate::{Error, hash};
use cid::Version;
use std::str::FromStr;

/// How the content is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chunker {
    /// Pieces of this many bytes, 1 to [`Chunker::SIZE_MAX`]. Kubo's `size-N`.
    Size(usize),
    /// Where the Rabin fingerprint of the last 16 bytes is 0 in its lower bits. Kubo's `rabin-MIN-AVG-MAX`.
    Rabin {
        /// The shortest chunk, at least [`Chunker::RABIN_MIN`] bytes.
        min: usize,
        /// About the usual length, bytes.
        average: usize,
        /// The longest chunk, at most [`Chunker::SIZE_MAX`] bytes.
        max: usize,
    },
    /// Where the buzhash of the last 32 bytes is 0 in its lower bits: 128 to 512 KiB.
    Buzhash,
}

impl Chunker {
    /// The largest piece: with its envelope it still fits a bitswap block of 2 MiB.
    pub const SIZE_MAX: usize = 2_096_896;
    /// Bytes that a Rabin fingerprint covers: no chunk is shorter.
    pub const RABIN_MIN: usize = 16;
    /// Kubo's default size, bytes, and the average of its `rabin`.
    const DEFAULT_SIZE: usize = 262_144;

    /// Refuses what no content can be cut by.
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

    /// Kubo's bounds for an average.
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

    /// Reads Kubo's names: `size-N`, `rabin`, `rabin-AVG`, `rabin-MIN-AVG-MAX`, `buzhash`.
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

/// A hash function for new blocks, by its multihash code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashKind(u64);

impl HashKind {
    /// SHA-256, the only one that CIDv0 has.
    pub const SHA2_256: HashKind = HashKind(0x12);
    /// SHA-512.
    pub const SHA2_512: HashKind = HashKind(0x13);
    /// BLAKE2b, 256 bits.
    pub const BLAKE2B_256: HashKind = HashKind(0xb220);

    /// The multihash code.
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

    /// Reads the name of a hash function that Kubo adds with.
    fn from_str(text: &str) -> Result<HashKind, Error> {
        let name = text.to_ascii_lowercase();
        if name.is_empty() {
            return Ok(HashKind::default());
        }
        match hash::named(&name) {
            Some(code) => Ok(HashKind(code)),
            None => Err(Error::invalid(format!("unrecognized hash function: {name:?}"))),
        }
    }
}

/// The shape of a file's tree.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Layout {
    /// All leaves at the same depth.
    #[default]
    Balanced,
    /// Leaves near the root first, for reading from the start.
    Trickle,
}

/// How the size of a directory is estimated when deciding whether to shard it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HamtSize {
    /// Bytes of all names and CIDs.
    #[default]
    Links,
    /// Bytes of the directory's block.
    Block,
}

/// Permissions and time of change, recorded only if given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Metadata {
    /// The lower 12 bits of a Unix mode: permissions, setuid, setgid, sticky. 0 counts as not given.
    pub mode: Option<u32>,
    /// Seconds since 1970 and nanoseconds.
    pub mtime: Option<(i64, u32)>,
}

/// Go's setuid and setgid bits, which are 12 above those of Unix.
const GO_SET_ID: u32 = 0o60_000_000;
/// Go's sticky bit, which is 11 above that of Unix.
const GO_STICKY: u32 = 0o4_000_000;

/// The Unix mode of Go's `os.FileMode`, which is what Kubo's clients send.
pub fn mode_from_go(mode: u32) -> u32 {
    (mode & GO_SET_ID) >> 12 | (mode & GO_STICKY) >> 11 | mode & 0o777
}

/// Go's `os.FileMode` for a Unix mode, without the kind of file.
pub fn mode_to_go(mode: u32) -> u32 {
    mode << 12 & GO_SET_ID | mode << 11 & GO_STICKY | mode & 0o777
}

/// The options of one upload. [`AddOptions::default`] is Kubo's default profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddOptions {
    /// `None`: 0, or 1 when the hash needs it.
    pub cid_version: Option<Version>,
    /// Leaves without an envelope. `None`: as the CID version has it.
    pub raw_leaves: Option<bool>,
    /// How content is cut.
    pub chunker: Chunker,
    /// The hash function.
    pub hash: HashKind,
    /// The shape of files.
    pub layout: Layout,
    /// Blocks up to this many bytes (at most 128) become part of the CID that names them.
    pub inline: Option<usize>,
    /// The most links in a node of a file.
    pub max_file_links: usize,
    /// The most links in a directory before it is sharded. 0: no such limit.
    pub max_directory_links: usize,
    /// Links per node of a sharded directory: a power of two, 8 to 1024.
    pub hamt_fanout: usize,
    /// A directory whose estimated size is above this many bytes is sharded.
    pub hamt_threshold: u64,
    /// How that size is estimated.
    pub hamt_size: HamtSize,
    /// Put everything into one more directory.
    pub wrap: bool,
    /// Put on every file, link and directory that does not bring its own.
    pub meta: Metadata,
    /// Whether what an entry brings as its own metadata is recorded. Excludes raw leaves.
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
