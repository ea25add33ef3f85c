//! Tests of walks against a model that knows every CID in full.

use super::*;
use crate::Multihash;
use crate::codec::Data;
use crate::reader::stream_from_task;
use crate::unixfs::Name;
use crate::unixfs::pb::{Link, PbNode};
use crate::{Block, codec};
use futures::TryStreamExt;
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

/// Construction of a node's CID.
#[derive(Debug, Clone, Copy)]
enum Naming {
    /// The CID holds the node, if it is short enough.
    Identity,
    /// A digest whose first bytes are shared by all nodes.
    SharedHead,
    /// A digest whose last bytes are shared by all nodes.
    SharedTail,
}

#[derive(Debug, Clone)]
struct Shape {
    naming: Naming,
    codec: u64,
    /// Earlier nodes, as indexes into all of them.
    links: Vec<prop::sample::Index>,
    /// Last bytes of the node, sometimes the same in different nodes.
    filler: u8,
}

fn shapes() -> impl Strategy<Value = Vec<Shape>> {
    let naming = prop_oneof![
        3 => Just(Naming::Identity),
        1 => Just(Naming::SharedHead),
        1 => Just(Naming::SharedTail),
    ];
    let codec = prop::sample::select(vec![codec::DAG_CBOR, codec::DAG_PB, codec::DAG_JSON]);
    let links = vec(any::<prop::sample::Index>(), 0..4);
    let shape = (naming, codec, links, 0_u8..3).prop_map(|(naming, codec, links, filler)| Shape {
        naming,
        codec,
        links,
        filler,
    });
    vec(shape, 1..40)
}

fn encoded(codec: u64, links: &[Cid], filler: u8) -> Bytes {
    let data = |links: &[Cid]| {
        let links = links.iter().map(|cid| Data::from(*cid)).collect();
        Data::Map(
            [
                ("t".to_owned(), Data::List(links)),
                ("z".to_owned(), Data::Integer(filler.into())),
            ]
            .into(),
        )
    };
    match codec {
        codec::DAG_PB => {
            let link = |cid: &Cid| Link {
                cid: *cid,
                name: Name::default(),
                size: 0,
            };
            let links = links.iter().map(link).collect();
            PbNode {
                links,
                data: Some(vec![filler].into()),
            }
            .encode()
            .into()
        }
        codec::DAG_JSON => crate::dagjson::encode(&data(links)).unwrap().into(),
        _ => serde_ipld_dagcbor::to_vec(&data(links)).unwrap().into(),
    }
}

fn named(shape: &Shape, number: usize, data: &[u8]) -> Cid {
    let mut digest = [7; 32];
    let hash = match shape.naming {
        Naming::Identity if data.len() <= 64 => Multihash::wrap(0, data),
        Naming::Identity | Naming::SharedHead => {
            digest[31] = number as u8;
            Multihash::wrap(0x12, &digest)
        }
        Naming::SharedTail => {
            digest[0] = number as u8;
            Multihash::wrap(0x12, &digest)
        }
    };
    Cid::new_v1(shape.codec, hash.unwrap())
}

/// A repository with the nodes of a DAG, and the links of each.
struct World {
    store: Store,
    runtime: Runtime,
    nodes: Vec<Cid>,
    links: BTreeMap<Cid, Vec<Cid>>,
    _folder: TempDir,
}

impl World {
    fn new(shapes: &[Shape]) -> World {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), None).unwrap();
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        let (mut nodes, mut links) = (Vec::<Cid>::new(), BTreeMap::new());
        let mut blocks = Vec::new();
        for (number, shape) in shapes.iter().enumerate() {
            let pick = |index: &prop::sample::Index| nodes[index.index(nodes.len())];
            let below: Vec<Cid> = if nodes.is_empty() {
                Vec::new()
            } else {
                shape.links.iter().map(pick).collect()
            };
            let data = encoded(shape.codec, &below, shape.filler);
            let cid = named(shape, number, &data);
            links.insert(cid, below);
            nodes.push(cid);
            blocks.push(Block { cid, data });
        }
        runtime.block_on(store.put(blocks)).unwrap();
        World {
            store,
            runtime,
            nodes,
            links,
            _folder: folder,
        }
    }

    fn below(&self, roots: &[Cid]) -> BTreeSet<Cid> {
        let mut found = BTreeSet::new();
        let mut stack = roots.to_vec();
        while let Some(cid) = stack.pop() {
            if found.insert(cid) {
                stack.extend(&self.links[&cid]);
            }
        }
        found
    }

    fn reader(&self) -> Reader {
        Reader {
            store: self.store.clone(),
            session: None,
            budget: crate::request_budget::RequestBudget::new(&Default::default()),
        }
    }
}

fn keys<'a>(cids: impl IntoIterator<Item = &'a Cid>) -> BTreeSet<Vec<u8>> {
    cids.into_iter()
        .filter(|cid| cid.hash().code() != 0)
        .map(key_of)
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn marking_keeps_exactly_what_lies_below_the_roots(
        shapes in shapes(),
        roots in vec(any::<prop::sample::Index>(), 1..4),
    ) {
        let world = World::new(&shapes);
        let roots: Vec<Cid> = roots.iter().map(|root| world.nodes[root.index(world.nodes.len())]).collect();
        let mut marked = Marked::default();
        for root in &roots {
            mark(&world.store, *root, true, &mut marked).unwrap();
        }
        let expected = keys(&world.below(&roots));
        for key in world.store.keys().unwrap() {
            let key = key.unwrap();
            prop_assert_eq!(marked.contains(&key), expected.contains(&key));
        }
        world.store.close();
    }

    #[test]
    fn walks_visit_every_block_below_a_root_once(shapes in shapes(), root in any::<prop::sample::Index>()) {
        let world = World::new(&shapes);
        let root = world.nodes[root.index(world.nodes.len())];
        let expected = world.below(&[root]);
        let reader = world.reader();
        let _entered = world.runtime.enter();
        let exported = world.runtime.block_on(
            stream_from_task(|out| async move { blocks(reader, root, &out).await }).try_collect::<Vec<_>>()
        ).unwrap();
        prop_assert_eq!(exported.len(), expected.len());
        prop_assert_eq!(&exported.iter().map(|(cid, _)| *cid).collect::<BTreeSet<_>>(), &expected);

        let reader = world.reader();
        let found = world.runtime.block_on(
            stream_from_task(|out| refs(reader, root, None, true, out)).try_collect::<Vec<_>>()
        ).unwrap();
        prop_assert_eq!(found.len(), expected.len() - 1);

        let counted = std::sync::Mutex::new(Progress::default());
        let note = |progress| *counted.lock().unwrap() = progress;
        world.runtime.block_on(fetch(&world.reader(), root, &note)).unwrap();
        prop_assert_eq!(counted.into_inner().unwrap().blocks, expected.len() as u64);

        let mut listed = BTreeSet::new();
        for_each_below(&world.store, root, &mut Visited::default(), &mut |cid| {
            listed.insert(cid);
            Ok(())
        }).unwrap();
        prop_assert_eq!(listed.len(), expected.len() - 1);
        for cid in &world.nodes {
            let reached = reaches(&world.store, &root, cid, &mut Visited::default()).unwrap();
            let below = expected.iter().any(|it| it.hash() == cid.hash() && *it != root);
            prop_assert_eq!(reached, below, "{}", cid);
        }
        world.store.close();
    }
}
