//! Limits the incoming connections whose handshake is under way, without letting silent connections shut
//! others out.
//!
//! With a plain limit, as in `libp2p-connection-limits`, as many silent connections as the limit allows shut
//! everybody out until their handshakes time out, and again after that. [`Limited`] wraps a transport and
//! accepts every connection: when too many handshakes are under way, the source with the most of them loses
//! its oldest. An honest handshake takes a few round trips, so the oldest is the least likely to be honest. A
//! source is an IPv4 address or a /64 IPv6 network, the usual allocation of one party.

use crate::store::lock;
use futures::FutureExt;
use futures::TryFutureExt;
use futures::future::MapErr;
use libp2p::Multiaddr;
use libp2p::core::transport::{DialOpts, ListenerId, Transport, TransportError, TransportEvent};
use libp2p::multiaddr::Protocol;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv6Addr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Interval between log messages about evictions.
const QUIET: Duration = Duration::from_secs(60);

/// Network that connections come from: the high 64 bits of the address in its IPv6 form.
pub(crate) type Source = u128;

/// Returns the source of a connection with this remote address.
pub(crate) fn source_of(remote: &Multiaddr) -> Source {
    let of_v6 = |address: Ipv6Addr| match address.to_ipv4_mapped() {
        Some(_) => address.to_bits(),
        None => address.to_bits() >> 64 << 64,
    };
    let address = remote.iter().find_map(|part| {
        if let Protocol::Ip4(address) = part {
            Some(address.to_ipv6_mapped())
        } else if let Protocol::Ip6(address) = part {
            Some(address)
        } else {
            None
        }
    });
    address.map_or(0, of_v6)
}

/// Failure of an incoming handshake.
#[derive(Debug, thiserror::Error)]
pub enum Error<E: std::error::Error + 'static> {
    /// Evicted in favour of a newer handshake.
    #[error("closed during the handshake: too many are under way, and this was the oldest of its source")]
    Evicted,
    /// The transport failed.
    #[error("{0}")]
    Transport(#[source] E),
}

/// A transport with a limit on concurrent incoming handshakes.
#[derive(Debug)]
pub struct Limited<T> {
    inner: T,
    places: Arc<Places>,
}

/// Handshakes under way, by source and age.
#[derive(Debug)]
struct Places {
    max: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    evict: BTreeMap<u64, (Source, oneshot::Sender<()>)>,
    by_source: HashMap<Source, BTreeSet<u64>>,
    logged: Option<Instant>,
}

/// Place of one handshake; freed when dropped.
#[derive(Debug)]
struct Place {
    places: Arc<Places>,
    number: u64,
    evicted: oneshot::Receiver<()>,
}

impl Taken {
    fn remove(&mut self, number: u64) {
        if let Some((source, _)) = self.evict.remove(&number)
            && let Some(numbers) = self.by_source.get_mut(&source)
        {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.by_source.remove(&source);
            }
        }
    }

    /// Evicts the oldest handshake of the source with the most.
    fn evict_one(&mut self) {
        // Among equally busy sources, take the one whose oldest handshake is older.
        let crowded = self
            .by_source
            .values()
            .max_by_key(|numbers| (numbers.len(), std::cmp::Reverse(numbers.first())));
        if let Some(oldest) = crowded.and_then(|numbers| numbers.first().copied()) {
            // Dropping the sender cancels the handshake.
            self.remove(oldest);
        }
    }
}

impl Places {
    fn take(self: &Arc<Self>, remote: &Multiaddr) -> Place {
        let source = source_of(remote);
        let mut taken = lock(&self.taken);
        if taken.evict.len() >= self.max {
            taken.evict_one();
            let now = Instant::now();
            if taken.logged.is_none_or(|last| now.duration_since(last) >= QUIET) {
                taken.logged = Some(now);
                let max = self.max;
                tracing::warn!(
                    %remote,
                    "{max} connections wait for their handshake: closing the oldest of the busiest address \
                     for each new one"
                );
            }
        }
        let number = taken.next;
        taken.next += 1;
        let (evict, evicted) = oneshot::channel();
        taken.evict.insert(number, (source, evict));
        taken.by_source.entry(source).or_default().insert(number);
        Place {
            places: self.clone(),
            number,
            evicted,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.places.taken).remove(self.number);
    }
}

/// An incoming handshake that can be evicted.
pub struct Handshake<F> {
    inner: Pin<Box<F>>,
    place: Place,
}

impl<F> std::fmt::Debug for Handshake<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Handshake").field(&self.place.number).finish()
    }
}

impl<F, O, E> Future for Handshake<F>
where
    F: Future<Output = Result<O, E>>,
    E: std::error::Error + 'static,
{
    type Output = Result<O, Error<E>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(done) = self.inner.as_mut().poll(cx) {
            return Poll::Ready(done.map_err(Error::Transport));
        }
        self.place.evicted.poll_unpin(cx).map(|_| Err(Error::Evicted))
    }
}

impl<T> Limited<T> {
    /// Allows `max` incoming handshakes at once, at least one.
    pub fn new(inner: T, max: usize) -> Self {
        let places = Places {
            max: max.max(1),
            taken: Mutex::default(),
        };
        Self {
            inner,
            places: Arc::new(places),
        }
    }
}

impl<T> Transport for Limited<T>
where
    T: Transport + Unpin,
    T::Error: 'static,
{
    type Output = T::Output;
    type Error = Error<T::Error>;
    type ListenerUpgrade = Handshake<T::ListenerUpgrade>;
    type Dial = MapErr<T::Dial, fn(T::Error) -> Error<T::Error>>;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<Self::Error>> {
        let listening = self.inner.listen_on(id, address);
        listening.map_err(|error| error.map(Error::Transport))
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        options: DialOpts,
    ) -> Result<Self::Dial, TransportError<Self::Error>> {
        let dial = self.inner.dial(address, options);
        let dial = dial.map_err(|error| error.map(Error::Transport))?;
        Ok(dial.map_err(Error::Transport as fn(T::Error) -> Error<T::Error>))
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, Self::Error>> {
        let event = futures::ready!(Pin::new(&mut self.inner).poll(cx));
        let place = match &event {
            TransportEvent::Incoming { send_back_addr, .. } => Some(self.places.take(send_back_addr)),
            TransportEvent::NewAddress { .. }
            | TransportEvent::AddressExpired { .. }
            | TransportEvent::ListenerClosed { .. }
            | TransportEvent::ListenerError { .. } => None,
        };
        let event = event.map_err(Error::Transport).map_upgrade(|inner| Handshake {
            inner: Box::pin(inner),
            place: place.expect("an upgrade comes with Incoming"),
        });
        Poll::Ready(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(max: usize) -> Arc<Places> {
        let taken = Mutex::default();
        Arc::new(Places { max, taken })
    }

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    fn is_evicted(place: &mut Place) -> bool {
        matches!(
            place.evicted.try_recv(),
            Err(oneshot::error::TryRecvError::Closed)
        )
    }

    #[test]
    fn newcomer_evicts_the_oldest_handshake_of_the_busiest_source() {
        let places = places(4);
        let mut quiet = places.take(&address("/ip4/198.51.100.7/tcp/1"));
        // Two addresses of one network.
        let mut flood: Vec<Place> = ["2001:db8::1", "2001:db8::2", "2001:db8::1"]
            .iter()
            .map(|ip| places.take(&address(&format!("/ip6/{ip}/tcp/2"))))
            .collect();
        let mut newcomers: Vec<Place> = (0..2)
            .map(|port| places.take(&address(&format!("/ip4/203.0.113.9/tcp/{port}"))))
            .collect();
        let evicted: Vec<bool> = flood.iter_mut().map(is_evicted).collect();
        assert_eq!(evicted, [true, true, false]);
        assert!(!is_evicted(&mut quiet));
        assert!(!newcomers.iter_mut().any(is_evicted));
        drop((quiet, flood, newcomers));
        let taken = lock(&places.taken);
        assert!(taken.evict.is_empty() && taken.by_source.is_empty());
    }

    #[test]
    fn finished_handshake_frees_its_place() {
        let places = places(2);
        let here = address("/ip4/127.0.0.1/tcp/1");
        let mut first = places.take(&here);
        drop(places.take(&here));
        let _second = places.take(&here);
        assert!(!is_evicted(&mut first));
        let _third = places.take(&here);
        assert!(is_evicted(&mut first));
    }
}
