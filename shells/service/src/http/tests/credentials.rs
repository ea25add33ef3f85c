//! Tests of credentials: scopes of all routes, expiry, revocation and limits.

use std::sync::Arc;

use axum::http::Method;
use cluster_api::{CredentialAdd, Time};
use cluster_core::Scope;

use super::*;
use crate::http::auth::Auth;
use crate::http::scopes::{Access, Route};
use crate::http::{pinning_service, routes, serve_pinning_service};

/// Time limit of a request that need not be answered: it may resolve a name, or stream for ever.
const ENOUGH: Duration = Duration::from_secs(5);

/// Time limit of every condition.
const PATIENCE: Duration = Duration::from_secs(60);

fn asked(name: &str, scopes: &[Scope]) -> CredentialAdd {
    CredentialAdd {
        name: name.to_owned(),
        scopes: scopes.iter().map(|scope| scope.name().to_owned()).collect(),
        ..CredentialAdd::default()
    }
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

async fn closed() -> Api {
    Api::with(|config| config.require_credentials = true).await
}

impl Api {
    /// Creates a credential at a peer, and returns its token as a header.
    async fn credential(&self, at: u8, asked: &CredentialAdd) -> String {
        let created = self.test.cluster(at).create_credential(asked).await;
        bearer(&created.unwrap().1)
    }

    /// Waits until `GET /id` is answered with this status.
    async fn wait_for(&self, headers: &str, status: u16) -> Answer {
        let until = Instant::now() + PATIENCE;
        loop {
            let answer = self.send("GET", "/id", headers, "").await;
            if answer.status == status {
                return answer;
            }
            assert!(Instant::now() < until, "{answer:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Sends a request without a body; returns the status, and the body of a refusal. 0 for no answer in time.
async fn status(address: SocketAddr, method: &Method, path: &str, headers: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n{headers}\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    let reading = async {
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => break,
            }
        }
    };
    if tokio::time::timeout(ENOUGH, reading).await.is_err() {
        return (0, String::new());
    }
    let status = std::str::from_utf8(&head[9..12]).unwrap().parse().unwrap();
    let mut body = String::new();
    if [401, 403].contains(&status) {
        stream.read_to_string(&mut body).await.unwrap();
    }
    (status, body)
}

/// Returns a path of a route that changes nothing.
fn sample(route: &Route) -> String {
    let parts = route.path.split('/').map(|part| match part {
        "{file}" => "app.js",
        "{name}" => "ping",
        placeholder if placeholder.starts_with('{') => "nothing",
        fixed => fixed,
    });
    parts.collect::<Vec<_>>().join("/")
}

#[tokio::test]
async fn each_scope_permits_exactly_its_routes() {
    let api = closed().await;
    let cluster = api.test.cluster(1);
    let config = HttpConfig {
        listen: vec![SocketAddr::from(([127, 0, 0, 1], 0)).into()],
        require_credentials: true,
        ..HttpConfig::default()
    };
    let pinning = serve_pinning_service(cluster.clone(), config).await.unwrap();
    let own = [Scope::Read, Scope::Pin, Scope::Add, Scope::Own];
    let others = Scope::ALL.into_iter().filter(|scope| *scope != Scope::Own);
    let mut sets: Vec<Vec<Scope>> = others.map(|scope| vec![scope]).collect();
    sets.extend([
        own.to_vec(),
        vec![Scope::Read, Scope::Own],
        vec![Scope::Pin, Scope::Own],
    ]);
    let mut tokens = Vec::new();
    for (number, scopes) in sets.into_iter().enumerate() {
        let token = api.credential(1, &asked(&number.to_string(), &scopes)).await;
        tokens.push((scopes, token));
    }
    let auth = Arc::new(Auth::new(cluster, None, true));
    let tables = [
        (api.address(), routes::table(Arc::clone(&auth))),
        (
            pinning.addresses()[0].tcp().unwrap(),
            pinning_service::table(auth),
        ),
    ];
    for (address, route) in tables
        .iter()
        .flat_map(|(address, table)| table.iter().map(|route| (*address, route)))
    {
        let path = sample(route);
        let (without, _) = status(address, &route.method, &path, "").await;
        let is_public = path.starts_with("/ui/") || ["/health", "/health/ready"].contains(&path.as_str());
        assert_eq!(without == 401, !is_public, "{route:?}: {without}");
        for (scopes, token) in &tokens {
            let (got, body) = status(address, &route.method, &path, token).await;
            match route.access {
                Access::Needs(needed) if !scopes.iter().any(|scope| scope.includes(needed)) => {
                    let named = format!("lacks the scope \\\"{}\\\"", needed.name());
                    assert!(
                        got == 403 && body.contains(&named),
                        "{route:?} {scopes:?}: {got} {body}"
                    );
                }
                // Only configured users get a JWT.
                Access::Admitted if path == "/token" => assert_eq!(got, 401),
                Access::Admitted | Access::Needs(_) => {
                    assert!(![401, 403].contains(&got), "{route:?} {scopes:?}: {got} {body}");
                }
            }
        }
    }
}

#[tokio::test]
async fn credentials_are_created_listed_and_revoked_over_the_api() {
    let api = closed().await;
    let admin = api.credential(1, &asked("root", &[Scope::Admin])).await;
    let body = r#"{"name":"ci","scopes":["read"],"requests_per_second":1000}"#;
    let created = api.send("POST", "/auth/credentials", &admin, body).await;
    assert_eq!(created.status, 200, "{created:?}");
    let created: cluster_api::CredentialCreated = serde_json::from_str(&created.body).unwrap();
    assert!(created.required);
    let own = bearer(&created.token);
    let shown = api.send("GET", "/auth/self", &own, "").await;
    assert_eq!(
        shown.body,
        "{\"name\":\"ci\",\"scopes\":[\"read\",\"metrics\"]}\n"
    );

    let taken = api.send("POST", "/auth/credentials", &admin, body).await;
    assert_eq!(taken.status, 409);
    assert!(taken.error().contains("named \\\"ci\\\" already"), "{taken:?}");
    let listed = api.send("GET", "/auth/credentials", &admin, "").await;
    let listed: Vec<cluster_api::Credential> = serde_json::from_str(&listed.body).unwrap();
    let names: Vec<&str> = listed.iter().map(|credential| credential.name.as_str()).collect();
    assert_eq!(names, ["ci", "root"]);
    assert_eq!(listed[0], created.credential);

    let revoked = api.send("DELETE", "/auth/credentials/ci", &admin, "").await;
    assert_eq!(revoked.status, 200, "{revoked:?}");
    let refused = api.send("GET", "/id", &own, "").await;
    assert_eq!(
        (refused.status, refused.error()),
        (401, "unauthorized: invalid token")
    );
    let again = api.send("DELETE", "/auth/credentials/ci", &admin, "").await;
    assert_eq!(
        (again.status, again.error()),
        (404, "there is no such credential")
    );
    for (body, why) in [
        ("", "error decoding request body"),
        (r#"{"name":"x","scope":["read"]}"#, "unknown field `scope`"),
        (r#"{"name":"x","scopes":["write"]}"#, "there is no scope"),
        (r#"{"name":"","scopes":["read"]}"#, "the name"),
    ] {
        let refused = api.send("POST", "/auth/credentials", &admin, body).await;
        assert!(
            refused.status == 400 && refused.error().contains(why),
            "{refused:?}"
        );
    }
}

#[tokio::test]
async fn token_is_also_the_password_of_its_credential() {
    use base64::Engine;
    let api = closed().await;
    let ci = asked("ci", &[Scope::Read]);
    let (_, token) = api.test.cluster(1).create_credential(&ci).await.unwrap();
    let basic = |name: &str| {
        let pair = format!("{name}:{token}");
        let encoded = base64::engine::general_purpose::STANDARD.encode(pair);
        format!("Authorization: Basic {encoded}\r\n")
    };
    assert_eq!(api.send("GET", "/id", &basic("ci"), "").await.status, 200);
    let other = api.send("GET", "/id", &basic("other"), "").await;
    assert_eq!(
        (other.status, other.error()),
        (401, "unauthorized: access denied")
    );
}

#[tokio::test]
async fn revocation_at_one_peer_holds_at_the_others() {
    let api = closed().await;
    let token = api.credential(2, &asked("ci", &[Scope::Read])).await;
    api.wait_for(&token, 200).await;
    api.test.cluster(3).revoke_credential("ci").await.unwrap();
    api.wait_for(&token, 401).await;
}

#[tokio::test]
async fn expired_token_is_refused_with_the_reason() {
    let api = closed().await;
    let soon = CredentialAdd {
        expire_at: Time::now().plus_nanos(1_000_000_000),
        ..asked("brief", &[Scope::Read])
    };
    let token = api.credential(1, &soon).await;
    let refused = api.wait_for(&token, 401).await;
    assert_eq!(
        refused.error(),
        "unauthorized: the credential \\\"brief\\\" has expired"
    );
}

#[tokio::test]
async fn requests_above_the_rate_are_refused_with_the_limit() {
    let api = closed().await;
    let slow = CredentialAdd {
        requests_per_second: 1,
        ..asked("slow", &[Scope::Read])
    };
    let token = api.credential(1, &slow).await;
    let refused = api.wait_for(&token, 429).await;
    assert_eq!(
        refused.error(),
        "the credential \\\"slow\\\" is limited to 1 requests per second: try again later"
    );
    assert_eq!(refused.header("retry-after"), ["1"]);
    api.wait_for(&token, 200).await;
}

#[tokio::test]
async fn open_api_demands_nothing_but_keeps_a_token_to_its_scopes() {
    let api = Api::new().await;
    let body = r#"{"name":"ci","scopes":["read"]}"#;
    let created = api.send("POST", "/auth/credentials", "", body).await;
    let created: cluster_api::CredentialCreated = serde_json::from_str(&created.body).unwrap();
    assert!(!created.required);
    let token = bearer(&created.token);
    assert_eq!(api.get("/id").await.status, 200);
    assert_eq!(api.send("GET", "/id", &token, "").await.status, 200);
    let path = format!("/pins/{}", cid(1));
    assert_eq!(api.send("POST", &path, &token, "").await.status, 403);
    assert_eq!(api.post(&path).await.status, 200);
}

#[tokio::test]
async fn configured_users_may_do_everything_beside_credentials() {
    let users = BTreeMap::from([("ann".to_owned(), "secret".to_owned())]);
    let api = Api::with(|config| config.credentials = Some(users)).await;
    let ann = "Authorization: Basic YW5uOnNlY3JldA==\r\n";
    let body = r#"{"name":"ci","scopes":["read"]}"#;
    let created = api.send("POST", "/auth/credentials", ann, body).await;
    let created: cluster_api::CredentialCreated = serde_json::from_str(&created.body).unwrap();
    assert!(created.required, "users imply it");
    assert_eq!(api.get("/id").await.status, 401);
    let token = bearer(&created.token);
    assert_eq!(api.send("GET", "/id", &token, "").await.status, 200);
    assert_eq!(api.send("POST", "/ipfs/gc", &token, "").await.status, 403);
    assert_eq!(api.send("POST", "/ipfs/gc", ann, "").await.status, 200);
}
