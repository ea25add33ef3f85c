//! Roots that the embedded node announces to the public network: those for which this peer is among the
//! announcers that [`cluster_core::announce`] chooses of a pin's living holders.
//!
//! A peer counts as living for [`GRACE`] after its last `ping`: its provider records are valid for two days,
//! so a restart is no reason for others to take over.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cluster_core::announce::Living;
use cluster_core::{PING, PeerId};
use cluster_ipfs::Backend;

use crate::config::Config;
use crate::driver::Handle;
use crate::store::Reader;

/// Time after the last `ping` of a peer at which others announce its roots.
const GRACE: Duration = Duration::from_secs(3600);
/// Interval at which the pings are read.
const INTERVAL: Duration = Duration::from_secs(15);
/// Time after the start before which all holders count as living: their pings take a while.
const STARTUP: Duration = Duration::from_secs(120);

/// Decides for the embedded node as long as the peer runs.
pub(super) fn decide(
    config: &Config,
    backend: &Backend,
    handle: &Handle,
    reader: &Reader,
    me: &PeerId,
) -> impl Future<Output = ()> + Send + use<> {
    let embedded = config.ipfs_connector.embedded.as_ref();
    let copies = embedded.map_or(0, |embedded| embedded.provide_copies as usize);
    run(
        backend.clone(),
        handle.clone(),
        reader.clone(),
        me.clone(),
        copies,
    )
}

async fn run(backend: Backend, handle: Handle, reader: Reader, me: PeerId, copies: usize) {
    let Backend::Embedded(node) = backend else { return };
    let living = Living::new(handle.now().mono, STARTUP, GRACE);
    let living = Arc::new(Mutex::new(living));
    let (shared, clock) = (living.clone(), handle.clone());
    node.set_duty(Arc::new(move |cid, region| {
        let Ok(cid) = cluster_core::Cid::from_bytes(&cid.to_bytes()) else {
            return true;
        };
        // No other peer announces what the node's own users have pinned.
        let Ok(Some(pin)) = reader.pin(&cid) else {
            return true;
        };
        let living = shared.lock().unwrap_or_else(PoisonError::into_inner);
        living.announces(clock.now().mono, &me, region, &pin, copies)
    }));
    loop {
        let read = |view: cluster_core::View<'_>, now| -> Vec<PeerId> {
            view.metrics(now, PING).map(|(peer, _)| peer.clone()).collect()
        };
        let Some(alive) = handle.view(read).await else {
            return;
        };
        let now = handle.now().mono;
        living
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .note(now, alive);
        tokio::time::sleep(INTERVAL).await;
    }
}
