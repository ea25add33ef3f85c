//! Writing into files. A file is rebuilt as a trickle DAG, like Kubo's, from its old content and the new
//! bytes; both are streamed.

use super::folder::{Folder, Form, Tree};
use super::{Entry, missing, split};
use crate::unixfs::pb::PbNode;
use crate::unixfs::read::{self, Entity};
use crate::unixfs::{AddOptions, ByteStream, Kind, Layout, Metadata, Name};
use crate::{Block, Cid, Error, Node, codec};
use bytes::Bytes;
use cid::Version;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;
use tokio_util::io::StreamReader;

/// Limit on the zeros that a write beyond the end of a file adds, in bytes: more is a mistake in the offset.
const GAP_MAX: u64 = 1 << 40;
/// Zeros per piece of a gap, in bytes.
const GAP_PIECE: u64 = 256 << 10;

/// Settings of a write.
#[derive(Debug, Clone)]
pub(crate) struct WriteOptions {
    pub(crate) offset: u64,
    /// Maximum number of bytes to write.
    pub(crate) count: Option<u64>,
    pub(crate) create: bool,
    pub(crate) parents: bool,
    pub(crate) truncate: bool,
    pub(crate) raw_leaves: Option<bool>,
    /// Form of a new file; `None`: that of its directory.
    pub(crate) form: Option<Form>,
    pub(crate) flush: bool,
}

/// New content of a file.
pub(crate) type NewContent = BoxStream<'static, std::io::Result<Bytes>>;

impl Node {
    /// Writes into a file.
    pub(crate) async fn files_write(
        &self,
        path: &[Name],
        options: WriteOptions,
        content: NewContent,
    ) -> Result<(), Error> {
        self.inner.mfs.check_unflushed(options.flush)?;
        let (above, name) = match split(path) {
            Ok(split) => split,
            Err(_) => return Err(Error::invalid("/ was not a file")),
        };
        let _changing = self.inner.mfs.changing.lock().await;
        let _guard = self.protect_from_gc();
        let root = self.files_root().await?;
        let mut tree = Tree::open_creating(self, root, above, options.parents, options.form).await?;
        let old = match tree.last().entry(name) {
            Some(entry) => {
                let stat = self.files_stat(entry.cid).await?.stat;
                if stat.kind != Kind::File {
                    return Err(Error::invalid(format!("{name} was not a file")));
                }
                Some((entry.cid, stat))
            }
            None if options.create => None,
            None => return Err(missing()),
        };
        let form = match &old {
            // A raw block has version 1 in a directory of version 0 too.
            Some((cid, _)) if cid.codec() == codec::DAG_PB => Form::of(cid),
            Some(_) | None => options.form.unwrap_or(tree.last().form),
        };
        let meta = old.as_ref().map_or(Metadata::default(), |(_, stat)| stat.meta);
        let kept = old.filter(|_| !options.truncate);
        let kept = kept.map(|(cid, stat)| (cid, stat.bytes));
        let content = merged(self, kept, &options, content);
        let entry = rebuild(self, form, options.raw_leaves, meta, content).await?;
        tree.last_mut().insert(name.clone(), entry)?;
        let root = tree.save(self).await?;
        self.files_commit(root.cid, options.flush).await
    }
}

/// Returns the old content before the offset, zeros up to it, the new bytes, and the old content after them.
fn merged(node: &Node, old: Option<(Cid, u64)>, options: &WriteOptions, content: NewContent) -> ByteStream {
    let offset = options.offset;
    let size = old.map_or(0, |(_, size)| size);
    let part = |from: u64, length: Option<u64>| {
        let (node, old) = (node.clone(), old);
        stream::once(async move {
            match old {
                Some((cid, size)) if from < size => node.cat(cid, from, length).await,
                Some(_) | None => Ok(stream::empty().boxed()),
            }
        })
        .try_flatten()
    };
    let written = Arc::new(AtomicU64::new(0));
    let (counted, count) = (written.clone(), options.count);
    let new = content.map(move |piece| {
        let piece = piece.map_err(|error| Error::io("reading the new content", error))?;
        let before = counted.load(Ordering::Relaxed);
        let left = count.map_or(u64::MAX, |count| count.saturating_sub(before));
        // At most the length of the piece.
        let taken = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        counted.fetch_add(taken as u64, Ordering::Relaxed);
        Ok(piece.slice(..taken))
    });
    let after = {
        let (node, old) = (node.clone(), old);
        stream::once(async move {
            let from = offset.saturating_add(written.load(Ordering::Relaxed));
            match old {
                Some((cid, size)) if from < size => node.cat(cid, from, None).await,
                Some(_) | None => Ok(stream::empty().boxed()),
            }
        })
        .try_flatten()
    };
    let before = part(0, Some(offset.min(size)));
    let before = match offset {
        0 => stream::empty().boxed(),
        _ => before.boxed(),
    };
    before
        .chain(zeros(offset.saturating_sub(size)))
        .chain(new)
        .chain(after)
        .boxed()
}

/// Returns a stream of zeros.
fn zeros(count: u64) -> ByteStream {
    if count > GAP_MAX {
        let why = format!("the offset is {count} bytes beyond the end of the file, more than {GAP_MAX}");
        return stream::iter([Err(Error::invalid(why))]).boxed();
    }
    let piece = Bytes::from(vec![0; GAP_PIECE.min(count) as usize]);
    let pieces = stream::unfold(count, move |left| {
        let piece = piece.slice(..left.min(piece.len() as u64) as usize);
        async move { (left > 0).then(|| (Ok(piece.clone()), left - piece.len() as u64)) }
    });
    pieces.boxed()
}

/// Stores a file with this content.
async fn rebuild(
    node: &Node,
    form: Form,
    raw_leaves: Option<bool>,
    meta: Metadata,
    content: ByteStream,
) -> Result<Entry, Error> {
    let described = meta != Metadata::default();
    let raw_leaves = raw_leaves.unwrap_or(form.version == Version::V1 && !described);
    let options = AddOptions {
        layout: Layout::Trickle,
        raw_leaves: Some(raw_leaves && !described),
        preserve: described,
        ..form.options()
    };
    let mut upload = node.add(options)?;
    let reader = StreamReader::new(content.map_err(std::io::Error::other).boxed());
    let added = upload.file("", meta, reader, |_| ()).await?;
    // A single file reports no directories.
    upload.finish(None, mpsc::channel(1).0).await?;
    Ok(Entry {
        cid: added.cid,
        size: added.size,
    })
}

/// Returns a file or directory with other metadata; `None` keeps a value.
pub(super) async fn with_meta(
    node: &Node,
    cid: Cid,
    mode: Option<u32>,
    mtime: Option<(i64, u32)>,
) -> Result<Entry, Error> {
    let data = node.get(cid).await?;
    let entity = read::entity(&cid, data.clone())?;
    if read::stat(&entity).kind == Kind::Directory {
        let mut folder = Folder::load(node, cid).await?;
        folder.set_meta(mode, mtime);
        return folder.save(node).await;
    }
    let meta = Metadata { mode, mtime };
    let Entity::Node(mut unixfs, links) = entity else {
        // A raw block has no place for them.
        let content = node.cat(cid, 0, None).await?;
        return rebuild(node, Form::of(&cid), Some(false), meta, content).await;
    };
    unixfs.meta.mode = mode.or(unixfs.meta.mode);
    unixfs.meta.mtime = mtime.or(unixfs.meta.mtime);
    let changed = PbNode {
        links,
        data: Some(unixfs.encode().into()),
    };
    let data = Bytes::from(changed.encode());
    let form = Form::of(&cid);
    let cid = crate::hash::compute_cid(form.version, codec::DAG_PB, form.hash, &data)?;
    let size = crate::codec::cumulative_size(&cid, &data)?;
    node.put_verified(vec![Block { cid, data }]).await?;
    Ok(Entry { cid, size })
}
