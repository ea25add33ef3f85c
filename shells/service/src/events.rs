//! Changes of the cluster as a stream: pins, local states, members, leader, alerts.
//!
//! The driver and a watcher of the core append to an [`EventLog`]: a ring in memory, of the last events of
//! this process. Readers follow it at their own pace. One that falls behind the ring has lost events, and
//! gets an error; writers never wait for it, and nothing is kept for it. Ids begin with the time of the
//! start, so that those of an earlier process are older than the ring.

mod watch;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use cluster_core::{Batch, Cid, IpfsAction, PeerId, Phase, Pin, StoreOp, Timestamp};
use tokio::sync::watch::{self as channel};

pub use self::watch::watch;
use crate::cluster::convert;

/// Events kept for readers: about 2 MiB. A minute of a busy cluster, hours of a quiet one.
pub const EVENTS_MAX: usize = 8192;

/// Bytes of a name or an error text in an event; the rest is cut off.
const TEXT_MAX: usize = 256;

/// An event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Number of the event, increasing.
    pub id: u64,
    /// Wall-clock time.
    pub at: Timestamp,
    /// The change.
    pub change: Change,
}

/// A change of the cluster, as this peer sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A pin was added to the pinset, changed or removed from it.
    Pin {
        /// `pin_added`, `pin_changed` or `pin_removed`.
        kind: &'static str,
        /// CID of the pin.
        cid: Cid,
        /// Its name.
        name: String,
        /// Owners that hold it since the change.
        joined: Vec<String>,
        /// Owners that held it until the change.
        left: Vec<String>,
    },
    /// The state of a CID at a peer changed.
    Status {
        /// CID of the state.
        cid: Cid,
        /// The peer; `None` for this one.
        peer: Option<PeerId>,
        /// The new status, as in the REST API.
        status: &'static str,
        /// Error of the last attempt; empty if none failed.
        error: String,
    },
    /// A member changed.
    Peer {
        /// `peer_added`, `peer_removed`, `peer_up`, `peer_down`, `peer_connected` or `peer_disconnected`.
        kind: &'static str,
        /// The member.
        peer: PeerId,
        /// Its name; empty while unknown.
        name: String,
    },
    /// The leader changed; `None` if there is none.
    Leader(Option<PeerId>),
    /// An alert was raised (`alert`) or cleared (`alert_cleared`).
    Alert {
        /// `alert` or `alert_cleared`.
        kind: &'static str,
        /// The peer that it is about.
        peer: PeerId,
        /// Name of the metric that expired.
        metric: String,
    },
    /// The pinset was replaced as a whole: this peer received it from another one.
    PinsetReplaced,
    /// The statuses of another peer are among the events from now on.
    StatusesFollowed {
        /// The peer.
        peer: PeerId,
    },
    /// The statuses of another peer are not among the events from now on.
    StatusesLost {
        /// The peer.
        peer: PeerId,
        /// Reason, for display.
        why: String,
    },
}

/// Statuses of [`Change::Status`].
const STATUSES: [&str; 9] = [
    "pin_error",
    "pin_queued",
    "pinned",
    "pinning",
    "unexpectedly_unpinned",
    "unpin_error",
    "unpin_queued",
    "unpinned",
    "unpinning",
];

impl Change {
    /// Returns the change of a status at another peer; `None` if this release does not know the status.
    pub fn status_at(peer: PeerId, cid: Cid, status: &str, error: &str) -> Option<Self> {
        let known = STATUSES.into_iter().find(|known| *known == status)?;
        Some(Self::Status {
            cid,
            peer: Some(peer),
            status: known,
            error: shortened(error),
        })
    }

    /// Returns the end of the statuses of another peer.
    pub fn statuses_lost(peer: PeerId, why: &str) -> Self {
        Self::StatusesLost {
            peer,
            why: shortened(why),
        }
    }

    /// Returns whether the change was observed by this peer, and not received from another one.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Status { peer, .. } => peer.is_none(),
            Self::StatusesFollowed { .. } | Self::StatusesLost { .. } => false,
            Self::Alert { .. }
            | Self::Leader(_)
            | Self::Peer { .. }
            | Self::Pin { .. }
            | Self::PinsetReplaced => true,
        }
    }

    /// Returns the CID whose pin or status changed.
    pub fn cid(&self) -> Option<&Cid> {
        if let Self::Pin { cid, .. } | Self::Status { cid, .. } = self {
            return Some(cid);
        }
        None
    }

    /// Returns the type of the event in the API.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Pin { kind, .. } | Self::Peer { kind, .. } | Self::Alert { kind, .. } => kind,
            Self::Status { .. } => "status",
            Self::Leader(_) => "leader",
            Self::PinsetReplaced => "pinset_replaced",
            Self::StatusesFollowed { .. } => "statuses_followed",
            Self::StatusesLost { .. } => "statuses_lost",
        }
    }
}

/// The ring of events. Clones share it.
#[derive(Debug, Clone)]
pub struct EventLog {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    ring: Mutex<Ring>,
    /// Id of the next event; [`CLOSED`] at the end.
    next: channel::Sender<u64>,
}

/// Value of [`Shared::next`] after the last event.
const CLOSED: u64 = u64::MAX;

#[derive(Debug)]
struct Ring {
    events: VecDeque<Arc<Event>>,
    next: u64,
}

/// Error of a reader that has fallen behind the ring, or asks for events of an earlier process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost {
    /// Id of the oldest event that is left.
    pub oldest: u64,
}

/// A position in the ring.
#[derive(Debug)]
pub struct EventReader {
    log: EventLog,
    next: u64,
    news: channel::Receiver<u64>,
}

impl Default for EventLog {
    fn default() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // Fits into the whole numbers of JavaScript for two centuries.
        let next = u64::try_from(since.as_micros()).unwrap_or(1);
        let ring = Ring {
            events: VecDeque::new(),
            next,
        };
        let shared = Shared {
            ring: Mutex::new(ring),
            next: channel::Sender::new(next),
        };
        Self {
            shared: Arc::new(shared),
        }
    }
}

impl EventLog {
    fn ring(&self) -> std::sync::MutexGuard<'_, Ring> {
        self.shared.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends changes that happened at `at`.
    pub fn append(&self, at: Timestamp, changes: impl IntoIterator<Item = Change>) {
        let mut ring = self.ring();
        let before = ring.next;
        for change in changes {
            let id = ring.next;
            ring.next += 1;
            if ring.events.len() == EVENTS_MAX {
                ring.events.pop_front();
            }
            ring.events.push_back(Arc::new(Event { id, at, change }));
        }
        let next = ring.next;
        drop(ring);
        if next != before {
            self.shared.next.send_if_modified(|known| {
                let is_open = *known != CLOSED;
                if is_open {
                    *known = (*known).max(next);
                }
                is_open
            });
        }
    }

    /// Appends the changes in a batch of the core.
    pub(crate) fn append_batch(&self, at: Timestamp, batch: &Batch) {
        self.append(at, batch.ops.iter().filter_map(change_of));
    }

    /// Appends the start of an operation at the IPFS node.
    pub(crate) fn append_start(&self, at: Timestamp, action: &IpfsAction) {
        let (cid, status) = match action {
            IpfsAction::Pin { cid, .. } => (cid, "pinning"),
            IpfsAction::Unpin { cid } => (cid, "unpinning"),
        };
        self.append(at, [local_status(cid, status, "")]);
    }

    /// Ends all readers after the events so far.
    pub fn close(&self) {
        self.shared.next.send_replace(CLOSED);
    }

    /// Returns a reader of the events after `after`, or of those to come.
    ///
    /// # Errors
    /// Some of them are lost.
    pub fn read(&self, after: Option<u64>) -> Result<EventReader, Lost> {
        let news = self.shared.next.subscribe();
        let ring = self.ring();
        let next = match after {
            None => ring.next,
            Some(after) => {
                let oldest = ring.oldest();
                // An id from the future is one of a process with another clock.
                if after.saturating_add(1) < oldest || after >= ring.next {
                    return Err(Lost { oldest });
                }
                after + 1
            }
        };
        drop(ring);
        Ok(EventReader {
            log: self.clone(),
            next,
            news,
        })
    }
}

impl Ring {
    fn oldest(&self) -> u64 {
        self.events.front().map_or(self.next, |event| event.id)
    }
}

impl EventReader {
    /// Returns the id of the last event before the position.
    pub fn position(&self) -> u64 {
        self.next.saturating_sub(1)
    }

    /// Returns the next events, at most `limit`, as soon as there is one; empty at the end.
    ///
    /// # Errors
    /// The reader was so slow that events are lost.
    pub async fn next(&mut self, limit: usize) -> Result<Vec<Arc<Event>>, Lost> {
        loop {
            let known = *self.news.borrow_and_update();
            {
                let ring = self.log.ring();
                let oldest = ring.oldest();
                if self.next < oldest {
                    return Err(Lost { oldest });
                }
                let skip = usize::try_from(self.next - oldest).unwrap_or(usize::MAX);
                let found: Vec<_> = ring.events.iter().skip(skip).take(limit).cloned().collect();
                if let Some(last) = found.last() {
                    self.next = last.id + 1;
                    return Ok(found);
                }
            }
            if known == CLOSED || self.news.changed().await.is_err() {
                return Ok(Vec::new());
            }
        }
    }
}

/// Returns the status in the API of a local state.
fn status_of(phase: Phase) -> &'static str {
    match phase {
        Phase::PinError => "pin_error",
        Phase::PinQueued => "pin_queued",
        Phase::Pinned => "pinned",
        Phase::UnpinError => "unpin_error",
        Phase::UnpinQueued => "unpin_queued",
        Phase::Lost => "unexpectedly_unpinned",
    }
}

fn local_status(cid: &Cid, status: &'static str, error: &str) -> Change {
    Change::Status {
        cid: cid.clone(),
        peer: None,
        status,
        error: shortened(error),
    }
}

/// Returns the start of a text, of at most [`TEXT_MAX`] bytes.
fn shortened(text: &str) -> String {
    text[..text.floor_char_boundary(TEXT_MAX)].to_owned()
}

/// Returns the owners of a pin that another state of it does not have: at most
/// [`OWNERS_MAX`](cluster_core::OWNERS_MAX).
fn owners_only_of(pin: Option<&Pin>, other: Option<&Pin>) -> Vec<String> {
    let owners = pin.into_iter().flat_map(Pin::owners);
    let only = owners.filter(|owner| !other.is_some_and(|other| other.is_owned_by(owner)));
    only.map(str::to_owned).collect()
}

fn change_of(op: &StoreOp) -> Option<Change> {
    let of_pin = |kind, before: Option<&Pin>, after: Option<&Pin>| {
        let pin = after.or(before)?;
        Some(Change::Pin {
            kind,
            cid: pin.cid.clone(),
            name: shortened(&pin.options.name),
            joined: owners_only_of(after, before),
            left: owners_only_of(before, after),
        })
    };
    match op {
        StoreOp::PutPin { pin, previous: None } => of_pin("pin_added", None, Some(pin)),
        StoreOp::PutPin { pin, previous } => of_pin("pin_changed", previous.as_deref(), Some(pin)),
        StoreOp::DeletePin { pin } => of_pin("pin_removed", Some(pin), None),
        StoreOp::PutLocal { cid, local } => Some(local_status(cid, status_of(local.phase), &local.error)),
        StoreOp::DeleteLocal { cid } => Some(local_status(cid, "unpinned", "")),
        StoreOp::InstallSnapshot { .. } => Some(Change::PinsetReplaced),
        StoreOp::Append { .. }
        | StoreOp::Compact { .. }
        | StoreOp::Dequeue { .. }
        | StoreOp::Enqueue { .. }
        | StoreOp::PutWindow { .. }
        | StoreOp::SetApplied { .. }
        | StoreOp::SetPolicy { .. }
        | StoreOp::SetHardState { .. }
        | StoreOp::SetMembers { .. }
        | StoreOp::SetReconciling { .. } => None,
    }
}

impl Event {
    /// Returns the event as the API shows it to an owner; `None` if it is about what others hold. `name` is
    /// that of the owner's pin now, if it has one.
    pub fn shown_to(&self, me: &PeerId, owner: &str, name: Option<&str>) -> Option<cluster_api::Event> {
        let mut shown = self.shown(me);
        let is_among = |owners: &[String]| owners.iter().any(|other| other == owner);
        match &self.change {
            Change::Pin { joined, left, .. } => {
                let kind = match (is_among(joined), is_among(left), name) {
                    (true, _, _) => "pin_added",
                    (_, true, _) => "pin_removed",
                    (false, false, Some(_)) => "pin_changed",
                    (false, false, None) => return None,
                };
                kind.clone_into(&mut shown.kind);
                name.map(shortened)
                    .unwrap_or_default()
                    .clone_into(&mut shown.name);
            }
            Change::Status { .. } if name.is_none() => return None,
            Change::Alert { .. }
            | Change::Leader(_)
            | Change::Peer { .. }
            | Change::PinsetReplaced
            | Change::Status { .. }
            | Change::StatusesFollowed { .. }
            | Change::StatusesLost { .. } => {}
        }
        Some(shown)
    }

    /// Returns the event as the API shows it; `me` is this peer.
    pub fn shown(&self, me: &PeerId) -> cluster_api::Event {
        let mut shown = cluster_api::Event {
            id: self.id,
            time: convert::time(self.at),
            kind: self.change.kind().to_owned(),
            ..cluster_api::Event::default()
        };
        match &self.change {
            Change::Pin { cid, name, .. } => {
                shown.cid = cid.to_string();
                shown.name.clone_from(name);
            }
            Change::Status {
                cid,
                peer,
                status,
                error,
            } => {
                shown.cid = cid.to_string();
                shown.peer = peer.as_ref().unwrap_or(me).to_string();
                (*status).clone_into(&mut shown.status);
                shown.error.clone_from(error);
            }
            Change::Peer { peer, name, .. } => {
                shown.peer = peer.to_string();
                shown.peername.clone_from(name);
            }
            Change::Leader(leader) => {
                shown.peer = leader.as_ref().map(PeerId::to_string).unwrap_or_default();
            }
            Change::Alert { peer, metric, .. } => {
                shown.peer = peer.to_string();
                shown.metric.clone_from(metric);
            }
            Change::PinsetReplaced => {}
            Change::StatusesFollowed { peer } => shown.peer = peer.to_string(),
            Change::StatusesLost { peer, why } => {
                shown.peer = peer.to_string();
                shown.error.clone_from(why);
            }
        }
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaders(log: &EventLog, count: usize) {
        log.append(Timestamp(1), (0..count).map(|_| Change::Leader(None)));
    }

    #[tokio::test]
    async fn reader_gets_events_in_order_and_resumes_after_an_id() {
        let log = EventLog::default();
        let mut reader = log.read(None).unwrap();
        leaders(&log, 3);
        let first = reader.next(2).await.unwrap();
        assert_eq!(first.len(), 2);
        assert_eq!(first[1].id, first[0].id + 1);
        let rest = reader.next(10).await.unwrap();
        assert_eq!(rest.len(), 1);
        let mut resumed = log.read(Some(first[0].id)).unwrap();
        assert_eq!(
            resumed.next(10).await.unwrap(),
            [first[1].clone(), rest[0].clone()]
        );
        // It waits for new events.
        let waiting = tokio::spawn(async move { resumed.next(10).await });
        leaders(&log, 1);
        assert_eq!(waiting.await.unwrap().unwrap().len(), 1);
        log.close();
        assert_eq!(reader.next(10).await.unwrap().len(), 1);
        assert!(reader.next(10).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn slow_reader_loses_events_and_learns_it() {
        let log = EventLog::default();
        let mut reader = log.read(None).unwrap();
        leaders(&log, EVENTS_MAX + 1);
        let lost = reader.next(1).await.unwrap_err();
        assert_eq!(log.ring().events.len(), EVENTS_MAX);
        assert_eq!(lost.oldest, log.ring().oldest());
        // As do those that ask for an id that is too old, or of another process.
        assert!(log.read(Some(1)).is_err());
        let next = log.ring().next;
        assert!(log.read(Some(next + 7)).is_err());
        assert!(log.read(Some(lost.oldest - 1)).is_ok());
    }

    #[test]
    fn owners_see_their_own_pins_come_and_go() {
        use cluster_core::{PinOptions, PinType, Replicas, owner_key};
        let pin = |owners: &[&str]| Pin {
            cid: "bafkqablimvwgy3y".parse().unwrap(),
            pin_type: PinType::Data,
            allocations: Vec::new(),
            reference: None,
            options: PinOptions {
                name: "secret".to_owned(),
                metadata: owners
                    .iter()
                    .map(|name| (owner_key(name), String::new()))
                    .collect(),
                ..PinOptions::new(Replicas::Everywhere)
            },
            timestamp: Timestamp(1),
            version: 1,
        };
        let put = |before: &[&str], after: &[&str]| StoreOp::PutPin {
            pin: pin(after),
            previous: Some(Box::new(pin(before))),
        };
        let seen = |op: &StoreOp, owner: &str, name: Option<&str>| {
            let (id, at) = (1, Timestamp(1));
            let change = change_of(op).unwrap();
            let event = Event { id, at, change };
            let me = PeerId::from_bytes(&[0, 1, 1]).unwrap();
            let shown = event.shown_to(&me, owner, name)?;
            Some((shown.kind, shown.name))
        };
        let shown = |kind: &str, name: &str| Some((kind.to_owned(), name.to_owned()));
        let joined = put(&["ann"], &["ann", "bob"]);
        assert_eq!(seen(&joined, "bob", Some("b")), shown("pin_added", "b"));
        assert_eq!(seen(&joined, "ann", Some("a")), shown("pin_changed", "a"));
        assert_eq!(seen(&joined, "cy", None), None);
        let left = put(&["ann", "bob"], &["bob"]);
        assert_eq!(seen(&left, "ann", None), shown("pin_removed", ""));
        let removed = StoreOp::DeletePin { pin: pin(&["bob"]) };
        assert_eq!(seen(&removed, "bob", None), shown("pin_removed", ""));
        assert_eq!(seen(&removed, "ann", None), None);
        let status = Change::status_at(
            PeerId::from_bytes(&[0, 1, 1]).unwrap(),
            pin(&[]).cid,
            "pinned",
            "",
        );
        assert!(status.is_some_and(|status| status.cid().is_some()));
    }

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(shortened("a"), "a");
        let long = "ä".repeat(TEXT_MAX);
        assert_eq!(shortened(&long).len(), TEXT_MAX);
        assert_eq!(shortened(&format!("x{long}")).len(), TEXT_MAX - 1);
    }
}
