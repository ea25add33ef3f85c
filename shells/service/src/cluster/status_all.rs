//! Statuses of all CIDs: the sources of the merge, and this peer's rows for the merges of other peers.

use std::collections::BTreeMap;

use cluster_api::{GlobalPinInfo, StatusFilter, TrackerStatus};
use cluster_core::{Cid, PeerId, Pin, Refusal};
use futures::stream::{Stream, TryStreamExt};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use super::merge::{Merge, MissingRow, OwnRow, Piece, PieceStream};
use super::peers::KnownMembers;
use super::rpc::{self, Answer, Call, Row};
use super::scan::{Entry, Scan};
use super::{Cluster, Error, convert, info, now};

/// Capacity of each source's channel: one piece is processed while the next is fetched.
const PIECES: usize = 2;

/// A listing of statuses, in batches.
pub type Rows = futures::stream::BoxStream<'static, Result<Vec<GlobalPinInfo>, Error>>;

impl Cluster {
    /// Streams the statuses of all CIDs at all members, in CID order and constant memory, while the members
    /// scan their databases. A member that stops answering is `cluster_error` from there on.
    ///
    /// # Errors
    /// Too many listings are running, the database cannot be read, or this peer is shutting down.
    pub async fn status_all(&self, filter: StatusFilter) -> Result<Rows, Error> {
        let permit = self.acquire_listing()?;
        let own = self.own_rows(self.scan().await?);
        let call = Call::StatusAll {
            filter: filter.to_string(),
        };
        self.merge(permit, own, Some(call), filter, MissingRow::Implied)
            .await
    }

    /// Streams the statuses of pins with fewer confirmed copies than they need, as [`Self::status_all`] does.
    ///
    /// # Errors
    /// As for [`Self::status_all`].
    pub async fn under_replicated(&self) -> Result<Rows, Error> {
        let permit = self.acquire_listing()?;
        let own = self.own_rows(self.scan().await?);
        let call = Call::StatusAll {
            filter: StatusFilter::ALL.to_string(),
        };
        let merge = self.merge_of(own, Some(call), StatusFilter::ALL, MissingRow::Implied);
        Ok(run(merge.await?.of_under_replicated(), permit))
    }

    /// Streams the pins of [`Self::under_replicated`].
    ///
    /// # Errors
    /// As for [`Self::status_all`].
    pub async fn under_replicated_pins(
        &self,
        whole: bool,
    ) -> Result<impl Stream<Item = Result<Vec<cluster_api::Pin>, Error>> + Send + use<>, Error> {
        let (rows, cluster) = (self.under_replicated().await?, self.clone());
        Ok(rows.and_then(move |rows| {
            let cluster = cluster.clone();
            async move {
                let cids: Vec<Cid> = rows.iter().filter_map(|row| row.cid.parse().ok()).collect();
                let pins = cluster.read(move |store| cids.iter().map(|cid| store.pin(cid)).collect());
                let pins: Vec<Option<Pin>> = pins.await?;
                let seen = pins
                    .into_iter()
                    .flatten()
                    .filter_map(|pin| cluster.shown_pin(pin));
                let shown = match whole {
                    true => convert::whole_pin,
                    false => convert::pin,
                };
                Ok(seen.map(|pin| shown(&pin)).collect())
            }
        }))
    }

    /// Streams the statuses of all CIDs at this peer.
    ///
    /// # Errors
    /// As for [`Self::status_all`].
    pub async fn status_all_local(&self, filter: StatusFilter) -> Result<Rows, Error> {
        let permit = self.acquire_listing()?;
        let own = self.own_rows(self.scan().await?);
        self.merge(permit, own, None, filter, MissingRow::Omitted).await
    }

    /// Acquires a permit for a listing.
    pub(super) fn acquire_listing(&self) -> Result<OwnedSemaphorePermit, Error> {
        self.inner
            .listings
            .clone()
            .try_acquire_owned()
            .map_err(|_| Error::Refused(Refusal::Busy))
    }

    /// Merges this peer's rows with those that the other members return for `call`.
    pub(super) async fn merge(
        &self,
        permit: OwnedSemaphorePermit,
        own: PieceStream<OwnRow>,
        call: Option<Call>,
        filter: StatusFilter,
        missing_row: MissingRow,
    ) -> Result<Rows, Error> {
        Ok(run(self.merge_of(own, call, filter, missing_row).await?, permit))
    }

    async fn merge_of(
        &self,
        own: PieceStream<OwnRow>,
        call: Option<Call>,
        filter: StatusFilter,
        missing_row: MissingRow,
    ) -> Result<Merge, Error> {
        let me = self.inner.config.peer.clone();
        let mut peers = Vec::new();
        if let Some(call) = call {
            let KnownMembers { peers: known } = self.known_peers().await?;
            for (peer, details) in known.into_iter().filter(|(peer, _)| *peer != me) {
                let pieces = self.peer_rows(peer.clone(), call.clone());
                peers.push((peer, details, pieces));
            }
        }
        let merge = Merge::new((me, self.own_details().await), own, peers, filter, missing_row);
        Ok(merge.restricted(self.new_owner()))
    }

    /// Streams this peer's rows.
    fn own_rows(&self, (mut scan, running): (Scan, BTreeMap<Cid, bool>)) -> PieceStream<OwnRow> {
        let (out, pieces) = mpsc::channel(PIECES);
        let me = self.inner.config.peer.clone();
        tokio::spawn(async move {
            loop {
                match scan.next().await {
                    Ok((rest, entries)) => {
                        let Some(upto) = entries.last().map(|entry| entry.cid.clone()) else {
                            return;
                        };
                        let rows = entries
                            .into_iter()
                            .map(|entry| own_row(&me, entry, &running))
                            .collect();
                        if out.send(Ok(Piece::Rows(rows, upto))).await.is_err() {
                            return;
                        }
                        scan = rest;
                    }
                    Err(error) => {
                        let _ = out.send(Err(error)).await;
                        return;
                    }
                }
            }
        });
        pieces
    }

    /// Streams another peer's rows.
    fn peer_rows(&self, peer: PeerId, call: Call) -> PieceStream<Row> {
        let (out, pieces) = mpsc::channel(PIECES);
        let cluster = self.clone();
        tokio::spawn(async move {
            if let Err(error) = cluster.fetch_rows(&peer, &call, &out).await {
                let _ = out.send(Err(error)).await;
            }
        });
        pieces
    }

    async fn fetch_rows(
        &self,
        peer: &PeerId,
        call: &Call,
        out: &mpsc::Sender<Result<Piece<Row>, Error>>,
    ) -> Result<(), Error> {
        let mut channel = rpc::call(&self.inner.net, peer, call).await?;
        while let Some(answer) = rpc::next(&mut channel, peer, self.inner.answer_timeout).await? {
            let piece = if let Answer::Details(details) = answer {
                Piece::Details(details)
            } else if let Answer::Rows { rows, upto } = answer {
                Piece::Rows(rows, upto)
            } else {
                return Err(rpc::unexpected(peer));
            };
            if out.send(Ok(piece)).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Runs a merge, and keeps the permit until it ends.
fn run(merge: Merge, permit: OwnedSemaphorePermit) -> Rows {
    let (out, rows) = mpsc::channel(PIECES);
    tokio::spawn(async move {
        merge.run(out).await;
        drop(permit);
    });
    Box::pin(ReceiverStream::new(rows))
}

fn own_row(me: &PeerId, entry: Entry, running: &BTreeMap<Cid, bool>) -> OwnRow {
    let running = running.get(&entry.cid).copied();
    let state = info::state(me, entry.pin.as_ref(), entry.local.as_ref(), running, now());
    OwnRow {
        cid: entry.cid,
        pin: entry.pin,
        state,
    }
}

/// Returns the row of an entry to send to another peer, unless the filter excludes it, or the other peer
/// knows from the pin that it is `remote` here.
pub(super) fn row(
    me: &PeerId,
    entry: Entry,
    running: &BTreeMap<Cid, bool>,
    filter: StatusFilter,
) -> Option<Row> {
    if entry.local.is_none() && entry.pin.as_ref().is_some_and(|pin| !pin.is_allocated_to(me)) {
        return None;
    }
    // A peer that filters for `remote` must know of the exceptions.
    let exception = filter.matches(TrackerStatus::Remote)
        && entry.pin.as_ref().is_some_and(|pin| !pin.is_allocated_to(me));
    let row = own_row(me, entry, running);
    let wanted = exception || filter.matches(row.state.status);
    wanted.then_some(Row {
        cid: row.cid,
        state: row.state,
    })
}

/// Wraps rows of single CIDs as a listing.
pub(super) fn single_rows(
    rows: impl Stream<Item = Result<Option<GlobalPinInfo>, Error>> + Send + 'static,
) -> Rows {
    use futures::StreamExt;
    Box::pin(rows.filter_map(|row| std::future::ready(row.map(|row| row.map(|row| vec![row])).transpose())))
}

impl Cluster {
    /// Streams the statuses of some CIDs, in the given order. Those of other owners are left out.
    pub fn status_of(&self, cids: Vec<Cid>, filter: StatusFilter, local: bool) -> Rows {
        use futures::StreamExt;
        /// Maximum number of concurrent statuses, each of which calls every peer.
        const AT_ONCE: usize = 16;
        let cluster = self.clone();
        let asked = futures::stream::iter(cids).map(move |cid| {
            let cluster = cluster.clone();
            async move {
                if cluster.owner().is_some() && !cluster.is_visible(&cid).await? {
                    return Ok(None);
                }
                let status = if local {
                    cluster.status_local(cid).await?
                } else {
                    cluster.status(cid).await?
                };
                Ok(status.matches(filter).then_some(status))
            }
        });
        single_rows(asked.buffered(AT_ONCE))
    }
}
