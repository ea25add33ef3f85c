//! Dispatch of the calls of other peers.

use std::sync::{Arc, OnceLock};

use tokio::sync::mpsc;

use crate::cluster::Cluster;
use crate::discovery::{self, DiscoveryServer};
use crate::net::Incoming;

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
        } else if let Some(cluster) = operations.get().cloned() {
            tokio::spawn(async move { cluster.serve_call(incoming).await });
        } else {
            let why = Err("the peer is starting, try again later".to_owned());
            tokio::spawn(async move { drop(incoming.finish(why).await) });
        }
    }
}
