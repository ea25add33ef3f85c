//! `pin import` from files, services and clusters.

use super::{CID, code, ctl, err, out, pin, serve};
use axum::Router;
use axum::extract::RawQuery;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// CID that the cluster refuses.
const REFUSED: &str = "bafkqaalb";
const OTHER: &str = "bafkqaalc";

/// Pins that a cluster has accepted.
#[derive(Clone, Default)]
struct Accepted(Arc<Mutex<Vec<serde_json::Value>>>);

impl Accepted {
    /// Cluster that accepts all pins but those of [`REFUSED`].
    async fn cluster(&self) -> String {
        let accepted = self.0.clone();
        let import = move |body: String| async move {
            let pins: Vec<serde_json::Value> = body
                .lines()
                .map(|line| serde_json::from_str(line).unwrap())
                .collect();
            if pins.iter().any(|pin| pin["cid"] == REFUSED) {
                return (
                    StatusCode::BAD_REQUEST,
                    "{\"code\":400,\"message\":\"not this one\"}",
                );
            }
            accepted.lock().unwrap().extend(pins);
            (StatusCode::NO_CONTENT, "")
        };
        serve(Router::new().route("/allocations", post(import))).await
    }

    /// Returns a field of the accepted pins, and forgets these.
    fn take(&self, field: &str) -> Vec<String> {
        let pins = std::mem::take(&mut *self.0.lock().unwrap());
        let mut values: Vec<String> = pins
            .iter()
            .map(|pin| pin[field].as_str().unwrap_or_default().to_owned())
            .collect();
        values.sort();
        values
    }
}

#[tokio::test]
async fn lists_are_imported_failures_named_and_repeats_skipped() {
    let accepted = Accepted::default();
    let host = accepted.cluster().await;
    let folder = tempfile::tempdir().unwrap();
    let (list, done) = (folder.path().join("list"), folder.path().join("done"));
    let (list, done) = (list.to_str().unwrap(), done.to_str().unwrap());
    std::fs::write(
        list,
        format!("{CID},docs\nnonsense\n{REFUSED}\n\n{OTHER} recursive\n"),
    )
    .unwrap();
    let shown = ctl(&host, &["pin", "import", "--resume", done, list]).await;
    assert_eq!(
        (out(&shown).as_str(), code(&shown)),
        ("imported 2, skipped 0, failed 2\n", 2)
    );
    let said = err(&shown);
    assert!(said.contains("list:2: invalid cid \"nonsense\""), "{said}");
    assert!(said.contains(&format!("{REFUSED}: not this one")), "{said}");
    assert_eq!(accepted.take("cid"), [CID, OTHER]);
    std::fs::write(list, format!("{CID},docs\n{OTHER}\nbafkqaald\n")).unwrap();
    let again = [
        "--enc=json",
        "pin",
        "import",
        "--resume",
        done,
        "--name",
        "all",
        list,
    ];
    let shown = ctl(&host, &again).await;
    assert_eq!(code(&shown), 0, "{}", err(&shown));
    let counts: serde_json::Value = serde_json::from_str(&out(&shown)).unwrap();
    assert_eq!(
        counts,
        serde_json::json!({"imported": 1, "skipped": 2, "failed": 0})
    );
    assert_eq!(accepted.take("name"), ["all"]);
}

#[tokio::test]
async fn pins_of_another_cluster_are_imported() {
    let accepted = Accepted::default();
    let host = accepted.cluster().await;
    let old = serve(Router::new().route("/allocations", get(|| async { pin() + "\n" }))).await;
    let shown = ctl(&host, &["pin", "import", "--from-cluster", &old]).await;
    assert_eq!(
        (out(&shown).as_str(), code(&shown)),
        ("imported 1, skipped 0, failed 0\n", 0)
    );
    assert_eq!(accepted.take("name"), ["a & b"]);
}

/// A service of 2,500 pins, of which three at a time have one time, at the ends of pages too.
async fn service() -> String {
    let list = |RawQuery(query): RawQuery, headers: HeaderMap| async move {
        if headers
            .get("authorization")
            .is_none_or(|value| value != "Bearer secret")
        {
            return (StatusCode::UNAUTHORIZED, "no such token".to_owned());
        }
        let query = query.unwrap_or_default();
        let before = query.split('&').find_map(|pair| pair.strip_prefix("before="));
        let millis = before.map_or(u64::MAX, |time| {
            let time = time.replace("%3A", ":");
            let seconds = time.rsplit(':').next().unwrap().trim_end_matches('Z');
            let seconds = Duration::from_secs_f64(seconds.parse().unwrap());
            u64::try_from((seconds + Duration::from_micros(500)).as_millis()).unwrap()
        });
        let results: Vec<_> = (0..2500_u64)
            .rev()
            .filter(|number| number / 3 < millis)
            .take(1000)
            .map(|number| {
                let (seconds, rest) = (number / 3 / 1000, number / 3 % 1000);
                let created = format!("2026-01-01T00:00:{seconds:02}.{rest:03}Z");
                let pin = serde_json::json!({"cid": CID, "name": number.to_string()});
                serde_json::json!({"requestid": number.to_string(), "created": created, "pin": pin})
            })
            .collect();
        (
            StatusCode::OK,
            serde_json::json!({"count": 2500, "results": results}).to_string(),
        )
    };
    let host = serve(Router::new().route("/psa/pins", get(list))).await;
    format!("http://127.0.0.1:{}/psa", host.rsplit('/').next().unwrap())
}

#[tokio::test]
async fn all_pages_of_a_pinning_service_are_imported() {
    let accepted = Accepted::default();
    let (host, url) = (accepted.cluster().await, service().await);
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), "secret\n").unwrap();
    let path = token.path().to_str().unwrap();
    let arguments = ["pin", "import", "--from-service", &url, "--token-file", path];
    let shown = ctl(&host, &arguments).await;
    assert_eq!(
        (out(&shown).as_str(), code(&shown)),
        ("imported 2500, skipped 0, failed 0\n", 0),
        "{}",
        err(&shown)
    );
    let mut names: Vec<u64> = accepted
        .take("name")
        .iter()
        .map(|name| name.parse().unwrap())
        .collect();
    names.sort_unstable();
    assert!(names.into_iter().eq(0..2500));
    std::fs::write(token.path(), "wrong").unwrap();
    let shown = ctl(&host, &arguments).await;
    assert_eq!(code(&shown), 1);
    assert!(
        err(&shown).contains("401 Unauthorized: no such token"),
        "{}",
        err(&shown)
    );
}
