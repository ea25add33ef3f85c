//! Limits: content that never ends, content that nobody has, hostile names.

use cluster_ipfs::gateway::Settings;

use super::{Site, sharded, v1};

#[tokio::test]
async fn directories_that_contain_themselves_many_times_are_listed_in_little_memory() {
    let site = Site::start().await;
    let names: Vec<String> = (0..64).map(|at| format!("dir/{at}")).collect();
    let files: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b"x"[..])).collect();
    let mut root = site.add(sharded(), &files).await;
    // Each level holds the one below it 100 times: 10^20 entries in 10 blocks.
    for _ in 0..10 {
        let links: Vec<String> = (0..100)
            .map(|at| format!("{{\"Hash\":{{\"/\":\"{root}\"}},\"Name\":\"{at:02}\",\"Tsize\":1}}"))
            .collect();
        let node = format!(
            "{{\"Data\":{{\"/\":{{\"bytes\":\"CAE\"}}}},\"Links\":[{}]}}",
            links.join(",")
        );
        root = site.put_dag(&node, 0x70).await;
    }
    let listing = site.get(&format!("/ipfs/{root}/")).await;
    assert_eq!(listing.text().matches("class=\"size\"").count(), 100);
    // Each block is sent once.
    let archive = site.get(&format!("/ipfs/{root}?format=car")).await;
    assert_eq!(archive.status, 200);
    assert!(archive.body.len() < 200_000, "{}", archive.body.len());
    let deep = format!("/ipfs/{root}{}", "/00".repeat(10));
    assert_eq!(site.get(&format!("{deep}/")).await.status, 200);
    let deeper = format!("/ipfs/{root}{}", "/00".repeat(600));
    assert_eq!(site.get(&deeper).await.status, 400);
}

#[tokio::test]
async fn a_gateway_without_fetching_refuses_at_once() {
    let site = Site::start().await;
    let missing = site
        .get("/ipfs/QmYzfKSE55XCjD1MW128RfciAf2DViABhEiXfgVFMabSjN")
        .await;
    assert_eq!(missing.status, 404);
    assert!(missing.text().contains("could not find"), "{}", missing.text());
}

#[tokio::test]
async fn content_is_fetched_from_connected_peers_unless_switched_off() {
    let holder = Site::start().await;
    let root = holder.add(v1(), &[("dir/a.txt", b"fetched\n")]).await;
    for no_fetch in [true, false] {
        let site = Site::start_with(Settings {
            no_fetch,
            ..Settings::default()
        })
        .await;
        let address = holder.node.id().addresses[0].clone();
        site.node.connect(address).await.unwrap();
        let answer = site.get(&format!("/ipfs/{root}/a.txt")).await;
        let expected = if no_fetch { 404 } else { 200 };
        assert_eq!(answer.status, expected);
    }
}

#[tokio::test]
async fn hostile_names_cannot_inject_markup_or_headers() {
    let site = Site::start().await;
    let node = "{\"Data\":{\"/\":{\"bytes\":\"CAE\"}},\"Links\":[{\"Hash\":{\"/\":\"bafkqabtimvwgy3yk\"},\
        \"Name\":\"\\\"><script>alert(1)</script>\",\"Tsize\":1}]}";
    let root = site.put_dag(node, 0x70).await;
    let listing = site.get(&format!("/ipfs/{root}/")).await.text();
    assert!(!listing.contains("<script>"), "{listing}");
    let path = "/ipfs/bafkqabtimvwgy3yk?filename=a%22%0D%0ASet-Cookie:%20x=y";
    let answer = site.get(path).await;
    assert_eq!((answer.status, answer.header("set-cookie")), (200, None));
}
