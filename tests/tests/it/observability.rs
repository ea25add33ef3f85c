//! The operators' view of a cluster: metrics, readiness, events, the page, and the files in `deploy/`.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use serde_json::{Value, json};
use tests::http::SILENCE;
use tests::{Cluster, Options, Peer, closed_port, http, root, wait_until};

const CID: &str = "bafkqablimvwgy3y";

/// Names of the series in a scrape, without labels.
fn names(text: &str) -> BTreeSet<String> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let names = lines.filter_map(|line| line.split(['{', ' ']).next());
    names.map(str::to_owned).collect()
}

/// Returns the value of the first series with this beginning.
fn value(text: &str, start: &str) -> f64 {
    let line = text.lines().find(|line| line.starts_with(start));
    let line = line.unwrap_or_else(|| panic!("no {start} in {text}"));
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

fn scrape(peer: &Peer) -> String {
    peer.try_get("/metrics").unwrap().text()
}

/// Returns the names that expressions of the dashboard or of the rules use.
fn names_in(expressions: &str) -> BTreeSet<String> {
    let words = expressions.split(|part: char| !part.is_ascii_alphanumeric() && part != '_');
    let ours = words.filter(|word| word.starts_with("ipfscluster_") || word.starts_with("process_"));
    ours.map(str::to_owned).collect()
}

/// Checks that all series exist that the dashboard and the alert rules name, at the leader for what only it
/// has.
fn assert_expressions_have_series(cluster: &Cluster) {
    let mut known = BTreeSet::new();
    for peer in &cluster.peers {
        known.extend(names(&scrape(peer)));
    }
    // Families that have a series only after something went wrong.
    let table = std::fs::read_to_string(root().join("docs/guide.md")).unwrap();
    let rare = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `ipfscluster_")?.split_once('`'));
    let rare: BTreeSet<String> = rare.map(|(name, _)| format!("ipfscluster_{name}")).collect();
    let dashboard = std::fs::read_to_string(root().join("deploy/dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.filter_map(|panel| panel["targets"].as_array()).flatten();
    let mut expressions: String = targets.map(|target| format!("{} ", target["expr"])).collect();
    for line in std::fs::read_to_string(root().join("deploy/alerts.yml"))
        .unwrap()
        .lines()
    {
        if !line.trim_start().starts_with("description:") {
            expressions.push_str(line);
            expressions.push('\n');
        }
    }
    let used = names_in(&expressions);
    assert!(used.len() > 30, "{used:?}");
    let is_rare = |name: &String| rare.contains(name) && !known.contains(name);
    for name in &used {
        assert!(known.contains(name) || is_rare(name), "{name} does not exist");
    }
    let seldom: Vec<&String> = used.iter().filter(|name| is_rare(name)).collect();
    assert!(seldom.len() <= 4, "{seldom:?}");
}

#[test]
fn metrics_show_the_cluster_and_the_dashboard_and_rules_use_existing_ones() {
    let mut cluster = Cluster::start_with(&Options {
        edit: |config| config["observations"]["metrics"]["reporting_interval"] = json!("100ms"),
        ..Options::default()
    });
    let peer = &cluster.peers[0];
    peer.ask("POST", &format!("/pins/{CID}?name=hello")).unwrap();
    peer.add("replication=2", &[("a.txt", b"some content")]).unwrap();
    peer.wait_state(CID, "pinned", 3);
    peer.try_get("/metrics").unwrap();
    wait_until("the pins are counted and a pin was followed", || {
        let text = scrape(peer);
        let pinned = value(&text, "ipfscluster_local_pins{status=\"pinned\"}");
        let followed = value(&text, "ipfscluster_pin_all_copies_seconds_count");
        if pinned >= 1.0 && followed >= 1.0 {
            return Ok(());
        }
        Err(format!("{pinned} pinned, {followed} followed"))
    });
    let text = scrape(peer);
    assert_eq!(value(&text, "ipfscluster_pins "), 2.0);
    assert_eq!(value(&text, "ipfscluster_raft_members"), 3.0);
    assert_eq!(value(&text, "ipfscluster_raft_has_leader"), 1.0);
    assert_eq!(value(&text, "ipfscluster_ipfs_up"), 1.0);
    assert_eq!(text.matches("ipfscluster_peer_up{").count(), 3);
    assert!(value(&text, "ipfscluster_commit_duration_seconds_count") >= 2.0);
    assert!(value(&text, "ipfscluster_store_sync_duration_seconds_count") > 0.0);
    assert!(text.contains("route=\"/pins/{hash}\",status=\"200\""), "{text}");
    // CIDs and other words of clients are no labels.
    assert!(!text.contains(CID));

    assert_expressions_have_series(&cluster);

    // A dead peer is seen.
    cluster.peers[2].kill();
    let id = cluster.peers[2].id.clone();
    wait_until("the dead peer is down in the metrics", || {
        let text = scrape(&cluster.peers[0]);
        let up = value(&text, &format!("ipfscluster_peer_up{{peer=\"{id}\""));
        if up == 0.0 {
            Ok(())
        } else {
            Err("it is up".to_owned())
        }
    });
}

#[test]
fn prometheus_endpoint_is_off_until_enabled_and_serves_only_metrics() {
    let mut cluster = Cluster::prepare(&Options {
        peers: 1,
        ..Options::default()
    });
    let port = closed_port();
    let peer = &mut cluster.peers[0];
    peer.edit(|config| {
        config["observations"]["metrics"]["prometheus_endpoint"] =
            json!(format!("/ip4/127.0.0.1/tcp/{port}"));
        config["api"]["restapi"]["basic_auth_credentials"] = json!({"ann": "secret"});
    });
    peer.start();
    peer.wait_ready(1);
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    peer.kill();
    peer.start_with(&["--stats"]);
    peer.wait_ready(2);
    let ask = |method, path| http::request(port, method, path, &[], &[]).unwrap();
    let text = ask("GET", "/metrics").text();
    assert!(names(&text).contains("process_resident_memory_bytes"), "{text}");
    assert_eq!(ask("GET", "/id").status, 404);
    assert_eq!(ask("POST", "/metrics").status, 405);
    // The REST port has its credentials for them.
    assert_eq!(peer.rest("GET", "/metrics").unwrap().status, 401);
    let text = ask("GET", "/metrics").text();
    assert_eq!(
        value(
            &text,
            "ipfscluster_http_refused_total{api=\"rest\",reason=\"unauthorized\"}"
        ),
        1.0
    );
}

#[test]
fn readiness_has_reasons_and_needs_no_credentials() {
    let mut cluster = Cluster::start();
    let ready = cluster.peers[0].rest("GET", "/health/ready").unwrap();
    assert_eq!(ready.status, 200);
    assert_eq!(ready.json()["ready"], true);
    assert_eq!(ready.json()["reasons"], json!([]));
    for at in [1, 2] {
        cluster.peers[at].kill();
    }
    let peer = &cluster.peers[0];
    wait_until("a peer alone is not ready", || {
        let answer = peer
            .rest("GET", "/health/ready")
            .map_err(|error| error.to_string())?;
        let body = answer.json();
        let why = body["reasons"][0].as_str().unwrap_or_default().to_owned();
        if answer.status == 503 && why.starts_with("no leader: ") {
            return Ok(());
        }
        Err(format!("{}: {body}", answer.status))
    });
    assert_eq!(peer.rest("GET", "/health").unwrap().status, 204);
}

/// An open stream of events.
pub(crate) struct Stream {
    reader: BufReader<TcpStream>,
}

impl Stream {
    fn open(peer: &Peer, target: &str, accept: &str) -> Self {
        Self::open_with(peer, target, &format!("Accept: {accept}"))
    }

    /// Opens a stream with one more header.
    pub(crate) fn open_with(peer: &Peer, target: &str, header: &str) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", peer.rest_port)).unwrap();
        stream.set_read_timeout(Some(SILENCE)).unwrap();
        let port = peer.rest_port;
        write!(
            &stream,
            "GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{header}\r\n\r\n"
        )
        .unwrap();
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            assert_ne!(reader.read_line(&mut line).unwrap(), 0);
        }
        Self { reader }
    }

    /// Reads lines until one contains `text`; `None` at the end of the stream.
    fn find(&mut self, text: &str) -> Option<String> {
        self.lines_to(text).pop().filter(|line| line.contains(text))
    }

    /// Reads lines up to one that contains `text`, or to the end of the stream.
    pub(crate) fn lines_to(&mut self, text: &str) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let mut line = Vec::new();
            if self.reader.read_until(b'\n', &mut line).unwrap_or(0) == 0 {
                return lines;
            }
            lines.push(String::from_utf8_lossy(&line).into_owned());
            if lines.last().is_some_and(|line| line.contains(text)) {
                return lines;
            }
        }
    }

    fn event(&mut self, text: &str) -> Value {
        let line = self
            .find(text)
            .unwrap_or_else(|| panic!("the stream ended without {text}"));
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line}"))
    }
}

#[test]
fn events_tell_of_pins_and_peers_and_can_be_resumed() {
    let mut cluster = Cluster::start();
    let (first, third) = (&cluster.peers[0], cluster.peers[2].id.clone());
    let mut stream = Stream::open(first, "/events?local=true", "*/*");
    let mut peers_only = Stream::open(
        first,
        "/events?type=peer_disconnected,peer_down",
        "text/event-stream",
    );
    cluster.peers[1]
        .ask("POST", &format!("/pins/{CID}?name=hello"))
        .unwrap();
    let added = stream.event("\"pin_added\"");
    assert_eq!((&added["cid"], &added["name"]), (&json!(CID), &json!("hello")));
    let pinned = stream.event("\"status\":\"pinned\"");
    assert_eq!((&pinned["cid"], &pinned["peer"]), (&json!(CID), &json!(first.id)));
    // From an event on, in order.
    let resume = format!("/events?local=true&after={}", added["id"]);
    let mut resumed = Stream::open(first, &resume, "*/*");
    assert_eq!(resumed.event("\"status\":\"pinned\"")["id"], pinned["id"]);
    let mut early = Stream::open(first, "/events?after=1", "*/*");
    assert!(
        early.event("\"type\"")["error"]
            .as_str()
            .unwrap()
            .contains("no longer kept")
    );
    for wrong in ["type=nonsense", "cid=x", "peer=x", "after=x"] {
        assert_eq!(
            first.rest("GET", &format!("/events?{wrong}")).unwrap().status,
            400,
            "{wrong}"
        );
    }
    cluster.peers[2].kill();
    for kind in ["peer_disconnected", "peer_down"] {
        let line = peers_only.find(&format!("\"type\":\"{kind}\"")).unwrap();
        assert!(
            line.starts_with("data: {\"id\":") && line.contains(&third),
            "{line}"
        );
    }
    // A shutdown ends the streams at once, and says so.
    cluster.peers[0].signal("TERM");
    assert_eq!(stream.event("\"closed\"")["error"], "this peer is shutting down");
    let mut rest = Vec::new();
    let _ = resumed.reader.read_to_end(&mut rest);
    cluster.peers[0].wait_end();
}

#[test]
fn events_have_the_statuses_of_all_peers_while_somebody_reads_them() {
    let mut cluster = Cluster::start();
    let (first, second) = (&cluster.peers[0], &cluster.peers[1]);
    let ids: Vec<String> = cluster.peers.iter().map(|peer| peer.id.clone()).collect();
    let mut local = Stream::open(first, "/events?type=status&local=true", "*/*");
    let followers = || value(&scrape(second), "ipfscluster_queue_length{queue=\"followers\"}");
    assert_eq!(followers(), 0.0);
    let mut stream = Stream::open(first, "/events?type=status", "*/*");
    let mut others = BTreeSet::new();
    while others.len() < 2 {
        let followed = stream.event("\"statuses_followed\"");
        others.insert(followed["peer"].as_str().unwrap().to_owned());
    }
    assert_eq!(followers(), 1.0);
    second.ask("POST", &format!("/pins/{CID}")).unwrap();
    let mut pinned = BTreeSet::new();
    while pinned.len() < 3 {
        let status = stream.event("\"status\":\"pinned\"");
        assert_eq!(status["cid"], CID);
        pinned.insert(status["peer"].as_str().unwrap().to_owned());
    }
    assert_eq!(pinned, ids.iter().cloned().collect());
    // Those of one peer, and only this peer's own.
    let mut of_second = Stream::open(first, &format!("/events?type=status&peer={}", ids[1]), "*/*");
    second.ask("DELETE", &format!("/pins/{CID}")).unwrap();
    assert_eq!(of_second.event("\"status\":\"unpinned\"")["peer"], json!(ids[1]));
    let mut seen = Vec::new();
    while seen.last() != Some(&json!("unpinned")) {
        let status = local.event("\"type\"");
        assert_eq!(
            (&status["type"], &status["peer"]),
            (&json!("status"), &json!(ids[0]))
        );
        seen.push(status["status"].clone());
    }
    // A peer whose statuses do not arrive is named, and again when they do.
    cluster.peers[2].kill();
    let lost = stream.event("\"statuses_lost\"");
    assert_eq!(lost["peer"], json!(ids[2]));
    assert_ne!(lost["error"], "");
    cluster.peers[2].start();
    assert_eq!(stream.event("\"statuses_followed\"")["peer"], json!(ids[2]));
    // No peer is followed without a reader.
    drop((stream, of_second));
    let second = &cluster.peers[1];
    wait_until("the second peer has no follower", || {
        match value(&scrape(second), "ipfscluster_queue_length{queue=\"followers\"}") {
            0.0 => Ok(()),
            other => Err(format!("{other} follow it")),
        }
    });
}

#[test]
fn page_is_for_browsers_and_public_while_the_api_needs_credentials() {
    let mut cluster = Cluster::prepare(&Options {
        peers: 1,
        ..Options::default()
    });
    let peer = &mut cluster.peers[0];
    peer.edit(|config| config["api"]["restapi"]["basic_auth_credentials"] = json!({"ann": "secret"}));
    peer.start();
    peer.wait_ready(1);
    let browser = [("Accept", "text/html,application/xhtml+xml,*/*;q=0.8")];
    let page = http::request(peer.rest_port, "GET", "/", &browser, &[]).unwrap();
    assert_eq!(page.status, 200);
    assert!(page.text().starts_with("<!doctype html>"));
    let policy = page
        .headers
        .iter()
        .find(|(name, _)| name == "content-security-policy")
        .unwrap();
    assert!(policy.1.starts_with("default-src 'none'") && !policy.1.contains("unsafe"));
    assert_eq!(peer.rest("GET", "/ui/app.js").unwrap().status, 200);
    assert_eq!(peer.rest("GET", "/ui/nothing.js").unwrap().status, 404);
    for path in ["/", "/id", "/events", "/ui"] {
        assert_eq!(peer.rest("GET", path).unwrap().status, 401, "{path}");
    }
}

#[test]
fn service_manager_learns_the_state_and_gets_signs_of_life() {
    let mut cluster = Cluster::prepare(&Options {
        peers: 1,
        ..Options::default()
    });
    let path = cluster.folder().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    let socket = path.to_str().unwrap();
    let peer = &mut cluster.peers[0];
    peer.start_env(&[("NOTIFY_SOCKET", socket), ("WATCHDOG_USEC", "1000000")]);
    // Messages that came so far: the status may come before or after the others.
    let mut seen = String::new();
    let mut wait = |texts: &[&str]| {
        while !texts.iter().all(|text| seen.contains(text)) {
            let mut message = [0; 1024];
            let length = manager.recv(&mut message);
            let length = length.unwrap_or_else(|error| panic!("{texts:?} are not all in {seen}: {error}"));
            seen.push_str(&String::from_utf8_lossy(&message[..length]));
            seen.push('\n');
        }
        seen.clear();
    };
    wait(&["READY=1", "STATUS=ready, leader 12D3KooW", "WATCHDOG=1"]);
    // A peer that is stopped for twice the limit sends none.
    peer.signal("STOP");
    manager.set_nonblocking(true).unwrap();
    while manager.recv(&mut [0; 1024]).is_ok() {}
    std::thread::sleep(Duration::from_secs(2));
    assert!(manager.recv(&mut [0; 1024]).is_err());
    manager.set_nonblocking(false).unwrap();
    peer.signal("CONT");
    wait(&["WATCHDOG=1"]);
    peer.signal("TERM");
    wait(&["STOPPING=1"]);
    assert!(peer.wait_end().success());
}
