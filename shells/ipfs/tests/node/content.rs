//! Stored content: blocks, pins, directories, archives, structured data.

use super::*;
use cluster_ipfs::{DagPath, PinFilter, PinStatus};
use futures::StreamExt;

#[tokio::test]
async fn block_that_does_not_match_its_cid_is_refused() {
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
async fn pins_are_listed_in_order_and_explain_kept_blocks() {
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
        let mut upload = node
            .add(AddOptions {
                hamt_threshold: threshold,
                ..AddOptions::default()
            })
            .unwrap();
        for i in 0..300 {
            let data = format!("content {i}");
            let path = format!("d/sub/file{i}");
            upload
                .file(&path, Metadata::default(), data.as_bytes(), |_| {})
                .await
                .unwrap();
        }
        upload
            .symlink("d/link", Metadata::default(), "sub/file1")
            .await
            .unwrap();
        let root = finish(upload, None).await.unwrap();
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
        names.sort_by_key(|entry| {
            entry
                .name
                .to_string()
                .strip_prefix("file")
                .unwrap()
                .parse::<u32>()
                .unwrap()
        });
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
async fn archives_round_trip_and_damaged_ones_are_refused() {
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
async fn structured_data_is_stored_and_read_by_path() {
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
