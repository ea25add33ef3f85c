//! Tests of the tool as a process, against a small REST API in the test process.

#[path = "ctl/pin_import.rs"]
mod pin_import;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, RawQuery};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const CID: &str = "QmP63DkAFEnDYNjDYBpyNDfttu1fvUw99x1brscPzpqmmq";
const PEER: &str = "12D3KooWGwZ7wvxbHgxbpPJRAFMLdcPVkVoXa1vCpyuqrL47PZWc";

async fn serve(router: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    format!("/ip4/127.0.0.1/tcp/{port}")
}

async fn ctl(host: &str, arguments: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_ipfs-cluster-ctl"));
    command
        .env_remove("CLUSTER_CREDENTIALS")
        .arg("--host")
        .arg(host)
        .args(arguments);
    command.output().await.unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn pin() -> String {
    format!(
        "{{\"cid\":\"{CID}\",\"name\":\"a & b\",\"type\":\"pin\",\"replication_factor_min\":1,\
         \"replication_factor_max\":2,\"allocations\":[\"{PEER}\"],\"max_depth\":-1,\"brand_new\":1}}"
    )
}

fn status(status: &str) -> String {
    format!(
        "{{\"cid\":\"{CID}\",\"peer_map\":{{\"{PEER}\":{{\"peername\":\"c0\",\"status\":\"{status}\",\
         \"timestamp\":\"2026-05-11T10:00:00Z\"}}}}}}"
    )
}

/// REST API whose pins become pinned after `looks` polls of their status.
fn pinning(looks: usize, then: &'static str) -> Router {
    let seen = Arc::new(AtomicUsize::new(0));
    let look = move || {
        let now = if seen.fetch_add(1, Ordering::Relaxed) < looks {
            "pinning"
        } else {
            then
        };
        async move { status(now) }
    };
    Router::new()
        .route(
            "/pins/ipfs/{cid}",
            post(|| async { pin() }).delete(|| async { pin() }),
        )
        .route("/pins/{cid}", get(look))
}

#[tokio::test]
async fn listings_are_text_or_concatenated_objects() {
    let lines = format!("{}\n{}\n", pin(), pin());
    let host = serve(Router::new().route("/allocations", get(|| async { lines }))).await;
    let text = ctl(&host, &["pin", "ls"]).await;
    let line = format!(
        "{CID} | a & b | PIN | Repl. Factor: 1--2 | Allocations: [{PEER}] | Recursive | Metadata: no | \
         Exp: ∞ | Added: unknown\n"
    );
    assert_eq!((out(&text), code(&text)), (line.repeat(2), 0));
    let json = out(&ctl(&host, &["--enc=json", "pin", "ls"]).await);
    let start = format!("{{\n    \"cid\": \"{CID}\",\n    \"name\": \"a \\u0026 b\",\n");
    assert!(json.starts_with(&start), "{json}");
    // Unknown fields are kept, and the objects are not in an array.
    assert_eq!(json.matches("    \"brand_new\": 1\n}\n").count(), 2);
    // Global options are accepted after the command too.
    assert_eq!(out(&ctl(&host, &["pin", "ls", "--enc", "json"]).await), json);
}

#[tokio::test]
async fn an_error_answer_is_printed_and_exits_2() {
    let answer = || async { (StatusCode::NOT_FOUND, "{\"code\":404,\"message\":\"no <pin>\"}") };
    let host = serve(Router::new().route("/allocations/{cid}", get(answer))).await;
    let text = ctl(&host, &["pin", "ls", CID]).await;
    assert_eq!(
        out(&text),
        "An error occurred:\n  Code: 404\n  Message: no <pin>\n"
    );
    assert_eq!(code(&text), 2);
    let json = ctl(&host, &["--enc=json", "pin", "ls", CID]).await;
    assert_eq!(
        out(&json),
        "{\n    \"code\": 404,\n    \"message\": \"no \\u003cpin\\u003e\"\n}\n"
    );
    assert_eq!(code(&json), 2);
}

#[tokio::test]
async fn an_error_at_the_end_of_a_listing_follows_its_items() {
    let handler = || async {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-stream-error", HeaderValue::from_static("lost a peer"));
        let line = format!("{}\n", status("pinned")).into();
        let frames = [
            Ok::<_, std::io::Error>(hyper::body::Frame::data(line)),
            Ok(hyper::body::Frame::trailers(trailers)),
        ];
        let mut response = Response::new(Body::new(http_body_util::StreamBody::new(futures::stream::iter(
            frames,
        ))));
        response
            .headers_mut()
            .insert("trailer", HeaderValue::from_static("X-Stream-Error"));
        response
    };
    let host = serve(Router::new().route("/pins", get(handler))).await;
    let shown = ctl(&host, &["status"]).await;
    assert!(out(&shown).starts_with(CID) && out(&shown).ends_with("Code: 500\n  Message: lost a peer\n"));
    assert_eq!(code(&shown), 2);
}

#[tokio::test]
async fn an_unreachable_service_exits_1_with_advice() {
    // A bound port without a listener.
    let held = tokio::net::TcpSocket::new_v4().unwrap();
    held.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let gone = held.local_addr().unwrap().to_string();
    let shown = ctl(&gone, &["id"]).await;
    assert_eq!(code(&shown), 1);
    for part in ["An error occurred:\n  Code: 0\n", &gone, "refused", "--host"] {
        assert!(out(&shown).contains(part), "{}", out(&shown));
    }
}

#[tokio::test]
async fn a_request_that_takes_too_long_exits_62() {
    let slow = || async {
        tokio::time::sleep(Duration::from_secs(60)).await;
        "{}"
    };
    let host = serve(Router::new().route("/id", get(slow))).await;
    assert_eq!(code(&ctl(&host, &["--timeout", "1", "id"]).await), 62);
}

#[tokio::test]
async fn wrong_arguments_exit_1_before_anything_is_sent() {
    // No listener: an attempt to connect would be reported on standard output.
    let host = "/ip4/127.0.0.1/tcp/1";
    for (arguments, complaint) in [
        (&["pin", "add", "xyz"][..], "invalid cid"),
        (&["pin", "add", CID, "--metadata", "k"], "key=value"),
        (&["pin", "add", CID, "--expire-in", "5"], "missing unit"),
        (&["pin", "add", CID, "--expire-in", "1ms"], "too short"),
        (&["pin", "add", CID, "--allocs", "x"], "could not be decoded"),
        (&["pin", "add", CID, "--mode", "deep"], "neither"),
        (&["pin", "ls", "--filter", "x"], "invalid filter"),
        (&["status", "--filter", "x"], "invalid filter name"),
        (&["peers", "rm", "x"], "peer ID"),
        (&["add"], "at least one path"),
        (&["add", "/no/such/file"], "no such file"),
        (&["add", "/"], "--recursive"),
        (&["add", "--format", "car", "-w", "/etc/hostname"], "single CAR"),
        (&["--enc=xml", "id"], "xml"),
        (&["--nonsense", "id"], "--nonsense"),
    ] {
        let shown = ctl(host, arguments).await;
        assert_eq!((code(&shown), out(&shown).as_str()), (1, ""), "{arguments:?}");
        assert!(err(&shown).contains(complaint), "{arguments:?}: {}", err(&shown));
    }
    let shown = ctl("/nonsense", &["id"]).await;
    assert!(err(&shown).starts_with("error parsing host multiaddress:") && code(&shown) == 1);
}

/// Name that would erase the screen, forge a second pin and reverse the text.
const HOSTILE: &str = r"x\u001b[2J\n\u009b31m\u007f\u202eQmForged | y | PIN";

#[tokio::test]
async fn names_and_errors_from_the_service_are_escaped() {
    let pin = format!("{{\"cid\":\"{CID}\",\"name\":\"{HOSTILE}\",\"max_depth\":-1}}");
    let raw: String = serde_json::from_str(&format!("\"{HOSTILE}\"")).unwrap();
    // Unescaped as far as JSON allows, which requires escapes for C0 only.
    let raw_json = serde_json::to_string(&raw).unwrap();
    let error = format!("{{\"code\":400,\"message\":{raw_json}}}");
    let fails = move || async { (StatusCode::BAD_REQUEST, error) };
    let raw_pin = format!("{{\"cid\":\"{CID}\",\"name\":{raw_json},\"max_depth\":-1}}");
    let router = Router::new()
        .route("/allocations", get(|| async { pin }))
        .route("/allocations/{cid}", get(|| async { raw_pin }))
        .route("/pins/{cid}", get(fails));
    let host = serve(router).await;
    for arguments in [
        &["pin", "ls"][..],
        &["pin", "ls", CID],
        &["--enc=json", "pin", "ls"],
        &["--enc=json", "pin", "ls", CID],
        &["status", CID],
        &["--enc=json", "status", CID],
    ] {
        let shown = out(&ctl(&host, arguments).await);
        let rest = shown.replace('\n', "");
        assert!(
            !rest.contains(cluster_api::terminal::is_control),
            "{arguments:?}: {shown:?}"
        );
        assert!(shown.contains(HOSTILE), "{arguments:?}: {shown}");
    }
    assert_eq!(out(&ctl(&host, &["pin", "ls"]).await).lines().count(), 1);
    let json = out(&ctl(&host, &["--enc=json", "pin", "ls", CID]).await);
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&json).unwrap()["name"],
        raw
    );
    // Arguments of a script may be foreign text too.
    let shown = ctl(&host, &["pin", "add", &raw]).await;
    assert!(
        !err(&shown).trim_end().contains(cluster_api::terminal::is_control),
        "{:?}",
        err(&shown)
    );
    let shown = ctl(&host, &["--encoding", "\u{1b}[2J", "id"]).await;
    assert!(!err(&shown).contains('\u{1b}'), "{:?}", err(&shown));
}

#[tokio::test]
async fn surplus_arguments_are_ignored_by_commands_that_change_nothing() {
    let router = Router::new()
        .route("/id", get(|| async { "{\"id\":\"Qa\"}" }))
        .route("/version", get(|| async { "{\"version\":\"1.1.6\"}" }))
        .route("/peers", get(|| async { "{\"id\":\"Qa\"}" }))
        .route("/health/graph", get(|| async { "{\"cluster_id\":\"Qa\"}" }))
        .route("/monitor/metrics", get(|| async { "[\"ping\"]" }))
        .route("/monitor/metrics/ping", get(|| async { "[]" }))
        .route("/health/alerts", get(|| async { "[]" }))
        .route("/health/bandwidth", get(|| async { "{}" }))
        .route("/allocations/{cid}", get(|| async { pin() }))
        .route("/pins/{cid}/recover", post(|| async { status("pinned") }))
        .route("/pins/recover", post(|| async { status("pinned") }));
    let host = serve(router).await;
    for arguments in [
        &["id", "x"][..],
        &["version", "x", "y"],
        &["peers", "ls", "x"],
        &["health", "graph", "x"],
        &["health", "metrics", "ping", "x"],
        &["health", "metrics", ""],
        &["health", "alerts", "x"],
        &["health", "bandwidth", "x"],
        &["pin", "ls", CID, "x"],
        &["recover", CID, "x"],
        &["recover", ""],
        &["commands", "x"],
    ] {
        let shown = ctl(&host, arguments).await;
        assert_eq!(code(&shown), 0, "{arguments:?}: {}{}", out(&shown), err(&shown));
    }
    // A second argument of a change must not be ignored silently.
    for arguments in [
        &["pin", "add", CID, CID][..],
        &["pin", "rm", CID, CID],
        &["peers", "rm", PEER, PEER],
        &["ipfs", "gc", PEER],
    ] {
        assert_eq!(code(&ctl(&host, arguments).await), 1, "{arguments:?}");
    }
}

#[tokio::test]
async fn the_graph_is_a_graphviz_file_in_every_encoding() {
    let router = Router::new().route("/health/graph", get(|| async { "{\"cluster_id\":\"Qa\"}" }));
    let host = serve(router).await;
    for arguments in [
        &["health", "graph"][..],
        &["--enc=json", "health", "graph"],
        &["health", "graph", "--file", ""],
    ] {
        assert!(
            out(&ctl(&host, arguments).await).starts_with("digraph cluster {\n"),
            "{arguments:?}"
        );
    }
}

#[tokio::test]
async fn valid_secrets_are_ignored_and_invalid_ones_refused() {
    let host = serve(Router::new().route("/version", get(|| async { "{\"version\":\"1.1.6\"}" }))).await;
    for secret in [&"ab".repeat(32), ""] {
        assert_eq!(
            code(&ctl(&host, &["--secret", secret, "version"]).await),
            0,
            "{secret:?}"
        );
    }
    let shown = ctl(&host, &["--secret", "xyz", "version"]).await;
    assert_eq!(code(&shown), 1);
    assert!(err(&shown).starts_with("error parsing secret: ") && !err(&shown).contains("xyz"));
}

/// Simulates a script's unset variables.
#[tokio::test]
async fn empty_option_values_are_the_defaults() {
    let handler = |RawQuery(query): RawQuery| async move {
        format!("{{\"cid\":\"{CID}\",\"name\":\"{}\"}}", query.unwrap())
    };
    let router = Router::new()
        .route("/pins/ipfs/{cid}", post(handler))
        .route("/add", post(handler));
    let host = serve(router).await;
    let plain = ctl(&host, &["pin", "add", "--ns", CID]).await;
    let empty = [
        "--name",
        "",
        "--allocations",
        "",
        "--expire-in",
        "",
        "--metadata",
        "",
        "--mode",
        "",
        "-wt",
        "",
    ];
    let shown = ctl(&host, &[&["pin", "add", "--ns", CID][..], &empty].concat()).await;
    assert_eq!((out(&shown), code(&shown)), (out(&plain), 0), "{}", err(&shown));
    let file = tempfile::NamedTempFile::new().unwrap();
    let add = ["add", file.path().to_str().unwrap()];
    let plain = ctl(&host, &add).await;
    let empty = [
        "--name",
        "",
        "--allocs",
        "",
        "--expire-in",
        "",
        "--metadata",
        "",
        "--format",
        "",
        "--layout",
        "",
        "--chunker",
        "",
        "--wait-timeout",
        "",
    ];
    let shown = ctl(&host, &[&add[..], &empty].concat()).await;
    assert_eq!((out(&shown), code(&shown)), (out(&plain), 0), "{}", err(&shown));
    // In Go, an empty hash function differs from the default, which implies version 1.
    let shown = out(&ctl(&host, &[&add[..], &["--hash", ""]].concat()).await);
    assert!(
        shown.contains("cid-version=1") && shown.contains("hash=sha2-256"),
        "{shown}"
    );
}

#[tokio::test]
async fn unknown_commands_exit_3_and_help_exits_0() {
    let host = "/ip4/127.0.0.1/tcp/1";
    assert_eq!(code(&ctl(host, &["nonsense"]).await), 3);
    assert_eq!(code(&ctl(host, &["pin", "nonsense"]).await), 3);
    for arguments in [
        &[][..],
        &["--help"],
        &["help", "pin", "add"],
        &["h"],
        &["h", "pin"],
        &["pin", "h"],
        &["pin", "h", "add"],
        &["health", "help"],
        &["pin"],
        &["-v"],
        &["pin", "add", "-h"],
    ] {
        assert_eq!(code(&ctl(host, arguments).await), 0, "{arguments:?}");
    }
    assert!(out(&ctl(host, &["completions", "bash"]).await).contains("ipfs-cluster-ctl"));
    assert!(out(&ctl(host, &["commands"]).await).contains("ipfs-cluster-ctl health graph\n"));
}

#[tokio::test]
async fn pinning_shows_the_status_as_soon_as_it_has_settled() {
    let expected = format!(
        "{CID}:\n    > c0                   : PINNED | 2026-05-11T10:00:00Z | Attempts: 0 | Priority: false\n"
    );
    // A status that has not settled after a second is shown anyway; a busy machine may need a second.
    let mut tries = 0;
    loop {
        let host = serve(pinning(2, "pinned")).await;
        let start = Instant::now();
        let shown = ctl(&host, &["pin", "add", CID]).await;
        let took = start.elapsed();
        let settled = out(&shown) == expected;
        assert!(settled || out(&shown).contains(": PINNING |"), "{}", out(&shown));
        assert_eq!(code(&shown), 0);
        if settled && took < Duration::from_millis(900) {
            break;
        }
        tries += 1;
        assert!(
            took >= Duration::from_millis(900) && tries < 30,
            "{took:?}: {}",
            out(&shown)
        );
    }
    // A status that keeps changing is shown after a second.
    let host = serve(pinning(usize::MAX, "pinned")).await;
    assert!(out(&ctl(&host, &["pin", "add", CID]).await).contains(": PINNING |"));
    let shown = ctl(&host, &["pin", "add", CID, "-ns"]).await;
    assert!(out(&shown).starts_with(&format!("{CID} | a & b | PIN |")));
}

#[tokio::test]
async fn waiting_ends_at_the_goal_an_error_or_the_timeout() {
    let host = serve(pinning(3, "pinned")).await;
    let shown = ctl(&host, &["pin", "add", "--wait", "-wl", "1", CID]).await;
    assert!(out(&shown).contains(": PINNED |") && code(&shown) == 0);

    let host = serve(pinning(1, "pin_error")).await;
    let shown = ctl(&host, &["pin", "add", "--wait", CID]).await;
    assert_eq!((code(&shown), out(&shown).as_str()), (1, ""));
    assert!(err(&shown).contains("error has occurred while attempting to reach status: pinned"));

    let host = serve(pinning(usize::MAX, "")).await;
    let shown = ctl(&host, &["pin", "rm", "-w", "-wt=100ms", CID]).await;
    assert_eq!((code(&shown), out(&shown).as_str()), (62, ""));
    assert!(err(&shown).contains("deadline exceeded"));
}

#[tokio::test]
async fn flags_are_sent_as_options() {
    let handler = |Path(cid): Path<String>, RawQuery(query): RawQuery| async move {
        format!("{{\"cid\":\"{cid}\",\"name\":\"{}\"}}", query.unwrap())
    };
    let host = serve(Router::new().route("/pins/ipfs/{cid}", post(handler))).await;
    let all = [
        "pin",
        "add",
        CID,
        "-ns",
        "-rmin",
        "-1",
        "--rmax=3",
        "-n",
        "my name",
        "--mode=direct",
        "--metadata",
        "k=v=w",
        "--allocations",
        PEER,
    ];
    let shown = out(&ctl(&host, &all).await);
    let expected = format!(
        "meta-k=v%3Dw&mode=direct&name=my+name&replication-max=3&replication-min=-1&shard-size=0\
         &user-allocations={PEER}"
    );
    assert!(shown.contains(&expected), "{shown}");
    let shown = out(&ctl(&host, &["pin", "update", CID, CID, "--ns"]).await);
    assert!(shown.contains(&format!("pin-update={CID}")), "{shown}");
}

#[tokio::test]
async fn flags_of_add_select_the_output() {
    let answer = || async {
        format!("{{\"name\":\"a\",\"cid\":\"{CID}\",\"size\":3}}\n{{\"name\":\"\",\"cid\":\"{PEER}\"}}\n")
            .into_response()
    };
    let host = serve(Router::new().route("/add", post(answer))).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    for (flags, expected) in [
        (&[][..], format!("added {CID} a\nadded {PEER} \n")),
        (&["-q"], format!("{CID}\n{PEER}\n")),
        (&["-Q"], format!("{PEER}\n")),
        (&["--no-stream"], format!("added {CID} a\nadded {PEER} \n")),
    ] {
        let arguments = [&["add", path], flags].concat();
        let shown = ctl(&host, &arguments).await;
        assert_eq!((out(&shown), code(&shown)), (expected, 0), "{flags:?}");
    }
    let shown = out(&ctl(&host, &["--enc=json", "add", "--no-stream", path]).await);
    assert!(
        shown.starts_with("[\n    {\n        \"name\": \"a\",") && shown.ends_with("    }\n]\n"),
        "{shown}"
    );
}

#[tokio::test]
async fn sync_falls_back_to_recover_at_go_peers() {
    let router = Router::new()
        .route("/pins/recover", post(|| async { status("pinned") }))
        .route("/pins/{cid}/recover", post(|| async { status("unpinned") }))
        .fallback(|| async { (StatusCode::NOT_FOUND, "{\"code\":404,\"message\":\"not found\"}") });
    let host = serve(router).await;
    assert!(out(&ctl(&host, &["sync"]).await).contains(": PINNED |"));
    assert!(out(&ctl(&host, &["sync", CID]).await).contains(": UNPINNED |"));
}

#[tokio::test]
async fn removing_a_peer_prints_nothing_and_debug_logs_the_request() {
    let handler = delete(|| async { StatusCode::NO_CONTENT });
    let host = serve(Router::new().route("/peers/{peer}", handler)).await;
    let shown = ctl(&host, &["--debug", "peers", "rm", PEER]).await;
    assert_eq!((out(&shown).as_str(), code(&shown)), ("", 0));
    assert!(
        err(&shown).starts_with("DELETE http://127.0.0.1:"),
        "{}",
        err(&shown)
    );
    assert!(
        err(&shown).ends_with(&format!("/peers/{PEER}: 204 No Content\n")),
        "{}",
        err(&shown)
    );
}
