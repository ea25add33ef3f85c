//! Limits the incoming connections whose handshake is in progress, without letting silent connections block
//! others.
//!
//! With a plain limit, as in `libp2p-connection-limits`, as many silent connections as the limit allows block
//! all others until their handshakes time out, and again after that. [`LimitedTransport`] wraps a transport
//! and accepts every connection: when too many handshakes are in progress, the source with the most of them
//! loses its oldest. An honest handshake takes a few round trips, so the oldest is the least likely to be
//! honest. A source is an IPv4 address or a /64 IPv6 network, the usual allocation of one party.

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
const LOG_INTERVAL: Duration = Duration::from_secs(60);

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
pub struct LimitedTransport<T> {
    inner: T,
    slots: Arc<Slots>,
}

/// Handshakes in progress, by source and age.
#[derive(Debug)]
struct Slots {
    max: usize,
    table: Mutex<SlotTable>,
}

#[derive(Debug, Default)]
struct SlotTable {
    next: u64,
    evict: BTreeMap<u64, (Source, oneshot::Sender<()>)>,
    by_source: HashMap<Source, BTreeSet<u64>>,
    logged: Option<Instant>,
}

/// Slot of one handshake; freed when dropped.
#[derive(Debug)]
struct Slot {
    slots: Arc<Slots>,
    number: u64,
    evicted: oneshot::Receiver<()>,
}

impl SlotTable {
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

impl Slots {
    fn take(self: &Arc<Self>, remote: &Multiaddr) -> Slot {
        let source = source_of(remote);
        let mut table = lock(&self.table);
        if table.evict.len() >= self.max {
            table.evict_one();
            let now = Instant::now();
            if table
                .logged
                .is_none_or(|last| now.duration_since(last) >= LOG_INTERVAL)
            {
                table.logged = Some(now);
                let max = self.max;
                tracing::warn!(
                    %remote,
                    "{max} connections wait for their handshake: closing the oldest of the busiest address \
                     for each new one"
                );
            }
        }
        let number = table.next;
        table.next += 1;
        let (evict, evicted) = oneshot::channel();
        table.evict.insert(number, (source, evict));
        table.by_source.entry(source).or_default().insert(number);
        Slot {
            slots: self.clone(),
            number,
            evicted,
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        lock(&self.slots.table).remove(self.number);
    }
}

/// An incoming handshake that can be evicted.
pub struct Handshake<F> {
    inner: Pin<Box<F>>,
    slot: Slot,
}

impl<F> std::fmt::Debug for Handshake<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Handshake").field(&self.slot.number).finish()
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
        self.slot.evicted.poll_unpin(cx).map(|_| Err(Error::Evicted))
    }
}

impl<T> LimitedTransport<T> {
    /// Allows `max` incoming handshakes at once, at least one.
    pub fn new(inner: T, max: usize) -> Self {
        let slots = Slots {
            max: max.max(1),
            table: Mutex::default(),
        };
        Self {
            inner,
            slots: Arc::new(slots),
        }
    }
}

impl<T> Transport for LimitedTransport<T>
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
        let slot = match &event {
            TransportEvent::Incoming { send_back_addr, .. } => Some(self.slots.take(send_back_addr)),
            TransportEvent::NewAddress { .. }
            | TransportEvent::AddressExpired { .. }
            | TransportEvent::ListenerClosed { .. }
            | TransportEvent::ListenerError { .. } => None,
        };
        let event = event.map_err(Error::Transport).map_upgrade(|inner| Handshake {
            inner: Box::pin(inner),
            slot: slot.expect("an upgrade comes with Incoming"),
        });
        Poll::Ready(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(max: usize) -> Arc<Slots> {
        let table = Mutex::default();
        Arc::new(Slots { max, table })
    }

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    fn is_evicted(slot: &mut Slot) -> bool {
        matches!(slot.evicted.try_recv(), Err(oneshot::error::TryRecvError::Closed))
    }

    #[test]
    fn newcomer_evicts_the_oldest_handshake_of_the_busiest_source() {
        let slots = slots(4);
        let mut quiet = slots.take(&address("/ip4/198.51.100.7/tcp/1"));
        // Two addresses of one network.
        let mut flood: Vec<Slot> = ["2001:db8::1", "2001:db8::2", "2001:db8::1"]
            .iter()
            .map(|ip| slots.take(&address(&format!("/ip6/{ip}/tcp/2"))))
            .collect();
        let mut newcomers: Vec<Slot> = (0..2)
            .map(|port| slots.take(&address(&format!("/ip4/203.0.113.9/tcp/{port}"))))
            .collect();
        let evicted: Vec<bool> = flood.iter_mut().map(is_evicted).collect();
        assert_eq!(evicted, [true, true, false]);
        assert!(!is_evicted(&mut quiet));
        assert!(!newcomers.iter_mut().any(is_evicted));
        drop((quiet, flood, newcomers));
        let table = lock(&slots.table);
        assert!(table.evict.is_empty() && table.by_source.is_empty());
    }

    #[test]
    fn finished_handshake_frees_its_place() {
        let slots = slots(2);
        let here = address("/ip4/127.0.0.1/tcp/1");
        let mut first = slots.take(&here);
        drop(slots.take(&here));
        let _second = slots.take(&here);
        assert!(!is_evicted(&mut first));
        let _third = slots.take(&here);
        assert!(is_evicted(&mut first));
    }
}
