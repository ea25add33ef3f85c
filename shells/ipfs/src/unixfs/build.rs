//! Building blocks of files: leaves and inner nodes.

use super::Name;
use super::options::{AddOptions, HashKind, Layout, Metadata};
use super::pb::{self, Link, PbNode, Type, Unixfs};
use crate::Cid;
use crate::{Block, Error, codec, hash, store};
use bytes::{Bytes, BytesMut};
use cid::Version;

/// Maximum length of content inlined into a CID, in bytes; other nodes refuse longer digests.
const INLINE_MAX: usize = 128;

/// Options with all defaults filled in, free of contradictions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) options: AddOptions,
    pub(super) version: Version,
    pub(super) raw_leaves: bool,
}

/// A finished subtree, as its parent needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Child {
    pub(super) cid: Cid,
    /// Size of all its blocks, in bytes.
    pub(super) size: u64,
    /// Size of its content, in bytes.
    pub(super) bytes: u64,
}

/// A leaf and its content.
#[derive(Debug)]
pub(super) struct Leaf {
    pub(super) child: Child,
    pub(super) block: Option<Block>,
    pub(super) content: Bytes,
}

impl Settings {
    pub(super) fn new(options: AddOptions) -> Result<Settings, Error> {
        let plain = options.hash == HashKind::SHA2_256;
        let version = match options.cid_version {
            Some(Version::V0) if !plain => {
                return Err(Error::invalid("CIDv0 only supports sha2-256; use cid-version=1"));
            }
            Some(version) => version,
            None if plain => Version::V0,
            None => Version::V1,
        };
        let described = options.preserve || options.meta != Metadata::default();
        if described && options.raw_leaves == Some(true) {
            return Err(Error::invalid(
                "raw-leaves cannot keep a mode or mtime; leave one of the two out",
            ));
        }
        let raw_leaves = options.raw_leaves.unwrap_or(version == Version::V1 && !described);
        if options.inline.is_some_and(|limit| limit > INLINE_MAX) {
            return Err(Error::invalid(format!(
                "inline-limit exceeds the maximum of {INLINE_MAX} bytes"
            )));
        }
        if !(2..=8192).contains(&options.max_file_links) {
            return Err(Error::invalid(format!(
                "max-file-links {} is outside 2 to 8192",
                options.max_file_links
            )));
        }
        let fanout = options.hamt_fanout;
        if !fanout.is_power_of_two() || !(8..=1024).contains(&fanout) {
            return Err(Error::invalid(format!(
                "max-hamt-fanout {fanout} is not a power of two from 8 to 1024"
            )));
        }
        options.chunker.check()?;
        Ok(Settings {
            options,
            version,
            raw_leaves,
        })
    }

    /// Computes the CID of a block. The block is `None` if the CID holds all of its data.
    pub(super) fn block(&self, codec: u64, data: Bytes) -> Result<(Cid, Option<Block>), Error> {
        let inline = self.options.inline.is_some_and(|limit| data.len() <= limit);
        if inline || self.options.hash.code() == store::IDENTITY {
            return Ok((
                hash::compute_cid(Version::V1, codec, store::IDENTITY, &data)?,
                None,
            ));
        }
        let version = if codec == codec::RAW {
            Version::V1
        } else {
            self.version
        };
        let cid = hash::compute_cid(version, codec, self.options.hash.code(), &data)?;
        Ok((cid, Some(Block { cid, data })))
    }

    /// Builds a UnixFS node without links.
    pub(super) fn single(&self, node: &Unixfs) -> Result<(Child, Option<Block>), Error> {
        let bytes = node.size.unwrap_or(0);
        let data = Bytes::from(
            PbNode {
                links: Vec::new(),
                data: Some(node.encode().into()),
            }
            .encode(),
        );
        let size = data.len() as u64;
        let (cid, block) = self.block(codec::DAG_PB, data)?;
        Ok((Child { cid, size, bytes }, block))
    }

    /// Builds a raw leaf, whose block is the content itself.
    pub(super) fn raw_leaf(&self, content: Bytes) -> Result<Leaf, Error> {
        let bytes = content.len() as u64;
        let (cid, block) = self.block(codec::RAW, content.clone())?;
        Ok(Leaf {
            child: Child {
                cid,
                size: bytes,
                bytes,
            },
            block,
            content,
        })
    }

    /// Builds the leaf of one chunk, which begins at [`pb::LEAF_BEFORE`] of the buffer and is not empty.
    fn leaf(&self, buffer: BytesMut) -> Result<Leaf, Error> {
        if self.raw_leaves {
            return self.raw_leaf(buffer.freeze().slice(pb::LEAF_BEFORE..));
        }
        let kind = match self.options.layout {
            Layout::Balanced => Type::File,
            Layout::Trickle => Type::Raw,
        };
        let (data, content) = pb::leaf(kind, buffer);
        let content = data.slice(content);
        let (size, bytes) = (data.len() as u64, content.len() as u64);
        let (cid, block) = self.block(codec::DAG_PB, data)?;
        Ok(Leaf {
            child: Child { cid, size, bytes },
            block,
            content,
        })
    }

    /// Returns a buffer for one chunk, with room reserved before it.
    pub(super) fn chunk_buffer(&self) -> BytesMut {
        let longest = self.options.chunker.max_length();
        let mut buffer = BytesMut::with_capacity(pb::LEAF_BEFORE + longest + pb::LEAF_AFTER);
        buffer.resize(pb::LEAF_BEFORE, 0);
        buffer
    }

    /// Builds the leaves of chunks that were read into [`Settings::chunk_buffer`]s.
    pub(super) fn leaves(&self, chunks: Vec<BytesMut>) -> Result<Vec<Leaf>, Error> {
        chunks.into_iter().map(|chunk| self.leaf(chunk)).collect()
    }

    /// Builds an inner node of a file.
    pub(super) fn inner(
        &self,
        children: Vec<Child>,
        meta: Metadata,
    ) -> Result<(Child, Option<Block>), Error> {
        let mut node = Unixfs::new(Type::File);
        node.meta = meta;
        node.block_sizes = children.iter().map(|child| child.bytes).collect();
        let bytes = node.block_sizes.iter().sum();
        node.size = Some(bytes);
        let below: u64 = children.iter().map(|child| child.size).sum();
        let link = |child: Child| Link {
            cid: child.cid,
            name: Name::default(),
            size: child.size,
        };
        let links = children.into_iter().map(link).collect();
        let data = Bytes::from(
            PbNode {
                links,
                data: Some(node.encode().into()),
            }
            .encode(),
        );
        let size = below + data.len() as u64;
        let (cid, block) = self.block(codec::DAG_PB, data)?;
        Ok((Child { cid, size, bytes }, block))
    }

    /// Returns the metadata to record for an entry.
    pub(super) fn meta(&self, own: Metadata) -> Metadata {
        let own = if self.options.preserve {
            own
        } else {
            Metadata::default()
        };
        Metadata {
            mode: own.mode.or(self.options.meta.mode),
            mtime: own.mtime.or(self.options.meta.mtime),
        }
    }
}

/// Returns the node of a file without links. An empty file has no data field at all.
pub(super) fn file(kind: Type, content: Bytes, meta: Metadata) -> Unixfs {
    let mut node = Unixfs::new(kind);
    node.size = Some(content.len() as u64);
    node.data = (!content.is_empty()).then_some(content);
    node.meta = meta;
    node
}
