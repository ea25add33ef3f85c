//! Scan of this peer's pinset and local states, joined in CID order, a page at a time.

use std::collections::BTreeMap;

use cluster_core::Cid;

use super::{Cluster, Error};
pub(super) use crate::store::Row as Entry;
use crate::store::{Listing, Reader, StoreError};

/// Number of rows read at once.
const PAGE: usize = 2048;

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
}

impl Scan {
    /// Reads the next rows on a blocking thread; empty at the end.
    pub(super) async fn next(mut self) -> Result<(Self, Vec<Entry>), Error> {
        let read = tokio::task::spawn_blocking(move || {
            let after = self.after.as_ref();
            let rows = match &self.source {
                Source::Latest(reader) => reader.rows_after(after, PAGE)?,
                Source::Snapshot(view) => view.rows(after).take(PAGE).collect::<Result<_, StoreError>>()?,
            };
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
        Ok((Scan { source, after: None }, running))
    }

    /// Starts a scan of the present state, which later changes do not affect. It costs the memory that a
    /// [`Listing`] does.
    pub(super) async fn scan_snapshot(&self) -> Result<Scan, Error> {
        let view = self.read(|reader| Ok(reader.listing())).await?;
        Ok(Scan {
            source: Source::Snapshot(view),
            after: None,
        })
    }
}
