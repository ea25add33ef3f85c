//! From streams to DAGs.

use super::build::{Leaf, Settings};
use super::directory::{self, Names};
use super::layout::Tree;
use super::options::{AddOptions, Metadata};
use super::pb::{Type, Unixfs};
use crate::{Block, Error};
use bytes::{Bytes, BytesMut};
use cid::Cid;
use futures::StreamExt;
use futures::stream::FuturesOrdered;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Bytes hashed as one piece of work: long against the cost of handing it to another thread.
const WORK_BYTES: usize = 1 << 20;
/// Pieces being hashed at the same time, per file; bounds the memory of an upload to a few times this many
/// pieces and keeps as many cores busy.
const WORKERS: usize = 4;

/// What an [`Adder`] says about an entry it has finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Added {
    /// The path within the upload; empty for the root of a wrap.
    pub name: String,
    /// The root of the entry's DAG.
    pub cid: Cid,
    /// Bytes of content, for a file.
    pub bytes: u64,
    /// Bytes of all blocks of its DAG, each counted where it is linked: what Kubo calls `Size`.
    pub size: u64,
}

/// The end of an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// The directories, deepest first.
    pub directories: Vec<Added>,
    /// What to pin: one root, unless several names were added side by side and not wrapped.
    pub roots: Vec<Added>,
}

/// Builds UnixFS DAGs from streams and gives their blocks to a channel, children before parents.
///
/// It stores nothing: the receiver of the blocks decides. A slow receiver slows the adder down.
#[derive(Debug)]
pub struct Adder {
    settings: Arc<Settings>,
    blocks: mpsc::Sender<Block>,
    names: Names,
}

type Work = FuturesOrdered<JoinHandle<Result<Vec<Leaf>, Error>>>;

impl Adder {
    /// Starts an upload. Fails when the options contradict each other.
    pub fn new(options: AddOptions, blocks: mpsc::Sender<Block>) -> Result<Adder, Error> {
        let settings = Arc::new(Settings::new(options)?);
        Ok(Adder {
            settings,
            blocks,
            names: Names::default(),
        })
    }

    /// Adds one file at a path within the upload; an empty path takes the CID as its name. `progress` is
    /// told the bytes read so far.
    ///
    /// # Errors
    /// The content cannot be read, the path is taken or leaves the upload, or the receiver is gone.
    pub async fn file(
        &mut self,
        path: &str,
        meta: Metadata,
        mut content: impl AsyncRead + Send + Unpin,
        mut progress: impl FnMut(u64) + Send,
    ) -> Result<Added, Error> {
        let names = directory::split(path)?;
        self.names.check_free(&names)?;
        let mut tree = Tree::new(&self.settings, self.settings.meta(meta));
        let mut out = Vec::new();
        let mut work = Work::new();
        let mut ended = false;
        let mut total = 0;
        loop {
            while !ended && work.len() < WORKERS {
                let (chunks, read);
                (chunks, read, ended) = self.fill(&mut content).await?;
                total += read;
                if !chunks.is_empty() {
                    progress(total);
                    let settings = self.settings.clone();
                    work.push_back(tokio::task::spawn_blocking(move || settings.leaves(chunks)));
                }
            }
            let Some(leaves) = work.next().await else { break };
            for leaf in leaves.map_err(|_| Error::Closed)?? {
                tree.push(&self.settings, leaf, &mut out)?;
            }
            self.send(&mut out).await?;
        }
        let root = tree.finish(&self.settings, &mut out)?;
        self.send(&mut out).await?;
        let unnamed = root.cid.to_string();
        let names = if names.is_empty() {
            vec![unnamed.as_str()]
        } else {
            names
        };
        let added = directory::added(names.join("/"), &root);
        self.names.insert(&names, root)?;
        Ok(added)
    }

    /// Adds a directory, which may be empty. The ones above it are made as needed.
    pub fn directory(&mut self, path: &str, meta: Metadata) -> Result<(), Error> {
        let meta = self.settings.meta(meta);
        self.names.make(&directory::split(path)?, meta)
    }

    /// Adds a symbolic link. Of its metadata only the time is recorded, as links have no permissions.
    pub async fn symlink(&mut self, path: &str, meta: Metadata, target: &str) -> Result<Added, Error> {
        let names = directory::split(path)?;
        let mut node = Unixfs::new(Type::Symlink);
        node.data = Some(Bytes::copy_from_slice(target.as_bytes()));
        node.meta = Metadata {
            mode: None,
            ..self.settings.meta(meta)
        };
        let (child, block) = self.settings.single(&node)?;
        let unnamed = child.cid.to_string();
        let names = if names.is_empty() {
            vec![unnamed.as_str()]
        } else {
            names
        };
        let added = directory::added(names.join("/"), &child);
        self.names.insert(&names, child)?;
        self.send(&mut block.into_iter().collect()).await?;
        Ok(added)
    }

    /// Builds the directories, deepest first; in `directories` the last one is the root of the upload.
    /// Without any directory that list is empty, and the files that were added are the roots.
    pub async fn finish(self) -> Result<Finished, Error> {
        let Adder {
            settings,
            blocks,
            names,
        } = self;
        let build = move || {
            let mut send = |block| blocks.blocking_send(block).map_err(|_| Error::Closed);
            names.build(&settings, &mut send)
        };
        let built = tokio::task::spawn_blocking(build)
            .await
            .map_err(|_| Error::Closed)?;
        let (directories, roots) = built?;
        Ok(Finished { directories, roots })
    }

    /// Reads a piece of work, chunk by chunk; says how many bytes it has and whether the content has ended.
    /// Each chunk has a buffer of its own in which it becomes a block, so that it is not copied again.
    async fn fill(
        &self,
        content: &mut (impl AsyncRead + Send + Unpin),
    ) -> Result<(Vec<BytesMut>, u64, bool), Error> {
        let count = (WORK_BYTES / self.settings.chunk).max(1);
        let mut chunks = Vec::with_capacity(count);
        let mut total = 0;
        while chunks.len() < count {
            let mut chunk = self.settings.chunk_buffer();
            let mut room = self.settings.chunk as u64;
            while room > 0 {
                let read = (&mut *content).take(room).read_buf(&mut chunk).await;
                let read = read.map_err(|error| Error::io("reading the content", error))? as u64;
                if read == 0 {
                    break;
                }
                room -= read;
                total += read;
            }
            if room < self.settings.chunk as u64 {
                chunks.push(chunk);
            }
            if room > 0 {
                return Ok((chunks, total, true));
            }
        }
        Ok((chunks, total, false))
    }

    async fn send(&self, out: &mut Vec<Block>) -> Result<(), Error> {
        for block in out.drain(..) {
            self.blocks.send(block).await.map_err(|_| Error::Closed)?;
        }
        Ok(())
    }
}
