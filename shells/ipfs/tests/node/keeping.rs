//! Persistence: restarts, garbage collections, a full repository.

use super::*;
use futures::StreamExt;
use std::collections::BTreeSet;
use std::path::PathBuf;

#[tokio::test]
async fn restart_keeps_identity_blocks_and_pins_and_the_folder_is_locked() {
    let folder = tempfile::tempdir().unwrap();
    let node = open(folder.path(), None).await.unwrap();
    let id = node.id().peer_id;
    let cid = add(&node, AddOptions::default(), &content(1_000_000, 4), Some("kept")).await;
    let before = held(&node);
    let second = open(folder.path(), None).await.unwrap_err();
    assert!(matches!(second, Error::Locked(_)), "{second}");
    node.shutdown().await;
    assert!(matches!(node.get(cid).await, Err(Error::Closed)));
    let node = reopen(config(folder.path(), None)).await;
    assert_eq!(node.id().peer_id, id);
    assert_eq!(held(&node), before);
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
async fn acknowledged_writes_are_on_disk_without_a_shutdown() {
    let folder = tempfile::tempdir().unwrap();
    let node = open(folder.path(), None).await.unwrap();
    let cid = add(&node, AddOptions::default(), &content(3_000_000, 5), Some("")).await;
    // The files now are what a killed process leaves.
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

/// Copies a folder as of one moment: starts over if files came or went.
fn copy_folder(from: &Path, to: &Path) {
    for _ in 0..1000 {
        let copied = copy_files(from, to);
        if copied.is_ok_and(|copied| files(from).is_ok_and(|now| now == copied)) {
            return;
        }
        std::fs::remove_dir_all(to).unwrap();
    }
    panic!("{} does not come to rest", from.display());
}

/// Copies all files; returns which.
fn copy_files(from: &Path, to: &Path) -> std::io::Result<BTreeSet<PathBuf>> {
    let all = files(from)?;
    std::fs::create_dir_all(to)?;
    for path in &all {
        let target = to.join(path.strip_prefix(from).unwrap());
        if path.is_dir() {
            std::fs::create_dir_all(target)?;
        } else {
            std::fs::copy(path, target)?;
        }
    }
    Ok(all)
}

/// Lists all files and folders below one, parents first.
fn files(folder: &Path) -> std::io::Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(files(&entry.path())?);
        }
        found.insert(entry.path());
    }
    Ok(found)
}

#[tokio::test]
async fn collection_keeps_pinned_blocks_and_those_being_added() {
    let (node, _folder) = node().await;
    let kept = add(&node, deep(), &content(40_000, 6), Some("")).await;
    let dropped = add(&node, deep(), &content(40_000, 7), None).await;
    let direct = raw(b"direct");
    node.put(direct.clone()).await.unwrap();
    node.pin(direct.cid, PinMode::Direct, String::new(), |_| {})
        .await
        .unwrap();
    let mut upload = node.add(AddOptions::default()).unwrap();
    let during = upload
        .file("f", Metadata::default(), &content(5000, 8)[..], |_| {})
        .await
        .unwrap()
        .cid;
    while !node.has(&during).unwrap() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let objects = node.stat().unwrap().num_objects;
    let removed = collect(&node).await;
    assert!(removed.iter().any(|cid| cid.hash() == dropped.hash()));
    assert_eq!(node.stat().unwrap().num_objects, objects - removed.len() as u64);
    assert!(node.has(&during).unwrap() && node.has(&direct.cid).unwrap());
    assert_eq!(cat(&node.offline(), kept, 0, None).await, content(40_000, 6));
    finish(upload, Some("")).await.unwrap();
    assert_eq!(collect(&node).await, []);

    assert_eq!(node.unpin(&kept).await.unwrap(), PinMode::Recursive);
    assert!(matches!(node.unpin(&kept).await, Err(Error::NotPinned(_))));
    let removed = collect(&node).await;
    assert!(removed.iter().any(|cid| cid.hash() == kept.hash()));
    assert_eq!(
        node.local_refs().count().await as u64,
        node.stat().unwrap().num_objects
    );
}

#[tokio::test]
async fn collections_concurrent_with_uploads_and_pins_lose_nothing() {
    let ((a, _fa), (b, _fb)) = (node().await, node().await);
    connect_nodes(&b, &a).await;
    // Ends between two collections: one that is cut off continues in its thread after its folder is removed.
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let collecting = tokio::spawn({
        let b = b.clone();
        async move {
            while !*stopped.borrow() {
                collect(&b).await;
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
    stop.send_replace(true);
    collecting.await.unwrap();
    for (root, seed) in roots {
        assert_eq!(cat(&b.offline(), root, 0, None).await, content(60_000, seed));
    }
}

#[tokio::test]
async fn full_repository_refuses_blocks_and_stays_usable() {
    let folder = tempfile::tempdir().unwrap();
    let node = open(folder.path(), Some(100_000)).await.unwrap();
    let kept = add(&node, AddOptions::default(), &content(50_000, 9), Some("")).await;
    let data = content(80_000, 10);
    let mut upload = node.add(AddOptions::default()).unwrap();
    let added = upload.file("f", Metadata::default(), &data[..], |_| {}).await;
    let result = match added {
        Ok(_) => finish(upload, Some("")).await.map(drop),
        Err(error) => Err(error),
    };
    assert!(
        matches!(result, Err(Error::Full { max: 100_000, .. })),
        "{result:?}"
    );
    assert_eq!(node.stat().unwrap().num_pins, 1);
    assert_eq!(cat(&node, kept, 0, None).await.len(), 50_000);
    // Content that is already stored needs no room.
    assert_eq!(
        add(&node, AddOptions::default(), &content(50_000, 9), Some("")).await,
        kept
    );

    let (other, _fo) = self::node().await;
    let big = add(&other, AddOptions::default(), &data, Some("")).await;
    connect_nodes(&node, &other).await;
    let pinned = timeout(SOON, node.pin(big, PinMode::Recursive, String::new(), |_| {})).await;
    let pinned = pinned.expect("a full repository answers");
    assert!(matches!(pinned, Err(Error::Full { .. })), "{pinned:?}");
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
    // A separate sync for each would take longer on any disk with slow syncs.
    assert!(started.elapsed() < SOON / 2);
}
