//! Exchange of blocks between nodes that connect late or disconnect.

use super::*;
use cluster_ipfs::Progress;
use std::sync::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn deep_dag_is_pinned_from_another_node_with_progress() {
    let ((a, _fa), (b, _fb)) = (node().await, node().await);
    let data = content(300_000, 1);
    let cid = add(&a, deep(), &data, Some("")).await;
    connect_nodes(&b, &a).await;
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
    // All blocks are local now.
    a.shutdown().await;
    assert_eq!(cat(&b.offline(), cid, 0, None).await, data);
    assert_eq!(cat(&b.offline(), cid, 1000, Some(5000)).await, data[1000..6000]);
    assert_eq!(cat(&b.offline(), cid, 299_990, Some(5000)).await, data[299_990..]);
}

#[tokio::test]
async fn pin_waits_for_content_that_appears_later() {
    let ((a, _fa), (b, _fb)) = (node().await, node().await);
    connect_nodes(&b, &a).await;
    let block = raw(b"not there yet");
    let waiting = tokio::spawn({
        let (b, cid) = (b.clone(), block.cid);
        async move { b.pin(cid, PinMode::Recursive, String::new(), |_| {}).await }
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!waiting.is_finished());
    a.put(block.clone()).await.unwrap();
    // The holder announces it at once; a want that nobody can fulfil is sent again only after ten seconds.
    timeout(Duration::from_secs(8), waiting)
        .await
        .expect("in time")
        .unwrap()
        .unwrap();
    assert!(b.has(&block.cid).unwrap());
}

#[tokio::test]
async fn pin_finds_a_holder_that_connects_later_in_either_direction() {
    let ((a, _fa), (b, _fb)) = (node().await, node().await);
    let cid = add(&a, deep(), &content(50_000, 2), None).await;
    let waiting = tokio::spawn({
        let b = b.clone();
        async move { pin(&b, cid).await }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    connect_nodes(&a, &b).await;
    waiting.await.unwrap();
}

#[tokio::test]
async fn dropped_pin_is_cancelled_and_not_recorded() {
    let ((a, _fa), (b, _fb)) = (node().await, node().await);
    connect_nodes(&b, &a).await;
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
    connect_nodes(&c, &a).await;
    connect_nodes(&c, &b).await;
    let waiting = tokio::spawn({
        let c = c.clone();
        async move { pin(&c, cid).await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    a.shutdown().await;
    waiting.await.unwrap();
    assert_eq!(cat(&c.offline(), cid, 0, None).await, data);
}

/// Returns a free port outside the range that the system assigns, so that no one else gets it in between.
fn reusable_port() -> u16 {
    let mut ports = (0..1000).map(|n| 20_000 + (std::process::id() as u16).wrapping_add(n) % 12_000);
    let free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    ports.find(free).unwrap()
}

#[tokio::test]
async fn lost_peer_is_redialled() {
    let (fa, (b, _fb)) = (tempfile::tempdir().unwrap(), node().await);
    let config = Config {
        path: fa.path().to_owned(),
        swarm_listen: vec![format!("/ip4/127.0.0.1/tcp/{}", reusable_port()).parse().unwrap()],
        storage_max: None,
        network: cluster_ipfs::PublicNetwork::default(),
        fixed: std::collections::BTreeMap::new(),
    };
    let a = Node::open(config.clone()).await.unwrap();
    connect_nodes(&b, &a).await;
    a.shutdown().await;
    drop(a);
    let gone = async {
        while !b.peers().await.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, gone).await.expect("noticed");
    let a = reopen(config).await;
    let back = async {
        while b.peers().await.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, back).await.expect("dialled again");
    b.disconnect(a.id().peer_id).await.unwrap();
    let gone = async {
        while !b.peers().await.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, gone).await.expect("disconnected");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(
        b.peers().await.is_empty(),
        "a peer that was let go is not dialled"
    );
}

#[tokio::test]
async fn garbage_on_the_swarm_port_is_harmless() {
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
        // The other end may have closed the connection.
        let _ = stream.write_all(&content(5000, 11)).await;
        let mut answer = Vec::new();
        let _ = timeout(Duration::from_millis(300), stream.read_to_end(&mut answer)).await;
    }
    let cid = add(&a, deep(), &content(20_000, 12), None).await;
    connect_nodes(&b, &a).await;
    pin(&b, cid).await;
}
