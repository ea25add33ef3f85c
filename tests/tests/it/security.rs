//! Security: admission to the cluster, logs about refused peers, and secrecy of keys.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::{Cluster, Options, Peer, cids, http, run, service, wait_until};

/// Secret that [`Peer::init`] writes, and another one.
const SECRET: &str = "5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e";
const OTHER: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0";

fn lines_with(peer: &Peer, texts: &[&str]) -> Vec<String> {
    let log = peer.log();
    let lines = log.lines();
    let all = |line: &&str| texts.iter().all(|text| line.contains(text));
    lines.filter(all).map(str::to_owned).collect()
}

/// Asserts that a warning is logged once although its cause repeats. If more than a minute has passed since
/// `since`, there may be a second one.
fn assert_logged_once_a_minute(peer: &Peer, since: Instant, texts: &[&str]) {
    wait_until(&format!("{} says {texts:?}", peer.name), || {
        let said = lines_with(peer, texts).len();
        if said > 0 { Ok(()) } else { Err(peer.log()) }
    });
    std::thread::sleep(Duration::from_secs(3));
    let said = lines_with(peer, texts);
    let minutes = since.elapsed().as_secs() / 60;
    assert!(said.len() as u64 <= 1 + minutes, "{said:#?}");
}

fn set(peer: &Peer, secret: &str, accepted: &[&str]) {
    peer.edit(|config| {
        config["cluster"]["secret"] = json!(secret);
        match accepted {
            [] => drop(
                config["cluster"]
                    .as_object_mut()
                    .unwrap()
                    .remove("accepted_secrets"),
            ),
            accepted => config["cluster"]["accepted_secrets"] = json!(accepted),
        }
    });
}

#[test]
fn strangers_on_the_cluster_port_are_disconnected_and_logged_once() {
    let mut cluster = Cluster::start();
    let since = Instant::now();
    let peer = &cluster.peers[0];
    for said in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        b"\x13/multistream/1.0.0\n",
        &[0; 5_000],
    ] {
        let mut socket = TcpStream::connect(("127.0.0.1", peer.cluster_port)).unwrap();
        socket.set_read_timeout(Some(tests::PATIENCE)).unwrap();
        // The peer may close before everything is sent.
        drop(socket.write_all(said));
        let mut received = Vec::new();
        drop(socket.read_to_end(&mut received));
        assert!(received.is_empty(), "a stranger receives {received:?}");
    }
    assert_logged_once_a_minute(
        peer,
        since,
        &["WARN", "/ip4/127.0.0.1", "not a peer of this kind"],
    );
    cluster.peers.iter_mut().for_each(Peer::check);
}

#[test]
fn a_peer_with_another_secret_is_refused_and_both_log_it_once() {
    let mut cluster = Cluster::prepare(&Options::default());
    let since = Instant::now();
    set(&cluster.peers[2], OTHER, &[]);
    cluster.peers.iter_mut().for_each(Peer::start);
    for (at, secret) in [(0, SECRET), (1, SECRET), (2, OTHER)] {
        let peer = &cluster.peers[at];
        assert_logged_once_a_minute(peer, since, &["WARN", "/ip4/127.0.0.1", "wrong secret: "]);
        // The dialling peer logs it too, with the other's id.
        let other = &cluster.peers[if at == 2 { 0 } else { 2 }].id;
        assert_logged_once_a_minute(
            peer,
            since,
            &[other.as_str(), "cannot connect, trying again", "wrong secret: "],
        );
        assert!(
            !peer.log().contains(secret),
            "the secret is in the log of {}",
            peer.name
        );
    }
    // The two peers with the same secret are a majority.
    let cid = cids::identity("two of three");
    wait_until("two peers pin", || {
        cluster.peers[0].ask(
            "POST",
            &format!("/pins/{cid}?replication-min=1&replication-max=1"),
        )
    });
    // The peer with the wrong secret is alone, and can be given the right one at any time.
    cluster.peers[2].terminate();
    set(&cluster.peers[2], SECRET, &[]);
    cluster.peers[2].start();
    cluster.wait_ready();
    wait_until("the third has caught up", || {
        let pins = cluster.peers[2].pinset()?;
        if pins == [cid.clone()] {
            Ok(())
        } else {
            Err(format!("{pins:?}"))
        }
    });
}

#[test]
fn non_members_with_the_secret_are_refused_and_logged_once() {
    let cluster = Cluster::start();
    // Its configuration names a cluster with the first peer.
    let mut stranger = Peer::init(cluster.folder(), "stranger");
    let first = &cluster.peers[0];
    let members = json!([first.id, stranger.id]);
    stranger.edit(|config| config["consensus"]["raft"]["init_peerset"] = members);
    let address = format!("/ip4/127.0.0.1/tcp/{}/p2p/{}\n", first.cluster_port, first.id);
    fs::write(stranger.folder.join("peerstore"), address).unwrap();
    let since = Instant::now();
    stranger.start();
    assert_logged_once_a_minute(first, since, &["WARN", stranger.id.as_str(), "not accepted"]);
    let peers = first.try_get("/peers").unwrap().values();
    assert_eq!(peers.len(), 3, "{peers:?}");
}

#[test]
fn the_secret_is_rotated_peer_by_peer_during_writes() {
    let mut cluster = Cluster::start();
    let ports: Vec<u16> = cluster.peers.iter().map(|peer| peer.rest_port).collect();
    let done = AtomicBool::new(false);
    let mut written = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut written = Vec::new();
            let mut number = 0_u64;
            while !done.load(Ordering::Relaxed) {
                number += 1;
                let cid = cids::identity(&format!("pin {number}"));
                // Any peer that responds: each is down at some time.
                let target = format!("/pins/{cid}?replication-min=1&replication-max=1");
                wait_until("a pin is taken", || {
                    let taken = ports.iter().any(|port| {
                        let answer = http::request(*port, "POST", &target, &[], &[]);
                        answer.is_ok_and(|answer| answer.is_success())
                    });
                    if taken {
                        Ok(())
                    } else {
                        Err("by no peer".to_owned())
                    }
                });
                written.push(cid);
                std::thread::sleep(Duration::from_millis(20));
            }
            written
        });
        for (secret, accepted) in [(SECRET, &[OTHER][..]), (OTHER, &[])] {
            for at in 0..cluster.peers.len() {
                cluster.peers[at].terminate();
                set(&cluster.peers[at], secret, accepted);
                cluster.peers[at].start_and_wait();
                cluster.wait_ready();
            }
        }
        done.store(true, Ordering::Relaxed);
        writer.join().unwrap()
    });
    written.sort();
    for peer in &cluster.peers {
        wait_until("all that was written is there", || {
            let pins = peer.pinset()?;
            let gone = written.iter().filter(|cid| !pins.contains(cid)).count();
            if gone == 0 {
                Ok(())
            } else {
                Err(format!("{gone} of {} are not at {}", written.len(), peer.name))
            }
        });
        assert!(!peer.log().contains("wrong secret"), "{}", peer.log());
    }
    // A peer with the old secret is refused now.
    cluster.peers[2].terminate();
    set(&cluster.peers[2], SECRET, &[]);
    cluster.peers[2].start();
    wait_until("the old secret is refused", || {
        let said = lines_with(&cluster.peers[2], &["wrong secret: "]);
        said.first().cloned().ok_or_else(|| cluster.peers[2].log())
    });
}

#[test]
fn files_with_secrets_are_readable_by_their_owner_only() {
    let cluster = Cluster::start();
    for peer in &cluster.peers {
        for name in ["service.json", "identity.json"] {
            let mode = fs::metadata(peer.folder.join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name} of {}", peer.name);
        }
        let folder = fs::metadata(&peer.folder).unwrap().permissions().mode();
        assert_eq!(folder & 0o077, 0, "the folder of {}", peer.name);
    }
}

/// A daemon with debug logs.
struct DebugDaemon(Child);

impl DebugDaemon {
    fn start(peer: &Peer, log: &Path) -> Self {
        let log = File::create(log).unwrap();
        let mut command = service(&peer.folder);
        command.args(["--debug", "--logformat", "nocolor", "daemon"]);
        Self(
            command
                .stdout(log.try_clone().unwrap())
                .stderr(log)
                .spawn()
                .unwrap(),
        )
    }
}

impl Drop for DebugDaemon {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn a_reachable_peer_without_a_secret_warns_with_the_remedy() {
    let folder = tempfile::TempDir::new().unwrap();
    let mut peer = Peer::init(folder.path(), "peer");
    let warning = "the cluster has no secret: anyone who reaches /ip4/0.0.0.0/tcp/";
    for (host, secret, warned) in [
        ("127.0.0.1", "", false),
        ("0.0.0.0", SECRET, false),
        ("0.0.0.0", "", true),
    ] {
        let port = peer.cluster_port;
        peer.edit(|config| {
            config["cluster"]["listen_multiaddress"] = json!([format!("/ip4/{host}/tcp/{port}")]);
            config["cluster"]["secret"] = json!(secret);
        });
        peer.start_and_wait();
        assert_eq!(peer.log().contains(warning), warned, "{}", peer.log());
        assert!(peer.terminate().success());
    }
    assert!(
        peer.log().contains("Set the same cluster.secret"),
        "{}",
        peer.log()
    );
}

/// Password of the REST API.
const PASSWORD: &str = "correct-horse-battery";

/// Returns the texts that must not be shown: secrets, passwords, credentials in base 64, and the peer's key.
fn hidden(peer: &Peer) -> Vec<String> {
    let identity = fs::read_to_string(peer.folder.join("identity.json")).unwrap();
    let identity: Value = serde_json::from_str(&identity).unwrap();
    let key = identity["private_key"].as_str().unwrap();
    let (right, wrong) = ("YW5uOmNvcnJl", "YW5uOndyb25n");
    [SECRET, OTHER, PASSWORD, "wrong-password", right, wrong, key]
        .map(str::to_owned)
        .to_vec()
}

#[test]
fn secrets_and_keys_are_never_shown_even_with_debug() {
    let cluster = Cluster::prepare(&Options {
        peers: 2,
        edit: |config| {
            config["cluster"]["accepted_secrets"] = json!([OTHER]);
            config["api"]["restapi"]["basic_auth_credentials"] = json!({"ann": PASSWORD});
        },
        ..Options::default()
    });
    let logs = [cluster.folder().join("one.log"), cluster.folder().join("two.log")];
    let running: Vec<DebugDaemon> = cluster
        .peers
        .iter()
        .zip(&logs)
        .map(|(peer, log)| DebugDaemon::start(peer, log))
        .collect();
    let auth = [("Authorization", "Basic YW5uOmNvcnJlY3QtaG9yc2UtYmF0dGVyeQ==")];
    let ask =
        |method: &str, target: &str| http::request(cluster.peers[0].rest_port, method, target, &auth, &[]);
    wait_until("the peers see each other", || {
        let peers = ask("GET", "/peers").map_err(|error| error.to_string())?;
        let seen = peers.values().iter().filter(|id| id["error"] == "").count();
        if seen == 2 { Ok(()) } else { Err(peers.text()) }
    });
    let pinned = ask("POST", &format!("/pins/{}", cids::identity("x"))).unwrap();
    assert!(pinned.is_success(), "{}", pinned.text());
    let bad = [("Authorization", "Basic YW5uOndyb25nLXBhc3N3b3Jk")];
    let refused = http::request(cluster.peers[0].rest_port, "GET", "/id", &bad, &[]).unwrap();
    assert_eq!(refused.status, 401);
    drop(running);
    for (peer, log) in cluster.peers.iter().zip(&logs) {
        let log = fs::read_to_string(log).unwrap();
        assert!(log.contains("DEBUG"), "it logs little: {log}");
        for word in hidden(peer) {
            assert!(!log.contains(&word), "{word} is in the log of {}", peer.name);
            let upper = word.to_uppercase();
            assert!(!log.contains(&upper), "{upper} is in the log of {}", peer.name);
        }
    }
    // Errors name the key, not its value.
    let peer = &cluster.peers[0];
    peer.edit(|config| config["cluster"]["accepted_secrets"] = json!([format!("{OTHER}0")]));
    let said = run(Command::new("timeout")
        .arg("180")
        .args(words_of(&service(&peer.folder)))
        .arg("daemon"));
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("cluster.accepted_secrets"), "{said:?}");
    for word in hidden(peer) {
        assert!(!said.err.contains(&word) && !said.out.contains(&word), "{said:?}");
    }
}

fn words_of(command: &Command) -> Vec<std::ffi::OsString> {
    let program = [command.get_program().to_owned()];
    program
        .into_iter()
        .chain(command.get_args().map(ToOwned::to_owned))
        .collect()
}
