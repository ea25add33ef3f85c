//! Damage on the disk: detected, reported, and repaired from other peers' copies.

use super::*;
use std::os::unix::fs::FileExt;

/// Flips a bit of every occurrence of `needle` in the segments of a node; returns their number.
fn rot(folder: &Path, needle: &[u8]) -> usize {
    let mut found = 0;
    for entry in std::fs::read_dir(folder.join("segments")).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        for at in memchr::memmem::find_iter(&bytes, needle) {
            file.write_all_at(&[bytes[at] ^ 1], at as u64).unwrap();
            found += 1;
        }
    }
    found
}

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, waiting).await.expect(what);
}

async fn reads(node: &Node, cid: Cid, expected: &[u8]) -> bool {
    let Ok(pieces) = node.cat(cid, 0, None).await else {
        return false;
    };
    pieces
        .try_collect::<Vec<_>>()
        .await
        .is_ok_and(|parts| parts.concat() == expected)
}

#[tokio::test]
async fn damaged_block_is_replaced_by_a_peers_copy_when_read() {
    let ((a, fa), (b, _fb)) = (node().await, node().await);
    let data = content(600_000, 31);
    let cid = add(&a, AddOptions::default(), &data, Some("")).await;
    a.sync().await.unwrap();
    connect_nodes(&b, &a).await;
    pin(&b, cid).await;
    let before = held(&a);
    assert_eq!(rot(fa.path(), &data[300_000..300_016]), 1);
    assert_eq!(cat(&a, cid, 0, None).await, data);
    eventually("the copy here is whole", async || {
        reads(&a.offline(), cid, &data).await
    })
    .await;
    eventually("the pin is whole", async || !a.is_broken(&cid)).await;
    assert_eq!(held(&a), before);
    assert_eq!(a.verify_pin(&cid).await.unwrap(), 0);
}

#[tokio::test]
async fn damaged_pin_is_reported_until_a_peer_with_a_copy_connects() {
    let ((a, fa), (b, _fb)) = (node().await, node().await);
    let data = content(600_000, 32);
    let cid = add(&a, AddOptions::default(), &data, Some("")).await;
    add(&b, AddOptions::default(), &data, Some("")).await;
    a.sync().await.unwrap();
    assert_eq!(
        rot(fa.path(), &data[..16]) + rot(fa.path(), &data[500_000..500_016]),
        2
    );
    assert_eq!(a.verify_pin(&cid).await.unwrap(), 2);
    assert_eq!(timeout(SOON, a.next_broken_pin()).await.unwrap(), cid);
    assert!(a.is_broken(&cid));
    let error = a.offline().cat(cid, 0, None).await.unwrap();
    let error = error.try_collect::<Vec<_>>().await.unwrap_err();
    assert!(matches!(error, Error::DamagedBlock { .. }), "{error}");
    connect_nodes(&a, &b).await;
    // Pinning again waits for the missing blocks, like the first time.
    pin(&a, cid).await;
    assert!(!a.is_broken(&cid));
    assert_eq!(cat(&a.offline(), cid, 0, None).await, data);
    assert_eq!(a.verify_pin(&cid).await.unwrap(), 0);
}

#[tokio::test]
async fn damaged_inner_block_and_direct_pin_are_repaired() {
    let ((a, fa), (b, _fb)) = (node().await, node().await);
    let deep_data = content(100_000, 33);
    let root = add(&a, deep(), &deep_data, Some("")).await;
    let direct = raw(&content(2000, 34));
    for node in [&a, &b] {
        node.put(direct.clone()).await.unwrap();
        node.pin(direct.cid, PinMode::Direct, String::new(), |_| {})
            .await
            .unwrap();
    }
    connect_nodes(&b, &a).await;
    pin(&b, root).await;
    a.sync().await.unwrap();
    let inner = a.get_local(&root).unwrap().unwrap();
    assert_eq!(rot(fa.path(), &inner), 1);
    assert_eq!(rot(fa.path(), &direct.data), 1);
    assert_eq!(a.verify_pin(&root).await.unwrap(), 1);
    assert_eq!(a.verify_pin(&direct.cid).await.unwrap(), 1);
    eventually("both are whole", async || {
        !a.is_broken(&root) && !a.is_broken(&direct.cid)
    })
    .await;
    assert_eq!(cat(&a.offline(), root, 0, None).await, deep_data);
    assert_eq!(a.get_local(&direct.cid).unwrap().unwrap(), direct.data);
}
