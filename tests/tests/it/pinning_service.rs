//! The pinning service API of three peers.

use serde_json::{Value, json};
use tests::http::{self, Answer};
use tests::{Cluster, Options, cids, closed_port, wait_until};

struct Service {
    cluster: Cluster,
    port: u16,
}

impl Service {
    fn start(credentials: Value) -> Self {
        let mut cluster = Cluster::prepare(&Options::default());
        let port = closed_port();
        cluster.peers[0].edit(|config| {
            config["api"]["pinsvcapi"] = json!({
                "http_listen_multiaddress": format!("/ip4/127.0.0.1/tcp/{port}"),
                "basic_auth_credentials": credentials,
            });
        });
        for peer in &mut cluster.peers {
            peer.start();
        }
        cluster.wait_ready();
        Self { cluster, port }
    }

    fn ask(&self, method: &str, target: &str, body: &Value) -> Answer {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        http::request(self.port, method, target, &[], body.as_bytes()).expect("an answer")
    }

    fn get(&self, target: &str) -> Value {
        let answer = self.ask("GET", target, &Value::Null);
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    fn add(&self, pin: Value) -> Value {
        let answer = self.ask("POST", "/pins", &pin);
        assert_eq!(answer.status, 202, "{}", answer.text());
        answer.json()
    }

    fn names(&self, query: &str) -> (u64, Vec<String>) {
        let list = self.get(&format!("/pins?{query}"));
        let results = list["results"].as_array().expect("results");
        let name = |status: &Value| status["pin"]["name"].as_str().expect("a name").to_owned();
        (
            list["count"].as_u64().expect("a count"),
            results.iter().map(name).collect(),
        )
    }

    /// Asserts an error in the shape of the specification.
    fn refused(&self, method: &str, target: &str, body: &Value, status: u16, reason: &str) {
        let answer = self.ask(method, target, body);
        assert_eq!(answer.status, status, "{method} {target}: {}", answer.text());
        let error = &answer.json()["error"];
        assert_eq!(error["reason"], reason);
        assert!(
            error["details"]
                .as_str()
                .is_some_and(|details| !details.is_empty()),
            "{error}"
        );
    }
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

#[test]
fn requests_are_made_listed_replaced_and_removed() {
    let service = Service::start(Value::Null);
    let cid = |name: &str| cids::identity(name);
    let first = service.add(json!({"cid": cid("one"), "name": "first", "meta": {"app": "a"}}));
    let id = text(&first["requestid"]);
    assert_eq!(first["pin"]["cid"], cid("one"));
    assert!(
        first["delegates"]
            .as_array()
            .is_some_and(|delegates| !delegates.is_empty()),
        "{first}"
    );
    wait_until("it is pinned", || {
        let status = service.get(&format!("/pins/{id}"));
        if status["status"] == "pinned" {
            Ok(())
        } else {
            Err(status.to_string())
        }
    });
    service.add(json!({"cid": cid("two"), "name": "Second", "meta": {"app": "a", "k": "v"}}));
    let unavailable = cids::missing(1);
    service.add(json!({"cid": unavailable, "name": "third"}));
    let pinned = wait_until("the second is pinned", || match service.names("status=pinned") {
        (2, names) => Ok(names),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(pinned, ["Second", "first"]);
    filters_select(&service, &first);

    // Replacing and pinning again give new ids; the old ones are gone.
    let answer = service.ask(
        "POST",
        &format!("/pins/{id}"),
        &json!({"cid": cid("four"), "name": "fourth"}),
    );
    assert_eq!(answer.status, 202, "{}", answer.text());
    let fourth = text(&answer.json()["requestid"]);
    service.refused("GET", &format!("/pins/{id}"), &Value::Null, 404, "NOT_FOUND");
    assert_eq!(service.names("name=first").0, 0);
    let again = text(&service.add(json!({"cid": cid("four")}))["requestid"]);
    assert_ne!(again, fourth);
    service.refused(
        "DELETE",
        &format!("/pins/{fourth}"),
        &Value::Null,
        404,
        "NOT_FOUND",
    );

    let answer = service.ask("DELETE", &format!("/pins/{again}"), &Value::Null);
    assert_eq!(answer.status, 202, "{}", answer.text());
    service.refused("GET", &format!("/pins/{again}"), &Value::Null, 404, "NOT_FOUND");
    // The other peer may apply the removal a moment later.
    wait_until("the other peer has two pins", || {
        match service.cluster.peers[1].pinset()? {
            pins if pins.len() == 2 => Ok(()),
            pins => Err(format!("{pins:?}")),
        }
    });
    invalid_requests_are_refused(&service);
}

fn filters_select(service: &Service, first: &Value) {
    assert_eq!(service.names("status=queued,pinning,failed").0, 1);
    assert_eq!(service.names("limit=1"), (3, vec!["third".to_owned()]));
    let second = (1, vec!["Second".to_owned()]);
    assert_eq!(service.names("name=Second"), second);
    assert_eq!(service.names("name=second").0, 0);
    assert_eq!(service.names("name=second&match=iexact"), second);
    assert_eq!(service.names("name=eco&match=partial"), second);
    assert_eq!(service.names("name=SEC&match=ipartial"), second);
    assert_eq!(service.names("meta=%7B%22app%22%3A%22a%22%7D").0, 2);
    assert_eq!(
        service.names("meta=%7B%22app%22%3A%22a%22,%22k%22%3A%22v%22%7D"),
        second
    );
    let cid = first["pin"]["cid"].as_str().expect("a CID");
    assert_eq!(
        service.names(&format!("cid={cid}")),
        (1, vec!["first".to_owned()])
    );
    let created = first["created"].as_str().expect("a time");
    assert_eq!(service.names(&format!("after={created}")).0, 2);
    assert_eq!(service.names(&format!("before={created}")).0, 0);
}

fn invalid_requests_are_refused(service: &Service) {
    let bad = |body: Value| service.refused("POST", "/pins", &body, 400, "BAD_REQUEST");
    bad(json!({}));
    bad(json!({"cid": "nothing"}));
    bad(json!({"cid": cids::identity("x"), "name": "n".repeat(256)}));
    bad(json!({"cid": cids::identity("x"), "origins": ["nowhere"]}));
    for query in [
        "limit=0",
        "limit=1001",
        "status=done",
        "cid=x",
        "match=like",
        "before=now",
        "meta=1",
    ] {
        service.refused("GET", &format!("/pins?{query}"), &Value::Null, 400, "BAD_REQUEST");
    }
    service.refused("GET", "/pins/unknown", &Value::Null, 404, "NOT_FOUND");
    service.refused("GET", "/nothing", &Value::Null, 404, "NOT_FOUND");
    service.refused("PUT", "/pins", &Value::Null, 405, "METHOD_NOT_ALLOWED");
}

#[test]
fn credentials_are_required_where_they_are_configured() {
    let service = Service::start(json!({"ann": "secret"}));
    service.refused("GET", "/pins", &Value::Null, 401, "UNAUTHORIZED");
    let basic = [("Authorization", "Basic YW5uOnNlY3JldA==")];
    let token = http::request(service.port, "POST", "/token", &basic, b"")
        .unwrap()
        .json();
    let bearer = format!("Bearer {}", token["token"].as_str().expect("a token"));
    let listed = http::request(service.port, "GET", "/pins", &[("Authorization", &bearer)], b"").unwrap();
    assert_eq!(listed.json(), json!({"count": 0, "results": []}));
}
