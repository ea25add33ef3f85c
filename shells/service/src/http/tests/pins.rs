//! Tests of pins, statuses, peers and refusals.

use super::*;

#[tokio::test]
async fn pin_json_has_the_go_peers_shape() {
    let api = Api::new().await;
    let cid = cid(1);
    let answer = api
        .post(&format!(
            "/pins/{cid}?name=a%26b&replication-min=1&replication-max=2&meta-k=v&mode=direct"
        ))
        .await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), ["application/json"]);
    let expected = format!(
        "{{\"replication_factor_min\":1,\"replication_factor_max\":2,\"name\":\"a\\u0026b\",\"mode\":\"direct\",\
         \"shard_size\":0,\"user_allocations\":null,\"expire_at\":\"0001-01-01T00:00:00Z\",\
         \"metadata\":{{\"k\":\"v\"}},\"pin_update\":null,\"origins\":[],\"cid\":\"{cid}\",\"type\":\"pin\",\
         \"allocations\":[\"{}\",\"{}\"],\"max_depth\":0,\"reference\":null,\
         \"timestamp\":\"2026-02-02T02:40:00Z\"}}\n",
        peer(1),
        peer(2)
    );
    let created = expected.replace("\"origins\":[]", "\"origins\":null");
    assert_eq!(answer.body, created);
    assert_eq!(api.get(&format!("/allocations/{cid}")).await.body, expected);
    let list = api.get("/allocations").await;
    assert_eq!(
        (list.status, list.body.as_str(), list.trailers.as_str()),
        (200, expected.as_str(), "x-stream-error:")
    );
    assert_eq!(list.header("trailer"), ["X-Stream-Error".to_ascii_lowercase()]);
    let removed = api.send("DELETE", &format!("/pins/{cid}"), "", "").await;
    assert_eq!((removed.status, removed.body), (200, expected));
    let again = api.send("DELETE", &format!("/pins/{cid}"), "", "").await;
    assert_eq!(
        (again.status, again.error()),
        (404, "pin is not part of the pinset")
    );
}

#[tokio::test]
async fn streamed_import_answers_each_line_and_invalid_ones_alone_fail() {
    let api = Api::new().await;
    let line = |cid: &str| format!("{{\"cid\":\"{cid}\",\"type\":\"pin\"}}\n");
    let (first, second) = (cid(1).to_string(), cid(2).to_string());
    let body = [&line(&first), "nonsense\n\n", &line("nonsense"), &line(&second)].concat();
    let answer = api.send("POST", "/allocations?stream=true", "", &body).await;
    assert_eq!(
        (answer.status, answer.trailers.as_str()),
        (200, "x-stream-error:")
    );
    let lines: Vec<ImportedPin> = serde_json::Deserializer::from_str(&answer.body)
        .into_iter()
        .collect::<Result<_, _>>()
        .unwrap();
    let results: Vec<_> = lines.iter().map(|line| (line.cid.as_str(), line.code)).collect();
    let expected = [
        (first.as_str(), 200),
        ("", 400),
        ("nonsense", 400),
        (second.as_str(), 200),
    ];
    assert_eq!(results, expected);
    assert!(
        lines[1].message.starts_with("error decoding the pin: "),
        "{lines:?}"
    );
    assert!(lines[2].message.contains("error decoding Cid"), "{lines:?}");
    for cid in [first, second] {
        assert_eq!(api.get(&format!("/allocations/{cid}")).await.status, 200);
    }

    let endless = "x".repeat((1 << 20) + 1);
    let answer = api.send("POST", "/allocations?stream=true", "", &endless).await;
    assert!(
        answer.body.contains("a line has more than 1048576 bytes"),
        "{answer:?}"
    );
}

#[tokio::test]
async fn paths_are_resolved_and_pinned() {
    let api = Api::new().await;
    let cid = cid(1);
    let answer = api.post(&format!("/pins/ipfs/{cid}?mode=direct")).await;
    assert!(
        answer.status == 200 && answer.body.contains("\"max_depth\":0"),
        "{answer:?}"
    );
    assert_eq!(
        api.send("DELETE", &format!("/pins/ipfs/{cid}"), "", "")
            .await
            .status,
        200
    );
    for path in ["/pins/ipfs/nonsense", "/pins/ipfs/%ff", "/pins/ipld/x/y"] {
        let answer = api.post(path).await;
        assert!(
            answer.status == 400 && answer.error().starts_with("error parsing path: "),
            "{answer:?}"
        );
    }
}

#[tokio::test]
async fn empty_listings_are_no_content() {
    let api = Api::new().await;
    for path in ["/pins", "/allocations", "/health", "/pins?filter=error"] {
        let answer = api.get(path).await;
        assert_eq!((answer.status, answer.body.as_str()), (204, ""), "{path}");
    }
    assert_eq!(api.post("/pins/recover").await.status, 204);
}

#[tokio::test]
async fn invalid_requests_name_the_reason_and_change_nothing() {
    let api = Api::new().await;
    let cid = cid(1);
    for (path, why) in [
        ("/pins/nonsense".to_owned(), "error decoding Cid"),
        ("/pins/%ff".to_owned(), "error decoding Cid"),
        (
            format!("/pins/{cid}?replication-min=x"),
            "parameter replication-min invalid",
        ),
        (
            format!("/pins/{cid}?replication-min=3&replication-max=2"),
            "bad replication factors",
        ),
        (
            format!("/pins/{cid}?expire-in=1ms"),
            "expire-in duration too short",
        ),
        (
            format!("/pins/{cid}?expire-at=2020-01-01T00:00:00Z"),
            "pin.ExpireAt set before current time",
        ),
        (format!("/pins/{cid}?pin-update=x"), "error decoding Cid"),
        (
            format!("/pins/{cid}?origins=/ip4/1.2.3.4"),
            "multiaddress does not contain peer ID",
        ),
        (
            format!("/pins/{cid}/recover?local=perhaps"),
            "parameter local invalid",
        ),
        ("/peers".to_owned(), "error decoding request body"),
    ] {
        let answer = api.post(&path).await;
        assert_eq!(answer.status, 400, "{path}: {answer:?}");
        assert!(answer.error().starts_with(why), "{path}: {answer:?}");
    }
    for path in [
        "/pins?filter=x",
        "/pins?cids=x",
        "/pins/x",
        "/allocations?filter=x",
        "/allocations/x",
        "/pins/recover",
    ] {
        assert_eq!(api.get(path).await.status, 400, "{path}");
    }
    assert!(api.test.pins().is_empty());
}

#[tokio::test]
async fn unknown_paths_are_404_and_trailing_slashes_redirect() {
    let api = Api::new().await;
    let answer = api.get("/nowhere").await;
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (404, "{\"code\":404,\"message\":\"not found\"}\n")
    );
    let answer = api.post("/pins/recover/?local=true").await;
    assert_eq!(
        (answer.status, answer.header("location")),
        (307, vec!["/pins/recover?local=true"])
    );
    assert_eq!(
        api.get("//evil.example/").await.header("location"),
        ["/evil.example"]
    );
    assert_eq!(api.send("PATCH", "/pins", "", "").await.status, 405);
}

#[tokio::test]
async fn refusals_map_to_http_statuses() {
    let api = Api::new().await;
    let needed = Refusal::NotEnoughPeers {
        needed: 3,
        wanted: 3,
        available: 1,
        why: "Two are down.".to_owned(),
    };
    for (refusal, status, message) in [
        (
            Refusal::Busy,
            429,
            "too many requests are open at this peer, try again later",
        ),
        (Refusal::NoLeader, 503, "the cluster has no leader"),
        (
            Refusal::Unknown,
            503,
            "no answer in time: the request may still take effect",
        ),
        (Refusal::Conflict("cannot repin".to_owned()), 500, "cannot repin"),
        (
            needed,
            500,
            "not enough peers to allocate CID. Needed at least: 3. Wanted at most: 3. Available candidates: 1.",
        ),
    ] {
        api.test.refuse(Some(refusal));
        let answer = api.post(&format!("/pins/{}", cid(1))).await;
        assert_eq!(answer.status, status);
        assert!(answer.error().starts_with(message), "{answer:?}");
        assert_eq!(answer.header("retry-after").is_empty(), status == 500);
    }
}

#[tokio::test]
async fn statuses_are_streamed_one_a_line() {
    let api = Api::new().await;
    for n in 1..=3 {
        api.test
            .cluster(1)
            .pin(cid(n), &PinOptions::default())
            .await
            .unwrap();
    }
    api.test.finish_pin(2, &cid(2), Err("no room"));
    let answer = api.get("/pins").await;
    assert_eq!(answer.body.lines().count(), 3);
    // Each peer reports its IPFS node in the first status that it is asked for.
    assert!(
        answer
            .body
            .lines()
            .all(|line| line.contains("\"ipfs_peer_id\":\"12D3")),
        "{}",
        answer.body
    );
    let one = api.get(&format!("/pins?cids={},{}", cid(3), cid(1))).await;
    let order: Vec<bool> = one
        .body
        .lines()
        .map(|line| line.contains(&cid(3).to_string()))
        .collect();
    assert_eq!(order, [true, false]);
    let failed = api.get("/pins?filter=pin_error").await;
    let expected = format!(
        "{{\"cid\":\"{}\",\"name\":\"\",\"allocations\":[],\"origins\":[],\"created\":\"2026-02-02T02:40:00Z\",\
         \"metadata\":null,\"peer_map\":{{\"{}\":{{\"peername\":\"peer2\",\"status\":\"pin_error\",\
         \"timestamp\":\"2026-02-02T02:40:00Z\",\"error\":\"no room\",\"attempt_count\":1,\
         \"priority_pin\":false}}}}}}\n",
        cid(2),
        peer(2)
    );
    // The IPFS node has a different identity in each run.
    let body: serde_json::Value = serde_json::from_str(&failed.body).unwrap();
    let mut expected: serde_json::Value = serde_json::from_str(&expected).unwrap();
    let shown = &body["peer_map"][peer(2).to_string()];
    for field in ["ipfs_peer_id", "ipfs_peer_addresses"] {
        if let Some(value) = shown.get(field) {
            expected["peer_map"][peer(2).to_string()][field] = value.clone();
        }
    }
    assert_eq!(body, expected);
    let recovered = api.post(&format!("/pins/{}/recover", cid(2))).await;
    assert!(
        recovered.status == 200 && recovered.body.contains("\"status\":\"pinning\""),
        "{recovered:?}"
    );
    let local = api.get("/pins?local=true").await;
    assert!(
        local
            .body
            .lines()
            .all(|line| line.contains(&peer(1).to_string()) && !line.contains(&peer(2).to_string()))
    );
}

#[tokio::test]
async fn peers_metrics_and_health_have_the_go_peers_shape() {
    let api = Api::new().await;
    api.test.stop(3).await;
    let id = api.get("/id").await;
    assert!(
        id.body.starts_with(&format!("{{\"id\":\"{}\"", peer(1)))
            && id.body.contains("\"peername\":\"peer1\"")
    );
    assert_eq!(api.get("/version").await.body, "{\"version\":\"1.2.3\"}\n");
    let peers = api.get("/peers").await;
    assert_eq!(peers.body.lines().count(), 3);
    assert!(peers.body.contains("\"error\":\"cannot reach peer"));
    let names = api.get("/monitor/metrics").await.body;
    assert!(names.ends_with("\"freespace\",\"ping\"]\n"), "{names}");
    let metrics = api.get("/monitor/metrics/ping").await.body;
    assert!(
        metrics.contains("\"expire\":1770000030000000000,\"valid\":true"),
        "{metrics}"
    );
    assert_eq!(api.get("/monitor/metrics/none").await.body, "[]\n");
    assert!(
        api.get("/health/alerts")
            .await
            .body
            .contains("\"triggered_at\":\"2026-02-02T02:40:00Z\"")
    );
    assert!(api.get("/health/bandwidth").await.body.contains("\"total_in\":"));
    let graph = api.get("/health/graph").await;
    assert!(
        graph.status == 200 && graph.body.contains("\"id_to_peername\""),
        "{graph:?}"
    );
    let gc = api.post("/ipfs/gc").await;
    assert!(
        gc.status == 200 && gc.body.contains("cannot reach peer"),
        "{gc:?}"
    );
    let body = format!("{{\"peer_id\":\"{}\"}}", peer(2));
    let added = api.send("POST", "/peers", "", body).await;
    let id = format!("\"id\":\"{}\"", peer(2));
    assert!(added.status == 200 && added.body.contains(&id), "{added:?}");
    let address = format!("/ip4/10.0.0.1/tcp/9096/p2p/{}", peer(2));
    let body = format!("{{\"peer_multiaddress\":\"{address}\"}}");
    assert_eq!(api.send("POST", "/peers", "", body).await.status, 200);
    assert_eq!(api.send("DELETE", "/peers/x", "", "").await.status, 400);
    let removed = api.send("DELETE", &format!("/peers/{}", peer(2)), "", "").await;
    assert_eq!((removed.status, removed.body.as_str()), (204, ""));
}

#[tokio::test]
async fn without_a_leader_reads_warn_and_consistent_reads_fail() {
    let api = Api::new().await;
    let cid = cid(1);
    api.post(&format!("/pins/{cid}")).await;
    let reads = ["/allocations", "/pins", "/pinlist"]
        .map(str::to_owned)
        .into_iter();
    let one = [format!("/allocations/{cid}"), format!("/pins/{cid}")];
    let reads: Vec<String> = reads.chain(one).collect();
    for path in &reads {
        for path in [path.clone(), format!("{path}?consistent=true")] {
            let answer = api.get(&path).await;
            assert_eq!(
                (answer.status, answer.header("warning").len()),
                (200, 0),
                "{path}"
            );
        }
    }
    api.test.stop(2).await;
    api.test.stop(3).await;
    for path in &reads {
        let old = api.get(path).await;
        assert_eq!(old.status, 200, "{path}");
        let warning = old.header("warning")[0].to_owned();
        assert!(
            warning.starts_with("110 ipfs-cluster \"possibly stale: "),
            "{warning}"
        );
        let fresh = api.get(&format!("{path}?consistent=true")).await;
        assert_eq!(fresh.status, 503, "{path}");
        assert!(fresh.error().contains("no leader"), "{fresh:?}");
    }
    assert_eq!(api.get("/pins?consistent=perhaps").await.status, 400);
}

#[tokio::test]
async fn routes_of_0_0_12_work() {
    let api = Api::new().await;
    assert_eq!(api.get("/pinlist").await.body, "[]\n");
    let (first, second) = (cid(1), cid(2));
    let pinned = api.post(&format!("/pins/{first}?replication_factor=2")).await;
    assert!(pinned.body.contains("\"replication_factor_min\":2"), "{pinned:?}");
    api.post(&format!("/pins/{second}?replication_factor=nonsense"))
        .await;
    let list: serde_json::Value = serde_json::from_str(&api.get("/pinlist").await.body).unwrap();
    let shown = |at: usize| (&list[at]["cid"], &list[at]["replication_factor"]);
    assert_eq!(shown(0), (&first.to_string().into(), &2.into()));
    assert_eq!(shown(1), (&second.to_string().into(), &(-1).into()));
    for n in 1..=3 {
        api.test.finish_pin(n, &second, Ok(()));
    }
    api.test.lose(2, &second);
    let all = api.post("/pins/sync").await;
    assert_eq!(all.status, 200);
    assert!(
        all.body.contains("\"status\":\"pinning\"") && all.body.lines().count() == 1,
        "{all:?}"
    );
    let local = api.post("/pins/sync?local=true").await;
    assert_eq!(local.status, 204, "nothing is wrong here: {local:?}");
    let one = api.post(&format!("/pins/{second}/sync")).await;
    assert_eq!(one.body.matches("\"status\":\"pinned\"").count(), 2, "{one:?}");
    let here = api.post(&format!("/pins/{second}/sync?local=true")).await;
    assert_eq!(here.body.matches("\"status\"").count(), 1, "{here:?}");
    assert_eq!(api.post("/pins/nonsense/sync").await.status, 400);
    assert_eq!(api.get("/pins/sync").await.status, 400);
}

#[tokio::test]
async fn listings_with_a_limit_are_pages_with_a_cursor() {
    let api = Api::new().await;
    for n in 1..=5 {
        let (cid, owner) = (cid(n), if n == 3 { "you" } else { "me" });
        let answer = api
            .post(&format!("/pins/{cid}?name=Docs%20{n}&meta-owner={owner}"))
            .await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let mut found = Vec::new();
    let mut cursor = String::new();
    let mut pages = 0;
    loop {
        let page = api
            .get(&format!(
                "/allocations?name=docs&name-match=iprefix&meta-owner=me&limit=3{cursor}"
            ))
            .await;
        let pins = page
            .body
            .lines()
            .map(|line| serde_json::from_str::<cluster_api::Pin>(line).unwrap());
        found.extend(pins.map(|pin| pin.options.name));
        pages += 1;
        match page.header("x-next-cursor").first() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    found.sort();
    assert_eq!(
        (pages, found),
        (
            2,
            ["Docs 1", "Docs 2", "Docs 4", "Docs 5"]
                .map(str::to_owned)
                .to_vec()
        )
    );
    // A whole listing has no cursor, nor has one that a high limit cuts.
    for (query, count) in [("sort=oldest", 5), ("limit=1001", 5), ("name=Docs%203", 1)] {
        let answer = api.get(&format!("/allocations?{query}")).await;
        assert_eq!(answer.body.lines().count(), count, "{query}");
        assert!(answer.header("x-next-cursor").is_empty(), "{query}");
    }
    let peer = peer(1);
    let held = api
        .get(&format!("/allocations?peer={peer}&sort=cid&limit=2"))
        .await;
    assert_eq!(held.body.lines().count(), 2, "{held:?}");
    for query in ["cursor=x", "peer=x", "sort=size", "limit=-1"] {
        let answer = api.get(&format!("/allocations?{query}")).await;
        assert_eq!(answer.status, 400, "{answer:?}");
    }
}
