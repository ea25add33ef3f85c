//! All commands of `ipfs-cluster-ctl` against three peers, as a script uses them.

use serde_json::Value;
use tests::{Cluster, Peer, Said, cids, http, wait_until};

fn refused(said: &Said, code: i32, text: &str) {
    // Error responses go to standard output, as in the Go tool; local errors to standard error.
    let printed = said.out.contains(text) || said.err.contains(text);
    assert!(said.code == code && printed, "not {code} {text:?}: {said:?}");
}

fn listed(values: &[Value], cid: &str) -> bool {
    values.iter().any(|value| value["cid"] == cid)
}

#[test]
fn acknowledged_changes_are_in_the_same_peers_next_response() {
    let cluster = Cluster::start();
    for (number, peer) in cluster.peers.iter().cycle().take(9).enumerate() {
        let cid = cids::identity(&format!("pin {number}"));
        let name = format!("name {number}");
        let pin = peer.ctl_json(&["pin", "add", "--no-status", "--name", &name, &cid]);
        assert_eq!(
            (&pin[0]["cid"], &pin[0]["name"]),
            (&cid.clone().into(), &name.clone().into())
        );
        let shown = peer.ctl_json(&["pin", "ls", &cid]);
        assert_eq!(shown[0]["name"], name.as_str());
        assert!(listed(&peer.ctl_json(&["pin", "ls"]), &cid));
        assert!(listed(&peer.ctl_json(&["status"]), &cid));
        assert!(
            peer.ctl(&["status", &cid])
                .ok()
                .starts_with(&format!("{cid} | {name}:\n"))
        );
        if number % 2 == 0 {
            peer.ctl(&["pin", "rm", "--no-status", &cid]).ok();
            refused(&peer.ctl(&["pin", "ls", &cid]), 2, "Code: 404");
            refused(
                &peer.ctl(&["pin", "rm", &cid]),
                2,
                "pin is not part of the pinset",
            );
            assert!(!listed(&peer.ctl_json(&["pin", "ls"]), &cid));
        }
    }
}

#[test]
fn pins_are_added_listed_updated_and_removed() {
    let cluster = Cluster::start();
    let (old, new) = (cids::identity("old"), cids::identity("new"));
    for peer in &cluster.peers {
        let text = peer
            .ctl(&["pin", "add", "--wait", "--name", "docs", "-r", "2", &old])
            .ok();
        assert!(text.starts_with(&format!("{old} | docs:\n")), "{text}");
        assert_eq!(text.matches("PINNED").count(), 2, "{text}");
        let text = peer.ctl(&["pin", "ls"]).ok();
        let line = format!("{old} | docs | PIN | Repl. Factor: 2--2 | Allocations: [");
        assert!(text.starts_with(&line), "{text}");

        let status = peer.ctl_json(&["pin", "update", &old, &new]);
        assert_eq!(status[0]["cid"], new.as_str());
        let pin = &peer.ctl_json(&["pin", "ls", &new])[0];
        let before = &peer.ctl_json(&["pin", "ls", &old])[0];
        assert_eq!(
            pin["allocations"], before["allocations"],
            "an update stays at the same peers"
        );
        assert_eq!(
            (&pin["name"], &pin["pin_update"]),
            (&"docs".into(), &old.clone().into())
        );

        let options = [
            "--metadata",
            "a=b",
            "--expire-in",
            "1h",
            "--mode",
            "direct",
            "--rmin",
            "1",
            "--rmax",
            "3",
        ];
        refused(
            &peer.ctl(&["pin", "add", "--mode", "direct", &new]),
            2,
            "already pinned in recursive mode",
        );
        let direct = cids::identity("direct");
        let pin = &peer.ctl_json(&[&["pin", "add", "--no-status"], &options[..], &[&direct]].concat())[0];
        assert_eq!(
            (&pin["mode"], &pin["metadata"]["a"]),
            (&"direct".into(), &"b".into())
        );
        assert_eq!(
            (&pin["replication_factor_min"], &pin["replication_factor_max"]),
            (&1.into(), &3.into())
        );
        assert_ne!(pin["expire_at"], "0001-01-01T00:00:00Z");
        for cid in [&old, &new, &direct] {
            let text = peer.ctl(&["pin", "rm", "--wait", cid]).ok();
            assert!(
                !text.contains("PINNED |") || text.contains("UNPINNED |"),
                "{text}"
            );
        }
        assert_eq!(peer.ctl(&["pin", "ls"]).ok(), "");
    }
}

/// Stores a file of two blocks at a peer's node, and returns the CID of a directory with that file and one
/// that nobody has.
fn half_missing(peer: &Peer) -> String {
    let added = peer.add(
        "pin=false&cid-version=1&raw-leaves=true&local=true",
        &[("here", &cids::bytes(7, 300_000))],
    );
    let here = added.unwrap()[0]["cid"].as_str().unwrap().to_owned();
    let links = [("here", here, 300_100), ("missing", cids::missing(6), 5_000_000)];
    let links =
        links.map(|(name, cid, size)| serde_json::json!({"Name": name, "Hash": {"/": cid}, "Tsize": size}));
    let node = serde_json::json!({"Data": {"/": {"bytes": "CAE"}}, "Links": links}).to_string();
    let (kind, body) = http::multipart(&[("node", node.as_bytes())]);
    let put = "/api/v0/dag/put?store-codec=dag-pb&input-codec=dag-json&pin=false";
    let headers = [("Content-Type", kind.as_str())];
    let answer = http::request(peer.ipfs_port, "POST", put, &headers, &body).unwrap();
    answer.json()["Cid"]["/"].as_str().unwrap().to_owned()
}

#[test]
fn status_of_a_cid_shows_the_progress_of_its_transfer_and_the_time_of_the_next_attempt() {
    let cluster = Cluster::start();
    let peer = &cluster.peers[0];
    let cid = half_missing(peer);
    let (id, allocation) = (peer.id.as_str(), format!("--allocations={}", peer.id));
    peer.ctl(&["pin", "add", "--replication=1", &allocation, &cid])
        .ok();
    // Every peer shows it.
    for asked in &cluster.peers {
        wait_until("the transfer is shown", || {
            let status = asked.try_get(&format!("/pins/{cid}"))?.json();
            let transfer = &status["peer_map"][id]["transfer"];
            match (transfer["blocks"].as_u64(), transfer["total_bytes"].as_u64()) {
                (Some(blocks), Some(total)) if blocks >= 3 && total > 5_300_000 => Ok(()),
                _ => Err(status.to_string()),
            }
        });
    }
    let text = peer.ctl(&["status", &cid]).ok();
    assert!(
        text.contains("of at most 5.3 MB") && text.contains("blocks held"),
        "{text}"
    );
}

#[test]
fn status_lists_one_all_or_filtered_pins_at_all_peers_or_one() {
    let cluster = Cluster::start();
    let (there, missing) = (cids::identity("there"), cids::missing(5));
    cluster.peers[0].ctl(&["pin", "add", "--wait", &there]).ok();
    cluster.peers[1].ctl(&["pin", "add", &missing]).ok();
    for peer in &cluster.peers {
        wait_until("this peer has applied both", || match peer.pinset()?.len() {
            2 => Ok(()),
            other => Err(format!("{other} pins")),
        });
        let states = |values: &[Value]| -> Vec<(String, usize)> {
            let mut states: Vec<(String, usize)> = values
                .iter()
                .map(|value| {
                    let peers = value["peer_map"].as_object().unwrap();
                    (value["cid"].as_str().unwrap().to_owned(), peers.len())
                })
                .collect();
            states.sort();
            states
        };
        let mut both = vec![(there.clone(), 3), (missing.clone(), 3)];
        both.sort();
        assert_eq!(states(&peer.ctl_json(&["status"])), both);
        assert_eq!(states(&peer.ctl_json(&["status", &there])), [(there.clone(), 3)]);
        assert_eq!(
            states(&peer.ctl_json(&["status", "--local", &there])),
            [(there.clone(), 1)]
        );
        wait_until("all three tell what they have pinned", || {
            let pinned = states(&peer.ctl_json(&["status", "--filter", "pinned"]));
            match pinned == [(there.clone(), 3)] {
                true => Ok(()),
                false => Err(format!("{pinned:?}")),
            }
        });
        let local = peer.ctl_json(&["status", "--local", "--filter", "pinning,queued,error"]);
        assert_eq!(states(&local), [(missing.clone(), 1)]);
        let text = peer.ctl(&["status", "--local", &there]).ok();
        assert!(
            text.contains(&format!("    > {:<20} : PINNED | ", peer.name)),
            "{text}"
        );
        refused(
            &peer.ctl(&["status", "--filter", "nonsense"]),
            1,
            "invalid filter name",
        );
        refused(&peer.ctl(&["status", "nonsense"]), 1, "error parsing cid");
        let unknown = peer.ctl_json(&["status", &cids::identity("never pinned")]);
        let peers = unknown[0]["peer_map"].as_object().unwrap();
        assert!(peers.len() == 3 && peers.values().all(|info| info["status"] == "unpinned"));
    }
}

#[test]
fn health_summary_and_listings_show_what_is_wrong() {
    let mut cluster = Cluster::start_with(&tests::Options {
        edit: |config| {
            config["ipfs_connector"]["embedded"]["pin_timeout"] = "1s".into();
            config["observations"]["metrics"]["reporting_interval"] = "1s".into();
        },
        ..tests::Options::default()
    });
    let healthy = |peer: &Peer| match peer.ctl(&["health", "summary"]).ok() {
        text if text == "HEALTHY | 3 peers, no problems\n" => Ok(()),
        text => Err(text),
    };
    wait_until("nothing is wrong", || healthy(&cluster.peers[0]));
    let (missing, held) = (cids::missing(8), cids::identity("held"));
    cluster.peers[1].ctl(&["pin", "add", "--wait", &held]).ok();
    cluster.peers[1]
        .ctl(&["pin", "add", "--no-status", &missing])
        .ok();
    for peer in &cluster.peers {
        wait_until("the next attempt is shown", || {
            let status = peer.try_get(&format!("/pins/{missing}"))?.json();
            let peers = status["peer_map"].as_object().ok_or("no peers")?;
            match peers.values().all(|peer| peer["retry_at"].is_string()) {
                true => Ok(()),
                false => Err(status.to_string()),
            }
        });
        let cids =
            |values: &[Value]| -> Vec<Value> { values.iter().map(|value| value["cid"].clone()).collect() };
        assert_eq!(
            cids(&peer.ctl_json(&["pin", "ls", "--under-replicated"])),
            [missing.as_str()]
        );
        assert_eq!(
            cids(&peer.ctl_json(&["status", "--under-replicated"])),
            [missing.as_str()]
        );
        wait_until("the failure is a problem of each peer", || {
            let text = peer.ctl(&["health", "summary"]).ok();
            match text
                .lines()
                .filter(|line| line.starts_with("ERROR") && line.contains("1 pin failed"))
                .count()
            {
                3 => Ok(()),
                _ => Err(text),
            }
        });
    }
    let answer = cluster.peers[0]
        .rest("GET", "/pins?under-replicated=true&filter=pinned")
        .unwrap();
    assert_eq!(answer.status, 400, "{}", answer.text());
    cluster.peers[0].ctl(&["pin", "rm", "--wait", &missing]).ok();
    wait_until("nothing is wrong any more", || healthy(&cluster.peers[2]));
    let name = cluster.peers[1].name.clone();
    cluster.peers[1].kill();
    wait_until("the dead peer is the problem", || {
        let text = cluster.peers[0].ctl(&["health", "summary"]).ok();
        match text.contains(&format!("ERROR | {name} | ")) {
            true => Ok(()),
            false => Err(text),
        }
    });
}

#[test]
fn recover_retries_failed_pins() {
    let cluster = Cluster::start_with(&tests::Options {
        edit: |config| config["ipfs_connector"]["embedded"]["pin_timeout"] = "1s".into(),
        ..tests::Options::default()
    });
    let cid = cids::missing(9);
    cluster.peers[0].ctl(&["pin", "add", "--no-status", &cid]).ok();
    cluster.peers[0].wait_state(&cid, "pin_error", 3);
    for peer in &cluster.peers {
        peer.wait_state(&cid, "pin_error", 3);
        let local = peer.ctl_json(&["recover", "--local", &cid]);
        assert_eq!(local[0]["peer_map"].as_object().unwrap().len(), 1, "{local:?}");
        let all = peer.ctl_json(&["recover", &cid]);
        assert_eq!(all[0]["peer_map"].as_object().unwrap().len(), 3, "{all:?}");
        let text = peer.ctl(&["recover", &cid]).ok();
        assert!(text.starts_with(&format!("{cid}:\n")), "{text}");
        peer.ctl(&["recover"]).ok();
        peer.ctl(&["recover", "--local"]).ok();
    }
}

#[test]
fn files_and_folders_are_added_and_waited_for() {
    let cluster = Cluster::start();
    let site = cluster.folder().join("site");
    std::fs::create_dir_all(site.join("deep")).unwrap();
    std::fs::write(site.join("a.txt"), "a").unwrap();
    std::fs::write(site.join("deep/b.bin"), cids::bytes(2, 600_000)).unwrap();
    let (folder, file) = (site.to_str().unwrap(), site.join("a.txt"));
    let file = file.to_str().unwrap();
    for peer in &cluster.peers {
        let text = peer.ctl(&["add", "--wait", "--name", "letter", file]).ok();
        let (cid, name) = text
            .trim_end()
            .strip_prefix("added ")
            .unwrap()
            .split_once(' ')
            .unwrap();
        assert_eq!(name, "a.txt");
        peer.wait_state(cid, "pinned", 3);
        assert_eq!(peer.cat(cid), b"a");
        assert_eq!(peer.ctl(&["add", "-Q", file]).ok(), format!("{cid}\n"));
        let added = peer.ctl_json(&["add", "-r", "--wait", folder]);
        let names: Vec<&str> = added
            .iter()
            .map(|entry| entry["name"].as_str().unwrap())
            .collect();
        assert_eq!(names.last(), Some(&"site"), "{names:?}");
        assert!(names.contains(&"site/deep/b.bin"), "{names:?}");
        let root = added.last().unwrap()["cid"].as_str().unwrap();
        peer.wait_state(root, "pinned", 3);
        refused(&peer.ctl(&["add", folder]), 1, "is a directory");
        refused(&peer.ctl(&["add", "/no/such/file"]), 1, "/no/such/file");
        let said = peer.ctl(&["add", "--rmin", "4", "--rmax", "4", file]);
        assert_ne!(said.code, 0, "four copies at three peers: {said:?}");
        for cid in [cid, root] {
            peer.ctl(&["pin", "rm", "--wait", cid]).ok();
        }
    }
}

#[test]
fn peers_versions_health_and_gc_are_reported() {
    let cluster = Cluster::start();
    let mut ids: Vec<&str> = cluster.peers.iter().map(|peer| peer.id.as_str()).collect();
    ids.sort_unstable();
    for peer in &cluster.peers {
        assert_identity(peer, &ids);
        assert_health(peer);
        wait_until("all three collect", || {
            let text = peer.ctl(&["ipfs", "gc"]).ok();
            match ["> CIDs:", "> Freed: "].map(|line| text.matches(line).count()) {
                [3, 3] => Ok(()),
                _ => Err(text),
            }
        });
        let local = peer.ctl(&["ipfs", "gc", "--local"]).ok();
        assert_eq!(local.matches("> CIDs:").count(), 1);
    }
}

/// Asserts that a peer reports its id, its version, and the peers with these ids.
fn assert_identity(peer: &Peer, ids: &[&str]) {
    let id = &peer.ctl_json(&["id"])[0];
    assert_eq!(
        (&id["id"], &id["peername"]),
        (&peer.id.clone().into(), &peer.name.clone().into())
    );
    let text = peer.ctl(&["id"]).ok();
    assert!(
        text.starts_with(&format!("{} | {} | Sees 2 other peers\n", peer.id, peer.name)),
        "{text}"
    );
    let peers = peer.ctl_json(&["peers", "ls"]);
    let mut found: Vec<&str> = peers.iter().map(|peer| peer["id"].as_str().unwrap()).collect();
    found.sort_unstable();
    assert_eq!(found, ids);
    wait_until("all three answer", || {
        let text = peer.ctl(&["peers", "ls"]).ok();
        match text.matches("Sees 2 other peers").count() {
            3 => Ok(()),
            _ => Err(text),
        }
    });
    assert_eq!(
        peer.ctl_json(&["version"])[0]["version"],
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(
        peer.ctl(&["version"]).ok(),
        format!("{}\n", env!("CARGO_PKG_VERSION"))
    );
}

/// Asserts that a peer has the metrics of three peers, and reports alerts, connections and traffic.
fn assert_health(peer: &Peer) {
    assert!(
        peer.ctl(&["health", "metrics"])
            .ok()
            .contains("freespace\nping\n")
    );
    // A peer that is delayed for two seconds has no valid metrics for a moment, and raises an alert.
    wait_until("all peers have metrics", || {
        let space = peer.ctl_json(&["health", "metrics", "freespace"]);
        let pings = peer.ctl(&["health", "metrics", "ping"]).ok();
        match (metrics_of(&space), pings.lines().count()) {
            (3, 3) => Ok(()),
            _ => Err(format!("{space:?} {pings}")),
        }
    });
    peer.ctl(&["health", "alerts"]).ok();
    assert!(
        peer.ctl(&["health", "graph"])
            .ok()
            .starts_with("digraph cluster {")
    );
    peer.ctl(&["health", "bandwidth"]).ok();
}

fn metrics_of(values: &[Value]) -> usize {
    values
        .iter()
        .map(|value| value.as_array().map_or(1, Vec::len))
        .sum()
}

#[test]
fn a_dead_peer_raises_an_alert() {
    let mut cluster = Cluster::start();
    cluster.peers[2].kill();
    let dead = &cluster.peers[2].id;
    wait_until("a live peer reports the dead one", || {
        let text = cluster.peers[0].ctl(&["health", "alerts"]).ok();
        if text.contains(&format!("{dead}: ping. Expired at: ")) {
            Ok(())
        } else {
            Err(text)
        }
    });
    let peers = cluster.peers[0].ctl(&["peers", "ls"]).ok();
    assert!(peers.contains(&format!("{dead} | ERROR: ")), "{peers}");
}

#[test]
fn exit_codes_match_the_go_tool() {
    let mut cluster = Cluster::start_with(&tests::Options {
        peers: 1,
        ..tests::Options::default()
    });
    let peer: &mut Peer = &mut cluster.peers[0];
    for (arguments, code) in [
        (&["version"][..], 0),
        (&["--help"], 0),
        (&["nonsense"], 3),
        (&["pin", "add"], 1),
        (&["pin", "add", "nonsense"], 1),
        (&["--enc=xml", "id"], 1),
        (&["pin", "rm", "bafkqabtimvwgy3yk"], 2),
        (
            &["pin", "add", "--rmin", "2", "--rmax", "2", "bafkqabtimvwgy3yk"],
            2,
        ),
    ] {
        let said = peer.ctl(arguments);
        assert_eq!(said.code, code, "{arguments:?}: {said:?}");
    }
    let waiting = peer.ctl(&["pin", "add", "--wait", "--wait-timeout", "1s", &cids::missing(3)]);
    assert_eq!(waiting.code, 62, "{waiting:?}");
    peer.kill();
    refused(&peer.ctl(&["id"]), 1, "refused");
}
