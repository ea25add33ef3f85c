//! The options of `add` that decide a CID, and their defaults, which are Kubo's.

use crate::Error;
use cid::Version;
use std::str::FromStr;

/// How the content is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chunker {
    /// Pieces of this many bytes, 1 to [`Chunker::SIZE_MAX`]. Kubo's `size-N`.
    Size(usize),
}

impl Chunker {
    /// The largest piece: with its envelope it still fits a bitswap block of 2 MiB.
    pub const SIZE_MAX: usize = 2_096_896;
}

impl FromStr for Chunker {
    type Err = Error;

    fn from_str(text: &str) -> Result<Chunker, Error> {
        if text.is_empty() || text == "default" {
            return Ok(Chunker::Size(262_144));
        }
        if text.starts_with("rabin") || text.starts_with("buzhash") {
            return Err(Error::Unsupported(format!("chunker {text:?} (use size-N)")));
        }
        let size = text.strip_prefix("size-").and_then(|n| n.parse().ok());
        match size {
            Some(size @ 1..=Chunker::SIZE_MAX) => Ok(Chunker::Size(size)),
            Some(size) => Err(Error::invalid(format!(
                "chunk size {size} is outside 1 to {} bytes",
                Chunker::SIZE_MAX
            ))),
            None => Err(Error::invalid(format!("unrecognized chunker option: {text}"))),
        }
    }
}

/// A hash function for new blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HashKind {
    /// SHA-256, the only one that CIDv0 has.
    #[default]
    Sha2_256,
    /// SHA-512.
    Sha2_512,
    /// BLAKE2b, 256 bits.
    Blake2b256,
    /// BLAKE3, 256 bits.
    Blake3,
}

impl FromStr for HashKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<HashKind, Error> {
        match text {
            "" | "sha2-256" => Ok(HashKind::Sha2_256),
            "sha2-512" => Ok(HashKind::Sha2_512),
            "blake2b-256" => Ok(HashKind::Blake2b256),
            "blake3" => Ok(HashKind::Blake3),
            other => Err(Error::Unsupported(format!(
                "hash function {other:?} (use sha2-256, sha2-512, blake2b-256 or blake3)"
            ))),
        }
    }
}

/// The shape of a file's tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layout {
    /// All leaves at the same depth.
    #[default]
    Balanced,
    /// Leaves near the root first, for reading from the start.
    Trickle,
}

/// How the size of a directory is estimated when deciding whether to shard it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HamtSize {
    /// Bytes of all names and CIDs.
    #[default]
    Links,
    /// Bytes of the directory's block.
    Block,
}

/// Permissions and time of change, recorded only if given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Metadata {
    /// Unix permission bits. 0 counts as not given.
    pub mode: Option<u32>,
    /// Seconds since 1970 and nanoseconds.
    pub mtime: Option<(i64, u32)>,
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
            chunker: Chunker::Size(262_144),
            hash: HashKind::Sha2_256,
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
