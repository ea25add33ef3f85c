//! Tests: small blocks that describe large DAGs are read within limits, or refused.

use super::*;
use crate::Multihash;
use crate::reader::stream_from_task;
use crate::request_budget::RequestBudget;
use crate::store::Store;
use crate::unixfs::tar;
use crate::{Block, dag, hash};
use futures::TryStreamExt;
use tempfile::TempDir;

const WIDTH: usize = 10_000;
const LEVELS: usize = 150;

struct Local {
    store: Store,
    _folder: TempDir,
}

impl Local {
    fn new() -> Local {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), None).unwrap();
        Local {
            store,
            _folder: folder,
        }
    }

    fn reader(&self) -> Reader {
        Reader {
            store: self.store.clone(),
            session: None,
            budget: RequestBudget::new(&Default::default()),
        }
    }

    async fn put(&self, node: Unixfs, links: Vec<Link>) -> Cid {
        let node = PbNode {
            links,
            data: Some(node.encode().into()),
        };
        let data = Bytes::from(node.encode());
        let cid = hash::compute_cid(cid::Version::V1, codec::DAG_PB, 0x12, &data).unwrap();
        self.store.put(vec![Block { cid, data }]).await.unwrap();
        cid
    }

    /// Builds a chain of nodes, each of which links to the next, and then to many small leaves.
    async fn wide_chain(&self, kind: Type) -> Cid {
        let mut below = inline(b"end");
        for level in 0..LEVELS {
            let leaf = |number: usize| inline(&[level as u8, number as u8, (number >> 8) as u8]);
            let link = |(number, cid)| Link {
                cid,
                name: format!("{number}").into(),
                size: 3,
            };
            let links = std::iter::once(below)
                .chain((1..WIDTH).map(leaf))
                .enumerate()
                .map(link)
                .collect();
            let mut node = Unixfs::new(kind);
            node.size = Some(u64::MAX);
            below = self.put(node, links).await;
        }
        below
    }
}

fn inline(data: &[u8]) -> Cid {
    Cid::new_v1(codec::RAW, Multihash::wrap(0, data).unwrap())
}

fn shard() -> Unixfs {
    let mut node = Unixfs::new(Type::Shard);
    node.hash_type = Some(hamt::MURMUR3);
    node.fanout = Some(256);
    node.data = Some(Bytes::from(vec![0xff; 32]));
    node
}

fn refused<T: std::fmt::Debug>(result: Result<T, Error>) {
    assert!(
        matches!(result, Err(Error::TooMuchMemory { .. })),
        "{:?}",
        result.map(|_| ())
    );
}

/// Returns the number of items of the stream.
async fn count<T: Send + 'static>(
    stream: futures::stream::BoxStream<'static, Result<T, Error>>,
) -> Result<usize, Error> {
    stream.try_fold(0, async |count, _| Ok(count + 1)).await
}

#[tokio::test]
async fn repeated_shards_are_listed_once() {
    let local = Local::new();
    let name = |slot: usize, name: &str| format!("{slot:02X}{name}");
    let names = (0..256).map(|slot| Link {
        cid: inline(b"x"),
        name: name(slot, "name").into(),
        size: 1,
    });
    let mut root = local.put(shard(), names.collect()).await;
    // 256^6 names, in 7 blocks.
    for _ in 0..5 {
        let links = (0..256).map(|slot| Link {
            cid: root,
            name: name(slot, "").into(),
            size: 1,
        });
        root = local.put(shard(), links.collect()).await;
    }
    let reader = local.reader();
    let listed = stream_from_task(|out| async move { list(&reader, root, &out).await });
    assert_eq!(count(listed).await.unwrap(), 256);
    let archive = stream_from_task(|out| tar::archive(local.reader(), root, "d".into(), out));
    // The header of the directory; header, content and padding of each file; the end.
    assert_eq!(count(archive).await.unwrap(), 1 + 3 * 256 + 1);
    local.store.close();
}

#[tokio::test]
async fn shards_that_are_too_wide_or_too_deep_are_refused() {
    let local = Local::new();
    let link = |cid, slot: usize, name: &str| Link {
        cid,
        name: format!("{:02X}{name}", slot % 256).into(),
        size: 1,
    };
    let wide = (0..257).map(|slot| link(inline(b"x"), slot, &slot.to_string()));
    let wide = local.put(shard(), wide.collect()).await;
    let mut deep = local.put(shard(), vec![link(inline(b"x"), 0, "name")]).await;
    for slot in 0..8 {
        deep = local.put(shard(), vec![link(deep, slot, "")]).await;
    }
    for root in [wide, deep] {
        let reader = local.reader();
        let listed = count(stream_from_task(
            |out| async move { list(&reader, root, &out).await },
        ))
        .await;
        assert!(matches!(listed, Err(Error::Malformed { .. })), "{listed:?}");
    }
    local.store.close();
}

#[tokio::test]
async fn walks_are_refused_beyond_their_memory() {
    let local = Local::new();
    let root = local.wide_chain(Type::File).await;
    let reader = local.reader();
    let block = reader.get(root).await.unwrap();
    refused(count(Content::new(reader, (root, block), 0, u64::MAX).stream()).await);
    let reader = local.reader();
    refused(
        count(stream_from_task(|out| async move {
            dag::refs(reader, root, None, true, out).await
        }))
        .await,
    );
    let reader = local.reader();
    refused(
        count(stream_from_task(|out| async move {
            dag::blocks(reader, root, &out).await
        }))
        .await,
    );
    refused(dag::fetch(&local.reader(), root, &|_| {}).await);
    local.store.close();
}

#[tokio::test]
async fn archive_is_refused_beyond_the_memory_of_its_directories() {
    let local = Local::new();
    let root = local.wide_chain(Type::Directory).await;
    refused(
        count(stream_from_task(|out| {
            tar::archive(local.reader(), root, "d".into(), out)
        }))
        .await,
    );
    local.store.close();
}

#[tokio::test]
async fn file_with_parts_declared_empty_is_read() {
    let local = Local::new();
    let mut node = Unixfs::new(Type::File);
    node.size = Some(11);
    node.block_sizes = vec![0, 0];
    let link = |data: &[u8]| Link {
        cid: inline(data),
        name: String::new().into(),
        size: 0,
    };
    let root = local.put(node, vec![link(b"hello "), link(b"world")]).await;
    let reader = local.reader();
    let block = reader.get(root).await.unwrap();
    let pieces = Content::new(reader, (root, block), 0, 11).stream();
    assert_eq!(
        pieces.try_collect::<Vec<_>>().await.unwrap().concat(),
        b"hello world"
    );
    local.store.close();
}
