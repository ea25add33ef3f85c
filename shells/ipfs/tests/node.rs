//! Embedded nodes in the real world: disks, sockets, restarts, each other.

use cluster_ipfs::unixfs::{AddOptions, Chunker, Metadata};
use cluster_ipfs::{Block, Cid, Config, DagPath, Error, Node, PinFilter, PinMode, PinStatus, Progress};
use futures::{StreamExt, TryStreamExt};
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(20);

async fn open(path: &Path, storage_max: Option<u64>) -> Result<Node, Error> {
    let swarm_listen = vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()];
    Node::open(Config {
        path: path.to_owned(),
        swarm_listen,
        storage_max,
    })
    .await
}

async fn node() -> (Node, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (open(folder.path(), None).await.unwrap(), folder)
}

async fn introduce(from: &Node, to: &Node) {
    from.connect(to.id().addresses.first().unwrap().clone())
        .await
        .unwrap();
}

/// Bytes that no chunk repeats.
fn content(length: usize, seed: u64) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::repeat_with(|| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x.to_le_bytes()
    })
    .take(length / 8 + 1)
    .flatten()
    .take(length)
    .collect()
}

fn raw(data: &[u8]) -> Block {
    use multihash_codetable::{Code, MultihashDigest};
    Block {
        cid: Cid::new_v1(0x55, Code::Sha2_256.digest(data)),
        data: data.to_vec().into(),
    }
}

/// A file of many small chunks, so that its tree is three levels deep.
fn deep() -> AddOptions {
    AddOptions {
        chunker: Chunker::Size(256),
        max_file_links: 20,
        ..AddOptions::default()
    }
}

async fn add(node: &Node, options: AddOptions, data: &[u8], pin: Option<&str>) -> Cid {
    let mut adding = node.add(options).unwrap();
    adding.file("f", Metadata::default(), data, |_| {}).await.unwrap();
    adding.finish(pin.map(str::to_owned)).await.unwrap().roots[0].cid
}

async fn cat(node: &Node, cid: Cid, offset: u64, length: Option<u64>) -> Vec<u8> {
    let parts: Vec<_> = node
        .cat(cid, offset, length)
        .await
        .unwrap()
        .try_collect()
        .await
        .unwrap();
    parts.concat()
}

async fn pin(node: &Node, cid: Cid) {
    timeout(SOON, node.pin(cid, PinMode::Recursive, String::new(), |_| {}))
        .await
        .expect("in time")
        .unwrap();
}

#[tokio::test]
async fn a_deep_dag_is_pinned_from_another_node_with_progress() {
    let ((a, _fa), (b, _fb)) = (node().await, node().await);
    let data = content(300_000, 1);
    let cid = add(&a, deep(), &data, Some("")).await;
    introduce(&b, &a).await;
    let last = Mutex::new(Progress::default());
    let pinned = b.pin(cid, PinMode::Recursive, "name".into(), |progress| {
        *last.lock().unwrap() = progress
    });
    timeout(SOON, pinned).await.expect("in time").unwrap();
    let (stat_a, stat_b) = (a.stat().unwrap(), b.stat().unwrap());
    assert_eq!(
        (stat_a.num_objects, stat_a.repo_size),
        (stat_b.num_objects, stat_b.repo_size)
    );
    let last = *last.lock().unwrap();
    assert_eq!((last.blocks, last.bytes), (stat_b.num_objects, stat_b.repo_size));
    assert_eq!(b.pin_of(&cid).unwrap().unwrap().name, "name");
    // All of it is here now.
    a.shutdown().await;
    assert_eq!(cat(&b.offline(), cid, 0, None).await, data);
    assert_eq!(cat(&b.offline(), cid, 1000, Some(5000)).await, data[1000..6000]);
    assert_eq!(cat(&b.offline(), cid, 299_990, Some(5000)).await, data[299_990..]);
}

#[tokio::test]
async fn a_pin_waits_for_content_that_appears_later() {
    let ((a, _fa), (b, _fb)) = (node().await, node().await);
    introduce(&b, &a).await;
    let block = raw(b"not there yet");
    let waiting = tokio::spawn({
        let (b, cid) = (b.clone(), block.cid);
        async move { b.pin(cid, PinMode::Recursive, String::new(), |_| {}).await }
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!waiting.is_finished());
    a.put(block.clone()).await.unwrap();
    // It is told at once, not asked for again after a while.
    timeout(Duration::from_secs(5), waiting)
        .await
        .expect("in time")
        .unwrap()
        .unwrap();
    assert!(b.has(&block.cid).unwrap());
}

#[tokio::test]
async fn a_pin_finds_the_holder_that_connects_later_and_either_way_round() {
    let ((a, _fa), (b, _fb)) = (node().await, node().await);
    let cid = add(&a, deep(), &content(50_000, 2), None).await;
    let waiting = tokio::spawn({
        let b = b.clone();
        async move { pin(&b, cid).await }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    introduce(&a, &b).await;
    waiting.await.unwrap();
}

#[tokio::test]
async fn a_dropped_pin_is_cancelled_and_not_recorded() {
    let ((a, _fa), (b, _fb)) = (node().await, node().await);
    introduce(&b, &a).await;
    let block = raw(b"never");
    let pinning = b.pin(block.cid, PinMode::Recursive, String::new(), |_| {});
    assert!(timeout(Duration::from_millis(300), pinning).await.is_err());
    a.put(block.clone()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(b.pin_of(&block.cid).unwrap().is_none());
    assert!(!b.has(&block.cid).unwrap());
}

#[tokio::test]
async fn blocks_come_from_several_holders_and_survive_the_loss_of_one() {
    let ((a, _fa), (b, _fb), (c, _fc)) = (node().await, node().await, node().await);
    let data = content(2_000_000, 3);
    let cid = add(&a, deep(), &data, Some("")).await;
    assert_eq!(add(&b, deep(), &data, Some("")).await, cid);
    introduce(&c, &a).await;
    introduce(&c, &b).await;
    let waiting = tokio::spawn({
        let c = c.clone();
        async move { pin(&c, cid).await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    a.shutdown().await;
    waiting.await.unwrap();
    assert_eq!(cat(&c.offline(), cid, 0, None).await, data);
}

#[tokio::test]
async fn a_lost_peer_is_dialled_again() {
    let ((a, fa), (b, _fb)) = (node().await, node().await);
    let address = a.id().addresses[0].clone();
    introduce(&b, &a).await;
    let listen = {
        let mut address = address.clone();
        address.pop();
        address
    };
    a.shutdown().await;
    drop(a);
    let gone = async {
        while !b.peers().await.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, gone).await.expect("noticed");
    let config = Config {
        path: fa.path().to_owned(),
        swarm_listen: vec![listen],
        storage_max: None,
    };
    let a = Node::open(config).await.unwrap();
    let back = async {
        while b.peers().await.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, back).await.expect("dialled again");
    b.disconnect(a.id().peer_id).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(
        b.peers().await.is_empty(),
        "a peer that was let go is not dialled"
    );
}

#[tokio::test]
async fn a_restart_keeps_identity_blocks_and_pins_and_a_second_opener_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let node = open(folder.path(), None).await.unwrap();
    let id = node.id().peer_id;
    let cid = add(&node, AddOptions::default(), &content(1_000_000, 4), Some("kept")).await;
    let before = node.stat().unwrap();
    let second = open(folder.path(), None).await.unwrap_err();
    assert!(matches!(second, Error::Locked(_)), "{second}");
    node.shutdown().await;
    assert!(matches!(node.get(cid).await, Err(Error::Closed)));
    let node = open(folder.path(), None).await.unwrap();
    assert_eq!(node.id().peer_id, id);
    assert_eq!(node.stat().unwrap(), before);
    assert_eq!(node.pin_of(&cid).unwrap().unwrap().name, "kept");
    assert_eq!(cat(&node.offline(), cid, 0, None).await, content(1_000_000, 4));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(folder.path().join("identity"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[tokio::test]
async fn what_was_acknowledged_is_on_disk_without_a_shutdown() {
    let folder = tempfile::tempdir().unwrap();
    let node = open(folder.path(), None).await.unwrap();
    let cid = add(&node, AddOptions::default(), &content(3_000_000, 5), Some("")).await;
    // What the disk has now is what a killed process leaves.
    let copy = tempfile::tempdir().unwrap();
    copy_folder(folder.path(), copy.path());
    let recovered = open(copy.path(), None).await.unwrap();
    assert_eq!(
        recovered.stat().unwrap().num_objects,
        node.stat().unwrap().num_objects
    );
    assert_eq!(recovered.stat().unwrap().num_pins, 1);
    assert_eq!(
        cat(&recovered.offline(), cid, 0, None).await,
        content(3_000_000, 5)
    );
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test]
async fn collection_keeps_what_is_pinned_and_what_is_being_added() {
    let (node, _folder) = node().await;
    let kept = add(&node, deep(), &content(40_000, 6), Some("")).await;
    let dropped = add(&node, deep(), &content(40_000, 7), None).await;
    let direct = raw(b"direct");
    node.put(direct.clone()).await.unwrap();
    node.pin(direct.cid, PinMode::Direct, String::new(), |_| {})
        .await
        .unwrap();
    let mut adding = node.add(AddOptions::default()).unwrap();
    let during = adding
        .file("f", Metadata::default(), &content(5000, 8)[..], |_| {})
        .await
        .unwrap()
        .cid;
    while !node.has(&during).unwrap() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let objects = node.stat().unwrap().num_objects;
    let removed: Vec<Cid> = node.gc().try_collect().await.unwrap();
    assert!(removed.iter().any(|cid| cid.hash() == dropped.hash()));
    assert_eq!(node.stat().unwrap().num_objects, objects - removed.len() as u64);
    assert!(node.has(&during).unwrap() && node.has(&direct.cid).unwrap());
    assert_eq!(cat(&node.offline(), kept, 0, None).await, content(40_000, 6));
    adding.finish(Some(String::new())).await.unwrap();
    assert_eq!(node.gc().count().await, 0);

    assert_eq!(node.unpin(&kept).await.unwrap(), PinMode::Recursive);
    assert!(matches!(node.unpin(&kept).await, Err(Error::NotPinned(_))));
    let removed: Vec<Cid> = node.gc().try_collect().await.unwrap();
    assert!(removed.iter().any(|cid| cid.hash() == kept.hash()));
    assert_eq!(
        node.local_refs().count().await as u64,
        node.stat().unwrap().num_objects
    );
}

#[tokio::test]
async fn collections_beside_uploads_and_pins_lose_nothing() {
    let ((a, _fa), (b, _fb)) = (node().await, node().await);
    introduce(&b, &a).await;
    let collecting = tokio::spawn({
        let b = b.clone();
        async move {
            loop {
                let _: Vec<Cid> = b.gc().try_collect().await.unwrap();
            }
        }
    });
    let mut roots = Vec::new();
    for round in 0..6 {
        let data = content(60_000, 100 + round);
        let there = add(&a, deep(), &data, Some("")).await;
        let here = add(&b, deep(), &content(60_000, 200 + round), Some("")).await;
        pin(&b, there).await;
        roots.extend([(there, 100 + round), (here, 200 + round)]);
    }
    collecting.abort();
    for (root, seed) in roots {
        assert_eq!(cat(&b.offline(), root, 0, None).await, content(60_000, seed));
    }
}

#[tokio::test]
async fn a_full_repository_refuses_and_stays_usable() {
    let folder = tempfile::tempdir().unwrap();
    let node = open(folder.path(), Some(100_000)).await.unwrap();
    let kept = add(&node, AddOptions::default(), &content(50_000, 9), Some("")).await;
    let data = content(80_000, 10);
    let mut adding = node.add(AddOptions::default()).unwrap();
    let added = adding.file("f", Metadata::default(), &data[..], |_| {}).await;
    let result = match added {
        Ok(_) => adding.finish(Some(String::new())).await.map(drop),
        Err(error) => Err(error),
    };
    assert!(
        matches!(result, Err(Error::Full { max: 100_000, .. })),
        "{result:?}"
    );
    assert_eq!(node.stat().unwrap().num_pins, 1);
    assert_eq!(cat(&node, kept, 0, None).await.len(), 50_000);
    // What is here already needs no room.
    assert_eq!(
        add(&node, AddOptions::default(), &content(50_000, 9), Some("")).await,
        kept
    );

    let (other, _fo) = self::node().await;
    let big = add(&other, AddOptions::default(), &data, Some("")).await;
    introduce(&node, &other).await;
    let pinned = timeout(SOON, node.pin(big, PinMode::Recursive, String::new(), |_| {})).await;
    let pinned = pinned.expect("a full repository answers");
    assert!(matches!(pinned, Err(Error::Full { .. })), "{pinned:?}");
}

#[tokio::test]
async fn garbage_on_the_swarm_port_harms_nobody() {
    let ((a, _fa), (b, _fb)) = (node().await, node().await);
    let address = a.id().addresses[0].to_string();
    let port: u16 = address.split('/').nth(4).unwrap().parse().unwrap();
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0xff; 10_000],
        b"\x13/multistream/1.0.0\n\x07/noise\n",
    ] {
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        stream.write_all(&content(5000, 11)).await.unwrap();
        let mut answer = Vec::new();
        let _ = timeout(Duration::from_millis(300), stream.read_to_end(&mut answer)).await;
    }
    let cid = add(&a, deep(), &content(20_000, 12), None).await;
    introduce(&b, &a).await;
    pin(&b, cid).await;
}

#[tokio::test]
async fn a_block_that_is_not_its_cid_is_refused() {
    let (node, _folder) = node().await;
    let wrong = Block {
        cid: raw(b"one").cid,
        data: b"two".to_vec().into(),
    };
    assert!(matches!(node.put(wrong.clone()).await, Err(Error::Mismatch(_))));
    let both = node.put_many(vec![raw(b"three"), wrong]).await;
    assert!(
        both.is_err() && !node.has(&raw(b"three").cid).unwrap(),
        "all or none"
    );
    let huge = raw(&vec![0; (2 << 20) + 1]);
    assert!(matches!(node.put(huge).await, Err(Error::TooLarge { .. })));
    assert!(matches!(
        node.offline().get(raw(b"absent").cid).await,
        Err(Error::NotFound(_))
    ));
}

#[tokio::test]
async fn pins_are_listed_in_order_and_say_why_a_block_is_kept() {
    let (node, _folder) = node().await;
    let root = add(&node, deep(), &content(10_000, 13), Some("tree")).await;
    let mut expected = vec![root];
    for i in 0..1200u32 {
        let hash = cid::multihash::Multihash::wrap(0, &i.to_be_bytes()).unwrap();
        let cid = Cid::new_v1(0x55, hash);
        node.pin(cid, PinMode::Recursive, format!("n{}", i % 2), |_| {})
            .await
            .unwrap();
        expected.push(cid);
    }
    expected.sort_by_key(Cid::to_bytes);
    let listed: Vec<_> = node.pins(PinFilter::default()).try_collect().await.unwrap();
    assert_eq!(listed.iter().map(|pin| pin.cid).collect::<Vec<_>>(), expected);
    let odd = PinFilter {
        mode: None,
        name: Some("n1".into()),
    };
    assert_eq!(node.pins(odd).count().await, 600);
    let direct = PinFilter {
        mode: Some(PinMode::Direct),
        name: None,
    };
    assert_eq!(node.pins(direct).count().await, 0);
    assert_eq!(node.stat().unwrap().num_pins, 1201);

    let (_, leaf) = node.links(root).await.unwrap().remove(0);
    assert_eq!(
        node.pin_status(&leaf).await.unwrap(),
        Some(PinStatus::Indirect(root))
    );
    assert!(matches!(node.delete(&leaf).await, Err(Error::Pinned { .. })));
    let direct = node.pin(root, PinMode::Direct, String::new(), |_| {}).await;
    assert!(matches!(direct, Err(Error::Pinned { .. })), "{direct:?}");
    let below = node.indirect_pins().count().await as u64;
    assert_eq!(below, node.stat().unwrap().num_objects - 1);

    let next = add(&node, deep(), &content(12_000, 14), None).await;
    node.pin_update(&root, next, true).await.unwrap();
    assert!(node.pin_of(&root).unwrap().is_none());
    assert_eq!(node.pin_of(&next).unwrap().unwrap().name, "tree");
    node.delete(&leaf).await.unwrap();
    assert!(!node.has(&leaf).unwrap());
}

#[tokio::test]
async fn directories_are_listed_resolved_and_archived_sharded_or_not() {
    let (node, _folder) = node().await;
    for threshold in [262_144, 1] {
        let mut adding = node
            .add(AddOptions {
                hamt_threshold: threshold,
                ..AddOptions::default()
            })
            .unwrap();
        for i in 0..300 {
            let data = format!("content {i}");
            let path = format!("d/sub/file{i}");
            adding
                .file(&path, Metadata::default(), data.as_bytes(), |_| {})
                .await
                .unwrap();
        }
        adding
            .symlink("d/link", Metadata::default(), "sub/file1")
            .await
            .unwrap();
        let root = adding.finish(None).await.unwrap().roots[0].cid;
        let path: DagPath = format!("/ipfs/{root}/sub/file77").parse().unwrap();
        let file = node.resolve(&path).await.unwrap();
        assert_eq!(cat(&node, file.cid, 0, None).await, b"content 77");
        let missing: DagPath = format!("{root}/sub/nothing").parse().unwrap();
        assert!(matches!(node.resolve(&missing).await, Err(Error::NoLink { .. })));
        assert!(matches!(
            node.cat(root, 0, None).await.map(drop),
            Err(Error::IsDirectory)
        ));
        let sub = node
            .resolve(&format!("{root}/sub").parse().unwrap())
            .await
            .unwrap()
            .cid;
        let mut names: Vec<_> = node.ls(sub, true).await.unwrap().try_collect().await.unwrap();
        names.sort_by_key(|entry| entry.name.strip_prefix("file").unwrap().parse::<u32>().unwrap());
        assert_eq!(names.len(), 300);
        assert_eq!(names[299].target.as_ref().unwrap().bytes, 11);
        check_archive(&node, root).await;
    }
}

/// Unpacks the archive with the system's tar, if there is one.
async fn check_archive(node: &Node, root: Cid) {
    let parts: Vec<_> = node.tar(root, "out".into()).try_collect().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.tar"), parts.concat()).unwrap();
    let mut tar = std::process::Command::new("tar");
    let Ok(status) = tar.args(["-xf", "a.tar"]).current_dir(folder.path()).status() else {
        return;
    };
    assert!(status.success());
    let unpacked = std::fs::read(folder.path().join("out/sub/file299")).unwrap();
    assert_eq!(unpacked, b"content 299");
    assert_eq!(
        std::fs::read_link(folder.path().join("out/link")).unwrap(),
        Path::new("sub/file1")
    );
}

#[tokio::test]
async fn archives_go_out_and_come_in_and_damaged_ones_are_refused() {
    let ((a, _fa), (b, _fb)) = (node().await, node().await);
    let data = content(100_000, 15);
    let root = add(&a, deep(), &data, None).await;
    let parts: Vec<_> = a.dag_export(root).try_collect().await.unwrap();
    let mut car = parts.concat();
    let (roots, blocks, _) = b.dag_import(car.as_slice()).await.unwrap();
    assert_eq!((roots, blocks), (vec![root], a.stat().unwrap().num_objects));
    assert_eq!(cat(&b.offline(), root, 0, None).await, data);
    assert!(b.dag_import(&car[..car.len() - 1]).await.is_err());
    *car.last_mut().unwrap() ^= 1;
    assert!(matches!(
        b.dag_import(car.as_slice()).await,
        Err(Error::Mismatch(_))
    ));
    assert!(b.dag_import(&b"no car at all"[..]).await.is_err());
    let refs: Vec<_> = b.refs(root, None, true).try_collect().await.unwrap();
    assert_eq!(refs.len() as u64, blocks - 1);
}

#[tokio::test]
async fn structured_data_is_put_and_read_by_path() {
    let (node, _folder) = node().await;
    let leaf = node
        .dag_put(br#"{"deep":[1,2,{"x":"y"}]}"#, 0x0129, 0x71, 0x12)
        .await
        .unwrap();
    let root = format!(r#"{{"link":{{"/":"{leaf}"}},"bytes":{{"/":{{"bytes":"AQI"}}}}}}"#);
    let root = node.dag_put(root.as_bytes(), 0x0129, 0x71, 0x12).await.unwrap();
    let get = async |path: &str| node.dag_get(&path.parse().unwrap()).await;
    assert_eq!(get(&format!("{root}/link/deep/2")).await.unwrap(), r#"{"x":"y"}"#);
    assert_eq!(
        get(&format!("{root}/bytes")).await.unwrap(),
        r#"{"/":{"bytes":"AQI"}}"#
    );
    assert!(matches!(
        get(&format!("{root}/nothing")).await,
        Err(Error::NoLink { .. })
    ));
    pin(&node, root).await;
    assert_eq!(
        node.pin_status(&leaf).await.unwrap(),
        Some(PinStatus::Indirect(root))
    );
    let file = add(&node, AddOptions::default(), b"hello", None).await;
    let expected = r#"{"Data":{"/":{"bytes":"CAISBWhlbGxvGAU"}},"Links":[]}"#;
    assert_eq!(get(&file.to_string()).await.unwrap(), expected);
}

#[tokio::test]
async fn sixteen_callers_share_the_syncs_of_their_pins() {
    let (node, _folder) = node().await;
    let started = std::time::Instant::now();
    let callers = (0..16u32).map(|caller| {
        let node = node.clone();
        tokio::spawn(async move {
            for i in 0..100u32 {
                let digest = [caller.to_be_bytes(), i.to_be_bytes()].concat();
                let hash = cid::multihash::Multihash::wrap(0, &digest).unwrap();
                let cid = Cid::new_v1(0x55, hash);
                node.pin(cid, PinMode::Recursive, String::new(), |_| {})
                    .await
                    .unwrap();
            }
        })
    });
    futures::future::try_join_all(callers).await.unwrap();
    assert_eq!(node.stat().unwrap().num_pins, 1600);
    // A sync of its own for each would take longer on any disk that syncs.
    assert!(started.elapsed() < SOON);
}
