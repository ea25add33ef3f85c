//! The tasks of one peer: one that writes all messages to it, and one per stream that it opens to us.

use super::behaviour::{Dialect, OpenError, Opened};
use super::message::{self, Entry, Message, Payload, Presence, Wantlist};
use super::wants::Ask;
use super::{Bitswap, lock};
use crate::Error;
use crate::store::key_of;
use bytes::Bytes;
use cid::Cid;
use libp2p::PeerId;
use libp2p::swarm::Stream;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Bytes of blocks after which a message is sent: large enough to be cheap, small enough that wants do not
/// wait long behind it.
const MESSAGE_BYTES: usize = 512 << 10;
/// Entries of each kind in one message; they stay far below the frame limit.
const MESSAGE_ENTRIES: usize = 4096;
/// Blocks queued for one peer. It asked for them and has not got them, so it may wait with the rest.
const SERVE_MAX: usize = 4096;
/// Answers queued for one peer. Who asks on without reading loses the rest, and asks again.
const PRESENCES_MAX: usize = 16_384;
/// Frames of one peer being read or processed at once, 4 MiB each at most.
const FRAMES: usize = 4;
/// For negotiating a stream.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// For one message, 2.5 MiB at most: 20 kB/s is the slowest useful peer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(120);
/// For the rest of a frame once its length is there.
const READ_TIMEOUT: Duration = Duration::from_secs(120);
/// Before a peer that could not be written to is tried again.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);

/// What waits to be told to a peer.
#[derive(Debug, Default)]
struct Outbox {
    asks: VecDeque<(Cid, Ask)>,
    presences: VecDeque<(Cid, bool)>,
    serve: VecDeque<Cid>,
}

/// A connected peer.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) peer: PeerId,
    outbox: Mutex<Outbox>,
    filled: Notify,
    frames: Arc<Semaphore>,
    pub(super) closed: CancellationToken,
}

impl Link {
    pub(super) fn new(peer: PeerId, closed: CancellationToken) -> Link {
        let frames = Arc::new(Semaphore::new(FRAMES));
        Link {
            peer,
            outbox: Mutex::default(),
            filled: Notify::new(),
            frames,
            closed,
        }
    }

    pub(super) fn ask(&self, cid: Cid, ask: Ask) {
        lock(&self.outbox).asks.push_back((cid, ask));
        self.filled.notify_one();
    }

    pub(super) fn presence(&self, cid: Cid, has: bool) {
        let mut outbox = lock(&self.outbox);
        if outbox.presences.len() < PRESENCES_MAX {
            outbox.presences.push_back((cid, has));
            self.filled.notify_one();
        }
    }

    /// Queues a block; `false` when too many are.
    pub(super) fn serve(&self, cid: Cid) -> bool {
        let mut outbox = lock(&self.outbox);
        let room = outbox.serve.len() < SERVE_MAX;
        if room {
            outbox.serve.push_back(cid);
            self.filled.notify_one();
        }
        room
    }

    /// Takes blocks out of the queue: this one, or all.
    pub(super) fn withdraw(&self, key: Option<&[u8]>) {
        let mut outbox = lock(&self.outbox);
        match key {
            Some(key) => outbox.serve.retain(|cid| key_of(cid) != key),
            None => outbox.serve.clear(),
        }
    }

    fn take(&self) -> Option<Outbox> {
        let mut outbox = lock(&self.outbox);
        let part = |len: usize| len.min(MESSAGE_ENTRIES);
        let (asks, presences) = (part(outbox.asks.len()), part(outbox.presences.len()));
        // More blocks than one message holds only if they are tiny.
        let serve = part(outbox.serve.len());
        let taken = Outbox {
            asks: outbox.asks.drain(..asks).collect(),
            presences: outbox.presences.drain(..presences).collect(),
            serve: outbox.serve.drain(..serve).collect(),
        };
        (asks + presences + serve > 0).then_some(taken)
    }

    fn put_back(&self, rest: VecDeque<Cid>) {
        let mut outbox = lock(&self.outbox);
        rest.into_iter()
            .rev()
            .for_each(|cid| outbox.serve.push_front(cid));
    }

    fn clear(&self) {
        *lock(&self.outbox) = Outbox::default();
    }
}

/// A message in no dialect yet.
#[derive(Debug, Default)]
struct Draft {
    asks: VecDeque<(Cid, Ask)>,
    presences: VecDeque<(Cid, bool)>,
    blocks: Vec<(Cid, Bytes)>,
}

impl Draft {
    fn into_message(self, dialect: Dialect) -> Message {
        let presences = dialect == Dialect::Presences;
        let entry = |(cid, ask): (Cid, Ask)| Entry {
            cid: cid.to_bytes().into(),
            priority: 1,
            cancel: ask == Ask::Cancel,
            // Older peers know only one question.
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
        message
    }
}

/// Writes to a peer until it is gone.
pub(super) async fn write_loop(bitswap: Bitswap, link: Arc<Link>) {
    let closed = link.closed.clone();
    tokio::select! {
        () = closed.cancelled() => {}
        () = write_messages(&bitswap, &link) => {}
    }
}

async fn write_messages(bitswap: &Bitswap, link: &Arc<Link>) {
    let mut stream: Option<(Stream, Dialect)> = None;
    let mut ready: Option<Draft> = None;
    loop {
        let draft = match ready.take() {
            Some(draft) => draft,
            None => match prepare(bitswap, link).await {
                Some(draft) => draft,
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
        let message = draft.into_message(dialect);
        // The next message is read from the disk while this one is written.
        let write = timeout(WRITE_TIMEOUT, message::write(&mut open, &message));
        let (written, next) = tokio::join!(write, prepare(bitswap, link));
        ready = next;
        match written {
            Ok(Ok(())) => stream = Some((open, dialect)),
            Ok(Err(_)) | Err(_) => {
                // The peer may have closed an idle stream: once more on a new one.
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

/// Makes a message of what waits, reading its blocks; `None` when nothing does.
async fn prepare(bitswap: &Bitswap, link: &Arc<Link>) -> Option<Draft> {
    let Outbox {
        asks,
        mut presences,
        serve,
    } = link.take()?;
    let mut blocks = Vec::new();
    if !serve.is_empty() {
        let store = bitswap.shared.store.clone();
        let read = move || {
            let mut serve = serve;
            let (mut blocks, mut missing, mut bytes) = (Vec::new(), Vec::new(), 0);
            while bytes < MESSAGE_BYTES
                && let Some(cid) = serve.pop_front()
            {
                match store.get(&cid) {
                    Ok(Some(data)) => {
                        bytes += data.len() + 64;
                        blocks.push((cid, data));
                    }
                    Ok(None) => missing.push((cid, false)),
                    Err(error) => {
                        tracing::error!(%cid, %error, "a block could not be read for a peer");
                        missing.push((cid, false));
                    }
                }
            }
            (blocks, missing, serve)
        };
        let (read, missing, rest) = tokio::task::spawn_blocking(read).await.ok()?;
        blocks = read;
        presences.extend(missing);
        link.put_back(rest);
    }
    Some(Draft {
        asks,
        presences,
        blocks,
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
        let permit = link
            .frames
            .clone()
            .acquire_owned()
            .await
            .map_err(|_| Error::Closed)?;
        let message = timeout(READ_TIMEOUT, message::read_message(stream, length)).await;
        let message = message.map_err(|_| Error::invalid("bitswap frame does not end"))??;
        if let Some(wantlist) = message.wantlist {
            bitswap.serve_wants(link, wantlist).await?;
        }
        bitswap.heard_presences(link.peer, &message.presences);
        if !message.payload.is_empty() || !message.blocks.is_empty() {
            let (bitswap, peer) = (bitswap.clone(), link.peer);
            tokio::spawn(async move {
                bitswap.take_blocks(peer, message.payload, message.blocks).await;
                drop(permit);
            });
        }
    }
    Ok(())
}
