//! Content behind names: IPNS records and DNSLink.

use std::time::Duration;

use cluster_ipfs::{PublishOptions, ipns};

use super::{DAG_CBOR, Site, v1};
use crate::support::dns::FakeDns;

async fn publish(site: &Site, value: &str) -> String {
    let options = PublishOptions {
        key: "self".to_owned(),
        lifetime: Duration::from_secs(3600),
        ttl: Duration::from_secs(1800),
        sequence: None,
    };
    let (name, _) = site.node.sign_record(value, options).await.unwrap();
    ipns::format_name(&name)
}

#[tokio::test]
async fn records_are_sent_signed_and_cached_for_their_ttl() {
    let site = Site::start().await;
    let name = publish(&site, "/ipfs/bafkqabtimvwgy3yk").await;
    let id = ipns::parse_name(&name).unwrap();
    let by_parameter = site.get(&format!("/ipns/{name}?format=ipns-record")).await;
    let accept = [("Accept", "application/vnd.ipfs.ipns-record")];
    let by_header = site.get_with(&format!("/ipns/{name}"), &accept).await;
    for answer in [&by_parameter, &by_header] {
        assert_eq!(answer.status, 200);
        assert_eq!(
            answer.header("content-type"),
            Some("application/vnd.ipfs.ipns-record")
        );
        assert_eq!(answer.header("cache-control"), Some("public, max-age=1800"));
        assert!(
            answer
                .header("content-disposition")
                .unwrap()
                .starts_with("attachment;")
        );
        let record = ipns::Record::parse(&answer.body).unwrap();
        record.verify(&id).unwrap();
        assert_eq!(record.value().unwrap(), "/ipfs/bafkqabtimvwgy3yk");
    }
    let known = [("If-None-Match", by_parameter.header("etag").unwrap())];
    let again = site
        .get_with(&format!("/ipns/{name}?format=ipns-record"), &known)
        .await;
    assert_eq!(again.status, 304);
    let below = site.get(&format!("/ipns/{name}/a?format=ipns-record")).await;
    assert_eq!(below.status, 400);
}

#[tokio::test]
async fn names_serve_what_they_stand_for_with_their_ttl() {
    let site = Site::start().await;
    let root = site
        .add(
            v1(),
            &[
                ("top/root2/root3/index.html", b"hello\n"),
                ("top/root2/a.txt", b"a"),
            ],
        )
        .await;
    let sub = site.cid(&format!("{root}/root2")).await;
    let name = publish(&site, &format!("/ipfs/{root}/root2")).await;
    let page = site.get(&format!("/ipns/{name}/root3/")).await;
    assert_eq!((page.status, page.text().as_str()), (200, "hello\n"));
    assert_eq!(
        page.header("x-ipfs-path").unwrap(),
        format!("/ipns/{name}/root3/")
    );
    assert_eq!(page.header("cache-control"), Some("public, max-age=1800"));
    let listing = site.get(&format!("/ipns/{name}/")).await;
    let etag = listing.header("etag").unwrap();
    assert!(etag.ends_with(&format!("_CID-{sub}\"")), "{etag}");
    assert!(
        listing
            .header("cache-control")
            .unwrap()
            .starts_with("public, max-age=1800,")
    );
    let raw = site.get(&format!("/ipns/{name}/?format=raw")).await;
    assert_eq!(raw.body, site.block(sub).await);
    let file = site.get(&format!("/ipns/{name}/a.txt")).await;
    let known = [("If-None-Match", file.header("etag").unwrap())];
    assert_eq!(
        site.get_with(&format!("/ipns/{name}/a.txt"), &known).await.status,
        304
    );
    let document = site.put_dag("{\"a\":1}", DAG_CBOR).await;
    assert_eq!(publish(&site, &format!("/ipfs/{document}")).await, name);
    let by_name = site.get(&format!("/ipns/{name}?format=dag-cbor")).await;
    assert_eq!(by_name.body, site.block(document).await);
    assert_eq!(
        by_name.header("etag").unwrap(),
        format!("\"{document}.dag-cbor\"")
    );
}

#[tokio::test]
async fn unknown_and_unusual_names_are_refused_or_redirected() {
    let site = Site::start().await;
    let unknown = "k51qzi5uqu5dlvj2baxnqndepeb86cbk3ng7n3i46uzyxzyqj2xjonzllnv0v8";
    assert_eq!(site.get(&format!("/ipns/{unknown}")).await.status, 500);
    for (id, expected) in [
        ("12D3KooWRBy97UB99e3J6hiPesre1MZeuNQvfan4gBziswrRJsNK", unknown),
        (
            "QmcJM7PRfkSbcM5cf1QugM5R37TLRKyJGgBEhXjLTB8uA2",
            "k2k4r8ol4m8kkcqz509c1rcjwunebj02gcnm5excpx842u736nja8ger",
        ),
    ] {
        let answer = site.get(&format!("/ipns/{id}/root2/")).await;
        let location = format!("/ipns/{expected}/root2/");
        assert_eq!(
            (answer.status, answer.header("location")),
            (302, Some(location.as_str()))
        );
    }
}

#[tokio::test]
async fn domains_stand_for_content_by_exactly_one_record() {
    let site = Site::start_with(Default::default()).await;
    let dns = FakeDns::start(&[
        (
            "_dnslink.one.example.org",
            &["dnslink=/ipfs/bafkqabtimvwgy3yk", "v=spf1"],
        ),
        (
            "_dnslink.two.example.org",
            &["dnslink=/ipfs/bafkqaaa", "dnslink=/ipfs/bafkqabtimvwgy3yk"],
        ),
        ("_dnslink.chain.example.org", &["dnslink=/ipns/one.example.org"]),
        ("_dnslink.loop.example.org", &["dnslink=/ipns/loop.example.org"]),
    ])
    .await;
    site.node.use_dns_servers(&[dns.address]).unwrap();
    for domain in ["one.example.org", "chain.example.org"] {
        let answer = site.get(&format!("/ipns/{domain}")).await;
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, "hello\n"),
            "{domain}"
        );
        assert_eq!(answer.header("cache-control"), Some("public, max-age=60"));
    }
    for (domain, why) in [
        ("two.example.org", "2 DNSLink TXT records"),
        ("none.example.org", "could not resolve name"),
        ("loop.example.org", "recursion limit exceeded"),
        ("localhost", "neither a key nor a domain"),
    ] {
        let answer = site.get(&format!("/ipns/{domain}")).await;
        assert_eq!(answer.status, 500);
        assert!(answer.text().contains(why), "{}", answer.text());
    }
}

#[tokio::test]
async fn routing_is_answered_from_local_knowledge() {
    let site = Site::start().await;
    let root = site.add(v1(), &[("a.txt", b"a")]).await;
    let own = site.node.id().peer_id.to_string();
    let found = site.get(&format!("/routing/v1/providers/{root}")).await;
    let providers = found.json();
    assert_eq!(providers["Providers"][0]["ID"], own.as_str());
    assert_eq!(providers["Providers"][0]["Schema"], "peer");
    assert!(
        providers["Providers"][0]["Addrs"][0]
            .as_str()
            .unwrap()
            .starts_with("/ip4/127.0.0.1/tcp/")
    );
    assert!(
        found
            .header("cache-control")
            .unwrap()
            .starts_with("public, max-age=300")
    );
    let lines = [("Accept", "application/x-ndjson")];
    let lines = site
        .get_with(&format!("/routing/v1/providers/{root}"), &lines)
        .await;
    assert_eq!(lines.lines()[0]["ID"], own.as_str());
    let missing = "QmYzfKSE55XCjD1MW128RfciAf2DViABhEiXfgVFMabSjN";
    let none = site.get(&format!("/routing/v1/providers/{missing}")).await;
    assert_eq!((none.status, none.text().as_str()), (200, "{\"Providers\":[]}"));
    assert!(
        none.header("cache-control")
            .unwrap()
            .starts_with("public, max-age=15")
    );
    let peer = site.get(&format!("/routing/v1/peers/{own}")).await;
    assert_eq!(peer.json()["Peers"][0]["ID"], own.as_str());
    let name = publish(&site, "/ipfs/bafkqaaa").await;
    let record = site.get(&format!("/routing/v1/ipns/{name}")).await;
    assert_eq!(
        (record.status, record.header("cache-control")),
        (200, Some("public, max-age=1800"))
    );
    let html = [("Accept", "text/html")];
    assert_eq!(
        site.get_with(&format!("/routing/v1/ipns/{name}"), &html)
            .await
            .status,
        406
    );
    for path in ["providers/x", "peers/x", "ipns/x"] {
        assert_eq!(
            site.get(&format!("/routing/v1/{path}")).await.status,
            400,
            "{path}"
        );
    }
    assert_eq!(site.get("/routing/v1/else/x").await.status, 404);
}
