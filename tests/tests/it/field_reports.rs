//! Configurations and inputs from public bug reports, end to end: what is refused or ignored by mistake there
//! works here. Cases that a unit test shows in full are tested beside the code.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;
use tests::{Peer, cids, http, run, service, wait_until};

fn folder() -> (TempDir, Peer) {
    let folder = TempDir::new().unwrap();
    let peer = Peer::init(folder.path(), "peer");
    (folder, peer)
}

/// A node's HTTP API with just enough of Kubo's to start a peer; counts the calls of `repo/stat`.
fn stub_kubo() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let stats = Arc::new(AtomicUsize::new(0));
    let counter = stats.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let counter = counter.clone();
            std::thread::spawn(move || answer_calls(&stream.unwrap(), &counter));
        }
    });
    (port, stats)
}

fn answer_calls(stream: &TcpStream, stats: &AtomicUsize) {
    let mut reader = BufReader::new(stream);
    loop {
        let (mut call, mut line) = (String::new(), String::new());
        let mut length = 0;
        loop {
            line.clear();
            if !matches!(reader.read_line(&mut line), Ok(1..)) {
                return;
            }
            if call.is_empty() {
                call = line.split_whitespace().nth(1).unwrap_or("").to_owned();
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
        }
        std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink()).unwrap();
        let path = call.split('?').next().unwrap().trim_start_matches("/api/v0/");
        let body = match path {
            "id" => json!({
                "ID": "12D3KooWBxFHgNqhKn5iVBpmY9oT2KDTB8zhYvxrh7Z5QNhCgqe9",
                "Addresses": [],
                "AgentVersion": "kubo/0.30.0/",
            }),
            "repo/stat" => {
                stats.fetch_add(1, Ordering::Relaxed);
                json!({ "RepoSize": 1, "StorageMax": 10_000_000_000_u64, "NumObjects": 1 })
            }
            "version" => json!({ "Version": "0.30.0" }),
            _ => json!({}),
        };
        let body = body.to_string();
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let mut writer = stream;
        if writer.write_all((head + &body).as_bytes()).is_err() {
            return;
        }
    }
}

/// `repo/stat` of a large repository takes minutes: operators raise the metric's time to live to spare it.
#[test]
fn disk_metric_ttl_sets_the_pace_of_repo_stat() {
    let (_root, mut peer) = folder();
    let (port, stats) = stub_kubo();
    peer.edit(|config| {
        config["ipfs_connector"] = json!({
            "ipfshttp": { "node_multiaddress": format!("/ip4/127.0.0.1/tcp/{port}") },
        });
        config["informer"]["disk"]["metric_ttl"] = json!("10m0s");
    });
    peer.start_and_wait();
    let ping = || {
        let metrics = peer.try_get("/monitor/metrics/ping")?.json();
        metrics[0]["received_at"].as_u64().ok_or("no ping".to_owned())
    };
    let first = wait_until("a ping", ping);
    wait_until("more pings", || match ping()? - first {
        0..5_000_000_000 => Err("not yet".to_owned()),
        _ => Ok(()),
    });
    let stats = stats.load(Ordering::Relaxed);
    assert!((1..=3).contains(&stats), "{stats} calls of repo/stat");
}

#[test]
fn bad_listeners_are_refused_before_a_cluster_is_founded() {
    let (_root, peer) = folder();
    let before = listing(&peer);
    for address in ["/ip4/127.0.0.1/udp/9094", "/dns4/no-such-host.invalid/tcp/9094"] {
        let mut command = service(&peer.folder);
        command.env("CLUSTER_RESTAPI_HTTPLISTENMULTIADDRESS", address);
        let said = run(command.arg("daemon"));
        assert!(
            said.code == 1 && said.err.contains("http_listen_multiaddress"),
            "{said:?}"
        );
        assert_eq!(listing(&peer), before, "{address}");
    }
}

fn listing(peer: &Peer) -> Vec<String> {
    let entries = std::fs::read_dir(&peer.folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.ends_with(".lock"))
        .collect();
    names.sort();
    names
}

/// Timeouts of a wide-area cluster, in a cluster of one: its own vote is a majority, so it does not wait.
#[test]
fn single_peer_with_slow_raft_timeouts_starts_at_once() {
    let (_root, mut peer) = folder();
    peer.edit(|config| {
        let raft = &mut config["consensus"]["raft"];
        raft["heartbeat_timeout"] = json!("120s");
        raft["election_timeout"] = json!("180s");
        raft["wait_for_leader_timeout"] = json!("30s");
        raft["network_timeout"] = json!("30s");
    });
    for _ in 0..2 {
        let since = Instant::now();
        peer.start_and_wait();
        assert!(since.elapsed() < Duration::from_secs(60), "{:?}", since.elapsed());
        assert!(peer.terminate().success());
    }
}

/// Like the `ipfs` command, which reads the answer when all is sent: no "broken pipe" then.
#[test]
fn refusals_of_large_uploads_reach_clients_that_send_everything_first() {
    let (_root, mut peer) = folder();
    peer.start_and_wait();
    let (kind, body) = http::multipart(&[("big", &vec![0; 30_000_000])]);
    for (port, target) in [
        (peer.ipfs_port, "/api/v0/add?hash=md5"),
        (peer.ipfs_port, "/api/v0/add?cid-version=2"),
        (peer.rest_port, "/add?hash=md5"),
        (peer.rest_port, "/add?format=zip"),
    ] {
        let head = format!(
            "POST {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: {kind}\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(http::SILENCE)).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        stream
            .write_all(&body)
            .unwrap_or_else(|error| panic!("{target}: {error}"));
        let mut status = String::new();
        BufReader::new(&stream).read_line(&mut status).unwrap();
        assert!(
            status.starts_with("HTTP/1.1 4") || status.starts_with("HTTP/1.1 5"),
            "{target}: {status}"
        );
        let _ = stream.shutdown(Shutdown::Both);
    }
}

#[test]
fn full_peer_shows_no_free_space_and_is_named_when_pins_are_refused() {
    let (_root, mut peer) = folder();
    let limit = |peer: &Peer, amount: &str| {
        peer.edit(|config| {
            config["ipfs_connector"]["embedded"]["storage_max"] = json!(amount);
            config["informer"]["disk"]["metric_ttl"] = json!("2s");
        });
    };
    limit(&peer, "4MB");
    peer.start_and_wait();
    peer.add("", &[("f", &cids::bytes(1, 3_000_000))]).unwrap();
    assert!(peer.terminate().success());
    limit(&peer, "1MB");
    peer.start_and_wait();
    wait_until("the metric shows no free space", || {
        let said = peer.ctl(&["health", "metrics", "freespace"]);
        said.out
            .contains("freespace: 0")
            .then_some(())
            .ok_or(format!("{said:?}"))
    });
    let cid = cids::identity("one more");
    let said = peer.ctl(&["pin", "add", "--no-status", "--replication", "1", &cid]);
    let all = format!("{}{}", said.out, said.err);
    assert!(said.code == 2 && all.contains("is full"), "{said:?}");
}

#[test]
fn expiry_at_the_end_of_the_year_9999_is_kept() {
    let (_root, mut peer) = folder();
    peer.start_and_wait();
    let cid = cids::identity("never");
    let never = "9999-12-31T23:59:59Z";
    let target = format!("/pins/{cid}?expire-at={never}");
    assert_eq!(peer.ask("POST", &target).unwrap().json()["expire_at"], never);
    let pin = peer.try_get(&format!("/allocations/{cid}")).unwrap().json();
    assert_eq!(pin["expire_at"], never);
    let listed = peer.ctl(&["pin", "ls"]).ok();
    assert!(listed.contains("Exp: 9999-12-31"), "{listed}");
}
