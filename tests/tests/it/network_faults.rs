//! Network faults between peers: no acknowledged write is lost, and a peer without a quorum refuses writes
//! with the reason.

use std::time::{Duration, Instant};

use tests::cids;
use tests::links::Links;
use tests::{Cluster, Options, Peer, wait_until};

/// Time limit for the refusal of a write that cannot succeed.
const REFUSED_WITHIN: Duration = Duration::from_secs(60);

fn started() -> (Cluster, Links) {
    let (mut cluster, links) = Links::prepare(&Options::default());
    cluster.peers.iter_mut().for_each(Peer::start);
    cluster.wait_ready();
    (cluster, links)
}

fn pin(peer: &Peer, cid: &str) -> Result<(), String> {
    peer.ask("POST", &format!("/pins/{cid}")).map(drop)
}

/// Asserts that all peers have the same pinset, with these pins.
fn agree(cluster: &Cluster, pinned: &[String]) {
    wait_until("all peers have the same pinset", || {
        let first = cluster.peers[0].pinset()?;
        if let Some(lost) = pinned.iter().find(|cid| !first.contains(cid)) {
            return Err(format!("{lost} is not in it"));
        }
        for peer in &cluster.peers[1..] {
            let other = peer.pinset()?;
            if other != first {
                return Err(format!(
                    "{} of {} against {}",
                    peer.name,
                    other.len(),
                    first.len()
                ));
            }
        }
        Ok(())
    });
}

#[test]
fn an_isolated_leader_serves_reads_only_and_the_others_elect_another() {
    let (cluster, links) = started();
    let before = cids::identity("before");
    pin(&cluster.peers[0], &before).unwrap();
    let leader = cluster.leader();
    let other = (leader + 1) % 3;
    agree(&cluster, std::slice::from_ref(&before));

    links.isolate(&[leader]);
    let during = cids::identity("during");
    wait_until("the others elect a leader and write", || {
        pin(&cluster.peers[other], &during)
    });
    // Requests before it noticed the loss of leadership may still take effect; later ones do not.
    wait_until("the isolated peer knows that it cannot write", || {
        let asked = Instant::now();
        let refused = pin(&cluster.peers[leader], &cids::identity("alone")).unwrap_err();
        assert!(
            asked.elapsed() < REFUSED_WITHIN,
            "{:?}: {refused}",
            asked.elapsed()
        );
        if refused.contains("no leader") {
            Ok(())
        } else {
            Err(refused)
        }
    });
    assert_eq!(
        cluster.peers[leader].pinset().unwrap(),
        std::slice::from_ref(&before)
    );

    links.heal();
    agree(&cluster, &[before, during]);
    wait_until("it writes again", || {
        pin(&cluster.peers[leader], &cids::identity("after"))
    });
    links.check();
}

#[test]
fn slow_links_with_resets_lose_no_acknowledged_pin() {
    let (cluster, links) = started();
    links.delay(Duration::from_millis(30));
    let mut acknowledged = Vec::new();
    for number in 0..30 {
        if number % 6 == 5 {
            links.reset();
        }
        let cid = cids::identity(&format!("slow {number}"));
        if pin(&cluster.peers[number % 3], &cid).is_ok() {
            acknowledged.push(cid);
        }
    }
    assert!(acknowledged.len() > 15, "{} of 30", acknowledged.len());
    links.heal();
    agree(&cluster, &acknowledged);
    links.check();
}

#[test]
fn a_peer_that_receives_but_cannot_send_does_not_stop_the_others() {
    let (cluster, links) = started();
    let leader = cluster.leader();
    links.mute(leader);
    let cid = cids::identity("mute");
    let other = (leader + 1) % 3;
    wait_until("the others write", || pin(&cluster.peers[other], &cid));
    links.heal();
    agree(&cluster, &[cid]);
    links.check();
}
