use super::*;
use crate::testing::{cid, peer};
use crate::time::Timestamp;

const ME: RaftId = RaftId(1);

fn at(millis: u64) -> Now {
    let time = std::time::Duration::from_millis(millis);
    Now {
        mono: Instant(0) + time,
        wall: Timestamp(0) + time,
    }
}

fn requests() -> Requests {
    let config = RequestsConfig {
        deadline: std::time::Duration::from_secs(5),
        retry: std::time::Duration::from_secs(1),
        open_max: 2,
    };
    Requests::new(&config, 32 << 20, 1)
}

fn unpin() -> Request {
    Request::Unpin {
        cid: cid(1),
        owner: None,
    }
}

/// Opens a request as ticket 1 and decides on it; returns the proposal.
fn proposed(requests: &mut Requests, request: Request) -> Proposal {
    let mut out = Vec::new();
    requests.open(at(0), Ticket(1), request, &mut out);
    assert_eq!(out, [Output::Decide { ticket: Ticket(1) }]);
    out.clear();
    let command = Command::Unpin {
        cid: cid(1),
        precondition: crate::command::Precondition::Any,
    };
    requests.decided(ME, Ticket(1), command, &mut out);
    let Some(Output::Propose { proposal }) = out.pop() else {
        panic!("it is proposed");
    };
    proposal
}

/// Returns the replies among the outputs.
fn replies(out: &[Output]) -> Vec<Result<Reply, Refusal>> {
    let reply = |output: &Output| match output {
        Output::Reply { reply, .. } => Some(reply.clone()),
        Output::Decide { .. } | Output::Propose { .. } | Output::Read { .. } => None,
    };
    out.iter().filter_map(reply).collect()
}

#[test]
fn proposal_is_repeated_under_its_id_until_the_deadline() {
    let mut requests = requests();
    let proposal = proposed(&mut requests, unpin());
    requests.forwarded(proposal.id);
    for second in 1..5 {
        let mut out = Vec::new();
        requests.handle_timeout(at(second * 1000), &mut out);
        assert_eq!(
            out,
            [Output::Propose {
                proposal: proposal.clone()
            }],
            "after {second} s"
        );
    }
    let mut out = Vec::new();
    requests.handle_timeout(at(5000), &mut out);
    assert_eq!(replies(&out), [Err(Refusal::Unknown)], "it may still take effect");
    assert_eq!(requests.len(), 0);
}

#[test]
fn proposal_without_a_leader_is_refused_as_no_leader() {
    let mut requests = requests();
    let _ = proposed(&mut requests, unpin());
    let mut out = Vec::new();
    requests.handle_timeout(at(5000), &mut out);
    assert_eq!(replies(&out), [Err(Refusal::NoLeader)]);
}

#[test]
fn requests_beyond_the_limit_are_refused() {
    let mut requests = requests();
    let mut out = Vec::new();
    for ticket in 1..=3 {
        requests.open(at(0), Ticket(ticket), unpin(), &mut out);
    }
    assert_eq!(replies(&out), [Err(Refusal::Busy)]);
    assert_eq!(requests.len(), 2);
}

#[test]
fn read_waits_until_its_index_is_applied() {
    let mut requests = requests();
    let mut out = Vec::new();
    requests.open(at(0), Ticket(1), Request::Barrier, &mut out);
    let [Output::Read { read }] = out[..] else {
        panic!("{out:?} is not a read");
    };
    out.clear();
    requests.answer_reads(9, &mut out);
    requests.read_ready(read, 10);
    requests.answer_reads(9, &mut out);
    assert_eq!(out, []);
    requests.answer_reads(10, &mut out);
    assert_eq!(replies(&out), [Ok(Reply::Barrier(10))]);
}

#[test]
fn membership_request_is_answered_when_done_or_unknown_at_the_deadline() {
    let mut requests = requests();
    let proposal = proposed(&mut requests, Request::AddPeer { peer: peer(4) });
    let wish = crate::members::MembersWish::Add { peer: peer(4) };
    let mut out = Vec::new();
    requests.applied(ME, proposal.id, &Outcome::Recorded(wish), &mut out);
    requests.answer_membership_requests(&Members::initial((1..=3).map(peer)), &mut out);
    assert_eq!(out, []);
    let mut late = self::requests();
    std::mem::swap(&mut late, &mut requests);
    let mut added = Vec::new();
    late.answer_membership_requests(&Members::initial((1..=4).map(peer)), &mut added);
    assert_eq!(replies(&added), [Ok(Reply::PeerAdded)]);
    let proposal = proposed(&mut requests, Request::AddPeer { peer: peer(4) });
    let wish = crate::members::MembersWish::Add { peer: peer(4) };
    requests.applied(ME, proposal.id, &Outcome::Recorded(wish), &mut out);
    requests.handle_timeout(at(5000), &mut out);
    assert_eq!(replies(&out), [Err(Refusal::Unknown)]);
}
