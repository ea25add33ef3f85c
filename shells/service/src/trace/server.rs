//! Spans of HTTP requests to this peer, and their trace context from the header `traceparent` (W3C).

use std::pin::Pin;
use std::task::{self, Poll};

use axum::body::Body;
use axum::http::{HeaderMap, Response};
use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{FutureExt, SpanKind, Status, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_sdk::propagation::TraceContextPropagator;

use super::TRACING;

/// Bytes of a path in a span; the rest is cut off.
const PATH_MAX: usize = 256;

/// A request as its span names it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ServerRequest<'a> {
    /// Label of the API.
    pub(crate) api: &'static str,
    /// Method, of a small number.
    pub(crate) method: &'static str,
    /// Route, of a small number.
    pub(crate) route: &'a str,
    /// Headers of the request.
    pub(crate) headers: &'a HeaderMap,
    /// Path of the request.
    pub(crate) path: &'a str,
}

/// Span of a request that is being answered; `None` while tracing is off.
#[derive(Debug)]
pub(crate) struct ServerSpan(Option<Context>);

impl ServerSpan {
    /// Begins the span of a request, in the trace that its headers name.
    pub(crate) fn begin(request: ServerRequest<'_>) -> Self {
        Self(TRACING.get().map(|tracing| {
            let headers = HeaderExtractor(request.headers);
            let parent = TraceContextPropagator::new().extract_with_context(&Context::new(), &headers);
            let path = &request.path[..request.path.floor_char_boundary(PATH_MAX)];
            let span = tracing
                .tracer
                .span_builder(format!("{} {}", request.method, request.route))
                .with_kind(SpanKind::Server)
                .with_attributes([
                    KeyValue::new("ipfs_cluster.api", request.api),
                    KeyValue::new("http.request.method", request.method),
                    KeyValue::new("http.route", request.route.to_owned()),
                    KeyValue::new("url.path", path.to_owned()),
                ])
                .start_with_context(&tracing.tracer, &parent);
            parent.with_span(span)
        }))
    }

    /// Answers the request within the span, which ends with the response's body.
    pub(crate) async fn answer(self, answer: impl Future<Output = Response<Body>>) -> Response<Body> {
        let Some(context) = self.0 else {
            return answer.await;
        };
        let response = answer.with_context(context.clone()).await;
        let (span, status) = (context.span(), response.status());
        if span.is_recording() {
            span.set_attribute(KeyValue::new(
                "http.response.status_code",
                i64::from(status.as_u16()),
            ));
            if status.is_server_error() {
                span.set_status(Status::error(status.as_str().to_owned()));
            }
        }
        response.map(|body| Body::new(TracedBody { body, context }))
    }
}

/// Body whose span ends with it. What makes its content runs within the span.
struct TracedBody {
    body: Body,
    context: Context,
}

impl Drop for TracedBody {
    fn drop(&mut self) {
        self.context.span().end();
    }
}

impl HttpBody for TracedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let _attached = self.context.clone().attach();
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
