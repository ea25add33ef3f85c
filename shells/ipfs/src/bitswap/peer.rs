//! Tasks of one peer: one that writes all messages to it, and one per stream that it opens.

use super::behaviour::{Dialect, OpenError, Opened};
use super::message::{self, Entry, Message, Payload, Presence, Wantlist};
use super::queue::Queue;
use super::wants::Ask;
use super::{Bitswap, lock};
use crate::Cid;
use crate::Error;
use crate::swarm::{Account, Charge};
use bytes::Bytes;
use libp2p::PeerId;
use libp2p::swarm::Stream;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Bytes of blocks in a message after which it is sent: large enough to be cheap, small enough that wants do
/// not wait long behind it.
const MESSAGE_BYTES: usize = 512 << 10;
/// Limit on entries of each kind in one message; far below the limit of a frame.
const MESSAGE_ENTRIES: usize = 4096;
/// Limit on blocks queued for one peer, twice Kubo's. The peer gets DONT_HAVE for the rest, or asks again.
const SERVE_MAX: usize = 2048;
/// Limit on presences queued for one peer: as many as one message carries. A peer that keeps asking without
/// reading loses the rest, and asks again.
const PRESENCES_MAX: usize = 4096;
/// Limit on wants and cancels queued for one peer. A want beyond it is sent again in its next round; a lost
/// cancel costs the transfer of an unwanted block.
const ASKS_MAX: usize = 16_384;
/// Memory of one queued CID, in bytes: the CID twice, and its places in two maps.
const QUEUED_BYTES: usize = 256;
/// Limit on messages of one peer processed concurrently.
const FRAMES: usize = 4;
/// Time limit of negotiating a stream.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// Time limit of writing one message of at most 2.5 MiB: 20 kB/s is the slowest useful peer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(120);
/// Time limit of reading the rest of a frame once its length is read.
const READ_TIMEOUT: Duration = Duration::from_secs(120);
/// Pause before retrying a peer that could not be written to.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);

/// Queues of entries to send to a peer.
#[derive(Debug)]
struct Outbox {
    asks: Queue<Ask>,
    /// By CID: whether this node has the block.
    presences: Queue<bool>,
    /// Blocks to send.
    serve: Queue<()>,
    charge: Charge,
}

impl Outbox {
    /// Charges the queued entries.
    fn update_charge(&mut self) {
        let queued = self.asks.len() + self.presences.len() + self.serve.len();
        self.charge.resize(queued * QUEUED_BYTES);
    }
}

/// Entries taken from the queues for one message.
struct Batch {
    asks: Vec<(Cid, Ask)>,
    presences: Vec<(Cid, bool)>,
    serve: Vec<(Cid, ())>,
}

/// A connected peer.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) peer: PeerId,
    account: Arc<Account>,
    outbox: Mutex<Outbox>,
    filled: Notify,
    frames: Arc<Semaphore>,
    pub(super) closed: CancellationToken,
}

impl Link {
    pub(super) fn new(peer: PeerId, account: Arc<Account>, closed: CancellationToken) -> Link {
        let outbox = Outbox {
            asks: Queue::new(ASKS_MAX),
            presences: Queue::new(PRESENCES_MAX),
            serve: Queue::new(SERVE_MAX),
            charge: account.hold(0),
        };
        Link {
            peer,
            account,
            outbox: Mutex::new(outbox),
            filled: Notify::new(),
            frames: Arc::new(Semaphore::new(FRAMES)),
            closed,
        }
    }

    fn queue<T>(&self, change: impl FnOnce(&mut Outbox) -> T) -> T {
        let mut outbox = lock(&self.outbox);
        let result = change(&mut outbox);
        outbox.update_charge();
        self.filled.notify_one();
        result
    }

    pub(super) fn ask(&self, cid: Cid, ask: Ask) {
        self.queue(|outbox| outbox.asks.push(cid, ask));
    }

    pub(super) fn presence(&self, cid: Cid, has: bool) {
        self.queue(|outbox| outbox.presences.push(cid, has));
    }

    /// Queues a block; returns `false` if the queue is full.
    pub(super) fn serve(&self, cid: Cid) -> bool {
        self.queue(|outbox| outbox.serve.push(cid, ()))
    }

    /// Removes a block from the queue.
    pub(super) fn withdraw(&self, cid: &Cid) {
        self.queue(|outbox| outbox.serve.remove(cid));
    }

    /// Removes all blocks from the queue.
    pub(super) fn withdraw_all(&self) {
        self.queue(|outbox| outbox.serve.clear());
    }

    fn take(&self) -> Option<Batch> {
        let mut outbox = lock(&self.outbox);
        let taken = Batch {
            asks: outbox.asks.take(MESSAGE_ENTRIES),
            presences: outbox.presences.take(MESSAGE_ENTRIES),
            // More blocks than one message holds, unless they are tiny.
            serve: outbox.serve.take(MESSAGE_ENTRIES),
        };
        outbox.update_charge();
        let is_empty = taken.asks.is_empty() && taken.presences.is_empty() && taken.serve.is_empty();
        (!is_empty).then_some(taken)
    }

    fn put_back(&self, rest: impl DoubleEndedIterator<Item = (Cid, ())>) {
        let mut outbox = lock(&self.outbox);
        outbox.serve.put_back(rest);
        outbox.update_charge();
    }

    /// Returns whether anything is queued for the peer.
    pub(super) fn is_busy(&self) -> bool {
        let outbox = lock(&self.outbox);
        outbox.asks.len() + outbox.presences.len() + outbox.serve.len() > 0
    }

    /// Returns the numbers of queued presences and blocks.
    #[cfg(test)]
    pub(super) fn queued(&self) -> (usize, usize) {
        let outbox = lock(&self.outbox);
        (outbox.presences.len(), outbox.serve.len())
    }

    fn clear(&self) {
        let mut outbox = lock(&self.outbox);
        outbox.asks.clear();
        outbox.presences.clear();
        outbox.serve.clear();
        outbox.update_charge();
    }
}

/// A message before it is encoded for the peer's dialect.
#[derive(Debug)]
struct PendingMessage {
    asks: Vec<(Cid, Ask)>,
    presences: Vec<(Cid, bool)>,
    blocks: Vec<(Cid, Bytes)>,
    /// Charge for the blocks, until the message is written.
    charge: Charge,
}

impl PendingMessage {
    fn into_message(self, dialect: Dialect) -> (Message, Charge) {
        let presences = dialect == Dialect::Presences;
        let entry = |(cid, ask): (Cid, Ask)| Entry {
            cid: cid.to_bytes().into(),
            priority: 1,
            cancel: ask == Ask::Cancel,
            // Older dialects only have wants for blocks.
            want_type: i32::from(ask == Ask::Have && presences),
            send_dont_have: ask != Ask::Cancel && presences,
        };
        let entries: Vec<Entry> = self.asks.into_iter().map(entry).collect();
        let wantlist = (!entries.is_empty()).then_some(Wantlist { entries, full: false });
        let mut message = Message {
            wantlist,
            ..Message::default()
        };
        if presences {
            let presence = |(cid, has): (Cid, bool)| Presence {
                cid: cid.to_bytes().into(),
                kind: i32::from(!has),
            };
            message.presences = self.presences.into_iter().map(presence).collect();
        }
        match dialect {
            Dialect::Bare => message.blocks = self.blocks.into_iter().map(|(_, data)| data).collect(),
            Dialect::Prefixed | Dialect::Presences => {
                message.payload = self
                    .blocks
                    .into_iter()
                    .map(|(cid, data)| Payload::new(&cid, data))
                    .collect();
            }
        }
        (message, self.charge)
    }
}

/// Writes messages to a peer until it is gone.
pub(super) async fn write_loop(bitswap: Bitswap, link: Arc<Link>) {
    let closed = link.closed.clone();
    tokio::select! {
        () = closed.cancelled() => {}
        () = write_messages(&bitswap, &link) => {}
    }
}

async fn write_messages(bitswap: &Bitswap, link: &Arc<Link>) {
    let mut stream: Option<(Stream, Dialect)> = None;
    let mut ready: Option<PendingMessage> = None;
    loop {
        let pending = match ready.take() {
            Some(pending) => pending,
            None => match prepare(bitswap, link).await {
                Some(pending) => pending,
                None => {
                    link.filled.notified().await;
                    continue;
                }
            },
        };
        let (mut open, dialect) = match stream.take() {
            Some(open) => open,
            None => match open(bitswap, link).await {
                Ok(open) => open,
                Err(OpenError::Unsupported) => {
                    bitswap.peer_failed(link.peer, true);
                    link.clear();
                    return;
                }
                Err(OpenError::Failed) => {
                    bitswap.peer_failed(link.peer, false);
                    link.clear();
                    tokio::time::sleep(FAILURE_PAUSE).await;
                    continue;
                }
            },
        };
        let (message, _charge) = pending.into_message(dialect);
        // The next message is read from the disk while this one is written.
        let write = timeout(WRITE_TIMEOUT, message::write(&mut open, &message));
        let (written, next) = tokio::join!(write, prepare(bitswap, link));
        ready = next;
        match written {
            Ok(Ok(())) => stream = Some((open, dialect)),
            Ok(Err(_)) | Err(_) => {
                // The peer may have closed an idle stream: retry once on a new one.
                drop(open);
                stream = rewrite(bitswap, link, &message).await;
                if stream.is_none() {
                    bitswap.peer_failed(link.peer, false);
                    link.clear();
                    ready = None;
                    tokio::time::sleep(FAILURE_PAUSE).await;
                }
            }
        }
    }
}

async fn rewrite(bitswap: &Bitswap, link: &Link, message: &Message) -> Option<(Stream, Dialect)> {
    let (mut stream, dialect) = open(bitswap, link).await.ok()?;
    match timeout(WRITE_TIMEOUT, message::write(&mut stream, message)).await {
        Ok(Ok(())) => Some((stream, dialect)),
        Ok(Err(_)) | Err(_) => None,
    }
}

async fn open(bitswap: &Bitswap, link: &Link) -> Opened {
    let (opened, opening) = oneshot::channel();
    if bitswap.shared.open.send((link.peer, opened)).await.is_err() {
        return Err(OpenError::Failed);
    }
    match timeout(OPEN_TIMEOUT, opening).await {
        Ok(Ok(opened)) => opened,
        Ok(Err(_)) | Err(_) => Err(OpenError::Failed),
    }
}

/// Takes the queued entries for a message and reads its blocks; `None` if nothing is queued.
async fn prepare(bitswap: &Bitswap, link: &Arc<Link>) -> Option<PendingMessage> {
    let Batch {
        asks,
        mut presences,
        serve,
    } = link.take()?;
    let mut blocks = Vec::new();
    let mut charge = link.account.hold(0);
    if !serve.is_empty() {
        let store = bitswap.shared.store.clone();
        let read = move || {
            let mut serve = serve.into_iter();
            let (mut blocks, mut missing, mut bytes) = (Vec::new(), Vec::new(), 0);
            while bytes < MESSAGE_BYTES
                && let Some((cid, ())) = serve.next()
            {
                match store.get(&cid) {
                    Ok(Some(data)) => {
                        bytes += data.len() + 64;
                        charge.resize(bytes);
                        blocks.push((cid, data));
                    }
                    Ok(None) => missing.push((cid, false)),
                    Err(error) => {
                        tracing::error!(%cid, %error, "a block could not be read for a peer");
                        missing.push((cid, false));
                    }
                }
            }
            (blocks, missing, serve, charge)
        };
        let (read, missing, rest, held) = tokio::task::spawn_blocking(read).await.ok()?;
        bitswap.note_sent(&read);
        blocks = read;
        charge = held;
        presences.extend(missing);
        link.put_back(rest);
    }
    Some(PendingMessage {
        asks,
        presences,
        blocks,
        charge,
    })
}

/// Reads one stream until the peer closes it.
pub(super) async fn read_loop(bitswap: Bitswap, link: Arc<Link>, mut stream: Stream) {
    let closed = link.closed.clone();
    tokio::select! {
        () = closed.cancelled() => {}
        read = read_messages(&bitswap, &link, &mut stream) => {
            if let Err(error) = read {
                tracing::debug!(peer = %link.peer, %error, "a bitswap stream has ended");
            }
        }
    }
}

async fn read_messages(bitswap: &Bitswap, link: &Arc<Link>, stream: &mut Stream) -> Result<(), Error> {
    while let Some(length) = message::read_length(stream).await? {
        // Read before its turn comes: received bytes take as much memory in the stream's window, and complete
        // frames can always be processed.
        let mut charge = link.account.hold(0);
        let read = message::read_message(stream, length, &mut charge);
        let message = timeout(READ_TIMEOUT, read).await;
        let message = message.map_err(|_| Error::invalid("bitswap frame does not end"))??;
        let turn = link.frames.clone().acquire_owned().await;
        let turn = turn.map_err(|_| Error::Closed)?;
        bitswap.serve_wants(link, &message).await?;
        bitswap.record_presences(link.peer, &message).await?;
        if message.has_blocks {
            let (bitswap, peer) = (bitswap.clone(), link.peer);
            tokio::spawn(async move {
                bitswap.receive_blocks(peer, message).await;
                drop((turn, charge));
            });
        }
    }
    Ok(())
}
