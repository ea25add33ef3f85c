//! Files, directories, documents and archives as browsers ask for them.

use cluster_ipfs::unixfs::{AddOptions, Metadata};
use tokio::sync::mpsc;

use super::{DAG_CBOR, DAG_JSON, Site, chunked, content, v1};

const IMMUTABLE: &str = "public, max-age=29030400, immutable";
const GENERATED: &str = "public, max-age=604800, stale-while-revalidate=2678400";

#[tokio::test]
async fn directories_are_listed_with_links_to_their_entries() {
    let site = Site::start().await;
    let root = site
        .add(AddOptions::default(), &[("root/ą/ę/file-źł.txt", b"text\n")])
        .await;
    let file = site.cid(&format!("{root}/ą/ę/file-źł.txt")).await;
    let top = site.get(&format!("/ipfs/{root}/")).await.text();
    assert!(top.contains("Index of") && !top.contains(">..<"), "{top}");
    let folder = format!("/ipfs/{root}/%C4%85/%C4%99");
    let redirected = site.get(&format!("{folder}?x=y")).await;
    let location = redirected.header("location").unwrap();
    assert_eq!(
        (redirected.status, location),
        (301, format!("{folder}/?x=y").as_str())
    );
    let answer = site.get(&format!("{folder}/")).await;
    let listing = answer.text();
    for part in [
        format!(
            "/ipfs/<a href=\"/ipfs/{root}\">{root}</a>/<a href=\"/ipfs/{root}/%C4%85\">ą</a>/\
             <a href=\"{folder}\">ę</a>"
        ),
        format!("<a href=\"{folder}/..\">..</a>"),
        format!("<a href=\"{folder}/file-%C5%BA%C5%82.txt\">file-źł.txt</a>"),
        format!(
            "<a class=\"ipfs-hash\" translate=\"no\" \
             href=\"/ipfs/{file}?filename=file-%25C5%25BA%25C5%2582.txt\">"
        ),
    ] {
        assert!(listing.contains(&part), "{part}\n{listing}");
    }
    assert!(answer.header("etag").unwrap().starts_with("\"DirIndex-"));
    assert_eq!(answer.header("cache-control"), Some(GENERATED));
    let policy = answer.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    let missing = site.get(&format!("/ipfs/{root}/i-do-not-exist")).await;
    assert_eq!(
        (missing.status, missing.header("content-type")),
        (404, Some("text/plain; charset=utf-8"))
    );
}

#[tokio::test]
async fn names_that_are_not_utf8_are_linked_and_served() {
    let site = Site::start().await;
    let mut upload = site.node.add(AddOptions::default()).unwrap();
    let none = Metadata::default();
    upload
        .file(b"d/caf\xe9", none, &b"text\n"[..], |_| ())
        .await
        .unwrap();
    let root = site.finish(upload).await;
    let listing = site.get(&format!("/ipfs/{root}/")).await.text();
    let link = format!("<a href=\"/ipfs/{root}/caf%E9\">caf\u{fffd}</a>");
    assert!(listing.contains(&link), "{listing}");
    let file = site.get(&format!("/ipfs/{root}/caf%E9")).await;
    assert_eq!((file.status, file.text().as_str()), (200, "text\n"));
}

#[tokio::test]
async fn caching_headers_name_the_roots_of_the_path() {
    let site = Site::start().await;
    let root = site
        .add(v1(), &[("top/root2/root3/root4/index.html", b"hello\n")])
        .await;
    let mut roots = vec![root.to_string()];
    for path in [
        "root2",
        "root2/root3",
        "root2/root3/root4",
        "root2/root3/root4/index.html",
    ] {
        roots.push(site.cid(&format!("{root}/{path}")).await.to_string());
    }
    let listed = site.get(&format!("/ipfs/{root}/root2/root3/")).await;
    assert_eq!(
        listed.header("x-ipfs-path").unwrap(),
        format!("/ipfs/{root}/root2/root3/")
    );
    assert_eq!(listed.header("x-ipfs-roots").unwrap(), roots[..3].join(","));
    let etag = listed.header("etag").unwrap().to_owned();
    assert!(etag.ends_with(&format!("_CID-{}\"", roots[2])), "{etag}");
    let page = site.get(&format!("/ipfs/{root}/root2/root3/root4/")).await;
    assert_eq!((page.status, page.text().as_str()), (200, "hello\n"));
    assert_eq!(page.header("content-type"), Some("text/html"));
    assert_eq!(page.header("cache-control"), Some(IMMUTABLE));
    assert_eq!(page.header("x-ipfs-roots").unwrap(), roots[..4].join(","));
    assert_eq!(page.header("etag").unwrap(), format!("\"{}\"", roots[3]));
    let path = format!("/ipfs/{root}/root2/root3/root4/index.html");
    let file = site.get(&path).await;
    assert_eq!(file.header("x-ipfs-roots").unwrap(), roots.join(","));
    let file_etag = format!("\"{}\"", roots[4]);
    assert_eq!(file.header("etag"), Some(file_etag.as_str()));
    for given in [
        file_etag.clone(),
        format!("W/{file_etag}"),
        format!("\"fakeEtag1\", \"fakeEtag2\", {file_etag}"),
        "*".to_owned(),
    ] {
        let known = site.get_with(&path, &[("If-None-Match", &given)]).await;
        assert_eq!(
            (known.status, known.header("cache-control")),
            (304, Some(IMMUTABLE)),
            "{given}"
        );
    }
    for given in [etag.clone(), format!("W/{etag}")] {
        let known = site
            .get_with(
                &format!("/ipfs/{root}/root2/root3/"),
                &[("If-None-Match", &given)],
            )
            .await;
        assert_eq!((known.status, known.header("etag")), (304, Some(etag.as_str())));
    }
    let page = format!("/ipfs/{root}/root2/root3/root4/");
    let known = site
        .get_with(&page, &[("If-None-Match", &format!("\"{}\"", roots[3]))])
        .await;
    assert_eq!(known.status, 304);
}

#[tokio::test]
async fn only_if_cached_never_asks_other_peers() {
    let site = Site::start_with(Default::default()).await;
    let root = site.add(v1(), &[("dir/a.txt", b"a")]).await;
    let only = [("Cache-Control", "only-if-cached")];
    let missing = "/ipfs/QmYzfKSE55XCjD1MW128RfciAf2DViABhEiXfgVFMabSjN";
    for method in ["GET", "HEAD"] {
        let here = site.ask(method, &format!("/ipfs/{root}?format=raw"), &only).await;
        assert_eq!(here.status, 200, "{method}");
        assert_eq!(site.ask(method, missing, &only).await.status, 412, "{method}");
    }
}

#[tokio::test]
async fn symlinks_are_sent_as_their_target() {
    let site = Site::start().await;
    let mut upload = site.node.add(v1()).unwrap();
    upload
        .file("dir/foo", Metadata::default(), &b"content\n"[..], |_| ())
        .await
        .unwrap();
    upload
        .symlink("dir/bar", Metadata::default(), "foo")
        .await
        .unwrap();
    let (directories, mut built) = mpsc::channel(4);
    let drain = tokio::spawn(async move { while built.recv().await.is_some() {} });
    let root = upload.finish(None, directories).await.unwrap().pop().unwrap().cid;
    drain.await.unwrap();
    let listing = site.get(&format!("/ipfs/{root}/")).await.text();
    assert!(listing.contains(">foo<") && listing.contains(">bar<"));
    let link = site.get(&format!("/ipfs/{root}/bar")).await;
    assert_eq!(
        (link.text().as_str(), link.header("content-type")),
        ("foo", Some("inode/symlink"))
    );
}

#[tokio::test]
async fn ranges_of_files_are_sent_without_the_blocks_around_them() {
    let site = Site::start().await;
    let root = site
        .add(v1(), &[("dir/ascii.txt", b"hello application/vnd.ipld.car\n")])
        .await;
    let path = format!("/ipfs/{root}/ascii.txt");
    let whole = site.get(&path).await;
    assert_eq!(
        (whole.status, whole.header("accept-ranges")),
        (200, Some("bytes"))
    );
    assert_eq!(whole.header("content-type"), Some("text/plain; charset=utf-8"));
    for (range, sent, body) in [
        ("bytes=6-16", "bytes 6-16/31", "application"),
        ("bytes=-3", "bytes 28-30/31", "ar\n"),
        ("bytes=6-16,0-4", "bytes 6-16/31", "application"),
    ] {
        let answer = site.get_with(&path, &[("Range", range)]).await;
        assert_eq!((answer.status, answer.header("content-range")), (206, Some(sent)));
        assert_eq!(answer.text(), body);
        assert_eq!(answer.header("content-length").unwrap(), body.len().to_string());
    }
    assert_eq!(site.get_with(&path, &[("Range", "bytes=x")]).await.status, 400);

    let text = content(3 * 1024);
    let file = site.add(chunked(1024), &[("file", &text)]).await;
    let second = site.links(file).await[1];
    site.node.delete(&second).await.unwrap();
    let path = format!("/ipfs/{file}");
    for (range, sent, expected) in [
        ("bytes=997-1000", "bytes 997-1000/3072", &text[997..1001]),
        ("bytes=2200-2201", "bytes 2200-2201/3072", &text[2200..2202]),
    ] {
        let answer = site.get_with(&path, &[("Range", range)]).await;
        assert_eq!((answer.status, answer.header("content-range")), (206, Some(sent)));
        assert_eq!(answer.body, expected);
    }
    // The first byte is in the missing block: an error with a status.
    assert_eq!(
        site.get_with(&path, &[("Range", "bytes=1024-")]).await.status,
        404
    );
    // After the head was sent, a missing block cuts the answer off.
    assert!(site.get(&path).await.body.len() < text.len());
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let site = Site::start().await;
    let text = content(5000);
    let root = site
        .add(chunked(1024), &[("dir/a.bin", &text), ("dir/b.txt", b"b")])
        .await;
    let document = site.put_dag("{\"a\":1}", DAG_CBOR).await;
    for path in [
        format!("/ipfs/{root}/"),
        format!("/ipfs/{root}/a.bin"),
        format!("/ipfs/{root}?format=raw"),
        format!("/ipfs/{root}?format=car"),
        format!("/ipfs/{root}?format=tar"),
        format!("/ipfs/{document}"),
    ] {
        let (get, head) = (site.get(&path).await, site.ask("HEAD", &path, &[]).await);
        assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
        for name in [
            "etag",
            "content-type",
            "cache-control",
            "x-ipfs-roots",
            "content-disposition",
        ] {
            assert_eq!(head.header(name), get.header(name), "{path} {name}");
        }
        if get.header("content-length").is_some() {
            assert_eq!(
                head.header("content-length"),
                get.header("content-length"),
                "{path}"
            );
        }
    }
}

#[tokio::test]
async fn names_and_dispositions_follow_the_query() {
    let site = Site::start().await;
    let name = "dir/Portugal%2C+España=Peninsula Ibérica.txt";
    let root = site.add(v1(), &[(name, b"hello\n")]).await;
    let path = format!("/ipfs/{root}/Portugal%252C+Espa%C3%B1a=Peninsula%20Ib%C3%A9rica.txt");
    assert_eq!(site.get(&path).await.text(), "hello\n");
    let inline = site.get(&format!("{path}?filename=test%D1%82%D0%B5.txt")).await;
    assert_eq!(
        inline.header("content-disposition"),
        Some("inline; filename=\"test__.txt\"; filename*=UTF-8''test%D1%82%D0%B5.txt")
    );
    let attached = site.get(&format!("{path}?filename=x.json&download=true")).await;
    assert!(
        attached
            .header("content-disposition")
            .unwrap()
            .starts_with("attachment; filename=\"x.json\"")
    );
    assert_eq!(attached.header("content-type"), Some("application/json"));
}

#[tokio::test]
async fn times_of_files_are_validators() {
    let site = Site::start().await;
    let meta = Metadata {
        mode: None,
        mtime: Some((1_604_320_482, 0)),
    };
    let mut upload = site
        .node
        .add(AddOptions {
            preserve: true,
            raw_leaves: Some(false),
            ..v1()
        })
        .unwrap();
    let file = upload.file("a.txt", meta, &b"a"[..], |_| ()).await.unwrap().cid;
    upload.finish(None, mpsc::channel(1).0).await.unwrap();
    let path = format!("/ipfs/{file}");
    let time = "Mon, 02 Nov 2020 12:34:42 GMT";
    assert_eq!(site.get(&path).await.header("last-modified"), Some(time));
    assert_eq!(
        site.get_with(&path, &[("If-Modified-Since", time)]).await.status,
        304
    );
    let earlier = [("If-Modified-Since", "Mon, 02 Nov 2020 12:34:40 GMT")];
    assert_eq!(site.get_with(&path, &earlier).await.status, 200);
}

#[tokio::test]
async fn json_in_files_is_not_dag_json() {
    let site = Site::start().await;
    let json = b"{ \"test\": \"i am a plain json file\" }\n";
    let file = site.add(v1(), &[("t", json)]).await;
    let path = format!("/ipfs/{file}");
    let plain = site.get(&path).await;
    let accepted = site.get_with(&path, &[("Accept", "application/json")]).await;
    let raw = [("Accept", "application/vnd.ipld.raw")];
    let by_parameter = site.get_with(&format!("{path}?format=json"), &raw).await;
    for answer in [plain, accepted, by_parameter] {
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.body, json);
    }
}

#[tokio::test]
async fn blocks_are_not_converted_to_other_codecs() {
    let site = Site::start().await;
    let file = site.add(AddOptions::default(), &[("a", b"text")]).await;
    let json = site.put_dag("{\"a\":1}", DAG_JSON).await;
    let cbor = site.put_dag("{\"a\":1}", DAG_CBOR).await;
    for (cid, format) in [
        (file, "dag-json"),
        (file, "dag-cbor"),
        (json, "dag-cbor"),
        (cbor, "dag-json"),
        (json, "cbor"),
        (cbor, "json"),
    ] {
        let by_parameter = site.get(&format!("/ipfs/{cid}?format={format}")).await;
        assert_eq!(by_parameter.status, 406, "{cid} as {format}");
        if format.starts_with("dag-") {
            let accept = format!("application/vnd.ipld.{format}");
            let accepted = site
                .get_with(&format!("/ipfs/{cid}"), &[("Accept", &accept)])
                .await;
            assert_eq!(accepted.status, 406, "{cid} as {format}");
        }
    }
    let unknown = site
        .get_with(&format!("/ipfs/{file}"), &[("Accept", "application/vnd.ipld.x")])
        .await;
    assert_eq!(unknown.status, 400);
}

#[tokio::test]
async fn documents_are_sent_in_their_own_codec() {
    let site = Site::start().await;
    for (codec, short, disposition) in [(DAG_JSON, "json", "inline"), (DAG_CBOR, "cbor", "attachment")] {
        let cid = site.put_dag("{\"foo\":{\"a\":1}}", codec).await;
        let block = site.block(cid).await;
        let (path, full) = (
            format!("/ipfs/{cid}"),
            format!("application/vnd.ipld.dag-{short}"),
        );
        let plain = format!("application/{short}");
        for (query, accept, kind) in [
            (String::new(), "*/*", &full),
            (format!("?format=dag-{short}"), "*/*", &full),
            (String::new(), full.as_str(), &full),
            (format!("?format={short}"), "*/*", &plain),
            (String::new(), plain.as_str(), &plain),
        ] {
            let answer = site
                .get_with(&format!("{path}{query}"), &[("Accept", accept)])
                .await;
            assert_eq!(
                (answer.status, answer.header("content-type")),
                (200, Some(kind.as_str()))
            );
            assert_eq!(answer.body, block);
            assert_eq!(answer.header("cache-control"), Some(IMMUTABLE));
            let name = answer.header("content-disposition").unwrap();
            assert!(
                name.starts_with(&format!("{disposition}; filename=\"{cid}.{short}\"")),
                "{name}"
            );
        }
        let accept = [("Accept", full.as_str())];
        let named = site
            .get_with(&format!("{path}?filename=foobar.{short}&download=true"), &accept)
            .await;
        let name = named.header("content-disposition").unwrap();
        assert!(
            name.starts_with(&format!("attachment; filename=\"foobar.{short}\"")),
            "{name}"
        );
        assert_eq!(named.header("etag").unwrap(), format!("\"{cid}.dag-{short}\""));
        let range = site.get_with(&path, &[("Range", "bytes=1-3")]).await;
        assert_eq!((range.status, range.body.as_slice()), (206, &block[1..4]));
        let browser = [("Accept", "text/html")];
        assert_eq!(site.get_with(&path, &browser).await.status, 301);
        let page = site.get_with(&format!("{path}/"), &browser).await;
        assert_eq!(
            (page.status, page.header("content-type")),
            (200, Some("text/html"))
        );
        assert!(page.header("etag").unwrap().starts_with("\"DagIndex-"));
        assert_eq!(
            (page.header("content-disposition"), page.header("cache-control")),
            (None, None)
        );
        assert!(page.text().contains("</html>"));
        let etag = page.header("etag").unwrap().to_owned();
        let known = [("Accept", "text/html"), ("If-None-Match", etag.as_str())];
        assert_eq!(site.get_with(&format!("{path}/"), &known).await.status, 304);
    }
}

#[tokio::test]
async fn paths_lead_through_documents_to_blocks_only() {
    let site = Site::start().await;
    for codec in [DAG_JSON, DAG_CBOR] {
        let inner = site.put_dag("{\"hello\":\"this is not a link\"}", codec).await;
        let middle = site
            .put_dag(&format!("{{\"bar\":{{\"/\":\"{inner}\"}}}}"), codec)
            .await;
        let outer = site
            .put_dag(&format!("{{\"foo\":{{\"link\":{{\"/\":\"{middle}\"}}}}}}"), codec)
            .await;
        let found = site.get(&format!("/ipfs/{outer}/foo/link/bar")).await;
        assert_eq!((found.status, &found.body), (200, &site.block(inner).await));
        assert_eq!(
            found.header("x-ipfs-roots").unwrap(),
            format!("{outer},{middle},{inner}")
        );
        assert_eq!(site.get(&format!("/ipfs/{outer}/foo")).await.status, 501);
        assert_eq!(
            site.get(&format!("/ipfs/{outer}/foo/i-do-not-exist"))
                .await
                .status,
            404
        );
    }
}

#[tokio::test]
async fn archives_of_directories_unpack_below_the_cid() {
    let site = Site::start().await;
    let root = site
        .add(v1(), &[("dir/ą/file-źł.txt", b"I am a txt file\n")])
        .await;
    let file = site.cid(&format!("{root}/ą/file-źł.txt")).await;
    let holds = |body: &[u8], text: &str| memchr::memmem::find(body, text.as_bytes()).is_some();
    let by_parameter = site.get(&format!("/ipfs/{file}?format=tar")).await;
    let accept = [("Accept", "application/x-tar")];
    let by_header = site.get_with(&format!("/ipfs/{file}"), &accept).await;
    assert_eq!(by_parameter.body, by_header.body);
    assert_eq!(by_parameter.header("content-type"), Some("application/x-tar"));
    assert_eq!(
        by_parameter.header("etag").unwrap(),
        format!("W/\"{file}.x-tar\"")
    );
    assert!(
        by_parameter
            .header("content-disposition")
            .unwrap()
            .starts_with("attachment;")
    );
    assert!(holds(&by_parameter.body, &file.to_string()) && holds(&by_parameter.body, "I am a txt file"));
    let directory = site
        .get(&format!("/ipfs/{root}?format=tar&filename=test%D1%82.tar"))
        .await;
    assert!(holds(&directory.body, &format!("{root}/ą/file-źł.txt")));
    assert_eq!(
        directory.header("content-disposition"),
        Some("attachment; filename=\"test_.tar\"; filename*=UTF-8''test%D1%82.tar")
    );
    // A name that leads out of the archive.
    let outside = format!(
        "{{\"Data\":{{\"/\":{{\"bytes\":\"CAE\"}}}},\"Links\":[{{\"Hash\":{{\"/\":\"{file}\"}},\
         \"Name\":\"../../x\",\"Tsize\":1}}]}}"
    );
    let outside = site.put_dag(&outside, 0x70).await;
    let refused = site.get(&format!("/ipfs/{outside}?format=tar")).await;
    assert_eq!(refused.status, 500, "{}", refused.text());
}

#[tokio::test]
async fn pages_of_other_origins_may_read() {
    let site = Site::start().await;
    for method in ["GET", "OPTIONS"] {
        let answer = site.ask(method, "/ipfs/bafkqabtimvwgy3yk/", &[]).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        let has = |name: &str, values: &[&str]| {
            let header = answer.header(name).unwrap();
            values.iter().all(|value| header.contains(value))
        };
        assert!(has("access-control-allow-methods", &["GET", "HEAD", "OPTIONS"]));
        assert!(has(
            "access-control-allow-headers",
            &["Content-Type", "Range", "User-Agent"]
        ));
        assert!(has(
            "access-control-expose-headers",
            &["Content-Range", "X-Ipfs-Path", "X-Ipfs-Roots"]
        ));
    }
    let refused = site.ask("POST", "/ipfs/bafkqabtimvwgy3yk", &[]).await;
    assert_eq!(
        (refused.status, refused.header("allow")),
        (405, Some("GET, HEAD, OPTIONS"))
    );
    assert_eq!(site.ask("POST", "/api/v0/id", &[]).await.status, 405);
    assert_eq!(site.get("/api/v0/id").await.status, 404);
}

#[tokio::test]
async fn malformed_and_superfluous_paths_are_redirected_or_refused() {
    let site = Site::start().await;
    for (path, status, location) in [
        ("/ipfs/not-a-cid", 400, None),
        ("/ipfs/%FF", 400, None),
        ("/ipfs/", 400, None),
        ("/", 404, None),
        (
            "/ipfs/ipfs/bafkqabtimvwgy3yk?x=1",
            301,
            Some("/ipfs/bafkqabtimvwgy3yk?x=1"),
        ),
        (
            "/ipfs/?uri=ipfs%3A%2F%2Fbafkqabtimvwgy3yk%2Fa",
            301,
            Some("/ipfs/bafkqabtimvwgy3yk/a"),
        ),
        ("/ipfs/?uri=https%3A%2F%2Fexample.com", 400, None),
    ] {
        let answer = site.get(path).await;
        assert_eq!(
            (answer.status, answer.header("location")),
            (status, location),
            "{path}"
        );
    }
    let worker = site
        .get_with("/ipfs/bafkqabtimvwgy3yk", &[("Service-Worker", "script")])
        .await;
    assert_eq!(worker.status, 400);
    assert!(worker.text().contains("navigator.serviceWorker"));
}
