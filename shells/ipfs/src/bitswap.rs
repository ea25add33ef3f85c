//! Bitswap: blocks for peers that ask, and from peers that have.

mod behaviour;
mod ledger;
mod message;
mod peer;
#[cfg(test)]
mod tests;
mod wants;

pub(crate) use behaviour::{Behaviour, Opened, PROTOCOLS};

use crate::store::{Store, key_of, lock};
use crate::{Block, Error, codec, hash};
use bytes::Bytes;
use cid::{Cid, Version};
use ledger::Ledger;
use libp2p::PeerId;
use libp2p::swarm::Stream;
use message::{Payload, Presence, Wantlist};
use peer::Link;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use wants::Wants;

/// A question about a block this small is answered with the block; Kubo's number.
const HAVE_REPLACED_BYTES: u64 = 1024;
/// How often silent targets and stale wants are looked for.
const TICK: Duration = Duration::from_millis(500);

/// How often, and how long in between, a new stream's connection is looked for: ten seconds in all, because
/// what comes on a stream that is dropped is only asked for again after as long.
const LINK_TRIES: usize = 200;
const LINK_PAUSE: Duration = Duration::from_millis(50);

/// A request for an outbound stream, to the swarm.
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
    /// Bytes of blocks that came from peers and were wanted.
    received: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    wants: Wants,
    ledger: Ledger,
    links: HashMap<PeerId, Arc<Link>>,
}

impl State {
    /// Hands what the client wants to say to the writers.
    fn flush(&mut self) {
        for (peer, cid, ask) in std::mem::take(&mut self.wants.out) {
            if let Some(link) = self.links.get(&peer) {
                link.ask(cid, ask);
            }
        }
    }
}

/// Wants that belong together: who had one of them is asked first for the next. Ends when dropped.
#[derive(Debug)]
pub(crate) struct Session {
    bitswap: Bitswap,
    id: u64,
}

/// Cancels a want when dropped.
struct Waiting<'a> {
    bitswap: &'a Bitswap,
    key: Vec<u8>,
    waiter: u64,
}

impl Bitswap {
    /// Starts the exchange; it ends with the token.
    pub(crate) fn start(store: Store, open: mpsc::Sender<OpenRequest>, closed: CancellationToken) -> Bitswap {
        let shared = Shared {
            store,
            state: Mutex::default(),
            open,
            closed: closed.clone(),
            received: AtomicU64::new(0),
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

    fn peer_connected(&self, peer: PeerId) {
        let link = Arc::new(Link::new(peer, self.shared.closed.child_token()));
        self.with(|state| {
            state.links.insert(peer, link.clone());
            state.wants.connected(peer, Instant::now());
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
            // A connection's task may run before the swarm has said that there is a connection.
            for _ in 0..LINK_TRIES {
                let link = lock(&bitswap.shared.state).links.get(&peer).cloned();
                if let Some(link) = link {
                    return peer::read_loop(bitswap, link, stream).await;
                }
                tokio::time::sleep(LINK_PAUSE).await;
            }
        });
    }

    fn heard_presences(&self, peer: PeerId, presences: &[Presence]) {
        if presences.is_empty() {
            return;
        }
        self.with(|state| {
            for presence in presences {
                if let Some(cid) = message::cid_of(&presence.cid) {
                    state
                        .wants
                        .answered(peer, &key_of(&cid), presence.kind == 0, Instant::now());
                }
            }
        });
    }

    /// Answers a wantlist, and remembers what is not here.
    async fn serve_wants(&self, link: &Arc<Link>, wantlist: Wantlist) -> Result<(), Error> {
        let peer = link.peer;
        let mut asked = Vec::new();
        {
            let mut state = lock(&self.shared.state);
            if wantlist.full {
                state.ledger.forget_peer(peer);
                link.withdraw(None);
            }
            for entry in &wantlist.entries {
                let Some(cid) = message::cid_of(&entry.cid) else {
                    continue;
                };
                if entry.cancel {
                    let key = key_of(&cid);
                    state.ledger.forget(peer, &key);
                    link.withdraw(Some(&key));
                } else {
                    // Remembered before it is looked for: what arrives in between is not missed.
                    state.ledger.remember(peer, cid, entry.want_type == 1);
                    asked.push((cid, entry.want_type == 1, entry.send_dont_have));
                }
            }
        }
        if asked.is_empty() {
            return Ok(());
        }
        let store = self.shared.store.clone();
        let look = move || {
            let sized = asked
                .into_iter()
                .map(|(cid, have, tell)| Ok((cid, have, tell, store.size_of(&cid)?)));
            sized.collect::<Result<Vec<_>, Error>>()
        };
        let found = tokio::task::spawn_blocking(look)
            .await
            .map_err(|_| Error::Closed)??;
        let mut state = lock(&self.shared.state);
        for (cid, only_have, tell, size) in found {
            match size {
                None if tell => link.presence(cid, false),
                None => {}
                Some(size) => {
                    state.ledger.forget(peer, &key_of(&cid));
                    if only_have && size > HAVE_REPLACED_BYTES {
                        link.presence(cid, true);
                    } else if !link.serve(cid) && tell {
                        link.presence(cid, false);
                    }
                }
            }
        }
        Ok(())
    }

    /// Checks and stores the blocks of a message, as far as they are wanted.
    async fn take_blocks(&self, peer: PeerId, payload: Vec<Payload>, bare: Vec<Bytes>) {
        let check = move || {
            let named = payload
                .into_iter()
                .filter_map(|block| Some((block.cid()?, block.data)));
            let bare = bare.into_iter().filter_map(|data| {
                let cid = hash::name(Version::V0, codec::DAG_PB, 0x12, &data).ok()?;
                Some((cid, data))
            });
            named
                .chain(bare)
                .map(|(cid, data)| Block { cid, data })
                .collect::<Vec<_>>()
        };
        let Ok(mut blocks) = tokio::task::spawn_blocking(check).await else {
            return;
        };
        {
            let state = lock(&self.shared.state);
            blocks.retain(|block| state.wants.contains(&key_of(&block.cid)));
        }
        if blocks.is_empty() {
            return;
        }
        let bytes = blocks.iter().map(|block| block.data.len() as u64).sum();
        self.shared.received.fetch_add(bytes, Ordering::Relaxed);
        let stored = self.shared.store.put(blocks.clone()).await;
        self.deliver(&blocks, Some(peer), stored);
    }

    /// Blocks were stored by this node itself: gives them to whoever wants them.
    pub(crate) fn arrived(&self, blocks: &[Block]) {
        self.deliver(blocks, None, Ok(()));
    }

    fn deliver(&self, blocks: &[Block], from: Option<PeerId>, stored: Result<(), Error>) {
        let mut state = lock(&self.shared.state);
        for block in blocks {
            let key = key_of(&block.cid);
            for waiter in state.wants.received(&key, from, Instant::now()) {
                let result = match &stored {
                    Ok(()) => Ok(block.data.clone()),
                    Err(error) => Err(error.again()),
                };
                // Who has stopped waiting needs no answer.
                let _ = waiter.send(result);
            }
            if stored.is_err() {
                continue;
            }
            for (peer, cid, only_have) in state.ledger.arrived(&key) {
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
    /// The block, as soon as any peer has it, or it is stored here. Dropping the future takes the want back.
    pub(crate) async fn get(&self, cid: Cid) -> Result<Bytes, Error> {
        let shared = &self.bitswap.shared;
        let empty = Block {
            cid,
            data: Bytes::new(),
        };
        if hash::verify(&empty).is_ok() {
            // Kubo says that it has this block but never sends it. Everybody has it.
            shared.store.put(vec![empty]).await?;
            return Ok(Bytes::new());
        }
        if hash::code(cid.hash().code()).is_none() {
            return Err(Error::UnsupportedHash(cid));
        }
        let (sender, receiver) = oneshot::channel();
        let waiter = self
            .bitswap
            .with(|state| state.wants.want(self.id, cid, sender, Instant::now()));
        let _waiting = Waiting {
            bitswap: &self.bitswap,
            key: key_of(&cid),
            waiter,
        };
        // It may have been stored just before the want was known.
        if let Some(data) = shared.store.get(&cid)? {
            return Ok(data);
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

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.bitswap
            .with(|state| state.wants.cancel(&self.key, self.waiter));
    }
}
