//! Scan of this peer's pinset and local states, joined in CID order, a page at a time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use cluster_core::{Cid, Local, Pin};

use super::world::{Snapshot, StoreError};
use super::{Cluster, Error};

/// Maximum of rows read at once.
const PAGE: usize = 512;

/// A CID with its pin, its local state, or both.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) cid: Cid,
    pub(super) pin: Option<Pin>,
    pub(super) local: Option<Local>,
}

/// A scan of one snapshot.
pub(super) struct Scan {
    snapshot: Arc<dyn Snapshot>,
    pins: Side<Pin>,
    locals: Side<(Cid, Local)>,
}

struct Side<T> {
    read: VecDeque<T>,
    after: Option<Cid>,
    ended: bool,
}

impl<T> Side<T> {
    fn new() -> Self {
        Self {
            read: VecDeque::new(),
            after: None,
            ended: false,
        }
    }

    /// Reads the next page if none is left.
    fn fill(
        &mut self,
        page: impl FnOnce(Option<&Cid>, usize) -> Result<Vec<T>, StoreError>,
        cid: impl Fn(&T) -> &Cid,
    ) -> Result<(), StoreError> {
        if self.read.is_empty() && !self.ended {
            self.read = page(self.after.as_ref(), PAGE)?.into();
            match self.read.back() {
                Some(last) => self.after = Some(cid(last).clone()),
                None => self.ended = true,
            }
        }
        Ok(())
    }
}

impl Scan {
    pub(super) fn new(snapshot: Arc<dyn Snapshot>) -> Self {
        Self {
            snapshot,
            pins: Side::new(),
            locals: Side::new(),
        }
    }

    /// Reads the next rows; empty at the end. Blocks the thread.
    fn page(&mut self) -> Result<Vec<Entry>, StoreError> {
        let mut entries = Vec::with_capacity(PAGE);
        while entries.len() < PAGE {
            self.pins
                .fill(|after, limit| self.snapshot.pins(after, limit), |pin| &pin.cid)?;
            self.locals
                .fill(|after, limit| self.snapshot.locals(after, limit), |(cid, _)| cid)?;
            let pin = self.pins.read.front().map(|pin| &pin.cid);
            let local = self.locals.read.front().map(|(cid, _)| cid);
            let (take_pin, take_local) = match (pin, local) {
                (None, None) => break,
                (Some(_), None) => (true, false),
                (None, Some(_)) => (false, true),
                (Some(pin), Some(local)) => (pin <= local, local <= pin),
            };
            let pin = if take_pin {
                self.pins.read.pop_front()
            } else {
                None
            };
            let local = if take_local {
                self.locals.read.pop_front()
            } else {
                None
            };
            let cid = pin
                .as_ref()
                .map(|pin| &pin.cid)
                .or(local.as_ref().map(|(cid, _)| cid))
                .cloned();
            let Some(cid) = cid else { break };
            entries.push(Entry {
                cid,
                pin,
                local: local.map(|(_, local)| local),
            });
        }
        Ok(entries)
    }

    /// Reads the next rows on a blocking thread; empty at the end.
    pub(super) async fn next(mut self) -> Result<(Self, Vec<Entry>), Error> {
        let read = tokio::task::spawn_blocking(move || {
            let entries = self.page()?;
            Ok::<_, StoreError>((self, entries))
        });
        Ok(read.await.map_err(|_| Error::Closed)??)
    }
}

impl Cluster {
    /// Starts a scan of the current state; also returns the operations running at the IPFS node, with
    /// `true` for an unpin.
    pub(super) async fn scan(&self) -> Result<(Scan, BTreeMap<Cid, bool>), Error> {
        let running = self.inner.world.core.running().await.ok_or(Error::Closed)?;
        let snapshot = self.read(|store| Ok(store.snapshot())).await?;
        Ok((Scan::new(snapshot), running.into_iter().collect()))
    }
}
