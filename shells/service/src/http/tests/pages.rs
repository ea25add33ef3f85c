//! Tests of requests from web pages of other sites: they change nothing, on any route.

use super::*;

/// Every route, with each of its methods.
const ROUTES: [(&str, &str); 39] = [
    ("GET", "/"),
    ("GET", "/ui/app.js"),
    ("GET", "/events"),
    ("GET", "/metrics"),
    ("GET", "/id"),
    ("GET", "/version"),
    ("GET", "/peers"),
    ("POST", "/peers"),
    ("DELETE", "/peers/K"),
    ("POST", "/add"),
    ("GET", "/allocations"),
    ("POST", "/allocations"),
    ("GET", "/allocations/K"),
    ("GET", "/pinlist"),
    ("GET", "/pins"),
    ("POST", "/pins/recover"),
    ("POST", "/pins/sync"),
    ("GET", "/pins/K"),
    ("POST", "/pins/K"),
    ("DELETE", "/pins/K"),
    ("POST", "/pins/K/recover"),
    ("POST", "/pins/K/sync"),
    ("POST", "/pins/ipfs/K"),
    ("DELETE", "/pins/ipfs/K"),
    ("POST", "/pins/ipns/K"),
    ("DELETE", "/pins/ipns/K"),
    ("POST", "/pins/ipld/K"),
    ("DELETE", "/pins/ipld/K"),
    ("POST", "/ipfs/gc"),
    ("GET", "/health"),
    ("GET", "/health/ready"),
    ("GET", "/health/graph"),
    ("GET", "/health/summary"),
    ("GET", "/health/alerts"),
    ("GET", "/health/bandwidth"),
    ("GET", "/monitor/metrics"),
    ("GET", "/monitor/metrics/ping"),
    ("POST", "/token"),
    ("POST", "/no/such/route"),
];

/// Headers of requests from foreign pages.
const FOREIGN: [&str; 6] = [
    "Origin: http://evil.example\r\n",
    "Origin: null\r\n",
    "Referer: http://evil.example/page\r\n",
    "Sec-Fetch-Site: cross-site\r\n",
    "Sec-Fetch-Site: same-site\r\n",
    // A page of another program on this machine.
    "Origin: http://127.0.0.1:8080\r\n",
];

async fn with_origins(origins: &[&str]) -> Api {
    let origins = origins.iter().map(|origin| (*origin).to_owned()).collect();
    Api::with(|config| config.cors.origins = origins).await
}

/// [`Api::send`] with a given `Host`.
async fn send_to(api: &Api, host: &str, method: &str, path: &str, headers: &str) -> Answer {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: 0\r\n{headers}\r\n"
    );
    Answer::parse(&api.raw(request).await)
}

#[tokio::test]
async fn foreign_pages_change_nothing_on_any_route() {
    let api = Api::new().await;
    let writes = ROUTES.iter().filter(|(method, _)| *method != "GET");
    for (method, path) in writes {
        let path = path.replace('K', &cid(1).to_string());
        for headers in FOREIGN {
            let answer = api.send(method, &path, headers, "").await;
            assert_eq!(answer.status, 403, "{method} {path} {headers}");
            assert!(answer.error().starts_with("web pages of "), "{answer:?}");
        }
    }
    assert!(api.test.pins().is_empty());
    // Reads are allowed for origins that `*` matches, without credentials.
    let read = api.send("GET", "/version", FOREIGN[0], "").await;
    assert_eq!(read.status, 200);
    assert_eq!(read.header("access-control-allow-origin"), ["*"]);
    assert!(read.header("access-control-allow-credentials").is_empty());
}

#[tokio::test]
async fn dns_rebinding_reaches_no_route() {
    let api = Api::new().await;
    let port = api.address().port();
    let host = format!("evil.example:{port}");
    let page = format!("Origin: http://{host}\r\nSec-Fetch-Site: same-origin\r\n");
    for (method, path) in ROUTES {
        let path = path.replace('K', &cid(1).to_string());
        for headers in ["", page.as_str()] {
            let answer = send_to(&api, &host, method, &path, headers).await;
            assert_eq!(answer.status, 403, "{method} {path}");
            assert!(answer.error().starts_with("requests for "), "{answer:?}");
        }
    }
    for host in ["127.0.0.1", "localhost:9094", "[::1]:9094", "cluster0:9094"] {
        assert_eq!(
            send_to(&api, host, "GET", "/version", "").await.status,
            200,
            "{host}"
        );
    }
}

#[tokio::test]
async fn programs_and_pages_of_the_api_itself_are_unaffected() {
    let api = Api::new().await;
    let path = format!("/pins/{}", cid(1));
    let own = format!("Origin: http://{0}\r\nReferer: http://{0}/x\r\n", api.address());
    let host = api.address().to_string();
    for headers in [
        "",
        "User-Agent: Mozilla/5.0\r\n",
        "Sec-Fetch-Site: none\r\n",
        own.as_str(),
    ] {
        assert_eq!(
            send_to(&api, &host, "POST", &path, headers).await.status,
            200,
            "{headers}"
        );
    }
}

#[tokio::test]
async fn configured_origins_may_do_everything() {
    let api = with_origins(&["https://Board.example:8443", "https://*.trusted.example", "*"]).await;
    let path = format!("/pins/{}", cid(1));
    for origin in ["https://board.example:8443", "https://a.trusted.example"] {
        let headers = format!("Origin: {origin}\r\nReferer: {origin}/page\r\nSec-Fetch-Site: cross-site\r\n");
        let answer = api.send("POST", &path, &headers, "").await;
        assert_eq!(answer.status, 200, "{origin}");
        assert_eq!(answer.header("access-control-allow-origin"), [origin]);
        assert_eq!(answer.header("access-control-allow-credentials"), ["true"]);
    }
    assert_eq!(
        send_to(&api, "board.example:8443", "GET", "/version", "")
            .await
            .status,
        200
    );
    // `Origin` is not trusted where `Referer` contradicts it.
    let both = "Origin: https://a.trusted.example\r\nReferer: http://evil.example/\r\n";
    assert_eq!(api.send("POST", &path, both, "").await.status, 403);
}

#[tokio::test]
async fn preflight_allows_no_more_than_the_request_gets() {
    let api = Api::with(|config| config.cors.methods = vec!["GET".to_owned(), "POST".to_owned()]).await;
    let ask =
        |method: &str| format!("Origin: http://evil.example\r\nAccess-Control-Request-Method: {method}\r\n");
    let read = api.send("OPTIONS", "/pins", &ask("GET"), "").await;
    assert_eq!(read.header("access-control-allow-origin"), ["*"]);
    assert!(read.header("access-control-allow-credentials").is_empty());
    let write = api.send("OPTIONS", "/pins", &ask("POST"), "").await;
    assert!(
        write.header("access-control-allow-origin").is_empty(),
        "{write:?}"
    );
}

#[tokio::test]
async fn authenticated_requests_need_no_host_check() {
    let users = BTreeMap::from([("ann".to_owned(), "secret".to_owned())]);
    let api = Api::with(|config| config.credentials = Some(users)).await;
    let ann = "Authorization: Basic YW5uOnNlY3JldA==\r\n";
    // A reverse proxy on the same machine keeps the name that its clients use.
    let answer = send_to(&api, "cluster.example", "GET", "/version", ann).await;
    assert_eq!(answer.status, 200);
    // But a browser sends a remembered password from any page.
    let page = format!("{ann}Origin: http://evil.example\r\n");
    let path = format!("/pins/{}", cid(1));
    assert_eq!(api.send("POST", &path, &page, "").await.status, 403);
}
