//! Executes the steps of a scenario.

use std::time::Duration;

use cluster_core::{Drain, RebalanceChange, Refusal, Request, Timestamp};
use madsim::runtime::Handle;
use madsim::time::sleep;

use super::step::{Ask, Change, IpfsStep, Outcome, PeerStep, Standing, Step, Who};
use crate::checks::convergence;
use crate::clients::{self, Asked, pin_once, read_once, unpin_once, wish};
use crate::faults::resume;
use crate::history::Heard;
use crate::peer::{Peer, cid, default_replicas};
use crate::rng::Rng;
use crate::world::{Answer, Death, Shared, World, lock};

/// Executes one step. A false assertion is an error.
pub(super) async fn take(world: &Shared, step: Step) -> Result<(), String> {
    match step {
        Step::Ask {
            what,
            content,
            at,
            expected,
        } => ask(world, what, content, one(world, at)?, expected).await,
        Step::ChangeMembers {
            change,
            target,
            at,
            expected,
        } => {
            let (target, at) = (one(world, target)?, one(world, at)?);
            change_members(world, change, target, at, expected).await
        }
        Step::AtIpfs(what, who) => {
            let peers = peers_of(world, who)?;
            peers.into_iter().for_each(|peer| change_ipfs(world, what, peer));
            Ok(())
        }
        Step::AtPeers(what, who) => {
            for peer in peers_of(world, who)? {
                take_at(world, what, peer)?;
            }
            Ok(())
        }
        Step::Balanced(most) => balanced(world, most),
        Step::Heal => {
            lock(world).net.heal();
            Ok(())
        }
        Step::Holds {
            content,
            who,
            expected,
        } => holds(world, content, one(world, who)?, expected),
        Step::Moved { content, from } => moved(world, content, one(world, from)?),
        Step::Rebalance { at, expected } => {
            let since = Timestamp(World::now());
            let change = RebalanceChange::Start { since };
            let at = one(world, at)?;
            ask_for(world, at, Request::Rebalance { change }, expected).await?;
            Ok(())
        }
        Step::Run(time) => {
            sleep(time).await;
            Ok(())
        }
        Step::Settle => wait_for(world, "peace", |world| convergence::pending(world).is_none()).await,
        Step::Version(wanted) => {
            let agreed = version(&lock(world));
            require(wanted == agreed, || format!("it is {agreed}"))
        }
        Step::Voters(wanted) => {
            let voters = lock(world).members().voters.len() as u64;
            require(voters == wanted, || format!("{voters} vote"))
        }
        Step::WaitLeader => wait_for(world, "a leader", |world| ready_leader(world).is_some()).await,
        Step::WaitStanding(standing, who) => {
            let peer = one(world, who)?;
            let what = format!("{standing:?}");
            wait_for(world, &what, |world| standing_of(world, peer) == standing).await
        }
        Step::WaitVersion(wanted) => wait_for(world, "a version", |world| version(world) == wanted).await,
    }
}

fn require(holds: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(why()) }
}

fn holds(world: &Shared, content: u64, peer: usize, expected: bool) -> Result<(), String> {
    let holds = lock(world).peers[peer].ipfs.pinned.contains_key(&cid(content));
    require(holds == expected, || {
        format!("it {} it", if holds { "holds" } else { "lacks" })
    })
}

fn moved(world: &Shared, content: u64, from: usize) -> Result<(), String> {
    let world = lock(world);
    let pins = world.checks.model().pins();
    let pin = pins.get(&cid(content)).ok_or("it is not pinned")?;
    let there = pin.is_allocated_to(&world.peers[from].id);
    require(!there, || format!("it is still allocated there: {pin:?}"))
}

/// Requires that no peer deviates from its share of the copies, by capacity, by more than `most`.
fn balanced(world: &Shared, most: u64) -> Result<(), String> {
    let world = lock(world);
    let pins = world.checks.model().pins();
    let count = |peer: &Peer| {
        let own = pins.values().filter(|pin| pin.allocations.contains(&peer.id));
        own.count() as u64
    };
    let counts: Vec<u64> = world.peers.iter().map(count).collect();
    let capacities = world.peers.iter().map(|peer| peer.ipfs.capacity() >> 30);
    let capacities: Vec<u64> = capacities.collect();
    let (copies, capacity): (u64, u64) = (counts.iter().sum(), capacities.iter().sum());
    let is_near = |(count, own): (&u64, &u64)| count.abs_diff(copies * own / capacity) <= most;
    let is_balanced = counts.iter().zip(&capacities).all(is_near);
    require(is_balanced, || {
        format!("the peers have {counts:?}, with room for {capacities:?} GiB")
    })
}

fn take_at(world: &Shared, what: PeerStep, peer: usize) -> Result<(), String> {
    match what {
        PeerStep::Break => {
            let mut world = lock(world);
            world.peers[peer].broken = true;
            world.crash(peer, Death::Cut);
        }
        PeerStep::Cut => lock(world).crash(peer, Death::Cut),
        PeerStep::Empty => lose_disk(&mut lock(world), peer),
        PeerStep::Fill => lock(world).peers[peer].disk.full = true,
        PeerStep::Free => lock(world).peers[peer].disk.full = false,
        PeerStep::Isolate => lock(world).net.cut_off(peer, true),
        PeerStep::Kill => lock(world).crash(peer, Death::Kill),
        PeerStep::Leads => {
            let leader = ready_leader(&lock(world));
            require(leader == Some(peer), || format!("{leader:?} leads"))?;
        }
        PeerStep::Pause => {
            let mut world = lock(world);
            world.peers[peer].paused = true;
            Handle::current().pause(world.nodes[peer]);
        }
        PeerStep::Remember => lock(world).it = Some(peer),
        PeerStep::Resume => resume(world, peer),
        PeerStep::Rot => {
            let mut world = lock(world);
            lose_disk(&mut world, peer);
            world.peers[peer].disk.rotten = true;
        }
        PeerStep::Start => lock(world).restart(peer),
        PeerStep::Upgrade => {
            let mut world = lock(world);
            world.upgrade(peer);
            world.restart(peer);
        }
    }
    Ok(())
}

fn change_ipfs(world: &Shared, what: IpfsStep, peer: usize) {
    let ipfs = &mut lock(world).peers[peer].ipfs;
    match what {
        IpfsStep::Down => (ipfs.up, ipfs.full) = (false, false),
        IpfsStep::Up => (ipfs.up, ipfs.full) = (true, false),
        IpfsStep::Full => (ipfs.up, ipfs.full) = (true, true),
        IpfsStep::Forgets => ipfs.pinned.retain(|cid, _| ipfs.owned.contains(cid)),
        IpfsStep::Rots => {
            let mut rng = Rng::new(World::now(), "rot");
            ipfs.rot(World::now(), 1000, &mut rng);
        }
    }
}

fn lose_disk(world: &mut World, peer: usize) {
    let members = world.members().clone();
    world.burn(peer, 1 << 32 | peer as u64, members);
}

async fn ask(world: &Shared, what: Ask, content: u64, peer: usize, expected: Outcome) -> Result<(), String> {
    let patience = Duration::from_millis(lock(world).options.deadline_ms + 5000);
    let content = cid(content);
    let heard = match what {
        Ask::Pin => {
            let options = {
                let world = lock(world);
                let name = format!("scenario-{}", world.history.operations.len());
                wish(name, default_replicas(&world.options))
            };
            pin_once(world, 1, peer, (content, None), options, patience).await
        }
        Ask::Unpin => unpin_once(world, 1, peer, (content, None), patience).await,
        Ask::Read => read_once(world, 1, peer, content, patience).await,
    };
    let outcome = match &heard {
        Heard::Pinned(_) | Heard::Unpinned(_) => Outcome::Done,
        Heard::Found(Some(_)) => Outcome::Found,
        Heard::Found(None) => Outcome::Missing,
        Heard::Refused(_) => Outcome::Refused,
        Heard::Unknown => Outcome::Unknown,
    };
    let fits = expected == Outcome::Any || expected == outcome;
    require(fits, || format!("hears {heard:?}"))
}

fn version(world: &World) -> u64 {
    u64::from(world.members().version)
}

/// Returns a peer's membership status, as far as the most advanced peer knows.
fn standing_of(world: &World, peer: usize) -> Standing {
    let members = world.members();
    match members.raft_id(&world.peers[peer].id) {
        None => Standing::Gone,
        Some(id) if members.voters.contains(&id) => Standing::Voter,
        Some(_) => Standing::Member,
    }
}

async fn change_members(
    world: &Shared,
    change: Change,
    target: usize,
    at: usize,
    expected: Outcome,
) -> Result<(), String> {
    let peer = lock(world).peers[target].id.clone();
    let request = match change {
        Change::Add => Request::AddPeer { peer },
        Change::Drain => Request::Drain {
            drain: Drain {
                peer,
                since: Timestamp(World::now()),
                pins: 0,
                moves_max: 2,
            },
        },
        Change::Remove => Request::RemovePeer { peer },
        Change::Undrain => Request::EndDrain { peer },
    };
    let heard = ask_for(world, at, request, expected).await?;
    lock(world).stats.membership_changes +=
        u64::from(heard == Outcome::Done && matches!(change, Change::Add | Change::Remove));
    Ok(())
}

/// Makes a request that has no result but its success.
async fn ask_for(world: &Shared, at: usize, request: Request, expected: Outcome) -> Result<Outcome, String> {
    let patience = Duration::from_millis(lock(world).options.deadline_ms + 5000);
    let asked = clients::ask(world, at, request, patience).await;
    let heard = match &asked {
        Asked::Heard(Answer::Reply(Ok(_), _)) => Outcome::Done,
        Asked::Heard(Answer::Lost | Answer::Reply(Err(Refusal::Unknown), _)) | Asked::Impatient => {
            Outcome::Unknown
        }
        Asked::Heard(Answer::Reply(Err(_), _)) | Asked::Nobody => Outcome::Refused,
    };
    let fits = expected == Outcome::Any || expected == heard;
    require(fits, || format!("hears {asked:?}"))?;
    Ok(heard)
}

async fn wait_for(world: &Shared, what: &str, holds: impl Fn(&World) -> bool) -> Result<(), String> {
    for _ in 0..1200 {
        sleep(Duration::from_millis(100)).await;
        let world = lock(world);
        if world.stopped || holds(&world) {
            return Ok(());
        }
    }
    let pending = convergence::pending(&lock(world));
    Err(format!("waits for {what} in vain, pending: {pending:?}"))
}

fn ready_leader(world: &World) -> Option<usize> {
    world.peers.iter().position(Peer::is_ready_leader)
}

fn one(world: &Shared, who: Who) -> Result<usize, String> {
    let peers = peers_of(world, who)?;
    peers.first().copied().ok_or_else(|| "there is nobody".to_owned())
}

fn peers_of(world: &Shared, who: Who) -> Result<Vec<usize>, String> {
    let world = lock(world);
    let mut all = 0..world.peers.len();
    let leader = ready_leader(&world);
    Ok(match who {
        Who::All => all.collect(),
        Who::It => vec![world.it.ok_or("nobody is remembered")?],
        Who::Leader => vec![leader.ok_or("there is no leader")?],
        Who::Follower => {
            let follows = |peer: &usize| Some(*peer) != leader && world.peers[*peer].node.is_some();
            vec![all.find(follows).ok_or("there is no follower")?]
        }
        Who::Number(number) => vec![number],
    })
}
