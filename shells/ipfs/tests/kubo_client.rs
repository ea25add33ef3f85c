//! Client of Kubo's RPC API against a fake daemon, often a misbehaving one.

mod support;

use std::sync::Mutex;
use std::time::{Duration, Instant};

use cluster_ipfs::backend::{Cause, PinRequest, PinState};
use cluster_ipfs::{Block, Cid, PinMode};
use futures::{StreamExt, TryStreamExt};
use opentelemetry::Context;
use opentelemetry::trace::{
    FutureExt, SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState,
};
use support::{FakeDaemon, chunked, client, client_with_pin_timeout, nobody, sized};

const CID: &str = "QmVr26fY1tKyspEJBniVhqxQeEjhF78XerGiqWAwraVLQH";
const RAW: &str = "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e";

fn cid() -> Cid {
    CID.parse().unwrap()
}

fn kubo_error(message: &str) -> String {
    let body = format!(r#"{{"Message":"{message}","Code":0,"Type":"error"}}"#);
    sized("500 Internal Server Error", "application/json", &body)
}

#[tokio::test]
async fn pin_sends_the_requests_of_the_reference_and_reports_progress() {
    let fake = FakeDaemon::answering(&[
        &kubo_error(&format!("path '{CID}' is not pinned")),
        &chunked(
            &[
                "{}",
                r#"{"Progress":3}"#,
                r#"{"Progress":7,"Bytes":9}"#,
                &format!(r#"{{"Pins":["{CID}"]}}"#),
            ],
            None,
        ),
    ])
    .await;
    let seen = Mutex::new(Vec::new());
    let pin = PinRequest {
        name: "a name".into(),
        ..PinRequest::recursive(cid())
    };
    client(fake.address)
        .pin(&pin, &|progress| seen.lock().unwrap().push(progress))
        .await
        .unwrap();
    assert_eq!(
        fake.paths(),
        [
            format!("/api/v0/pin/ls?stream=true&arg={CID}&type=recursive&cluster-held=true"),
            format!("/api/v0/pin/add?arg={CID}&recursive=true&progress=true&name=a%20name"),
        ]
    );
    let seen = seen.lock().unwrap();
    let seen: Vec<_> = seen
        .iter()
        .map(|progress| (progress.blocks, progress.bytes))
        .collect();
    assert_eq!(seen, [(3, 0), (7, 9)]);
}

#[tokio::test]
async fn existing_pin_costs_one_request() {
    let fake = FakeDaemon::answering(&[&chunked(
        &[&format!(r#"{{"Cid":"{CID}","Type":"recursive"}}"#)],
        None,
    )])
    .await;
    client(fake.address)
        .pin(&PinRequest::recursive(cid()), &|_| ())
        .await
        .unwrap();
    assert_eq!(fake.paths().len(), 1);
}

#[tokio::test]
async fn requests_within_a_span_carry_its_trace_context() {
    let pinned = chunked(&[&format!(r#"{{"Cid":"{CID}","Type":"recursive"}}"#)], None);
    let fake = FakeDaemon::answering(&[&pinned, &pinned]).await;
    let span = SpanContext::new(
        TraceId::from(0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c),
        SpanId::from(0xb7ad_6b71_6920_3331),
        TraceFlags::SAMPLED,
        false,
        TraceState::default(),
    );
    let (client, pin) = (client(fake.address), PinRequest::recursive(cid()));
    let within = Context::new().with_remote_span_context(span);
    client.pin(&pin, &|_| ()).with_context(within).await.unwrap();
    client.pin(&pin, &|_| ()).await.unwrap();
    assert_eq!(
        fake.headers("traceparent"),
        ["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", ""]
    );
}

#[tokio::test]
async fn update_is_tried_if_the_old_pin_exists() {
    let recursive = chunked(&[r#"{"Type":"recursive"}"#], None);
    let fake = FakeDaemon::answering(&[
        &kubo_error("path is not pinned"),
        &recursive,
        &sized("200 OK", "application/json", r#"{"Pins":["a","b"]}"#),
    ])
    .await;
    let pin = PinRequest {
        update_from: Some(RAW.parse().unwrap()),
        ..PinRequest::recursive(cid())
    };
    client(fake.address).pin(&pin, &|_| ()).await.unwrap();
    assert_eq!(
        fake.paths()[2],
        format!("/api/v0/pin/update?arg={RAW}&arg={CID}&unpin=false")
    );
}

#[tokio::test]
async fn error_in_the_trailer_fails_the_pin() {
    let message = "pin: ipld: could not find QmX";
    let fake = FakeDaemon::answering(&[
        &kubo_error("path is not pinned"),
        &chunked(&[r#"{"Progress":1}"#], Some(message)),
    ])
    .await;
    let error = client(fake.address)
        .pin(&PinRequest::recursive(cid()), &|_| ())
        .await
        .unwrap_err();
    assert_eq!((error.cause(), error.message()), (Cause::Refused, message));
}

#[tokio::test]
async fn pin_times_out_only_without_progress() {
    let stuck = chunked(&[r#"{"Progress":5}"#, r#"{"Progress":5}"#], None).replace("0\n\n", "…");
    let fake = FakeDaemon::answering(&[&kubo_error("path is not pinned"), &stuck]).await;
    let start = Instant::now();
    let error = client_with_pin_timeout(fake.address, Duration::from_secs(1))
        .pin(&PinRequest::recursive(cid()), &|_| ())
        .await
        .unwrap_err();
    assert_eq!(error.cause(), Cause::TimedOut, "{error}");
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn unconfirmed_pin_is_an_error() {
    let fake = FakeDaemon::answering(&[
        &kubo_error("path is not pinned"),
        &chunked(&[r#"{"Progress":5}"#], None),
    ])
    .await;
    let error = client(fake.address)
        .pin(&PinRequest::recursive(cid()), &|_| ())
        .await
        .unwrap_err();
    assert_eq!(error.cause(), Cause::BadAnswer, "{error}");
}

#[tokio::test]
async fn unpin_of_an_absent_pin_succeeds_and_other_errors_do_not() {
    let js_ipfs = format!("Failed to remove pin: {CID} is not pinned");
    let kubo = "not pinned or pinned indirectly";
    let fake = FakeDaemon::answering(&[
        &kubo_error(kubo),
        &kubo_error(&js_ipfs),
        &kubo_error("disk on fire"),
    ])
    .await;
    let client = client(fake.address);
    client.unpin(&cid()).await.unwrap();
    client.unpin(&cid()).await.unwrap();
    assert_eq!(client.unpin(&cid()).await.unwrap_err().message(), "disk on fire");
    assert_eq!(fake.paths()[0], format!("/api/v0/pin/rm?arg={CID}"));
}

#[tokio::test]
async fn recursive_and_direct_pins_are_listed() {
    let fake = FakeDaemon::answering(&[
        &chunked(&[&format!(r#"{{"Cid":"{CID}","Type":"recursive"}}"#)], None),
        &chunked(&[&format!(r#"{{"Cid":"{RAW}","Type":"direct"}}"#)], None),
    ])
    .await;
    let pins: Vec<_> = client(fake.address).pins().try_collect().await.unwrap();
    assert_eq!(
        pins,
        [
            (cid(), PinMode::Recursive),
            (RAW.parse().unwrap(), PinMode::Direct)
        ]
    );
    assert_eq!(
        fake.paths(),
        [
            "/api/v0/pin/ls?stream=true&type=recursive",
            "/api/v0/pin/ls?stream=true&type=direct"
        ]
    );
}

#[tokio::test]
async fn listing_that_breaks_off_ends_with_an_error() {
    let line = format!(r#"{{"Cid":"{CID}","Type":"recursive"}}"#);
    let whole = chunked(&[&line], Some("boom"));
    let cut = chunked(&[&line], None).replace("0\n\n", "");
    for (answer, cause) in [(whole, Cause::Refused), (cut, Cause::Unreachable)] {
        let fake = FakeDaemon::answering(&[&answer]).await;
        let items: Vec<_> = client(fake.address).pins().collect().await;
        assert_eq!(items.len(), 2, "{items:?}");
        assert_eq!(items[1].as_ref().unwrap_err().cause(), cause);
    }
}

#[tokio::test]
async fn garbage_and_endless_lines_are_refused_without_buffering() {
    let long = "x".repeat(1 << 20);
    let answers = [
        chunked(&["<html>hello</html>"], None),
        chunked(&[&long], None),
        chunked(&[r#"{"Cid":"nonsense","Type":"recursive"}"#], None),
        chunked(&[r#"{"Cid":"Qm","Type":"sideways"}"#], None),
    ];
    for answer in &answers {
        let fake = FakeDaemon::answering(&[answer]).await;
        let error = client(fake.address)
            .pins()
            .try_collect::<Vec<_>>()
            .await
            .unwrap_err();
        assert_eq!(error.cause(), Cause::BadAnswer, "{error}");
        assert!(error.to_string().len() < 500);
    }
}

#[tokio::test]
async fn http_errors_without_json_keep_their_text() {
    for (status, text, expected) in [
        ("404 Not Found", "404 page not found", "404 page not found"),
        ("403 Forbidden", "403 - Forbidden", "403 - Forbidden"),
        ("502 Bad Gateway", "", "502 Bad Gateway"),
    ] {
        let fake = FakeDaemon::answering(&[&sized(status, "text/plain", text)]).await;
        let error = client(fake.address).id().await.unwrap_err();
        assert_eq!(error.cause(), Cause::Refused);
        assert!(error.message().contains(expected), "{error}");
    }
}

#[tokio::test]
async fn absent_daemon_is_unreachable() {
    let (_socket, address) = nobody();
    let error = client(address).id().await.unwrap_err();
    assert_eq!(error.cause(), Cause::Unreachable);
    assert!(error.message().contains("refused"), "{error}");
}

#[tokio::test]
async fn pin_state_is_queried_mode_by_mode() {
    let not_pinned = kubo_error(&format!("path '{CID}' is not pinned"));
    let direct = chunked(&[&format!(r#"{{"Cid":"{CID}","Type":"direct"}}"#)], None);
    let fake = FakeDaemon::answering(&[&not_pinned, &direct, &not_pinned, &not_pinned]).await;
    let client = client(fake.address);
    assert_eq!(
        client.pin_state(&cid()).await.unwrap(),
        PinState::Pinned(PinMode::Direct)
    );
    assert_eq!(client.pin_state(&cid()).await.unwrap(), PinState::Unpinned);
}

#[tokio::test]
async fn blocks_that_the_node_did_not_store_are_noticed() {
    let block = || {
        Ok(Block {
            cid: RAW.parse().unwrap(),
            data: "hello world".into(),
        })
    };
    let answer = |key: &str| chunked(&[&format!(r#"{{"Key":"{key}","Size":11}}"#)], None);
    for (answer, fits) in [
        (answer(RAW), true),
        (answer(CID), false),
        (chunked(&[], None), false),
    ] {
        let fake = FakeDaemon::answering(&[&id_of("kubo/0.22.0/"), &answer]).await;
        let stored = client(fake.address)
            .put_blocks(futures::stream::iter([block()]))
            .await;
        assert_eq!(stored.is_ok(), fits, "{stored:?}");
        assert_eq!(fake.paths(), ["/api/v0/id", PUT]);
    }
}

#[tokio::test]
async fn js_ipfs_is_sent_one_block_per_request() {
    let block = || {
        Ok(Block {
            cid: RAW.parse().unwrap(),
            data: "hello world".into(),
        })
    };
    let line = format!(r#"{{"Key":"{RAW}","Size":11}}"#);
    let (one, three) = (chunked(&[&line], None), chunked(&[line.as_str(); 3], None));
    for (agent, answers) in [
        ("js-ipfs/0.18.1", vec![&one[..]; 3]),
        ("kubo/0.22.0/", vec![&three]),
    ] {
        let id = id_of(agent);
        let fake = FakeDaemon::answering(&[&[&id[..]][..], &answers].concat()).await;
        // Unlike other streams, this one panics if it is polled after its end.
        let next = move |left: u8| async move { left.checked_sub(1).map(|left| (block(), left)) };
        let blocks = futures::stream::unfold(3, next);
        let stored = client(fake.address).put_blocks(blocks).await.unwrap();
        assert_eq!(stored.blocks, 3);
        assert_eq!(
            fake.paths(),
            [&["/api/v0/id"][..], &vec![PUT; answers.len()]].concat()
        );
    }
}

const PUT: &str = "/api/v0/block/put?allow-big-block=true&cid-codec=raw&mhlen=32&mhtype=sha2-256&pin=false";

fn id_of(agent: &str) -> String {
    let id = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp";
    sized(
        "200 OK",
        "application/json",
        &format!(r#"{{"ID":"{id}","AgentVersion":"{agent}"}}"#),
    )
}

#[tokio::test]
async fn requests_slow_down_while_the_daemon_is_away() {
    let (_socket, address) = nobody();
    let client = client(address);
    let start = Instant::now();
    for _ in 0..14 {
        client.id().await.unwrap_err();
    }
    assert!(
        start.elapsed() >= Duration::from_millis(1900),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn numbers_are_parsed_from_kubo_and_js_ipfs() {
    for body in [
        r#"{"RepoSize":7,"StorageMax":18446744073709551615}"#,
        r#"{"RepoSize":"7","StorageMax":"18446744073709551615"}"#,
    ] {
        let fake = FakeDaemon::answering(&[&sized("200 OK", "application/json", body)]).await;
        let stat = client(fake.address).repo_stat().await.unwrap();
        assert_eq!((stat.size, stat.storage_max), (7, u64::MAX));
        assert_eq!(fake.paths(), ["/api/v0/repo/stat?size-only=true"]);
    }
}

#[tokio::test]
async fn scrub_reads_kubos_verification_and_unpins_what_lacks_blocks() {
    let other = "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy";
    let fake = FakeDaemon::answering(&[
        &chunked(
            &[
                r#"{"Msg":"","Progress":1}"#,
                &format!(
                    r#"{{"Msg":"block {RAW} was corrupt (hash mismatch), removed, healed","Progress":0}}"#
                ),
                r#"{"Msg":"","Progress":2}"#,
                &format!(r#"{{"Msg":"block {other} was corrupt (hash mismatch)","Progress":0}}"#),
                r#"{"Msg":"","Progress":3}"#,
            ],
            Some("verify complete, 2 blocks corrupt, 1 removed, 1 healed"),
        ),
        &chunked(
            &[
                &format!(r#"{{"Cid":"{RAW}","Ok":true}}"#),
                &format!(r#"{{"Cid":"{CID}","BadNodes":[{{"Cid":"{other}","Err":"not found"}}]}}"#),
            ],
            None,
        ),
        &sized("200 OK", "application/json", &format!(r#"{{"Pins":["{CID}"]}}"#)),
        &chunked(&[], None),
        &chunked(&[], None),
    ])
    .await;
    let client = client(fake.address);
    let (mut scrub, mut position) = (client.scrub(), String::new());
    let mut all = Vec::new();
    loop {
        let found = scrub.check(&position).await.unwrap();
        let next = found.position.clone();
        all.push(found);
        match next {
            Some(next) => position = next,
            None => break,
        }
    }
    let sum = |count: fn(&cluster_ipfs::Scrubbed) -> u64| all.iter().map(count).sum::<u64>();
    assert_eq!((sum(|found| found.blocks), sum(|found| found.damaged)), (3, 2));
    let incomplete: Vec<Cid> = all.iter().flat_map(|found| found.incomplete.clone()).collect();
    assert_eq!(incomplete, [cid()]);
    let unmended = client.unmended();
    assert_eq!((unmended.blocks, unmended.mended_blocks), (1, 1));
    assert_eq!(unmended.examples, [other.parse::<Cid>().unwrap()]);
    assert_eq!(
        fake.paths(),
        [
            "/api/v0/repo/verify?heal=true&heal-timeout=2m".to_owned(),
            "/api/v0/pin/verify?verbose=true".to_owned(),
            format!("/api/v0/pin/rm?arg={CID}"),
            "/api/v0/pin/ls?stream=true&type=recursive".to_owned(),
            "/api/v0/pin/ls?stream=true&type=direct".to_owned(),
        ]
    );
}

#[tokio::test]
async fn scrub_unpins_what_lacks_leaves() {
    let fake = FakeDaemon::answering(&[
        &chunked(&[&format!(r#"{{"Cid":"{CID}","Type":"recursive"}}"#)], None),
        &chunked(
            &[
                &format!(r#"{{"Ref":"{RAW}","Err":""}}"#),
                &format!(r#"{{"Ref":"{CID}","Err":""}}"#),
            ],
            None,
        ),
        &sized(
            "500 Internal Server Error",
            "application/json",
            r#"{"Message":"ipld: could not find x","Code":0,"Type":"error"}"#,
        ),
        &sized("200 OK", "application/json", &format!(r#"{{"Pins":["{CID}"]}}"#)),
        &chunked(&[&format!(r#"{{"Cid":"{RAW}","Type":"direct"}}"#)], None),
        &sized(
            "200 OK",
            "application/json",
            &format!(r#"{{"Key":"{RAW}","Size":3}}"#),
        ),
    ])
    .await;
    let mut scrub = client(fake.address).scrub();
    let found = scrub.check("leaves").await.unwrap();
    assert_eq!((found.position, found.incomplete), (None, vec![cid()]));
    assert_eq!(
        fake.paths(),
        [
            "/api/v0/pin/ls?stream=true&type=recursive".to_owned(),
            format!("/api/v0/refs?arg={CID}&recursive=true&unique=true&offline=true"),
            format!("/api/v0/block/stat?arg={RAW}&offline=true"),
            format!("/api/v0/pin/rm?arg={CID}"),
            "/api/v0/pin/ls?stream=true&type=direct".to_owned(),
            format!("/api/v0/block/stat?arg={RAW}&offline=true"),
        ]
    );
}

#[tokio::test]
async fn scrub_whose_answer_breaks_off_is_an_error_and_begins_anew() {
    let broken = chunked(&[r#"{"Msg":"","Progress":1}"#], Some("context canceled"));
    let whole = chunked(
        &[r#"{"Msg":"verify complete, all blocks validated.","Progress":0}"#],
        None,
    );
    let fake = FakeDaemon::answering(&[&broken, &whole]).await;
    let mut scrub = client(fake.address).scrub();
    let error = scrub.check("").await.unwrap_err();
    assert_eq!(error.message(), "context canceled");
    let found = scrub.check("block 1").await.unwrap();
    assert_eq!((found.blocks, found.position.as_deref()), (0, Some("pins")));
}
