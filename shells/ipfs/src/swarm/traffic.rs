//! Bytes that the streams of all direct connections carry, in all and per peer, and their rates.
//!
//! Counted above the multiplexer, as by Kubo: without its framing and the encryption. Relayed connections run
//! in a stream of a direct one, which counts them for the relay.

use crate::store::lock;
use futures::{AsyncRead, AsyncWrite, ready};
use libp2p::PeerId;
use libp2p::core::muxing::{StreamMuxer, StreamMuxerBox, StreamMuxerEvent, SubstreamBox};
use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

/// Interval of measuring the rates.
pub(super) const INTERVAL: Duration = Duration::from_secs(1);
/// Weight of the last interval in a rate; go-flow-metrics uses 1 - 1/e.
const WEIGHT: f64 = 0.632_120_558_828_557_7;

/// Number of measurements without a byte after which a peer without a connection is forgotten.
const FORGOTTEN_AFTER: u32 = 3600;
/// Number of peers above which those without a connection are forgotten at once.
const PEERS_MAX: usize = 4096;

/// Bytes received and sent since the start, and per second.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct TrafficStat {
    /// Bytes received.
    pub total_in: u64,
    /// Bytes sent.
    pub total_out: u64,
    /// Bytes received per second, an average that forgets older seconds exponentially.
    pub rate_in: f64,
    /// Bytes sent per second, as above.
    pub rate_out: f64,
}

/// Counters of one peer, or of all together.
#[derive(Debug, Default)]
struct Counter {
    received: AtomicU64,
    sent: AtomicU64,
    measured: Mutex<Measured>,
}

/// State of a counter at its last measurement.
#[derive(Debug, Default)]
struct Measured {
    stat: TrafficStat,
    /// Measurements in a row without a byte.
    idle: u32,
}

impl Counter {
    fn stat(&self) -> TrafficStat {
        TrafficStat {
            total_in: self.received.load(Ordering::Relaxed),
            total_out: self.sent.load(Ordering::Relaxed),
            ..lock(&self.measured).stat
        }
    }

    /// Measures the rates. Returns the number of measurements in a row without a byte.
    fn measure(&self) -> u32 {
        let now = self.stat();
        let rate = |rate: f64, bytes: u64| {
            let next = rate + WEIGHT * (bytes as f64 - rate);
            // Nothing is left of a transfer that ended long ago.
            if next < 0.001 { 0.0 } else { next }
        };
        let mut measured = lock(&self.measured);
        let last = measured.stat;
        let received = now.total_in.saturating_sub(last.total_in);
        let sent = now.total_out.saturating_sub(last.total_out);
        measured.idle = match received + sent {
            0 => measured.idle.saturating_add(1),
            _ => 0,
        };
        measured.stat = TrafficStat {
            rate_in: rate(last.rate_in, received),
            rate_out: rate(last.rate_out, sent),
            ..now
        };
        measured.idle
    }
}

/// Counters of a node: of all peers together, and of each.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    all: Counter,
    peers: Mutex<HashMap<PeerId, Arc<Counter>>>,
}

impl Traffic {
    /// Returns the totals, and the rates of the last measurement.
    pub(crate) fn stat(&self) -> TrafficStat {
        self.all.stat()
    }

    /// As [`Traffic::stat`], of one peer; zero for unknown ones.
    pub(crate) fn stat_of(&self, peer: &PeerId) -> TrafficStat {
        let counter = lock(&self.peers).get(peer).cloned();
        counter.map(|counter| counter.stat()).unwrap_or_default()
    }

    /// Measures the rates, and forgets idle peers; called once per [`INTERVAL`].
    pub(super) fn measure(&self) {
        self.all.measure();
        lock(&self.peers).retain(|_, counter| {
            let idle = counter.measure();
            is_connected(counter) || idle < FORGOTTEN_AFTER
        });
    }

    /// Returns the counter of a peer, which its connections share.
    fn counter_of(&self, peer: PeerId) -> Arc<Counter> {
        let mut peers = lock(&self.peers);
        if peers.len() >= PEERS_MAX && !peers.contains_key(&peer) {
            peers.retain(|_, counter| is_connected(counter));
        }
        peers.entry(peer).or_default().clone()
    }
}

/// Returns whether a connection holds the counter.
fn is_connected(counter: &Arc<Counter>) -> bool {
    Arc::strong_count(counter) > 1
}

/// Counters of a connection.
#[derive(Debug, Clone)]
struct Counters {
    traffic: Arc<Traffic>,
    peer: Arc<Counter>,
}

impl Counters {
    fn receive(&self, bytes: usize) {
        for counter in [&self.traffic.all, &self.peer] {
            counter.received.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }

    fn send(&self, bytes: usize) {
        for counter in [&self.traffic.all, &self.peer] {
            counter.sent.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }
}

/// A multiplexed connection whose streams are counted.
struct Counted {
    inner: StreamMuxerBox,
    counters: Counters,
}

/// Counts the streams of a connection with a peer.
pub(super) fn count(inner: StreamMuxerBox, traffic: &Arc<Traffic>, peer: PeerId) -> StreamMuxerBox {
    let counters = Counters {
        traffic: traffic.clone(),
        peer: traffic.counter_of(peer),
    };
    StreamMuxerBox::new(Counted { inner, counters })
}

impl Counted {
    fn stream(&self, inner: SubstreamBox) -> CountedStream {
        CountedStream {
            inner,
            counters: self.counters.clone(),
        }
    }
}

impl StreamMuxer for Counted {
    type Substream = CountedStream;
    type Error = io::Error;

    fn poll_inbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<CountedStream>> {
        let inner = ready!(Pin::new(&mut self.inner).poll_inbound(cx))?;
        Poll::Ready(Ok(self.stream(inner)))
    }

    fn poll_outbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<CountedStream>> {
        let inner = ready!(Pin::new(&mut self.inner).poll_outbound(cx))?;
        Poll::Ready(Ok(self.stream(inner)))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<StreamMuxerEvent>> {
        Pin::new(&mut self.inner).poll(cx)
    }
}

/// A stream whose bytes are counted.
struct CountedStream {
    inner: SubstreamBox,
    counters: Counters,
}

impl AsyncRead for CountedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut [u8]) -> Poll<io::Result<usize>> {
        let read = ready!(Pin::new(&mut self.inner).poll_read(cx, to))?;
        self.counters.receive(read);
        Poll::Ready(Ok(read))
    }
}

impl AsyncWrite for CountedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.inner).poll_write(cx, from))?;
        self.counters.send(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.inner).poll_write_vectored(cx, from))?;
        self.counters.send(written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_follow_the_totals_and_fall_to_zero() {
        let traffic = Traffic::default();
        traffic.all.received.fetch_add(1000, Ordering::Relaxed);
        traffic.measure();
        let stat = traffic.stat();
        assert_eq!((stat.total_in, stat.total_out, stat.rate_out), (1000, 0, 0.0));
        assert!((600.0..700.0).contains(&stat.rate_in), "{stat:?}");
        for _ in 0..20 {
            traffic.all.received.fetch_add(1000, Ordering::Relaxed);
            traffic.measure();
        }
        assert!((traffic.stat().rate_in - 1000.0).abs() < 1.0);
        for _ in 0..30 {
            traffic.measure();
        }
        assert_eq!(traffic.stat().rate_in, 0.0);
    }
    #[test]
    fn peers_are_counted_apart_and_idle_ones_forgotten() {
        let traffic: Arc<Traffic> = Arc::default();
        let (open, gone) = (PeerId::random(), PeerId::random());
        let counters = |peer| Counters {
            traffic: traffic.clone(),
            peer: traffic.counter_of(peer),
        };
        let connection = counters(open);
        connection.receive(10);
        counters(open).send(5);
        counters(gone).send(7);
        let totals = |stat: TrafficStat| (stat.total_in, stat.total_out);
        let all = || {
            (
                totals(traffic.stat()),
                totals(traffic.stat_of(&open)),
                totals(traffic.stat_of(&gone)),
            )
        };
        assert_eq!(all(), ((10, 12), (10, 5), (0, 7)));
        for _ in 0..FORGOTTEN_AFTER {
            traffic.measure();
        }
        assert_eq!(all(), ((10, 12), (10, 5), (0, 7)));
        traffic.measure();
        assert_eq!(all(), ((10, 12), (10, 5), (0, 0)));
        for _ in 0..PEERS_MAX {
            drop(counters(PeerId::random()));
        }
        assert!(lock(&traffic.peers).len() <= PEERS_MAX);
        assert_eq!(all(), ((10, 12), (10, 5), (0, 0)));
    }
}
