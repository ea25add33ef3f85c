//! Measures the network between two peers, over loopback, both in this process:
//!
//! ```text
//! cargo run --release -p ipfs-cluster-service --example netbench
//! ```
//!
//! Each end has a thread that receives core messages, as the driver does, so wake-ups are included.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cluster_core::{ClusterId, Envelope, Incarnation, Message, RaftId, RaftKind, RaftMessage, VERSION};
use ipfs_cluster_service::net::{CoreEvent, CoreEvents, Deadline, Keypair, Net, NetConfig, NetEvents};

const CLUSTER: ClusterId = ClusterId([1; 16]);
const ROUNDS: usize = 20_000;
const MESSAGES: u64 = 1_000_000;
/// Messages in flight; fewer than a peer's queue holds.
const WINDOW: u64 = 500;
const UPLOAD: usize = 1 << 30;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    for secret in [None, Some([7; 32])] {
        println!(
            "{}",
            if secret.is_some() {
                "with a secret"
            } else {
                "without a secret"
            }
        );
        measure(secret).await?;
    }
    Ok(())
}

async fn measure(secret: Option<[u8; 32]>) -> anyhow::Result<()> {
    let (one, one_events) = start(secret).await?;
    let (other, other_events) = start(secret).await?;
    for (at, of) in [(&one, &other), (&other, &one)] {
        at.add_addresses(of.peer_id(), of.addresses()).await;
        at.set_members(BTreeSet::from([of.peer_id().clone()])).await;
    }
    let received = Arc::new(AtomicU64::new(0));
    let counting = Arc::new(AtomicBool::new(false));
    let NetEvents { core, mut calls, .. } = other_events;
    answer_messages(
        other.clone(),
        one.peer_id().clone(),
        core,
        Arc::clone(&received),
        Arc::clone(&counting),
    );
    tokio::spawn(async move {
        while let Some(mut call) = calls.recv().await {
            tokio::spawn(async move {
                while let Some(Ok(_)) = call.next().await {}
                call.finish(Ok(())).await
            });
        }
    });

    let mut core = round_trips("idle", &one, &other, one_events.core).await?;
    counting.store(true, Ordering::SeqCst);
    pipelined(&one, &other, &received).await;
    counting.store(false, Ordering::SeqCst);
    upload(&one, &other).await?;
    let (uploader, to) = (one.clone(), other.clone());
    let busy = tokio::spawn(async move { upload(&uploader, &to).await });
    core = round_trips("during an upload", &one, &other, core).await?;
    drop(core);
    busy.await??;
    one.shutdown().await;
    other.shutdown().await;
    Ok(())
}

async fn start(secret: Option<[u8; 32]>) -> anyhow::Result<(Net, NetEvents)> {
    let config = NetConfig {
        keypair: Keypair::generate_ed25519(),
        secret,
        accepted_secrets: Vec::new(),
        listen: vec!["/ip4/127.0.0.1/tcp/0".parse()?],
        no_announce: Vec::new(),
        announce: Vec::new(),
        version: VERSION,
        cluster: CLUSTER,
        known_peers: BTreeMap::new(),
        open_methods: BTreeSet::new(),
    };
    Ok(Net::start(config).await?)
}

/// A message of 128 bytes.
fn envelope() -> Envelope {
    let message = RaftMessage {
        context: vec![0; 87],
        ..RaftMessage::new(RaftKind::Heartbeat, RaftId(1), RaftId(2), 1)
    };
    Envelope {
        cluster: CLUSTER,
        incarnation: Incarnation(1),
        addressee: None,
        version: VERSION,
        message: Message::Raft(message),
    }
}

fn answer_messages(
    net: Net,
    to: cluster_core::PeerId,
    mut core: CoreEvents,
    received: Arc<AtomicU64>,
    counting: Arc<AtomicBool>,
) {
    std::thread::spawn(move || {
        while let Some(event) = core.blocking_recv() {
            if let CoreEvent::Received { envelope, .. } = event {
                received.fetch_add(1, Ordering::SeqCst);
                if !counting.load(Ordering::SeqCst) {
                    net.send(&to, &envelope);
                }
            }
        }
    });
}

async fn round_trips(when: &str, one: &Net, other: &Net, core: CoreEvents) -> anyhow::Result<CoreEvents> {
    let (net, to, when) = (one.clone(), other.peer_id().clone(), when.to_owned());
    let measuring = tokio::task::spawn_blocking(move || {
        let mut core = core;
        let mut times = Vec::with_capacity(ROUNDS);
        while times.len() < ROUNDS {
            let start = Instant::now();
            net.send(&to, &envelope());
            match core.blocking_recv() {
                Some(CoreEvent::Received { .. }) => times.push(start.elapsed()),
                Some(CoreEvent::Unreachable { .. }) => std::thread::sleep(Duration::from_millis(10)),
                None => break,
            }
        }
        times.sort();
        let at = |share: f64| times[(times.len() as f64 * share) as usize];
        println!("  round trip, {when}: p50 {:?}, p99 {:?}", at(0.5), at(0.99));
        core
    });
    Ok(measuring.await?)
}

async fn pipelined(one: &Net, other: &Net, received: &AtomicU64) {
    let (start, first, message) = (Instant::now(), received.load(Ordering::SeqCst), envelope());
    for sent in 0..MESSAGES {
        while sent - (received.load(Ordering::SeqCst) - first) >= WINDOW {
            tokio::task::yield_now().await;
        }
        one.send(other.peer_id(), &message);
    }
    while received.load(Ordering::SeqCst) - first < MESSAGES - one.losses().dropped.min(MESSAGES) {
        tokio::task::yield_now().await;
    }
    let rate = MESSAGES as f64 / start.elapsed().as_secs_f64();
    println!(
        "  one way: {rate:.0} messages/s, {} dropped",
        one.losses().dropped
    );
}

async fn upload(one: &Net, other: &Net) -> anyhow::Result<()> {
    let deadline = Deadline::Silence(Duration::from_secs(30));
    let chunk = vec![1; 1 << 20];
    let start = Instant::now();
    let (mut sender, call) = one.upload(other.peer_id(), "upload", &[], deadline).await?;
    for _ in 0..UPLOAD / chunk.len() {
        sender.send(&chunk).await?;
    }
    sender.end().await?;
    call.done().await?;
    let rate = UPLOAD as f64 / start.elapsed().as_secs_f64() / 1e6;
    println!("  upload in chunks of 1 MiB: {rate:.0} MB/s");
    Ok(())
}
