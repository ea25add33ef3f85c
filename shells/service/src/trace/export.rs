//! Export of spans: a bounded queue, and a task that posts batches of them to a collector.
//!
//! No request waits for the collector. Spans beyond the queue's limit, and batches that the collector does
//! not accept, are dropped and counted. The SDK's own batch processor counts nothing and blocks a thread of
//! its own.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, Response};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use opentelemetry::Context;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{Protocol, RetryPolicy, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{Span, SpanData, SpanExporter as _, SpanProcessor};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::rustls;
use tokio_util::sync::CancellationToken;

use super::settings::Settings;
use crate::metrics::metrics;

/// Bytes read of a collector's answer, which is empty or a line.
const ANSWER_MAX: usize = 64 << 10;

/// Time limit of a connection to the collector.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Time after which an unused connection to the collector is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Shortest time between two lines in the log about a collector that fails.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Client for requests to the collector.
struct Collector {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collector").finish_non_exhaustive()
    }
}

impl Collector {
    /// Creates a client; the certificates of this machine are read only for https.
    fn new(is_https: bool) -> std::io::Result<Self> {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let provider = rustls::crypto::ring::default_provider();
        let builder = HttpsConnectorBuilder::new();
        let builder = if is_https {
            builder.with_provider_and_native_roots(provider)?
        } else {
            let tls = rustls::ClientConfig::builder_with_provider(provider.into())
                .with_safe_default_protocol_versions()
                .map_err(std::io::Error::other)?
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth();
            builder.with_tls_config(tls)
        };
        let connector = builder.https_or_http().enable_http1().wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .build(connector);
        Ok(Self { client })
    }
}

/// Pending answer of [`HttpClient::send_bytes`].
type Sending<'a> = Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'a>>;

impl HttpClient for Collector {
    fn send_bytes<'client, 'sending>(&'client self, request: Request<Bytes>) -> Sending<'sending>
    where
        'client: 'sending,
        Self: 'sending,
    {
        let sending = self.client.request(request.map(Full::new));
        Box::pin(async move {
            let (head, body) = sending.await?.into_parts();
            let body = Limited::new(body, ANSWER_MAX).collect().await?;
            Ok(Response::from_parts(head, body.to_bytes()))
        })
    }
}

/// Creates the exporter of the settings.
///
/// # Errors
/// The certificates of this machine cannot be read, or a variable for the exporter is invalid.
pub(super) fn exporter(settings: &Settings) -> anyhow::Result<SpanExporter> {
    let collector = Collector::new(settings.endpoint.scheme() == "https")?;
    let exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(settings.endpoint.as_str())
        .with_timeout(settings.timeout)
        // The exporter sleeps between attempts by blocking the thread.
        .with_retry_policy(RetryPolicy::disabled())
        .with_http_client(collector)
        .build()?;
    Ok(exporter)
}

/// Entrance of the queue.
#[derive(Debug)]
pub(super) struct Queue {
    spans: mpsc::Sender<SpanData>,
    stop: CancellationToken,
}

impl Queue {
    /// Creates a queue; the receiver is for [`export`], which ends after `stop`.
    pub(super) fn new(capacity: usize, stop: CancellationToken) -> (Self, mpsc::Receiver<SpanData>) {
        let (spans, receiver) = mpsc::channel(capacity);
        (Self { spans, stop }, receiver)
    }
}

impl SpanProcessor for Queue {
    fn on_start(&self, _span: &mut Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() && self.spans.try_send(span).is_err() {
            dropped("queue_full", 1);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        self.stop.cancel();
        Ok(())
    }
}

fn dropped(reason: &str, spans: usize) {
    let counter = metrics().trace_spans_dropped.with_label_values(&[reason]);
    counter.inc_by(spans as u64);
}

/// Exports the spans of the queue, until `stop` and the last span before it.
pub(super) async fn export(
    mut spans: mpsc::Receiver<SpanData>,
    exporter: SpanExporter,
    settings: Settings,
    stop: CancellationToken,
) {
    let mut log = FailureLog::default();
    loop {
        let mut batch = Vec::new();
        let first = tokio::select! {
            received = spans.recv_many(&mut batch, settings.batch) => received,
            () = stop.cancelled(), if !spans.is_closed() => {
                spans.close();
                continue;
            }
        };
        if first == 0 {
            return;
        }
        let due = Instant::now() + settings.delay;
        while batch.len() < settings.batch && !stop.is_cancelled() {
            let room = settings.batch - batch.len();
            let more = tokio::select! {
                more = timeout_at(due, spans.recv_many(&mut batch, room)) => more,
                () = stop.cancelled() => break,
            };
            if matches!(more, Ok(0) | Err(_)) {
                break;
            }
        }
        let count = batch.len();
        let sent = timeout(settings.timeout, exporter.export(batch)).await;
        match sent.unwrap_or(Err(OTelSdkError::Timeout(settings.timeout))) {
            Ok(()) => metrics().trace_spans_exported.inc_by(count as u64),
            Err(error) => {
                dropped("export_failed", count);
                log.failed(&settings, &error, count);
            }
        }
    }
}

/// Logs failures, the first at once and the others once in [`LOG_INTERVAL`].
#[derive(Default)]
struct FailureLog {
    last: Option<Instant>,
    lost: usize,
}

impl FailureLog {
    fn failed(&mut self, settings: &Settings, error: &OTelSdkError, count: usize) {
        self.lost += count;
        if self.last.is_some_and(|last| last.elapsed() < LOG_INTERVAL) {
            return;
        }
        let (lost, endpoint) = (self.lost, shown(settings));
        tracing::warn!("{lost} spans were lost: the collector at {endpoint} does not accept them: {error}");
        self.last = Some(Instant::now());
        self.lost = 0;
    }
}

/// Returns the endpoint without credentials.
pub(super) fn shown(settings: &Settings) -> String {
    let mut endpoint = settings.endpoint.clone();
    if endpoint.password().is_some() || !endpoint.username().is_empty() {
        // Fails only for URLs without a host, which the settings refuse.
        let _ = endpoint.set_password(None);
        let _ = endpoint.set_username("");
    }
    endpoint.set_query(None);
    endpoint.to_string()
}
