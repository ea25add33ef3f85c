//! Faults of a peer's folder: they are reported with file and key, and no data is lost.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tests::{Cluster, Peer, Said, cids, run, service, wait_until};

fn folder() -> (TempDir, Peer) {
    let folder = TempDir::new().unwrap();
    let peer = Peer::init(folder.path(), "peer");
    (folder, peer)
}

/// Runs the daemon, which is expected to refuse to start.
fn daemon(folder: &Path) -> Said {
    // Ends a daemon that starts nevertheless.
    let mut command = std::process::Command::new("timeout");
    let daemon = service(folder);
    command.args(["180", daemon.get_program().to_str().unwrap()]);
    command.args(daemon.get_args()).arg("daemon");
    run(&mut command)
}

fn refuses(peer: &Peer, texts: &[&str]) {
    let said = daemon(&peer.folder);
    let explained = texts.iter().all(|text| said.err.contains(text));
    assert!(said.code == 1 && explained, "not 1 and {texts:?}: {said:?}");
}

#[test]
fn a_broken_configuration_is_refused_with_file_and_key() {
    let (_root, peer) = folder();
    let path = peer.folder.join("service.json");
    let good = fs::read_to_string(&path).unwrap();
    for (from, to, texts) in [
        ("{", "", &["service.json"][..]),
        (
            "\"monitor_ping_interval\": \"1s\"",
            "\"monitor_ping_interval\": \"soon\"",
            &["service.json", "cluster.monitor_ping_interval", "soon"],
        ),
        (
            "\"replication_factor_min\": -1",
            "\"replication_factor_min\": \"x\"",
            &["service.json", "cluster.replication_factor_min"],
        ),
        (
            "\"secret\": \"5e",
            "\"secret\": \"zz",
            &["service.json", "cluster.secret"],
        ),
        (
            "/ip4/127.0.0.1/tcp/",
            "/ip4/localhost/tcp/",
            &["service.json", "listen_multiaddress"],
        ),
        (
            "\"concurrent_pins\": 32",
            "\"concurrent_pins\": -3",
            &["service.json", "concurrent_pins"],
        ),
    ] {
        assert!(good.contains(from), "{from} is not in {good}");
        fs::write(&path, good.replacen(from, to, 1)).unwrap();
        refuses(&peer, texts);
    }
    fs::write(&path, [0xff, 0xfe, 0]).unwrap();
    refuses(&peer, &["service.json"]);
    fs::write(&path, "").unwrap();
    refuses(&peer, &["service.json"]);
}

#[test]
fn a_broken_identity_is_refused_with_file_and_key() {
    let (_root, peer) = folder();
    let path = peer.folder.join("identity.json");
    let good = fs::read_to_string(&path).unwrap();
    let other = peer.id.replacen("12D3KooW", "12D3KooX", 1);
    for (broken, key) in [
        (String::new(), ""),
        ("{}".to_owned(), "id"),
        (good.replace(&peer.id, &other), "id"),
        (
            good.replace("\"private_key\": \"", "\"private_key\": \"!"),
            "private_key",
        ),
    ] {
        fs::write(&path, broken).unwrap();
        refuses(&peer, &["identity.json", key]);
    }
}

#[test]
fn invalid_lines_of_the_peerstore_are_named_and_skipped() {
    let (_root, mut peer) = folder();
    let path = peer.folder.join("peerstore");
    fs::write(&path, "/ip4/127.0.0.1/tcp/1/p2p/nonsense\n").unwrap();
    peer.start_and_wait();
    let log = peer.log();
    let warning = format!(
        "{} line 1: \"/ip4/127.0.0.1/tcp/1/p2p/nonsense\" is not",
        path.display()
    );
    assert!(log.contains(&warning) && log.contains("skipped"), "{log}");
}

#[test]
fn a_second_daemon_on_a_folder_is_refused_with_the_process_that_has_it() {
    let mut cluster = one_peer();
    refuses(
        &cluster.peers[0],
        &["error acquiring execution lock", "process with id"],
    );
    cluster.peers[0].check();
    assert!(cluster.peers[0].terminate().success());
    cluster.peers[0].start_and_wait();
}

fn one_peer() -> Cluster {
    Cluster::start_with(&tests::Options {
        peers: 1,
        ..tests::Options::default()
    })
}

#[test]
fn a_port_in_use_is_named() {
    let (_root, peer) = folder();
    for port in [peer.cluster_port, peer.rest_port, peer.ipfs_port, peer.swarm_port] {
        let _taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let said = daemon(&peer.folder);
        assert!(
            said.code == 1 && said.err.contains(&port.to_string()),
            "{port}: {said:?}"
        );
    }
}

/// Lists all files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[test]
fn a_damaged_database_is_refused_with_advice_or_read_completely() {
    let mut cluster = one_peer();
    let peer = &mut cluster.peers[0];
    for number in 0..300 {
        let cid = cids::identity(&format!("pin {number}"));
        peer.ask("POST", &format!("/pins/{cid}")).unwrap();
    }
    let before = peer.pinset().unwrap();
    assert_eq!(before.len(), 300);
    assert!(peer.terminate().success());
    let (database, whole) = (peer.folder.join("raft"), peer.folder.join("whole"));
    // Restore before each case, because a start may change any file.
    let copy = |from: &Path, to: &Path| {
        let _ = fs::remove_dir_all(to);
        run(std::process::Command::new("cp").arg("-a").args([from, to])).ok();
    };
    copy(&database, &whole);
    let mut refused = 0;
    let files = files(&whole);
    for path in &files {
        let good = fs::read(path).unwrap();
        if good.is_empty() {
            continue;
        }
        // A flipped bit in the middle, and a truncated file.
        let mut flipped = good.clone();
        flipped[good.len() / 2] ^= 0x10;
        for damaged in [flipped, good[..good.len() / 2].to_vec()] {
            copy(&whole, &database);
            let path = database.join(path.strip_prefix(&whole).unwrap());
            fs::write(&path, &damaged).unwrap();
            refused += usize::from(refuses_or_has_all(peer, &path, &before));
        }
    }
    println!(
        "{} files damaged in two ways: {refused} times refused",
        files.len()
    );
    assert!(refused > 0, "no damage was detected");
    copy(&whole, &database);
    assert!(
        !refuses_or_has_all(peer, Path::new("nothing"), &before),
        "the whole database opens"
    );
}

/// Returns whether the peer refuses to start, with advice. If it starts, it must have every pin.
fn refuses_or_has_all(peer: &mut Peer, damaged: &Path, pins: &[String]) -> bool {
    let logged = peer.log().len();
    peer.start();
    let answers = wait_until("the peer ends or answers", || {
        if peer.has_ended() {
            return Ok(false);
        }
        peer.pinset().map(|_| true)
    });
    if answers {
        let found = peer.pinset().unwrap();
        assert_eq!(
            found,
            pins,
            "{} is damaged, and the peer did not notice",
            damaged.display()
        );
        assert!(peer.terminate().success());
        return false;
    }
    let status = peer.wait_end();
    let said = peer.log()[logged..].to_owned();
    assert_eq!(status.code(), Some(1), "{}: {said}", damaged.display());
    let advice = said.contains("is damaged") && said.contains("Move that folder away");
    assert!(
        advice,
        "{} is damaged, and it does not say what to do: {said}",
        damaged.display()
    );
    true
}

/// Small file system, unmounted when dropped.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount(size: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let said = run(std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(folder.path()));
        assert_eq!(
            said.code, 0,
            "a full disk needs a mount, which only root may do: {said:?}"
        );
        Self(folder)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        run(std::process::Command::new("umount")
            .arg("--lazy")
            .arg(self.0.path()));
    }
}

#[test]
fn a_full_disk_ends_the_process_and_loses_no_acknowledged_pin() {
    let may_mount = run(std::process::Command::new("id").arg("-u")).out.trim() == "0";
    if !may_mount {
        assert!(
            std::env::var_os("CI").is_none(),
            "CI must be able to mount a tmpfs"
        );
        eprintln!("LEFT OUT: a full disk: only root may mount a small one. Run the tests as root for it");
        return;
    }
    let disk = SmallDisk::mount("200m");
    let mut cluster = Cluster::start_with(&tests::Options {
        peers: 1,
        inside: Some(disk.0.path().to_owned()),
        ..tests::Options::default()
    });
    let peer = &mut cluster.peers[0];
    let mut acknowledged = Vec::new();
    let mut pin = |peer: &Peer, number: usize| {
        let cid = cids::identity(&format!("pin {number} {}", "x".repeat(90)));
        let done = peer.ask("POST", &format!("/pins/{cid}?name={}", "n".repeat(200)));
        done.map(|_| acknowledged.push(cid))
    };
    for number in 0..50 {
        pin(peer, number).unwrap();
    }
    // Another file leaves little free space.
    let ballast = disk.0.path().join("ballast");
    let mut file = fs::File::create(&ballast).unwrap();
    while file.write_all(&[7; 65536]).is_ok() {}
    drop(file);
    let mut number = 50;
    while !peer.has_ended() {
        let _ = pin(peer, number);
        number += 1;
        assert!(
            number < 200_000,
            "the disk is full, and the process keeps running"
        );
    }
    let status = peer.wait_end();
    assert_eq!(status.code(), Some(1), "{}", peer.log());
    fs::remove_file(&ballast).unwrap();
    peer.start_and_wait();
    // Entries that are only in the log are applied once there is a leader; until then reads may be stale.
    wait_until("all acknowledged pins are back", || {
        let found = peer.pinset()?;
        let lost = acknowledged.iter().filter(|cid| !found.contains(cid)).count();
        if lost == 0 {
            Ok(())
        } else {
            Err(format!("{lost} of {} pins are lost", acknowledged.len()))
        }
    });
    let cid = cids::identity("after");
    wait_until("it accepts pins again", || {
        peer.ask("POST", &format!("/pins/{cid}"))
    });
}
