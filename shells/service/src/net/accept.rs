//! Dispatches streams that peers open: each gets its own task, within the limits of `admission`.

use std::sync::{Arc, OnceLock, Weak};

use cluster_core::PeerId;
use libp2p::Stream;
use tokio::sync::Semaphore;

use super::losses::LossLog;
use super::shared::Shared;
use super::streams::{Accept, Protocol};
use super::{inbox, rpc, snapshot};

/// Streams beyond the limits that are answered with a refusal at the same time; further ones are reset.
const REFUSALS_MAX: usize = 64;

/// Returns the callback for incoming streams. It is needed before [`Shared`] exists, hence the cell.
pub(super) fn acceptor(cell: Arc<OnceLock<Weak<Shared>>>) -> Accept {
    let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
    Arc::new(move |from, protocol, stream| {
        if let Some(shared) = cell.get().and_then(Weak::upgrade) {
            accept(&shared, &refusals, from, protocol, stream);
        }
    })
}

fn accept(shared: &Arc<Shared>, refusals: &Arc<Semaphore>, from: PeerId, protocol: Protocol, stream: Stream) {
    let place = shared.inbound.admit(&from, protocol, shared.is_member(&from));
    let refusal = match &place {
        Ok(_) => None,
        Err(why) => match Arc::clone(refusals).try_acquire_owned() {
            Ok(permit) => Some(permit),
            Err(_) => return reset(shared, &from, protocol, why),
        },
    };
    let owned = Arc::clone(shared);
    shared.spawn(async move {
        match (protocol, place) {
            (Protocol::Core, Ok(place)) => inbox::serve(owned, from, stream, place).await,
            (Protocol::Core, Err(why)) => reset(&owned, &from, protocol, &why),
            (Protocol::Rpc, place) => rpc::serve(owned, from, stream, place).await,
            (Protocol::Snapshot, place) => snapshot::serve(owned, from, stream, place).await,
        }
        drop(refusal);
    });
}

/// Counts and logs a stream that is reset by being dropped.
fn reset(shared: &Shared, from: &PeerId, protocol: Protocol, why: &str) {
    LossLog::count(&shared.losses.overloaded);
    if shared.losses.should_log(from, "reset") {
        tracing::warn!(peer = %from, "reset a {} stream: {why}", protocol.name());
    }
}
