//! Metrics, alerts, the connection graph, bandwidth, and garbage collection of the IPFS nodes.

use std::collections::BTreeMap;
use std::time::Duration;

use cluster_api as api;
use cluster_core::{PeerId, Received, Timestamp};
use futures::StreamExt;
use tokio::sync::mpsc;

use super::peers::{KnownMembers, concurrently};
use super::rpc::{self, Answer, Call, Collected};
use super::{Cluster, Error, convert};
use crate::net::Traffic;

/// Maximum of removed keys listed for each peer. The Go peer lists all of them from memory; a repository of
/// 1 TB may have 4 million.
const KEYS_MAX: usize = 100_000;

/// Maximum of removed keys in one answer.
const KEYS_AT_ONCE: usize = 512;

impl Cluster {
    /// Returns the names of all metrics, sorted.
    ///
    /// # Errors
    /// This peer is shutting down.
    pub async fn metric_names(&self) -> Result<Vec<String>, Error> {
        self.view(|view, _| {
            let mut names: Vec<String> = view.metric_names().into_iter().map(str::to_owned).collect();
            names.sort();
            names
        })
        .await
    }

    /// Returns the latest valid metric of each peer.
    ///
    /// # Errors
    /// This peer is shutting down.
    pub async fn metrics(&self, name: &str) -> Result<Vec<api::Metric>, Error> {
        let name = name.to_owned();
        self.view(move |view, now| {
            view.metrics(now, &name)
                .map(|(peer, received)| metric(peer, received))
                .collect()
        })
        .await
    }

    /// Returns the expired metrics, newest first.
    ///
    /// # Errors
    /// This peer is shutting down.
    pub async fn alerts(&self) -> Result<Vec<api::Alert>, Error> {
        let shown = |alert: &cluster_core::Alert| api::Alert {
            metric: metric(&alert.peer, &alert.metric),
            triggered_at: convert::time(alert.triggered_at),
        };
        self.view(move |view, _| view.alerts().map(shown).collect()).await
    }

    /// Returns the bytes transferred, by protocol.
    pub fn bandwidth(&self) -> api::BandwidthByProtocol {
        let bandwidth = |traffic: Traffic| api::Bandwidth {
            total_in: i64::try_from(traffic.received).unwrap_or(i64::MAX),
            total_out: i64::try_from(traffic.sent).unwrap_or(i64::MAX),
            rate_in: traffic.received_rate,
            rate_out: traffic.sent_rate,
        };
        let all = self.inner.net.traffic().into_iter();
        all.map(|(protocol, traffic)| (protocol.to_owned(), bandwidth(traffic)))
            .collect()
    }

    /// Returns the connections that each member reports. A member that does not answer has no links.
    ///
    /// # Errors
    /// This peer is shutting down.
    pub async fn connect_graph(&self) -> Result<api::ConnectGraph, Error> {
        let KnownMembers { peers } = self.known_peers().await?;
        let mut graph = api::ConnectGraph {
            cluster_id: self.inner.config.peer.to_string(),
            id_to_peername: BTreeMap::new(),
            ..api::ConnectGraph::default()
        };
        let mut links = std::pin::pin!(concurrently(
            peers
                .keys()
                .map(|peer| async move { (peer, self.links_of(peer).await) })
        ));
        while let Some((peer, answer)) = links.next().await {
            let id = peer.to_string();
            graph
                .id_to_peername
                .insert(id.clone(), peers[peer].peername.clone());
            graph.cluster_trust_links.insert(id.clone(), true);
            let (cluster, ipfs, ipfs_links) = answer.unwrap_or_default();
            // Like the Go peer, only links within the cluster, without the peer itself.
            let within = cluster
                .iter()
                .filter(|other| *other != peer && peers.contains_key(*other));
            graph
                .cluster_links
                .insert(id.clone(), within.map(PeerId::to_string).collect());
            if !ipfs.is_empty() {
                graph.ipfs_links.insert(ipfs.clone(), ipfs_links);
                graph.cluster_to_ipfs.insert(id, ipfs);
            }
        }
        Ok(graph)
    }

    async fn links_of(&self, peer: &PeerId) -> Result<(Vec<PeerId>, String, Vec<String>), Error> {
        if *peer == self.inner.config.peer {
            return Ok(self.own_links().await);
        }
        let mut channel = rpc::call(&self.inner.net, peer, &Call::Links).await?;
        match rpc::next(&mut channel, peer, self.inner.answer_timeout).await? {
            Some(Answer::Links {
                cluster,
                ipfs,
                ipfs_links,
            }) => Ok((cluster, ipfs, ipfs_links)),
            Some(_) | None => Err(rpc::unexpected(peer)),
        }
    }

    pub(super) async fn own_links(&self) -> (Vec<PeerId>, String, Vec<String>) {
        /// Time limit for listing the IPFS node's connections.
        const LINKS_TIMEOUT: Duration = Duration::from_secs(2);
        let ipfs = self.ipfs_identity().await.id;
        let swarm = tokio::time::timeout(LINKS_TIMEOUT, self.inner.backend.swarm_peers()).await;
        let ipfs_links = match swarm {
            Ok(Ok(peers)) => peers.iter().map(ToString::to_string).collect(),
            Ok(Err(_)) | Err(_) => Vec::new(),
        };
        (self.inner.net.connected().into_iter().collect(), ipfs, ipfs_links)
    }

    /// Runs garbage collection at all members' IPFS nodes at once. A failure is reported per peer.
    ///
    /// # Errors
    /// This peer is shutting down.
    pub async fn repo_gc(&self) -> Result<api::GlobalRepoGc, Error> {
        let KnownMembers { peers } = self.known_peers().await?;
        let mut shown = api::GlobalRepoGc::default();
        let mut collections = std::pin::pin!(concurrently(
            peers
                .iter()
                .map(|(peer, known)| async move { self.gc_of(peer, &known.peername).await })
        ));
        while let Some(collected) = collections.next().await {
            shown.peer_map.insert(collected.peer.clone(), collected);
        }
        Ok(shown)
    }

    /// Runs garbage collection at this peer's IPFS node.
    pub async fn repo_gc_local(&self) -> api::GlobalRepoGc {
        let collected = self
            .gc_of(&self.inner.config.peer, &self.inner.config.peername)
            .await;
        api::GlobalRepoGc {
            peer_map: BTreeMap::from([(collected.peer.clone(), collected)]),
        }
    }

    async fn gc_of(&self, peer: &PeerId, peername: &str) -> api::RepoGc {
        let mut shown = api::RepoGc {
            peer: peer.to_string(),
            peername: peername.to_owned(),
            ..api::RepoGc::default()
        };
        let done = if *peer == self.inner.config.peer {
            self.gc_here(&mut shown).await
        } else {
            self.gc_there(peer, &mut shown).await
        };
        if let Err(error) = done {
            shown.error = error.to_string();
        }
        shown
    }

    async fn gc_here(&self, shown: &mut api::RepoGc) -> Result<(), Error> {
        let (out, mut batches) = mpsc::channel(1);
        let collect = async move { self.collect_garbage(out).await };
        let note = async {
            while let Some(batch) = batches.recv().await {
                add_steps(shown, batch);
            }
        };
        tokio::join!(collect, note).0
    }

    async fn gc_there(&self, peer: &PeerId, shown: &mut api::RepoGc) -> Result<(), Error> {
        let mut channel = rpc::call(&self.inner.net, peer, &Call::RepoGc).await?;
        while let Some(answer) = rpc::next(&mut channel, peer, self.inner.answer_timeout).await? {
            let Answer::Collected(batch) = answer else {
                return Err(rpc::unexpected(peer));
            };
            add_steps(shown, batch);
        }
        Ok(())
    }

    /// Runs garbage collection at this peer's IPFS node; aborts it when `out` is closed.
    pub(super) async fn collect_garbage(&self, out: mpsc::Sender<Vec<Collected>>) -> Result<(), Error> {
        let mut steps = self.inner.backend.repo_gc().ready_chunks(KEYS_AT_ONCE);
        while let Some(batch) = steps.next().await {
            let mut collected = Vec::with_capacity(batch.len());
            let mut failed = None;
            for step in batch {
                match step {
                    Ok(cluster_ipfs::backend::Collected::Removed(cid)) => {
                        collected.push(Collected::Removed(cid.to_string()));
                    }
                    Ok(cluster_ipfs::backend::Collected::Failed(why)) => {
                        collected.push(Collected::Failed(why))
                    }
                    // The node has logged the freed space; other peers get keys only.
                    Ok(cluster_ipfs::backend::Collected::Freed(_)) => {}
                    Err(error) => failed = Some(error),
                }
            }
            if out.send(collected).await.is_err() {
                return Ok(());
            }
            if let Some(error) = failed {
                return Err(error.into());
            }
        }
        Ok(())
    }
}

fn add_steps(shown: &mut api::RepoGc, batch: Vec<Collected>) {
    for step in batch {
        if shown.keys.len() == KEYS_MAX {
            let more = format!("only the first {KEYS_MAX} keys are listed; the collection continued");
            shown.keys.push(api::IpfsRepoGc {
                key: None,
                error: more,
            });
        }
        if shown.keys.len() > KEYS_MAX {
            return;
        }
        shown.keys.push(match step {
            Collected::Removed(cid) => api::IpfsRepoGc {
                key: Some(cid),
                error: String::new(),
            },
            Collected::Failed(error) => api::IpfsRepoGc { key: None, error },
        });
    }
}

fn metric(peer: &PeerId, Received { metric, at, .. }: &Received) -> api::Metric {
    let nanos = |at: Timestamp| i64::try_from(at.0).unwrap_or(i64::MAX);
    api::Metric {
        name: metric.name.clone(),
        peer: peer.to_string(),
        value: metric.value.clone(),
        expire: nanos(*at + metric.ttl),
        valid: metric.valid,
        weight: metric.weight,
        partitionable: metric.partitionable,
        received_at: nanos(*at),
    }
}
