//! Bytes that all streams of all direct connections carry, and their rates.
//!
//! Counted above the multiplexer, as by Kubo: without its framing and the encryption. Relayed connections run
//! in a stream of a direct one, which counts them.

use crate::store::lock;
use futures::{AsyncRead, AsyncWrite, ready};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerBox, StreamMuxerEvent, SubstreamBox};
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

/// Counters of a node.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    received: AtomicU64,
    sent: AtomicU64,
    /// State at the last measurement of the rates.
    measured: Mutex<TrafficStat>,
}

impl Traffic {
    /// Returns the totals, and the rates of the last measurement.
    pub(crate) fn stat(&self) -> TrafficStat {
        TrafficStat {
            total_in: self.received.load(Ordering::Relaxed),
            total_out: self.sent.load(Ordering::Relaxed),
            ..*lock(&self.measured)
        }
    }

    /// Measures the rates; called once per [`INTERVAL`].
    pub(super) fn measure(&self) {
        let now = self.stat();
        let rate = |rate: f64, bytes: u64| {
            let next = rate + WEIGHT * (bytes as f64 - rate);
            // Nothing is left of a transfer that ended long ago.
            if next < 0.001 { 0.0 } else { next }
        };
        let mut last = lock(&self.measured);
        *last = TrafficStat {
            rate_in: rate(last.rate_in, now.total_in.saturating_sub(last.total_in)),
            rate_out: rate(last.rate_out, now.total_out.saturating_sub(last.total_out)),
            ..now
        };
    }
}

/// A multiplexed connection whose streams are counted.
struct Counted {
    inner: StreamMuxerBox,
    traffic: Arc<Traffic>,
}

/// Counts the streams of a connection.
pub(super) fn count(inner: StreamMuxerBox, traffic: Arc<Traffic>) -> StreamMuxerBox {
    StreamMuxerBox::new(Counted { inner, traffic })
}

impl Counted {
    fn stream(&self, inner: SubstreamBox) -> CountedStream {
        CountedStream {
            inner,
            traffic: self.traffic.clone(),
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
    traffic: Arc<Traffic>,
}

impl AsyncRead for CountedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut [u8]) -> Poll<io::Result<usize>> {
        let read = ready!(Pin::new(&mut self.inner).poll_read(cx, to))?;
        self.traffic.received.fetch_add(read as u64, Ordering::Relaxed);
        Poll::Ready(Ok(read))
    }
}

impl AsyncWrite for CountedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.inner).poll_write(cx, from))?;
        self.traffic.sent.fetch_add(written as u64, Ordering::Relaxed);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.inner).poll_write_vectored(cx, from))?;
        self.traffic.sent.fetch_add(written as u64, Ordering::Relaxed);
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
        traffic.received.fetch_add(1000, Ordering::Relaxed);
        traffic.measure();
        let stat = traffic.stat();
        assert_eq!((stat.total_in, stat.total_out, stat.rate_out), (1000, 0, 0.0));
        assert!((600.0..700.0).contains(&stat.rate_in), "{stat:?}");
        for _ in 0..20 {
            traffic.received.fetch_add(1000, Ordering::Relaxed);
            traffic.measure();
        }
        assert!((traffic.stat().rate_in - 1000.0).abs() < 1.0);
        for _ in 0..30 {
            traffic.measure();
        }
        assert_eq!(traffic.stat().rate_in, 0.0);
    }
}
