//! Peers that are added, removed, or lose their data.

use super::*;

impl TestCluster {
    fn members(&self, at: u8) -> &Members {
        self.nodes[&peer(at)].0.view().members()
    }

    fn membership(&self, at: u8) -> Membership {
        self.nodes[&peer(at)].0.view().membership()
    }

    fn add(&mut self, at: u8, number: u8) -> Ticket {
        self.request(at, Request::AddPeer { peer: peer(number) })
    }

    fn remove(&mut self, at: u8, number: u8) -> Ticket {
        self.request(at, Request::RemovePeer { peer: peer(number) })
    }

    fn pin(&mut self, at: u8, number: u8, replicas: Replicas) -> Ticket {
        let options = options(replicas);
        self.request(
            at,
            Request::Pin {
                cid: cid(number),
                options,
                owner: None,
            },
        )
    }

    /// Pins a CID everywhere, and checks that each of `members` pins it.
    fn still_works(&mut self, at: u8, number: u8, members: &[u8]) {
        let ticket = self.pin(at, number, Replicas::Everywhere);
        self.run(2 * SECOND);
        assert!(self.replies[&ticket].is_ok(), "{:?}", self.replies[&ticket]);
        for member in members {
            let local = self.nodes[&peer(*member)].1.locals.get(&cid(number));
            assert!(
                local.is_some_and(|local| local.phase == Phase::Pinned),
                "at {member}: {local:?}"
            );
        }
    }

    fn voters(&self, at: u8) -> usize {
        let members = self.members(at);
        assert!(
            members.outgoing.is_empty(),
            "no joint change is in progress: {members:?}"
        );
        members.voters.len()
    }
}

fn follower(cluster: &TestCluster, size: u8) -> u8 {
    let leader = leader(cluster);
    let follows = |number: &u8| *number != leader && !cluster.down.contains(&peer(*number));
    (1..=size).find(follows).expect("there is a follower")
}

#[test]
fn wiped_follower_is_restored() {
    let mut cluster = TestCluster::new(3);
    cluster.run(5 * SECOND);
    for number in 0..30 {
        cluster.pin(1, number, TWO);
    }
    cluster.run(2 * SECOND);
    let wiped = follower(&cluster, 3);
    cluster.wipe(wiped, 3);
    assert_eq!(cluster.nodes[&peer(wiped)].1.pins.len(), 0);
    cluster.run(15 * SECOND);
    assert_eq!(cluster.nodes[&peer(wiped)].1.pins.len(), 30);
    assert_eq!(cluster.members(1).raft_id(&peer(wiped)), Some(RaftId(4)));
    assert_eq!(cluster.members(1).peers.len(), 3);
    assert_eq!(cluster.voters(leader(&cluster)), 3);
    assert_eq!(cluster.membership(wiped), Membership::Voter);
    cluster.still_works(wiped, 200, &[1, 2, 3]);
}

#[test]
fn wiped_leader_comes_back_as_a_follower() {
    let mut cluster = TestCluster::new(3);
    cluster.run(5 * SECOND);
    let wiped = leader(&cluster);
    cluster.pin(wiped, 1, Replicas::Everywhere);
    cluster.run(SECOND);
    cluster.wipe(wiped, 3);
    cluster.run(20 * SECOND);
    assert_eq!(cluster.membership(wiped), Membership::Voter);
    cluster.still_works(wiped, 2, &[1, 2, 3]);
    assert_eq!(phases(&cluster, &cid(1)), [Some(Phase::Pinned); 3]);
}

#[test]
fn wiped_peer_that_crashes_repeatedly_comes_back() {
    let mut cluster = TestCluster::new(3);
    cluster.run(5 * SECOND);
    cluster.pin(1, 1, Replicas::Everywhere);
    cluster.run(SECOND);
    let wiped = follower(&cluster, 3);
    cluster.wipe(wiped, 3);
    for round in 0..40 {
        cluster.run(Duration::from_millis(10 + 37 * round % 400));
        cluster.restart(wiped);
    }
    cluster.run(10 * SECOND);
    assert_eq!(cluster.membership(wiped), Membership::Voter);
    assert_eq!(cluster.members(wiped), cluster.members(leader(&cluster)));
    cluster.still_works(wiped, 2, &[1, 2, 3]);
}

#[test]
fn new_peer_is_added_and_gets_all_pins() {
    let mut cluster = TestCluster::new(1);
    cluster.run(5 * SECOND);
    cluster.still_works(1, 1, &[1]);
    cluster.join(2);
    cluster.run(3 * SECOND);
    assert_eq!(cluster.membership(2), Membership::Joining);
    let early = cluster.request(2, Request::Barrier);
    let ticket = cluster.add(1, 2);
    cluster.run(10 * SECOND);
    assert_eq!(cluster.replies[&early], Err(Refusal::NotMember));
    assert_eq!(cluster.replies[&ticket], Ok(Reply::PeerAdded));
    assert_eq!(
        cluster.membership(2),
        Membership::Learner,
        "two voters tolerate no more failures than one"
    );
    assert_eq!(phases(&cluster, &cid(1)), [Some(Phase::Pinned); 2]);
    cluster.join(3);
    cluster.add(2, 3);
    cluster.run(15 * SECOND);
    assert_eq!(cluster.voters(1), 3);
    cluster.still_works(3, 2, &[1, 2, 3]);
}

#[test]
fn several_new_peers_are_added_through_one_follower() {
    let mut cluster = TestCluster::new(3);
    cluster.run(5 * SECOND);
    cluster.still_works(1, 1, &[1, 2, 3]);
    let through = follower(&cluster, 3);
    let tickets: Vec<Ticket> = (4..=9)
        .map(|number| {
            cluster.join(number);
            cluster.add(through, number)
        })
        .collect();
    cluster.run(30 * SECOND);
    for ticket in tickets {
        assert_eq!(cluster.replies[&ticket], Ok(Reply::PeerAdded));
    }
    assert_eq!(cluster.voters(1), 7, "of nine");
    assert_eq!(phases(&cluster, &cid(1)), [Some(Phase::Pinned); 9]);
    cluster.still_works(9, 2, &[1, 2, 3, 4, 5, 6, 7, 8, 9]);
}

#[test]
fn new_peer_that_crashes_repeatedly_is_added() {
    let mut cluster = TestCluster::new(3);
    cluster.run(5 * SECOND);
    cluster.still_works(1, 1, &[1, 2, 3]);
    cluster.join(4);
    cluster.add(1, 4);
    for round in 0..40 {
        cluster.run(Duration::from_millis(10 + 37 * round % 400));
        cluster.restart(4);
    }
    cluster.run(10 * SECOND);
    assert_eq!(cluster.membership(4), Membership::Learner);
    assert_eq!(cluster.nodes[&peer(4)].1.pins.len(), 1);
}

#[test]
fn wiped_new_peer_is_restored() {
    let mut cluster = TestCluster::new(3);
    cluster.run(5 * SECOND);
    cluster.join(4);
    cluster.add(1, 4);
    cluster.run(10 * SECOND);
    cluster.still_works(4, 1, &[1, 2, 3, 4]);
    cluster.join(4);
    // The members learn of it from its first messages.
    cluster.run(15 * SECOND);
    assert_eq!(cluster.membership(4), Membership::Learner);
    cluster.still_works(4, 2, &[1, 2, 3, 4]);
    assert_eq!(cluster.nodes[&peer(4)].1.pins.len(), 2);
}

#[test]
fn members_are_removed_down_to_one() {
    let mut cluster = TestCluster::new(3);
    cluster.run(5 * SECOND);
    cluster.pin(1, 1, Replicas::Everywhere);
    cluster.run(SECOND);
    let (asked, kept) = (follower(&cluster, 3), leader(&cluster));
    let itself = cluster.remove(asked, asked);
    cluster.run(5 * SECOND);
    assert_eq!(cluster.replies[&itself], Ok(Reply::PeerRemoved));
    assert_eq!(cluster.membership(asked), Membership::Removed);
    let refused = cluster.pin(asked, 2, Replicas::Everywhere);
    cluster.run(20 * SECOND);
    assert_eq!(cluster.replies[&refused], Err(Refusal::NotMember));
    let other = (1..=3).find(|id| ![asked, kept].contains(id)).expect("three");
    let last_but_one = cluster.remove(other, kept);
    cluster.run(10 * SECOND);
    assert_eq!(
        cluster.replies[&last_but_one],
        Ok(Reply::PeerRemoved),
        "it was the leader"
    );
    assert_eq!(cluster.membership(kept), Membership::Removed);
    let last = cluster.remove(other, other);
    cluster.run(5 * SECOND);
    assert!(
        matches!(cluster.replies[&last], Err(Refusal::Conflict(_))),
        "{:?}",
        cluster.replies[&last]
    );
    cluster.still_works(other, 3, &[other]);
    cluster.restart(kept);
    cluster.run(5 * SECOND);
    assert_eq!(
        cluster.membership(kept),
        Membership::Removed,
        "the removal is durable"
    );
}

#[test]
fn sole_voter_promotes_a_learner_before_its_removal() {
    let mut cluster = TestCluster::new(1);
    cluster.run(5 * SECOND);
    cluster.join(2);
    cluster.add(1, 2);
    cluster.run(10 * SECOND);
    let ticket = cluster.remove(1, 1);
    cluster.run(10 * SECOND);
    assert_eq!(cluster.replies[&ticket], Ok(Reply::PeerRemoved));
    assert_eq!(cluster.membership(1), Membership::Removed);
    assert_eq!(cluster.membership(2), Membership::Voter);
    cluster.still_works(2, 1, &[2]);
}

#[test]
fn dead_peer_is_removed_and_its_pins_are_reallocated() {
    let mut cluster = TestCluster::new(4);
    cluster.run(10 * SECOND);
    for number in 0..30 {
        cluster.pin(1, number, TWO);
    }
    cluster.run(2 * SECOND);
    let dead = follower(&cluster, 4);
    cluster.down.insert(peer(dead));
    cluster.run(SECOND);
    let ticket = cluster.remove(leader(&cluster), dead);
    cluster.run(10 * SECOND);
    assert_eq!(cluster.replies[&ticket], Ok(Reply::PeerRemoved));
    let pins = &cluster.nodes[&peer(leader(&cluster))].1.pins;
    assert!(pins.values().all(|pin| !pin.is_allocated_to(&peer(dead))));
    assert_eq!(cluster.voters(leader(&cluster)), 3);
    // Once it is back, it is notified.
    cluster.down.remove(&peer(dead));
    cluster.run(20 * SECOND);
    assert_eq!(cluster.membership(dead), Membership::Removed);
}

#[test]
fn removal_demotes_dead_voters_without_a_live_majority() {
    let mut cluster = TestCluster::new(3);
    cluster.run(5 * SECOND);
    let led = leader(&cluster);
    let alive = follower(&cluster, 3);
    let dead = (1..=3).find(|id| ![led, alive].contains(id)).expect("three");
    cluster.down.insert(peer(dead));
    cluster.run(10 * SECOND);
    let ticket = cluster.remove(led, alive);
    cluster.run(10 * SECOND);
    assert_eq!(cluster.replies[&ticket], Ok(Reply::PeerRemoved));
    cluster.still_works(led, 1, &[led]);
    assert_eq!(cluster.voters(led), 1);
}

#[test]
fn removed_peer_can_be_added_again_with_its_data() {
    let mut cluster = TestCluster::new(3);
    cluster.run(5 * SECOND);
    let back = follower(&cluster, 3);
    cluster.remove(back, back);
    cluster.run(10 * SECOND);
    assert_eq!(cluster.membership(back), Membership::Removed);
    let at = leader(&cluster);
    cluster.still_works(at, 1, &[at]);
    let ticket = cluster.add(at, back);
    cluster.run(15 * SECOND);
    assert_eq!(cluster.replies[&ticket], Ok(Reply::PeerAdded));
    assert_eq!(cluster.membership(back), Membership::Voter);
    cluster.still_works(back, 2, &[1, 2, 3]);
}

#[test]
fn long_silent_voter_is_replaced_by_a_learner() {
    let mut cluster = TestCluster::new(4);
    cluster.run(15 * SECOND);
    assert_eq!(cluster.voters(1), 3, "odd");
    let learner = (1..=4).find(|id| cluster.membership(*id) == Membership::Learner);
    let learner = learner.expect("one of four has no vote");
    let gone = (1..=4).find(|id| ![learner, leader(&cluster)].contains(id));
    let gone = gone.expect("there are others");
    cluster.down.insert(peer(gone));
    cluster.run(50 * SECOND);
    assert_eq!(
        cluster.membership(learner),
        Membership::Learner,
        "it may come back"
    );
    cluster.run(30 * SECOND);
    assert_eq!(cluster.membership(learner), Membership::Voter);
    assert_eq!(cluster.voters(leader(&cluster)), 3);
    cluster.down.remove(&peer(gone));
    cluster.run(20 * SECOND);
    assert_eq!(cluster.membership(gone), Membership::Learner);
}

#[test]
fn two_of_five_voters_are_demoted_when_dead() {
    let mut cluster = TestCluster::new(5);
    cluster.run(10 * SECOND);
    let led = leader(&cluster);
    let dead: Vec<u8> = (1..=5).filter(|id| *id != led).take(2).collect();
    cluster.down.extend(dead.iter().map(|id| peer(*id)));
    cluster.run(80 * SECOND);
    assert_eq!(cluster.voters(led), 3);
    cluster.down.clear();
    cluster.run(20 * SECOND);
    assert_eq!(cluster.voters(led), 5);
}

#[test]
fn membership_requests_survive_the_leader() {
    let mut cluster = TestCluster::new(5);
    cluster.run(10 * SECOND);
    let led = leader(&cluster);
    let gone = follower(&cluster, 5);
    cluster.remove(led, gone);
    // Committed, but not carried out yet.
    cluster.run(Duration::from_millis(60));
    cluster.down.insert(peer(led));
    cluster.run(20 * SECOND);
    assert!(cluster.members(leader(&cluster)).raft_id(&peer(gone)).is_none());
}

/// Applies one random fault or membership request.
#[allow(
    clippy::disallowed_macros,
    reason = "tells what led to a failure; the simulator's copy of these sources has other bans"
)]
fn upset(cluster: &mut TestCluster, seed: u64, round: u64) {
    let draw = |what: u64, of: u64| crate::rng::mix(seed ^ crate::rng::mix(round * 8 + what)) % of;
    let who = u8::try_from(1 + draw(0, 6)).expect("few");
    let at = leader(cluster);
    let is_member = cluster.members(at).raft_id(&peer(who)).is_some();
    let pause = Duration::from_millis(draw(1, 3000));
    // At most one member may lose its data at a time, and none while there are two voters.
    let well = |member: &Member| {
        let view = cluster.nodes[&member.peer].0.view();
        matches!(view.membership(), Membership::Learner | Membership::Voter)
    };
    let members = cluster.members(at);
    let spare = members.voters.len() > 2 && members.peers.values().all(well);
    let what = draw(2, 5);
    eprintln!("seed {seed} round {round}: {what} to {who}, leader {at}, member {is_member}, spare {spare}");
    match what {
        0 if is_member && spare => {
            cluster.join(who);
            cluster.run(pause);
            cluster.restart(who);
        }
        1 if is_member => {
            cluster.remove(at, who);
            cluster.run(pause);
        }
        2 if !is_member => {
            if draw(3, 2) == 0 {
                cluster.join(who);
            }
            cluster.add(at, who);
            cluster.run(pause);
            cluster.restart(who);
        }
        3 => {
            cluster.down.insert(peer(who));
            cluster.run(pause * 4);
            cluster.down.clear();
        }
        _ => cluster.restart(who),
    }
}

fn await_leader(cluster: &mut TestCluster) {
    let leads = |cluster: &TestCluster| cluster.nodes.values().any(|(node, _)| node.view().is_leader());
    for _ in 0..30 {
        if leads(cluster) {
            return;
        }
        cluster.run(SECOND);
    }
    panic!("no leader after 30 s");
}

#[test]
fn random_membership_faults_end_in_agreement() {
    for seed in 0..40 {
        let mut cluster = TestCluster::new(3);
        (4..=6).for_each(|number| cluster.join(number));
        cluster.run(5 * SECOND);
        for round in 0..12 {
            upset(&mut cluster, seed, round);
            let pause = crate::rng::mix(seed ^ crate::rng::mix(round * 8 + 7)) % 8000;
            cluster.run(Duration::from_millis(pause));
            await_leader(&mut cluster);
            let number = u8::try_from(round).expect("few");
            let at = leader(&cluster);
            cluster.pin(at, number, Replicas::Everywhere);
            cluster.run(2 * SECOND);
        }
        cluster.run(30 * SECOND);
        let at = leader(&cluster);
        let members = cluster.members(at).clone();
        let voters = members.voters.len();
        assert!(
            members.outgoing.is_empty() && members.leaving.is_empty(),
            "{members:?}"
        );
        assert!(
            voters % 2 == 1 || members.peers.len() == 2,
            "seed {seed}: {members:?}"
        );
        for (id, (node, disk)) in &cluster.nodes {
            let view = node.view();
            let is_member = members.raft_id(id).is_some();
            let says_so = matches!(view.membership(), Membership::Learner | Membership::Voter);
            assert_eq!(says_so, is_member, "seed {seed}: {id} is {:?}", view.membership());
            if is_member {
                assert_eq!(*view.members(), members, "seed {seed}: {id}");
                assert_eq!(disk.pins, cluster.nodes[&peer(at)].1.pins, "seed {seed}: {id}");
            }
        }
    }
}
