//! The bitswap exchange: serves blocks to peers that want them, and fetches blocks from peers that have them.
//!
//! Implements versions 1.0.0 to 1.2.0 of the [bitswap protocol](https://specs.ipfs.tech/bitswap-protocol/).
//! `wants` decides whom to ask, `ledger` records the wants of peers, `peer` has the tasks that read and write
//! messages, `message` their encoding, and `behaviour` their streams in the swarm.

mod behaviour;
mod ledger;
mod message;
mod peer;
mod queue;
#[cfg(test)]
mod tests;
mod wants;

pub(crate) use behaviour::{Behaviour, Opened, PROTOCOLS};

use crate::Cid;
use crate::store::{Store, key_of, lock};
use crate::swarm::Pool;
use crate::{Block, Error, ExchangeStat, codec, hash};
use bytes::Bytes;
use cid::Version;
use ledger::Ledger;
use libp2p::PeerId;
use libp2p::swarm::Stream;
use message::{Entry, Presence, Received};
use peer::Link;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use wants::Wants;

/// Size up to which a want-have is answered with the block itself, in bytes; Kubo's number.
const HAVE_REPLACED_BYTES: u64 = 1024;
/// Entries or presences of a message processed together: some 100 µs under the lock that all peers share.
/// Other tasks run in between.
const SLICE: usize = 256;
/// Blocks of a message verified and stored together: one database write for as many small blocks as Kubo
/// sends in several messages.
const BLOCKS_SLICE: usize = 1024;
/// Blocks delivered together to the peers that want them: every peer may want each of them.
const DELIVERY_SLICE: usize = 32;
/// Limit on wants of one message that are answered; four times Kubo's. The peer asks for the rest again.
const WANTS_MAX: usize = 4096;
/// Interval of checking for silent targets and stale wants.
const TICK: Duration = Duration::from_millis(500);

/// Number and interval of checks for the connection of a new stream: ten seconds in all, because the peer
/// resends the content of a dropped stream only after as long.
const LINK_TRIES: usize = 200;
const LINK_PAUSE: Duration = Duration::from_millis(50);

/// Request to the swarm for an outbound stream.
pub(crate) type OpenRequest = (PeerId, oneshot::Sender<Opened>);

/// The exchange; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Bitswap {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    store: Store,
    state: Mutex<State>,
    open: mpsc::Sender<OpenRequest>,
    closed: CancellationToken,
    /// Bytes of wanted blocks received from peers.
    received: AtomicU64,
    received_blocks: AtomicU64,
    sent_blocks: AtomicU64,
    sent_bytes: AtomicU64,
    pool: Arc<Pool>,
}

#[derive(Debug, Default)]
struct State {
    wants: Wants,
    ledger: Ledger,
    links: HashMap<PeerId, Arc<Link>>,
}

impl State {
    /// Moves the client's outgoing asks to the queues of the writers.
    fn flush(&mut self) {
        for (peer, cid, ask) in std::mem::take(&mut self.wants.out) {
            if let Some(link) = self.links.get(&peer) {
                link.ask(cid, ask);
            }
        }
    }
}

/// A group of related wants: peers that had one of them are asked first for the next. Ends when dropped.
#[derive(Debug)]
pub(crate) struct Session {
    bitswap: Bitswap,
    id: u64,
}

/// A block that a want waited for.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    pub(crate) data: Bytes,
    /// The peer that sent it; `None` if it came from elsewhere or was stored here already.
    pub(crate) from: Option<PeerId>,
}

/// A want of a peer.
struct PeerWant {
    cid: Cid,
    /// True if only the presence of the block is asked for.
    only_have: bool,
    /// True if the peer wants an answer if this node lacks the block.
    send_dont_have: bool,
}

/// Cancels a want when dropped.
struct WantGuard<'a> {
    bitswap: &'a Bitswap,
    key: Vec<u8>,
    waiter: u64,
}

impl Bitswap {
    /// Starts the exchange, which ends when the token is cancelled.
    pub(crate) fn start(
        store: Store,
        pool: Arc<Pool>,
        open: mpsc::Sender<OpenRequest>,
        closed: CancellationToken,
    ) -> Bitswap {
        let shared = Shared {
            store,
            pool,
            state: Mutex::default(),
            open,
            closed: closed.clone(),
            received: AtomicU64::new(0),
            received_blocks: AtomicU64::new(0),
            sent_blocks: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
        };
        let bitswap = Bitswap {
            shared: Arc::new(shared),
        };
        let ticking = bitswap.clone();
        tokio::spawn(closed.run_until_cancelled_owned(async move {
            let mut interval = tokio::time::interval(TICK);
            loop {
                interval.tick().await;
                ticking.with(|state| state.wants.tick(Instant::now()));
            }
        }));
        bitswap
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = lock(&self.shared.state);
        let result = change(&mut state);
        state.flush();
        result
    }

    pub(crate) fn session(&self) -> Session {
        let id = self.with(|state| state.wants.open_session());
        Session {
            bitswap: self.clone(),
            id,
        }
    }

    /// Starts or stops to ask a peer for all blocks that nobody is known to have.
    pub(crate) fn set_trusted(&self, peer: PeerId, trusted: bool) {
        self.with(|state| state.wants.set_trusted(peer, trusted, Instant::now()));
    }

    /// Returns whether any connected peer is asked for blocks that nobody is known to have.
    pub(crate) fn has_targets(&self) -> bool {
        lock(&self.shared.state).wants.has_targets()
    }

    /// Returns the CIDs of the blocks that this node waits for.
    pub(crate) fn wantlist(&self) -> Vec<Cid> {
        lock(&self.shared.state).wants.cids()
    }

    /// Returns the CIDs of the blocks that a peer wants and this node lacks, as far as they are recorded.
    pub(crate) fn wantlist_of(&self, peer: &PeerId) -> Vec<Cid> {
        lock(&self.shared.state).ledger.wants_of(peer)
    }

    /// Returns whether blocks are expected from a peer or by it.
    pub(crate) fn is_in_use(&self, peer: &PeerId) -> bool {
        let state = lock(&self.shared.state);
        state.wants.is_in_use(peer)
            || state.ledger.is_waiting(peer)
            || state.links.get(peer).is_some_and(|link| link.is_busy())
    }

    fn peer_connected(&self, peer: PeerId, is_local: bool) {
        let account = self.shared.pool.account(peer);
        let link = Arc::new(Link::new(peer, account, self.shared.closed.child_token()));
        self.with(|state| {
            state.links.insert(peer, link.clone());
            state.wants.connected(peer, is_local, Instant::now());
        });
        tokio::spawn(peer::write_loop(self.clone(), link));
    }

    fn peer_disconnected(&self, peer: PeerId) {
        self.with(|state| {
            if let Some(link) = state.links.remove(&peer) {
                link.closed.cancel();
            }
            state.ledger.forget_peer(peer);
            state.wants.disconnected(peer, Instant::now());
        });
    }

    fn peer_failed(&self, peer: PeerId, for_good: bool) {
        self.with(|state| state.wants.failed(peer, for_good, Instant::now()));
    }

    /// Reads a stream that the peer has opened.
    fn accept(&self, peer: PeerId, stream: Stream) {
        let bitswap = self.clone();
        tokio::spawn(async move {
            // A connection's task may run before the swarm has reported the connection.
            for _ in 0..LINK_TRIES {
                let link = lock(&bitswap.shared.state).links.get(&peer).cloned();
                if let Some(link) = link {
                    return peer::read_loop(bitswap, link, stream).await;
                }
                tokio::time::sleep(LINK_PAUSE).await;
            }
        });
    }

    async fn record_presences(&self, peer: PeerId, message: &Received) -> Result<(), Error> {
        let mut presences = message.presences();
        loop {
            let slice: Vec<Presence> = presences.by_ref().take(SLICE).collect::<Result<_, _>>()?;
            if slice.is_empty() {
                return Ok(());
            }
            self.with(|state| {
                for presence in &slice {
                    if let Some(cid) = message::cid_of(&presence.cid) {
                        let has = presence.kind == 0;
                        state
                            .wants
                            .presence_received(peer, &key_of(&cid), has, Instant::now());
                    }
                }
            });
            tokio::task::yield_now().await;
        }
    }

    /// Answers a message's wants, and records those for blocks that this node lacks.
    async fn serve_wants(&self, link: &Arc<Link>, message: &Received) -> Result<(), Error> {
        if message.full {
            lock(&self.shared.state).ledger.forget_peer(link.peer);
            link.withdraw_all();
        }
        let mut entries = message.entries();
        let mut room = WANTS_MAX;
        loop {
            let slice: Vec<Entry> = entries.by_ref().take(SLICE).collect::<Result<_, _>>()?;
            if slice.is_empty() {
                return Ok(());
            }
            let mut asked = self.record_entries(link, &slice);
            asked.truncate(room);
            room -= asked.len();
            if !asked.is_empty() {
                self.answer(link, asked).await?;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Records wants and carries out cancels. Returns the wants.
    fn record_entries(&self, link: &Link, entries: &[Entry]) -> Vec<PeerWant> {
        let mut asked = Vec::new();
        let mut state = lock(&self.shared.state);
        for entry in entries {
            let Some(cid) = message::cid_of(&entry.cid) else {
                continue;
            };
            if entry.cancel {
                state.ledger.forget(link.peer, &key_of(&cid));
                link.withdraw(&cid);
                continue;
            }
            let only_have = entry.want_type == 1;
            // Recorded before the lookup, so that a block stored in between is not missed.
            state.ledger.remember(link.peer, cid, only_have);
            asked.push(PeerWant {
                cid,
                only_have,
                send_dont_have: entry.send_dont_have,
            });
        }
        asked
    }

    /// Queues blocks and presences that this node has, and negative answers where the peer wants them.
    async fn answer(&self, link: &Link, asked: Vec<PeerWant>) -> Result<(), Error> {
        let store = self.shared.store.clone();
        let look = move || {
            let sized = asked.into_iter().map(|want| {
                let size = store.size_of(&want.cid)?;
                Ok((want, size))
            });
            sized.collect::<Result<Vec<_>, Error>>()
        };
        let found = tokio::task::spawn_blocking(look)
            .await
            .map_err(|_| Error::Closed)??;
        let mut state = lock(&self.shared.state);
        for (want, size) in found {
            let cid = want.cid;
            match size {
                None if want.send_dont_have => link.presence(cid, false),
                None => {}
                Some(size) => {
                    state.ledger.forget(link.peer, &key_of(&cid));
                    if want.only_have && size > HAVE_REPLACED_BYTES {
                        link.presence(cid, true);
                    } else if !link.serve(cid) && want.send_dont_have {
                        link.presence(cid, false);
                    }
                }
            }
        }
        Ok(())
    }

    /// Counts blocks that are sent to a peer.
    fn note_sent(&self, blocks: &[(Cid, Bytes)]) {
        let bytes = blocks.iter().map(|(_, data)| data.len() as u64).sum();
        self.shared.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.shared
            .sent_blocks
            .fetch_add(blocks.len() as u64, Ordering::Relaxed);
    }

    /// Returns the wanted blocks received and the blocks sent so far.
    pub(crate) fn stat(&self) -> ExchangeStat {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let shared = &self.shared;
        ExchangeStat {
            received: (of(&shared.received_blocks), of(&shared.received)),
            sent: (of(&shared.sent_blocks), of(&shared.sent_bytes)),
        }
    }

    /// Verifies and stores the wanted blocks of a message.
    async fn receive_blocks(&self, peer: PeerId, message: Received) {
        let named = message
            .payload()
            .map(|payload| Some((payload.cid()?, payload.data)));
        let bare = message.bare().map(|data| {
            let cid = hash::compute_cid(Version::V0, codec::DAG_PB, 0x12, &data).ok()?;
            Some((cid, data))
        });
        let mut blocks = named.chain(bare);
        loop {
            let bitswap = self.clone();
            let check = move || {
                let (wanted, is_last) = bitswap.select_wanted(peer, &mut blocks);
                (wanted, is_last, blocks)
            };
            let Ok((wanted, is_last, rest)) = tokio::task::spawn_blocking(check).await else {
                return;
            };
            blocks = rest;
            if !wanted.is_empty() {
                let bytes = wanted.iter().map(|block| block.data.len() as u64).sum();
                self.shared.received.fetch_add(bytes, Ordering::Relaxed);
                let blocks = wanted.len() as u64;
                self.shared.received_blocks.fetch_add(blocks, Ordering::Relaxed);
                let stored = self.shared.store.put(wanted.clone()).await;
                self.deliver(&wanted, Some(peer), stored);
            }
            if is_last {
                return;
            }
        }
    }

    /// Returns the wanted ones among the next blocks, without duplicates, and whether the message is
    /// finished.
    fn select_wanted(
        &self,
        peer: PeerId,
        blocks: &mut impl Iterator<Item = Option<(Cid, Bytes)>>,
    ) -> (Vec<Block>, bool) {
        let mut wanted = HashMap::new();
        let mut looked_at = 0;
        for block in blocks.by_ref().take(BLOCKS_SLICE) {
            looked_at += 1;
            let Some((cid, data)) = block else { continue };
            let key = key_of(&cid);
            let mut state = lock(&self.shared.state);
            if state.wants.contains(&key) {
                wanted.entry(cid).or_insert(Block { cid, data });
            } else {
                state.wants.answered_late(peer, &key, true, Instant::now());
            }
        }
        (wanted.into_values().collect(), looked_at < BLOCKS_SLICE)
    }

    /// Delivers blocks that this node stored itself to the peers that want them.
    pub(crate) fn deliver_stored(&self, blocks: &[Block]) {
        self.deliver(blocks, None, Ok(()));
    }

    fn deliver(&self, blocks: &[Block], from: Option<PeerId>, stored: Result<(), Error>) {
        for slice in blocks.chunks(DELIVERY_SLICE) {
            self.deliver_slice(slice, from, &stored);
        }
    }

    fn deliver_slice(&self, blocks: &[Block], from: Option<PeerId>, stored: &Result<(), Error>) {
        let mut state = lock(&self.shared.state);
        for block in blocks {
            let key = key_of(&block.cid);
            for waiter in state.wants.received(&key, from, Instant::now()) {
                let result = match stored {
                    Ok(()) => Ok(Arrival {
                        data: block.data.clone(),
                        from,
                    }),
                    Err(error) => Err(error.clone_for_waiter()),
                };
                // A waiter that is gone needs no answer.
                let _ = waiter.send(result);
            }
            if stored.is_err() {
                continue;
            }
            for (peer, cid, only_have) in state.ledger.take_wants(&key) {
                let Some(link) = state.links.get(&peer) else {
                    continue;
                };
                if only_have && block.data.len() as u64 > HAVE_REPLACED_BYTES {
                    link.presence(cid, true);
                } else {
                    link.serve(cid);
                }
            }
        }
        state.flush();
    }
}

impl Session {
    /// Notes that a connected peer is a provider of what this session wants.
    pub(crate) fn provider_found(&self, peer: PeerId) {
        self.bitswap
            .with(|state| state.wants.provider_found(self.id, peer, Instant::now()));
    }

    /// Returns whether this session knows peers that had a block.
    pub(crate) fn has_peers(&self) -> bool {
        lock(&self.bitswap.shared.state).wants.has_session_peers(self.id)
    }

    /// Stores and delivers a verified block that came from elsewhere.
    pub(crate) async fn deliver(&self, block: Block) {
        let shared = &self.bitswap.shared;
        let bytes = block.data.len() as u64;
        shared.received.fetch_add(bytes, Ordering::Relaxed);
        let stored = shared.store.put(vec![block.clone()]).await;
        self.bitswap.deliver(&[block], None, stored);
    }

    /// Returns whether any connected peer is asked for blocks that nobody is known to have.
    pub(crate) fn has_targets(&self) -> bool {
        self.bitswap.has_targets()
    }

    /// Waits until a peer sends the block or it is stored here. Dropping the future cancels the want.
    pub(crate) async fn get(&self, cid: Cid) -> Result<Arrival, Error> {
        let shared = &self.bitswap.shared;
        let stored = |data| Arrival { data, from: None };
        let empty = Block {
            cid,
            data: Bytes::new(),
        };
        if hash::verify(&empty).is_ok() {
            // Kubo answers that it has the empty block, but never sends it.
            shared.store.put(vec![empty]).await?;
            return Ok(stored(Bytes::new()));
        }
        if !hash::is_known(cid.hash().code()) {
            return Err(Error::UnsupportedHash(cid));
        }
        let (sender, receiver) = oneshot::channel();
        let waiter = self
            .bitswap
            .with(|state| state.wants.want(self.id, cid, sender, Instant::now()));
        let _guard = WantGuard {
            bitswap: &self.bitswap,
            key: key_of(&cid),
            waiter,
        };
        // It may have been stored just before the want was registered.
        match shared.store.get(&cid) {
            Ok(Some(data)) => return Ok(stored(data)),
            // A peer's copy will replace a damaged block.
            Ok(None) | Err(Error::DamagedBlock { .. }) => {}
            Err(error) => return Err(error),
        }
        tokio::select! {
            received = receiver => received.map_err(|_| Error::Closed)?,
            () = shared.closed.cancelled() => Err(Error::Closed),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.bitswap.with(|state| state.wants.close_session(self.id));
    }
}

impl Drop for WantGuard<'_> {
    fn drop(&mut self) {
        self.bitswap
            .with(|state| state.wants.cancel(&self.key, self.waiter));
    }
}
