//! [`Adder`], which builds UnixFS DAGs from streams of content.

use super::Name;
use super::build::{Leaf, Settings};
use super::directory::{self, Names, Output};
use super::layout::Tree;
use super::options::{AddOptions, Metadata};
use super::pb::{Type, Unixfs};
use crate::Cid;
use crate::{Block, Error};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::FuturesOrdered;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Bytes hashed as one piece of work: long enough to be worth handing to another thread.
const WORK_BYTES: usize = 1 << 20;
/// Memory for a chunk besides its bytes: its buffer, CID and place in the tree. Counted in the size of a
/// piece of work, so that chunks of one byte need no more memory than others.
const CHUNK_COST: usize = 1024;
/// Pieces hashed concurrently, per file; limits the memory of an upload to a few times as many pieces and
/// keeps as many cores busy.
const WORKERS: usize = 4;

/// A finished entry of an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Added {
    /// Path within the upload; empty for the root of a wrapped upload.
    pub name: Name,
    /// Root of the entry's DAG.
    pub cid: Cid,
    /// Size of a file's content, in bytes.
    pub bytes: u64,
    /// Size of all blocks of the DAG, in bytes, each counted wherever it is linked: Kubo's `Size`.
    pub size: u64,
}

/// Builds UnixFS DAGs from streams and sends their blocks to a channel, children before parents.
///
/// It stores nothing: the receiver of the blocks does. A slow receiver slows the adder down. For each file it
/// holds a few MiB and one path of the tree; the names of all entries are held until the upload ends or their
/// directory is built, within a limit for each upload and one for the process.
#[derive(Debug)]
pub struct Adder {
    settings: Arc<Settings>,
    blocks: mpsc::Sender<Block>,
    names: Names,
}

type Work = FuturesOrdered<JoinHandle<Result<Vec<Leaf>, Error>>>;

/// A file being chunked.
struct Chunking<R> {
    content: R,
    /// Bytes read that are not part of a chunk yet.
    rest: BytesMut,
    /// True once all content has been read.
    exhausted: bool,
    /// True once all content has been chunked.
    ended: bool,
}

impl Adder {
    /// Starts an upload.
    ///
    /// # Errors
    /// [`Error::Invalid`] or [`Error::Unsupported`] if options are invalid or contradict each other.
    pub fn new(options: AddOptions, blocks: mpsc::Sender<Block>) -> Result<Adder, Error> {
        let settings = Arc::new(Settings::new(options)?);
        Ok(Adder {
            settings,
            blocks,
            names: Names::default(),
        })
    }

    /// Returns whether an entry with this name was added at the top of the upload.
    pub fn has_top(&self, name: &[u8]) -> bool {
        self.names.has_top(name)
    }

    /// Adds one file at a path within the upload; with an empty path its CID becomes the name. `progress` is
    /// called with the bytes read so far.
    ///
    /// # Errors
    /// The content cannot be read, the path is in use or leaves the upload, the upload has too many names, or
    /// the receiver of the blocks is gone.
    pub async fn file(
        &mut self,
        path: impl AsRef<[u8]>,
        meta: Metadata,
        content: impl AsyncRead + Send + Unpin,
        mut progress: impl FnMut(u64) + Send,
    ) -> Result<Added, Error> {
        let names = directory::split(path.as_ref())?;
        self.names.check_free(&names)?;
        let mut tree = Tree::new(&self.settings, self.settings.meta(meta));
        let mut out = Vec::new();
        let mut work = Work::new();
        let mut cutting = Chunking {
            content,
            rest: BytesMut::new(),
            exhausted: false,
            ended: false,
        };
        let mut total = 0;
        loop {
            while !cutting.ended && work.len() < WORKERS {
                let (chunks, read) = self.fill(&mut cutting).await?;
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
        self.insert(names, root)
    }

    /// Adds a directory, which may be empty. Creates missing parents.
    ///
    /// # Errors
    /// The path is in use or leaves the upload, or the upload has too many names.
    pub fn directory(&mut self, path: impl AsRef<[u8]>, meta: Metadata) -> Result<(), Error> {
        let meta = self.settings.meta(meta);
        self.names.create(&directory::split(path.as_ref())?, meta)
    }

    /// Adds a symbolic link. Of its metadata only the time is recorded, as links have no permissions.
    ///
    /// # Errors
    /// As [`Adder::directory`], or the receiver of the blocks is gone.
    pub async fn symlink(
        &mut self,
        path: impl AsRef<[u8]>,
        meta: Metadata,
        target: impl AsRef<[u8]>,
    ) -> Result<Added, Error> {
        let names = directory::split(path.as_ref())?;
        let mut node = Unixfs::new(Type::Symlink);
        node.data = Some(Bytes::copy_from_slice(target.as_ref()));
        node.meta = Metadata {
            mode: None,
            ..self.settings.meta(meta)
        };
        let (child, block) = self.settings.single(&node)?;
        let added = self.insert(names, child)?;
        self.send(&mut block.into_iter().collect()).await?;
        Ok(added)
    }

    fn insert(&mut self, names: Vec<&[u8]>, root: super::build::Child) -> Result<Added, Error> {
        let unnamed = root.cid.to_string();
        let names = if names.is_empty() {
            vec![unnamed.as_bytes()]
        } else {
            names
        };
        let added = directory::added(names.join(&b'/').into(), &root);
        self.names.insert(&names, root)?;
        Ok(added)
    }

    /// To be called before each entry, with its path: if the names need much memory, builds the directories
    /// that `path` does not lead through and sends them to `built`. They accept no further entries.
    ///
    /// # Errors
    /// `path` leaves the upload, a directory cannot be built, or the receiver of the blocks is gone.
    pub async fn make_room(
        &mut self,
        path: impl AsRef<[u8]>,
        built: mpsc::Sender<Added>,
    ) -> Result<(), Error> {
        if !self.names.needs_early_build() {
            return Ok(());
        }
        let current = directory::split(path.as_ref())?.into_iter().map(Name::from);
        let current: Vec<Name> = current.collect();
        let mut names = std::mem::take(&mut self.names);
        let closed = self.build_blocking(built, move |output| {
            names.close(&current, output)?;
            Ok(names)
        });
        self.names = closed.await?;
        Ok(())
    }

    /// Builds the directories, deepest first, and sends them to `built`; the last one is the root of the
    /// upload. Returns the roots to pin: a single one, unless several names were added side by side without
    /// wrapping.
    ///
    /// # Errors
    /// A directory cannot be built, or the receiver of the blocks is gone.
    pub async fn finish(mut self, built: mpsc::Sender<Added>) -> Result<Vec<Added>, Error> {
        let names = std::mem::take(&mut self.names);
        self.build_blocking(built, move |output| names.build(output))
            .await
    }

    /// Runs `build`, which may take long, on a blocking thread.
    async fn build_blocking<T: Send + 'static>(
        &self,
        built: mpsc::Sender<Added>,
        build: impl FnOnce(&mut Output<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (settings, blocks) = (self.settings.clone(), self.blocks.clone());
        let work = move || {
            build(&mut Output {
                settings: &settings,
                block: &mut |block| blocks.blocking_send(block).map_err(|_| Error::Closed),
                added: &mut |added| built.blocking_send(added).map_err(|_| Error::Closed),
            })
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|_| Error::Closed)?
    }

    /// Reads a piece of work, chunk by chunk; returns it with the number of bytes read. Each chunk is read
    /// into its own buffer, which becomes the block without another copy.
    async fn fill(
        &self,
        cutting: &mut Chunking<impl AsyncRead + Send + Unpin>,
    ) -> Result<(Vec<BytesMut>, u64), Error> {
        let chunker = self.settings.options.chunker;
        let count = (WORK_BYTES / (chunker.max_length() + CHUNK_COST)).max(1);
        let mut chunks = Vec::with_capacity(count);
        let mut total = 0;
        while chunks.len() < count && !cutting.ended {
            let mut chunk = self.settings.chunk_buffer();
            let before = chunk.len();
            let full = before + chunker.max_length();
            chunk.extend_from_slice(&cutting.rest);
            cutting.rest.clear();
            while chunk.len() < full && !cutting.exhausted {
                let room = (full - chunk.len()) as u64;
                let read = (&mut cutting.content).take(room).read_buf(&mut chunk).await;
                let read = read.map_err(|error| Error::io("reading the content", error))?;
                cutting.exhausted = read == 0;
                total += read as u64;
            }
            let cut = before + chunker.next_length(&chunk[before..]);
            cutting.rest.extend_from_slice(&chunk[cut..]);
            chunk.truncate(cut);
            cutting.ended = cutting.exhausted && cutting.rest.is_empty();
            if cut > before {
                chunks.push(chunk);
            }
        }
        Ok((chunks, total))
    }

    async fn send(&self, out: &mut Vec<Block>) -> Result<(), Error> {
        for block in out.drain(..) {
            self.blocks.send(block).await.map_err(|_| Error::Closed)?;
        }
        Ok(())
    }
}
