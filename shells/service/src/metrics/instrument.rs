//! Construction of instruments from their description.

use std::time::Instant;

use prometheus::core::Collector;
use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

/// Buckets of durations of requests and writes, in seconds.
pub(super) const LATENCY: &[f64] = &[
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0,
];

/// Buckets of the time until content is pinned, in seconds: up to a day.
pub(super) const COPIES: &[f64] = &[
    0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0, 86_400.0,
];

/// Static description of a metric.
#[derive(Debug, Clone, Copy)]
pub struct Description {
    /// Full name.
    pub name: &'static str,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// Names of the labels.
    pub labels: &'static [&'static str],
    /// Meaning, with the unit; also the `HELP` line.
    pub help: &'static str,
    /// Upper bounds of the buckets of a histogram.
    pub(super) buckets: &'static [f64],
}

/// A type of metric that a [`Description`] can be made into.
pub(super) trait Instrument: Collector + Clone + 'static {
    /// Type name in the Prometheus format.
    const KIND: &'static str;

    /// Creates the metric.
    fn create(of: &Description) -> prometheus::Result<Self>;

    /// Creates and registers the metric.
    fn register(of: &Description, registry: &Registry) -> Self {
        let made = Self::create(of).expect("names and labels in the catalogue are valid");
        registry
            .register(Box::new(made.clone()))
            .expect("names in the catalogue are unique");
        made
    }
}

fn opts(of: &Description) -> Opts {
    Opts::new(of.name, of.help)
}

fn histogram_opts(of: &Description) -> HistogramOpts {
    HistogramOpts::new(of.name, of.help).buckets(of.buckets.to_vec())
}

impl Instrument for IntCounter {
    const KIND: &'static str = "counter";

    fn create(of: &Description) -> prometheus::Result<Self> {
        Self::with_opts(opts(of))
    }
}

impl Instrument for IntCounterVec {
    const KIND: &'static str = "counter";

    fn create(of: &Description) -> prometheus::Result<Self> {
        Self::new(opts(of), of.labels)
    }
}

impl Instrument for IntGauge {
    const KIND: &'static str = "gauge";

    fn create(of: &Description) -> prometheus::Result<Self> {
        Self::with_opts(opts(of))
    }
}

impl Instrument for Gauge {
    const KIND: &'static str = "gauge";

    fn create(of: &Description) -> prometheus::Result<Self> {
        Self::with_opts(opts(of))
    }
}

impl Instrument for IntGaugeVec {
    const KIND: &'static str = "gauge";

    fn create(of: &Description) -> prometheus::Result<Self> {
        Self::new(opts(of), of.labels)
    }
}

impl Instrument for Histogram {
    const KIND: &'static str = "histogram";

    fn create(of: &Description) -> prometheus::Result<Self> {
        Self::with_opts(histogram_opts(of))
    }
}

impl Instrument for HistogramVec {
    const KIND: &'static str = "histogram";

    fn create(of: &Description) -> prometheus::Result<Self> {
        Self::new(histogram_opts(of), of.labels)
    }
}

/// Sets a gauge to a number that may exceed its range.
pub(super) fn set(gauge: &IntGauge, value: u64) {
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
}

/// Raises a counter to a total that is counted elsewhere.
pub(super) fn raise(counter: &IntCounter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}

/// Observes the time since `start`, in seconds.
pub fn observe_since(histogram: &Histogram, start: Instant) {
    histogram.observe(start.elapsed().as_secs_f64());
}
