//! Pins for what this peer's IPFS node has just got, and has pinned itself.

use std::time::Duration;

use cluster_api as api;
use cluster_core::{Cid, Refusal, Replicas, Request};
use cluster_ipfs::Cid as IpfsCid;

use super::{Cluster, Error, convert, now};

/// When the copies of a claimed pin are elsewhere, this peer's node keeps its own until they are there, but
/// no longer than this.
const LET_GO: Duration = Duration::from_secs(60 * 60);

/// How often the others are asked whether they have it.
const LET_GO_POLL: Duration = Duration::from_secs(5);

impl Cluster {
    /// The pins of these CIDs, in their order.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn pins_of(&self, cids: Vec<Cid>) -> Result<Vec<Option<api::Pin>>, Error> {
        self.read(move |store| {
            let pins = cids
                .iter()
                .map(|cid| Ok(store.pin(cid)?.as_ref().map(convert::pin)));
            pins.collect()
        })
        .await
    }

    /// Pins what this peer's IPFS node has, and has pinned. One of the copies stays here, if that may be. The
    /// node's own pin keeps the content until the cluster's does; where the cluster pins it elsewhere, or
    /// refuses to, the node lets go of it.
    ///
    /// # Errors
    /// The options make no sense, or the cluster refuses.
    pub async fn claim(&self, cid: Cid, options: &api::PinOptions) -> Result<api::Pin, Error> {
        let done = self.claim_pin(&cid, options).await;
        match &done {
            // It may have been pinned all the same.
            Err(Error::Closed | Error::Refused(Refusal::Unknown)) => {}
            Err(_) => self.let_go_unless_pinned(&cid).await,
            Ok(pin) => {
                let me = self.inner.config.peer.to_string();
                if !pin.allocations.is_empty() && !pin.allocations.contains(&me) {
                    self.let_go_later(cid, me);
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
        let cid = cid.clone();
        let pin = self.request_pin(Request::Pin { cid, options }).await?;
        Ok(convert::pin(&pin))
    }

    async fn let_go_unless_pinned(&self, cid: &Cid) {
        // What cannot be looked up is kept rather than lost.
        if let Err(Error::Refused(Refusal::NotFound)) = self.allocation(cid.clone()).await {
            self.let_go(cid).await;
        }
    }

    /// Has the IPFS node unpin what the cluster does not want here.
    async fn let_go(&self, cid: &Cid) {
        let Ok(node_cid) = IpfsCid::try_from(cid.as_bytes()) else {
            return;
        };
        if let Err(error) = self.inner.backend.unpin(&node_cid).await {
            tracing::warn!(%cid, %error, "the IPFS node keeps a pin that the cluster does not want here");
        }
    }

    fn let_go_later(&self, cid: Cid, me: String) {
        let Ok(permit) = self.inner.claims.clone().try_acquire_owned() else {
            tracing::warn!(%cid, "the IPFS node keeps what other peers hold: too many wait for them");
            return;
        };
        let cluster = self.clone();
        tokio::spawn(async move {
            let _permit = permit;
            let waiting = async {
                while !cluster.is_elsewhere(&cid, &me).await {
                    tokio::time::sleep(LET_GO_POLL).await;
                }
            };
            if tokio::time::timeout(LET_GO, waiting).await.is_err() {
                tracing::warn!(%cid, "the IPFS node keeps its pin: the peers that should hold it do not");
            } else {
                cluster.let_go(&cid).await;
            }
        });
    }

    /// Whether all that must hold a CID do, and this peer need not.
    async fn is_elsewhere(&self, cid: &Cid, me: &str) -> bool {
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
