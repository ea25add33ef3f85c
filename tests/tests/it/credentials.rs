//! Credentials: created, used and revoked at different peers, over restarts.

use std::time::Instant;

use serde_json::json;
use tests::http::{self, Answer};
use tests::{Cluster, Peer, cids, run, service, wait_until};

use crate::observability::Stream;

/// Creates a credential with `ipfs-cluster-ctl`, and returns its token.
fn create(peer: &Peer, name: &str, scope: &str) -> String {
    let created = peer.ctl_json(&["auth", "create", name, "--scope", scope]);
    let created = &created[0];
    assert_eq!(created["credential"]["name"], name);
    assert_eq!(created["required"], false, "not before it is configured");
    created["token"].as_str().expect("a token").to_owned()
}

fn ask(peer: &Peer, token: &str, method: &str, target: &str) -> Answer {
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", bearer.as_str())];
    http::request(peer.rest_port, method, target, &headers, &[]).expect("an answer")
}

/// Waits until every peer answers a request with this token with this status.
fn wait_for(cluster: &Cluster, token: &str, status: u16) {
    for peer in &cluster.peers {
        wait_until(&format!("{} answers {status}", peer.name), || {
            let answer = ask(peer, token, "GET", "/id");
            if answer.status == status {
                Ok(())
            } else {
                Err(format!("{} {}", answer.status, answer.text()))
            }
        });
    }
}

/// Restarts all peers, one after the other.
fn restart(cluster: &mut Cluster, times_ready: usize) {
    for peer in &mut cluster.peers {
        assert!(peer.terminate().success());
        peer.start();
        peer.wait_ready(times_ready);
    }
}

#[test]
fn credential_holds_at_all_peers_until_it_is_revoked_at_one() {
    let mut cluster = Cluster::start();
    let reader = create(&cluster.peers[0], "reader", "read");
    let admin = create(&cluster.peers[1], "root", "admin");
    create(&cluster.peers[2], "tenant", "pin,own");
    let usage = cluster.peers[2].ctl_json(&["auth", "usage", "tenant"]);
    assert_eq!(usage, [json!({ "pins": 0 })]);
    for peer in &cluster.peers {
        peer.edit(|config| config["api"]["restapi"]["require_credentials"] = json!(true));
    }
    restart(&mut cluster, 2);
    wait_for(&cluster, &reader, 200);
    wait_for(&cluster, &admin, 200);
    for peer in &cluster.peers {
        assert_eq!(peer.rest("GET", "/id").expect("an answer").status, 401);
    }

    let target = format!("/pins/{}", cids::identity("with a token"));
    let refused = ask(&cluster.peers[1], &reader, "POST", &target);
    assert_eq!(refused.status, 403, "{}", refused.text());
    assert!(
        refused.text().contains("lacks the scope \\\"pin\\\""),
        "{}",
        refused.text()
    );
    let pinned = ask(&cluster.peers[1], &admin, "POST", &target);
    assert_eq!(pinned.status, 200, "{}", pinned.text());

    let listed = cluster.peers[2]
        .ctl(&["-f", "--auth-token", &admin, "auth", "ls"])
        .ok();
    assert!(
        listed.contains("reader | ") && listed.contains(" | admin | "),
        "{listed}"
    );
    cluster.peers[2]
        .ctl(&["-f", "--auth-token", &admin, "auth", "revoke", "reader"])
        .ok();
    let since = Instant::now();
    wait_for(&cluster, &reader, 401);
    println!("refused by all peers after {:?}", since.elapsed());
    wait_for(&cluster, &admin, 200);

    restart(&mut cluster, 3);
    wait_for(&cluster, &admin, 200);
    wait_for(&cluster, &reader, 401);
    no_secret_leaves(&mut cluster, &[&reader, &admin]);
}

/// Asserts that neither logs nor an export contain a secret, or a hash of one.
fn no_secret_leaves(cluster: &mut Cluster, tokens: &[&str]) {
    let peer = &mut cluster.peers[0];
    assert!(peer.terminate().success());
    let exported = run(service(&peer.folder).args(["state", "export"])).ok();
    assert!(
        exported.contains("with a token") || exported.contains("cid"),
        "{exported}"
    );
    for token in tokens {
        let (head, secret) = token.rsplit_once('_').expect("a token");
        let id = head.trim_start_matches("icc_");
        for text in [&exported, &peer.log()] {
            assert!(!text.contains(secret), "{text}");
        }
        assert!(!exported.contains(id), "{exported}");
    }
    assert!(
        !exported.contains("reader") && !exported.contains("\"hash\""),
        "{exported}"
    );
}

/// Returns the CIDs that a token's owner sees in the pinset of a peer.
fn pinned_by(peer: &Peer, token: &str) -> Vec<String> {
    let answer = ask(peer, token, "GET", "/allocations");
    assert!([200, 204].contains(&answer.status), "{}", answer.text());
    let pins = answer.values();
    let cids = pins
        .iter()
        .map(|pin| pin["cid"].as_str().expect("a CID").to_owned());
    cids.collect()
}

fn wait_for_pins(cluster: &Cluster, token: &str, expected: &[&String]) {
    for peer in &cluster.peers {
        wait_until(&format!("{} shows {expected:?}", peer.name), || {
            let mut found = pinned_by(peer, token);
            found.sort();
            let mut expected: Vec<String> = expected.iter().map(|cid| (*cid).clone()).collect();
            expected.sort();
            if found == expected {
                Ok(())
            } else {
                Err(format!("{found:?}"))
            }
        });
    }
}

#[test]
fn owners_share_a_pin_at_all_peers_until_both_let_go() {
    let mut cluster = Cluster::start();
    let ann = create(&cluster.peers[0], "ann", "read,pin,add,own");
    let bob = create(&cluster.peers[1], "bob", "read,pin,add,own");
    wait_for(&cluster, &ann, 200);
    wait_for(&cluster, &bob, 200);
    let (shared, own) = (cids::identity("of both"), cids::identity("of bob"));
    let bearer = format!("Authorization: Bearer {ann}");
    let mut events = Stream::open_with(&cluster.peers[0], "/events", &bearer);
    // Both at once, at different peers.
    std::thread::scope(|scope| {
        for (at, token) in [(1, &ann), (2, &bob)] {
            let (peer, target) = (&cluster.peers[at], format!("/pins/{shared}?name=at-{at}"));
            scope.spawn(move || {
                let pinned = ask(peer, token, "POST", &target);
                assert_eq!(pinned.status, 200, "{}", pinned.text());
            });
        }
    });
    let pinned = ask(&cluster.peers[0], &bob, "POST", &format!("/pins/{own}"));
    assert_eq!(pinned.status, 200, "{}", pinned.text());
    wait_for_pins(&cluster, &ann, &[&shared]);
    wait_for_pins(&cluster, &bob, &[&shared, &own]);
    for (token, name) in [(&ann, "at-1"), (&bob, "at-2")] {
        let shown = ask(&cluster.peers[0], token, "GET", &format!("/allocations/{shared}"));
        assert_eq!(shown.json()["name"], name);
    }

    let target = format!("/pins/{shared}");
    let refused = ask(&cluster.peers[0], &ann, "DELETE", &format!("/pins/{own}"));
    assert_eq!(refused.status, 404, "{}", refused.text());
    let left = ask(&cluster.peers[0], &bob, "DELETE", &target);
    assert_eq!(left.status, 200, "{}", left.text());
    wait_for_pins(&cluster, &bob, &[&own]);
    wait_for_pins(&cluster, &ann, &[&shared]);
    let of_ann = cids::identity("of ann");
    let pinned = ask(&cluster.peers[2], &ann, "POST", &format!("/pins/{of_ann}"));
    assert_eq!(pinned.status, 200, "{}", pinned.text());
    let seen = events.lines_to(&of_ann);
    let has = |text: &str| seen.iter().any(|line| line.contains(text));
    assert!(has(&of_ann) && has(&shared), "{seen:?}");
    assert!(!has(&own) && !has("at-2"), "{seen:?}");
    let removed = ask(&cluster.peers[0], &ann, "DELETE", &format!("/pins/{of_ann}"));
    assert_eq!(removed.status, 200, "{}", removed.text());
    assert!(!events.lines_to("pin_removed").is_empty());

    let status = ask(&cluster.peers[1], &ann, "GET", &target).json();
    let statuses = status["peer_map"].as_object().expect("peers").values();
    assert!(
        statuses.clone().all(|peer| peer["status"] == "pinned"),
        "{status}"
    );

    // Owners survive restarts.
    restart(&mut cluster, 2);
    wait_for_pins(&cluster, &ann, &[&shared]);
    let last = ask(&cluster.peers[2], &ann, "DELETE", &target);
    assert_eq!(last.status, 200, "{}", last.text());
    wait_for_pins(&cluster, &ann, &[]);
    let all = cluster.peers[0].ctl(&["pin", "ls"]).ok();
    assert!(!all.contains(&shared) && all.contains(&own), "{all}");
}
