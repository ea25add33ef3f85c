//! Searches of this peer's copy of the pinset.

use cluster_api as api;
use cluster_core::Pin;
use futures::stream::{self, Stream};

use super::{Cluster, Error, convert};
pub(crate) use crate::store::{Comparison, NameMatch, Order, Position, Search};
use crate::store::{Page, Reader, StoreError};

/// Pins read from the database at once for a whole listing.
const PAGE: usize = 512;

/// A page of a search.
#[derive(Debug)]
pub(crate) struct Found {
    /// The next results in the order of the search.
    pub(crate) pins: Vec<api::Pin>,
    /// Position to continue after; `None` when there are no more.
    pub(crate) next: Option<Position>,
}

impl Found {
    fn new(page: Page, owner: Option<&str>, whole: bool) -> Self {
        let shown = match whole {
            true => convert::whole_pin,
            false => convert::pin,
        };
        let seen = |pin: Pin| match owner {
            None => Some(shown(&pin)),
            Some(owner) => pin.seen_by(owner).map(|pin| shown(&pin)),
        };
        Self {
            pins: page.pins.into_iter().filter_map(seen).collect(),
            next: page.next,
        }
    }
}

/// A search that is being read page by page.
struct Reading {
    reader: Reader,
    next: Option<Position>,
    _permit: tokio::sync::OwnedSemaphorePermit,
}

impl Cluster {
    /// Returns up to `limit` pins of a search after `from`, fewer if finding them is much work; with all
    /// fields if `whole`, otherwise with those that the Go peer's listings have.
    ///
    /// # Errors
    /// Too many listings are running, or the database cannot be read.
    pub(crate) async fn search_page(
        &self,
        search: Search,
        from: Option<Position>,
        limit: usize,
        whole: bool,
    ) -> Result<Found, Error> {
        let _permit = self.acquire_listing()?;
        let search = self.restricted(search);
        let page = self.read(move |reader| reader.listing().page(&search, from.as_ref(), limit));
        Ok(Found::new(page.await?, self.owner(), whole))
    }

    /// Streams all pins of a search after `from`, a page at a time. Pins that change meanwhile may or may not
    /// be shown.
    ///
    /// # Errors
    /// As for [`Self::search_page`]; the stream ends with the error.
    pub(crate) async fn search(
        &self,
        search: Search,
        from: Option<Position>,
        whole: bool,
    ) -> Result<impl Stream<Item = Result<Vec<api::Pin>, Error>> + Send + use<>, Error> {
        let permit = self.acquire_listing()?;
        let search = self.restricted(search);
        let start = Reading {
            reader: self.inner.reader.clone(),
            next: from,
            _permit: permit,
        };
        Ok(stream::try_unfold(Some(start), move |reading| {
            let search = search.clone();
            async move {
                let Some(mut reading) = reading else {
                    return Ok(None);
                };
                let page = tokio::task::spawn_blocking(move || {
                    let page = reading
                        .reader
                        .listing()
                        .page(&search, reading.next.as_ref(), PAGE)?;
                    let found = Found::new(page, search.owner.as_deref(), whole);
                    let rest = found.next.is_some().then(|| {
                        reading.next = found.next;
                        reading
                    });
                    Ok::<_, StoreError>((found.pins, rest))
                });
                Ok::<_, Error>(Some(page.await.map_err(|_| Error::Closed)??))
            }
        }))
    }

    /// Counts the pins that a search finds.
    ///
    /// # Errors
    /// As for [`Self::search_page`].
    pub(crate) async fn count(&self, search: Search) -> Result<u64, Error> {
        let _permit = self.acquire_listing()?;
        let search = self.restricted(search);
        self.read(move |reader| reader.count(&search)).await
    }

    /// Restricts a search to the pins that may be shown.
    fn restricted(&self, search: Search) -> Search {
        let owner = self.new_owner();
        Search { owner, ..search }
    }
}
