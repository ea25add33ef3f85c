//! Comparison of this peer's pins with those of its IPFS node. Missing content is pinned again; pins of the
//! node that the cluster never made are left alone.

use cluster_api::{GlobalPinInfo, StatusFilter};
use cluster_core::{Cid, Local, Phase, Reply, Request, Timestamp};

use super::merge::{MissingRow, OwnRow, PieceStream};
use super::owner::failed;
use super::rpc::{Call, CidStatus};
use super::status_all::Rows;
use super::{Cluster, Error, now};

impl Cluster {
    /// Compares a CID at every member, or only at this peer; returns its statuses.
    ///
    /// # Errors
    /// The IPFS node does not answer, or this peer is shutting down.
    pub async fn sync(&self, cid: Cid, local: bool) -> Result<GlobalPinInfo, Error> {
        if !local {
            return self.ask_all(cid, |cid| Call::Sync { cid }).await;
        }
        if !self.is_visible(&cid).await? {
            return self.status_of_absent(&cid, true).await;
        }
        let state = self.sync_here(&cid).await?;
        self.local_info(&cid, &state).await
    }

    pub(super) async fn sync_here(&self, cid: &Cid) -> Result<CidStatus, Error> {
        self.compare(Some(cid.clone())).await?;
        Ok(self.own_state(cid).await?.1)
    }

    /// Watches for pins that the IPFS node finds damaged or incomplete, and has them pinned again. Never
    /// returns.
    pub async fn watch_broken_pins(self) {
        loop {
            let broken = self.inner.backend.next_broken_pin().await;
            let Ok(cid) = Cid::from_bytes(&broken.to_bytes()) else {
                continue;
            };
            if let Err(error) = self.compare(Some(cid)).await {
                // The next comparison of all pins finds it.
                tracing::debug!(%broken, %error, "a broken pin is not compared now");
            }
        }
    }

    /// Compares everything at every member, or only at this peer; returns what changed and what is in error.
    /// An owner's pins are compared one by one, and those in error are returned.
    ///
    /// # Errors
    /// Too many listings are running, the IPFS node does not answer, or this peer is shutting down.
    pub async fn sync_all(&self, local: bool) -> Result<Rows, Error> {
        if self.owner().is_some() {
            let sync = move |cluster: Self, cid| async move { cluster.sync(cid, local).await };
            return self.on_each_own(StatusFilter::ALL, failed(), local, sync).await;
        }
        let permit = self.acquire_listing()?;
        let own = self.synced_rows().await?;
        let call = (!local).then_some(Call::SyncAll);
        self.merge(permit, own, call, StatusFilter::ALL, MissingRow::Omitted)
            .await
    }

    /// Compares everything at this peer. The rows are what changed and what is in error.
    pub(super) async fn synced_rows(&self) -> Result<PieceStream<OwnRow>, Error> {
        let since = now();
        self.compare(None).await?;
        let (scan, _) = self.scan().await?;
        Ok(self.rows_of(scan, move |local| is_reportable(local, since)))
    }

    pub(super) async fn compare(&self, cid: Option<Cid>) -> Result<(), Error> {
        let Reply::Synced(_) = self.request(Request::Sync { cid }).await? else {
            return Err(Error::Closed);
        };
        Ok(())
    }
}

/// Returns whether to report a CID after a comparison that began at `since`. Missing content may have been
/// pinned again by the time it is looked at.
fn is_reportable(local: &Local, since: Timestamp) -> bool {
    match local.phase {
        Phase::Lost | Phase::PinError | Phase::UnpinError => true,
        Phase::PinQueued | Phase::Pinned | Phase::UnpinQueued => local.since >= since,
    }
}
