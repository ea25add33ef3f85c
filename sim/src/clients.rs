//! Clients: pin, unpin and read at the leader or any peer, give up after a time limit, and record the
//! answers. A timeout is not a failure: the request may have taken effect.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use cluster_core::{
    Cid, Credential, CredentialId, Drain, MembersWish, Mode, PeerId, Pin, PinOptions, PinType, PinsetView,
    RebalanceChange, RebalanceSettings, Refusal, Replicas, Reply, Request, Scope, ScrubChange, Ticket,
    Timestamp,
};
use madsim::time::sleep;

use crate::coverage::sometimes;
use crate::driver::wake_after;
use crate::history::{Call, Heard};
use crate::options::Options;
use crate::peer::{Peer, cid, default_replicas, peer_id};
use crate::rng::Rng;
use crate::world::{Answer, Shared, World, lock};

/// Runs one client until the first phase ends.
pub(crate) async fn run(world: Shared, number: u64) {
    let options = lock(&world).options.clone();
    let mut client = Client {
        rng: Rng::new(options.seed, &format!("client {number}")),
        number,
        made: 0,
        writes: 0,
        peer: usize::try_from(number % options.peers).expect("a few peers"),
        last_wish: None,
        options,
    };
    if number == 0 {
        client.ask_for_many(&world).await;
    }
    loop {
        let longest = Duration::from_millis(client.options.think_ms * 2);
        sleep(client.rng.up_to(longest)).await;
        if lock(&world).is_calm() {
            return;
        }
        client.choose_peer(&world);
        client.act(&world).await;
    }
}

/// Number of pins that are requested together.
const BULK: u64 = 256;

struct Client {
    options: Options,
    rng: Rng,
    number: u64,
    made: u64,
    /// Number of writes so far.
    writes: u64,
    peer: usize,
    last_wish: Option<(Cid, PinOptions)>,
}

impl Client {
    /// Pins many CIDs, some hundred at a time, and waits for the last answer of each group only.
    async fn ask_for_many(&mut self, world: &Shared) {
        let mut asked = 0;
        let mut pause = Duration::from_secs(3);
        while asked < self.options.bulk {
            sleep(pause).await;
            pause = Duration::from_millis(100);
            if lock(world).is_calm() {
                return;
            }
            self.choose_peer(world);
            let mut tickets = Vec::new();
            for number in asked..(asked + BULK).min(self.options.bulk) {
                let mut options = wish(format!("bulk-{number}"), default_replicas(&self.options));
                self.add_metadata(&mut options);
                if self.rng.chance(self.options.op_expire) {
                    options.expire_at = self.draw_expiry(world);
                }
                let call = Call::Pin {
                    name: options.name.clone(),
                    options: Box::new(options.clone()),
                    owner: None,
                };
                let cid = cid(number % self.options.cids);
                let mut world = lock(world);
                let operation = world.history.call(self.number, self.peer, cid.clone(), call);
                let owner = None;
                let ticket = world.submit(self.peer, Request::Pin { cid, options, owner });
                tickets.push((operation, ticket));
            }
            asked += BULK;
            for (operation, ticket) in tickets {
                let outcome = match ticket {
                    None => Asked::Nobody,
                    Some(ticket) => answer(world, ticket, self.patience()).await,
                };
                record(world, operation, outcome);
            }
            lock(world).coverage.hit("many pins were asked for at once");
        }
    }

    fn choose_peer(&mut self, world: &Shared) {
        let world = lock(world);
        let leader = world.peers.iter().position(Peer::leads);
        if let Some(leader) = leader.filter(|_| self.rng.chance(self.options.to_leader)) {
            self.peer = leader;
        } else if self.rng.chance(100) || world.peers[self.peer].node.is_none() {
            self.peer = self.rng.index(world.peers.len());
        }
    }

    async fn act(&mut self, world: &Shared) {
        let cid = cid(self.rng.below(self.options.cids));
        let draw = self.rng.below(1000);
        let options = &self.options;
        let (unpin, read, local) = (options.op_unpin, options.op_read, options.op_local);
        if self.rng.chance(self.options.op_members) {
            self.change_members(world).await;
        } else if self.options.op_credentials > 0 && self.rng.chance(self.options.op_credentials) {
            self.change_credentials(world).await;
        } else if self.options.op_drain > 0 && self.rng.chance(self.options.op_drain) {
            self.change_drains(world).await;
        } else if self.options.op_rebalance > 0 && self.rng.chance(self.options.op_rebalance) {
            self.change_rebalancing(world).await;
        } else if self.options.op_scrub > 0 && self.rng.chance(self.options.op_scrub) {
            self.change_scrub(world);
        } else if draw < unpin {
            let target = (cid, self.owner());
            unpin_once(world, self.number, self.peer, target, self.patience()).await;
        } else if draw < unpin + read {
            read_once(world, self.number, self.peer, cid, self.patience()).await;
        } else if draw < unpin + read + local {
            let request = Request::Allocate {
                cid: Some(cid),
                near: Some(peer_id(self.peer)),
                options: self.wish(world),
            };
            self.ask(world, request).await;
        } else if draw < unpin + read + local + options.op_recover {
            let request = match self.rng.below(4) {
                0 => Request::RecoverAll,
                1 => Request::Recover { cid },
                2 => Request::Sync { cid: Some(cid) },
                _ => Request::Sync { cid: None },
            };
            self.ask(world, request).await;
        } else {
            let (cid, wish) = self.draw_pin(world, cid);
            let target = (cid, self.owner());
            pin_once(world, self.number, self.peer, target, wish, self.patience()).await;
        }
    }

    /// Draws a pin: the last one again, mostly with changed options, or one of `cid`.
    fn draw_pin(&mut self, world: &Shared, cid: Cid) -> (Cid, PinOptions) {
        let repeats = self.last_wish.is_some() && self.rng.chance(self.options.op_repeat);
        let pin = match self.last_wish.clone().filter(|_| repeats) {
            Some((cid, mut wish)) => {
                if self.rng.chance(600) {
                    self.change_options(world, &mut wish);
                }
                (cid, wish)
            }
            None => {
                let mut wish = self.wish(world);
                if self.rng.chance(self.options.op_update) {
                    wish.pin_update = Some(crate::peer::cid(self.rng.below(self.options.cids)));
                }
                (cid, wish)
            }
        };
        self.last_wish = Some(pin.clone());
        pin
    }

    /// Sends a request, and waits for the answer.
    async fn ask(&mut self, world: &Shared, request: Request) -> Asked {
        let patience = self.patience();
        ask(world, self.peer, request, patience).await
    }

    /// Adds or removes a peer. Keeps enough peers for a quorum.
    async fn change_members(&mut self, world: &Shared) {
        // A late request would still be in progress when the second phase decides which peers are needed.
        if World::now() / 1_000_000_000 + 5 > self.options.seconds {
            return;
        }
        let (peer, removes) = {
            let world = lock(world);
            let members = world.members();
            let target = self.rng.index(world.peers.len());
            let peer = world.peers[target].id.clone();
            let is_well = |peer: &&Peer| peer.up && members.raft_id(&peer.id).is_some();
            let well = world.peers.iter().filter(is_well).count();
            match members.raft_id(&peer) {
                None if self.options.op_readd > 0 || !members.departed.contains(&peer) => (peer, false),
                Some(_)
                    if well > 3
                        && members.leaving.is_empty()
                        && world.removals.is_empty()
                        && world.has_quorum_without(&BTreeSet::from([peer.clone()])) =>
                {
                    (peer, true)
                }
                None | Some(_) => return,
            }
        };
        let (named, wished) = (peer.clone(), peer.clone());
        let (request, wish) = if removes {
            lock(world).removals.insert(peer.clone());
            let request = Request::RemovePeer { peer: named };
            (request, MembersWish::Remove { peer: wished })
        } else {
            (
                Request::AddPeer { peer: named },
                MembersWish::Add { peer: wished },
            )
        };
        let asked = self.ask(world, request).await;
        let (is_over, is_refused) = match &asked {
            Asked::Nobody => (true, true),
            Asked::Heard(Answer::Reply(reply, _)) => {
                let is_over = *reply != Err(Refusal::Unknown);
                (is_over, is_over && reply.is_err())
            }
            Asked::Heard(Answer::Lost) | Asked::Impatient => (false, false),
        };
        // A conflict is detected when the wish is applied: the log contains it, and it changes nothing.
        let conflicts = matches!(&asked, Asked::Heard(Answer::Reply(Err(Refusal::Conflict(_)), _)));
        lock(world).history.wished(wish, !is_refused || conflicts);
        let mut world = lock(world);
        if is_over && removes {
            world.removals.remove(&peer);
        }
        if let Asked::Heard(Answer::Reply(Ok(_), _)) = asked {
            world.stats.membership_changes += 1;
            world.coverage.hit(if removes {
                "a peer was removed"
            } else {
                "a peer was added"
            });
        }
    }

    /// Creates a credential, whose name may be taken, or revokes one that the asked peer knows.
    async fn change_credentials(&mut self, world: &Shared) {
        self.made += 1;
        let known: Vec<CredentialId> = {
            let world = lock(world);
            let credentials = world.peers[self.peer].disk.written.policy.credentials.iter();
            credentials.map(|credential| credential.id).collect()
        };
        let request = if !known.is_empty() && self.rng.chance(500) {
            let id = *self.rng.pick(&known);
            Request::RevokeCredential { id }
        } else {
            let credential = Credential {
                id: CredentialId((self.number << 32) | self.made),
                name: format!("n{}", self.rng.below(8)),
                hash: [u8::try_from(self.number).expect("a few clients"); 32],
                scopes: [Scope::Read].into(),
                created: Timestamp(self.made),
                expire_at: None,
                limits: Vec::new(),
            };
            Request::CreateCredential { credential }
        };
        self.ask(world, request).await;
    }

    /// Drains a member, or ends a drain that the asked peer knows.
    async fn change_drains(&mut self, world: &Shared) {
        let (known, members): (Vec<PeerId>, Vec<PeerId>) = {
            let world = lock(world);
            let store = &world.peers[self.peer].disk.written;
            let known = store.policy.drains.iter().map(|drain| drain.peer.clone());
            (known.collect(), world.members().peer_ids().cloned().collect())
        };
        let request = if !known.is_empty() && self.rng.chance(400) {
            let peer = self.rng.pick(&known).clone();
            Request::EndDrain { peer }
        } else if members.is_empty() {
            return;
        } else {
            let drain = Drain {
                peer: self.rng.pick(&members).clone(),
                since: Timestamp(World::now()),
                pins: 0,
                moves_max: *self.rng.pick(&[1, 3, 256]),
            };
            Request::Drain { drain }
        };
        self.ask(world, request).await;
    }

    /// Changes the settings of the rebalancing, or starts or ends a run.
    async fn change_rebalancing(&mut self, world: &Shared) {
        let change = match self.rng.below(5) {
            0 | 1 => RebalanceChange::Settings(RebalanceSettings {
                automatic: self.rng.chance(600),
                threshold_percent: *self.rng.pick(&[0, 10, 50]),
                moves_max: *self.rng.pick(&[1, 3, 256]),
                moves_total_max: *self.rng.pick(&[2, 8, 512]),
                ..RebalanceSettings::default()
            }),
            2 | 3 => RebalanceChange::Start {
                since: Timestamp(World::now()),
            },
            _ => RebalanceChange::End { since: None },
        };
        self.ask(world, Request::Rebalance { change }).await;
    }

    /// Changes the scrub of a peer.
    fn change_scrub(&mut self, world: &Shared) {
        let share = *self.rng.pick(&[None, Some(100), Some(500), Some(1000)]);
        let changes = [
            ScrubChange::Start,
            ScrubChange::Pause,
            ScrubChange::Resume,
            ScrubChange::Share(share),
        ];
        let change = *self.rng.pick(&changes);
        let mut world = lock(world);
        let changed = !world.calm && world.change_scrub(self.peer, change);
        let paused = changed && change == ScrubChange::Pause;
        sometimes!(world.coverage, paused, "a scrub was paused");
    }

    /// Repeats a request under the same name with one or two options changed.
    fn change_options(&mut self, world: &Shared, wish: &mut PinOptions) {
        for _ in 0..self.rng.range(1, 2) {
            match self.rng.below(6) {
                0 => wish.expire_at = self.draw_expiry(world),
                1 => wish.expire_at = None,
                2 => {
                    wish.metadata
                        .insert("turn".to_owned(), self.rng.below(1000).to_string());
                }
                3 => wish.origins = vec![format!("/ip4/10.0.0.{}/tcp/4001", self.rng.below(250))],
                4 => wish.shard_size = self.rng.below(1 << 20),
                _ => {
                    wish.mode = match wish.mode {
                        Mode::Direct => Mode::Recursive,
                        Mode::Recursive => Mode::Direct,
                    };
                }
            }
        }
    }

    /// Draws a time within the run, by the clock of the peer that is asked.
    fn draw_expiry(&mut self, world: &Shared) -> Option<Timestamp> {
        if self.options.op_expire == 0 {
            return None;
        }
        let soon = self.rng.range(1, 20) * 1_000_000_000;
        let now = lock(world).peers[self.peer].now(World::now()).wall;
        Some(Timestamp(now.0 + soon))
    }

    /// Draws the number of additional bytes in a pin's name or metadata: mostly none, sometimes the maximum.
    fn add_metadata(&mut self, options: &mut PinOptions) {
        let most = usize::try_from(self.options.pin_bytes).expect("a small number");
        let size = match self.rng.below(4) {
            0 => most,
            1 => self.rng.index(most + 1),
            _ => return,
        };
        if size == 0 {
            return;
        }
        let text: String = std::iter::repeat_n('x', size).collect();
        options.metadata.insert("weight".to_owned(), text);
    }

    /// Draws the owner as which a write acts, from its own stream.
    fn owner(&mut self) -> Option<String> {
        self.writes += 1;
        if self.options.op_owner == 0 {
            return None;
        }
        let purpose = format!("owner {} {}", self.number, self.writes);
        let mut rng = Rng::new(self.options.seed, &purpose);
        let is_owner = rng.chance(self.options.op_owner);
        is_owner.then(|| (*rng.pick(&["ann", "bob", "cy"])).to_owned())
    }

    fn patience(&mut self) -> Duration {
        let usual = Duration::from_millis(self.options.patience_ms);
        if self.rng.chance(100) { usual / 10 } else { usual }
    }

    fn wish(&mut self, world: &Shared) -> PinOptions {
        self.made += 1;
        let name = format!("c{}-{}", self.number, self.made);
        let mut options = wish(name, default_replicas(&self.options));
        if self.rng.chance(self.options.op_replicas) {
            let max = u32::try_from(self.rng.range(1, self.options.peers)).expect("a few peers");
            let min = u32::try_from(self.rng.range(1, u64::from(max))).expect("a few peers");
            let everywhere = self.rng.chance(200);
            options.replicas = if everywhere {
                Replicas::Everywhere
            } else {
                Replicas::Range { min, max }
            };
        }
        if self.rng.chance(self.options.op_expire) {
            options.expire_at = self.draw_expiry(world);
        }
        self.add_metadata(&mut options);
        if self.rng.chance(200) {
            let peers = usize::try_from(self.options.peers).expect("a few peers");
            let preferred = self.rng.index(peers);
            options.user_allocations = vec![peer_id(preferred)];
            let purpose = format!("second choice {} {}", self.number, self.made);
            let mut rng = Rng::new(self.options.seed, &purpose);
            let second = rng.index(peers);
            if second != preferred && rng.chance(500) {
                options.user_allocations.push(peer_id(second));
            }
        }
        if self.rng.chance(50) {
            options.mode = Mode::Direct;
        }
        options
    }
}

/// Returns options with this name and number of copies, and defaults otherwise.
pub(crate) fn wish(name: String, replicas: Replicas) -> PinOptions {
    PinOptions {
        name,
        ..PinOptions::new(replicas)
    }
}

/// Pins a CID, as an owner if one is given, and records the outcome.
pub(crate) async fn pin_once(
    world: &Shared,
    client: u64,
    peer: usize,
    (cid, owner): (Cid, Option<String>),
    options: PinOptions,
    patience: Duration,
) -> Heard {
    let call = Call::Pin {
        name: options.name.clone(),
        options: Box::new(options.clone()),
        owner: owner.clone(),
    };
    // Every tenth is an import, as from a file.
    let request = if options.name.ends_with('7') {
        lock(world).coverage.hit("a pin was imported");
        import(cid.clone(), options, owner)
    } else {
        let cid = cid.clone();
        Request::Pin { cid, options, owner }
    };
    write(world, client, peer, cid, call, request, patience).await
}

fn import(cid: Cid, options: PinOptions, owner: Option<String>) -> Request {
    // Other types than data exist in imports only.
    let pin_type = if options.name.ends_with("17") {
        PinType::Meta
    } else {
        PinType::Data
    };
    let pin = Pin {
        cid,
        pin_type,
        allocations: options.user_allocations.clone(),
        reference: None,
        options,
        timestamp: Timestamp(1),
        version: 0,
    };
    Request::Import { pin, owner }
}

/// Unpins a CID, as an owner if one is given, and records the outcome.
pub(crate) async fn unpin_once(
    world: &Shared,
    client: u64,
    peer: usize,
    (cid, owner): (Cid, Option<String>),
    patience: Duration,
) -> Heard {
    let request = Request::Unpin {
        cid: cid.clone(),
        owner: owner.clone(),
    };
    write(world, client, peer, cid, Call::Unpin { owner }, request, patience).await
}

async fn write(
    world: &Shared,
    client: u64,
    peer: usize,
    cid: Cid,
    call: Call,
    request: Request,
    patience: Duration,
) -> Heard {
    let operation = lock(world).history.call(client, peer, cid, call);
    let asked = ask(world, peer, request, patience).await;
    record(world, operation, asked)
}

/// Records the outcome of a write.
fn record(world: &Shared, operation: usize, asked: Asked) -> Heard {
    let (heard, applied) = match asked {
        Asked::Nobody => (Heard::Refused(Refusal::NoLeader), 0),
        Asked::Impatient | Asked::Heard(Answer::Lost | Answer::Reply(Err(Refusal::Unknown), _)) => {
            (Heard::Unknown, 0)
        }
        Asked::Heard(Answer::Reply(reply, applied)) => (understood(reply), applied),
    };
    let mut world = lock(world);
    note(&mut world, &heard);
    world.history.returns(operation, heard.clone(), applied);
    heard
}

fn understood(reply: Result<Reply, Refusal>) -> Heard {
    match reply {
        Ok(Reply::Pinned(pin)) => Heard::Pinned(Box::new(pin)),
        Ok(Reply::Unpinned(pin)) => Heard::Unpinned(Box::new(pin)),
        Ok(other) => unreachable!("no answer to a write: {other:?}"),
        Err(refusal) => Heard::Refused(refusal),
    }
}

fn note(world: &mut World, heard: &Heard) {
    world.stats.client_ops += 1;
    let fine = matches!(heard, Heard::Pinned(_) | Heard::Unpinned(_) | Heard::Found(_));
    world.stats.client_ok += u64::from(fine);
    let Heard::Refused(refusal) = heard else {
        let is_unknown = *heard == Heard::Unknown;
        sometimes!(world.coverage, is_unknown, "an outcome stayed unknown");
        return;
    };
    world.coverage.hit(match refusal {
        Refusal::Busy => "refused: busy",
        Refusal::Conflict(_) => "refused: conflict",
        Refusal::Credential(_) => "refused: credential",
        Refusal::Drain(_) => "refused: drain",
        Refusal::IpfsFailed(_) => "refused: the IPFS node failed",
        Refusal::NoLeader => "refused: no leader",
        Refusal::NotEnoughPeers { .. } => "refused: not enough peers",
        Refusal::NotFound => "refused: not found",
        Refusal::NotMember => "refused: not a member",
        Refusal::Rebalance(_) => "refused: no rebalancing",
        Refusal::TooLarge(_) => "refused: too large",
        Refusal::Unknown => "refused: unknown",
        Refusal::Unreadable(_) => "refused: unreadable",
    });
}

/// Waits until the peer's copy is up to date, reads, and records the result.
pub(crate) async fn read_once(
    world: &Shared,
    client: u64,
    peer: usize,
    cid: Cid,
    patience: Duration,
) -> Heard {
    let (operation, floor, boot) = {
        let mut world = lock(world);
        let operation = world.history.call(client, peer, cid.clone(), Call::Read);
        (operation, world.checks.decided(), world.peers[peer].disk.boot())
    };
    let asked = ask(world, peer, Request::Barrier, patience).await;
    let mut world = lock(world);
    let served = match asked {
        Asked::Heard(Answer::Reply(Ok(Reply::Barrier(index)), applied)) => Some((index, applied)),
        Asked::Heard(Answer::Reply(Err(_), _) | Answer::Lost) | Asked::Nobody | Asked::Impatient => None,
        Asked::Heard(Answer::Reply(Ok(other), _)) => unreachable!("no answer to a barrier: {other:?}"),
    };
    // The read follows the answer at once; the process may have ended by then.
    let served = served.filter(|_| world.peers[peer].node.is_some() && world.peers[peer].disk.boot() == boot);
    let Some((index, _)) = served else {
        world.history.returns(operation, Heard::Unknown, 0);
        note(&mut world, &Heard::Unknown);
        return Heard::Unknown;
    };
    let store = &world.peers[peer].disk.written;
    let found = store.pin(&cid).map(Box::new);
    let applied = store.applied.index;
    let at = World::now();
    world.checks.read_served(at, peer, floor, index);
    world.stopped |= !world.checks.violations.is_empty();
    let heard = Heard::Found(found);
    note(&mut world, &heard);
    world.history.returns(operation, heard.clone(), applied);
    heard
}

/// Result of asking a peer.
#[allow(clippy::large_enum_variant, reason = "few exist at a time")]
#[derive(Debug)]
pub(crate) enum Asked {
    /// The peer answered, or died.
    Heard(Answer),
    /// The client gave up waiting.
    Impatient,
    /// No peer was running.
    Nobody,
}

/// Sends a request to a peer, and waits for the answer.
pub(crate) async fn ask(world: &Shared, peer: usize, request: Request, patience: Duration) -> Asked {
    let Some(ticket) = lock(world).submit(peer, request) else {
        return Asked::Nobody;
    };
    answer(world, ticket, patience).await
}

/// Waits for the answer to a request.
async fn answer(world: &Shared, ticket: Ticket, patience: Duration) -> Asked {
    let until = World::now() + u64::try_from(patience.as_nanos()).expect("below 2^64 nanoseconds");
    let mut armed = false;
    poll_fn(|cx| {
        let mut world = lock(world);
        let slot = world
            .slots
            .get_mut(&ticket)
            .expect("open until its client lets go");
        if let Some(answer) = slot.answer.take() {
            world.slots.remove(&ticket);
            return Poll::Ready(Asked::Heard(answer));
        }
        if World::now() >= until {
            world.abandon(ticket);
            return Poll::Ready(Asked::Impatient);
        }
        slot.waker = Some(cx.waker().clone());
        if !armed {
            armed = true;
            wake_after(cx, patience);
        }
        Poll::Pending
    })
    .await
}
