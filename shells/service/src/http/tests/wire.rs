//! Tests of credentials, CORS and connections.

use super::*;

#[tokio::test]
async fn all_routes_but_health_need_configured_credentials() {
    let users = BTreeMap::from([("ann".to_owned(), "secret".to_owned())]);
    let api = Api::with(|config| config.credentials = Some(users)).await;
    let none = api.get("/id").await;
    assert_eq!(
        (none.status, none.error()),
        (401, "unauthorized: no auth provided")
    );
    assert_eq!(
        none.header("www-authenticate"),
        [
            r#"bearer realm="restricted ipfs cluster api""#,
            r#"basic realm="restricted ipfs cluster api""#
        ]
    );
    let wrong = api
        .send("GET", "/id", "Authorization: Basic YW5uOnNlY3JldHM=\r\n", "")
        .await;
    assert_eq!(
        (wrong.status, wrong.error()),
        (401, "unauthorized: access denied")
    );
    assert_eq!(
        api.send("GET", "/id", "Authorization: Basic YW5uOnNlY3JldA==\r\n", "")
            .await
            .status,
        200
    );
    assert_eq!(api.get("/health").await.status, 204);
}

#[tokio::test]
async fn cors_headers_follow_the_configuration() {
    let api = Api::with(|config| {
        config.cors.origins = vec!["myorigin".to_owned()];
        config.cors.max_age = Duration::from_secs(600);
    })
    .await;
    let ask = "Origin: myorigin\r\nAccess-Control-Request-Method: GET\r\nAccess-Control-Request-Headers: content-type\r\n";
    let answer = api.send("OPTIONS", "/any", ask, "").await;
    for (name, value) in [
        ("origin", "myorigin"),
        ("methods", "get"),
        ("headers", "content-type"),
        ("credentials", "true"),
    ] {
        assert_eq!(
            answer.header(&format!("access-control-allow-{name}")),
            [value],
            "{answer:?}"
        );
    }
    assert_eq!(answer.header("access-control-max-age"), ["600"]);
    let other = api
        .send("OPTIONS", "/any", &ask.replace("myorigin", "other"), "")
        .await;
    assert!(other.header("access-control-allow-origin").is_empty());
    let plain = api.send("GET", "/version", "Origin: myorigin\r\n", "").await;
    assert_eq!(plain.header("access-control-allow-origin"), ["myorigin"]);
}

#[tokio::test]
async fn slow_connections_and_oversized_headers_are_rejected() {
    let (short, long) = (Duration::from_millis(400), Duration::from_secs(60));
    let with = async |headers: Duration, idle: Duration| {
        Api::with(|config| {
            config.read_header_timeout = headers;
            config.idle_timeout = idle;
        })
        .await
    };
    let timed = async |api: &Api, request: &str| {
        let started = Instant::now();
        let answer = api.raw(request).await;
        (String::from_utf8_lossy(&answer).into_owned(), started.elapsed())
    };
    let headers_late = with(short, long).await;
    for beginning in ["", "GET /version HTTP/1.1\r\nHost:"] {
        let (answer, after) = timed(&headers_late, beginning).await;
        assert!(answer.is_empty() && after < long / 2, "{after:?}: {answer}");
    }
    let api = with(long, short).await;
    let (answer, after) = timed(&api, "GET /version HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // The connection's clock counts whole milliseconds.
    let least = short - Duration::from_millis(2);
    assert!(after > least && after < long / 2, "{after:?}");
    let long = format!(
        "GET /version HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n",
        "x".repeat(9000)
    );
    assert!(timed(&api, &long).await.0.starts_with("HTTP/1.1 431"));
    let fits = format!(
        "GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX: {}\r\n\r\n",
        "x".repeat(4000)
    );
    assert!(timed(&api, &fits).await.0.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn successive_requests_on_one_connection_all_get_trailers() {
    let api = Api::new().await;
    api.test
        .cluster(1)
        .pin(cid(1), &PinOptions::default())
        .await
        .unwrap();
    let mut stream = TcpStream::connect(api.address()).await.unwrap();
    for _ in 0..3 {
        stream
            .write_all(b"GET /pins HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nGE")
            .await
            .unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"x-stream-error: \r\n\r\n") {
            assert_ne!(
                stream.read_buf(&mut answer).await.unwrap(),
                0,
                "{}",
                String::from_utf8_lossy(&answer)
            );
        }
        stream
            .write_all(b"POST /ipfs/gc?local=true HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"}\n") {
            assert_ne!(
                stream.read_buf(&mut answer).await.unwrap(),
                0,
                "{}",
                String::from_utf8_lossy(&answer)
            );
        }
    }
}

#[tokio::test]
async fn port_in_use_error_names_the_address() {
    let api = Api::new().await;
    let config = HttpConfig {
        listen: vec![api.address().into()],
        ..HttpConfig::default()
    };
    let error = serve(api.test.cluster(2), Observed::default(), config)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains(&api.address().to_string()) && error.contains("in use"),
        "{error}"
    );
}

#[tokio::test]
async fn shutdown_waits_for_open_requests_only() {
    // Not an ephemeral port, which another test might be given.
    let listen = crate::ports::take_free().unwrap().local_addr().unwrap();
    let api = Api::with(|config| config.listen = vec![listen.into()]).await;
    let address = api.address();
    let idle = TcpStream::connect(address).await.unwrap();
    let started = Instant::now();
    let patience = Duration::from_secs(60);
    api.server.shutdown(patience).await;
    assert!(started.elapsed() < patience / 2, "{:?}", started.elapsed());
    drop(idle);
    assert!(TcpStream::connect(address).await.is_err());
}
