//! Restriction of the operations to the pins of one owner: a credential with the scope `own`.
//!
//! [`Cluster::acting_as`] returns a handle whose operations show and change the pins of that owner only, each
//! with the name and metadata that the owner gave. Other pins are as if they did not exist.

use std::sync::Arc;

use cluster_api::{GlobalPinInfo, StatusFilter};
use cluster_core::{Cid, Credential, Pin};
use futures::stream::StreamExt;

use super::info::{self, PeerIdTexts};
use super::peers::KnownMembers;
use super::status_all::{Rows, single_rows};
use super::{Cluster, Error, now};

/// Operations on single pins that one request for all of an owner's pins has running.
const AT_ONCE: usize = 16;

/// Returns the statuses of pins that a peer fails to hold.
pub(super) fn failed() -> StatusFilter {
    StatusFilter::from_names("pin_error,unexpectedly_unpinned")
}

impl Cluster {
    /// Returns the operations as this credential may use them: on its own pins if it has the scope `own`.
    pub fn acting_as(&self, credential: &Credential) -> Self {
        let actor = credential.owner().map(|_| Arc::new(credential.clone()));
        Self {
            inner: Arc::clone(&self.inner),
            actor,
        }
    }

    /// Returns the operations on all pins.
    pub(crate) fn whole(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            actor: None,
        }
    }

    /// Returns the owner whose pins alone are shown and changed.
    pub fn owner(&self) -> Option<&str> {
        self.actor.as_ref().and_then(|credential| credential.owner())
    }

    /// Returns the owner of new pins.
    pub(super) fn new_owner(&self) -> Option<String> {
        self.owner().map(str::to_owned)
    }

    /// Returns a pin as it is shown; `None` if it is another owner's.
    pub(super) fn shown_pin(&self, pin: Pin) -> Option<Pin> {
        match self.owner() {
            None => Some(pin),
            Some(owner) => pin.seen_by(owner),
        }
    }

    /// Returns whether the pin of a CID may be shown and changed, as far as this peer has applied it. Without
    /// an owner that holds for all CIDs, whether they are pinned or not.
    pub(super) async fn is_visible(&self, cid: &Cid) -> Result<bool, Error> {
        let Some(owner) = self.new_owner() else {
            return Ok(true);
        };
        let cid = cid.clone();
        let pin = self.read(move |store| store.pin(&cid)).await?;
        Ok(pin.is_some_and(|pin| pin.is_owned_by(&owner)))
    }

    /// Returns the status of a CID without a pin, which hides that of another owner's.
    pub(super) async fn status_of_absent(&self, cid: &Cid, local: bool) -> Result<GlobalPinInfo, Error> {
        let KnownMembers { mut peers } = self.known_peers().await?;
        let me = &self.inner.config.peer;
        peers.insert(me.clone(), self.own_details().await);
        let mut names = PeerIdTexts::default();
        let mut shown = info::without_statuses(cid, None, &mut names);
        for (peer, details) in peers.iter().filter(|(peer, _)| !local || *peer == me) {
            let status = info::unpinned(details, now());
            shown.peer_map.insert(names.of(peer).to_owned(), status);
        }
        Ok(shown)
    }

    /// Runs an operation on each own pin with a status in `filter`, and streams those statuses after it that
    /// are in `shown`.
    pub(super) async fn on_each_own<F>(
        &self,
        filter: StatusFilter,
        shown: StatusFilter,
        local: bool,
        operation: impl Fn(Self, Cid) -> F + Clone + Send + 'static,
    ) -> Result<Rows, Error>
    where
        F: Future<Output = Result<GlobalPinInfo, Error>> + Send + 'static,
    {
        let found = match local {
            true => self.status_all_local(filter).await?,
            false => self.status_all(filter).await?,
        };
        let cids = found.flat_map(|batch| {
            let cids = match batch {
                Ok(rows) => rows
                    .iter()
                    .filter_map(|row| row.cid.parse().ok())
                    .map(Ok)
                    .collect(),
                Err(error) => vec![Err(error)],
            };
            futures::stream::iter(cids)
        });
        let cluster = self.clone();
        let done = cids.map(move |cid: Result<Cid, Error>| {
            let (cluster, operation) = (cluster.clone(), operation.clone());
            async move {
                let status = operation(cluster, cid?).await?;
                Ok(status.matches(shown).then_some(status))
            }
        });
        Ok(single_rows(done.buffered(AT_ONCE)))
    }
}
