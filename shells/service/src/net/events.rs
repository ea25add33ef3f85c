//! Queues on which the network reports to the driver and to `cluster`.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cluster_core::{Envelope, PeerId};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, watch};

use super::rpc::Incoming;
use super::snapshot::IncomingSnapshot;

/// Core messages queued for the driver, together with [`WAITING_BYTES_MAX`]: some 50 ms of its work at full
/// load. Once it is full, senders wait, and then drop.
const WAITING_MAX: usize = 1_024;

/// Bytes of core messages queued for the driver. More than the largest message, so that any fits.
const WAITING_BYTES_MAX: usize = 32 << 20;

/// Shortest time between two reports that a peer is unreachable, however much is sent to it.
const UNREACHABLE_PAUSE: Duration = Duration::from_millis(10);

/// Receiving ends of the network's queues. Each is bounded; one that is not read blocks its own kind only.
#[derive(Debug)]
pub struct NetEvents {
    /// Messages for the core.
    pub core: CoreEvents,
    /// Calls of other peers. Holds as many as may be open at once.
    pub calls: mpsc::Receiver<Incoming>,
    /// Snapshots that other peers want to send.
    pub snapshots: mpsc::Receiver<IncomingSnapshot>,
    /// Changes whenever an address of a peer is learned, see [`Net::peerstore`](super::Net::peerstore).
    pub addresses: watch::Receiver<u64>,
}

/// Event for the core.
#[derive(Debug, Clone, PartialEq)]
pub enum CoreEvent {
    /// A message arrived from a member.
    Received {
        /// The sender; proven by the handshake.
        from: PeerId,
        /// The message.
        envelope: Envelope,
    },
    /// Messages for this peer were not delivered.
    Unreachable {
        /// The peer that did not get them.
        peer: PeerId,
    },
}

/// [`CoreEvent`]s, in the order in which each peer sent them.
#[derive(Debug)]
pub struct CoreEvents {
    receiver: mpsc::Receiver<(CoreEvent, Option<OwnedSemaphorePermit>)>,
}

impl CoreEvents {
    /// Waits for the next event; `None` when the network is shut down. Cancel-safe.
    pub async fn recv(&mut self) -> Option<CoreEvent> {
        self.receiver.recv().await.map(|(event, _)| event)
    }

    /// As [`CoreEvents::recv`], for a thread outside the runtime.
    pub fn blocking_recv(&mut self) -> Option<CoreEvent> {
        self.receiver.blocking_recv().map(|(event, _)| event)
    }

    /// Returns the next event if one is queued.
    pub fn try_recv(&mut self) -> Option<CoreEvent> {
        self.receiver.try_recv().ok().map(|(event, _)| event)
    }
}

/// Sending end of [`CoreEvents`].
#[derive(Debug)]
pub(super) struct CoreSender {
    sender: mpsc::Sender<(CoreEvent, Option<OwnedSemaphorePermit>)>,
    room: Arc<Semaphore>,
    unreachable: Mutex<BTreeSet<PeerId>>,
    changed: Notify,
}

/// The driver has dropped its [`CoreEvents`].
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
    /// Queues a message, once there is room for its bytes.
    pub(super) async fn received(&self, from: PeerId, envelope: Envelope, bytes: usize) -> Result<(), Gone> {
        let weight = u32::try_from(bytes.min(WAITING_BYTES_MAX)).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.room)
            .acquire_many_owned(weight)
            .await
            .map_err(|_| Gone)?;
        let event = CoreEvent::Received { from, envelope };
        self.sender.send((event, Some(permit))).await.map_err(|_| Gone)
    }

    /// Notes that a peer is unreachable. Never waits, and no note is lost.
    pub(super) fn unreachable(&self, peer: &PeerId) {
        let mut unreachable = self.unreachable.lock().expect("no panic while locked");
        if !unreachable.contains(peer) {
            unreachable.insert(peer.clone());
            drop(unreachable);
            self.changed.notify_one();
        }
    }

    /// Forwards the notes of [`CoreSender::unreachable`] to the driver. Never returns.
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
