//! What the network reports.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cluster_core::{Envelope, PeerId};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, watch};

use super::rpc::Incoming;
use super::snapshot::IncomingSnapshot;

/// Core messages that wait for the driver, together with [`WAITING_BYTES_MAX`]: some 50 ms of its work
/// at full load. From there on senders wait, and then drop.
const WAITING_MAX: usize = 1_024;

/// The bytes of core messages that wait for the driver. More than the largest message, so that any passes.
const WAITING_BYTES_MAX: usize = 32 << 20;

/// A peer that is out of reach is reported once in this time, however much is sent to it.
const UNREACHABLE_PAUSE: Duration = Duration::from_millis(10);

/// The receiving ends of what the network reports. Each is bounded; a receiver that is not read holds up
/// its own kind only.
#[derive(Debug)]
pub struct NetEvents {
    /// For the core.
    pub core: CoreEvents,
    /// Calls of other peers. As many as may be open at once wait here.
    pub calls: mpsc::Receiver<Incoming>,
    /// Snapshots that other peers want to send.
    pub snapshots: mpsc::Receiver<IncomingSnapshot>,
    /// Changes whenever an address of a peer was learned, see [`Net::peerstore`](super::Net::peerstore).
    pub addresses: watch::Receiver<u64>,
}

/// What the core must know.
#[derive(Debug, Clone, PartialEq)]
pub enum CoreEvent {
    /// A member's message arrived.
    Received {
        /// Whose; proven by the handshake.
        from: PeerId,
        /// What.
        envelope: Envelope,
    },
    /// Messages for this peer were not delivered.
    Unreachable {
        /// Whom they did not reach.
        peer: PeerId,
    },
}

/// Receives [`CoreEvent`]s, in the order in which each peer sent them.
#[derive(Debug)]
pub struct CoreEvents {
    receiver: mpsc::Receiver<(CoreEvent, Option<OwnedSemaphorePermit>)>,
}

impl CoreEvents {
    /// The next one; `None` when the network is shut down. Dropping the future loses nothing.
    pub async fn recv(&mut self) -> Option<CoreEvent> {
        self.receiver.recv().await.map(|(event, _)| event)
    }

    /// The next one, for a thread of its own.
    pub fn blocking_recv(&mut self) -> Option<CoreEvent> {
        self.receiver.blocking_recv().map(|(event, _)| event)
    }

    /// The next one if it is there already.
    pub fn try_recv(&mut self) -> Option<CoreEvent> {
        self.receiver.try_recv().ok().map(|(event, _)| event)
    }
}

/// Where [`CoreEvents`] come from.
#[derive(Debug)]
pub(super) struct CoreSender {
    sender: mpsc::Sender<(CoreEvent, Option<OwnedSemaphorePermit>)>,
    room: Arc<Semaphore>,
    unreachable: Mutex<BTreeSet<PeerId>>,
    changed: Notify,
}

/// The driver is gone.
#[derive(Debug)]
pub(super) struct Gone;

pub(super) fn core_events() -> (CoreSender, CoreEvents) {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    let room = Arc::new(Semaphore::new(WAITING_BYTES_MAX));
    let sender = CoreSender {
        sender,
        room,
        unreachable: Mutex::new(BTreeSet::new()),
        changed: Notify::new(),
    };
    (sender, CoreEvents { receiver })
}

impl CoreSender {
    /// Hands a message over, when there is room for its bytes.
    pub(super) async fn received(&self, from: PeerId, envelope: Envelope, bytes: usize) -> Result<(), Gone> {
        let weight = u32::try_from(bytes.min(WAITING_BYTES_MAX)).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.room)
            .acquire_many_owned(weight)
            .await
            .map_err(|_| Gone)?;
        let event = CoreEvent::Received { from, envelope };
        self.sender.send((event, Some(permit))).await.map_err(|_| Gone)
    }

    /// Notes that a peer is out of reach. Never waits, and never gets lost.
    pub(super) fn unreachable(&self, peer: &PeerId) {
        let mut unreachable = self.unreachable.lock().expect("no panic while locked");
        if !unreachable.contains(peer) {
            unreachable.insert(peer.clone());
            drop(unreachable);
            self.changed.notify_one();
        }
    }

    /// Reports what [`CoreSender::unreachable`] notes, for ever.
    pub(super) async fn report_unreachable(&self) {
        loop {
            self.changed.notified().await;
            let noted = std::mem::take(&mut *self.unreachable.lock().expect("no panic while locked"));
            for peer in noted {
                if self
                    .sender
                    .send((CoreEvent::Unreachable { peer }, None))
                    .await
                    .is_err()
                {
                    return;
                }
            }
            tokio::time::sleep(UNREACHABLE_PAUSE).await;
        }
    }
}
