//! Repair of damaged and missing blocks of pins, by fetching them again from other peers.
//!
//! Readers of a damaged block record it in the store ([`crate::store::Damage`]). One task per node then finds
//! the pins that need the block, which count as broken until it is replaced, and asks connected peers for a
//! copy. The cluster's peer learns of broken pins by [`Node::next_broken_pin`], and shows their status.

use super::Node;
use crate::Cid;
use crate::Multihash;
use crate::dag::{self, Health};
use crate::reader::blocking;
use crate::retrieval::Finder;
use crate::store::{Store, key_of, lock};
use crate::{Error, PinMode, codec};
use futures::stream::{FuturesUnordered, StreamExt};
use std::collections::{BTreeSet, HashSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{interval, timeout};
use tokio_util::sync::CancellationToken;

/// Damaged blocks fetched concurrently: 32 MiB at most.
const FETCHES: usize = 16;
/// Limit on waiting for a copy of a damaged block; then others get their turn.
const FETCH_TIMEOUT: Duration = Duration::from_secs(120);
/// Interval at which all damaged blocks are asked for again that no peer had.
const RETRY_INTERVAL: Duration = Duration::from_secs(600);
/// Queue of announced broken pins; further ones are found by the next comparison of all pins.
const ANNOUNCED_MAX: usize = 4096;

/// Pins known to lack blocks or to have damaged ones.
#[derive(Debug, Default)]
pub(super) struct BrokenPins {
    state: Mutex<State>,
    announced: Notify,
    /// Notified for [`super::unmended`], which saves the pins.
    pub(super) changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    pins: BTreeSet<Cid>,
    announced: VecDeque<Cid>,
    /// Number of pins that were complete again, since the start.
    mended: u64,
}

impl BrokenPins {
    pub(super) fn contains(&self, cid: &Cid) -> bool {
        lock(&self.state).pins.contains(cid)
    }

    /// Adds a pin, and announces it if it is new; `false` if it is not.
    pub(super) fn insert(&self, cid: Cid) -> bool {
        let mut state = lock(&self.state);
        let is_new = state.pins.insert(cid);
        if is_new && state.announced.len() < ANNOUNCED_MAX {
            state.announced.push_back(cid);
            self.announced.notify_one();
        }
        if is_new {
            self.changed.notify_one();
        }
        is_new
    }

    pub(super) fn remove(&self, cid: &Cid) {
        let mut state = lock(&self.state);
        if state.pins.remove(cid) {
            state.mended += 1;
            self.changed.notify_one();
            tracing::info!("all blocks of the pin {cid} are present again");
        }
    }

    pub(super) fn all(&self) -> Vec<Cid> {
        lock(&self.state).pins.iter().copied().collect()
    }

    /// Returns the number of broken pins, of those mended since the start, and the first broken ones.
    pub(super) fn summary(&self, examples: usize) -> (u64, u64, Vec<Cid>) {
        let state = lock(&self.state);
        let first = state.pins.iter().take(examples).copied().collect();
        (state.pins.len() as u64, state.mended, first)
    }
}

impl Node {
    /// Waits for a pin that is found damaged or incomplete. Each is returned once, until it is complete
    /// again.
    pub async fn next_broken_pin(&self) -> Cid {
        loop {
            if let Some(cid) = lock(&self.inner.broken.state).announced.pop_front() {
                return cid;
            }
            self.inner.broken.announced.notified().await;
        }
    }

    /// Returns whether blocks of this pin are known to be damaged or missing.
    pub fn is_broken(&self, cid: &Cid) -> bool {
        self.inner.broken.contains(cid)
    }

    /// Records that a local block does not hash to its CID; another peer's copy will replace it.
    pub(crate) fn note_damaged(&self, cid: &Cid) {
        self.inner.store.damage().record(&key_of(cid));
    }

    /// Reads and hashes every block of a pin. Damaged or missing blocks are fetched again, and the pin counts
    /// as broken until then. Returns the number of such blocks; 0 for a CID that is not pinned.
    ///
    /// # Errors
    /// The disk cannot be read.
    pub async fn verify_pin(&self, cid: &Cid) -> Result<u64, Error> {
        let Some(pin) = self.pin_of(cid)? else {
            return Ok(0);
        };
        let store = self.inner.store.clone();
        let bad = blocking(move || dag::verify(&store, pin.cid, pin.mode)).await?;
        if bad > 0 {
            tracing::error!("{bad} blocks of the pin {cid} are damaged or missing; fetching them again");
            self.inner.broken.insert(pin.cid);
        }
        Ok(bad)
    }
}

/// Repairs damaged blocks until the node is closed.
pub(super) async fn run(
    store: Store,
    finder: Arc<Finder>,
    broken: Arc<BrokenPins>,
    closed: CancellationToken,
) {
    // Blocks in flight, and blocks that were not replaced, to avoid asking for them in a loop.
    let (mut asked, mut failed) = (HashSet::new(), HashSet::new());
    let mut fetches = FuturesUnordered::new();
    let mut retry = interval(RETRY_INTERVAL);
    loop {
        tokio::select! {
            () = closed.cancelled() => return,
            _ = retry.tick() => failed.clear(),
            () = store.damage().changed() => {
                failed.clear();
                if let Err(error) = update_broken_pins(&store, &broken).await {
                    tracing::warn!(%error, "cannot determine which pins need damaged blocks");
                }
            }
            Some((key, fetched)) = fetches.next() => {
                asked.remove(&key);
                if let Err(error) = fetched {
                    tracing::warn!(%error, "a damaged block of the ipfs repository was not replaced");
                    failed.insert(key);
                } else {
                    tracing::info!("a damaged block of the ipfs repository was replaced by a peer's copy");
                }
            }
        }
        let damaged = store.damage().keys();
        let unasked = damaged
            .into_iter()
            .filter(|key| !asked.contains(key) && !failed.contains(key));
        for key in unasked
            .take(FETCHES.saturating_sub(asked.len()))
            .collect::<Vec<_>>()
        {
            let Ok(hash) = Multihash::from_bytes(&key) else {
                continue;
            };
            asked.insert(key.clone());
            let session = finder.session();
            // Other peers find blocks by their multihash too.
            fetches.push(async move {
                let cid = Cid::new_v1(codec::RAW, hash);
                let fetched = timeout(FETCH_TIMEOUT, session.get(cid)).await;
                (key, fetched.unwrap_or(Err(Error::NotFound(cid))))
            });
        }
    }
}

/// Finds the pins that need damaged blocks, and those that are complete again.
async fn update_broken_pins(store: &Store, broken: &Arc<BrokenPins>) -> Result<(), Error> {
    let (store, broken) = (store.clone(), broken.clone());
    blocking(move || {
        let damaged = store.damage().keys();
        for cid in broken.all() {
            let whole = match store.pin_of(&cid)? {
                Some(pin) if pin.mode == PinMode::Recursive => dag::health(&store, cid)? == Health::Whole,
                Some(pin) => !damaged.contains(&key_of(&pin.cid)) && store.has(&pin.cid)?,
                None => true,
            };
            if whole {
                broken.remove(&cid);
            }
        }
        if damaged.is_empty() {
            return Ok(());
        }
        for pin in store.pins()? {
            let pin = pin?;
            let hit = match pin.mode {
                PinMode::Direct => damaged.contains(&key_of(&pin.cid)),
                PinMode::Recursive => dag::health(&store, pin.cid)? != Health::Whole,
            };
            if hit && !broken.contains(&pin.cid) {
                tracing::error!(
                    "blocks of the pin {} are damaged or missing; fetching them again",
                    pin.cid
                );
                broken.insert(pin.cid);
            }
        }
        Ok(())
    })
    .await
}
