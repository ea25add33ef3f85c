//! Metrics, alerts, the connection graph, and bandwidth.

use std::collections::BTreeMap;
use std::time::Duration;

use cluster_api as api;
use cluster_core::{PeerId, Received, Timestamp};
use futures::StreamExt;

use super::peers::{KnownMembers, ask_each};
use super::rpc::{self, Answer, Call};
use super::{Cluster, Error, convert};
use crate::net::Traffic;

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

    /// Returns the damage at this peer that is not mended, and then the expired metrics, newest first.
    ///
    /// # Errors
    /// This peer is shutting down.
    pub async fn alerts(&self) -> Result<Vec<api::Alert>, Error> {
        let damage = self.scrub_alert().map(|value| api::Alert {
            metric: api::Metric {
                name: "scrub".to_owned(),
                peer: self.inner.config.peer.to_string(),
                value,
                ..api::Metric::default()
            },
            triggered_at: convert::time(super::now()),
        });
        let expired = self.expired_alerts().await?;
        Ok(damage.into_iter().chain(expired).collect())
    }

    /// Returns the expired metrics, newest first.
    pub(super) async fn expired_alerts(&self) -> Result<Vec<api::Alert>, Error> {
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
        let mut links = ask_each(peers.keys(), |peer| self.links_of(peer));
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
        match self.call_once(peer, &Call::Links).await? {
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
