//! Claims: pins of content that this peer's IPFS node has just added, and has pinned itself.

use std::time::Duration;

use cluster_api as api;
use cluster_core::{Cid, Pin, Refusal, Replicas, Request};
use cluster_ipfs::Cid as IpfsCid;

use super::{Cluster, Error, convert, now};

/// Time for which this peer's node keeps a claimed pin whose copies are at other peers, if they do not get
/// them earlier.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// Interval at which the other peers are polled for their copies.
const RELEASE_POLL: Duration = Duration::from_secs(5);

impl Cluster {
    /// Returns the pins of these CIDs, as they are shown, in the same order.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn pins_of(&self, cids: Vec<Cid>) -> Result<Vec<Option<api::Pin>>, Error> {
        let pins: Vec<Option<Pin>> = self
            .read(move |store| cids.iter().map(|cid| store.pin(cid)).collect())
            .await?;
        let shown = pins.into_iter().map(|pin| self.shown_pin(pin?));
        Ok(shown.map(|pin| pin.as_ref().map(convert::pin)).collect())
    }

    /// Pins content that this peer's IPFS node has added and pinned, with one of the copies here if the
    /// options allow. The node's own pin protects the content until the cluster pins it. It is removed if
    /// the cluster refuses, or once the allocated peers have their copies.
    ///
    /// # Errors
    /// The options are invalid, or the cluster refuses.
    pub async fn claim(&self, cid: Cid, options: &api::PinOptions) -> Result<api::Pin, Error> {
        let done = self.claim_pin(&cid, options).await;
        match &done {
            // It may have been pinned nevertheless.
            Err(Error::Closed | Error::Refused(Refusal::Unknown)) => {}
            Err(_) => self.release_unless_pinned(&cid).await,
            Ok(pin) => {
                let me = self.inner.config.peer.to_string();
                if !pin.allocations.is_empty() && !pin.allocations.contains(&me) {
                    self.release_when_elsewhere(cid, me);
                }
            }
        }
        done
    }

    async fn claim_pin(&self, cid: &Cid, options: &api::PinOptions) -> Result<api::Pin, Error> {
        let mut options = convert::options(options, self.inner.config.default_replicas, now())?;
        if options.user_allocations.is_empty() && options.replicas != Replicas::Everywhere {
            options.user_allocations.push(self.inner.config.peer.clone());
        }
        let (cid, owner) = (cid.clone(), self.new_owner());
        let _turn = self.turn_to_pin(&[&cid]).await?;
        let pin = self.request_pin(Request::Pin { cid, options, owner }).await?;
        Ok(convert::pin(&pin))
    }

    async fn release_unless_pinned(&self, cid: &Cid) {
        // Content whose pin cannot be looked up, or is another owner's, is kept rather than lost.
        if let Err(Error::Refused(Refusal::NotFound)) = self.whole().allocation(cid.clone()).await {
            self.release(cid).await;
        }
    }

    /// Removes the IPFS node's pin of content that the cluster does not want here.
    async fn release(&self, cid: &Cid) {
        let Ok(node_cid) = IpfsCid::try_from(cid.as_bytes()) else {
            return;
        };
        if let Err(error) = self.inner.backend.unpin(&node_cid).await {
            tracing::warn!(%cid, %error, "the IPFS node keeps a pin that the cluster does not want here");
        }
    }

    fn release_when_elsewhere(&self, cid: Cid, me: String) {
        let Ok(permit) = self.inner.claims.clone().try_acquire_owned() else {
            tracing::warn!(%cid, "the IPFS node keeps a pin of other peers: too many claims are waiting");
            return;
        };
        let cluster = self.whole();
        tokio::spawn(async move {
            let _permit = permit;
            let waiting = async {
                while !cluster.is_held_elsewhere(&cid, &me).await {
                    tokio::time::sleep(RELEASE_POLL).await;
                }
            };
            if tokio::time::timeout(RELEASE_TIMEOUT, waiting).await.is_err() {
                tracing::warn!(%cid, "the IPFS node keeps a pin of other peers: they do not hold it in time");
            } else {
                cluster.release(&cid).await;
            }
        });
    }

    /// Returns whether all allocated peers hold a CID, and this peer is not among them.
    async fn is_held_elsewhere(&self, cid: &Cid, me: &str) -> bool {
        let (Ok(pin), Ok(status)) = (self.allocation(cid.clone()).await, self.status(cid.clone()).await)
        else {
            return false;
        };
        let has = |id: &String| {
            let peer = status.peer_map.get(id);
            id != me && peer.is_some_and(|peer| peer.status == api::TrackerStatus::Pinned)
        };
        !pin.allocations.is_empty() && pin.allocations.iter().all(has)
    }
}
