//! Scan of this peer's pinset and local states, joined in CID order, a page at a time.

use std::collections::BTreeMap;

use cluster_core::Cid;

use super::{Cluster, Error};
pub(super) use crate::store::Row as Entry;
use crate::store::StoreError;

/// Maximum number of rows read at once.
const PAGE: usize = 512;

/// A scan of one snapshot of the database.
pub(super) struct Scan {
    rows: Box<dyn Iterator<Item = Result<Entry, StoreError>> + Send>,
}

impl Scan {
    /// Reads the next rows on a blocking thread; empty at the end.
    pub(super) async fn next(mut self) -> Result<(Self, Vec<Entry>), Error> {
        let read = tokio::task::spawn_blocking(move || {
            let rows = self.rows.by_ref().take(PAGE).collect::<Result<_, _>>()?;
            Ok::<_, StoreError>((self, rows))
        });
        Ok(read.await.map_err(|_| Error::Closed)??)
    }
}

impl Cluster {
    /// Starts a scan of the current state; also returns the operations running at the IPFS node, with
    /// `true` for an unpin.
    pub(super) async fn scan(&self) -> Result<(Scan, BTreeMap<Cid, bool>), Error> {
        let running = self.running().await?;
        let listing = self.read(|reader| Ok(reader.listing())).await?;
        let rows = Box::new(listing.rows(None));
        Ok((Scan { rows }, running))
    }
}
