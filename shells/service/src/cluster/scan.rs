//! Scan of this peer's pinset and local states, joined in CID order, a page at a time.

use std::collections::BTreeMap;

use cluster_core::Cid;

use super::{Cluster, Error};
pub(super) use crate::store::Row as Entry;
use crate::store::{Listing, Reader, StoreError};

/// Number of rows read first: few, so that a client soon has them. Each later page has twice as many.
const FIRST_PAGE: usize = 256;

/// Maximum number of rows read at once.
const PAGE_MAX: usize = 2048;

/// Source of a scan's rows.
enum Source {
    /// The state when each page is read.
    Latest(Reader),
    /// The state at the start.
    Snapshot(Listing),
}

/// A scan that has come to a CID.
pub(super) struct Scan {
    source: Source,
    after: Option<Cid>,
    /// Size of the next page.
    page: usize,
}

impl Scan {
    fn new(source: Source) -> Self {
        Self {
            source,
            after: None,
            page: FIRST_PAGE,
        }
    }

    /// Reads the next rows on a blocking thread; empty at the end.
    pub(super) async fn next(mut self) -> Result<(Self, Vec<Entry>), Error> {
        let read = tokio::task::spawn_blocking(move || {
            let after = self.after.as_ref();
            let rows = match &self.source {
                Source::Latest(reader) => reader.rows_after(after, self.page)?,
                Source::Snapshot(view) => {
                    let rows = view.rows(after).take(self.page);
                    rows.collect::<Result<_, StoreError>>()?
                }
            };
            self.page = (self.page * 2).min(PAGE_MAX);
            if let Some(last) = rows.last() {
                self.after = Some(last.cid.clone());
            }
            Ok((self, rows))
        });
        read.await.map_err(|_| Error::Closed)?
    }
}

impl Cluster {
    /// Starts a scan; also returns the operations running at the IPFS node, with `true` for an unpin.
    pub(super) async fn scan(&self) -> Result<(Scan, BTreeMap<Cid, bool>), Error> {
        let running = self.running().await?;
        let source = Source::Latest(self.inner.reader.clone());
        Ok((Scan::new(source), running))
    }

    /// Starts a scan of the present state, which later changes do not affect. It costs the memory that a
    /// [`Listing`] does.
    pub(super) async fn scan_snapshot(&self) -> Result<Scan, Error> {
        let view = self.read(|reader| Ok(reader.listing())).await?;
        Ok(Scan::new(Source::Snapshot(view)))
    }
}
