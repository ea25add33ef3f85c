//! Tests of unknown routes, unsupported methods and redirects.

use super::*;

#[tokio::test]
async fn every_error_has_a_json_body() {
    let api = Api::new().await;
    for (method, path, status, message) in [
        ("GET", "/nothing", 404, "not found"),
        ("PUT", "/no/thing", 404, "not found"),
        ("PUT", "/id", 405, "method not allowed"),
        ("DELETE", "/", 405, "method not allowed"),
        ("PATCH", "/pins/x", 405, "method not allowed"),
        ("GET", "/ipfs/gc", 405, "method not allowed"),
        ("GET", "/add", 405, "method not allowed"),
        ("GET", "/pins/ipfs/x", 405, "method not allowed"),
    ] {
        let answer = api.send(method, path, "", "").await;
        assert_eq!(
            (answer.status, answer.error()),
            (status, message),
            "{method} {path}"
        );
        assert_eq!(answer.header("content-type"), ["application/json"]);
        let allow = answer.header("allow");
        assert_eq!(
            allow.len(),
            usize::from(status == 405),
            "{method} {path}: {allow:?}"
        );
    }
    assert_eq!(
        api.send("PUT", "/pins/x", "", "").await.header("allow"),
        ["get,head,post,delete"]
    );
}

#[tokio::test]
async fn root_describes_the_api_and_does_not_redirect() {
    let api = Api::new().await;
    for path in ["/", "/?a=b"] {
        let answer = api.get(path).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.body.contains("\"version\":\"1.2.3\""), "{answer:?}");
    }
}

/// Clients that join a base URL which ends in a slash with a path that begins with one.
#[tokio::test]
async fn surplus_slashes_are_redirected_to_the_path_without_them() {
    let api = Api::new().await;
    for (path, location) in [
        ("/pins/", "/pins"),
        ("//", "/"),
        ("//id?a=b", "/id?a=b"),
        ("/pins//recover/", "/pins/recover"),
        ("//evil.example/%2f", "/evil.example/%2f"),
    ] {
        let answer = api.get(path).await;
        assert_eq!(
            (answer.status, answer.header("location")),
            (307, vec![location]),
            "{path}"
        );
    }
}

#[tokio::test]
async fn bare_cid_below_ipld_is_pinned_without_the_node() {
    let api = Api::new().await;
    let cid = cid(1);
    let answer = api.post(&format!("/pins/ipld/{cid}")).await;
    assert!(
        answer.status == 200 && answer.body.contains(&format!("\"cid\":\"{cid}\"")),
        "{answer:?}"
    );
    let removed = api.send("DELETE", &format!("/pins/ipld/{cid}"), "", "").await;
    assert_eq!(removed.status, 200);
}

#[tokio::test]
async fn expiry_at_the_end_of_9999_is_echoed() {
    let api = Api::new().await;
    for at in ["9999-12-31T23:59:59Z", "9999-12-30T23:00:00Z"] {
        let answer = api.post(&format!("/pins/{}?expire-at={at}", cid(1))).await;
        assert!(
            answer.body.contains(&format!("\"expire_at\":\"{at}\"")),
            "{answer:?}"
        );
    }
}
