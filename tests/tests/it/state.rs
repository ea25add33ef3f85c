//! State on disk: export and import, with and without a daemon, in the Go peer's formats; backups; cleanup.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tests::{Cluster, Options, Peer, Said, cids, run, service, wait_until};

/// Export of a Go peer (1.1.6, raft).
const GO: &str = include_str!("state/go-1.1.6.json");
/// Backup that Go ipfs-cluster 0.0.12 writes on shutdown.
const OLD: &str = include_str!("state/0.0.12.json");

/// Writes the folder of one peer, without starting it.
fn one() -> (TempDir, Peer) {
    let folder = TempDir::new().unwrap();
    let peer = Peer::init(folder.path(), "peer");
    (folder, peer)
}

fn state(peer: &Peer, arguments: &[&str]) -> Said {
    run(service(&peer.folder)
        .args(["--logformat", "nocolor", "state"])
        .args(arguments))
}

fn file(peer: &Peer, name: &str, text: &str) -> String {
    let path = peer.folder.join(name);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Parses an export: pins by CID, without the fields that a Go export lacks.
fn pins(text: &str) -> BTreeMap<String, Value> {
    let lines = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines
        .map(|pin| (pin["cid"].as_str().unwrap().to_owned(), pin))
        .collect()
}

fn backups(peer: &Peer) -> Vec<PathBuf> {
    let folder = fs::read_dir(peer.folder.join("backups"));
    let mut paths: Vec<PathBuf> = folder
        .map(|folder| folder.map(|entry| entry.unwrap().path()).collect())
        .unwrap_or_default();
    paths.sort();
    paths
}

/// Generates an export of identity CIDs.
fn made_up(count: u32) -> String {
    let line = |number| {
        let cid = cids::identity(&format!("pin number {number}"));
        format!(
            "{{\"cid\":\"{cid}\",\"type\":\"pin\",\"name\":\"n{number}\",\"replication_factor_min\":-1,\
             \"replication_factor_max\":-1,\"max_depth\":-1,\"mode\":\"recursive\"}}\n"
        )
    };
    (0..count).map(line).collect()
}

#[test]
fn a_go_export_is_imported_and_exported_unchanged() {
    let (_root, peer) = one();
    let export = file(&peer, "go.json", GO);
    let said = state(&peer, &["import", "-f", &export]);
    assert!(
        said.err.contains("state successfully imported: 4 pins"),
        "{said:?}"
    );
    assert!(said.err.contains("2 peers that are no members"), "{said:?}");
    said.ok();
    assert_eq!(pins(&state(&peer, &["export"]).ok()), pins(GO));
    let out = peer.folder.join("out.json");
    state(&peer, &["export", "--file", out.to_str().unwrap()]).ok();
    assert_eq!(pins(&fs::read_to_string(&out).unwrap()), pins(GO));
}

#[test]
fn imported_pins_of_unknown_peers_are_reallocated() {
    let (_root, mut peer) = one();
    let content = cids::identity("content of the test");
    let stranger = "12D3KooWGRYZDHBembyGJQqQ6WgLqJWYNjnECJwGBnCg8vbCeo8F";
    let line = format!(
        "{{\"cid\":\"{content}\",\"type\":\"pin\",\"replication_factor_min\":1,\"replication_factor_max\":1,\
         \"allocations\":[\"{stranger}\"]}}"
    );
    let path = file(&peer, "state.json", &line);
    state(&peer, &["import", "-f", &path]).ok();
    peer.start_and_wait();
    wait_until("the pin is allocated to the only member", || {
        let pin = peer.try_get(&format!("/allocations/{content}"))?.json();
        match pin["allocations"].as_array() {
            Some(peers) if *peers == [Value::from(peer.id.as_str())] => Ok(()),
            _ => Err(pin.to_string()),
        }
    });
    // Writes work afterwards.
    peer.ask(
        "POST",
        &format!("/pins/{}?mode=direct", cids::identity("another")),
    )
    .unwrap();
    assert_eq!(peer.pinset().unwrap().len(), 2);
}

#[test]
fn import_can_change_copies_and_peers() {
    let (_root, peer) = one();
    let export = file(&peer, "go.json", GO);
    let id = peer.id.clone();
    let changes = [
        "import", "-f", "--rmin", "1", "--rmax", "1", "--allocs", &id, &export,
    ];
    state(&peer, &changes).ok();
    for pin in pins(&state(&peer, &["export"]).ok()).values() {
        assert_eq!(
            (&pin["replication_factor_min"], &pin["replication_factor_max"]),
            (&1.into(), &1.into())
        );
        assert_eq!(pin["allocations"], serde_json::json!([id]));
    }
}

#[test]
fn a_malformed_export_is_refused_with_the_line_and_changes_nothing() {
    let (_root, peer) = one();
    let good = made_up(3);
    state(&peer, &["import", "-f", &file(&peer, "good.json", &good)]).ok();
    let before = state(&peer, &["export"]).ok();
    for (bad, reason) in [
        (format!("{good}nonsense\n"), "line 4: expected"),
        (
            format!("{good}{{\"cid\":\"nonsense\"}}\n"),
            "line 4: cid: \"nonsense\" is not a CID",
        ),
        (format!("{good}{{}}\n"), "line 4: there is no \"cid\""),
        (
            format!("{good}{{\"cid\":"),
            "line 4: the file ends within this value",
        ),
        ("\u{1}\u{2}".to_owned(), "line 1: "),
    ] {
        let said = state(&peer, &["import", "-f", &file(&peer, "bad.json", &bad)]);
        assert_eq!(said.code, 1, "{said:?}");
        let explained = said.err.contains(reason) && said.err.contains("Nothing was changed");
        assert!(
            said.err.contains("error importing state: ") && explained,
            "{reason}: {said:?}"
        );
    }
    assert_eq!(state(&peer, &["export"]).ok(), before);
    let missing = state(&peer, &["import", "-f", "/nonexistent/file"]);
    assert!(
        missing.code == 1 && missing.err.contains("/nonexistent/file"),
        "{missing:?}"
    );
}

/// Includes exports of 0.10 to 0.14, which write each CID as a link.
#[test]
fn skip_bad_skips_and_names_invalid_pins() {
    let (_root, peer) = one();
    let [linked, updated] = ["linked", "updated"].map(cids::identity);
    let text = format!(
        "{}{{\"cid\":\"nonsense\"}}\nnonsense\n{{\"cid\":{{\"/\":\"{linked}\"}},\"type\":2,\
         \"pin_update\":{{\"/\":\"{updated}\"}},\"reference\":null,\"max_depth\":-1}}\n",
        made_up(3)
    );
    let export = file(&peer, "state.json", &text);
    let said = state(&peer, &["import", "-f", &export]);
    assert!(
        said.code == 1 && said.err.contains("line 4: cid: \"nonsense\""),
        "{said:?}"
    );
    assert!(said.err.contains("--skip-bad"), "{said:?}");
    let said = state(&peer, &["import", "-f", "--skip-bad", &export]);
    for reason in [
        "skipped: line 4: cid: \"nonsense\" is not a CID",
        "skipped: line 5: expected",
        "2 bad pins were skipped",
        "state successfully imported: 4 pins",
    ] {
        assert!(said.err.contains(reason), "{reason}: {said:?}");
    }
    said.ok();
    let exported = pins(&state(&peer, &["export"]).ok());
    assert_eq!(exported.len(), 4);
    assert_eq!(exported[&linked]["pin_update"], updated);
    // A file of another kind must not empty the pinset.
    let other = file(&peer, "other.json", "{\"a\":1}\n{\"b\":2}\n");
    let said = state(&peer, &["import", "-f", "--skip-bad", &other]);
    assert!(
        said.code == 1 && said.err.contains("no export of a cluster"),
        "{said:?}"
    );
    assert_eq!(pins(&state(&peer, &["export"]).ok()), exported);
}

#[test]
fn a_killed_import_leaves_the_old_or_the_new_state() {
    let (_root, peer) = one();
    let (old, new) = (made_up(50), made_up(20_000));
    let (old, path) = (file(&peer, "old.json", &old), file(&peer, "new.json", &new));
    let mut seen = [false; 2];
    for pause in [5, 100, 200, 300, 450, 600, 800, 1000, 1300, 1700, 2500] {
        state(&peer, &["import", "-f", &old]).ok();
        let mut import = service(&peer.folder);
        import
            .args(["state", "import", "-f", &path])
            .stderr(Stdio::null());
        let mut import = import.spawn().unwrap();
        std::thread::sleep(Duration::from_millis(pause));
        import.kill().unwrap();
        import.wait().unwrap();
        let lines = state(&peer, &["export"]).ok().lines().count();
        assert!([50, 20_000].contains(&lines), "{lines} pins after {pause} ms");
        seen[usize::from(lines > 50)] = true;
        if seen == [true, true] {
            break;
        }
    }
    assert!(seen[0], "it was never killed in time");
    state(&peer, &["import", "-f", &path]).ok();
    assert_eq!(state(&peer, &["export"]).ok().lines().count(), 20_000);
}

#[test]
fn peers_that_import_the_same_file_form_a_cluster() {
    let mut cluster = Cluster::prepare(&Options::default());
    for peer in &cluster.peers {
        let path = file(peer, "state.json", &made_up(40));
        let said = state(peer, &["import", "-f", &path]);
        assert!(
            said.err
                .contains("all 3 peers of the cluster must have this state"),
            "{said:?}"
        );
        said.ok();
    }
    cluster.peers.iter_mut().for_each(Peer::start);
    cluster.wait_ready();
    let fresh = cids::identity("written after the import");
    cluster.peers[1].ask("POST", &format!("/pins/{fresh}")).unwrap();
    for peer in &cluster.peers {
        wait_until("all have all", || match peer.pinset()?.len() {
            41 => Ok(()),
            count => Err(format!("{count} pins")),
        });
    }
}

#[test]
fn export_and_import_use_the_running_daemon() {
    let mut cluster = Cluster::start();
    let before = cids::identity("there before");
    cluster.peers[0]
        .ask("POST", &format!("/pins/{before}?name=old"))
        .unwrap();
    let expired = format!(
        "{{\"cid\":\"{}\",\"type\":\"pin\",\"expire_at\":\"2020-01-01T00:00:00Z\"}}\n",
        cids::identity("expired")
    );
    let bad = file(&cluster.peers[0], "bad.json", &format!("{}x", made_up(5)));
    let said = state(&cluster.peers[0], &["import", "-f", &bad]);
    assert!(said.code == 1 && said.err.contains("line 6: "), "{said:?}");
    assert_eq!(cluster.peers[0].pinset().unwrap().len(), 1, "nothing was added");

    let path = file(
        &cluster.peers[0],
        "state.json",
        &format!("{}nonsense\n{expired}", made_up(300)),
    );
    for _ in 0..2 {
        let said = state(&cluster.peers[0], &["import", "-f", "--skip-bad", &path]);
        assert!(said.err.contains("skipped: line 301: "), "{said:?}");
        assert!(
            said.err.contains("1 pins have expired and were left out"),
            "{said:?}"
        );
        assert!(said.err.contains("300 pins are in the cluster"), "{said:?}");
        said.ok();
    }
    wait_until("all peers have them", || {
        for peer in &cluster.peers {
            let count = peer.pinset()?.len();
            if count != 301 {
                return Err(format!("{count} at {}", peer.name));
            }
        }
        Ok(())
    });
    let exported = pins(&state(&cluster.peers[2], &["export"]).ok());
    assert_eq!(exported.len(), 301);
    assert_eq!(exported[&before]["name"], "old");
    assert_import_is_exported_unchanged(&cluster);
    // A cleanup during use is refused.
    let said = state(&cluster.peers[0], &["cleanup", "-f"]);
    assert!(said.code == 1 && said.err.contains("stop it first"), "{said:?}");
    cluster.peers.iter_mut().for_each(Peer::check);
}

/// Imports and exports through a running cluster: all fields but the allocations are unchanged.
fn assert_import_is_exported_unchanged(cluster: &Cluster) {
    let friend = &cluster.peers[1].id;
    let [whole, update, part] = ["all that a pin can have", "a new version", "a part"].map(cids::identity);
    let text = format!(
        "{{\"replication_factor_min\":1,\"replication_factor_max\":2,\"name\":\"a <b>\",\"mode\":\"direct\",\
         \"shard_size\":7,\"user_allocations\":[\"{friend}\"],\"expire_at\":\"2090-01-02T03:04:05.6Z\",\
         \"metadata\":{{\"k\":\"v\"}},\"pin_update\":null,\
         \"origins\":[\"/ip4/10.0.0.1/tcp/4001/p2p/{friend}\"],\"cid\":\"{whole}\",\"type\":\"pin\",\
         \"allocations\":[\"{friend}\"],\"max_depth\":0,\"reference\":null,\
         \"timestamp\":\"2020-05-11T10:00:00Z\"}}\n\
         {{\"cid\":\"{update}\",\"type\":\"pin\",\"pin_update\":\"{part}\",\"name\":\"new\",\
         \"timestamp\":\"2021-05-11T10:00:00Z\"}}\n\
         {{\"cid\":\"{part}\",\"type\":\"meta-pin\",\"reference\":\"{whole}\"}}\n"
    );
    let path = file(&cluster.peers[0], "whole.json", &text);
    state(&cluster.peers[0], &["import", "-f", &path]).ok();
    let brought = pins(&text);
    wait_until("all peers have it unchanged", || {
        let found = pins(&state(&cluster.peers[2], &["export"]).ok());
        let mut as_it_was = brought[&whole].clone();
        as_it_was["allocations"] = match found.get(&whole) {
            Some(found) => found["allocations"].clone(),
            None => return Err("it is missing".to_owned()),
        };
        assert_eq!(found[&whole], as_it_was);
        let (Some(update), Some(part)) = (found.get(&update), found.get(&part)) else {
            return Err("a pin is missing".to_owned());
        };
        let expected = &brought[update["cid"].as_str().unwrap()];
        for key in ["pin_update", "name", "timestamp"] {
            assert_eq!(update[key], expected[key], "{key}");
        }
        assert_eq!(
            (&part["type"], &part["reference"]),
            (&"meta-pin".into(), &whole.as_str().into())
        );
        assert!(
            part["timestamp"].as_str().unwrap() > "2026",
            "a missing timestamp becomes the current time"
        );
        Ok(())
    });
}

#[test]
fn shutdown_writes_an_importable_backup_and_keeps_only_the_newest() {
    let (_root, mut peer) = one();
    peer.edit(|config| config["consensus"]["raft"]["backups_rotate"] = 2.into());
    for number in 0..4 {
        peer.start_and_wait();
        let cid = cids::identity(&format!("round {number}"));
        wait_until("it pins", || {
            peer.ask("POST", &format!("/pins/{cid}?name=round{number}"))
        });
        assert!(peer.terminate().success());
        // Names have a resolution of seconds.
        std::thread::sleep(Duration::from_millis(1100));
    }
    let kept = backups(&peer);
    assert_eq!(kept.len(), 2, "{kept:?}");
    let newest = fs::read_to_string(&kept[1]).unwrap();
    assert_eq!(newest.lines().count(), 4);
    assert_eq!(pins(&newest), pins(&state(&peer, &["export"]).ok()));
    // No new backup without changes.
    peer.start_and_wait();
    let older = kept[0].to_str().unwrap().to_owned();
    assert!(peer.terminate().success());
    state(&peer, &["import", "-f", &older]).ok();
    assert_eq!(state(&peer, &["export"]).ok().lines().count(), 3);
}

#[test]
fn cleanup_keeps_a_copy_and_the_next_start_is_like_the_first() {
    let (_root, mut peer) = one();
    let nothing = state(&peer, &["cleanup", "-f"]);
    assert!(nothing.err.contains("nothing to clean up"), "{nothing:?}");
    nothing.ok();
    state(&peer, &["import", "-f", &file(&peer, "state.json", &made_up(3))]).ok();
    let said = state(&peer, &["cleanup", "--force"]);
    assert!(said.err.contains("data correctly cleaned up"), "{said:?}");
    assert!(!peer.folder.join("raft").exists() && peer.folder.join("raft.old.0/db").exists());
    assert_eq!(state(&peer, &["export"]).ok(), "");
    peer.start_and_wait();
    assert_eq!(peer.pinset().unwrap(), Vec::<String>::new());
}

#[test]
fn the_state_of_0_0_12_is_migrated_by_upgrade_and_by_import() {
    let (_root, peer) = one();
    assert!(state(&peer, &["upgrade"]).err.contains("there is no state"));
    fs::create_dir(peer.folder.join("backups")).unwrap();
    file(&peer, "backups/20170701_09:00:00", OLD);
    file(
        &peer,
        "backups/20170630_09:00:00",
        "{\"PinMap\":{},\"Version\":2}",
    );
    let said = state(&peer, &["upgrade", "-f"]);
    assert!(
        said.err.contains("state successfully imported: 2 pins"),
        "{said:?}"
    );
    said.ok();
    let taken = pins(&state(&peer, &["export"]).ok());
    let everywhere = &taken["QmSnuWmxptJZdLJpKRarxBMS2Ju2oANVrgbr2xWbie9b2D"];
    assert_eq!(everywhere["replication_factor_min"], -1);
    let one = &taken["QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn"];
    assert_eq!(
        (
            &one["replication_factor_max"],
            one["allocations"].as_array().unwrap().len()
        ),
        (&1.into(), 1)
    );
    assert!(
        state(&peer, &["upgrade"])
            .err
            .contains("has the current format already")
    );
    let path = file(&peer, "old.json", OLD);
    state(&peer, &["import", "-f", &path]).ok();
    assert_eq!(pins(&state(&peer, &["export"]).ok()), taken);
}

#[test]
fn the_version_of_the_state_is_shown_and_a_newer_one_is_refused() {
    let (_root, mut peer) = one();
    assert_eq!(state(&peer, &["version"]).ok().trim(), "1");
    state(&peer, &["import", "-f", &file(&peer, "state.json", &made_up(3))]).ok();
    file(&peer, "raft/format", "2\n");
    let refused = "was written by a later release (format 2, this one knows 1): start that release";
    for command in [&["export"][..], &["upgrade"], &["import", "-f", "state.json"]] {
        let said = state(&peer, command);
        let input = command[0] == "import" && said.err.contains("state.json");
        assert!(
            said.code == 1 && (input || said.err.contains(refused)),
            "{said:?}"
        );
    }
    let said = state(&peer, &["version"]);
    assert!(said.code == 1 && said.err.contains("has format 2"), "{said:?}");
    peer.start();
    assert_eq!(peer.wait_end().code(), Some(1));
    assert!(peer.log().contains(refused), "{}", peer.log());
}

#[test]
fn import_reads_standard_input_without_asking() {
    let (_root, peer) = one();
    let import = |arguments: &[&str]| {
        let mut shell = Command::new("sh");
        let text = file(&peer, "in.json", &made_up(3));
        let program = service(&peer.folder);
        let program = program.get_program().to_str().unwrap();
        let folder = peer.folder.to_str().unwrap();
        let arguments = arguments.join(" ");
        run(shell.args([
            "-c",
            &format!("{program} -c {folder} state import {arguments} < {text}"),
        ]))
    };
    let said = import(&[]);
    assert!(said.code == 1 && said.err.contains("--force"), "{said:?}");
    import(&["--force"]).ok();
    assert_eq!(state(&peer, &["export"]).ok().lines().count(), 3);
}
