//! Blocks and archives that clients verify.

use cluster_ipfs::Cid;

use super::{DAG_CBOR, Site, chunked, content, sharded, v1};
use crate::support::Answer;

const CAR: &str = "application/vnd.ipld.car";
const RAW: &str = "application/vnd.ipld.raw";

/// Returns the blocks of an archive, in order.
fn blocks(answer: &Answer) -> Vec<Cid> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let number = |rest: &mut &[u8]| {
        let (number, after) = unsigned_varint::decode::usize(rest).unwrap();
        *rest = after;
        number
    };
    let mut rest = answer.body.as_slice();
    let header = number(&mut rest);
    rest = &rest[header..];
    let mut cids = Vec::new();
    while !rest.is_empty() {
        let length = number(&mut rest);
        let (mut section, after) = rest.split_at(length);
        cids.push(Cid::read_bytes(&mut section).unwrap());
        rest = after;
    }
    cids
}

/// Asks for an archive by the parameter and by the header, compares both, and returns the blocks.
async fn archive(site: &Site, path: &str, query: &str) -> Vec<Cid> {
    let by_parameter = site.get(&format!("{path}?format=car{query}")).await;
    let query = query
        .strip_prefix('&')
        .map(|it| format!("?{it}"))
        .unwrap_or_default();
    let by_header = site.get_with(&format!("{path}{query}"), &[("Accept", CAR)]).await;
    for answer in [&by_parameter, &by_header] {
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("accept-ranges"), Some("none"));
        assert!(answer.header("content-type").unwrap().contains(CAR));
        let name = answer.header("content-disposition").unwrap();
        assert!(
            name.starts_with("attachment; filename=\"") && name.contains(".car\""),
            "{name}"
        );
        assert!(answer.header("etag").unwrap().starts_with("W/\""));
        assert_eq!(answer.header("content-length"), None);
    }
    assert_eq!(by_parameter.body, by_header.body);
    blocks(&by_parameter)
}

#[tokio::test]
async fn raw_block_is_sent_with_its_headers() {
    let site = Site::start().await;
    let root = site.add(v1(), &[("dir/ascii.txt", b"hello block\n")]).await;
    let file = site.cid(&format!("{root}/ascii.txt")).await;
    let block = site.block(root).await;
    assert_eq!(site.get(&format!("/ipfs/{root}?format=raw")).await.body, block);
    let accept = [("Accept", RAW)];
    assert_eq!(site.get_with(&format!("/ipfs/{root}"), &accept).await.body, block);
    let answer = site.get_with(&format!("/ipfs/{file}"), &accept).await;
    let expected = [
        ("content-type", RAW.to_owned()),
        ("content-length", "12".to_owned()),
        ("x-content-type-options", "nosniff".to_owned()),
        ("x-ipfs-path", format!("/ipfs/{file}")),
        ("x-ipfs-roots", file.to_string()),
        ("cache-control", "public, max-age=29030400, immutable".to_owned()),
        ("etag", format!("\"{file}.raw\"")),
        ("content-location", format!("/ipfs/{file}?format=raw")),
    ];
    for (name, value) in expected {
        assert_eq!(answer.header(name), Some(value.as_str()), "{name}");
    }
    let name = answer.header("content-disposition").unwrap();
    assert!(
        name.starts_with(&format!("attachment; filename=\"{file}.bin\"")),
        "{name}"
    );
    let named = site
        .get_with(&format!("/ipfs/{file}?filename=foobar.bin"), &accept)
        .await;
    let name = named.header("content-disposition").unwrap();
    assert!(name.starts_with("attachment; filename=\"foobar.bin\""), "{name}");
    let below = site.get(&format!("/ipfs/{root}/ascii.txt?format=raw")).await;
    assert_eq!(below.header("x-ipfs-roots").unwrap(), format!("{root},{file}"));
}

#[tokio::test]
async fn ranges_of_raw_blocks_are_sent() {
    let site = Site::start().await;
    let root = site
        .add(v1(), &[("ascii.txt", b"hello application/vnd.ipld.raw\n")])
        .await;
    let path = format!("/ipfs/{root}?format=raw");
    for (range, sent, body) in [
        ("bytes=6-16", "bytes 6-16/31", &b"application"[..]),
        ("bytes=0-4,6-16", "bytes 0-4/31", b"hello"),
        ("bytes=-4", "bytes 27-30/31", b"raw\n"),
    ] {
        let answer = site.get_with(&path, &[("Range", range)]).await;
        assert_eq!((answer.status, answer.header("content-range")), (206, Some(sent)));
        assert_eq!(answer.body, body);
    }
    let beyond = site.get_with(&path, &[("Range", "bytes=31-")]).await;
    assert_eq!(
        (beyond.status, beyond.header("content-range")),
        (416, Some("bytes */31"))
    );
}

#[tokio::test]
async fn archives_hold_the_blocks_of_the_path_and_below_its_end() {
    let site = Site::start().await;
    let text = content(1026);
    let files: [(&str, &[u8]); 3] = [
        ("top/subdir/ascii.txt", b"hello\n"),
        ("top/subdir/multiblock.txt", &text),
        ("top/other.txt", b"other\n"),
    ];
    let root = site.add(chunked(256), &files).await;
    let subdir = site.cid(&format!("{root}/subdir")).await;
    let ascii = site.cid(&format!("{root}/subdir/ascii.txt")).await;
    let multi = site.cid(&format!("{root}/subdir/multiblock.txt")).await;
    let chunks = site.links(multi).await;
    assert_eq!(chunks.len(), 5);
    let (top, below) = (format!("/ipfs/{root}"), format!("/ipfs/{root}/subdir"));
    let ascii_path = format!("{below}/ascii.txt");
    let multi_path = format!("{below}/multiblock.txt");
    assert_eq!(archive(&site, &ascii_path, "").await, [root, subdir, ascii]);
    let whole = [&[root, subdir, ascii, multi][..], &chunks].concat();
    assert_eq!(archive(&site, &below, "").await, whole);
    assert_eq!(archive(&site, &below, "&dag-scope=all").await, whole);
    assert_eq!(archive(&site, &below, "&dag-scope=block").await, [root, subdir]);
    assert_eq!(
        archive(&site, &ascii_path, "&dag-scope=block").await,
        [root, subdir, ascii]
    );
    assert_eq!(archive(&site, &top, "&dag-scope=entity").await, [root]);
    assert_eq!(
        archive(&site, &ascii_path, "&dag-scope=entity").await,
        [root, subdir, ascii]
    );
    let file = [&[root, subdir, multi][..], &chunks].concat();
    for scope in ["all", "entity", "entity&entity-bytes=0:*"] {
        let blocks = archive(&site, &multi_path, &format!("&dag-scope={scope}")).await;
        assert_eq!(blocks, file, "{scope}");
    }
    assert_eq!(
        archive(&site, &multi_path, "&dag-scope=block").await,
        [root, subdir, multi]
    );
    // The whole DAG holds each block once.
    let mut all = site.below(root).await;
    all.insert(0, root);
    assert_eq!(archive(&site, &top, "").await, all);
    let missing = site.get(&format!("{below}/missing?format=car")).await;
    assert_eq!(missing.status, 404);
}

#[tokio::test]
async fn archives_of_byte_ranges_hold_only_their_blocks() {
    let site = Site::start().await;
    let text = content(1026);
    let file = site.add(chunked(256), &[("multiblock.txt", &text)]).await;
    let chunks = site.links(file).await;
    let ranged = async |bytes: &str| {
        let query = format!("&dag-scope=entity&entity-bytes={bytes}");
        archive(&site, &format!("/ipfs/{file}"), &query).await
    };
    let with = |chunks: &[Cid]| [&[file], chunks].concat();
    for (bytes, expected) in [
        ("512:*", &chunks[2..]),
        ("512:1023", &chunks[2..4]),
        ("512:-256", &chunks[2..4]),
        ("-5:*", &chunks[3..]),
        ("-9999:*", &chunks[..]),
        ("-9999:-3", &chunks[..4]),
        ("0:0", &chunks[..1]),
        ("5000:*", &[]),
    ] {
        assert_eq!(ranged(bytes).await, with(expected), "{bytes}");
    }
    for invalid in ["", "1", "b:c", "5:1"] {
        let path = format!("/ipfs/{file}?format=car&dag-scope=entity&entity-bytes={invalid}");
        let expected = if invalid.is_empty() { 200 } else { 400 };
        assert_eq!(site.get(&path).await.status, expected, "{invalid:?}");
    }
}

#[tokio::test]
async fn archives_need_no_block_outside_their_range() {
    let site = Site::start().await;
    let text = content(3 * 1024);
    let file = site.add(chunked(1024), &[("file", &text)]).await;
    let chunks = site.links(file).await;
    site.node.delete(&chunks[1]).await.unwrap();
    let path = format!("/ipfs/{file}");
    let before = archive(&site, &path, "&dag-scope=entity&entity-bytes=0:1000").await;
    assert_eq!(before, [file, chunks[0]]);
    let after = archive(&site, &path, "&dag-scope=entity&entity-bytes=2200:*").await;
    assert_eq!(after, [file, chunks[2]]);
    // The whole archive is cut off at the missing block, after a head that was sent already, or refused.
    let whole = site.get(&format!("{path}?format=car")).await;
    assert!(
        whole.status == 404 || whole.body.len() < 3 * 1024,
        "{}",
        whole.status
    );
}

#[tokio::test]
async fn archives_of_sharded_directories_hold_the_shards_on_the_way() {
    let site = Site::start().await;
    let text = content(600);
    let names: Vec<String> = (0..200).map(|at| format!("dir/{at}.txt")).collect();
    let files: Vec<(&str, &[u8])> = names
        .iter()
        .map(|name| (name.as_str(), text.as_slice()))
        .collect();
    let root = site.add(sharded(), &files).await;
    let file = site.cid(&format!("{root}/42.txt")).await;
    let below = site.links(file).await;
    let blocks = archive(&site, &format!("/ipfs/{root}/42.txt"), "").await;
    assert_eq!(blocks[0], root);
    assert_eq!(
        blocks[blocks.len() - 1 - below.len()..],
        [&[file], &below[..]].concat()
    );
    let on_the_way = &blocks[1..blocks.len() - 1 - below.len()];
    assert!(
        !on_the_way.is_empty() && on_the_way.len() < 8,
        "{}",
        on_the_way.len()
    );
    let block = archive(&site, &format!("/ipfs/{root}/42.txt"), "&dag-scope=block").await;
    assert_eq!(block, blocks[..blocks.len() - below.len()]);
    // The listing needs the shards, and no file.
    let listing = archive(&site, &format!("/ipfs/{root}"), "&dag-scope=entity").await;
    let files: Vec<Cid> = [&[file], &below[..]].concat();
    assert!(listing.len() > 16 && listing.iter().all(|cid| !files.contains(cid)));
    let with_bytes = archive(
        &site,
        &format!("/ipfs/{root}"),
        "&dag-scope=entity&entity-bytes=0:*",
    )
    .await;
    assert_eq!(with_bytes, listing);
}

#[tokio::test]
async fn archives_follow_links_of_dag_cbor() {
    let site = Site::start().await;
    let file = site.add(v1(), &[("single", b"linked\n")]).await;
    let document = format!("{{\"files\":{{\"single\":{{\"/\":\"{file}\"}}}}}}");
    let document = site.put_dag(&document, DAG_CBOR).await;
    let path = format!("/ipfs/{document}/files/single");
    assert_eq!(archive(&site, &path, "").await, [document, file]);
    let only = archive(&site, &format!("/ipfs/{document}"), "&dag-scope=entity").await;
    assert_eq!(only, [document]);
    let all = archive(&site, &format!("/ipfs/{document}"), "").await;
    assert_eq!(all, [document, file]);
}

#[tokio::test]
async fn duplicates_and_order_are_negotiated() {
    let site = Site::start().await;
    let text = content(1026);
    let files: [(&str, &[u8]); 4] = [
        ("dir/ascii-copy.txt", b"same\n"),
        ("dir/ascii.txt", b"same\n"),
        ("dir/hello.txt", b"hello\n"),
        ("dir/multiblock.txt", &text),
    ];
    let root = site.add(chunked(256), &files).await;
    let children = site.links(root).await;
    let chunks = site.links(children[3]).await;
    let once = [&[root, children[0]][..], &children[2..], &chunks].concat();
    let twice = [&[root], &children[..], &chunks].concat();
    let path = format!("/ipfs/{root}");
    for (query, accept, expected, parameters) in [
        (
            "",
            "version=1; order=dfs; dups=y",
            &twice,
            ["order=dfs", "dups=y"],
        ),
        ("", "version=1; order=dfs; dups=n", &once, ["order=dfs", "dups=n"]),
        ("", "order=unk", &once, ["order=unk", "dups=n"]),
        (
            "?format=car",
            "order=dfs; dups=y",
            &twice,
            ["order=dfs", "dups=y"],
        ),
        (
            "?format=car&car-order=dfs",
            "order=unk",
            &once,
            ["order=dfs", "dups=n"],
        ),
        (
            "?format=car&car-dups=y",
            "dups=n",
            &twice,
            ["order=dfs", "dups=y"],
        ),
    ] {
        let accept = format!("{CAR}; {accept}");
        let answer = site
            .get_with(&format!("{path}{query}"), &[("Accept", &accept)])
            .await;
        assert_eq!(&blocks(&answer), expected, "{query} {accept}");
        let kind = answer.header("content-type").unwrap();
        assert!(parameters.iter().all(|it| kind.contains(it)), "{kind}");
    }
    for query in ["car-version=2", "car-order=bfs", "car-dups=x", "dag-scope=x"] {
        let answer = site.get(&format!("{path}?format=car&{query}")).await;
        assert_eq!(answer.status, 400, "{query}");
    }
    // CIDs that hold their content are no blocks.
    let identity = "/ipfs/bafkqaf3imvwgy3zaneqgc3janfxgy2lomvscay3jmqfa?format=car&car-dups=y";
    assert_eq!(blocks(&site.get(identity).await), []);
}

#[tokio::test]
async fn parameter_wins_over_accept() {
    let site = Site::start().await;
    let root = site.add(v1(), &[("dir/a", b"a")]).await;
    let car = site
        .get_with(&format!("/ipfs/{root}?format=car"), &[("Accept", RAW)])
        .await;
    assert!(car.header("content-type").unwrap().starts_with(CAR));
    let raw = site
        .get_with(&format!("/ipfs/{root}?format=raw"), &[("Accept", CAR)])
        .await;
    assert_eq!(raw.header("content-type"), Some(RAW));
}

#[tokio::test]
async fn validators_of_archives_depend_on_their_parameters() {
    let site = Site::start().await;
    let root = site.add(v1(), &[("dir/a", b"a")]).await;
    let etag = async |query: &str| {
        let answer = site.get(&format!("/ipfs/{root}?format=car{query}")).await;
        answer.header("etag").unwrap().to_owned()
    };
    let whole = etag("").await;
    assert_eq!(etag("&dag-scope=all").await, whole);
    for query in [
        "&dag-scope=block",
        "&car-dups=y",
        "&dag-scope=entity&entity-bytes=0:5",
    ] {
        assert_ne!(etag(query).await, whole, "{query}");
    }
    let known = [("If-None-Match", whole.as_str())];
    let again = site.get_with(&format!("/ipfs/{root}?format=car"), &known).await;
    assert_eq!((again.status, again.body.len()), (304, 0));
}
