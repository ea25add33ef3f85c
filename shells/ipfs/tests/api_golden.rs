//! Golden tests of the API, byte for byte where clients depend on it.

mod support;

use support::Served;

const HELLO: &str = "QmVr26fY1tKyspEJBniVhqxQeEjhF78XerGiqWAwraVLQH";

#[tokio::test]
async fn only_post_is_allowed() {
    let served = Served::start().await;
    for method in ["GET", "PUT", "HEAD", "DELETE"] {
        let answer = served.raw(&format!("{method} /api/v0/id"), "", b"").await;
        assert_eq!(answer.status, 405);
        assert_eq!(answer.header("Allow"), Some("OPTIONS, POST"));
        assert_eq!(answer.header("Content-Type"), Some("text/plain; charset=utf-8"));
        if method != "HEAD" {
            assert_eq!(answer.text(), "405 - Method Not Allowed\n");
        }
    }
    let answer = served.raw("OPTIONS /api/v0/id", "", b"").await;
    assert_eq!(
        (answer.status, answer.header("Allow")),
        (204, Some("OPTIONS, POST"))
    );
}

#[tokio::test]
async fn unknown_commands_are_404_in_plain_text() {
    let served = Served::start().await;
    for path in [
        "nope",
        "pubsub/pub",
        "pin",
        "name",
        "cat/ipfs/Qm",
        "key/export",
        "files/chroot",
        "",
    ] {
        let answer = served.post(path).await;
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (404, "404 page not found\n"),
            "{path}"
        );
        assert_eq!(answer.header("Content-Type"), Some("text/plain; charset=utf-8"));
    }
}

#[tokio::test]
async fn bad_arguments_are_400_in_plain_text() {
    let served = Served::start().await;
    for (path, text) in [
        ("cat", "argument \"ipfs-path\" is required\n"),
        ("pin/update?arg=a", "argument \"to-path\" is required\n"),
        ("add", "file argument 'path' is required\n"),
        (
            "pin/ls?stream=maybe",
            "could not convert value \"maybe\" to type \"bool\" (for option \"-stream\")\n",
        ),
        (
            "cat?arg=a&offset=",
            "could not convert empty value to type \"int\" (for option \"-offset\")\n",
        ),
        (
            "pin/ls?type=a&t=b",
            "expected key type to have only a single value, received [a b]\n",
        ),
        ("id?encoding=yaml", "invalid encoding: yaml\n"),
    ] {
        let answer = served.post(path).await;
        assert_eq!((answer.status, answer.text().as_str()), (400, text), "{path}");
        assert_eq!(
            answer.header("Content-Type"),
            Some("text/plain; charset=utf-8"),
            "{path}"
        );
    }
}

#[tokio::test]
async fn command_errors_are_500_in_json() {
    let served = Served::start().await;
    for (path, message) in [
        (
            format!("pin/rm?arg={HELLO}"),
            "not pinned or pinned indirectly".to_owned(),
        ),
        (
            format!("pin/ls?arg={HELLO}"),
            format!("path '{HELLO}' is not pinned"),
        ),
        (
            "pin/ls?type=x".to_owned(),
            "invalid type 'x', must be one of {direct, indirect, recursive, all}".to_owned(),
        ),
        (
            "cat?arg=/foo/bar".to_owned(),
            "invalid path \\\"/foo/bar\\\": unknown namespace: \\\"foo\\\"".to_owned(),
        ),
        (
            format!("cat?arg={HELLO}&timeout=50ms"),
            "context deadline exceeded".to_owned(),
        ),
    ] {
        let answer = served.post(&path).await;
        assert_eq!(answer.status, 500, "{path}");
        assert_eq!(answer.header("Content-Type"), Some("application/json"), "{path}");
        assert_eq!(answer.header("Trailer"), Some("X-Stream-Error"), "{path}");
        let expected = format!("{{\"Message\":\"{message}\",\"Code\":0,\"Type\":\"error\"}}\n");
        assert_eq!(answer.text(), expected, "{path}");
    }
}

#[tokio::test]
async fn streams_have_the_headers_of_kubo() {
    let served = Served::start().await;
    let answer = served.post("pin/ls?stream=true").await;
    let names: Vec<&str> = answer.headers.iter().map(|(name, _)| name.as_str()).collect();
    for (name, value) in [
        (
            "Access-Control-Allow-Headers",
            "X-Stream-Output, X-Chunked-Output, X-Content-Length",
        ),
        (
            "Access-Control-Expose-Headers",
            "X-Stream-Output, X-Chunked-Output, X-Content-Length",
        ),
        ("Content-Type", "application/json"),
        ("Server", "kubo/0.43.0"),
        ("Trailer", "X-Stream-Error"),
        ("Vary", "Origin"),
        ("X-Chunked-Output", "1"),
        ("Transfer-Encoding", "chunked"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{names:?}");
    }
    assert_eq!((answer.status, answer.text().as_str()), (200, ""));
    let single = served.post("version").await;
    assert_eq!(single.header("X-Chunked-Output"), None);
    assert!(single.text().starts_with("{\"Version\":\"0.43.0\",\"Commit\":"));
    assert!(single.text().ends_with("}\n"));
}

#[tokio::test]
async fn foreign_web_pages_are_refused() {
    let served = Served::start().await;
    let port = served.address.port();
    for (headers, status) in [
        ("Origin: http://evil.example\r\n".to_owned(), 403),
        (format!("Origin: http://127.0.0.1:{port}\r\n"), 200),
        (format!("Origin: http://localhost:{}\r\n", port ^ 1), 403),
        ("Referer: http://evil.example/page\r\n".to_owned(), 403),
        (format!("Referer: http://localhost:{port}/webui\r\n"), 200),
        ("Referer: ::nonsense\r\n".to_owned(), 403),
        ("User-Agent: Mozilla/5.0 (X11)\r\n".to_owned(), 403),
        ("User-Agent: Mozilla/5.0 Electron/9\r\n".to_owned(), 200),
        ("User-Agent: curl/8\r\n".to_owned(), 200),
        (
            "Origin: chrome-extension://nibjojkomfdiaoajekhjakgkdhaomnch\r\n".to_owned(),
            200,
        ),
    ] {
        let answer = served.raw("POST /api/v0/version", &headers, b"").await;
        assert_eq!(answer.status, status, "{headers}");
        if status == 403 {
            assert_eq!(answer.text(), "403 - Forbidden\n");
        } else if let Some(origin) = headers.trim().strip_prefix("Origin: ") {
            assert_eq!(answer.header("Access-Control-Allow-Origin"), Some(origin));
        }
    }
}

#[tokio::test]
async fn preflight_is_answered_for_pages_of_this_machine() {
    let served = Served::start().await;
    let ask = |origin: String| {
        format!(
            "Origin: {origin}\r\nAccess-Control-Request-Method: POST\r\n\
             Access-Control-Request-Headers: content-type\r\n"
        )
    };
    let own = format!("http://localhost:{}", served.address.port());
    let answer = served.raw("OPTIONS /api/v0/id", &ask(own.clone()), b"").await;
    assert_eq!(
        (answer.status, answer.header("Access-Control-Allow-Origin")),
        (204, Some(own.as_str()))
    );
    assert_eq!(answer.header("Access-Control-Allow-Methods"), Some("POST"));
    let answer = served
        .raw("OPTIONS /api/v0/id", &ask("http://evil.example".to_owned()), b"")
        .await;
    assert_eq!(
        (answer.status, answer.header("Access-Control-Allow-Origin")),
        (204, None)
    );
    assert!(
        answer
            .header("Vary")
            .unwrap()
            .starts_with("Origin, Access-Control-Request-Method")
    );
}

#[tokio::test]
async fn late_error_is_a_trailer_even_for_clients_that_do_not_ask() {
    let served = Served::start().await;
    let octets = "application/octet-stream";
    // A file cannot have entries below it.
    let parts: [(&str, &str, &[u8]); 2] = [("ok.txt", octets, b"fine"), ("ok.txt%2Fmore", octets, b"again")];
    let answer = served.upload("add", &parts).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.lines().len(), 1, "{}", answer.text());
    assert!(
        answer.trailer().is_some_and(|error| error.contains("ok.txt")),
        "{answer:?}"
    );
}

#[tokio::test]
async fn damaged_uploads_fail_and_the_server_keeps_running() {
    let served = Served::start().await;
    let kind = "Content-Type: multipart/form-data; boundary=bnd\r\n";
    for body in [
        "",
        "--bnd",
        "--bnd--",
        "garbage",
        "--bnd\r\nno colon\r\n\r\nx\r\n--bnd--",
        "--bnd\r\n\r\nhalf",
    ] {
        let answer = served.raw("POST /api/v0/add", kind, body.as_bytes()).await;
        assert_eq!(answer.status, 500, "{body:?}: {}", answer.text());
        assert_eq!(answer.json()["Type"], "error");
    }
    assert_eq!(served.post("version").await.status, 200);
}
