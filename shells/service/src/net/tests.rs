//! Peers on real sockets, on ports that the system picks.

mod calls;
mod connections;
mod messages;
mod snapshots;

use cluster_core::{Incarnation, Manifest, Members, Message, RaftKind, RaftMessage, VERSION};
use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// Far longer than anything here takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

const WITHIN: Deadline = Deadline::Within(PATIENCE);

const CLUSTER: ClusterId = ClusterId([7; 16]);

const LOOPBACK: &str = "/ip4/127.0.0.1/tcp/0";

struct Peer {
    net: Net,
    events: NetEvents,
}

fn keypair(seed: u8) -> Keypair {
    Keypair::ed25519_from_bytes([seed; 32]).unwrap()
}

fn id(seed: u8) -> PeerId {
    peer_id_of(&keypair(seed).public().to_peer_id())
}

fn config(seed: u8) -> NetConfig {
    NetConfig {
        keypair: keypair(seed),
        secret: Some([9; 32]),
        accepted_secrets: Vec::new(),
        listen: vec![LOOPBACK.parse().unwrap()],
        announce: Vec::new(),
        no_announce: Vec::new(),
        version: VERSION,
        cluster: CLUSTER,
        known_peers: BTreeMap::new(),
        open_methods: BTreeSet::from(["open".to_owned()]),
    }
}

async fn start(config: NetConfig) -> Peer {
    let (net, events) = Net::start(config).await.unwrap();
    Peer { net, events }
}

/// Makes `of` a member at `at`, together with those introduced before, and gives `at` its addresses.
async fn introduce(at: &Peer, of: &Peer) {
    at.net.add_addresses(of.net.peer_id(), of.net.addresses()).await;
    let mut members = BTreeSet::clone(&at.net.shared.members.borrow());
    members.insert(of.net.peer_id().clone());
    at.net.set_members(members).await;
}

/// Two members with one connection, dialled by the first. If both dialled, a second connection might come
/// at any time, replace the first, and lose the messages on their way.
async fn pair_of(one: NetConfig, other: NetConfig) -> (Peer, Peer) {
    let (one, other) = (start(one).await, start(other).await);
    other.net.set_members(BTreeSet::from([one.id().clone()])).await;
    introduce(&one, &other).await;
    until("they are connected", || {
        one.net.connected().len() + other.net.connected().len() == 2
    })
    .await;
    introduce(&other, &one).await;
    (one, other)
}

async fn pair() -> (Peer, Peer) {
    pair_of(config(1), config(2)).await
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let wait = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    if tokio::time::timeout(PATIENCE, wait).await.is_err() {
        panic!("it never came true that {what}");
    }
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited in vain for {what}"),
    }
}

/// Returns a message of about `size` bytes that carries its number.
fn envelope(number: u64, size: usize) -> Envelope {
    let message = RaftMessage {
        index: number,
        context: vec![0; size],
        ..raft_message(RaftKind::Append)
    };
    Envelope {
        cluster: CLUSTER,
        incarnation: Incarnation(1),
        addressee: None,
        version: VERSION,
        message: Message::Raft(message),
    }
}

fn raft_message(kind: RaftKind) -> RaftMessage {
    RaftMessage::new(kind, cluster_core::RaftId(1), cluster_core::RaftId(2), 1)
}

fn number_of(event: &CoreEvent) -> Option<u64> {
    let CoreEvent::Received { envelope, .. } = event else {
        return None;
    };
    let Message::Raft(message) = &envelope.message else {
        return None;
    };
    Some(message.index)
}

impl Peer {
    fn id(&self) -> &PeerId {
        self.net.peer_id()
    }

    /// Returns the number of the next message; other events are skipped.
    async fn message(&mut self) -> u64 {
        let next = async {
            loop {
                let event = self.events.core.recv().await.expect("the network runs");
                if let Some(number) = number_of(&event) {
                    return number;
                }
            }
        };
        soon("a message", next).await
    }

    /// Sends a message repeatedly until it arrives: while a connection is made, any may be lost.
    async fn reach(&self, other: &mut Self, number: u64) {
        let to = other.id().clone();
        let sending = async {
            loop {
                self.net.send(&to, &envelope(number, 0));
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let arriving = async { while other.message().await != number {} };
        tokio::select! {
            () = sending => {}
            () = arriving => {}
        }
    }

    async fn unreachable(&mut self, peer: &PeerId) {
        let wanted = CoreEvent::Unreachable { peer: peer.clone() };
        let next = async { while self.events.core.recv().await.expect("the network runs") != wanted {} };
        soon("the report that a peer is unreachable", next).await;
    }

    async fn incoming(&mut self) -> Incoming {
        soon("a call", self.events.calls.recv())
            .await
            .expect("the network runs")
    }
}
