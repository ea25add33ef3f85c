//! The sending side of core messages: a queue for each peer, and a task that carries it over one stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use cluster_core::{Envelope, LimitsConfig, PeerId, encode, encode_for_version};
use futures::AsyncReadExt;
use libp2p::swarm::ConnectionId;
use tokio::sync::{mpsc, watch};

use super::frame::{FRAME_MAX, FrameReader, FrameWriter, Kind, invalid};
use super::links::Link;
use super::losses::LossLog;
use super::shared::Shared;
use super::streams::Protocol;

/// Messages queued for one peer: half a second of Raft at full load. A peer that lags further behind is
/// better served with new messages than with old ones.
const MESSAGES_MAX: usize = 1_024;

/// Bytes queued for one peer: what Raft has in flight to one follower, and as much again for proposals and
/// metrics. Ten peers that do not read cost 320 MiB.
const BYTES_MAX: usize = 32 << 20;

/// Size from which messages are sent in parts, and size of a part. Only the first release made such
/// messages: one log entry was bounded by the number of its proposals, and an entry in a log must be
/// replicated whatever its size.
const PART: usize = 1 << 20;

/// Maximum size of a message sent or accepted, in any number of parts, in bytes: what Raft let the first
/// release have uncommitted, 64 MiB, with one more entry on top.
pub(super) const MESSAGE_MAX: usize = 128 << 20;

const _: () = {
    let limits = LimitsConfig::DEFAULT;
    assert!(limits.longest_message() < PART && PART <= FRAME_MAX && FRAME_MAX < MESSAGE_MAX);
    assert!(limits.inflight_messages * limits.longest_message() < BYTES_MAX);
};

/// Size up to which messages are gathered for one write; large enough that a full queue is sent in few.
const GATHER: usize = 64 << 10;

/// First pause between attempts to open a stream over a connection that is up, doubling to
/// [`PAUSE_LONGEST`].
const PAUSE_FIRST: Duration = Duration::from_millis(100);

/// Maximum pause. A peer that refuses may accept us at any moment: some members apply a join before others.
const PAUSE_LONGEST: Duration = Duration::from_secs(2);

/// Idle time after which a stream to a non-member is closed.
const STRANGER_IDLE: Duration = Duration::from_secs(30);

/// Queue of one peer.
#[derive(Clone)]
pub(super) struct Outbox {
    number: u64,
    queue: mpsc::Sender<Queued>,
    bytes: Arc<AtomicUsize>,
    /// Bytes of the one message in parts that may be queued. Counted separately, so that heartbeats and the
    /// like find room beside it.
    parted: Arc<AtomicUsize>,
    /// The peer refuses messages, so no more are queued.
    refused: Arc<AtomicBool>,
}

/// A queued message. Its bytes count until it is dropped, on every path: a stream may end while it is being
/// written.
struct Queued {
    message: Vec<u8>,
    bytes: Arc<AtomicUsize>,
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.bytes.fetch_sub(self.message.len(), Ordering::Relaxed);
    }
}

impl Outbox {
    fn push(&self, message: Vec<u8>) -> bool {
        let size = message.len();
        if self.refused.load(Ordering::Relaxed) {
            return false;
        }
        let is_parted = size >= PART;
        let bytes = if is_parted { &self.parted } else { &self.bytes };
        let before = bytes.fetch_add(size, Ordering::Relaxed);
        let bytes = Arc::clone(bytes);
        let queued = Queued { message, bytes };
        let has_room = if is_parted {
            before == 0
        } else {
            before + size <= BYTES_MAX
        };
        has_room && self.queue.try_send(queued).is_ok()
    }
}

/// Queues a message for a peer, or reports the peer unreachable.
pub(super) fn send(shared: &Arc<Shared>, to: &PeerId, envelope: &Envelope) {
    let lost = |shared: &Shared| {
        LossLog::count(&shared.losses.dropped);
        shared.core.unreachable(to);
    };
    if !shared.links.is_up(to) {
        return lost(shared);
    }
    let message = encode_for_version(envelope.min_version(), envelope);
    if message.len() > MESSAGE_MAX {
        if shared.losses.should_log(to, "oversized message") {
            let size = message.len();
            tracing::error!(
                peer = %to,
                "a message of {size} bytes cannot be sent, at most {MESSAGE_MAX} can"
            );
        }
        return lost(shared);
    }
    if !ensure(shared, to).push(message) {
        lost(shared);
    }
}

/// Returns a peer's queue, creating it and its task if necessary.
pub(super) fn ensure(shared: &Arc<Shared>, peer: &PeerId) -> Outbox {
    if let Some(outbox) = shared.outboxes.read().expect("no panic while locked").get(peer) {
        return outbox.clone();
    }
    let mut outboxes = shared.outboxes.write().expect("no panic while locked");
    if let Some(outbox) = outboxes.get(peer) {
        return outbox.clone();
    }
    let (queue, messages) = mpsc::channel(MESSAGES_MAX);
    let outbox = Outbox {
        number: shared.number(),
        queue,
        bytes: Arc::default(),
        parted: Arc::default(),
        refused: Arc::default(),
    };
    outboxes.insert(peer.clone(), outbox.clone());
    drop(outboxes);
    let carrier = Carrier {
        shared: Arc::clone(shared),
        peer: peer.clone(),
        changes: shared.links.changes(),
        messages,
        outbox: outbox.clone(),
        carried: false,
    };
    shared.spawn(carrier.run());
    outbox
}

/// Task that sends the messages of one queue.
struct Carrier {
    shared: Arc<Shared>,
    peer: PeerId,
    changes: watch::Receiver<u64>,
    messages: mpsc::Receiver<Queued>,
    outbox: Outbox,
    /// True if messages were written to the stream.
    carried: bool,
}

/// End of a stream.
enum End {
    /// A newer connection replaces its connection.
    Superseded,
    /// No messages for a non-member for [`STRANGER_IDLE`].
    Idle,
    /// The peer refuses messages; its reason.
    Refused(String),
    /// The stream broke; the error.
    Lost(String),
}

impl Carrier {
    async fn run(mut self) {
        let mut pause = PAUSE_FIRST;
        loop {
            let Some(link) = self.connected().await else {
                return self.retire();
            };
            let end = match link.open(Protocol::Core).await {
                Ok(stream) => self.carry(&link, stream, &mut pause).await,
                Err(why) => End::Lost(why),
            };
            if std::mem::take(&mut self.carried) && !matches!(end, End::Idle) {
                // The last messages written may not have arrived.
                self.shared.core.unreachable(&self.peer);
            }
            match end {
                End::Superseded => continue,
                End::Idle => return self.retire(),
                End::Lost(why) => tracing::debug!(peer = %self.peer, "lost the core stream: {why}"),
                End::Refused(why) => {
                    self.outbox.refused.store(true, Ordering::Relaxed);
                    self.shared.set_failure(&self.peer, Some(&why));
                    // A peer that is starting, or has not applied our join yet, refuses for a moment.
                    let lasts = pause == PAUSE_LONGEST;
                    let losses = &self.shared.losses;
                    if lasts && losses.should_log(&self.peer, "refuses core messages") {
                        tracing::warn!(peer = %self.peer, "the peer refuses our messages: {why}");
                    }
                }
            }
            self.discard();
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_LONGEST);
            self.discard();
            self.outbox.refused.store(false, Ordering::Relaxed);
        }
    }

    /// Waits for a connection; `None` for a non-member without one.
    async fn connected(&mut self) -> Option<Link> {
        loop {
            self.changes.mark_unchanged();
            if let Some(link) = self.shared.links.newest(&self.peer) {
                return Some(link);
            }
            self.discard();
            if !self.shared.is_member(&self.peer) {
                return None;
            }
            self.changes.changed().await.ok()?;
        }
    }

    /// Sends queued messages until the stream ends.
    async fn carry(&mut self, link: &Link, stream: libp2p::Stream, pause: &mut Duration) -> End {
        let meter = self.shared.meters.of(Protocol::Core);
        let (reader, writer) = stream.split();
        let mut reader = FrameReader::new(reader, 512, 8 << 10, Arc::clone(&meter));
        let mut writer = FrameWriter::new(writer, meter);
        let Self {
            shared,
            peer,
            changes,
            messages,
            carried,
            ..
        } = self;
        let hello = encode(&shared.origin());
        let answers = async {
            loop {
                match reader.next().await {
                    Ok(Some(frame)) if frame.kind == Kind::End => {
                        *pause = PAUSE_FIRST;
                        shared.set_failure(peer, None);
                    }
                    Ok(Some(frame)) if frame.kind == Kind::Refused => return End::Refused(frame.text()),
                    Ok(Some(_)) => return End::Lost(invalid("an answer out of place").to_string()),
                    Ok(None) => return End::Lost("the peer closed it".to_owned()),
                    Err(error) => return End::Lost(error.to_string()),
                }
            }
        };
        let sending = async {
            writer.send(Kind::Head, &hello).await?;
            loop {
                let next = tokio::time::timeout(STRANGER_IDLE, messages.recv()).await;
                match next {
                    Ok(Some(message)) => {
                        *carried = true;
                        gather(&mut writer, message, messages).await?;
                    }
                    Ok(None) => return Ok(()),
                    Err(_) if shared.is_member(peer) => {}
                    Err(_) => return Ok(()),
                }
            }
        };
        tokio::select! {
            end = answers => end,
            sent = sending => match sent {
                Ok(()) => End::Idle,
                Err::<(), std::io::Error>(error) => End::Lost(error.to_string()),
            },
            () = superseded(shared, peer, link.id, changes) => End::Superseded,
        }
    }

    /// Empties the queue.
    fn discard(&mut self) {
        let mut lost = false;
        while self.messages.try_recv().is_ok() {
            LossLog::count(&self.shared.losses.dropped);
            lost = true;
        }
        if lost {
            self.shared.core.unreachable(&self.peer);
        }
    }

    /// Removes the queue, unless a newer one has its place.
    fn retire(mut self) {
        let mut outboxes = self.shared.outboxes.write().expect("no panic while locked");
        if outboxes
            .get(&self.peer)
            .is_some_and(|outbox| outbox.number == self.outbox.number)
        {
            outboxes.remove(&self.peer);
        }
        drop(outboxes);
        self.messages.close();
        self.discard();
    }
}

/// Sends a message and those queued behind it, and flushes when there are no more.
async fn gather<W: futures::AsyncWrite + Unpin>(
    writer: &mut FrameWriter<W>,
    first: Queued,
    messages: &mut mpsc::Receiver<Queued>,
) -> std::io::Result<()> {
    let mut next = Some(first);
    while let Some(queued) = next {
        if queued.message.len() >= PART {
            send_parts(writer, &queued.message).await?;
        } else if queued.message.len() >= GATHER {
            writer.send(Kind::Data, &queued.message).await?;
        } else {
            writer.push(Kind::Data, &queued.message);
            if writer.buffered() >= GATHER {
                writer.flush().await?;
            }
        }
        drop(queued);
        next = messages.try_recv().ok();
    }
    writer.flush().await
}

/// Sends a message in parts; the last is a `Data` frame.
async fn send_parts<W: futures::AsyncWrite + Unpin>(
    writer: &mut FrameWriter<W>,
    message: &[u8],
) -> std::io::Result<()> {
    let mut parts = message.chunks(PART).peekable();
    while let Some(part) = parts.next() {
        let kind = if parts.peek().is_some() {
            Kind::Part
        } else {
            Kind::Data
        };
        writer.send(kind, part).await?;
    }
    Ok(())
}

/// Waits until a newer connection to the peer replaces this one.
async fn superseded(shared: &Shared, peer: &PeerId, id: ConnectionId, changes: &mut watch::Receiver<u64>) {
    while shared.links.newest(peer).is_some_and(|link| link.id == id) {
        if changes.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tokio_util::compat::TokioAsyncReadCompatExt;

    use super::*;
    use crate::net::traffic::Meter;

    #[tokio::test]
    async fn a_message_dropped_while_being_written_frees_its_room() {
        let (queue, mut messages) = mpsc::channel(MESSAGES_MAX);
        let outbox = Outbox {
            number: 0,
            queue,
            bytes: Arc::default(),
            parted: Arc::default(),
            refused: Arc::default(),
        };
        for size in [GATHER - 1, PART - 1] {
            for _ in 0..3 {
                assert!(outbox.push(vec![0; size]));
                assert!(outbox.bytes.load(Ordering::Relaxed) >= size);
                // The other end does not read.
                let (stream, _other) = tokio::io::duplex(1_000);
                let mut writer = FrameWriter::new(stream.compat(), Arc::new(Meter::default()));
                let first = messages.recv().await.unwrap();
                let written = gather(&mut writer, first, &mut messages).now_or_never();
                assert!(written.is_none(), "{written:?}");
                assert_eq!(outbox.bytes.load(Ordering::Relaxed), 0);
            }
        }
    }

    #[tokio::test]
    async fn a_message_in_parts_leaves_room_for_others() {
        let (queue, _messages) = mpsc::channel(MESSAGES_MAX);
        let outbox = Outbox {
            number: 0,
            queue,
            bytes: Arc::default(),
            parted: Arc::default(),
            refused: Arc::default(),
        };
        assert!(outbox.push(vec![0; BYTES_MAX + 1]));
        assert!(!outbox.push(vec![0; PART]), "one at a time");
        assert!(outbox.push(vec![0; 100]));
        assert_eq!(outbox.bytes.load(Ordering::Relaxed), 100);
    }
}
