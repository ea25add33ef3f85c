//! Records that a cluster's peers send for many roots, and roots that lack a record for a while.
//!
//! All peers hold all roots, and the choice of announcers is the cluster's. The interval is short, and the
//! validity of a record as long in relation to it as by default: 48 of 22 hours.

use crate::servers::{Tally, network};
use crate::{Outcome, open, raw_cid};
use cluster_core::announce::announces;
use cluster_ipfs::settings::{ProvideStrategy, PublicNetwork, Routing};
use cluster_ipfs::{Block, Cid, Multiaddr, Node, PinMode};
use futures::{StreamExt, TryStreamExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Number of peers.
const PEERS: usize = 3;
/// Announcers of a root.
const COPIES: usize = 2;
/// Blocks stored together, and pins made at once.
const BATCH: usize = 1000;
/// Interval of checking the progress.
const POLL: Duration = Duration::from_millis(200);

/// Pins the roots at a node that announces nothing yet.
async fn fill(folder: &Path, roots: usize) -> Outcome<()> {
    let node = open(folder, PublicNetwork::default()).await?;
    let numbers: Vec<usize> = (0..roots).collect();
    for batch in numbers.chunks(BATCH) {
        let blocks = batch.iter().map(|number| {
            let data = number.to_string().into_bytes();
            let cid = raw_cid(&data)?;
            Ok(Block {
                cid,
                data: data.into(),
            })
        });
        let blocks: Vec<Block> = blocks.collect::<Outcome<_>>()?;
        let cids: Vec<Cid> = blocks.iter().map(|block| block.cid).collect();
        node.put_many(blocks).await?;
        let pins = cids
            .into_iter()
            .map(|cid| node.pin(cid, PinMode::Recursive, String::new(), |_| {}));
        let pinned = futures::stream::iter(pins).buffer_unordered(64);
        pinned.try_for_each(|()| std::future::ready(Ok(()))).await?;
    }
    node.shutdown().await;
    Ok(())
}

/// Opens the nodes of a cluster, each with its duty.
async fn cluster(folder: &Path, bootstrap: &[Multiaddr], interval: Duration) -> Outcome<Vec<Node>> {
    let mut nodes = Vec::new();
    for number in 0..PEERS {
        // Clients, so that all records go to the servers that count them.
        let network = PublicNetwork {
            private: false,
            routing: Routing::DhtClient,
            bootstrap: bootstrap.to_vec(),
            provide_strategy: ProvideStrategy::Roots,
            provide_interval: interval,
            ..PublicNetwork::default()
        };
        nodes.push(open(&folder.join(number.to_string()), network).await?);
    }
    let member = |node: &Node| cluster_core::PeerId::from_bytes(&node.id().peer_id.to_bytes());
    let members: Option<Vec<cluster_core::PeerId>> = nodes.iter().map(member).collect();
    let members = Arc::new(members.ok_or("a peer id that is none of a cluster's")?);
    for (node, me) in nodes.iter().zip(members.iter().cloned()) {
        let all = members.clone();
        node.set_duty(Arc::new(move |_, region| {
            announces(&me, region, all.iter(), COPIES)
        }));
    }
    Ok(nodes)
}

/// Measures the second interval.
pub(crate) async fn run(roots: usize, servers: usize, interval: Duration) -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    for number in 0..PEERS {
        fill(&folder.path().join(number.to_string()), roots).await?;
    }
    let tally = Arc::new(Tally::default());
    let bootstrap = network(servers, 0, Some(&tally)).await?;
    let start = Instant::now();
    let nodes = cluster(folder.path(), &bootstrap, interval).await?;
    let is_done = |node: &Node| {
        let stat = node.provide_stat();
        stat.regions_current == stat.regions
    };
    while !nodes.iter().all(is_done) {
        if start.elapsed() > interval {
            return Err(format!("the first pass takes longer than {interval:?}").into());
        }
        tokio::time::sleep(POLL).await;
    }
    let pass = start.elapsed();
    let first = tally.take().len();
    tokio::time::sleep(interval).await;
    let (end, validity) = (Instant::now(), interval * 48 / 22);
    let second = tally.take();
    let records: usize = second.iter().map(|announced| announced.records).sum();
    let lacks = |gap: Duration, last: Instant| gap.max(end - last) > validity;
    let lacking = second
        .iter()
        .filter(|announced| lacks(announced.gap, announced.last))
        .count();
    let failed: u64 = nodes.iter().map(|node| node.provide_stat().failed_sends).sum();
    println!(
        "{roots} roots at {PEERS} peers, {servers} servers, interval {interval:?}: {:.1} records per root in the \
         second interval, {} roots without a record at some time, {failed} failed sends, first pass {pass:?}",
        records as f64 / roots as f64,
        lacking + roots.saturating_sub(first),
    );
    Ok(())
}
