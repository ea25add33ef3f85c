//! Rolling upgrades: one peer after the other, while the cluster works.

use std::fs;
use std::time::{Duration, Instant};

use tests::{Cluster, Peer, Release, cids, wait_until};

const AGREED: &str = "all members speak version 3 of the protocol";

fn pin(peer: &Peer, text: &str) {
    let cid = cids::identity(text);
    wait_until("it pins", || peer.ask("POST", &format!("/pins/{cid}")));
}

/// Waits until all running peers have the same pins, of this number.
fn wait_pins(cluster: &Cluster, count: usize) {
    for peer in cluster.peers.iter().filter(|peer| peer.is_started()) {
        wait_until("all have all pins", || match peer.pinset()?.len() {
            found if found == count => Ok(()),
            found => Err(format!("{} has {found} of {count}", peer.name)),
        });
    }
}

fn has_agreed(peer: &Peer) -> bool {
    peer.log().contains(AGREED)
}

#[test]
#[cfg_attr(
    not(debug_assertions),
    ignore = "only debug builds can pretend to be the next release"
)]
fn peers_of_two_releases_work_together_until_all_are_upgraded() {
    let mut cluster = Cluster::start();
    pin(&cluster.peers[0], "before the upgrade");
    let mut count = 1;
    for at in 0..3 {
        assert!(!cluster.peers.iter().any(has_agreed), "not before all can");
        assert!(cluster.peers[at].terminate().success());
        cluster.peers[at].install(Release::Next);
        cluster.peers[at].start_and_wait();
        cluster.wait_ready();
        for (number, peer) in cluster.peers.iter().enumerate() {
            pin(peer, &format!("step {at}, through {number}"));
            count += 1;
        }
        wait_pins(&cluster, count);
        cluster.peers.iter_mut().for_each(Peer::check);
    }
    for peer in &cluster.peers {
        let agreed = || has_agreed(peer).then_some(()).ok_or_else(|| peer.name.clone());
        wait_until("the cluster raises its version", agreed);
    }
    // The leader now writes records that only the new release reads; the pins are unchanged.
    std::thread::sleep(Duration::from_secs(3));
    pin(&cluster.peers[2], "after the upgrade");
    wait_pins(&cluster, count + 1);
    the_old_release_is_refused(&mut cluster);
}

/// Asserts that the old release refuses the new release's data, and is refused by the cluster without data.
fn the_old_release_is_refused(cluster: &mut Cluster) {
    let peer = &mut cluster.peers[2];
    assert!(peer.terminate().success());
    peer.install(Release::This);
    peer.start();
    assert_eq!(peer.wait_end().code(), Some(1));
    let reason = "was written by a later release (format 3, this one knows 2): start that release";
    assert!(peer.log().contains(reason), "{}", peer.log());

    fs::rename(peer.folder.join("raft"), peer.folder.join("raft.kept")).unwrap();
    peer.start();
    let since = Instant::now();
    let refused = "it speaks version 2 of the protocol, and the cluster has gone on to version 3";
    wait_until("the others refuse it by name", || {
        let logged = cluster.peers.iter().any(|peer| peer.log().contains(refused));
        logged
            .then_some(())
            .ok_or_else(|| format!("after {:?}", since.elapsed()))
    });
    let peer = &mut cluster.peers[2];
    peer.kill();
    // The new release continues.
    fs::remove_dir_all(peer.folder.join("raft")).ok();
    fs::rename(peer.folder.join("raft.kept"), peer.folder.join("raft")).unwrap();
    peer.install(Release::Next);
    peer.start_and_wait();
    cluster.wait_ready();
    pin(&cluster.peers[2], "back again");
}
