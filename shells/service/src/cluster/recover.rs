//! Retrying of failed pins and unpins.

use cluster_api::{GlobalPinInfo, StatusFilter};
use cluster_core::{Cid, Local, Phase, Reply, Request};
use tokio::sync::mpsc;

use super::info::{self, PeerIdTexts};
use super::merge::{MissingRow, OwnRow, Piece, PieceStream};
use super::owner::failed;
use super::rpc::{Call, CidStatus};
use super::scan::{Entry, Scan};
use super::status_all::Rows;
use super::{Cluster, Error, now};

impl Cluster {
    /// Retries a CID at once at every member where it failed, or only at this peer; returns its statuses.
    ///
    /// # Errors
    /// This peer cannot retry it, its IPFS node cannot verify it, or this peer is shutting down.
    pub async fn recover(&self, cid: Cid, local: bool) -> Result<GlobalPinInfo, Error> {
        if !local {
            return self.ask_all(cid, |cid| Call::Recover { cid }).await;
        }
        if !self.is_visible(&cid).await? {
            return self.status_of_absent(&cid, true).await;
        }
        let state = self.recover_here(&cid).await?;
        self.local_info(&cid, &state).await
    }

    /// Returns a CID with its status at this peer only.
    pub(super) async fn local_info(&self, cid: &Cid, state: &CidStatus) -> Result<GlobalPinInfo, Error> {
        let (pin, _) = self.own_state(cid).await?;
        let Ok(pin) = self.seen(pin) else {
            return self.status_of_absent(cid, true).await;
        };
        let mut names = PeerIdTexts::default();
        let mut shown = info::without_statuses(cid, pin.as_ref(), &mut names);
        let me = names.of(&self.inner.config.peer).to_owned();
        shown
            .peer_map
            .insert(me, info::peer_info(&self.own_details().await, state));
        Ok(shown)
    }

    /// Verifies all blocks of a CID, has bad ones fetched again, and retries it if it failed.
    pub(super) async fn recover_here(&self, cid: &Cid) -> Result<CidStatus, Error> {
        if let Ok(parsed) = cluster_ipfs::Cid::try_from(cid.as_bytes())
            && self.inner.backend.verify_pin(&parsed).await? > 0
        {
            self.compare(Some(cid.clone())).await?;
        }
        let Reply::Recovered(_) = self.request(Request::Recover { cid: cid.clone() }).await? else {
            return Err(Error::Closed);
        };
        Ok(self.own_state(cid).await?.1)
    }

    /// Retries everything that failed, at every member or only at this peer; returns the retried CIDs.
    ///
    /// # Errors
    /// Too many listings are running, the database cannot be read, or this peer is shutting down.
    pub async fn recover_all(&self, local: bool) -> Result<Rows, Error> {
        if self.owner().is_some() {
            let recover = move |cluster: Self, cid| async move { cluster.recover(cid, local).await };
            return self
                .on_each_own(failed(), StatusFilter::ALL, local, recover)
                .await;
        }
        let permit = self.acquire_listing()?;
        let own = self.recovered_rows().await?;
        let call = (!local).then_some(Call::RecoverAll);
        self.merge(permit, own, call, StatusFilter::ALL, MissingRow::Omitted)
            .await
    }

    /// Retries everything that failed at this peer. The rows are what had failed, with its current status.
    pub(super) async fn recovered_rows(&self) -> Result<PieceStream<OwnRow>, Error> {
        let scan = self.scan_snapshot().await?;
        self.request(Request::RecoverAll).await?;
        Ok(self.rows_of(scan, |local| match local.phase {
            Phase::Lost | Phase::PinError | Phase::UnpinError => true,
            Phase::PinQueued | Phase::Pinned | Phase::UnpinQueued => false,
        }))
    }

    /// Returns the rows of a scan whose local state is `wanted`, with their status when they are reached.
    pub(super) fn rows_of(
        &self,
        mut scan: Scan,
        wanted: impl Fn(&Local) -> bool + Send + 'static,
    ) -> PieceStream<OwnRow> {
        // Same capacity as other sources: one piece is processed while the next is fetched.
        let (out, pieces) = mpsc::channel(2);
        let cluster = self.clone();
        tokio::spawn(async move {
            loop {
                let piece = match scan.next().await {
                    Ok((rest, entries)) => {
                        let Some(upto) = entries.last().map(|entry| entry.cid.clone()) else {
                            return;
                        };
                        scan = rest;
                        let wanted = |entry: &Entry| entry.local.as_ref().is_some_and(&wanted);
                        let entries = entries.into_iter().filter(wanted).collect();
                        cluster
                            .current_rows(entries)
                            .await
                            .map(|rows| Piece::Rows(rows, upto))
                    }
                    Err(error) => {
                        let _ = out.send(Err(error)).await;
                        return;
                    }
                };
                let ended = piece.is_err();
                if out.send(piece).await.is_err() || ended {
                    return;
                }
            }
        });
        pieces
    }

    /// Returns the rows of these entries with their current status.
    async fn current_rows(&self, entries: Vec<Entry>) -> Result<Vec<OwnRow>, Error> {
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        let running = self.running().await?;
        let me = self.inner.config.peer.clone();
        self.read(move |store| {
            let now = now();
            entries
                .into_iter()
                .map(|Entry { cid, pin, .. }| {
                    let local = store.local(&cid)?;
                    let running = running.get(&cid).copied();
                    let state = info::state(&me, pin.as_ref(), local.as_ref(), running, now);
                    Ok(OwnRow { cid, pin, state })
                })
                .collect()
        })
        .await
    }
}
