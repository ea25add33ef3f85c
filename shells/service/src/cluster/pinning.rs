//! Pinning, unpinning, import, and reads of the pinset.

use std::time::Instant;

use cluster_api as api;
use cluster_core::{Cid, Pin, Refusal, Reply, Request};
use cluster_ipfs::unixfs::Name;
use futures::stream::{self, BoxStream, Stream, StreamExt, TryStreamExt};
use tokio::time::timeout;

use super::search::{Order, Search};
use super::{Cluster, Error, IMPORT_BYTES, convert, now};

/// Pins read from the database at once: enough to amortise the switch to a blocking thread, few enough to
/// hold in memory.
const PAGE: usize = 2048;

/// Maximum number of concurrent requests of one import: few enough to leave room for other clients.
const IMPORTS_AT_ONCE: usize = 256;

/// Time limit for resolving a name. The Go peer waits for `ipfs_request_timeout`, 5 minutes.
const RESOLVE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(60);

/// Warning with reads while there is no leader.
const MAYBE_STALE: &str = "possibly stale: this peer has no leader, so it may lack the latest changes; \
                           writes wait until a majority of the cluster's voters are running and reachable";

impl Cluster {
    /// Pins a CID, or changes its pin, and returns the pin once it is committed and applied here.
    ///
    /// # Errors
    /// The options are invalid, or the cluster refuses.
    pub async fn pin(&self, cid: Cid, options: &api::PinOptions) -> Result<api::Pin, Error> {
        let options = convert::options(options, self.inner.config.default_replicas, now())?;
        let user_allocations = options.user_allocations.clone();
        let (start, owner) = (Instant::now(), self.new_owner());
        let _turn = self.turn_to_pin(&[&cid]).await?;
        let pin = self.request_pin(Request::Pin { cid, options, owner }).await?;
        self.sample_copies(&pin.cid, start);
        let mut shown = convert::pin(&pin);
        shown.options.user_allocations = user_allocations.iter().map(ToString::to_string).collect();
        Ok(shown)
    }

    /// Adds pins of another cluster concurrently, and returns when all are committed. Idempotent.
    ///
    /// # Errors
    /// A pin is invalid, or names owners without `names_owners`, in which case none was added; or the cluster
    /// refuses one, in which case others may have been added.
    pub async fn import(&self, brought: &[api::Pin], names_owners: bool) -> Result<(), Error> {
        let default = self.inner.config.default_replicas;
        let now = now();
        let pins = brought
            .iter()
            .map(|pin| convert::imported(pin, default, now, names_owners));
        let pins: Vec<Pin> = pins.collect::<Result<_, _>>()?;
        let cids: Vec<&Cid> = pins.iter().map(|pin| &pin.cid).collect();
        let _turn = self.turn_to_pin(&cids).await?;
        stream::iter(pins.into_iter().map(Ok))
            .try_for_each_concurrent(IMPORTS_AT_ONCE, |pin| self.import_pin(pin))
            .await
    }

    /// As [`Cluster::import`], but an invalid or refused pin does not affect the others. Returns their
    /// results, in the same order.
    pub async fn import_each(&self, brought: &[api::Pin], names_owners: bool) -> Vec<Result<(), Error>> {
        let default = self.inner.config.default_replicas;
        let now = now();
        let pins = brought
            .iter()
            .map(|pin| convert::imported(pin, default, now, names_owners));
        let pins: Vec<Result<Pin, Error>> = pins.collect();
        let cids: Vec<&Cid> = pins.iter().flatten().map(|pin| &pin.cid).collect();
        let turn = self.turn_to_pin(&cids).await;
        let requests = pins.into_iter().map(|pin| async {
            if let Err(refused) = &turn {
                return Err(refused.clone());
            }
            self.import_pin(pin?).await
        });
        stream::iter(requests).buffered(IMPORTS_AT_ONCE).collect().await
    }

    /// Adds one pin, once the imports in progress leave room.
    async fn import_pin(&self, pin: Pin) -> Result<(), Error> {
        let (cid, owner) = (pin.cid.clone(), self.new_owner());
        let bytes = cluster_core::encode(&pin).len().min(IMPORT_BYTES);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let room = self.inner.imports.acquire_many(bytes).await;
        let _room = room.map_err(|_| Error::Closed)?;
        match self.request_pin(Request::Import { pin, owner }).await {
            // Names the CID in an error that gives only the reason.
            Err(Error::Refused(Refusal::Conflict(why))) => {
                Err(Error::Refused(Refusal::Conflict(format!("{cid}: {why}"))))
            }
            added => added.map(|_| ()),
        }
    }

    /// Makes a request for a pin, and returns it as it is shown.
    pub(super) async fn request_pin(&self, request: Request) -> Result<Pin, Error> {
        let (Reply::Pinned(pin) | Reply::Unpinned(pin)) = self.request(request).await? else {
            return Err(Error::Closed);
        };
        self.shown_pin(pin).ok_or(Error::Closed)
    }

    /// Prepares a read of the pinset. With `consistent`, the read will show all writes acknowledged before,
    /// which needs a majority of the voters. Otherwise returns a warning if the local copy may be stale
    /// because this peer has no leader.
    ///
    /// # Errors
    /// The consistent read is not possible, or this peer is shutting down.
    pub async fn prepare_read(&self, consistent: bool) -> Result<Option<&'static str>, Error> {
        if consistent {
            self.request(Request::Barrier).await?;
            return Ok(None);
        }
        let has_leader = self.view(|view, _| view.leader().is_some()).await?;
        Ok((!has_leader).then_some(MAYBE_STALE))
    }

    /// Removes a pin and returns it. Other owners still hold it.
    ///
    /// # Errors
    /// There is no pin, or the cluster refuses.
    pub async fn unpin(&self, cid: Cid) -> Result<api::Pin, Error> {
        let owner = self.new_owner();
        let removed = self.request_pin(Request::Unpin { cid, owner }).await?;
        Ok(convert::pin(&removed))
    }

    /// Resolves a path like `/ipfs/…`, `/ipld/…` or `/ipns/…` to a CID.
    ///
    /// # Errors
    /// The IPFS node cannot resolve it, or not within one minute.
    pub async fn resolve(&self, path: &Name) -> Result<Cid, Error> {
        let text = path.as_text().unwrap_or_default();
        let rest = text
            .strip_prefix("/ipfs/")
            .or_else(|| text.strip_prefix("/ipld/"));
        if let Some(cid) = rest.and_then(|cid| cid.parse().ok()) {
            return Ok(cid);
        }
        match timeout(RESOLVE_TIMEOUT, self.inner.backend.resolve(path)).await {
            Ok(cid) => convert::core_cid(&cid?),
            Err(_) => Err(Error::Ipfs(format!(
                "{path} cannot be resolved within {RESOLVE_TIMEOUT:?}"
            ))),
        }
    }

    /// Returns the pin of a CID.
    ///
    /// # Errors
    /// There is none, or the database cannot be read.
    pub async fn allocation(&self, cid: Cid) -> Result<api::Pin, Error> {
        let pin = self.read(move |store| store.pin(&cid)).await?;
        pin.and_then(|pin| self.shown_pin(pin))
            .map(|pin| convert::pin(&pin))
            .ok_or(Error::Refused(Refusal::NotFound))
    }

    /// Streams all pins, a page at a time: in CID order, or an owner's from the oldest on. Pins that change
    /// meanwhile may or may not be shown.
    ///
    /// # Errors
    /// The stream ends with an error if too many listings are running or the database cannot be read.
    pub fn allocations(&self) -> BoxStream<'static, Result<Vec<api::Pin>, Error>> {
        if self.owner().is_none() {
            return self.all_pins().boxed();
        }
        let cluster = self.clone();
        let own = Search {
            order: Order::Oldest,
            ..Search::default()
        };
        let pages = async move { cluster.search(own, None, false).await };
        stream::once(pages).try_flatten().boxed()
    }

    fn all_pins(&self) -> impl Stream<Item = Result<Vec<api::Pin>, Error>> + Send + use<> {
        let reader = self.inner.reader.clone();
        let listings = self.inner.listings.clone();
        let start = Listing::default();
        stream::try_unfold(start, move |mut listing| {
            let (reader, listings) = (reader.clone(), listings.clone());
            async move {
                if listing.permit.is_none() {
                    let permit = listings
                        .try_acquire_owned()
                        .map_err(|_| Error::Refused(Refusal::Busy))?;
                    listing.permit = Some(permit);
                }
                let page = tokio::task::spawn_blocking(move || {
                    let pins = reader.pins_after(listing.after.as_ref(), PAGE)?;
                    let shown = pins.iter().map(convert::pin).collect();
                    Ok::<_, Error>(pins.last().map(|last| {
                        listing.after = Some(last.cid.clone());
                        (shown, listing)
                    }))
                });
                page.await.map_err(|_| Error::Closed)?
            }
        })
    }
}

/// A listing that has come to a CID.
#[derive(Default)]
struct Listing {
    after: Option<Cid>,
    /// Held from the first page on.
    permit: Option<tokio::sync::OwnedSemaphorePermit>,
}
