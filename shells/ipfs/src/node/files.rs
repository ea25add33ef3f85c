//! Files, directories, paths and archives.

use super::Node;
use crate::Cid;
use crate::car::{self, CarReader};
use crate::reader::produce;
use crate::unixfs::read::{self, Entity};
use crate::unixfs::{ByteStream, DirEntry, Name, Stat, pb, tar};
use crate::{Block, DagPath, Error, Ref, Resolved, codec, dag, dagjson};
use futures::stream::{BoxStream, StreamExt};
use ipld_core::ipld::Ipld;
use tokio::io::AsyncRead;

/// Blocks of an archive that are checked and stored in one go, bytes.
const IMPORT_BYTES: usize = 4 << 20;
/// And their number, for archives of many tiny ones.
const IMPORT_BLOCKS: usize = 4096;
/// The largest DAG-JSON or other block that is stored for a caller.
const PUT_MAX: usize = crate::store::BLOCK_MAX;

impl Node {
    /// A file's content from `offset`, at most `length` bytes. The root is read before this returns.
    pub async fn cat(&self, cid: Cid, offset: u64, length: Option<u64>) -> Result<ByteStream, Error> {
        let reader = self.reader();
        read::check_file(&cid, &read::entity(&cid, reader.get(cid).await?)?)?;
        let left = length.unwrap_or(u64::MAX);
        Ok(produce(|out| async move {
            read::content(&reader, cid, offset, left, &out).await
        }))
    }

    /// What is at a CID.
    pub async fn file_stat(&self, cid: Cid) -> Result<Stat, Error> {
        Ok(read::stat(&read::entity(&cid, self.reader().get(cid).await?)?))
    }

    /// The names in a directory (of a file: none), sharded or not; with `resolve`, each entry is fetched
    /// to tell what it is.
    pub async fn ls(
        &self,
        cid: Cid,
        resolve: bool,
    ) -> Result<BoxStream<'static, Result<DirEntry, Error>>, Error> {
        let reader = self.reader();
        read::entity(&cid, reader.get(cid).await?)?;
        let listing = reader.clone();
        let mut links = produce(|out| async move { read::list(&listing, cid, &out).await });
        Ok(produce(|out| async move {
            read::entries(&reader, &mut links, resolve, &out).await
        }))
    }

    /// A file or directory tree as a tar archive whose entries are below `name`.
    pub fn tar(&self, cid: Cid, name: Name) -> ByteStream {
        let reader = self.reader();
        produce(|out| tar::archive(reader, cid, name, out))
    }

    /// Follows a path: names of files and directories, named links, and keys or indexes inside DAG-CBOR
    /// and DAG-JSON.
    pub async fn resolve(&self, path: &DagPath) -> Result<Resolved, Error> {
        let reader = self.reader();
        let mut cid = path.root;
        let mut rest = path.segments.as_slice();
        while let Some((name, after)) = rest.split_first() {
            let data = reader.get(cid).await?;
            if cid.codec() == codec::DAG_PB {
                cid = match read::entity(&cid, data.clone()) {
                    Ok(Entity::Node(node, links)) => read::find(&reader, cid, node, links, name).await?,
                    Ok(Entity::Raw(_)) | Err(_) => {
                        let links = pb::PbNode::decode(&cid, &data)?.links;
                        let link = links
                            .into_iter()
                            .find(|link| link.name.as_bytes() == name.as_bytes());
                        link.ok_or_else(|| Error::NoLink {
                            name: name.clone(),
                            cid,
                        })?
                        .cid
                    }
                };
                rest = after;
                continue;
            }
            let block = codec::decode(&cid, &data)?;
            match descend(&block, rest) {
                Descent::Link(next, after) => (cid, rest) = (next, after),
                Descent::Inside(_) => {
                    return Ok(Resolved {
                        cid,
                        remainder: rest.to_vec(),
                    });
                }
                Descent::Nothing(name) => {
                    return Err(Error::NoLink {
                        name: name.clone(),
                        cid,
                    });
                }
            }
        }
        Ok(Resolved {
            cid,
            remainder: Vec::new(),
        })
    }

    /// The links of one block, with their names where the codec has them.
    pub async fn links(&self, cid: Cid) -> Result<Vec<(String, Cid)>, Error> {
        codec::links(&cid, &self.reader().get(cid).await?)
    }

    /// The links below a block, depth first, down to `max_depth` (`None`: all), each target once if
    /// `unique`.
    pub fn refs(
        &self,
        cid: Cid,
        max_depth: Option<u64>,
        unique: bool,
    ) -> BoxStream<'static, Result<Ref, Error>> {
        let reader = self.reader();
        produce(|out| dag::refs(reader, cid, max_depth, unique, out))
    }

    /// What is at a path, as DAG-JSON.
    pub async fn dag_get(&self, path: &DagPath) -> Result<String, Error> {
        let Resolved { cid, remainder } = self.resolve(path).await?;
        let block = codec::decode(&cid, &self.reader().get(cid).await?)?;
        match descend(&block, &remainder) {
            Descent::Inside(data) => dagjson::encode(data).map_err(|why| Error::malformed(&cid, why)),
            Descent::Link(..) => Err(Error::malformed(&cid, "it changed while it was read")),
            Descent::Nothing(name) => Err(Error::NoLink {
                name: name.clone(),
                cid,
            }),
        }
    }

    /// Stores one block given as DAG-JSON, DAG-CBOR, DAG-PB or raw bytes (`input`, a multicodec) in the form
    /// of another codec (`store`), hashed by the multihash code `hash`. Pins and syncs nothing.
    pub async fn dag_put(&self, data: &[u8], input: u64, store: u64, hash: u64) -> Result<Cid, Error> {
        if data.len() > PUT_MAX {
            return Err(Error::TooLarge {
                size: data.len(),
                max: PUT_MAX,
            });
        }
        let encoded = codec::recode(bytes::Bytes::copy_from_slice(data), input, store)?;
        let cid = crate::hash::name(cid::Version::V1, store, hash, &encoded)?;
        self.put(Block { cid, data: encoded }).await?;
        Ok(cid)
    }

    /// The DAG below a root as CARv1, each block once, depth first.
    pub fn dag_export(&self, root: Cid) -> ByteStream {
        let reader = self.reader();
        let mut blocks = produce(|out| async move { dag::blocks(reader, root, &out).await });
        produce(|out| async move {
            car::write_header(root, &out).await?;
            while let Some(block) = blocks.next().await {
                let (cid, data) = block?;
                car::write_block(cid, &data, &out).await?;
            }
            Ok(())
        })
    }

    /// Stores the blocks of a CAR (v1 or v2), checks each hash, syncs, and returns the roots it names
    /// with the number of blocks and bytes. Pins nothing: use [`Node::hold`] until that is done.
    pub async fn dag_import(
        &self,
        car: impl AsyncRead + Send + Unpin,
    ) -> Result<(Vec<Cid>, u64, u64), Error> {
        let mut car = CarReader::open(car).await?;
        let (mut count, mut total) = (0, 0);
        let (mut batch, mut batched) = (Vec::new(), 0);
        while let Some(block) = car.next().await? {
            count += 1;
            total += block.data.len() as u64;
            batched += block.data.len();
            batch.push(block);
            if batched >= IMPORT_BYTES || batch.len() >= IMPORT_BLOCKS {
                self.put_many(std::mem::take(&mut batch)).await?;
                batched = 0;
            }
        }
        self.put_many(batch).await?;
        self.sync().await?;
        Ok((car.roots, count, total))
    }
}

/// Where names lead inside one block.
enum Descent<'d, 'n> {
    Inside(&'d Ipld),
    Link(Cid, &'n [String]),
    Nothing(&'n String),
}

fn descend<'d, 'n>(mut data: &'d Ipld, mut names: &'n [String]) -> Descent<'d, 'n> {
    while let Some((name, after)) = names.split_first() {
        let next = match data {
            Ipld::Map(map) => map.get(name),
            Ipld::List(list) => name.parse().ok().and_then(|at: usize| list.get(at)),
            Ipld::Null
            | Ipld::Bool(_)
            | Ipld::Integer(_)
            | Ipld::Float(_)
            | Ipld::String(_)
            | Ipld::Bytes(_)
            | Ipld::Link(_) => None,
        };
        match next {
            None => return Descent::Nothing(name),
            Some(Ipld::Link(cid)) => return Descent::Link(crate::hash::long(cid), after),
            Some(next) => (data, names) = (next, after),
        }
    }
    Descent::Inside(data)
}
