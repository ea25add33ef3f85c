//! Static membership: without a majority only reads work; `state rescue` when it does not come back.

use tests::{Cluster, Options, cids, run, service, wait_until};

#[test]
fn reads_work_and_writes_fail_in_time_without_a_majority() {
    let mut cluster = Cluster::start();
    let cid = cids::identity("before");
    cluster.peers[0].ask("POST", &format!("/pins/{cid}")).unwrap();
    cluster.peers[0].wait_state(&cid, "pinned", 3);
    cluster.peers[1].kill();
    cluster.peers[2].kill();
    let peer = &cluster.peers[0];
    let written = peer.ask("POST", &format!("/pins/{}", cids::identity("after")));
    let why = written.unwrap_err();
    assert!(why.contains("503"), "{why}");
    assert_eq!(peer.pinset().unwrap(), std::slice::from_ref(&cid));
    wait_until("the peer knows that there is no leader", || {
        let removed = peer.ask("DELETE", &format!("/peers/{}", cluster.peers[1].id));
        match removed {
            Err(why) if why.contains("no leader") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    assert_eq!(peer.count(&cid, "pinned").unwrap(), 1);
}

#[test]
fn rescue_replaces_a_lost_majority_after_confirmation() {
    let mut cluster = Cluster::start_with(&Options {
        peers: 5,
        ..Options::default()
    });
    let ids: Vec<String> = cluster.peers.iter().map(|peer| peer.id.clone()).collect();
    let both = format!("{},{}", ids[3], ids[4]);
    let query = format!("replication-min=2&replication-max=2&user-allocations={both}");
    let everywhere = cids::identity("everywhere");
    let lost = cids::identity("at lost peers only");
    cluster.peers[0]
        .ask("POST", &format!("/pins/{everywhere}"))
        .unwrap();
    cluster.peers[0]
        .ask("POST", &format!("/pins/{lost}?{query}"))
        .unwrap();
    cluster.peers[1].wait_state(&everywhere, "pinned", 5);
    for number in [2, 3, 4] {
        cluster.peers[number].kill();
    }
    for number in [0, 1] {
        cluster.peers[number].terminate();
    }
    // It shows its plan, and does nothing without confirmation.
    let folder = cluster.peers[0].folder.clone();
    let rescue = ["state", "rescue", "--survivors", &ids[1]];
    let said = run(service(&folder).args(rescue));
    assert_ne!(said.code, 0, "no confirmation: {said:?}");
    assert!(
        said.err
            .contains(&format!("{} joins it, with this peer's state", ids[1])),
        "{said:?}"
    );
    for gone in &ids[2..] {
        assert!(said.err.contains(&format!("{gone} is given up")), "{said:?}");
    }
    run(service(&folder).args(rescue).arg("--yes")).ok();
    cluster.peers[0].start();
    cluster.peers[0].wait_ready(2);
    run(service(&cluster.peers[1].folder).args(["state", "cleanup", "-f"])).ok();
    cluster.peers[1].start();
    cluster.peers[1].wait_ready(2);
    cluster.peers[1].wait_members(2);
    assert_eq!(cluster.peers[1].pinset().unwrap().len(), 2);
    let after = cids::identity("after");
    cluster.peers[1].ask("POST", &format!("/pins/{after}")).unwrap();
    cluster.peers[0].wait_state(&after, "pinned", 2);
    // Pins of lost peers are allocated to the survivors.
    cluster.peers[0].wait_state(&lost, "pinned", 2);
    // A lost peer that returns belongs to another cluster, and is refused.
    cluster.peers[2].start();
    cluster.peers[2].wait_log("it belongs to cluster");
    assert_eq!(cluster.peers[0].pinset().unwrap().len(), 3);
}
