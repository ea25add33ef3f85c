//! Stories: what happens, in order, written down in a small vocabulary, one step a line. After the last step
//! everything that was not broken for good must be repaired, and the same checks hold as in any run.
//!
//! | step | what it does |
//! | --- | --- |
//! | `set NAME=NUMBER` | an option, before anything else |
//! | `wait leader` | until one is ready |
//! | `run SECONDS` | lets time pass |
//! | `kill WHO`, `cut WHO`, `start WHO` | ends a process, or its machine's power; starts it again |
//! | `break WHO` | the power goes for good |
//! | `pause WHO`, `resume WHO` | |
//! | `isolate WHO`, `heal` | nobody hears it, nor does it hear anybody; all cuts end |
//! | `pin CID at WHO OUTCOME` | `ok`, `refused`, `unknown` or `any` |
//! | `unpin CID at WHO OUTCOME` | |
//! | `read CID at WHO found`, `… none` | as of now anywhere |
//! | `ipfs down WHO`, `ipfs up WHO`, `ipfs full WHO` | |
//! | `ipfs forgets WHO` | all its pins are gone, and nobody was asked |
//! | `holds CID WHO`, `lacks CID WHO` | its IPFS node does, or does not |
//! | `fill WHO`, `free WHO` | its disk takes no more; has room again |
//! | `rot WHO` | its data folder is damaged, and emptied when it has refused to start |
//! | `moved CID from WHO` | it is not allocated there any more |
//! | `add WHO at WHO OUTCOME`, `remove …` | asks for a change of the membership |
//! | `wait member WHO`, `… voter WHO`, `… gone WHO` | until the furthest peer says so |
//! | `voters NUMBER` | so many vote |
//! | `upgrade WHO` | its process ends, and the next one is of the new release; `set old=1000` makes all old |
//! | `version NUMBER`, `wait version NUMBER` | what the members have agreed to say |
//! | `empty WHO` | its data folder is lost; started again, it has its old identity |
//! | `remember WHO` | whom `it` means from here on |
//! | `leads WHO` | it does, and nobody else |
//! | `settle` | until nothing is pending |
//!
//! `WHO` is a number, `leader`, `follower` for the first that is none, `it`, or `all`.

use std::path::Path;
use std::time::Duration;

use cluster_core::{Refusal, Request};
use madsim::runtime::Handle;
use madsim::time::sleep;

use crate::checks::{Violation, convergence};
use crate::clients::{self, Asked, pin_once, read_once, unpin_once, wish};
use crate::faults::resume;
use crate::history::Heard;
use crate::options::Options;
use crate::peer::{cid, default_replicas};
use crate::report::{Class, Report};
use crate::world::{Answer, Death, Shared, World, lock};
use crate::{run, stage};

/// A story, and where it is written.
#[derive(Clone, Debug)]
pub struct Story {
    file: String,
    text: String,
}

impl Story {
    /// A story that is in `file`, which is how a report says what to tell again.
    pub fn new(file: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            file: file.into(),
            text: text.into(),
        }
    }

    /// Reads a story.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn read(file: &Path) -> Result<Self, String> {
        let file = file.display().to_string();
        match std::fs::read_to_string(&file) {
            Ok(text) => Ok(Self { file, text }),
            Err(error) => Err(format!("{file}: {error}")),
        }
    }
}

/// Tells a story. Steps that make no sense are reported as violations.
pub fn tell(story: &Story, seed: u64, keep_trace: bool) -> Report {
    let mut options = Options {
        clients: 0,
        ..Options::quiet(seed)
    };
    let steps = story.text.lines().map(str::trim);
    let steps = steps.filter(|line| !line.is_empty() && !line.starts_with('#'));
    let (sets, steps): (Vec<&str>, Vec<&str>) = steps.partition(|step| step.starts_with("set "));
    let mut wrong = None;
    for set in sets {
        if let Err(why) = options.set(set.trim_start_matches("set ").trim()) {
            wrong = Some(why);
        }
    }
    let steps: Vec<String> = steps.into_iter().map(str::to_owned).collect();
    let report = stage::perform(&options, keep_trace, move |world| play(world, wrong, steps));
    Report {
        story: Some(story.file.clone()),
        ..report
    }
}

async fn play(world: Shared, wrong: Option<String>, steps: Vec<String>) -> Report {
    let helpers = run::found(&world);
    if let Some(why) = wrong {
        fail(&world, "set", why);
    }
    for step in &steps {
        if lock(&world).stopped {
            break;
        }
        let line = format!("step {step:?}");
        lock(&world).trace.line(World::now(), "story", || line.clone());
        if let Err(why) = take(&world, step).await {
            fail(&world, step, why);
        }
    }
    if !lock(&world).stopped {
        run::second_phase(&world).await;
    }
    run::finish(&world, &helpers).await
}

fn fail(world: &Shared, step: &str, why: String) {
    let at = World::now();
    let text = format!("{step:?}: {why}");
    lock(world).violate(Violation {
        class: Class::Safety,
        check: "story",
        at,
        peer: None,
        text,
    });
}

async fn take(world: &Shared, step: &str) -> Result<(), String> {
    let words: Vec<&str> = step.split_whitespace().collect();
    match words[..] {
        ["wait", "leader"] => wait_for(world, "a leader", |world| ready_leader(world).is_some()).await,
        ["wait", state @ ("member" | "voter" | "gone"), peer] => {
            let peer = one(world, peer)?;
            wait_for(world, state, |world| stands(world, peer) == state).await
        }
        ["voters", count] => {
            let voters = lock(world).members().voters.len() as u64;
            (voters == number(count)?)
                .then_some(())
                .ok_or(format!("{voters} vote"))
        }
        ["version", version] => {
            let (wanted, agreed) = (number(version)?, u64::from(lock(world).members().version));
            (wanted == agreed).then_some(()).ok_or(format!("it is {agreed}"))
        }
        ["wait", "version", version] => {
            let wanted = number(version)?;
            let agreed = |world: &World| u64::from(world.members().version) == wanted;
            wait_for(world, "a version", agreed).await
        }
        ["settle"] => wait_for(world, "peace", |world| convergence::pending(world).is_none()).await,
        ["run", seconds] => {
            let seconds: u64 = seconds
                .parse()
                .map_err(|_| "not a number of seconds".to_owned())?;
            sleep(Duration::from_secs(seconds)).await;
            Ok(())
        }
        ["heal"] => {
            lock(world).net.heal();
            Ok(())
        }
        ["ipfs", "forgets", peer] => {
            for peer in who(world, peer)? {
                let ipfs = &mut lock(world).peers[peer].ipfs;
                ipfs.pinned.retain(|cid, _| ipfs.owned.contains(cid));
            }
            Ok(())
        }
        [expected @ ("holds" | "lacks"), content, peer] => {
            let (content, peer) = (cid(number(content)?), one(world, peer)?);
            let holds = lock(world).peers[peer].ipfs.pinned.contains_key(&content);
            if holds == (expected == "holds") {
                Ok(())
            } else {
                Err(format!("it {} it", if holds { "holds" } else { "lacks" }))
            }
        }
        ["ipfs", state, peer] => {
            for peer in who(world, peer)? {
                let mut world = lock(world);
                let ipfs = &mut world.peers[peer].ipfs;
                ipfs.up = state != "down";
                ipfs.full = state == "full";
            }
            Ok(())
        }
        ["moved", content, "from", peer] => {
            let content = number(content)?;
            let peer = one(world, peer)?;
            let world = lock(world);
            let pin = world
                .checks
                .model()
                .pins()
                .get(&cid(content))
                .ok_or("it is not pinned")?;
            let there = pin.is_allocated_to(&world.peers[peer].id);
            if there {
                Err(format!("it is still allocated there: {pin:?}"))
            } else {
                Ok(())
            }
        }
        ["pin" | "unpin" | "read", content, "at", peer, expected] => {
            let peer = one(world, peer)?;
            ask(world, words[0], number(content)?, peer, expected).await
        }
        [wish @ ("add" | "remove"), target, "at", peer, expected] => {
            let (target, peer) = (one(world, target)?, one(world, peer)?);
            change_members(world, wish, target, peer, expected).await
        }
        [what, peer] => {
            for peer in who(world, peer)? {
                happen(world, what, peer)?;
            }
            Ok(())
        }
        _ => Err("no such step".to_owned()),
    }
}

fn happen(world: &Shared, what: &str, peer: usize) -> Result<(), String> {
    match what {
        "kill" => lock(world).crash(peer, Death::Kill),
        "cut" => lock(world).crash(peer, Death::Cut),
        "start" => lock(world).restart(peer),
        "upgrade" => {
            let mut world = lock(world);
            world.upgrade(peer);
            world.restart(peer);
        }
        "fill" | "free" => lock(world).peers[peer].disk.full = what == "fill",
        "rot" => {
            let mut world = lock(world);
            let members = world.members().clone();
            world.burn(peer, 1 << 32 | peer as u64, members);
            world.peers[peer].disk.rotten = true;
        }
        "empty" => {
            let mut world = lock(world);
            let members = world.members().clone();
            world.burn(peer, 1 << 32 | peer as u64, members);
        }
        "remember" => lock(world).it = Some(peer),
        "leads" => {
            let leader = ready_leader(&lock(world));
            if leader != Some(peer) {
                return Err(format!("{leader:?} leads"));
            }
        }
        "isolate" => lock(world).net.cut_off(peer, true),
        "break" => {
            let mut world = lock(world);
            world.peers[peer].broken = true;
            world.crash(peer, Death::Cut);
        }
        "pause" => {
            let mut world = lock(world);
            world.peers[peer].paused = true;
            Handle::current().pause(world.nodes[peer]);
        }
        "resume" => resume(world, peer),
        _ => return Err("no such step".to_owned()),
    }
    Ok(())
}

async fn ask(world: &Shared, what: &str, content: u64, peer: usize, expected: &str) -> Result<(), String> {
    let patience = Duration::from_millis(lock(world).options.deadline_ms + 5000);
    let content = cid(content);
    let heard = match what {
        "pin" => {
            let count = lock(world).history.operations.len();
            let options = wish(format!("story-{count}"), default_replicas(&lock(world).options));
            pin_once(world, 1, peer, content, options, patience).await
        }
        "unpin" => unpin_once(world, 1, peer, content, patience).await,
        _ => read_once(world, 1, peer, content, patience).await,
    };
    let fits = match &heard {
        Heard::Pinned(_) | Heard::Unpinned(_) => expected == "ok",
        Heard::Found(Some(_)) => expected == "found",
        Heard::Found(None) => expected == "none",
        Heard::Refused(_) => expected == "refused",
        Heard::Unknown => expected == "unknown",
    };
    if fits || expected == "any" {
        Ok(())
    } else {
        Err(format!("hears {heard:?}"))
    }
}

/// How a peer stands to the cluster, as far as the furthest peer knows.
fn stands(world: &World, peer: usize) -> &'static str {
    let members = world.members();
    match members.raft_id(&world.peers[peer].id) {
        None => "gone",
        Some(id) if members.voters.contains(&id) => "voter",
        Some(_) => "member",
    }
}

async fn change_members(
    world: &Shared,
    wish: &str,
    target: usize,
    at: usize,
    expected: &str,
) -> Result<(), String> {
    let peer = lock(world).peers[target].id.clone();
    let request = if wish == "add" {
        Request::AddPeer { peer }
    } else {
        Request::RemovePeer { peer }
    };
    let patience = Duration::from_millis(lock(world).options.deadline_ms + 5000);
    let asked = clients::ask(world, at, request, patience).await;
    let heard = match &asked {
        Asked::Heard(Answer::Reply(Ok(_), _)) => "ok",
        Asked::Heard(Answer::Lost | Answer::Reply(Err(Refusal::Unknown), _)) | Asked::Impatient => "unknown",
        Asked::Heard(Answer::Reply(Err(_), _)) | Asked::Nobody => "refused",
    };
    lock(world).stats.membership_changes += u64::from(heard == "ok");
    if heard == expected || expected == "any" {
        Ok(())
    } else {
        Err(format!("hears {asked:?}"))
    }
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
    world
        .peers
        .iter()
        .position(|peer| peer.node.as_ref().is_some_and(|node| node.view().is_leader()))
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{text:?} is not a number"))
}

fn one(world: &Shared, text: &str) -> Result<usize, String> {
    who(world, text)?
        .first()
        .copied()
        .ok_or_else(|| "there is nobody".to_owned())
}

fn who(world: &Shared, text: &str) -> Result<Vec<usize>, String> {
    let world = lock(world);
    let all = 0..world.peers.len();
    let leader = ready_leader(&world);
    match text {
        "all" => Ok(all.collect()),
        "it" => Ok(vec![world.it.ok_or("nobody is remembered")?]),
        "leader" => Ok(vec![leader.ok_or("there is no leader")?]),
        "follower" => {
            let mut others = all.filter(|peer| Some(*peer) != leader && world.peers[*peer].node.is_some());
            Ok(vec![others.next().ok_or("there is no follower")?])
        }
        _ => {
            let peer = usize::try_from(number(text)?).map_err(|error| error.to_string())?;
            if all.contains(&peer) {
                Ok(vec![peer])
            } else {
                Err(format!("there is no peer {peer}"))
            }
        }
    }
}
