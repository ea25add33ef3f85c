//! Adapters that connect the cluster operations to this peer's core and network.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use cluster_api::{Bandwidth, BandwidthByProtocol};
use cluster_core::{Cid, Members, PeerId, Refusal, Reply, Request};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::mpsc;

use super::discovery::{self, DiscoveryServer};
use crate::cluster::Cluster;
use crate::cluster::world::{Alert, Channel, Core, Network, Sample, World};
use crate::driver::Handle;
use crate::net::{Body, Call, CallSender, Deadline, Incoming, Net, Responder};
use crate::store::Reader;

/// The method of all calls of cluster operations.
const METHOD: &str = "cluster";

/// Time of silence after which a call is given up.
const SILENCE: std::time::Duration = std::time::Duration::from_secs(60);

pub(super) fn world(handle: Handle, reader: Reader, net: Net) -> World {
    World {
        core: Arc::new(RealCore(handle)),
        reader,
        network: Arc::new(RealNetwork(net)),
    }
}

struct RealCore(Handle);

impl Core for RealCore {
    fn request(&self, request: Request) -> BoxFuture<'static, Result<Reply, Refusal>> {
        let handle = self.0.clone();
        async move { handle.request(request).await }.boxed()
    }

    fn members(&self) -> BoxFuture<'static, Option<Members>> {
        let handle = self.0.clone();
        async move { handle.view(|view, _| view.members().clone()).await }.boxed()
    }

    fn has_leader(&self) -> BoxFuture<'static, Option<bool>> {
        let handle = self.0.clone();
        async move { handle.view(|view, _| view.leader().is_some()).await }.boxed()
    }

    fn running(&self) -> BoxFuture<'static, Option<Vec<(Cid, bool)>>> {
        let handle = self.0.clone();
        let read = |view: cluster_core::View<'_>, _| {
            view.running()
                .map(|(cid, unpins)| (cid.clone(), unpins))
                .collect()
        };
        async move { handle.view(read).await }.boxed()
    }

    fn metric_names(&self) -> BoxFuture<'static, Option<Vec<String>>> {
        let handle = self.0.clone();
        let read =
            |view: cluster_core::View<'_>, _| view.metric_names().into_iter().map(str::to_owned).collect();
        async move { handle.view(read).await }.boxed()
    }

    fn metrics(&self, name: &str) -> BoxFuture<'static, Option<Vec<Sample>>> {
        let (handle, name) = (self.0.clone(), name.to_owned());
        let read = move |view: cluster_core::View<'_>, now| {
            view.metrics(now, &name)
                .map(|(peer, received)| sample(peer, received))
                .collect()
        };
        async move { handle.view(read).await }.boxed()
    }

    fn alerts(&self) -> BoxFuture<'static, Option<Vec<Alert>>> {
        let handle = self.0.clone();
        let read = |view: cluster_core::View<'_>, _| {
            let alert = |alert: &cluster_core::Alert| Alert {
                sample: sample(&alert.peer, &alert.metric),
                triggered_at: alert.triggered_at,
            };
            view.alerts().map(alert).collect()
        };
        async move { handle.view(read).await }.boxed()
    }
}

fn sample(peer: &PeerId, received: &cluster_core::Received) -> Sample {
    Sample {
        peer: peer.clone(),
        metric: received.metric.clone(),
        received_at: received.at,
    }
}

struct RealNetwork(Net);

impl Network for RealNetwork {
    fn call(
        &self,
        peer: &PeerId,
        request: Bytes,
        upload: bool,
    ) -> BoxFuture<'static, Result<Box<dyn Channel>, String>> {
        let (net, peer) = (self.0.clone(), peer.clone());
        async move {
            let deadline = Deadline::Silence(SILENCE);
            let opened = if upload {
                let opened = net.upload(&peer, METHOD, &request, deadline).await;
                opened.map(|(sender, call)| Calling {
                    sender: Some(sender),
                    call,
                })
            } else {
                let opened = net.call(&peer, METHOD, &request, deadline).await;
                opened.map(|call| Calling { sender: None, call })
            };
            opened
                .map(|calling| Box::new(calling) as Box<dyn Channel>)
                .map_err(|error| error.to_string())
        }
        .boxed()
    }

    fn introduce(&self, peer: &PeerId, addresses: Vec<String>) -> BoxFuture<'static, Result<(), String>> {
        let (net, peer) = (self.0.clone(), peer.clone());
        async move {
            let addresses = addresses.iter().filter_map(|address| address.parse().ok());
            net.add_addresses(&peer, addresses.collect()).await;
            discovery::invite(&net, &peer).await
        }
        .boxed()
    }

    fn addresses(&self) -> Vec<String> {
        self.0.addresses().iter().map(ToString::to_string).collect()
    }

    fn peer_addresses(&self) -> Vec<String> {
        self.0
            .peerstore()
            .values()
            .flatten()
            .map(ToString::to_string)
            .collect()
    }

    fn connected(&self) -> Vec<PeerId> {
        self.0.connected().into_iter().collect()
    }

    fn bandwidth(&self) -> BandwidthByProtocol {
        let bandwidth = |traffic: crate::net::Traffic| Bandwidth {
            total_in: i64::try_from(traffic.received).unwrap_or(i64::MAX),
            total_out: i64::try_from(traffic.sent).unwrap_or(i64::MAX),
            rate_in: traffic.received_rate,
            rate_out: traffic.sent_rate,
        };
        let all = self.0.traffic().into_iter();
        all.map(|(protocol, traffic)| (protocol.to_owned(), bandwidth(traffic)))
            .collect()
    }
}

/// An outgoing call.
struct Calling {
    sender: Option<CallSender>,
    call: Call,
}

impl Channel for Calling {
    fn send(&mut self, chunk: Bytes) -> BoxFuture<'_, Result<(), String>> {
        async move {
            let sender = self.sender.as_mut().ok_or("all has been sent")?;
            sender.send(&chunk).await.map_err(|error| error.to_string())
        }
        .boxed()
    }

    fn send_pieces(&mut self, pieces: Vec<Bytes>) -> BoxFuture<'_, Result<(), String>> {
        async move {
            let sender = self.sender.as_mut().ok_or("all has been sent")?;
            let sent = sender.send_pieces(&pieces).await;
            sent.map_err(|error| error.to_string())
        }
        .boxed()
    }

    fn next(&mut self) -> BoxFuture<'_, Option<Result<Bytes, String>>> {
        async move { Some(self.call.next().await?.map_err(|error| error.to_string())) }.boxed()
    }

    fn finish(&mut self, _outcome: Result<(), String>) -> BoxFuture<'_, Result<(), String>> {
        async move {
            match self.sender.take() {
                Some(sender) => sender.end().await.map_err(|error| error.to_string()),
                None => Ok(()),
            }
        }
        .boxed()
    }
}

/// An incoming call.
struct Called {
    body: Body,
    responder: Option<Responder>,
}

impl Channel for Called {
    fn send(&mut self, chunk: Bytes) -> BoxFuture<'_, Result<(), String>> {
        async move {
            let responder = self.responder.as_mut().ok_or("the call is over")?;
            responder.respond(&chunk).await.map_err(|error| error.to_string())
        }
        .boxed()
    }

    fn next(&mut self) -> BoxFuture<'_, Option<Result<Bytes, String>>> {
        async move { Some(self.body.next().await?.map_err(|error| error.to_string())) }.boxed()
    }

    fn finish(&mut self, outcome: Result<(), String>) -> BoxFuture<'_, Result<(), String>> {
        async move {
            let responder = self.responder.take().ok_or("the call is over")?;
            responder.finish(outcome).await.map_err(|error| error.to_string())
        }
        .boxed()
    }
}

/// Answers the calls of other peers for as long as the network runs, which limits how many run at once.
/// Until `operations` are set, only discovery is answered.
pub(super) async fn serve_calls(
    mut calls: mpsc::Receiver<Incoming>,
    discovery: DiscoveryServer,
    operations: Arc<OnceLock<Cluster>>,
) {
    while let Some(incoming) = calls.recv().await {
        if incoming.method == discovery::METHOD {
            let discovery = discovery.clone();
            tokio::spawn(async move { discovery.answer(incoming).await });
            continue;
        }
        let Some(cluster) = operations.get().cloned() else {
            let why = Err("the peer is starting, try again later".to_owned());
            tokio::spawn(async move { drop(incoming.finish(why).await) });
            continue;
        };
        let (from, request) = (incoming.from.clone(), incoming.request.clone());
        let (body, responder) = incoming.split();
        let channel = Box::new(Called {
            body,
            responder: Some(responder),
        });
        tokio::spawn(async move { cluster.serve_call(from, request, channel).await });
    }
}
