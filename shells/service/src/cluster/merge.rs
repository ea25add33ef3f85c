//! N-way merge of sorted rows from all members, in constant memory: the scan of this peer's database, which
//! has every pin, and the streams of the other peers.

use std::collections::VecDeque;

use cluster_api::{GlobalPinInfo, StatusFilter, TrackerStatus};
use cluster_core::{Cid, PeerId, Pin, PinType, Replicas};
use tokio::sync::mpsc;

use super::info::{self, PeerIdTexts};
use super::rpc::{CidStatus, PeerDetails, Row};
use super::{Error, now};

/// Maximum number of rows in one batch.
const BATCH: usize = 256;

/// An item from a source of rows, which come in CID order.
#[derive(Debug)]
pub(super) enum Piece<R> {
    /// Details of the peer of the following rows.
    Details(PeerDetails),
    /// Rows, and the last CID that they cover: the source has no others up to it.
    Rows(Vec<R>, Cid),
}

/// Stream of one source's rows. Ends when the channel is closed; nothing follows an error.
pub(super) type PieceStream<R> = mpsc::Receiver<Result<Piece<R>, Error>>;

/// The pin and the status of a CID at this peer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct OwnRow {
    pub(super) cid: Cid,
    pub(super) pin: Option<Pin>,
    pub(super) state: CidStatus,
}

/// A row that is sorted by its CID.
pub(super) trait Keyed {
    fn cid(&self) -> &Cid;
}

impl Keyed for OwnRow {
    fn cid(&self) -> &Cid {
        &self.cid
    }
}

impl Keyed for Row {
    fn cid(&self) -> &Cid {
        &self.cid
    }
}

/// Meaning of a missing row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MissingRow {
    /// The peer has the CID as `remote`, or has not applied its pin yet.
    Implied,
    /// The peer is left out.
    Omitted,
}

struct Source<R> {
    pieces: PieceStream<R>,
    rows: VecDeque<R>,
    upto: Option<Cid>,
    ended: bool,
    failed: Option<String>,
    details: PeerDetails,
}

impl<R: Keyed> Source<R> {
    fn new(pieces: PieceStream<R>, details: PeerDetails) -> Self {
        Self {
            pieces,
            rows: VecDeque::new(),
            upto: None,
            ended: false,
            failed: None,
            details,
        }
    }

    fn head(&self) -> Option<&Cid> {
        self.rows.front().map(Keyed::cid)
    }

    /// Returns whether the row of `cid`, or its absence, is known.
    fn covers(&self, cid: &Cid) -> bool {
        self.ended || !self.rows.is_empty() || self.upto.as_ref().is_some_and(|upto| upto >= cid)
    }

    async fn read(&mut self) {
        match self.pieces.recv().await {
            Some(Ok(Piece::Details(details))) => self.details = details,
            Some(Ok(Piece::Rows(rows, upto))) if self.in_order(&rows, &upto) => {
                self.rows = rows.into();
                self.upto = Some(upto);
            }
            Some(Ok(Piece::Rows(..))) => self.fail("it sent its rows out of order".to_owned()),
            Some(Err(error)) => self.fail(error.to_string()),
            None => self.ended = true,
        }
    }

    fn fail(&mut self, why: String) {
        self.failed = Some(why);
        self.ended = true;
        self.pieces.close();
    }

    fn in_order(&self, rows: &[R], upto: &Cid) -> bool {
        let mut last = self.upto.as_ref();
        for cid in rows.iter().map(Keyed::cid) {
            if last.is_some_and(|last| last >= cid) {
                return false;
            }
            last = Some(cid);
        }
        last.is_none_or(|last| last <= upto)
    }

    fn take(&mut self, cid: &Cid) -> Option<R> {
        if self.head() == Some(cid) {
            self.rows.pop_front()
        } else {
            None
        }
    }
}

/// A running merge.
pub(super) struct Merge {
    me: PeerId,
    own: Source<OwnRow>,
    peers: Vec<(PeerId, Source<Row>)>,
    filter: StatusFilter,
    missing_row: MissingRow,
    /// Only pins with fewer confirmed copies than they need.
    under_replicated: bool,
    /// Owner whose pins alone are shown, as this owner sees them.
    owner: Option<String>,
    names: PeerIdTexts,
}

impl Merge {
    pub(super) fn new(
        me: (PeerId, PeerDetails),
        own: PieceStream<OwnRow>,
        peers: Vec<(PeerId, PeerDetails, PieceStream<Row>)>,
        filter: StatusFilter,
        missing_row: MissingRow,
    ) -> Self {
        let peers = peers.into_iter();
        Self {
            me: me.0,
            own: Source::new(own, me.1),
            peers: peers
                .map(|(peer, known, pieces)| (peer, Source::new(pieces, known)))
                .collect(),
            filter,
            missing_row,
            under_replicated: false,
            owner: None,
            names: PeerIdTexts::default(),
        }
    }

    /// Restricts the rows to the pins of an owner.
    pub(super) fn restricted(self, owner: Option<String>) -> Self {
        Self { owner, ..self }
    }

    /// Restricts the rows to pins with fewer confirmed copies than they need.
    pub(super) fn of_under_replicated(self) -> Self {
        Self {
            under_replicated: true,
            ..self
        }
    }

    /// Sends all rows to `out`, until it is closed. Holds at most one piece of each source and one batch,
    /// and sends an incomplete batch before it waits for a source.
    pub(super) async fn run(mut self, out: mpsc::Sender<Result<Vec<GlobalPinInfo>, Error>>) {
        let mut batch = Vec::new();
        loop {
            let heads = self.peers.iter().filter_map(|(_, source)| source.head());
            let next = self.own.head().into_iter().chain(heads).min().cloned();
            if !self.is_complete(next.as_ref()) {
                if !batch.is_empty() && out.send(Ok(std::mem::take(&mut batch))).await.is_err() {
                    return;
                }
                self.read(next.as_ref()).await;
                if let Some(why) = self.own.failed.take() {
                    // Without this peer's own rows the listing is incomplete: it ends with an error.
                    let _ = out.send(Err(Error::Peer(why))).await;
                    return;
                }
                continue;
            }
            let Some(cid) = next else { break };
            batch.extend(self.row(&cid));
            if batch.len() >= BATCH && out.send(Ok(std::mem::take(&mut batch))).await.is_err() {
                return;
            }
        }
        if !batch.is_empty() {
            let _ = out.send(Ok(batch)).await;
        }
    }

    /// Returns whether all sources have been read up to `cid`, or to their end if `None`.
    fn is_complete(&self, cid: Option<&Cid>) -> bool {
        match cid {
            Some(cid) => self.own.covers(cid) && self.peers.iter().all(|(_, source)| source.covers(cid)),
            None => self.own.ended && self.peers.iter().all(|(_, source)| source.ended),
        }
    }

    /// Reads from all sources that the merge waits for.
    async fn read(&mut self, cid: Option<&Cid>) {
        fn waits<R: Keyed>(source: &Source<R>, cid: Option<&Cid>) -> bool {
            cid.map_or(!source.ended, |cid| !source.covers(cid))
        }
        let own = async {
            if waits(&self.own, cid) {
                self.own.read().await;
            }
        };
        let peers = self
            .peers
            .iter_mut()
            .map(|(_, source)| source)
            .filter(|source| waits(source, cid));
        futures::join!(own, futures::future::join_all(peers.map(Source::read)));
    }

    /// Joins the statuses of one CID; `None` if the filter excludes them all.
    fn row(&mut self, cid: &Cid) -> Option<GlobalPinInfo> {
        let own = self.own.take(cid);
        let pin = own.as_ref().and_then(|own| own.pin.as_ref());
        let own_pin = self.owner.as_ref().map(|owner| pin?.seen_by(owner));
        let is_hidden = matches!(own_pin, Some(None));
        let seen = own_pin.flatten();
        let mut shown = info::without_statuses(cid, seen.as_ref().or(pin), &mut self.names);
        let mut wanted = false;
        if let Some(own) = own.as_ref().filter(|own| self.filter.matches(own.state.status)) {
            let me = self.names.of(&self.me).to_owned();
            shown
                .peer_map
                .insert(me, info::peer_info(&self.own.details, &own.state));
            wanted = true;
        }
        for (peer, source) in &mut self.peers {
            let short = match source.take(cid) {
                Some(row) => Some(info::peer_info(&source.details, &row.state)),
                None => missing_status(peer, source, pin, self.filter, self.missing_row),
            };
            let Some(short) = short else { continue };
            let matches = self.filter.matches(short.status);
            // An unreachable peer is listed in every row, because its status is unknown.
            if matches || short.status == TrackerStatus::ClusterError {
                shown.peer_map.insert(self.names.of(peer).to_owned(), short);
            }
            wanted |= matches;
        }
        wanted &= !self.under_replicated || pin.is_some_and(|pin| lacks_copies(pin, &shown));
        (wanted && !is_hidden).then_some(shown)
    }
}

/// Returns whether fewer copies of a pin are confirmed than it needs: its minimum, or one at every member.
fn lacks_copies(pin: &Pin, shown: &GlobalPinInfo) -> bool {
    let held = shown.peer_map.values();
    let held = held.filter(|peer| peer.status == TrackerStatus::Pinned).count();
    match (pin.pin_type, pin.options.replicas) {
        (PinType::Meta, _) => false,
        (_, Replicas::Everywhere) => held < shown.peer_map.len(),
        (_, Replicas::Range { min, .. }) => held < min as usize,
    }
}

/// Returns the status of a peer that has no row for a CID.
fn missing_status(
    peer: &PeerId,
    source: &Source<Row>,
    pin: Option<&Pin>,
    filter: StatusFilter,
    missing_row: MissingRow,
) -> Option<cluster_api::PinInfoShort> {
    let concerned = pin.map(|pin| (pin, pin.is_allocated_to(peer)));
    match (concerned, &source.failed) {
        (Some((_, true)) | None, Some(why)) => Some(info::unreachable(&source.details, now(), why)),
        (Some((_, true)), None) => {
            let (pin, _) = concerned?;
            // The peer may have left out the row because of the filter.
            let not_applied = missing_row == MissingRow::Implied && filter == StatusFilter::ALL;
            not_applied.then(|| info::queued(&source.details, pin.timestamp))
        }
        (Some((_, false)), _) => {
            (missing_row == MissingRow::Implied).then(|| info::remote(&source.details, now()))
        }
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests;
