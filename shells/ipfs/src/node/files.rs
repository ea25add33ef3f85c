//! Reading files, directories, paths and DAG nodes; importing and exporting archives.

use super::Node;
use crate::Cid;
use crate::car::{self, CarReader};
use crate::codec::Data;
use crate::reader::{Reader, stream_from_task};
use crate::unixfs::read::{self, Content, Entity};
use crate::unixfs::{ByteStream, DirEntry, Name, Stat, pb, tar};
use crate::{Block, DagPath, Error, Ref, Resolved, codec, dag, dagjson};
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use tokio::io::AsyncRead;

/// Limit of the archive blocks verified and stored together, in bytes.
const IMPORT_BYTES: usize = 4 << 20;
/// Limit of the archive blocks verified and stored together, for archives of many tiny ones.
const IMPORT_BLOCKS: usize = 4096;
/// Size limit of a block stored by [`Node::dag_put`], bytes.
const PUT_MAX: usize = crate::store::BLOCK_MAX;

impl Node {
    /// Streams a file's content from `offset`, at most `length` bytes. The root is read before this returns.
    ///
    /// # Errors
    /// [`Error::IsDirectory`] for a directory; the root cannot be read or decoded.
    pub async fn cat(&self, cid: Cid, offset: u64, length: Option<u64>) -> Result<ByteStream, Error> {
        let root = self.reader().get(cid).await?;
        self.cat_below(cid, root, offset, length)
    }

    /// As [`Node::cat`], of a file whose root block is given.
    pub(crate) fn cat_below(
        &self,
        cid: Cid,
        root: Bytes,
        offset: u64,
        length: Option<u64>,
    ) -> Result<ByteStream, Error> {
        read::check_file(&cid, &read::entity(&cid, root.clone())?)?;
        let (reader, left) = (self.reader(), length.unwrap_or(u64::MAX));
        Ok(Content::new(reader, (cid, root), offset, left).stream())
    }

    /// Returns kind and size of the entry at a CID, with its root block.
    pub(crate) async fn file_root(&self, cid: Cid) -> Result<(Stat, Bytes), Error> {
        let root = self.reader().get(cid).await?;
        Ok((read::stat(&read::entity(&cid, root.clone())?), root))
    }

    /// Returns kind and size of the entry at a CID.
    ///
    /// # Errors
    /// The root cannot be read or decoded.
    pub async fn file_stat(&self, cid: Cid) -> Result<Stat, Error> {
        Ok(read::stat(&read::entity(&cid, self.reader().get(cid).await?)?))
    }

    /// Streams the entries of a directory, sharded or not; a file has none. With `resolve`, each entry is
    /// fetched to determine its kind.
    ///
    /// # Errors
    /// The root cannot be read or decoded.
    pub async fn ls(
        &self,
        cid: Cid,
        resolve: bool,
    ) -> Result<BoxStream<'static, Result<DirEntry, Error>>, Error> {
        let reader = self.reader();
        read::entity(&cid, reader.get(cid).await?)?;
        let listing = reader.clone();
        let mut links = stream_from_task(|out| async move { read::list(&listing, cid, &out).await });
        Ok(stream_from_task(|out| async move {
            read::entries(&reader, &mut links, resolve, &out).await
        }))
    }

    /// Streams a file or directory tree as a tar archive whose entries are below `name`.
    pub fn tar(&self, cid: Cid, name: Name) -> ByteStream {
        let reader = self.reader();
        stream_from_task(|out| tar::archive(reader, cid, name, out))
    }

    /// Resolves a path of names of files and directories, named links, and keys or indexes inside DAG-CBOR
    /// and DAG-JSON.
    ///
    /// # Errors
    /// [`Error::NoLink`] if a name does not exist; a block on the path cannot be read or decoded.
    pub async fn resolve(&self, path: &DagPath) -> Result<Resolved, Error> {
        self.trace(path).await.map(|trace| trace.resolved)
    }

    /// Resolves a path and records the blocks on it.
    pub(crate) async fn trace(&self, path: &DagPath) -> Result<Trace, Error> {
        let reader = self.reader();
        let mut cid = path.root;
        let (mut roots, mut blocks) = (vec![cid], Vec::new());
        let mut rest = path.segments.as_slice();
        while let Some((name, after)) = rest.split_first() {
            let data = reader.get(cid).await?;
            if cid.codec() == codec::DAG_PB {
                blocks.push(cid);
                cid = entry(&reader, cid, data, name, &mut blocks).await?;
                roots.push(cid);
                rest = after;
                continue;
            }
            let block = codec::decode(&cid, &data)?;
            match descend(&block, rest) {
                Descent::Link(next, after) => {
                    blocks.push(cid);
                    roots.push(next);
                    (cid, rest) = (next, after);
                }
                Descent::Inside(_) => break,
                Descent::Nothing(name) => {
                    return Err(Error::NoLink {
                        name: name.to_string(),
                        cid,
                    });
                }
            }
        }
        let remainder = rest.to_vec();
        Ok(Trace {
            resolved: Resolved { cid, remainder },
            roots,
            blocks,
        })
    }

    /// Streams the selected blocks as CARv1, after the blocks on the path to them.
    pub(crate) fn dag_select(&self, path: Vec<Cid>, end: Cid, selection: dag::Selection) -> ByteStream {
        let reader = self.reader();
        stream_from_task(move |out| dag::archive(reader, path, end, selection, out))
    }

    /// Returns the links of one block, with their names if the codec has them.
    ///
    /// # Errors
    /// The block cannot be read or decoded.
    pub async fn links(&self, cid: Cid) -> Result<Vec<(String, Cid)>, Error> {
        codec::links(&cid, &self.reader().get(cid).await?)
    }

    /// Streams the links below a block, depth first, down to `max_depth` (`None`: all), each target once if
    /// `unique`.
    ///
    /// # Errors
    /// An item is an error when a block cannot be read or decoded; it is the last item.
    pub fn refs(
        &self,
        cid: Cid,
        max_depth: Option<u64>,
        unique: bool,
    ) -> BoxStream<'static, Result<Ref, Error>> {
        let reader = self.reader();
        stream_from_task(|out| dag::refs(reader, cid, max_depth, unique, out))
    }

    /// Returns the value at a path, as DAG-JSON.
    ///
    /// # Errors
    /// As [`Node::resolve`].
    pub async fn dag_get(&self, path: &DagPath) -> Result<String, Error> {
        let Resolved { cid, remainder } = self.resolve(path).await?;
        let block = codec::decode(&cid, &self.reader().get(cid).await?)?;
        match descend(&block, &remainder) {
            Descent::Inside(data) => dagjson::encode(data).map_err(|why| Error::malformed(&cid, why)),
            Descent::Link(..) => Err(Error::malformed(&cid, "it changed while it was read")),
            Descent::Nothing(name) => Err(Error::NoLink {
                name: name.to_string(),
                cid,
            }),
        }
    }

    /// Stores one block given as DAG-JSON, DAG-CBOR, DAG-PB or raw bytes (`input`, a multicodec) in the
    /// format of another codec (`store`), hashed with the multihash code `hash`. Does not pin or sync.
    ///
    /// # Errors
    /// [`Error::TooLarge`]; `data` is not valid in the codec `input`, or cannot be converted; as
    /// [`Node::put`].
    pub async fn dag_put(&self, data: &[u8], input: u64, store: u64, hash: u64) -> Result<Cid, Error> {
        if data.len() > PUT_MAX {
            return Err(Error::TooLarge {
                size: data.len(),
                max: PUT_MAX,
            });
        }
        let encoded = codec::recode(Bytes::copy_from_slice(data), input, store)?;
        let cid = crate::hash::compute_cid(cid::Version::V1, store, hash, &encoded)?;
        self.put(Block { cid, data: encoded }).await?;
        Ok(cid)
    }

    /// Streams the DAG below a root as CARv1, each block once, depth first.
    pub fn dag_export(&self, root: Cid) -> ByteStream {
        let reader = self.reader();
        let mut blocks = stream_from_task(|out| async move { dag::blocks(reader, root, &out).await });
        stream_from_task(|out| async move {
            car::write_header(root, &out).await?;
            while let Some(block) = blocks.next().await {
                let (cid, data) = block?;
                car::write_block(cid, &data, &out).await?;
            }
            Ok(())
        })
    }

    /// Stores the blocks of a CAR (v1 or v2), verifying each hash, syncs, and returns its roots with the
    /// number of blocks and bytes. Does not pin: use [`Node::protect_from_gc`] until that is done.
    ///
    /// # Errors
    /// The archive cannot be read or is malformed; as [`Node::put`].
    pub async fn dag_import(
        &self,
        car: impl AsyncRead + Send + Unpin,
    ) -> Result<(Vec<Cid>, u64, u64), Error> {
        let mut car = CarReader::open(car).await?;
        let (mut count, mut total) = (0, 0);
        let (mut batch, mut stream_in_batches) = (Vec::new(), 0);
        while let Some(block) = car.next().await? {
            count += 1;
            total += block.data.len() as u64;
            stream_in_batches += block.data.len();
            batch.push(block);
            if stream_in_batches >= IMPORT_BYTES || batch.len() >= IMPORT_BLOCKS {
                self.put_many(std::mem::take(&mut batch)).await?;
                stream_in_batches = 0;
            }
        }
        self.put_many(batch).await?;
        self.sync().await?;
        Ok((car.roots, count, total))
    }
}

/// A resolved path with the blocks on it.
#[derive(Debug)]
pub(crate) struct Trace {
    pub(crate) resolved: Resolved,
    /// CIDs of the root and of each entry on the path.
    pub(crate) roots: Vec<Cid>,
    /// Blocks read on the path, in order, without the one at its end.
    pub(crate) blocks: Vec<Cid>,
}

/// Finds a named entry of a directory, or a named link of another node, and records the shards on the way.
async fn entry(
    reader: &Reader,
    cid: Cid,
    data: Bytes,
    name: &Name,
    visited: &mut Vec<Cid>,
) -> Result<Cid, Error> {
    if let Ok(Entity::Node(node, links)) = read::entity(&cid, data.clone()) {
        return read::find(reader, cid, node, links, name, visited).await;
    }
    let links = pb::PbNode::decode(&cid, &data)?.links;
    let link = links
        .into_iter()
        .find(|link| link.name.as_bytes() == name.as_bytes());
    let link = link.ok_or_else(|| Error::NoLink {
        name: name.to_string(),
        cid,
    })?;
    Ok(link.cid)
}

/// Result of following names inside one block.
enum Descent<'d, 'n> {
    Inside(&'d Data),
    Link(Cid, &'n [Name]),
    Nothing(&'n Name),
}

fn descend<'d, 'n>(mut data: &'d Data, mut names: &'n [Name]) -> Descent<'d, 'n> {
    while let Some((name, after)) = names.split_first() {
        let next = match data {
            Data::Map(map) => name.as_text().and_then(|name| map.get(name)),
            Data::List(list) => {
                let at: Option<usize> = name.as_text().and_then(|name| name.parse().ok());
                at.and_then(|at| list.get(at))
            }
            Data::Null
            | Data::Bool(_)
            | Data::Integer(_)
            | Data::Float(_)
            | Data::String(_)
            | Data::Bytes(_)
            | Data::Link(_) => None,
        };
        match next {
            None => return Descent::Nothing(name),
            Some(Data::Link(cid)) => return Descent::Link(**cid, after),
            Some(next) => (data, names) = (next, after),
        }
    }
    Descent::Inside(data)
}
