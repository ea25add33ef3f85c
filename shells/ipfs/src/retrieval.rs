//! Retrieval: sessions that fetch blocks from connected peers, and search providers when those do not have
//! them.
//!
//! ```text
//! want  -> bitswap: trusted and local peers, and those that had blocks of the session
//!       -> no block for a while: providers from the DHTs and routers (crate::routing)
//!             -> peers:    dialled within limits, asked first once connected
//!             -> gateways: asked over HTTP beside bitswap (gateways); every block is verified
//! ```
//!
//! A search is for one want of a session, since the rest of a DAG is usually where its root is. Searches
//! repeat with growing pauses while nothing arrives, so that content without providers costs bounded work.

mod gateways;

pub(crate) use gateways::Gateways;

use crate::bitswap::{self, Arrival};
use crate::routing::{ContentRouting, HTTP_TRANSPORT, Provider};
use crate::steps::{Recorder, Transfer};
use crate::store::lock;
use crate::swarm::Network;
use crate::swarm::addresses::resolved;
use crate::{Cid, Error};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use gateways::SessionGateways;
use opentelemetry::KeyValue;
use rand::seq::IndexedRandom;
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{Notify, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Delay of the first search when connected peers may have the block: the time that they need to answer.
const FIRST_DELAY: Duration = Duration::from_millis(200);
/// Delays of further searches without any block in between.
const REPEAT_DELAYS: [Duration; 3] = [
    Duration::from_secs(5),
    Duration::from_secs(30),
    Duration::from_secs(60),
];
/// Time limit of one search, as in boxo.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(10);
/// Limit on providers of one search; Kubo's number.
const PROVIDERS_MAX: usize = 10;
/// Limit on searches of all sessions at once.
const SEARCHES_MAX: usize = 8;
/// Limit on peers that searches dial at once.
const DIALS_MAX: usize = 32;
/// Time limit of dialling a provider.
const DIAL_TIMEOUT: Duration = Duration::from_secs(15);

/// Shared means of all searches.
#[derive(Debug)]
pub(crate) struct Finder {
    routing: Arc<ContentRouting>,
    network: Arc<Network>,
    gateways: Option<Gateways>,
    searches: Semaphore,
    dials: Semaphore,
}

/// Session of one request.
#[derive(Debug)]
pub(crate) struct Session {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    bitswap: bitswap::Session,
    /// `None` if nothing beyond the connected peers is asked.
    finder: Option<Arc<Finder>>,
    gateways: SessionGateways,
    progress: Mutex<Progress>,
    wanted: Notify,
    /// Cancelled when the session ends, so that its search makes room for those of other sessions.
    ended: CancellationToken,
    recorder: Recorder,
}

/// Live wants and the time of the last block.
#[derive(Debug)]
struct Progress {
    live: HashMap<u64, Cid>,
    next: u64,
    last: Instant,
    is_searching: bool,
}

/// A live want; ends when dropped.
struct LiveWant<'a> {
    shared: &'a Shared,
    id: u64,
}

impl Finder {
    pub(crate) fn new(
        routing: Arc<ContentRouting>,
        network: Arc<Network>,
        gateways: Option<Gateways>,
    ) -> Arc<Finder> {
        Arc::new(Finder {
            routing,
            network,
            gateways,
            searches: Semaphore::new(SEARCHES_MAX),
            dials: Semaphore::new(DIALS_MAX),
        })
    }

    /// Opens a session that searches providers if there is anything to ask. It is a part of the operation
    /// that the caller is a part of.
    pub(crate) fn session(self: &Arc<Self>) -> Session {
        let progress = Progress {
            live: HashMap::new(),
            next: 0,
            last: Instant::now(),
            is_searching: false,
        };
        let shared = Shared {
            bitswap: self.network.bitswap.session(),
            finder: self.routing.is_on().then(|| self.clone()),
            gateways: SessionGateways::default(),
            progress: Mutex::new(progress),
            wanted: Notify::new(),
            ended: CancellationToken::new(),
            recorder: Recorder::current(),
        };
        Session {
            shared: Arc::new(shared),
        }
    }

    /// Searches providers of a block, and connects to them, until the session ends.
    async fn search(&self, shared: &Weak<Shared>, cid: Cid) {
        let session = shared.upgrade();
        let Some((recorder, ended)) = session.map(|it| (it.recorder.clone(), it.ended.clone())) else {
            return;
        };
        ended
            .run_until_cancelled(self.search_recorded(shared, cid, &recorder))
            .await;
    }

    async fn search_recorded(&self, shared: &Weak<Shared>, cid: Cid, recorder: &Recorder) {
        let (step, begun) = (recorder.begin("routing.search"), Instant::now());
        step.set_text("ipfs.block", &cid);
        let Ok(_turn) = self.searches.acquire().await else {
            return;
        };
        step.set_number("ipfs.waited_ms", millis(begun.elapsed()));
        let mut found = self.routing.providers(cid, PROVIDERS_MAX, recorder);
        let mut connecting = FuturesUnordered::new();
        let mut is_complete = false;
        let searching = async {
            loop {
                tokio::select! {
                    provider = found.recv(), if !is_complete => match provider {
                        Some(provider) => {
                            let (peer, addresses) = (provider.peer, &provider.addresses);
                            tracing::debug!(%cid, %peer, ?addresses, "a provider is found");
                            connecting.push(self.use_provider(shared, provider, recorder));
                        }
                        None => is_complete = true,
                    },
                    Some(()) = connecting.next() => {}
                    else => return,
                }
            }
        };
        // Dials that take longer end with the search.
        let is_in_time = timeout(SEARCH_TIMEOUT, searching).await.is_ok();
        if !is_in_time {
            step.fail(&format!("ended by its time limit of {SEARCH_TIMEOUT:?}"));
        }
        tracing::debug!(%cid, is_in_time, "a search of providers ends");
    }

    async fn use_provider(&self, shared: &Weak<Shared>, provider: Provider, recorder: &Recorder) {
        if provider
            .protocols
            .iter()
            .any(|protocol| protocol == HTTP_TRANSPORT)
        {
            if let (Some(gateways), Some(shared)) = (&self.gateways, shared.upgrade()) {
                shared.gateways.add(gateways.of(&provider.addresses));
            }
            // A peer may serve both protocols, with one list of addresses.
            if provider.protocols.len() == 1 {
                return;
            }
        }
        let Ok(_turn) = self.dials.acquire().await else {
            return;
        };
        let mut addresses = provider.addresses;
        if addresses.is_empty() && !self.network.is_connected(&provider.peer) {
            let step = recorder.begin("routing.peer");
            step.set_text("ipfs.peer", &provider.peer);
            addresses = match step.end_with(self.routing.find_peer(provider.peer).await) {
                Ok(found) => found,
                Err(_) => return,
            };
        }
        let step = recorder.begin("swarm.dial");
        step.set_text("ipfs.peer", &provider.peer);
        let dialling = async {
            let addresses = resolved(addresses).await;
            self.network.dial(provider.peer, addresses).await
        };
        match timeout(DIAL_TIMEOUT, dialling).await {
            Ok(Ok(())) => {
                if let Some(shared) = shared.upgrade() {
                    shared.bitswap.provider_found(provider.peer);
                }
            }
            Ok(Err(error)) => {
                step.fail(&error);
                tracing::debug!(peer = %provider.peer, %error, "a provider cannot be dialled");
            }
            Err(_) => {
                step.fail(&format!("no answer in {DIAL_TIMEOUT:?}"));
                tracing::debug!(peer = %provider.peer, "dialling a provider timed out");
            }
        }
    }
}

impl Session {
    /// Waits until the block arrives from any source or is stored here. Dropping the future cancels the want.
    pub(crate) async fn get(&self, cid: Cid) -> Result<Bytes, Error> {
        let since = self.shared.recorder.now();
        let Some(finder) = &self.shared.finder else {
            let arrived = self.shared.bitswap.get(cid).await?;
            return Ok(self.shared.received(arrived, since));
        };
        let _want = self.shared.want(cid);
        tokio::select! {
            arrived = self.shared.bitswap.get(cid) => {
                arrived.map(|arrived| self.shared.received(arrived, since))
            }
            never = self.shared.fetch_over_http(finder, cid) => match never {},
        }
    }
}

impl Shared {
    /// Registers a live want, and starts the task that searches for the session's wants.
    fn want(self: &Arc<Self>, cid: Cid) -> LiveWant<'_> {
        let mut progress = lock(&self.progress);
        progress.next += 1;
        let id = progress.next;
        if progress.live.is_empty() {
            progress.last = Instant::now();
        }
        progress.live.insert(id, cid);
        if !progress.is_searching {
            progress.is_searching = true;
            tokio::spawn(search_while_open(Arc::downgrade(self)));
        } else {
            self.wanted.notify_one();
        }
        LiveWant { shared: self, id }
    }

    /// Notes the arrival of a block that was wanted `since`.
    fn received(&self, arrived: Arrival, since: Option<SystemTime>) -> Bytes {
        lock(&self.progress).last = Instant::now();
        if let Some(peer) = arrived.from {
            let transfer = Transfer {
                blocks: 1,
                bytes: arrived.data.len() as u64,
                ..Transfer::default()
            };
            let label = || KeyValue::new("ipfs.peer", peer.to_string());
            self.recorder.received("bitswap.fetch", since, label, transfer);
        }
        arrived.data
    }

    /// Returns the time until a search is due after `delay` without a block, and one of the live wants.
    fn next_search(&self, delay: Duration) -> Option<(Duration, Cid)> {
        let progress = lock(&self.progress);
        let live: Vec<&Cid> = progress.live.values().collect();
        let cid = **live.choose(&mut rand::rng())?;
        Some((delay.saturating_sub(progress.last.elapsed()), cid))
    }

    async fn fetch_over_http(&self, finder: &Finder, cid: Cid) -> Infallible {
        match &finder.gateways {
            Some(gateways) => {
                gateways
                    .fetch(&self.gateways, &self.bitswap, cid, &self.recorder)
                    .await
            }
            None => std::future::pending().await,
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.ended.cancel();
    }
}

impl Drop for LiveWant<'_> {
    fn drop(&mut self) {
        lock(&self.shared.progress).live.remove(&self.id);
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Searches providers for a session whenever nothing arrives for a while, until the session ends.
async fn search_while_open(session: Weak<Shared>) {
    let mut searches = 0;
    loop {
        let Some(shared) = session.upgrade() else { return };
        let Some(finder) = shared.finder.clone() else {
            return;
        };
        let delay = match searches {
            0 if !shared.bitswap.has_targets() => Duration::ZERO,
            0 => FIRST_DELAY,
            _ => REPEAT_DELAYS[(searches - 1).min(REPEAT_DELAYS.len() - 1)],
        };
        match shared.next_search(delay) {
            Some((Duration::ZERO, cid)) => {
                drop(shared);
                searches += 1;
                finder.search(&session, cid).await;
                if let Some(shared) = session.upgrade() {
                    let mut progress = lock(&shared.progress);
                    // The next pause begins now, unless blocks are arriving.
                    progress.last = Instant::now();
                }
            }
            Some((pause, _)) => {
                drop(shared);
                sleep(pause).await;
            }
            None => {
                // Wakes up from time to time, to notice the end of the session.
                let _ = timeout(REPEAT_DELAYS[0], shared.wanted.notified()).await;
            }
        }
    }
}
