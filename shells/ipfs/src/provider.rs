//! Announces this node's content to the DHT: what is newly pinned at once, and all of it once per interval.
//!
//! ```text
//! new pin -> queue -> the closest servers of its key
//! sweep   -> a region of the keyspace at a time:
//!              keys     of the content in the region that is this node's duty
//!              servers  found by lookups until the region is covered
//!              send     each key to its 20 closest servers, all keys for a server on one connection
//! ```
//!
//! Lookups are shared by all keys of a region, so their number depends on the size of the network and not on
//! the number of keys. Each region has its own time of the last announcement, which is saved, so that a
//! restart repeats none and leaves none out. Memory holds the keys of one region. Which roots are this node's
//! duty is decided by the cluster ([`Duty`]): each is announced by a few of its holders.

mod progress;
mod region;

use crate::reader::blocking;
use crate::routing::ContentRouting;
use crate::settings::{ProvideStrategy, PublicNetwork};
use crate::store::{Store, lock};
use crate::swarm::dht::FoundPeer;
use crate::{Cid, Error, PinMode, dag};
use futures::StreamExt;
use progress::Progress;
use region::{REGIONS, Region, region_of};
pub(crate) use region::{common_bits, kad_key};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

/// Capacity of the queue of new pins. Beyond it, their regions are swept.
const QUEUE_MAX: usize = 1024;
/// Concurrent announcements of new pins.
const WORKERS: usize = 4;
/// Concurrent sends of a sweep.
const SENDS: usize = 16;
/// Time limit of announcing one new pin.
const FRESH_TIMEOUT: Duration = Duration::from_secs(90);
/// Interval of checking whether a region is due or a DHT was joined.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// Pause before a region whose announcement failed is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(300);
/// Number of servers that store a record.
const REPLICATION: usize = 20;
/// Part of the sends of a region that must succeed, as 1/n.
const SUCCESS_PART: usize = 5;
/// Code of identity multihashes, which contain the content, so that no announcement is needed.
const IDENTITY: u64 = 0;
/// Lag of the sweep above which the log warns, and the interval of warnings. Records are valid for two days,
/// and the default interval is 22 hours.
const LAG_WARNED: Duration = Duration::from_secs(3600);
/// Limit on the number of remembered announcements of single roots.
const FRESH_MAX: usize = 8192;

/// Decides which roots this node announces; called with the root's CID and the first byte of its key in the
/// DHT. May read a database.
pub type Duty = Arc<dyn Fn(&Cid, u8) -> bool + Send + Sync>;

/// State of announcing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProvideStat {
    /// False if the settings announce nothing.
    pub is_on: bool,
    /// New pins that wait for their announcement.
    pub queued: usize,
    /// Limit on these.
    pub queue_max: usize,
    /// New pins that are being announced.
    pub announcing: usize,
    /// True while a region is being announced.
    pub is_sweeping: bool,
    /// Concurrent announcements of new pins.
    pub workers: usize,
    /// Concurrent sends of the sweep.
    pub sends_max: usize,
    /// Number of servers that store a record.
    pub replication: usize,
    /// Records that servers accepted since the start.
    pub records: u64,
    /// Sends that failed since the start.
    pub failed_sends: u64,
    /// Announcements of new pins since the start.
    pub announced: u64,
    /// Announcements of new pins that failed since the start; the sweep repeats them.
    pub failed: u64,
    /// Keys announced by the last pass over each region since the start.
    pub keys: u64,
    /// Number of regions of the keyspace.
    pub regions: usize,
    /// Regions announced within the interval.
    pub regions_current: usize,
    /// Time by which the region that waits longest is overdue.
    pub lag: Duration,
    /// Interval at which all content is announced again.
    pub interval: Duration,
    /// Time since the start.
    pub uptime: Duration,
    /// Time of the announcement of the region that waits longest, of those that were announced.
    pub oldest: Option<SystemTime>,
    /// Region that is announced next, and the time when it is due.
    pub next: Option<(u8, SystemTime)>,
}

/// Counters and queue, shared with the tasks.
#[derive(Debug, Default)]
struct Counters {
    /// New pins that wait, and those of them that are in the queue already.
    queue: VecDeque<Cid>,
    queued: HashSet<Cid>,
    announcing: usize,
    is_sweeping: bool,
    records: u64,
    failed_sends: u64,
    announced: u64,
    failed: u64,
    /// Keys of each region at its last announcement.
    keys: BTreeMap<u8, usize>,
    /// Times of the announcements of single roots.
    fresh: HashMap<Cid, SystemTime>,
}

impl Counters {
    /// Adds a CID to the queue; returns `false` if it is full.
    fn enqueue(&mut self, cid: Cid) -> bool {
        if self.queued.contains(&cid) {
            return true;
        }
        if self.queue.len() >= QUEUE_MAX {
            return false;
        }
        self.queued.insert(cid);
        self.queue.push_back(cid);
        true
    }

    fn dequeue(&mut self) -> Option<Cid> {
        let cid = self.queue.pop_front()?;
        self.queued.remove(&cid);
        self.announcing += 1;
        Some(cid)
    }
}

/// The provider of a node.
pub(crate) struct Provider {
    store: Store,
    routing: Arc<ContentRouting>,
    settings: Arc<PublicNetwork>,
    is_on: bool,
    started: Instant,
    /// Wakes a worker after an addition to the queue, and callers that wait for room after a removal.
    added: Notify,
    removed: Notify,
    counters: Mutex<Counters>,
    progress: Mutex<Progress>,
    duty: Mutex<Option<Duty>>,
}

impl std::fmt::Debug for Provider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Provider")
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

/// Result of announcing one region.
struct Swept {
    keys: usize,
    sends: usize,
    succeeded: usize,
}

impl Provider {
    /// Creates the provider, and starts its tasks if the settings announce anything.
    pub(crate) fn start(
        store: Store,
        routing: Arc<ContentRouting>,
        settings: Arc<PublicNetwork>,
        folder: &Path,
        closed: &tokio_util::sync::CancellationToken,
    ) -> Arc<Provider> {
        let is_on =
            settings.effective_routing().uses_dht() && settings.provide_strategy != ProvideStrategy::None;
        let progress = if is_on {
            Progress::load(folder)
        } else {
            Progress::default()
        };
        let provider = Arc::new(Provider {
            store,
            routing,
            settings,
            is_on,
            started: Instant::now(),
            added: Notify::new(),
            removed: Notify::new(),
            counters: Mutex::default(),
            progress: Mutex::new(progress),
            duty: Mutex::default(),
        });
        if is_on {
            let until_closed = closed.clone();
            tokio::spawn(until_closed.run_until_cancelled_owned(provider.clone().sweep()));
            for _ in 0..WORKERS {
                let until_closed = closed.clone();
                tokio::spawn(until_closed.run_until_cancelled_owned(provider.clone().announce_fresh()));
            }
        }
        provider
    }

    /// Sets who decides which roots this node announces; without, it announces all.
    pub(crate) fn set_duty(&self, duty: Duty) {
        *lock(&self.duty) = Some(duty);
    }

    /// Announces a new pin soon, whatever this node's duty: it may be the first holder.
    pub(crate) fn pinned(&self, cid: Cid) {
        if !self.is_on || cid.hash().code() == IDENTITY {
            return;
        }
        match lock(&self.counters).enqueue(cid) {
            true => self.added.notify_one(),
            // One region for many new pins takes no more lookups than one pin.
            false => lock(&self.progress).make_due(region_of(&kad_key(&cid.hash().to_bytes()))),
        }
    }

    /// Adds a CID to the queue of new pins, waiting for room.
    pub(crate) async fn announce_later(&self, cid: Cid) {
        loop {
            let removed = self.removed.notified();
            if lock(&self.counters).enqueue(cid) {
                return self.added.notify_one();
            }
            removed.await;
        }
    }

    /// Empties the queue of new pins; returns their number. The sweep announces those that are pinned.
    pub(crate) fn clear_queue(&self) -> usize {
        let mut counters = lock(&self.counters);
        counters.queued.clear();
        let cleared = std::mem::take(&mut counters.queue).len();
        self.removed.notify_waiters();
        cleared
    }

    /// Makes the whole keyspace due.
    pub(crate) fn reprovide(&self) {
        lock(&self.progress).make_all_due();
    }

    /// Returns the state of announcing.
    pub(crate) fn stat(&self) -> ProvideStat {
        let (progress, counters) = (lock(&self.progress), lock(&self.counters));
        let now = SystemTime::now();
        let interval = self.settings.provide_interval;
        ProvideStat {
            is_on: self.is_on,
            queued: counters.queue.len(),
            queue_max: QUEUE_MAX,
            announcing: counters.announcing,
            is_sweeping: counters.is_sweeping,
            workers: WORKERS,
            sends_max: SENDS,
            replication: REPLICATION,
            records: counters.records,
            failed_sends: counters.failed_sends,
            announced: counters.announced,
            failed: counters.failed,
            keys: counters.keys.values().map(|keys| *keys as u64).sum(),
            regions: REGIONS,
            regions_current: progress.current(now, interval),
            lag: progress.lag(now, interval),
            interval,
            uptime: self.started.elapsed(),
            oldest: progress.oldest(),
            next: progress.next(now, interval),
        }
    }

    /// Returns the time at which a root was last announced by this node, as far as it is known.
    pub(crate) fn announced_at(&self, cid: &Cid) -> Option<SystemTime> {
        let fresh = lock(&self.counters).fresh.get(cid).copied();
        let region = region_of(&kad_key(&cid.hash().to_bytes()));
        let swept = lock(&self.progress)
            .last(region)
            .filter(|_| self.sweeps(cid, region));
        fresh.max(swept)
    }

    /// Returns whether the sweep of a region announces a root. Blocks the thread for reads of the disk.
    fn sweeps(&self, cid: &Cid, region: u8) -> bool {
        let is_pinned = matches!(self.store.pin_of(cid), Ok(Some(_)));
        let duty = lock(&self.duty).clone();
        self.is_on && is_pinned && duty.is_none_or(|duty| duty(cid, region))
    }

    /// Announces new pins one after the other; several such workers run.
    async fn announce_fresh(self: Arc<Self>) {
        loop {
            let is_empty = lock(&self.counters).queue.is_empty();
            if is_empty {
                self.added.notified().await;
            } else if !self.routing.is_in_dht() {
                sleep(CHECK_INTERVAL).await;
            } else if let Some(cid) = self.dequeue() {
                self.announce_one(cid).await;
            }
        }
    }

    fn dequeue(&self) -> Option<Cid> {
        let cid = lock(&self.counters).dequeue();
        self.removed.notify_waiters();
        cid
    }

    async fn announce_one(&self, cid: Cid) {
        let provided = timeout(FRESH_TIMEOUT, self.routing.provide(&cid)).await;
        let mut counters = lock(&self.counters);
        counters.announcing -= 1;
        match provided {
            Ok(Ok(servers)) if servers > 0 => {
                counters.records += servers as u64;
                counters.announced += 1;
                if counters.fresh.len() >= FRESH_MAX {
                    counters.fresh.clear();
                }
                counters.fresh.insert(cid, SystemTime::now());
                drop(counters);
                tracing::debug!(%cid, servers, "announced a new pin");
            }
            outcome => {
                counters.failed += 1;
                drop(counters);
                tracing::debug!(%cid, ?outcome, "a new pin is not announced yet: its region is swept");
                lock(&self.progress).make_due(region_of(&kad_key(&cid.hash().to_bytes())));
            }
        }
    }

    async fn sweep(self: Arc<Self>) {
        let mut warned: Option<Instant> = None;
        loop {
            let lag = lock(&self.progress).lag(SystemTime::now(), self.settings.provide_interval);
            if lag > LAG_WARNED && warned.is_none_or(|warned| warned.elapsed() > LAG_WARNED) {
                warned = Some(Instant::now());
                let is_in_dht = self.routing.is_in_dht();
                tracing::warn!(
                    ?lag,
                    is_in_dht,
                    "announcing content to the dht is behind its schedule"
                );
            }
            let due = lock(&self.progress).due(SystemTime::now(), self.settings.provide_interval);
            let Some(region) = due.filter(|_| self.routing.is_in_dht()) else {
                sleep(CHECK_INTERVAL).await;
                continue;
            };
            lock(&self.counters).is_sweeping = true;
            let swept = self.announce_region(region).await;
            lock(&self.counters).is_sweeping = false;
            match swept {
                Ok(swept) if swept.sends == 0 || swept.succeeded * SUCCESS_PART >= swept.sends => {
                    if swept.keys > 0 {
                        tracing::debug!(
                            region,
                            keys = swept.keys,
                            sends = swept.sends,
                            "announced a region"
                        );
                    }
                    lock(&self.counters).keys.insert(region, swept.keys);
                    self.save(|progress| progress.done(region, SystemTime::now()))
                        .await;
                }
                Ok(swept) => {
                    let (sends, succeeded) = (swept.sends, swept.succeeded);
                    tracing::debug!(
                        region,
                        sends,
                        succeeded,
                        "too few servers took a region's records"
                    );
                    lock(&self.progress).postpone(region, SystemTime::now() + RETRY_PAUSE);
                }
                Err(error) => {
                    tracing::warn!(region, %error, "a region of the content could not be announced");
                    lock(&self.progress).postpone(region, SystemTime::now() + RETRY_PAUSE);
                }
            }
        }
    }

    async fn save(&self, change: impl FnOnce(&mut Progress)) {
        let saved = {
            let mut progress = lock(&self.progress);
            change(&mut progress);
            progress.clone()
        };
        let written = blocking(move || saved.save()).await;
        if let Err(error) = written {
            tracing::warn!(%error, "the progress of announcing could not be saved");
        }
    }

    async fn announce_region(&self, region: u8) -> Result<Swept, Error> {
        let (store, strategy) = (self.store.clone(), self.settings.provide_strategy);
        let duty = lock(&self.duty).clone();
        let keys = blocking(move || keys_in(&store, strategy, duty, region)).await?;
        if keys.is_empty() {
            return Ok(Swept {
                keys: 0,
                sends: 0,
                succeeded: 0,
            });
        }
        let servers = self.explore(region, &keys).await?;
        let plan = region::assign(&keys, servers, REPLICATION);
        let sends = plan.len();
        // Collected first: a stream of borrowing closures is not `Send`.
        let sending: Vec<_> = plan
            .iter()
            .map(|(server, keys)| self.send(server, keys))
            .collect();
        let sent = futures::stream::iter(sending).buffer_unordered(SENDS);
        let succeeded = sent.filter(|sent| std::future::ready(*sent)).count().await;
        Ok(Swept {
            keys: keys.len(),
            sends,
            succeeded,
        })
    }

    async fn send(&self, server: &FoundPeer, keys: &[Vec<u8>]) -> bool {
        let sent = self.routing.provide_to(server, keys).await;
        let mut counters = lock(&self.counters);
        match sent {
            true => counters.records += keys.len() as u64,
            false => counters.failed_sends += 1,
        }
        sent
    }

    /// Finds the servers closest to all keys of a region.
    async fn explore(&self, own: u8, keys: &BTreeMap<[u8; 32], Vec<u8>>) -> Result<Vec<FoundPeer>, Error> {
        let mut region = Region::new(own);
        let mut servers: HashMap<libp2p::PeerId, FoundPeer> = HashMap::new();
        let mut failures = 0;
        while let Some(key) = region.next_lookup(keys) {
            let found = match self.routing.closest(key.clone()).await {
                Ok(found) => found,
                Err(Error::Busy(_)) => {
                    sleep(CHECK_INTERVAL).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            if found.is_empty() {
                failures += 1;
                if failures > 2 {
                    break;
                }
            }
            region.cover(&kad_key(&key), &found);
            servers.extend(found.into_iter().map(|server| (server.peer, server)));
        }
        Ok(servers.into_values().collect())
    }
}

/// Returns the multihashes of the content to announce in a region, by their keys in the DHT.
fn keys_in(
    store: &Store,
    strategy: ProvideStrategy,
    duty: Option<Duty>,
    region: u8,
) -> Result<BTreeMap<[u8; 32], Vec<u8>>, Error> {
    let mut keys = BTreeMap::new();
    let mut add = |hash: Vec<u8>| {
        let key = kad_key(&hash);
        if region_of(&key) == region {
            keys.insert(key, hash);
        }
    };
    let is_duty = |cid: &Cid| {
        let region = region_of(&kad_key(&cid.hash().to_bytes()));
        duty.as_ref().is_none_or(|duty| duty(cid, region))
    };
    match strategy {
        ProvideStrategy::None => {}
        ProvideStrategy::Roots => {
            for pin in store.pins()? {
                let cid = pin?.cid;
                // The cheap test first: duty asks the cluster's state.
                if region_of(&kad_key(&cid.hash().to_bytes())) == region && is_duty(&cid) {
                    add(cid.hash().to_bytes());
                }
            }
        }
        ProvideStrategy::Pinned => {
            let mut seen = dag::Visited::default();
            for pin in store.pins()? {
                let pin = pin?;
                if !is_duty(&pin.cid) {
                    continue;
                }
                add(pin.cid.hash().to_bytes());
                if pin.mode == PinMode::Recursive {
                    dag::for_each_below(store, pin.cid, &mut seen, &mut |cid| {
                        add(cid.hash().to_bytes());
                        Ok(())
                    })?;
                }
            }
        }
        ProvideStrategy::All => {
            for key in store.keys()? {
                add(key?);
            }
        }
    }
    Ok(keys)
}
