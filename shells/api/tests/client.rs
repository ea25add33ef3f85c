//! The client against a small server in this process.

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use cluster_api::client::{Options, Upload};
use cluster_api::{AddParams, Client, ClientError, PinOptions, PinTypeFilter, StatusFilter};
use http_body_util::StreamBody;
use hyper::body::Frame;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[path = "../examples/pin_and_wait.rs"]
#[allow(dead_code, unreachable_pub, reason = "an example, with its `main`")]
mod pin_and_wait;

async fn serve(router: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    format!("/ip4/127.0.0.1/tcp/{port}")
}

fn client(host: &str) -> Client {
    Client::new(host, Options::default()).unwrap()
}

/// Reserves an address without listening: no other program can listen there while the socket exists.
fn unreachable() -> (tokio::net::TcpSocket, std::net::SocketAddr) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// Response of lines and a trailer.
fn stream(lines: &'static [&'static str], trailer: &'static str) -> Response {
    let mut frames: Vec<Result<Frame<bytes::Bytes>, std::io::Error>> =
        lines.iter().map(|line| Ok(Frame::data((*line).into()))).collect();
    let mut trailers = HeaderMap::new();
    trailers.insert("x-stream-error", HeaderValue::from_static(trailer));
    frames.push(Ok(Frame::trailers(trailers)));
    let mut response = Response::new(Body::new(StreamBody::new(futures::stream::iter(frames))));
    response
        .headers_mut()
        .insert("trailer", HeaderValue::from_static("X-Stream-Error"));
    response
}

#[tokio::test]
async fn example_waits_until_the_cid_is_pinned() {
    let polls = Arc::new(AtomicU64::new(0));
    let status = || async move {
        let first = polls.fetch_add(1, Ordering::Relaxed) == 0;
        let status = if first { "pinning" } else { "pinned" };
        format!(
            r#"{{"peer_map":{{"a":{{"peername":"one","status":"{status}"}},"b":{{"status":"remote"}}}}}}"#
        )
    };
    let pin = || async { r#"{"cid":"Qa"}"# };
    let router = Router::new().route("/pins/ipfs/Qa", post(pin));
    let host = serve(router.route("/pins/Qa", get(status))).await;
    let pinned = pin_and_wait::pin_and_wait(&host, "Qa").await.unwrap();
    assert_eq!(pinned, ["one"]);
}

#[tokio::test]
async fn listings_split_anywhere_are_decoded_line_by_line() {
    let lines = &[
        "{\"cid\":\"Qa\",\"type\":\"pin\"}\n{\"ci",
        "d\":\"Qb\"}\r\n\n",
        "{\"cid\":\"Qc\"}",
    ];
    let host = serve(Router::new().route("/allocations", get(|| async { stream(lines, "") }))).await;
    let mut pins = client(&host).allocations(PinTypeFilter::ALL).await.unwrap();
    let mut cids = Vec::new();
    while let Some(pin) = pins.next().await.unwrap() {
        cids.push(pin.value.cid);
    }
    assert_eq!(cids, ["Qa", "Qb", "Qc"]);
}

#[tokio::test]
async fn an_error_in_the_trailer_ends_the_listing_as_an_error() {
    let handler = || async { stream(&["{\"cid\":\"Qa\"}\n"], "it broke") };
    let host = serve(Router::new().route("/pins", get(handler))).await;
    let mut all = client(&host)
        .status_all(&[], StatusFilter::ALL, false)
        .await
        .unwrap();
    assert_eq!(all.next().await.unwrap().unwrap().value.cid, "Qa");
    let ClientError::Api(error) = all.next().await.unwrap_err() else {
        panic!("not an API error")
    };
    assert_eq!((error.code, error.message.as_str()), (500, "it broke"));
}

#[tokio::test]
async fn a_connection_cut_during_a_listing_is_an_error() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = format!("{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        assert!(socket.read(&mut request).await.unwrap() > 0);
        let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n{\"a\":1\r\n";
        socket.write_all(answer.as_bytes()).await.unwrap();
    });
    let mut peers = client(&host).peers().await.unwrap();
    assert!(matches!(peers.next().await, Err(ClientError::Broken { .. })));
}

#[tokio::test]
async fn no_content_is_an_empty_listing() {
    let host = serve(Router::new().route("/peers", get(|| async { StatusCode::NO_CONTENT }))).await;
    assert!(
        client(&host)
            .peers()
            .await
            .unwrap()
            .next()
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn error_bodies_become_errors_with_their_code() {
    let router = Router::new()
        .route(
            "/id",
            get(|| async { (StatusCode::NOT_FOUND, "{\"code\":404,\"message\":\"no such\"}") }),
        )
        .route("/version", get(|| async { (StatusCode::BAD_GATEWAY, "<html>") }));
    let client = client(&serve(router).await);
    let error = client.id().await.unwrap_err().to_api();
    assert_eq!((error.code, error.message.as_str()), (404, "no such"));
    let error = client.version().await.unwrap_err().to_api();
    assert_eq!((error.code, error.message.as_str()), (502, "<html>"));
}

#[tokio::test]
async fn paths_and_options_arrive_as_given() {
    let handler = |request: Request| async move {
        let query = request.uri().query().unwrap_or_default();
        format!(
            "{{\"cid\":\"{}\",\"name\":\"{}\"}}",
            request.uri().path(),
            query.replace('"', "")
        )
    };
    let client = client(&serve(Router::new().fallback(handler)).await);
    let options = PinOptions {
        name: "a b".into(),
        ..PinOptions::default()
    };
    let pin = client.pin("Qa/b c?", &options).await.unwrap().value;
    assert_eq!(pin.cid, "/pins/ipfs/Qa/b%20c%3F");
    assert!(pin.options.name.contains("name=a+b"), "{}", pin.options.name);
    assert_eq!(
        client.unpin("/ipns/x.org").await.unwrap().value.cid,
        "/pins/ipns/x.org"
    );
}

#[tokio::test]
async fn an_unreachable_host_is_followed_by_the_next() {
    let good = serve(Router::new().route("/version", get(|| async { "{\"version\":\"1\"}" }))).await;
    let (_socket, gone) = unreachable();
    let client = client(&format!("{gone},{good}"));
    assert_eq!(client.version().await.unwrap().value.version, "1");
    assert_eq!(client.version().await.unwrap().value.version, "1");
}

#[tokio::test]
async fn an_unreachable_service_is_named_with_advice() {
    let (_socket, gone) = unreachable();
    let error = client(&gone.to_string()).id().await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable(_)));
    let text = error.to_string().to_lowercase();
    assert!(
        text.contains(&gone.to_string()) && text.contains("refused") && text.contains("--host"),
        "{text}"
    );
}

#[tokio::test]
async fn a_slow_answer_ends_at_the_timeout() {
    let slow = || async {
        tokio::time::sleep(Duration::from_secs(60)).await;
        "{}"
    };
    let host = serve(Router::new().route("/id", get(slow))).await;
    let options = Options {
        timeout: Some(Duration::from_millis(50)),
        ..Options::default()
    };
    assert!(
        Client::new(&host, options)
            .unwrap()
            .id()
            .await
            .unwrap_err()
            .is_timeout()
    );
}

#[tokio::test]
async fn credentials_are_sent_and_requests_are_observed() {
    let handler = |headers: HeaderMap| async move {
        let given = headers.get("authorization").unwrap().to_str().unwrap().to_owned();
        format!("{{\"version\":\"{given}\"}}")
    };
    let host = serve(Router::new().route("/version", get(handler))).await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let into = seen.clone();
    let options = Options {
        credentials: Some(("user".into(), "pass".into())),
        observer: Some(Arc::new(move |exchange| {
            into.lock().unwrap().push(exchange.clone())
        })),
        ..Options::default()
    };
    let version = Client::new(&host, options).unwrap().version().await.unwrap();
    assert_eq!(version.value.version, "Basic dXNlcjpwYXNz");
    let seen = seen.lock().unwrap();
    assert_eq!(
        (seen[0].method.as_str(), seen[0].outcome.as_str()),
        ("GET", "200 OK")
    );
}

#[tokio::test]
async fn unix_sockets_work() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let router = Router::new().route("/version", get(|| async { "{\"version\":\"1\"}" }));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let client = client(&format!("/unix{}", path.display()));
    assert_eq!(client.version().await.unwrap().value.version, "1");
}

/// TLS server with a self-signed certificate and one response.
async fn serve_tls() -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_rustls::rustls::ServerConfig;
    use tokio_rustls::rustls::crypto::ring;
    use tokio_rustls::rustls::pki_types::PrivateKeyDer;

    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.key_pair.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(socket).await else {
                continue;
            };
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let answer = "HTTP/1.1 200 OK\r\nWarning: 110 x \"it may be \\\"old\\\"\"\r\n\
                          Content-Length: 17\r\n\r\n{\"version\":\"tls\"}";
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    format!("/ip4/127.0.0.1/tcp/{port}")
}

#[tokio::test]
async fn tls_certificates_are_verified_unless_disabled() {
    let host = serve_tls().await;
    let options = |no_check_certificate, https| Options {
        https,
        no_check_certificate,
        ..Options::default()
    };
    let client = Client::new(&host, options(true, true)).unwrap();
    assert_eq!(client.version().await.unwrap().value.version, "tls");
    let client = Client::new(&format!("{host}/https"), options(true, false)).unwrap();
    assert_eq!(client.version().await.unwrap().value.version, "tls");
    // A machine without any trusted certificates says so at once.
    match Client::new(&host, options(false, true)) {
        Ok(client) => {
            let error = client.version().await.unwrap_err().to_string();
            assert!(
                error.contains("the server's certificate is not trusted"),
                "{error}"
            );
        }
        Err(error) => assert!(error.to_string().contains("no trusted certificates"), "{error}"),
    }
}

#[tokio::test]
async fn tls_to_a_plain_server_is_reported() {
    let plain = serve(Router::new().route("/version", get(|| async { "{}" }))).await;
    let options = Options {
        https: true,
        no_check_certificate: true,
        ..Options::default()
    };
    let error = Client::new(&plain, options).unwrap().version().await.unwrap_err();
    assert!(error.to_string().contains("does not speak TLS"), "{error}");
    let tls = serve_tls().await;
    let error = client(&tls).version().await.unwrap_err();
    assert!(matches!(error, ClientError::Broken { .. }), "{error}");
}

#[tokio::test]
async fn warnings_of_an_answer_are_passed_on() {
    let warnings: Arc<Mutex<Vec<String>>> = Arc::default();
    let kept = warnings.clone();
    let options = Options {
        https: true,
        no_check_certificate: true,
        warned: Some(Arc::new(move |text| kept.lock().unwrap().push(text.to_owned()))),
        ..Options::default()
    };
    let client = Client::new(&serve_tls().await, options).unwrap();
    client.version().await.unwrap();
    assert_eq!(*warnings.lock().unwrap(), ["it may be \"old\""]);
}

/// Returns one line per part: decoded file name, type, length and first bytes.
async fn describe(request: Request) -> Response {
    let boundary = multer::parse_boundary(request.headers()["content-type"].to_str().unwrap()).unwrap();
    let mut parts = multer::Multipart::new(request.into_body().into_data_stream(), boundary);
    let mut lines = String::new();
    while let Some(mut part) = parts.next_field().await.unwrap() {
        let name = part.file_name().unwrap().to_owned();
        let kind = part.content_type().unwrap().to_string();
        let (mut length, mut start) = (0, Vec::new());
        while let Some(chunk) = part.chunk().await.unwrap() {
            length += chunk.len();
            start.extend_from_slice(&chunk[..chunk.len().min(8_usize.saturating_sub(start.len()))]);
        }
        let start = String::from_utf8_lossy(&start).into_owned();
        lines += &format!("{{\"name\":\"{name} {kind} {start}\",\"cid\":\"Qa\",\"bytes\":{length}}}\n");
    }
    lines.into_response()
}

async fn added(host: &str, upload: Upload) -> Result<Vec<(String, u64)>, ClientError> {
    let mut lines = client(host).add(upload, &AddParams::default()).await?;
    let mut all = Vec::new();
    while let Some(line) = lines.next().await? {
        all.push((line.value.name, line.value.bytes));
    }
    Ok(all)
}

#[tokio::test]
async fn a_directory_is_sent_as_kubo_clients_send_it() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("my dir");
    std::fs::create_dir_all(root.join("sub")).unwrap();
    std::fs::write(root.join("big"), vec![b'x'; 3_000_000]).unwrap();
    std::fs::write(root.join(".hidden"), "h").unwrap();
    std::fs::write(root.join("sub/empty"), "").unwrap();
    std::os::unix::fs::symlink("../big", root.join("sub/link")).unwrap();
    let latin1 = std::ffi::OsStr::from_bytes(b"sub/caf\xe9");
    std::fs::write(root.join(latin1), "bytes").unwrap();
    let host = serve(
        Router::new()
            .route("/add", post(describe))
            .layer(axum::extract::DefaultBodyLimit::disable()),
    )
    .await;
    let sent = Arc::new(AtomicU64::new(0));
    let counter = sent.clone();
    let paths = [root.display().to_string()];
    let upload = Upload::new(&paths, true, false)
        .unwrap()
        .with_progress(Arc::new(move |bytes| {
            counter.fetch_add(bytes, Ordering::Relaxed);
        }));
    assert_eq!(upload.content_size(), 3_000_005);
    let parts = added(&host, upload).await.unwrap();
    let expected = [
        ("my+dir application/x-directory ", 0),
        ("my+dir%2Fbig application/octet-stream xxxxxxxx", 3_000_000),
        ("my+dir%2Fsub application/x-directory ", 0),
        ("my+dir%2Fsub%2Fcaf%E9 application/octet-stream bytes", 5),
        ("my+dir%2Fsub%2Fempty application/octet-stream ", 0),
        ("my+dir%2Fsub%2Flink application/symlink ../big", 6),
    ];
    assert_eq!(parts, expected.map(|(text, length)| (text.to_owned(), length)));
    assert_eq!(sent.load(Ordering::Relaxed), 3_000_005);

    let hidden = Upload::new(&paths, true, true).unwrap();
    assert!(added(&host, hidden).await.unwrap()[1].0.contains(".hidden"));
}

#[tokio::test]
async fn a_url_is_fetched_and_sent() {
    let router = Router::new()
        .route(
            "/files/{name}",
            get(|Path(name): Path<String>| async move { format!("I am {name}") }),
        )
        .route(
            "/moved/{status}/{name}",
            get(|Path((status, _)): Path<(u16, String)>| async move {
                let status = StatusCode::from_u16(status).unwrap();
                (status, [("location", "../../files/b.txt")])
            }),
        )
        .route("/add", post(describe));
    let host = serve(router).await;
    let port = host.rsplit('/').next().unwrap();
    let add = |path: &str| {
        let upload = Upload::new(&[format!("http://127.0.0.1:{port}/{path}")], false, false);
        added(&host, upload.unwrap())
    };
    assert_eq!(
        add("files/a%20%C3%A9.txt?x=1").await.unwrap(),
        [(
            "a+%C3%A9.txt application/octet-stream I am a \u{fffd}".to_owned(),
            13
        )]
    );
    for status in [301, 302, 303, 307, 308] {
        assert_eq!(
            add(&format!("moved/{status}/a.txt")).await.unwrap(),
            [("a.txt application/octet-stream I am b.t".to_owned(), 10)],
            "{status}"
        );
    }
    let error = add("moved/304/a.txt").await.unwrap_err().to_string();
    assert!(error.contains("answered 304"), "{error}");
}

#[tokio::test]
async fn unreadable_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display().to_string();
    let missing = format!("{path}/missing");
    let error = Upload::new(std::slice::from_ref(&missing), true, false)
        .err()
        .unwrap()
        .to_string();
    assert_eq!(error, format!("{missing}: no such file or directory"));
    let error = Upload::new(std::slice::from_ref(&path), false, false)
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("--recursive"), "{error}");
    std::os::unix::net::UnixListener::bind(folder.path().join("socket")).unwrap();
    let host = serve(Router::new().route("/add", post(describe))).await;
    let error = added(&host, Upload::new(&[path], true, false).unwrap())
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("socket: is neither"), "{error}");
}

#[tokio::test]
async fn a_response_before_the_body_is_read_is_received() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("big");
    std::fs::write(&file, vec![0; 20_000_000]).unwrap();
    let refuse = || async { (StatusCode::BAD_REQUEST, "{\"code\":400,\"message\":\"no\"}") };
    let host = serve(Router::new().route("/add", post(refuse))).await;
    // Repeated, because the kernel decides whether the reset or the response is seen first.
    for _ in 0..20 {
        let upload = Upload::new(&[file.display().to_string()], false, false).unwrap();
        assert_eq!(added(&host, upload).await.unwrap_err().to_api().code, 400);
    }
}

#[tokio::test]
async fn requests_and_listings_can_be_moved_between_threads() {
    let host = serve(Router::new().route("/peers", get(|| async { "{\"id\":\"Qa\"}" }))).await;
    let client = Arc::new(client(&host));
    let listing = tokio::spawn(async move { client.peers().await.unwrap().next().await.unwrap().unwrap() });
    assert_eq!(listing.await.unwrap().value.id, "Qa");
}
