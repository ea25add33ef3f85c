//! Tests of credentials with the scope `own`, over all routes of the REST API and of the pinning service API,
//! and all commands of the proxy.

use std::sync::Arc;

use cluster_api::CredentialAdd;
use cluster_core::{Pin, Scope};
use serde_json::Value;

use super::*;
use crate::http::auth::Auth;
use crate::http::{
    ProxyConfig, Upstream, pinning_service, routes, scopes, serve_pinning_service, serve_proxy,
};

/// CIDs that are pinned by ann, by bob, without an owner, by both, and by nobody.
const ANNS: u32 = 1;
const BOBS: u32 = 2;
const PLAIN: u32 = 3;
const SHARED: u32 = 4;
const ABSENT: u32 = 5;

/// An API that demands credentials, and two owners beside an administrator.
struct Owners {
    api: Api,
    ann: String,
    bob: String,
    admin: String,
}

impl Owners {
    /// Pins as [`ANNS`] and the others say.
    async fn new() -> Self {
        let api = Api::with_peers(1, |config| config.require_credentials = true).await;
        let own = [Scope::Read, Scope::Pin, Scope::Add, Scope::Own];
        let owners = Self {
            ann: token(&api, "ann", &own).await,
            bob: token(&api, "bob", &own).await,
            admin: token(&api, "root", &[Scope::Admin]).await,
            api,
        };
        for (number, by) in [
            (ANNS, &owners.ann),
            (BOBS, &owners.bob),
            (PLAIN, &owners.admin),
            (SHARED, &owners.ann),
            (SHARED, &owners.bob),
        ] {
            let name = owners.name_of(by);
            let path = format!("/pins/{}?name={name}-name&meta-by={name}", cid(number));
            assert_eq!(owners.api.send("POST", &path, by, "").await.status, 200);
        }
        owners
    }

    fn name_of(&self, token: &String) -> &'static str {
        match token {
            _ if *token == self.ann => "ann",
            _ if *token == self.bob => "bob",
            _ => "root",
        }
    }

    fn pin(&self, number: u32) -> Option<Pin> {
        self.api.test.pins().remove(&cid(number))
    }

    fn owners_of(&self, number: u32) -> Vec<String> {
        let pin = self.pin(number).expect("is pinned");
        pin.owners().map(str::to_owned).collect()
    }

    async fn ann(&self, method: &str, path: &str) -> Answer {
        self.api.send(method, path, &self.ann, "").await
    }
}

async fn token(api: &Api, name: &str, scopes: &[Scope]) -> String {
    let asked = CredentialAdd {
        name: name.to_owned(),
        scopes: scopes.iter().map(|scope| scope.name().to_owned()).collect(),
        ..CredentialAdd::default()
    };
    let created = api.test.cluster(1).create_credential(&asked).await;
    format!("Authorization: Bearer {}\r\n", created.unwrap().1)
}

/// Returns an answer in the form that it has for any CID at any time.
fn normalised(answer: &Answer, number: u32) -> (u16, Value) {
    fn without_times(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                fields.remove("timestamp");
                fields.values_mut().for_each(without_times);
            }
            Value::Array(items) => items.iter_mut().for_each(without_times),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let text = answer.body.replace(&cid(number).to_string(), "CID");
    let mut value = serde_json::from_str(&text).unwrap_or(Value::String(text));
    without_times(&mut value);
    (answer.status, value)
}

/// Treatment of other owners' pins by a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Treatment {
    /// It has nothing to do with pins, or needs `admin`.
    Unrelated,
    /// It names a pin, which is as if it did not exist.
    Absent,
    /// It names a pin, which the owner joins.
    Joined,
    /// It lists pins.
    Listed,
    /// Has a test of its own.
    Elsewhere,
}

/// Every route of the REST API. A new one must be added here.
const REST: [(&str, &str, Treatment); 59] = {
    use Treatment::{Absent, Elsewhere, Joined, Listed, Unrelated};
    [
        ("GET", "/", Unrelated),
        ("GET", "/ui/{file}", Unrelated),
        ("GET", "/openapi.json", Unrelated),
        ("GET", "/health", Unrelated),
        ("GET", "/health/ready", Unrelated),
        ("GET", "/auth/self", Unrelated),
        ("GET", "/auth/credentials", Unrelated),
        ("POST", "/auth/credentials", Unrelated),
        ("DELETE", "/auth/credentials/{credential}", Unrelated),
        ("GET", "/auth/credentials/{credential}/usage", Unrelated),
        ("GET", "/id", Unrelated),
        ("GET", "/version", Unrelated),
        ("GET", "/peers", Unrelated),
        ("POST", "/peers", Unrelated),
        ("DELETE", "/peers/{peer}", Unrelated),
        ("GET", "/drains", Unrelated),
        ("GET", "/drains/{peer}", Unrelated),
        ("POST", "/drains/{peer}", Unrelated),
        ("DELETE", "/drains/{peer}", Unrelated),
        ("GET", "/rebalance", Unrelated),
        ("POST", "/rebalance", Unrelated),
        ("DELETE", "/rebalance", Unrelated),
        ("POST", "/rebalance/settings", Unrelated),
        // Tested in `events`, and with real peers.
        ("GET", "/events", Elsewhere),
        ("GET", "/health/graph", Unrelated),
        ("GET", "/health/summary", Unrelated),
        ("GET", "/health/alerts", Unrelated),
        ("GET", "/health/bandwidth", Unrelated),
        ("GET", "/monitor/metrics", Unrelated),
        ("GET", "/monitor/metrics/{name}", Unrelated),
        ("GET", "/metrics", Unrelated),
        ("GET", "/metrics/history", Unrelated),
        ("POST", "/add", Elsewhere),
        ("POST", "/ipfs/gc", Unrelated),
        ("GET", "/ipfs/scrub", Unrelated),
        ("POST", "/ipfs/scrub", Unrelated),
        ("GET", "/allocations", Listed),
        ("POST", "/allocations", Elsewhere),
        ("GET", "/allocations/{hash}", Absent),
        ("GET", "/pinlist", Listed),
        ("GET", "/pins", Listed),
        ("POST", "/pins/recover", Listed),
        ("GET", "/pins/recover", Unrelated),
        ("DELETE", "/pins/recover", Unrelated),
        ("POST", "/pins/sync", Listed),
        ("GET", "/pins/sync", Unrelated),
        ("DELETE", "/pins/sync", Unrelated),
        ("GET", "/pins/{hash}", Absent),
        ("POST", "/pins/{hash}", Joined),
        ("DELETE", "/pins/{hash}", Absent),
        ("POST", "/pins/{hash}/recover", Absent),
        ("POST", "/pins/{hash}/sync", Absent),
        ("POST", "/pins/ipfs/{*path}", Joined),
        ("DELETE", "/pins/ipfs/{*path}", Absent),
        // The node knows no names; a resolved one is treated like a CID.
        ("POST", "/pins/ipns/{*path}", Unrelated),
        ("DELETE", "/pins/ipns/{*path}", Unrelated),
        ("POST", "/pins/ipld/{*path}", Joined),
        ("DELETE", "/pins/ipld/{*path}", Absent),
        ("POST", "/token", Unrelated),
    ]
};

fn path_of(path: &str, number: u32) -> String {
    let cid = cid(number).to_string();
    path.replace("{hash}", &cid).replace("{*path}", &cid)
}

#[tokio::test]
async fn every_rest_route_treats_pins_of_others_as_the_table_says() {
    let owners = Owners::new().await;
    let api = &owners.api;
    let auth = Arc::new(Auth::new(api.test.cluster(1), None, true));
    let table = routes::table(auth);
    let mut known: Vec<(String, &str)> = Vec::new();
    for route in &table {
        let named = (route.method.to_string(), route.path);
        let row = REST
            .iter()
            .find(|row| (row.0, row.1) == (named.0.as_str(), named.1));
        let (method, path, treatment) = *row.unwrap_or_else(|| panic!("{route:?} is not in the table"));
        known.push(named);
        match treatment {
            Treatment::Unrelated | Treatment::Elsewhere => {}
            Treatment::Absent => {
                let absent = owners.ann(method, &path_of(path, ABSENT)).await;
                let absent = normalised(&absent, ABSENT);
                for other in [BOBS, PLAIN] {
                    let before = owners.pin(other);
                    let answer = owners.ann(method, &path_of(path, other)).await;
                    assert_eq!(normalised(&answer, other), absent, "{method} {path}");
                    assert_eq!(owners.pin(other), before, "{method} {path}");
                }
            }
            Treatment::Joined => {
                let joined = owners.ann(method, &path_of(path, BOBS)).await;
                assert_eq!(joined.status, 200, "{method} {path}: {joined:?}");
                assert!(!joined.body.contains("bob"), "{method} {path}: {joined:?}");
                assert_eq!(owners.owners_of(BOBS), ["ann", "bob"]);
                let left = owners.ann("DELETE", &path_of("/pins/{hash}", BOBS)).await;
                assert_eq!(left.status, 200, "{left:?}");
                assert_eq!(owners.owners_of(BOBS), ["bob"]);
            }
            Treatment::Listed => {
                let listed = owners.ann(method, path).await;
                assert!([200, 204].contains(&listed.status), "{method} {path}: {listed:?}");
                let shows = |number: u32| listed.body.contains(&cid(number).to_string());
                if method == "GET" {
                    assert!(shows(ANNS) && shows(SHARED), "{method} {path}: {listed:?}");
                }
                assert!(!shows(BOBS) && !shows(PLAIN), "{method} {path}: {listed:?}");
                let text = &listed.body;
                assert!(
                    !text.contains("bob") && !text.contains("owner"),
                    "{method} {path}: {text}"
                );
            }
        }
    }
    for (method, path, _) in &REST {
        let is_known = known.iter().any(|(name, known)| name == method && known == path);
        assert!(is_known, "{method} {path} is no route");
    }
}

#[tokio::test]
async fn failed_pins_of_others_are_not_retried() {
    let owners = Owners::new().await;
    let test = &owners.api.test;
    for number in [ANNS, BOBS] {
        test.finish_pin(1, &cid(number), Err("no room"));
    }
    let failed = |number: u32| {
        let path = format!("/pins/{}", cid(number));
        let (owners, admin) = (&owners, &owners.admin);
        async move {
            owners
                .api
                .send("GET", &path, admin, "")
                .await
                .body
                .contains("no room")
        }
    };
    let until = Instant::now() + Duration::from_secs(60);
    while !(failed(ANNS).await && failed(BOBS).await) {
        assert!(Instant::now() < until, "the pins fail");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let retried = owners.ann("POST", "/pins/recover").await;
    assert_eq!(retried.status, 200, "{retried:?}");
    let shows = |number: u32| retried.body.contains(&cid(number).to_string());
    assert!(shows(ANNS) && !shows(BOBS), "{retried:?}");
    let local = owners.ann("POST", "/pins/recover?local=true").await;
    assert!(!local.body.contains(&cid(BOBS).to_string()), "{local:?}");
    assert!(failed(BOBS).await);
}

#[tokio::test]
async fn owner_sees_its_own_name_and_metadata_and_the_others_keep_theirs() {
    let owners = Owners::new().await;
    let shared = format!("/allocations/{}", cid(SHARED));
    for (token, name, other) in [(&owners.ann, "ann", "bob"), (&owners.bob, "bob", "ann")] {
        let answer = owners.api.send("GET", &shared, token, "").await;
        let fields = format!("\"name\":\"{name}-name\"");
        assert!(answer.body.contains(&fields), "{answer:?}");
        assert!(!answer.body.contains(other), "{answer:?}");
        for query in [
            format!("name={name}-name"),
            format!("name={name}&name-match=prefix"),
            format!("meta-by={name}"),
        ] {
            let found = owners
                .api
                .send("GET", &format!("/allocations?{query}"), token, "")
                .await;
            assert!(
                found.body.contains(&cid(SHARED).to_string()),
                "{query}: {found:?}"
            );
            let others = query.replace(name, other);
            let found = owners
                .api
                .send("GET", &format!("/allocations?{others}"), token, "")
                .await;
            assert_eq!(found.body, "", "{others}");
        }
    }
    let whole = owners.api.send("GET", &shared, &owners.admin, "").await;
    assert!(
        whole.body.contains("owner/ann") && whole.body.contains("owner/bob"),
        "{whole:?}"
    );
    let by_owner = "/allocations?meta-owner/ann=";
    let listed = owners.api.send("GET", by_owner, &owners.admin, "").await;
    assert_eq!(listed.body.lines().count(), 2, "{listed:?}");
}

#[tokio::test]
async fn shared_pin_goes_with_its_last_owner_and_an_administrator_removes_it_at_once() {
    let owners = Owners::new().await;
    let path = format!("/pins/{}", cid(SHARED));
    assert_eq!(owners.ann("DELETE", &path).await.status, 200);
    assert_eq!(owners.owners_of(SHARED), ["bob"]);
    assert_eq!(owners.ann("DELETE", &path).await.status, 404);
    let last = owners.api.send("DELETE", &path, &owners.bob, "").await;
    assert_eq!(last.status, 200);
    assert!(owners.pin(SHARED).is_none());
    assert_eq!(owners.ann("POST", &path).await.status, 200);
    let removed = owners.api.send("DELETE", &path, &owners.admin, "").await;
    assert_eq!(removed.status, 200, "{removed:?}");
    assert!(owners.pin(SHARED).is_none());
}

#[tokio::test]
async fn reserved_metadata_is_refused_to_all_but_imports_of_administrators() {
    let owners = Owners::new().await;
    let (kind, upload) = form(&[(FILE, b"hello\n")]);
    let pin = format!(
        "{{\"cid\":\"{}\",\"type\":\"pin\",\"metadata\":{{\"owner/bob\":\"\"}}}}",
        cid(ABSENT)
    );
    for token in [&owners.ann, &owners.admin] {
        let path = format!("/pins/{}?meta-owner/bob=", cid(ABSENT));
        let refused = owners.api.send("POST", &path, token, "").await;
        assert_eq!(refused.status, 400, "{refused:?}");
        assert!(refused.error().contains("is reserved"), "{refused:?}");
        let headers = format!("{token}{kind}");
        let refused = owners
            .api
            .send("POST", "/add?meta-owner/bob=", &headers, &upload)
            .await;
        assert_eq!(refused.status, 400, "{refused:?}");
    }
    let refused = owners.api.send("POST", "/allocations", &owners.ann, &pin).await;
    assert_eq!(refused.status, 400, "{refused:?}");
    assert!(owners.pin(ABSENT).is_none());
    let imported = owners.api.send("POST", "/allocations", &owners.admin, &pin).await;
    assert_eq!(imported.status, 204, "{imported:?}");
    assert_eq!(owners.owners_of(ABSENT), ["bob"]);
    let plain = pin.replace("owner/bob", "by");
    let joined = owners.api.send("POST", "/allocations", &owners.ann, plain).await;
    assert_eq!(joined.status, 204, "{joined:?}");
    assert_eq!(owners.owners_of(ABSENT), ["ann", "bob"]);
}

#[tokio::test]
async fn upload_is_its_owners_and_update_needs_an_own_source() {
    let owners = Owners::new().await;
    let (kind, upload) = form(&[(FILE, b"hello\n")]);
    let headers = format!("{}{kind}", owners.ann);
    let added = owners.api.send("POST", "/add", &headers, upload).await;
    assert_eq!(added.status, 200, "{added:?}");
    let pins = owners.api.test.pins();
    let hello = &pins[&HELLO.parse().unwrap()];
    assert_eq!(hello.owners().collect::<Vec<_>>(), ["ann"]);
    let path = format!("/pins/{}?pin-update={}", cid(ABSENT), cid(BOBS));
    let refused = owners.ann("POST", &path).await;
    assert_eq!(refused.status, 404, "{refused:?}");
    let path = format!("/pins/{}?pin-update={}", cid(ABSENT), cid(SHARED));
    let updated = owners.ann("POST", &path).await;
    assert!(
        updated.status == 200 && updated.body.contains("ann-name"),
        "{updated:?}"
    );
    assert_eq!(owners.owners_of(ABSENT), ["ann"]);
}

/// Starts the pinning service API, at the address that is returned.
async fn pinning_service(owners: &Owners) -> (crate::http::Server, SocketAddr) {
    let config = HttpConfig {
        listen: vec![SocketAddr::from(([127, 0, 0, 1], 0)).into()],
        require_credentials: true,
        ..HttpConfig::default()
    };
    let cluster = owners.api.test.cluster(1);
    let server = serve_pinning_service(cluster, config).await.unwrap();
    let address = server.addresses()[0].tcp().unwrap();
    (server, address)
}

/// Lists requests at the pinning service.
async fn requests(address: SocketAddr, query: &str, token: &str) -> Value {
    let answer = send(address, "GET", &format!("/pins?{query}"), token, "").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    serde_json::from_str(&answer.body).unwrap()
}

/// Returns the path of a request among those listed.
fn request_path(number: u32, listed: &Value) -> String {
    let results = listed["results"].as_array().unwrap().iter();
    let mut same = results.filter(|result| result["pin"]["cid"] == cid(number).to_string());
    let found = same.next().unwrap_or_else(|| panic!("{number} in {listed}"));
    format!("/pins/{}", found["requestid"].as_str().unwrap())
}

#[tokio::test]
async fn pinning_service_lists_own_requests_only() {
    let owners = Owners::new().await;
    let (_server, address) = pinning_service(&owners).await;
    let all = requests(address, "", &owners.admin).await;
    assert_eq!(all["count"], 4);
    assert!(!all.to_string().contains("owner/"), "{all}");
    let queries = [
        String::new(),
        "status=queued,pinning".to_owned(),
        "name=ann&match=partial".to_owned(),
        format!("cid={},{},{}", cid(ANNS), cid(BOBS), cid(SHARED)),
    ];
    for query in queries {
        let own = requests(address, &query, &owners.ann).await;
        assert_eq!(own["count"], 2, "{query}: {own}");
        assert!(!own.to_string().contains("bob"), "{query}: {own}");
    }
    let none = requests(address, "name=bob&match=partial", &owners.ann).await;
    assert_eq!(none["count"], 0);
}

#[tokio::test]
async fn pinning_service_changes_own_requests_only() {
    let owners = Owners::new().await;
    let (_server, address) = pinning_service(&owners).await;
    let auth = Arc::new(Auth::new(owners.api.test.cluster(1), None, true));
    let table = pinning_service::table(auth);
    let routes = table
        .iter()
        .map(|route| format!("{} {}", route.method, route.path));
    let tested = [
        "GET /pins",
        "POST /pins",
        "GET /pins/{requestid}",
        "POST /pins/{requestid}",
        "DELETE /pins/{requestid}",
        "GET /health",
        "POST /token",
    ];
    assert_eq!(
        routes.collect::<Vec<_>>(),
        tested,
        "a new route needs a test here"
    );
    let others = request_path(BOBS, &requests(address, "", &owners.admin).await);
    let body = format!("{{\"cid\":\"{}\",\"name\":\"new\"}}", cid(ABSENT));
    for (method, body) in [("GET", ""), ("POST", body.as_str()), ("DELETE", "")] {
        let refused = send(address, method, &others, &owners.ann, body).await;
        assert_eq!(refused.status, 404, "{method}: {refused:?}");
    }
    assert_eq!(owners.owners_of(BOBS), ["bob"]);
    let reserved = format!("{{\"cid\":\"{}\",\"meta\":{{\"owner/bob\":\"\"}}}}", cid(ABSENT));
    let refused = send(address, "POST", "/pins", &owners.ann, &reserved).await;
    assert_eq!(refused.status, 400, "{refused:?}");

    // A request for what others hold changes nothing for them, its id included.
    let joining = format!("{{\"cid\":\"{}\",\"name\":\"mine\"}}", cid(BOBS));
    let joined = send(address, "POST", "/pins", &owners.ann, &joining).await;
    assert_eq!(joined.status, 202, "{joined:?}");
    let kept = send(address, "GET", &others, &owners.bob, "").await;
    assert!(kept.status == 200 && kept.body.contains("bob-name"), "{kept:?}");
    let own = requests(address, "", &owners.ann).await;
    let removed = send(address, "DELETE", &request_path(BOBS, &own), &owners.ann, "").await;
    assert_eq!(removed.status, 202, "{removed:?}");
    assert_eq!(owners.owners_of(BOBS), ["bob"]);

    let path = request_path(SHARED, &own);
    let replaced = send(address, "POST", &path, &owners.ann, &body).await;
    assert_eq!(replaced.status, 202, "{replaced:?}");
    assert_eq!(owners.owners_of(ABSENT), ["ann"]);
    assert_eq!(owners.owners_of(SHARED), ["bob"]);
}

/// Starts a proxy that demands credentials, at the address that is returned.
async fn proxy(owners: &Owners) -> (crate::http::Server, SocketAddr) {
    let config = ProxyConfig {
        listen: vec![SocketAddr::from(([127, 0, 0, 1], 0)).into()],
        require_credentials: true,
        ..ProxyConfig::default()
    };
    let test = &owners.api.test;
    let upstream = Upstream::embedded(test.nodes[0].clone(), None);
    let server = serve_proxy(test.cluster(1), upstream, config).await.unwrap();
    let address = server.addresses()[0].tcp().unwrap();
    (server, address)
}

#[tokio::test]
async fn each_command_of_the_proxy_needs_its_scope_and_owners_read_no_data_of_all() {
    let owners = Owners::new().await;
    let (_server, address) = proxy(&owners).await;
    let sets: [&[Scope]; 6] = [
        &[Scope::Read],
        &[Scope::Pin],
        &[Scope::Add],
        &[Scope::Metrics],
        &[Scope::Admin],
        &[Scope::Read, Scope::Pin, Scope::Add, Scope::Own],
    ];
    let mut tokens = Vec::new();
    for (number, set) in sets.into_iter().enumerate() {
        tokens.push((set, token(&owners.api, &number.to_string(), set).await));
    }
    let unknown = ["config", "shutdown", "files/rm", "repo/gc", "key/list"].map(|name| (name, Scope::Admin));
    for (command, needed) in scopes::commands().chain(unknown) {
        let path = format!("/api/v0/{command}");
        let without = send(address, "POST", &path, "", "").await;
        assert_eq!(without.status, 401, "{command}");
        for (set, token) in &tokens {
            let may = set.iter().any(|scope| scope.includes(needed));
            let is_hidden = set.contains(&Scope::Own) && scopes::shows_all(command);
            // Content commands without an argument are invalid, which is good enough. The embedded node is
            // not asked to shut down.
            if needed == Scope::Admin && may {
                continue;
            }
            let answer = send(address, "POST", &path, token, "").await;
            let is_refused = answer.status == 403;
            assert_eq!(is_refused, !may || is_hidden, "{command} {set:?}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn proxy_pins_and_unpins_for_the_owner_only() {
    let owners = Owners::new().await;
    let (_server, address) = proxy(&owners).await;
    let command = |command: String| {
        let ann = owners.ann.clone();
        async move { send(address, "POST", &format!("/api/v0/{command}"), &ann, "").await }
    };
    for listing in [
        "pin/ls?names=true",
        "pin/ls?stream=true&names=true",
        "pin/ls?type=all",
    ] {
        let listed = command(listing.to_owned()).await;
        assert_eq!(listed.status, 200, "{listing}: {listed:?}");
        let shows = |number: u32| listed.body.contains(&cid(number).to_string());
        assert!(shows(ANNS) && shows(SHARED), "{listing}: {listed:?}");
        assert!(!shows(BOBS) && !shows(PLAIN), "{listing}: {listed:?}");
        assert!(!listed.body.contains("bob"), "{listing}: {listed:?}");
    }
    for other in [BOBS, PLAIN, ABSENT] {
        for refused in [
            format!("pin/ls?arg={}", cid(other)),
            format!("pin/rm?arg={}", cid(other)),
            format!("pin/update?arg={}&arg={}", cid(other), cid(ABSENT)),
        ] {
            let answer = command(refused.clone()).await;
            assert_eq!(answer.status, 500, "{refused}: {answer:?}");
            assert!(answer.body.contains("pinned"), "{refused}: {answer:?}");
        }
    }
    assert_eq!(owners.owners_of(BOBS), ["bob"]);
    assert!(owners.pin(PLAIN).is_some());

    let reserved = command(format!("pin/add?arg={}&meta-owner/bob=", cid(ABSENT))).await;
    assert!(
        reserved.status == 400 && reserved.body.contains("is reserved"),
        "{reserved:?}"
    );
    owners.api.test.finish_pin(1, &cid(BOBS), Ok(()));
    let joined = command(format!("pin/add?arg={}&name=mine", cid(BOBS))).await;
    assert_eq!(joined.status, 200, "{joined:?}");
    assert_eq!(owners.owners_of(BOBS), ["ann", "bob"]);
    let left = command(format!("pin/rm?arg={}", cid(BOBS))).await;
    assert_eq!(left.status, 200, "{left:?}");
    assert_eq!(owners.owners_of(BOBS), ["bob"]);
    assert_eq!(owners.pin(BOBS).unwrap().options.name, "bob-name");

    let (kind, upload) = form(&[(FILE, b"hello\n")]);
    let headers = format!("{}{kind}", owners.ann);
    owners.api.test.finish_pin(1, &HELLO.parse().unwrap(), Ok(()));
    let added = send(address, "POST", "/api/v0/add", &headers, upload).await;
    assert!(added.status == 200 && added.body.contains(HELLO), "{added:?}");
    let pins = owners.api.test.pins();
    let hello = &pins[&HELLO.parse().unwrap()];
    assert_eq!(hello.owners().collect::<Vec<_>>(), ["ann"]);
}

#[tokio::test]
async fn owner_pins_no_more_than_its_credential_permits() {
    let owners = Owners::new().await;
    let asked = CredentialAdd {
        name: "few".to_owned(),
        scopes: ["read", "pin", "add", "own"].map(str::to_owned).to_vec(),
        max_pins: 2,
        ..CredentialAdd::default()
    };
    let created = owners.api.test.cluster(1).create_credential(&asked).await;
    let few = format!("Authorization: Bearer {}\r\n", created.unwrap().1);
    let pin = |number: u32, method: &'static str| {
        let (owners, few) = (&owners, &few);
        async move {
            let path = format!("/pins/{}", cid(number));
            owners.api.send(method, &path, few, "").await
        }
    };
    for number in [ANNS, BOBS, BOBS] {
        assert_eq!(pin(number, "POST").await.status, 200);
    }
    let refused = pin(PLAIN, "POST").await;
    let why = "forbidden: the credential \\\"few\\\" is limited to 2 pins and has 2: unpin some";
    assert_eq!((refused.status, refused.error()), (403, why));
    let (kind, upload) = form(&[(FILE, b"hello\n")]);
    let added = owners
        .api
        .send("POST", "/add", &format!("{few}{kind}"), upload)
        .await;
    assert_eq!((added.status, added.error()), (403, why));
    let exported = format!("{{\"cid\":\"{}\",\"type\":\"pin\"}}", cid(PLAIN));
    let imported = owners.api.send("POST", "/allocations", &few, exported).await;
    assert_eq!((imported.status, imported.error()), (403, why));
    assert_eq!(pin(BOBS, "DELETE").await.status, 200);
    assert_eq!(pin(PLAIN, "POST").await.status, 200);
}

#[tokio::test]
async fn owner_uploads_no_more_bytes_than_its_credential_permits() {
    let owners = Owners::new().await;
    let asked = CredentialAdd {
        name: "small".to_owned(),
        scopes: ["read", "pin", "add", "own"].map(str::to_owned).to_vec(),
        max_pins: 10,
        max_bytes: 1500,
        ..CredentialAdd::default()
    };
    let created = owners.api.test.cluster(1).create_credential(&asked).await;
    let small = format!("Authorization: Bearer {}\r\n", created.unwrap().1);
    let add = |content: Vec<u8>| {
        let (owners, small) = (&owners, &small);
        async move {
            let (kind, upload) = form(&[(FILE, content.as_slice())]);
            owners
                .api
                .send(
                    "POST",
                    "/add?stream-channels=false",
                    &format!("{small}{kind}"),
                    upload,
                )
                .await
        }
    };
    let why =
        "forbidden: the credential \\\"small\\\" is limited to 1500 bytes of uploads: unpin some of them";
    let first = add(vec![1; 600]).await;
    assert_eq!(first.status, 200, "{first:?}");
    for length in [1000, 100_000] {
        let refused = add(vec![2; length]).await;
        assert_eq!((refused.status, refused.error()), (403, why));
    }
    assert_eq!(add(vec![1; 600]).await.status, 200, "the same once more");
    let added: Value = serde_json::from_str(&first.body).unwrap();
    let cluster = owners.api.test.cluster(1);
    let used = cluster.credential_usage("small").await.unwrap();
    assert_eq!((used.pins, used.bytes), (1, added[0]["size"].as_u64()));
    let path = format!("/pins/{}", added[0]["cid"].as_str().unwrap());
    // A later request for the pin keeps its size.
    assert_eq!(owners.api.send("POST", &path, &small, "").await.status, 200);
    assert_eq!(add(vec![2; 1000]).await.status, 403);
    assert_eq!(owners.api.send("DELETE", &path, &small, "").await.status, 200);
    let used = cluster.credential_usage("small").await.unwrap();
    assert_eq!((used.pins, used.bytes), (0, Some(0)));
    assert_eq!(add(vec![2; 1000]).await.status, 200);

    let (_server, address) = proxy(&owners).await;
    let refused = send(address, "POST", "/api/v0/add", &small, "").await;
    assert_eq!(refused.status, 403, "{refused:?}");
}
