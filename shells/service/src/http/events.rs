//! `GET /events`: the events as they happen, as server-sent events or as lines of JSON.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::RawQuery;
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Response, StatusCode};
use bytes::Bytes;
use cluster_api::{Event, Query};
use cluster_core::{Cid, PeerId};
use futures::stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::auth::Acting;
use super::{Observed, answer};
use crate::cluster::{Cluster, StatusReader};
use crate::events::{self, Change, EventLog, EventReader, Lost};
use crate::metrics::metrics;

/// Streams that may be open: each has a connection and little else.
const STREAMS_MAX: usize = 64;

/// Events written together.
const PAGE: usize = 256;

/// Silence after which a keep-alive is sent, so that both ends detect a broken connection.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Kinds that a filter may name.
const KINDS: [&str; 16] = [
    "pin_added",
    "pin_changed",
    "pin_removed",
    "status",
    "peer_added",
    "peer_removed",
    "peer_up",
    "peer_down",
    "peer_connected",
    "peer_disconnected",
    "leader",
    "alert",
    "alert_cleared",
    "pinset_replaced",
    "statuses_followed",
    "statuses_lost",
];

/// Kinds that report whether the statuses of another peer are complete.
const COMPLETENESS: [&str; 2] = ["statuses_followed", "statuses_lost"];

static STREAMS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(STREAMS_MAX)));

/// Events that a client asks for.
#[derive(Debug, Default)]
struct Filter {
    /// Empty for all.
    kinds: BTreeSet<String>,
    cid: Option<String>,
    peer: Option<String>,
    /// Only statuses of this peer.
    local: bool,
}

impl Filter {
    fn parse(query: &Query) -> Result<Self, String> {
        let mut filter = Self::default();
        for kind in query
            .get("type")
            .unwrap_or_default()
            .split(',')
            .filter(|kind| !kind.is_empty())
        {
            if !KINDS.contains(&kind) {
                return Err(format!(
                    "type: {kind:?} is no type of events: there are {}",
                    KINDS.join(", ")
                ));
            }
            filter.kinds.insert(kind.to_owned());
        }
        if filter.kinds.contains("status") {
            filter.kinds.extend(COMPLETENESS.map(str::to_owned));
        }
        filter.local = query.bool("local", false).map_err(|error| error.to_string())?;
        let given = |name| query.get(name).filter(|value| !value.is_empty());
        if let Some(cid) = given("cid") {
            let cid: Cid = cid.parse().map_err(|_| format!("cid: {cid:?} is no CID"))?;
            filter.cid = Some(cid.to_string());
        }
        if let Some(peer) = given("peer") {
            let peer: PeerId = peer
                .parse()
                .map_err(|_| format!("peer: {peer:?} is no peer id"))?;
            filter.peer = Some(peer.to_string());
        }
        Ok(filter)
    }

    fn admits_kind(&self, kind: &str) -> bool {
        self.kinds.is_empty() || self.kinds.contains(kind)
    }

    fn admits_change(&self, change: &Change) -> bool {
        self.admits_kind(change.kind()) && (!self.local || change.is_local())
    }

    /// Returns whether statuses of other peers than `me` are wanted.
    fn wants_others(&self, me: &PeerId) -> bool {
        let is_me = |peer: &String| *peer == me.to_string();
        !self.local && self.admits_kind("status") && !self.peer.as_ref().is_some_and(is_me)
    }

    fn admits(&self, event: &Event) -> bool {
        let is_of_all = COMPLETENESS.contains(&event.kind.as_str());
        self.admits_kind(&event.kind)
            && (is_of_all || self.cid.as_ref().is_none_or(|cid| *cid == event.cid))
            && self.peer.as_ref().is_none_or(|peer| *peer == event.peer)
    }
}

/// Encoding of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// `text/event-stream`.
    ServerSent,
    /// `application/x-ndjson`.
    Lines,
}

impl Format {
    fn of(headers: &HeaderMap) -> Self {
        let accepted = headers.get_all(ACCEPT).iter();
        let mut accepted = accepted.filter_map(|value| value.to_str().ok());
        if accepted.any(|value| value.contains("text/event-stream")) {
            Self::ServerSent
        } else {
            Self::Lines
        }
    }

    fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::ServerSent => "text/event-stream",
            Self::Lines => "application/x-ndjson",
        })
    }

    fn push(self, out: &mut Vec<u8>, event: &Event) {
        match self {
            Self::ServerSent => {
                out.extend_from_slice(format!("id: {}\nevent: {}\ndata: ", event.id, event.kind).as_bytes());
                answer::push(out, event);
                out.push(b'\n');
            }
            Self::Lines => answer::push(out, event),
        }
    }

    fn heartbeat(self) -> Bytes {
        Bytes::from_static(match self {
            Self::ServerSent => b":\n\n",
            Self::Lines => b"\n",
        })
    }
}

/// Returns the id after which the client resumes: the parameter `after`, or the header of a browser that
/// reconnects.
fn resumed_after(query: &Query, headers: &HeaderMap) -> Result<Option<u64>, String> {
    let header = headers.get(HeaderName::from_static("last-event-id"));
    let header = header.and_then(|value| value.to_str().ok());
    let given = query.get("after").or(header).filter(|value| !value.is_empty());
    given
        .map(|id| {
            id.parse()
                .map_err(|_| format!("after: {id:?} is no id of an event"))
        })
        .transpose()
}

/// A stream that is being sent.
struct Sending {
    /// Operations as the client may use them.
    cluster: Cluster,
    reader: Option<EventReader>,
    filter: Filter,
    format: Format,
    me: PeerId,
    first: Option<Bytes>,
    _gauge: OpenStream,
    /// Keeps other peers' statuses coming.
    _statuses: Option<StatusReader>,
}

/// Counts an open stream.
struct OpenStream {
    _place: OwnedSemaphorePermit,
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        metrics().events_readers.dec();
    }
}

/// Answers `GET /events`.
pub(super) async fn stream(
    Acting(cluster): Acting,
    Extension(observed): Extension<Observed>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response<Body> {
    let query = Query::parse(query.as_deref().unwrap_or_default());
    let parsed = Filter::parse(&query).and_then(|filter| Ok((filter, resumed_after(&query, &headers)?)));
    let (filter, after) = match parsed {
        Ok(parsed) => parsed,
        Err(why) => return answer::bad_request(why),
    };
    let Ok(place) = STREAMS.clone().try_acquire_owned() else {
        let why = format!("at most {STREAMS_MAX} streams of events can be open; try again later");
        return answer::error(StatusCode::SERVICE_UNAVAILABLE, why);
    };
    metrics().events_readers.inc();
    let gauge = OpenStream { _place: place };
    let format = Format::of(&headers);
    let (reader, lost) = open(&observed.events, after);
    let wants_others = filter.wants_others(cluster.peer());
    let (statuses, followed) = wants_others.then(|| cluster.read_statuses()).unzip();
    // Sent at once, so that the client sees that the stream is open.
    let mut first = format.heartbeat().to_vec();
    if let Some(lost) = lost {
        let why = "earlier events are no longer kept: read the state again";
        format.push(&mut first, &notice("lost", lost.oldest.saturating_sub(1), why));
    }
    for peer in followed.into_iter().flatten() {
        let followed = Event {
            peer: peer.to_string(),
            ..notice("statuses_followed", reader.position(), "")
        };
        if filter.admits(&followed) {
            format.push(&mut first, &followed);
        }
    }
    let sending = Sending {
        reader: Some(reader),
        filter,
        format,
        me: cluster.peer().clone(),
        cluster,
        first: Some(first.into()),
        _gauge: gauge,
        _statuses: statuses,
    };
    let pieces = stream::unfold(sending, |mut sending| async move {
        let piece = sending.next().await?;
        Some((Ok::<_, std::convert::Infallible>(piece), sending))
    });
    let mut response = Response::new(Body::from_stream(pieces));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, format.content_type());
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// Opens a reader after an id; if events are lost, at the oldest one.
fn open(log: &EventLog, after: Option<u64>) -> (EventReader, Option<Lost>) {
    let mut lost = None;
    let mut after = after;
    loop {
        match log.read(after) {
            Ok(reader) => return (reader, lost),
            Err(found) => {
                // The ring may have dropped that one in between.
                after = found.oldest.checked_sub(1).filter(|_| lost.is_none());
                lost = Some(found);
            }
        }
    }
}

fn notice(kind: &str, id: u64, why: &str) -> Event {
    Event {
        id,
        time: cluster_api::Time::now(),
        kind: kind.to_owned(),
        error: why.to_owned(),
        ..Event::default()
    }
}

impl Sending {
    /// Returns the events that the client may see, of those that its filter may admit.
    async fn shown(&self, events: &[Arc<events::Event>]) -> Vec<Event> {
        let Some(owner) = self.cluster.owner() else {
            let wanted = events
                .iter()
                .filter(|event| self.filter.admits_change(&event.change));
            return wanted.map(|event| event.shown(&self.me)).collect();
        };
        // For the owner, a change of a pin may be of another type.
        let wanted = |event: &&Arc<events::Event>| !self.filter.local || event.change.is_local();
        let wanted: Vec<_> = events.iter().filter(wanted).collect();
        let cids: BTreeSet<Cid> = wanted
            .iter()
            .filter_map(|event| event.change.cid())
            .cloned()
            .collect();
        let cids: Vec<Cid> = cids.into_iter().collect();
        // Without a database nothing is known to be the owner's.
        let pins = self.cluster.pins_of(cids.clone()).await.unwrap_or_default();
        let named = cids
            .iter()
            .zip(pins)
            .filter_map(|(cid, pin)| Some((cid, pin?.options.name)));
        let names: BTreeMap<&Cid, String> = named.collect();
        let shown = wanted.into_iter().filter_map(|event| {
            let name = event.change.cid().and_then(|cid| names.get(cid));
            event.shown_to(&self.me, owner, name.map(String::as_str))
        });
        shown.collect()
    }

    /// Returns the next bytes; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        // Also while there are events that the filter leaves out.
        let heartbeat = Instant::now() + HEARTBEAT;
        loop {
            let reader = self.reader.as_mut()?;
            let position = reader.position();
            let mut out = Vec::new();
            match timeout_at(heartbeat, reader.next(PAGE)).await {
                Err(_) => return Some(self.format.heartbeat()),
                Ok(Err(lost)) => {
                    metrics().events_lagged.inc();
                    self.reader = None;
                    let why = "events were read too slowly, and some are lost: read the state again";
                    self.format
                        .push(&mut out, &notice("lost", lost.oldest.saturating_sub(1), why));
                }
                Ok(Ok(events)) if events.is_empty() => {
                    self.reader = None;
                    self.format.push(
                        &mut out,
                        &notice("closed", position, "this peer is shutting down"),
                    );
                }
                Ok(Ok(events)) => {
                    let shown = self.shown(&events).await;
                    let admitted = shown.iter().filter(|event| self.filter.admits(event));
                    admitted.for_each(|event| self.format.push(&mut out, event));
                }
            }
            if !out.is_empty() {
                return Some(out.into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_name_types_cids_and_peers() {
        let parse = |query: &str| Filter::parse(&Query::parse(query));
        let event = |kind: &str, cid: &str| Event {
            kind: kind.to_owned(),
            cid: cid.to_owned(),
            ..Event::default()
        };
        let cid = "bafkqablimvwgy3y";
        let filter = parse(&format!("type=pin_added,status&cid={cid}")).unwrap();
        assert!(filter.admits(&event("status", cid)));
        assert!(!filter.admits(&event("leader", cid)));
        assert!(!filter.admits(&event("status", "other")));
        assert!(parse("").unwrap().admits(&event("leader", "")));
        for wrong in ["type=nonsense", "cid=x", "peer=x"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn statuses_of_other_peers_come_with_their_completeness_unless_only_local_ones_are_wanted() {
        let parse = |query: &str| Filter::parse(&Query::parse(query)).unwrap();
        let peer = |n: u8| PeerId::from_bytes(&[0, 2, n, n]).unwrap();
        let cid: Cid = "bafkqablimvwgy3y".parse().unwrap();
        let status = Change::status_at(peer(2), cid.clone(), "pinned", "").unwrap();
        assert_eq!(Change::status_at(peer(2), cid.clone(), "nonsense", ""), None);
        let filter = parse(&format!("type=status&cid={cid}"));
        assert!(filter.wants_others(&peer(1)) && filter.admits_change(&status));
        let lost = crate::events::Event {
            id: 1,
            at: cluster_core::Timestamp(1),
            change: Change::statuses_lost(peer(2), "gone"),
        };
        assert!(filter.admits_change(&lost.change) && filter.admits(&lost.shown(&peer(1))));
        let local = parse("type=status&local=true");
        assert!(!local.wants_others(&peer(1)));
        assert!(!local.admits_change(&status) && !local.admits_change(&lost.change));
        assert!(!parse("type=leader").wants_others(&peer(1)));
        assert!(!parse(&format!("peer={}", peer(1))).wants_others(&peer(1)));
        assert!(parse(&format!("peer={}", peer(2))).wants_others(&peer(1)));
    }

    #[test]
    fn server_sent_events_have_id_and_type() {
        let mut out = Vec::new();
        Format::ServerSent.push(&mut out, &notice("lost", 7, "too slow"));
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("id: 7\nevent: lost\ndata: {\"id\":7,"), "{text}");
        assert!(
            text.ends_with("\"type\":\"lost\",\"error\":\"too slow\"}\n\n"),
            "{text}"
        );
    }
}
