//! Peers that are added, removed, or lose their data.

use super::*;

impl Table {
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

fn follower(table: &Table, size: u8) -> u8 {
    let leader = leader(table);
    let follows = |number: &u8| *number != leader && !table.down.contains(&peer(*number));
    (1..=size).find(follows).expect("there is a follower")
}

#[test]
fn wiped_follower_is_restored() {
    let mut table = Table::new(3);
    table.run(5 * SECOND);
    for number in 0..30 {
        table.pin(1, number, TWO);
    }
    table.run(2 * SECOND);
    let wiped = follower(&table, 3);
    table.wipe(wiped, 3);
    assert_eq!(table.nodes[&peer(wiped)].1.pins.len(), 0);
    table.run(15 * SECOND);
    assert_eq!(table.nodes[&peer(wiped)].1.pins.len(), 30);
    assert_eq!(table.members(1).raft_id(&peer(wiped)), Some(RaftId(4)));
    assert_eq!(table.members(1).peers.len(), 3);
    assert_eq!(table.voters(leader(&table)), 3);
    assert_eq!(table.membership(wiped), Membership::Voter);
    table.still_works(wiped, 200, &[1, 2, 3]);
}

#[test]
fn wiped_leader_comes_back_as_a_follower() {
    let mut table = Table::new(3);
    table.run(5 * SECOND);
    let wiped = leader(&table);
    table.pin(wiped, 1, Replicas::Everywhere);
    table.run(SECOND);
    table.wipe(wiped, 3);
    table.run(20 * SECOND);
    assert_eq!(table.membership(wiped), Membership::Voter);
    table.still_works(wiped, 2, &[1, 2, 3]);
    assert_eq!(phases(&table, &cid(1)), [Some(Phase::Pinned); 3]);
}

#[test]
fn wiped_peer_that_crashes_repeatedly_comes_back() {
    let mut table = Table::new(3);
    table.run(5 * SECOND);
    table.pin(1, 1, Replicas::Everywhere);
    table.run(SECOND);
    let wiped = follower(&table, 3);
    table.wipe(wiped, 3);
    for round in 0..40 {
        table.run(Duration::from_millis(10 + 37 * round % 400));
        table.restart(wiped);
    }
    table.run(10 * SECOND);
    assert_eq!(table.membership(wiped), Membership::Voter);
    assert_eq!(table.members(wiped), table.members(leader(&table)));
    table.still_works(wiped, 2, &[1, 2, 3]);
}

#[test]
fn new_peer_is_added_and_gets_all_pins() {
    let mut table = Table::new(1);
    table.run(5 * SECOND);
    table.still_works(1, 1, &[1]);
    table.join(2);
    table.run(3 * SECOND);
    assert_eq!(table.membership(2), Membership::Joining);
    let early = table.request(2, Request::Barrier);
    let ticket = table.add(1, 2);
    table.run(10 * SECOND);
    assert_eq!(table.replies[&early], Err(Refusal::NotMember));
    assert_eq!(table.replies[&ticket], Ok(Reply::PeerAdded));
    assert_eq!(
        table.membership(2),
        Membership::Learner,
        "two voters tolerate no more failures than one"
    );
    assert_eq!(phases(&table, &cid(1)), [Some(Phase::Pinned); 2]);
    table.join(3);
    table.add(2, 3);
    table.run(15 * SECOND);
    assert_eq!(table.voters(1), 3);
    table.still_works(3, 2, &[1, 2, 3]);
}

#[test]
fn several_new_peers_are_added_through_one_follower() {
    let mut table = Table::new(3);
    table.run(5 * SECOND);
    table.still_works(1, 1, &[1, 2, 3]);
    let through = follower(&table, 3);
    let tickets: Vec<Ticket> = (4..=9)
        .map(|number| {
            table.join(number);
            table.add(through, number)
        })
        .collect();
    table.run(30 * SECOND);
    for ticket in tickets {
        assert_eq!(table.replies[&ticket], Ok(Reply::PeerAdded));
    }
    assert_eq!(table.voters(1), 7, "of nine");
    assert_eq!(phases(&table, &cid(1)), [Some(Phase::Pinned); 9]);
    table.still_works(9, 2, &[1, 2, 3, 4, 5, 6, 7, 8, 9]);
}

#[test]
fn new_peer_that_crashes_repeatedly_is_added() {
    let mut table = Table::new(3);
    table.run(5 * SECOND);
    table.still_works(1, 1, &[1, 2, 3]);
    table.join(4);
    table.add(1, 4);
    for round in 0..40 {
        table.run(Duration::from_millis(10 + 37 * round % 400));
        table.restart(4);
    }
    table.run(10 * SECOND);
    assert_eq!(table.membership(4), Membership::Learner);
    assert_eq!(table.nodes[&peer(4)].1.pins.len(), 1);
}

#[test]
fn wiped_new_peer_is_restored() {
    let mut table = Table::new(3);
    table.run(5 * SECOND);
    table.join(4);
    table.add(1, 4);
    table.run(10 * SECOND);
    table.still_works(4, 1, &[1, 2, 3, 4]);
    table.join(4);
    // The members learn of it from its first messages.
    table.run(15 * SECOND);
    assert_eq!(table.membership(4), Membership::Learner);
    table.still_works(4, 2, &[1, 2, 3, 4]);
    assert_eq!(table.nodes[&peer(4)].1.pins.len(), 2);
}

#[test]
fn members_are_removed_down_to_one() {
    let mut table = Table::new(3);
    table.run(5 * SECOND);
    table.pin(1, 1, Replicas::Everywhere);
    table.run(SECOND);
    let (asked, kept) = (follower(&table, 3), leader(&table));
    let itself = table.remove(asked, asked);
    table.run(5 * SECOND);
    assert_eq!(table.replies[&itself], Ok(Reply::PeerRemoved));
    assert_eq!(table.membership(asked), Membership::Removed);
    let refused = table.pin(asked, 2, Replicas::Everywhere);
    table.run(20 * SECOND);
    assert_eq!(table.replies[&refused], Err(Refusal::NotMember));
    let other = (1..=3).find(|id| ![asked, kept].contains(id)).expect("three");
    let last_but_one = table.remove(other, kept);
    table.run(10 * SECOND);
    assert_eq!(
        table.replies[&last_but_one],
        Ok(Reply::PeerRemoved),
        "it was the leader"
    );
    assert_eq!(table.membership(kept), Membership::Removed);
    let last = table.remove(other, other);
    table.run(5 * SECOND);
    assert!(
        matches!(table.replies[&last], Err(Refusal::Conflict(_))),
        "{:?}",
        table.replies[&last]
    );
    table.still_works(other, 3, &[other]);
    table.restart(kept);
    table.run(5 * SECOND);
    assert_eq!(
        table.membership(kept),
        Membership::Removed,
        "the removal is durable"
    );
}

#[test]
fn sole_voter_promotes_a_learner_before_its_removal() {
    let mut table = Table::new(1);
    table.run(5 * SECOND);
    table.join(2);
    table.add(1, 2);
    table.run(10 * SECOND);
    let ticket = table.remove(1, 1);
    table.run(10 * SECOND);
    assert_eq!(table.replies[&ticket], Ok(Reply::PeerRemoved));
    assert_eq!(table.membership(1), Membership::Removed);
    assert_eq!(table.membership(2), Membership::Voter);
    table.still_works(2, 1, &[2]);
}

#[test]
fn dead_peer_is_removed_and_its_pins_are_reallocated() {
    let mut table = Table::new(4);
    table.run(10 * SECOND);
    for number in 0..30 {
        table.pin(1, number, TWO);
    }
    table.run(2 * SECOND);
    let dead = follower(&table, 4);
    table.down.insert(peer(dead));
    table.run(SECOND);
    let ticket = table.remove(leader(&table), dead);
    table.run(10 * SECOND);
    assert_eq!(table.replies[&ticket], Ok(Reply::PeerRemoved));
    let pins = &table.nodes[&peer(leader(&table))].1.pins;
    assert!(pins.values().all(|pin| !pin.is_allocated_to(&peer(dead))));
    assert_eq!(table.voters(leader(&table)), 3);
    // Once it is back, it is notified.
    table.down.remove(&peer(dead));
    table.run(20 * SECOND);
    assert_eq!(table.membership(dead), Membership::Removed);
}

#[test]
fn removal_demotes_dead_voters_without_a_live_majority() {
    let mut table = Table::new(3);
    table.run(5 * SECOND);
    let led = leader(&table);
    let alive = follower(&table, 3);
    let dead = (1..=3).find(|id| ![led, alive].contains(id)).expect("three");
    table.down.insert(peer(dead));
    table.run(10 * SECOND);
    let ticket = table.remove(led, alive);
    table.run(10 * SECOND);
    assert_eq!(table.replies[&ticket], Ok(Reply::PeerRemoved));
    table.still_works(led, 1, &[led]);
    assert_eq!(table.voters(led), 1);
}

#[test]
fn removed_peer_can_be_added_again_with_its_data() {
    let mut table = Table::new(3);
    table.run(5 * SECOND);
    let back = follower(&table, 3);
    table.remove(back, back);
    table.run(10 * SECOND);
    assert_eq!(table.membership(back), Membership::Removed);
    let at = leader(&table);
    table.still_works(at, 1, &[at]);
    let ticket = table.add(at, back);
    table.run(15 * SECOND);
    assert_eq!(table.replies[&ticket], Ok(Reply::PeerAdded));
    assert_eq!(table.membership(back), Membership::Voter);
    table.still_works(back, 2, &[1, 2, 3]);
}

#[test]
fn long_silent_voter_is_replaced_by_a_learner() {
    let mut table = Table::new(4);
    table.run(15 * SECOND);
    assert_eq!(table.voters(1), 3, "odd");
    let learner = (1..=4).find(|id| table.membership(*id) == Membership::Learner);
    let learner = learner.expect("one of four has no vote");
    let gone = (1..=4).find(|id| ![learner, leader(&table)].contains(id));
    let gone = gone.expect("there are others");
    table.down.insert(peer(gone));
    table.run(50 * SECOND);
    assert_eq!(table.membership(learner), Membership::Learner, "it may come back");
    table.run(30 * SECOND);
    assert_eq!(table.membership(learner), Membership::Voter);
    assert_eq!(table.voters(leader(&table)), 3);
    table.down.remove(&peer(gone));
    table.run(20 * SECOND);
    assert_eq!(table.membership(gone), Membership::Learner);
}

#[test]
fn two_of_five_voters_are_demoted_when_dead() {
    let mut table = Table::new(5);
    table.run(10 * SECOND);
    let led = leader(&table);
    let dead: Vec<u8> = (1..=5).filter(|id| *id != led).take(2).collect();
    table.down.extend(dead.iter().map(|id| peer(*id)));
    table.run(80 * SECOND);
    assert_eq!(table.voters(led), 3);
    table.down.clear();
    table.run(20 * SECOND);
    assert_eq!(table.voters(led), 5);
}

#[test]
fn membership_requests_survive_the_leader() {
    let mut table = Table::new(5);
    table.run(10 * SECOND);
    let led = leader(&table);
    let gone = follower(&table, 5);
    table.remove(led, gone);
    // Committed, but not carried out yet.
    table.run(Duration::from_millis(60));
    table.down.insert(peer(led));
    table.run(20 * SECOND);
    assert!(table.members(leader(&table)).raft_id(&peer(gone)).is_none());
}

/// Applies one random fault or membership request.
#[allow(
    clippy::disallowed_macros,
    reason = "tells what led to a failure; the simulator's copy of these sources has other bans"
)]
fn upset(table: &mut Table, seed: u64, round: u64) {
    let draw = |what: u64, of: u64| crate::rng::mix(seed ^ crate::rng::mix(round * 8 + what)) % of;
    let who = u8::try_from(1 + draw(0, 6)).expect("few");
    let at = leader(table);
    let is_member = table.members(at).raft_id(&peer(who)).is_some();
    let pause = Duration::from_millis(draw(1, 3000));
    // At most one member may lose its data at a time, and none while there are two voters.
    let well = |member: &Member| {
        let view = table.nodes[&member.peer].0.view();
        matches!(view.membership(), Membership::Learner | Membership::Voter)
    };
    let members = table.members(at);
    let spare = members.voters.len() > 2 && members.peers.values().all(well);
    let what = draw(2, 5);
    eprintln!("seed {seed} round {round}: {what} to {who}, leader {at}, member {is_member}, spare {spare}");
    match what {
        0 if is_member && spare => {
            table.join(who);
            table.run(pause);
            table.restart(who);
        }
        1 if is_member => {
            table.remove(at, who);
            table.run(pause);
        }
        2 if !is_member => {
            if draw(3, 2) == 0 {
                table.join(who);
            }
            table.add(at, who);
            table.run(pause);
            table.restart(who);
        }
        3 => {
            table.down.insert(peer(who));
            table.run(pause * 4);
            table.down.clear();
        }
        _ => table.restart(who),
    }
}

fn await_leader(table: &mut Table) {
    let leads = |table: &Table| table.nodes.values().any(|(node, _)| node.view().is_leader());
    for _ in 0..30 {
        if leads(table) {
            return;
        }
        table.run(SECOND);
    }
    panic!("no leader after 30 s");
}

#[test]
fn random_membership_faults_end_in_agreement() {
    for seed in 0..40 {
        let mut table = Table::new(3);
        (4..=6).for_each(|number| table.join(number));
        table.run(5 * SECOND);
        for round in 0..12 {
            upset(&mut table, seed, round);
            let pause = crate::rng::mix(seed ^ crate::rng::mix(round * 8 + 7)) % 8000;
            table.run(Duration::from_millis(pause));
            await_leader(&mut table);
            let number = u8::try_from(round).expect("few");
            let at = leader(&table);
            table.pin(at, number, Replicas::Everywhere);
            table.run(2 * SECOND);
        }
        table.run(30 * SECOND);
        let at = leader(&table);
        let members = table.members(at).clone();
        let voters = members.voters.len();
        assert!(
            members.outgoing.is_empty() && members.leaving.is_empty(),
            "{members:?}"
        );
        assert!(
            voters % 2 == 1 || members.peers.len() == 2,
            "seed {seed}: {members:?}"
        );
        for (id, (node, disk)) in &table.nodes {
            let view = node.view();
            let is_member = members.raft_id(id).is_some();
            let says_so = matches!(view.membership(), Membership::Learner | Membership::Voter);
            assert_eq!(says_so, is_member, "seed {seed}: {id} is {:?}", view.membership());
            if is_member {
                assert_eq!(*view.members(), members, "seed {seed}: {id}");
                assert_eq!(disk.pins, table.nodes[&peer(at)].1.pins, "seed {seed}: {id}");
            }
        }
    }
}
