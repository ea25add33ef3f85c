//! Connects the IPFS nodes of the cluster: each dials the others at the addresses in their `ping` metrics.

use std::collections::BTreeMap;
use std::time::Duration;

use cluster_core::{PING, PeerId};
use cluster_ipfs::Backend;

use crate::cluster::PingValue;
use crate::driver::Handle;
use crate::net::Multiaddr;

/// Interval at which the pings are read.
const INTERVAL: Duration = Duration::from_secs(1);

/// Rounds after which all nodes are dialled again, since connections may have broken.
const AGAIN: u32 = 60;

/// Connects the nodes for as long as the peer runs.
pub(super) async fn connect(backend: Backend, handle: Handle, me: PeerId, delay: Duration) {
    tokio::time::sleep(delay).await;
    let mut dialled: BTreeMap<PeerId, Vec<String>> = BTreeMap::new();
    for round in 1.. {
        let read = |view: cluster_core::View<'_>, now| -> Vec<(PeerId, String)> {
            let pings = view.metrics(now, PING);
            pings
                .map(|(peer, received)| (peer.clone(), received.metric.value.clone()))
                .collect()
        };
        let Some(pings) = handle.view(read).await else {
            return;
        };
        for (peer, value) in pings.into_iter().filter(|(peer, _)| *peer != me) {
            let Ok(ping) = serde_json::from_str::<PingValue>(&value) else {
                continue;
            };
            if dialled.get(&peer) == Some(&ping.ipfs_addresses) && round % AGAIN != 0 {
                continue;
            }
            let addresses: Vec<Multiaddr> = ping
                .ipfs_addresses
                .iter()
                .filter_map(|address| address.parse().ok())
                .collect();
            dialled.insert(peer.clone(), ping.ipfs_addresses);
            // One address that answers is enough, and some never do.
            for address in addresses {
                if backend.connect(&[address]).await > 0 {
                    break;
                }
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
