use super::*;
use crate::testing::peer;
use crate::time::Timestamp;

const START: Now = Now {
    mono: Instant(1),
    wall: Timestamp(1),
};

fn later(time: Duration) -> Now {
    Now {
        mono: START.mono + time,
        wall: START.wall + time,
    }
}

fn seconds(count: u64) -> Now {
    later(Duration::from_secs(count))
}

/// Returns the planner of a leader with Raft id 1.
fn planner() -> Planner {
    let config = MembershipConfig {
        voters_max: 5,
        replace_after: Duration::from_secs(60),
    };
    let mut planner = Planner::new(&config, Duration::from_secs(5));
    planner.lead(START, true);
    planner
}

fn all_caught_up(members: &Members) -> Progress {
    Progress {
        committed: 100,
        matched: members.peers.keys().map(|id| (*id, 100)).collect(),
    }
}

fn plan(planner: &mut Planner, now: Now, members: &Members) -> Option<Plan> {
    planner.handle_timeout(now, members, RaftId(1), || all_caught_up(members))
}

fn receive_from(planner: &mut Planner, now: Now, members: &Members, ids: &[u64]) {
    for id in ids {
        let id = RaftId(*id);
        let peer = members.peer(id).expect("is a member").clone();
        planner.record_message(now, id, &peer);
    }
}

fn change(steps: Vec<MembersStep>) -> Option<Plan> {
    Some(Plan::Change(MembersChange { steps }))
}

fn promote(id: u64) -> MembersStep {
    MembersStep::Promote { raft_id: RaftId(id) }
}

fn demote(id: u64) -> MembersStep {
    MembersStep::Demote { raft_id: RaftId(id) }
}

fn remove(id: u64) -> MembersStep {
    MembersStep::Remove { raft_id: RaftId(id) }
}

/// Returns a membership of `voters`, followed by `learners`.
fn members(voters: u64, learners: u64) -> Members {
    let count = u8::try_from(voters + learners).expect("few");
    let mut members = Members::initial((1..=count).map(peer));
    members.learners = (voters + 1..=voters + learners).map(RaftId).collect();
    members.voters = (1..=voters).map(RaftId).collect();
    members
}

#[test]
fn no_plan_on_followers_or_before_the_interval() {
    let mut planner = planner();
    let mut wished = members(3, 0);
    wished.leaving.insert(peer(2));
    assert_eq!(plan(&mut planner, START, &wished), None);
    planner.lead(START, false);
    assert_eq!(plan(&mut planner, seconds(9), &wished), None);
}

#[test]
fn lost_change_is_planned_again_but_not_during_a_joint_change() {
    let mut planner = planner();
    let mut wished = members(3, 0);
    wished.leaving.insert(peer(2));
    let id = wished.raft_id(&peer(2)).expect("is a member").0;
    receive_from(&mut planner, seconds(1), &wished, &[2, 3]);
    assert_eq!(plan(&mut planner, seconds(1), &wished), change(vec![remove(id)]));
    assert_eq!(plan(&mut planner, seconds(2), &wished), change(vec![remove(id)]));
    wished.outgoing = wished.voters.clone();
    assert_eq!(plan(&mut planner, seconds(3), &wished), None);
}

/// Two of five are dead: removing a third voter would leave two of four live (simulated seed 30026).
#[test]
fn new_leader_removes_a_voter_only_with_a_live_majority() {
    let mut planner = planner();
    let mut wished = members(5, 1);
    let at = |id| wished.peer(RaftId(id)).expect("is a member").clone();
    let (voter, learner) = (at(3), at(6));
    wished.leaving.insert(voter);
    receive_from(&mut planner, seconds(1), &wished, &[2, 3]);
    assert_eq!(
        plan(&mut planner, seconds(1), &wished),
        None,
        "4 and 5 have not been heard from"
    );
    receive_from(&mut planner, seconds(2), &wished, &[4]);
    assert_eq!(plan(&mut planner, seconds(2), &wished), change(vec![remove(3)]));
    let mut planner = self::planner();
    receive_from(&mut planner, seconds(5), &wished, &[2, 3]);
    let without_the_dead = change(vec![remove(3), demote(4), demote(5)]);
    assert_eq!(plan(&mut planner, seconds(5), &wished), without_the_dead);
    wished.leaving = [learner].into();
    let mut planner = self::planner();
    assert_eq!(
        plan(&mut planner, seconds(1), &wished),
        change(vec![remove(6)]),
        "a learner does not count towards majorities"
    );
}

#[test]
fn peers_are_added_one_at_a_time() {
    let mut planner = planner();
    let mut wished = members(3, 0);
    wished.joining.extend([peer(8), peer(9)]);
    let member = Member {
        peer: peer(8),
        incarnation: None,
    };
    let raft_id = RaftId(4);
    let step = MembersStep::AddLearner { raft_id, member };
    assert_eq!(plan(&mut planner, seconds(1), &wished), change(vec![step]));
}

#[test]
fn number_of_voters_is_kept_odd() {
    let now = seconds(6);
    let planned = |voters: u64, learners: u64| {
        let members = members(voters, learners);
        let mut planner = planner();
        let ids: Vec<u64> = (1..=voters + learners).collect();
        receive_from(&mut planner, now, &members, &ids);
        plan(&mut planner, now, &members)
    };
    assert_eq!(planned(1, 1), None, "a second voter tolerates no more failures");
    assert_eq!(planned(2, 0), None, "two voters are not reduced to one");
    assert_eq!(planned(1, 2), change(vec![promote(2), promote(3)]));
    assert_eq!(planned(2, 1), change(vec![promote(3)]));
    assert_eq!(planned(3, 0), None);
    assert_eq!(planned(3, 1), None);
    assert_eq!(planned(4, 0), change(vec![demote(4)]));
    assert_eq!(
        planned(3, 9),
        change(vec![promote(4), promote(5)]),
        "five at most"
    );
    assert_eq!(planned(7, 0), change(vec![demote(6), demote(7)]));
}

/// Votes were given to peers that had just died, and that made a majority with those that stayed (simulated
/// seed 71438).
#[test]
fn voters_are_demoted_only_with_a_fresh_majority() {
    let members = members(7, 0);
    let mut planner = planner();
    receive_from(&mut planner, seconds(6), &members, &[2, 3, 4, 5]);
    assert_eq!(
        plan(&mut planner, seconds(8), &members),
        None,
        "2 to 5 are silent for two seconds"
    );
    receive_from(&mut planner, seconds(8), &members, &[4, 5]);
    let kept = change(vec![demote(6), demote(7)]);
    assert_eq!(plan(&mut planner, seconds(9), &members), kept);
}

#[test]
fn lagging_or_silent_learner_is_not_promoted() {
    let members = members(2, 1);
    let mut planner = planner();
    receive_from(&mut planner, seconds(6), &members, &[2, 3]);
    let behind = |matched| {
        let mut progress = all_caught_up(&members);
        progress.committed = 1000;
        progress.matched.insert(RaftId(3), matched);
        progress
    };
    let id = RaftId(1);
    assert_eq!(
        planner.handle_timeout(seconds(7), &members, id, || behind(500)),
        None
    );
    let promoted = change(vec![promote(3)]);
    receive_from(&mut planner, seconds(8), &members, &[2, 3]);
    assert_eq!(
        planner.handle_timeout(seconds(8), &members, id, || behind(990)),
        promoted
    );
    assert_eq!(
        planner.handle_timeout(seconds(20), &members, id, || behind(990)),
        None
    );
}

#[test]
fn silent_voter_is_replaced_by_a_live_learner() {
    let members = members(3, 1);
    let mut planner = planner();
    receive_from(&mut planner, seconds(60), &members, &[2, 4]);
    assert_eq!(plan(&mut planner, seconds(60), &members), None);
    assert_eq!(
        plan(&mut planner, seconds(61), &members),
        change(vec![promote(4), demote(3)])
    );
}

#[test]
fn leader_to_be_removed_transfers_to_the_most_advanced_voter() {
    let mut wished = members(3, 0);
    let own = wished.peer(RaftId(1)).expect("is a member").clone();
    wished.leaving.insert(own);
    let mut planner = planner();
    let progress = || Progress {
        committed: 100,
        matched: [(RaftId(2), 90), (RaftId(3), 100)].into(),
    };
    let planned = planner.handle_timeout(seconds(1), &wished, RaftId(1), progress);
    assert_eq!(planned, Some(Plan::Transfer(RaftId(3))));
}

#[test]
fn lost_incarnation_is_replaced_once_silent() {
    let mut members = members(3, 0);
    members.peers.get_mut(&RaftId(3)).expect("is there").incarnation = Some(Incarnation(3));
    let back = members.peer(RaftId(3)).expect("is a member").clone();
    let mut planner = planner();
    planner.record_incarnation(seconds(1), &back, Incarnation(30));
    assert_eq!(
        plan(&mut planner, seconds(2), &members),
        None,
        "it may be a delayed message"
    );
    // Two machines with the same identity do not replace each other.
    planner.record_message(seconds(3), RaftId(3), &back);
    planner.record_incarnation(seconds(4), &back, Incarnation(30));
    assert_eq!(plan(&mut planner, seconds(4), &members), None);
    planner.record_incarnation(seconds(6), &back, Incarnation(30));
    receive_from(&mut planner, seconds(6), &members, &[2]);
    let member = Member {
        peer: back,
        incarnation: Some(Incarnation(30)),
    };
    let raft_id = RaftId(4);
    let add = MembersStep::AddLearner { raft_id, member };
    assert_eq!(
        plan(&mut planner, seconds(6), &members),
        change(vec![add, remove(3)])
    );
}

#[test]
fn notices_are_rate_limited() {
    let mut planner = planner();
    assert!(planner.may_notify(START, &peer(2)));
    assert!(!planner.may_notify(START, &peer(2)));
    assert!(planner.may_notify(START, &peer(3)));
    assert!(planner.may_notify(seconds(1), &peer(2)));
}
