//! The trace context of requests to a daemon, for its own spans.

use hyper::Request;
use hyper::header::{HeaderName, HeaderValue};
use opentelemetry::Context;
use opentelemetry::trace::{TraceContextExt, TraceFlags};

/// Header of the context: <https://www.w3.org/TR/trace-context/>.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Sets the header to the span that this code runs in, if there is one.
pub(super) fn set<B>(request: &mut Request<B>) {
    let value = Context::map_current(|context| {
        if !context.has_active_span() {
            return None;
        }
        let span = context.span();
        let of_span = span.span_context();
        let (trace, id) = (of_span.trace_id(), of_span.span_id());
        let flags = of_span.trace_flags() & TraceFlags::SAMPLED;
        let text = format!("00-{trace}-{id}-{flags:02x}");
        HeaderValue::try_from(text).ok().filter(|_| of_span.is_valid())
    });
    if let Some(value) = value {
        request.headers_mut().insert(TRACEPARENT, value);
    }
}
