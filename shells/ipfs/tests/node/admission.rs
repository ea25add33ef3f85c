//! Admission of pins by their size.

use super::*;

/// Opens a node that may store 5 MB.
async fn small() -> (Node, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (open(folder.path(), Some(5_000_000)).await.unwrap(), folder)
}

async fn pin(node: &Node, cid: Cid) -> Result<(), Error> {
    let pinned = node.pin(cid, PinMode::Recursive, String::new(), |_| {});
    timeout(SOON, pinned).await.expect("in time")
}

#[tokio::test]
async fn a_pin_that_does_not_fit_is_refused_before_its_content_is_fetched() {
    let ((a, _fa), (b, _fb)) = (node().await, small().await);
    let large = add(&a, AddOptions::default(), &content(8_000_000, 1), None).await;
    connect_nodes(&b, &a).await;
    let refused = pin(&b, large).await.unwrap_err();
    assert!(
        matches!(refused, Error::Full { asked, .. } if asked >= 8_000_000),
        "{refused}"
    );
    assert!(b.stat().unwrap().repo_size < 10_000, "only the root was fetched");
    let fitting = add(&a, AddOptions::default(), &content(4_000_000, 2), None).await;
    pin(&b, fitting).await.unwrap();
    // The refused pin holds no room.
    let refused = pin(&b, large).await.unwrap_err();
    assert!(matches!(refused, Error::Full { .. }), "{refused}");
}

#[tokio::test]
async fn blocks_that_repeat_or_are_stored_already_need_no_room() {
    let ((a, _fa), (b, _fb)) = (node().await, small().await);
    connect_nodes(&b, &a).await;
    let zeros = add(&a, AddOptions::default(), &vec![0; 20_000_000], None).await;
    pin(&b, zeros).await.unwrap();
    let first = content(4_000_000, 3);
    let part = add(&a, AddOptions::default(), &first, None).await;
    pin(&b, part).await.unwrap();
    let whole = [&first[..3_932_160], &content(500_000, 4)].concat();
    let whole = add(&a, AddOptions::default(), &whole, None).await;
    pin(&b, whole).await.unwrap();
    assert!(b.stat().unwrap().repo_size <= 5_000_000);
}
