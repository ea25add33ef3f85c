//! Traces for an OTLP collector: spans of what this peer does for a request.
//!
//! ```text
//! POST /pins/{hash}                  the HTTP request, in the trace of its header traceparent
//! └─ cluster.pin                     the request to the core, until its reply
//!    ├─ raft.propose                 until its entry is in the log of the peer that took the request
//!    ├─ raft.commit                  at each peer: from its entry in the log until it is committed
//!    ├─ pinset.apply                 at each peer: the write that changes the pinset
//!    └─ ipfs.pin                     at each peer with an allocation; Kubo gets it as traceparent
//!       └─ dag.fetch, routing.dht, …  steps of the embedded node
//! ```
//!
//! Off, each place that could make a span costs one atomic load. The core and its messages carry no context:
//! `Requests` finds the steps of a request by its CID, and `cluster::contexts` sends contexts to the other
//! peers. Spans are made from the driver's inputs, and may be incomplete if those are late.

mod export;
mod requests;
mod server;
mod settings;

use std::borrow::Cow;
use std::fmt::Display;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use cluster_core::{Batch, Cid, Refusal, Request, StoreOp};
use cluster_ipfs::{Step, Steps};
use opentelemetry::trace::{
    FutureExt, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId, TraceState,
    Tracer, TracerProvider,
};
use opentelemetry::{Context, Key, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider, SpanExporter as _};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::requests::{Applied, Ended, Known, Requests};
pub(crate) use self::server::{ServerRequest, ServerSpan};
use self::settings::Settings;
use crate::config;

/// Contexts queued for the other peers; the oldest are dropped first.
const NEWS_MAX: usize = 1024;

/// Time to export the last spans at a shutdown.
const FLUSH: Duration = Duration::from_secs(5);

/// Reason for the end of an operation that was stopped: the pin was removed, or its time was over.
const STOPPED: &str = "stopped before its end";

/// Bytes of an error text in a span; the rest is cut off.
const TEXT_MAX: usize = 256;

/// The tracing of this process; empty while it is off.
static TRACING: OnceLock<Tracing> = OnceLock::new();

struct Tracing {
    tracer: SdkTracer,
    requests: Mutex<Requests>,
    /// Contexts for the other peers.
    news: broadcast::Sender<RequestContext>,
}

/// Trace context of a request for a CID, as peers exchange it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RequestContext {
    /// CID of the request.
    pub(crate) cid: Cid,
    trace: [u8; 16],
    span: [u8; 8],
}

impl RequestContext {
    fn new(cid: &Cid, context: &SpanContext) -> Self {
        Self {
            cid: cid.clone(),
            trace: context.trace_id().to_bytes(),
            span: context.span_id().to_bytes(),
        }
    }

    /// Returns the span context, which is always a sampled one; `None` if it is invalid.
    fn span_context(&self) -> Option<SpanContext> {
        let trace = TraceId::from_bytes(self.trace);
        let span = SpanId::from_bytes(self.span);
        let context = SpanContext::new(trace, span, TraceFlags::SAMPLED, true, TraceState::default());
        context.is_valid().then_some(context)
    }
}

/// The running export of spans.
#[derive(Debug, Default)]
pub struct Exports(Option<(CancellationToken, JoinHandle<()>)>);

impl Exports {
    /// Exports the spans so far, as far as the collector takes them in five seconds, and ends.
    pub async fn stop(self) {
        let Some((stop, exporting)) = self.0 else {
            return;
        };
        stop.cancel();
        if tokio::time::timeout(FLUSH, exporting).await.is_err() {
            tracing::warn!("the last spans were not exported within {FLUSH:?}");
        }
    }
}

/// Starts tracing for this process, if the configuration or the environment asks for it. Only the first call
/// in a process has an effect.
///
/// # Errors
/// A setting or a variable is invalid.
pub fn start(config: &config::Config, identity: &config::Identity) -> anyhow::Result<Exports> {
    let environment = |name: &str| std::env::var(name).ok();
    let (settings, notices) = Settings::read(&config.observations.tracing, &environment)?;
    for notice in settings
        .iter()
        .flat_map(|settings| &settings.notices)
        .chain(&notices)
    {
        tracing::warn!("{notice}");
    }
    let Some(settings) = settings else {
        return Ok(Exports::default());
    };
    let resource = resource(&settings, &config.cluster.peername, &identity.peer.to_string());
    let mut exporter = export::exporter(&settings).context("tracing cannot be set up")?;
    exporter.set_resource(&resource);
    let stop = CancellationToken::new();
    let (queue, spans) = export::Queue::new(settings.queue, stop.clone());
    let mut provider = SdkTracerProvider::builder()
        .with_resource(resource)
        .with_span_processor(queue);
    if let Some(share) = settings.sampled_share {
        let begun_here = Sampler::TraceIdRatioBased(share);
        provider = provider.with_sampler(Sampler::ParentBased(Box::new(begun_here)));
    }
    let provider = provider.build();
    let tracing = Tracing {
        tracer: provider.tracer("ipfs-cluster"),
        requests: Mutex::default(),
        news: broadcast::Sender::new(NEWS_MAX),
    };
    if TRACING.set(tracing).is_err() {
        return Ok(Exports::default());
    }
    tracing::info!("spans are exported to {}", export::shown(&settings));
    let exporting = tokio::spawn(export::export(spans, exporter, settings, stop.clone()));
    Ok(Exports(Some((stop, exporting))))
}

fn resource(settings: &Settings, peername: &str, peer: &str) -> Resource {
    let from_environment = Resource::builder().build();
    let named = from_environment.get(&Key::new("service.name"));
    let is_named = named.is_some_and(|name| !name.as_str().starts_with("unknown_service"));
    let mut builder = Resource::builder_empty().with_attributes([
        KeyValue::new("service.instance.id", peer.to_owned()),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("ipfs_cluster.peername", peername.to_owned()),
    ]);
    // The environment takes precedence over these.
    let others = from_environment
        .iter()
        .map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
    builder = builder.with_attributes(others);
    if !is_named {
        builder = builder.with_service_name(settings.service_name.clone());
    }
    builder.build()
}

impl Tracing {
    fn requests(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the request for a CID as a parent of spans.
    fn request(&self, cid: &Cid) -> Option<Context> {
        let requests = self.requests();
        let known = requests.get(cid, Instant::now())?;
        Some(Context::new().with_remote_span_context(known.context.clone()))
    }

    fn start(
        &self,
        name: impl Into<Cow<'static, str>>,
        cid: &Cid,
        at: SystemTime,
        parent: &Context,
    ) -> Context {
        let span = self
            .tracer
            .span_builder(name)
            .with_kind(SpanKind::Internal)
            .with_start_time(at)
            .with_attributes([KeyValue::new("ipfs.cid", cid.to_string())])
            .start_with_context(&self.tracer, parent);
        parent.with_span(span)
    }

    fn record(
        &self,
        name: &'static str,
        cid: &Cid,
        (start, end): (SystemTime, SystemTime),
        parent: &Context,
    ) {
        self.start(name, cid, start, parent)
            .span()
            .end_with_timestamp(end);
    }

    /// Records the span of a step of an operation; `now` is the end of the operation.
    fn record_step(&self, step: Step, cid: &Cid, now: SystemTime, operation: &Context) {
        let context = self.start(step.name, cid, step.start, operation);
        let span = context.span();
        span.set_attributes(step.attributes);
        if let Some(error) = step.error {
            span.set_status(Status::error(shortened(&error)));
        }
        span.end_with_timestamp(step.end.unwrap_or(now));
    }

    /// Records the span of an operation that had none while it ran, in the trace of its request.
    fn record_late(&self, of_request: SpanContext, ended: Ended) {
        let parent = Context::new().with_remote_span_context(of_request);
        let context = self.start(ended.name, &ended.cid, ended.start, &parent);
        self.record_operation(&context, ended);
    }

    /// Ends the span of an operation, and records those of its steps.
    fn record_operation(&self, context: &Context, ended: Ended) {
        for step in ended.steps {
            self.record_step(step, &ended.cid, ended.end, context);
        }
        let span = context.span();
        if ended.left_out > 0 {
            let count = i64::try_from(ended.left_out).unwrap_or(i64::MAX);
            span.set_attribute(KeyValue::new("ipfs.steps_left_out", count));
        }
        if let Some(error) = ended.error {
            span.set_status(Status::error(error));
        }
        span.end_with_timestamp(ended.end);
    }

    /// Records the spans of a change of the pinset.
    fn record_change(&self, known: &Known, applied: &Applied) {
        let parent = Context::new().with_remote_span_context(known.context.clone());
        let cid = &applied.cid;
        if let Some(appended) = applied.appended {
            if let Some(requested) = known.requested {
                self.record("raft.propose", cid, (requested, appended), &parent);
            }
            self.record("raft.commit", cid, (appended, applied.start), &parent);
        }
        self.record("pinset.apply", cid, (applied.start, applied.end), &parent);
    }
}

/// Returns the start of a text, of at most [`TEXT_MAX`] bytes.
fn shortened(text: &str) -> String {
    text[..text.floor_char_boundary(TEXT_MAX)].to_owned()
}

fn end(context: &Context, error: Option<&dyn Display>) {
    let span = context.span();
    if let Some(error) = error {
        span.set_status(Status::error(shortened(&error.to_string())));
    }
    span.end();
}

/// Span of a request to the core.
#[derive(Debug)]
pub(crate) struct RequestSpan(Context);

impl RequestSpan {
    /// Begins the span of a request within the current one, and queues its context for the other peers;
    /// `None` if it is not traced.
    pub(crate) fn begin(request: &Request) -> Option<Self> {
        let tracing = TRACING.get()?;
        let (name, cid) = match request {
            Request::Import { pin, .. } => ("cluster.import", &pin.cid),
            Request::Pin { cid, .. } => ("cluster.pin", cid),
            Request::Recover { cid } => ("cluster.recover", cid),
            Request::Unpin { cid, .. } => ("cluster.unpin", cid),
            Request::AddPeer { .. }
            | Request::Allocate { .. }
            | Request::Barrier
            | Request::CreateCredential { .. }
            | Request::Drain { .. }
            | Request::EndDrain { .. }
            | Request::Rebalance { .. }
            | Request::RecoverAll
            | Request::RemovePeer { .. }
            | Request::RevokeCredential { .. }
            | Request::Sync { .. } => return None,
        };
        let parent = Context::current();
        if !parent.span().span_context().is_sampled() {
            return None;
        }
        let context = tracing.start(name, cid, SystemTime::now(), &parent);
        let of_span = context.span().span_context().clone();
        if of_span.is_sampled() {
            // Fails only if no task sends contexts to other peers.
            let _ = tracing.news.send(RequestContext::new(cid, &of_span));
            tracing.requests().remember_own(cid, of_span, Instant::now());
        }
        Some(Self(context))
    }

    /// Ends the span.
    pub(crate) fn end(self, refusal: Option<&Refusal>) {
        end(&self.0, refusal.map(|refusal| refusal as &dyn Display));
    }
}

/// Returns the contexts of requests to this peer from now on, for the other peers; `None` while tracing is
/// off.
pub(crate) fn contexts() -> Option<broadcast::Receiver<RequestContext>> {
    TRACING.get().map(|tracing| tracing.news.subscribe())
}

/// Remembers the contexts of requests to another peer.
pub(crate) fn remember(contexts: &[RequestContext]) {
    let Some(tracing) = TRACING.get() else { return };
    let (mut late, mut ended) = (Vec::new(), Vec::new());
    {
        let (mut requests, now) = (tracing.requests(), Instant::now());
        for context in contexts {
            if let Some(of_span) = context.span_context() {
                let operations = requests.take_ended(&context.cid).into_iter();
                ended.extend(operations.map(|operation| (of_span.clone(), operation)));
                late.extend(requests.remember(&context.cid, of_span, now));
            }
        }
    }
    for (known, applied) in late {
        tracing.record_change(&known, &applied);
    }
    for (of_request, operation) in ended {
        tracing.record_late(of_request, operation);
    }
}

/// Time before a batch is written, for [`BatchStart::written`]; `None` while tracing is off.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchStart(Option<SystemTime>);

impl BatchStart {
    /// Notes the time.
    pub(crate) fn now() -> Self {
        Self(TRACING.get().map(|_| SystemTime::now()))
    }

    /// Records the spans of the changes in a batch that has been written.
    pub(crate) fn written(self, batch: &Batch) {
        let (Some(tracing), Some(start)) = (TRACING.get(), self.0) else {
            return;
        };
        let (end, now) = (SystemTime::now(), Instant::now());
        let applied = batch.ops.iter().find_map(|op| {
            if let StoreOp::SetApplied { applied } = op {
                Some(applied.index)
            } else {
                None
            }
        });
        let mut changes = Vec::new();
        {
            let mut requests = tracing.requests();
            for op in &batch.ops {
                let (cid, index) = match op {
                    StoreOp::Append { entries } => {
                        entries.iter().for_each(|entry| requests.append(entry.index, end));
                        continue;
                    }
                    // Its version is the index of its entry.
                    StoreOp::PutPin { pin, .. } => (&pin.cid, pin.version),
                    StoreOp::DeletePin { pin } => (&pin.cid, applied.unwrap_or_default()),
                    StoreOp::Compact { .. }
                    | StoreOp::DeleteLocal { .. }
                    | StoreOp::Dequeue { .. }
                    | StoreOp::Enqueue { .. }
                    | StoreOp::InstallSnapshot { .. }
                    | StoreOp::PutLocal { .. }
                    | StoreOp::PutWindow { .. }
                    | StoreOp::SetApplied { .. }
                    | StoreOp::SetPolicy { .. }
                    | StoreOp::SetHardState { .. }
                    | StoreOp::SetMembers { .. }
                    | StoreOp::SetReconciling { .. } => continue,
                };
                changes.extend(requests.apply(cid, index, (start, end), now));
            }
        }
        for (known, applied) in changes {
            tracing.record_change(&known, &applied);
        }
    }
}

/// Runs an operation at the IPFS node within a span of the request for its CID, if that is traced.
///
/// # Errors
/// Those of the operation.
pub(crate) async fn ipfs_operation<T, E: Display>(
    name: &'static str,
    cid: &Cid,
    work: impl Future<Output = Result<T, E>> + Unpin,
) -> Result<T, E> {
    let Some(tracing) = TRACING.get() else {
        return work.await;
    };
    let mut operation = Operation::begin(tracing, name, cid);
    let outcome = work.with_context(operation.context()).await;
    operation.end(outcome.as_ref().err().map(|error| error as &dyn Display));
    outcome
}

/// An operation at the IPFS node, and the steps that the embedded node notes. Its spans are made when it ends
/// or is dropped.
struct Operation<'a> {
    tracing: &'a Tracing,
    name: &'static str,
    cid: &'a Cid,
    start: SystemTime,
    /// Context with its span, if its request is known already.
    span: Option<Context>,
    steps: Steps,
    is_ended: bool,
}

impl<'a> Operation<'a> {
    fn begin(tracing: &'a Tracing, name: &'static str, cid: &'a Cid) -> Self {
        let start = SystemTime::now();
        let parent = tracing.request(cid);
        Self {
            tracing,
            name,
            cid,
            start,
            span: parent.map(|parent| tracing.start(name, cid, start, &parent)),
            steps: Steps::default(),
            is_ended: false,
        }
    }

    /// Returns the context to work in.
    fn context(&self) -> Context {
        let context = self.span.clone().unwrap_or_default();
        context.with_value(self.steps.clone())
    }

    fn end(&mut self, error: Option<&dyn Display>) {
        self.is_ended = true;
        let (steps, left_out) = self.steps.take();
        let ended = Ended {
            name: self.name,
            cid: self.cid.clone(),
            start: self.start,
            end: SystemTime::now(),
            steps,
            left_out,
            error: error.map(|error| shortened(&error.to_string())),
        };
        if let Some(span) = self.span.take() {
            self.tracing.record_operation(&span, ended);
            return;
        }
        // The request's context may have arrived from another peer meanwhile, or may arrive later.
        let known = self.tracing.requests().end(ended, Instant::now());
        if let Some((of_request, ended)) = known {
            self.tracing.record_late(of_request, ended);
        }
    }
}

impl Drop for Operation<'_> {
    fn drop(&mut self) {
        if !self.is_ended {
            self.end(Some(&STOPPED));
        }
    }
}
