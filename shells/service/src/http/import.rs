//! Handler of `POST /allocations`, which `state import` uses at a running peer: adds pins unchanged, in the
//! format of `GET /allocations?whole=true`. The Go peer has no such route.

use std::io;
use std::time::Duration;

use axum::Extension;
use axum::body::{Body, to_bytes};
use axum::extract::RawQuery;
use axum::http::{Response, StatusCode};
use bytes::Bytes;
use cluster_api::{ImportedPin, Pin, Query};
use cluster_core::Scope;
use futures::{Stream, StreamExt, TryStreamExt};
use tokio::time::timeout;
use tokio_util::codec::{FramedRead, LinesCodec, LinesCodecError};
use tokio_util::io::StreamReader;

use super::answer;
use super::auth::{Acting, Caller};
use super::server::close_after;
use crate::cluster::Cluster;

/// Maximum size of the body, in bytes. A pin has some 400 bytes, the largest accepted one some 40,000.
const BODY_MAX: usize = 8 << 20;

/// Time for the body to arrive: eight times what it needs at 2 Mbit/s.
const BODY_WAIT: Duration = Duration::from_secs(300);

/// Maximum number of pins in one request: after a failure in the middle, the client repeats the whole
/// request.
const PINS_MAX: usize = 4096;

/// Maximum length of a line of a stream, in bytes.
const LINE_MAX: usize = 1 << 20;

/// Pins of a stream that are imported together, and such groups at the same time.
const GROUP: usize = 512;
const GROUPS_AT_ONCE: usize = 4;

pub(super) async fn import(
    Acting(cluster): Acting,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
    body: Body,
) -> Response<Body> {
    // An export names the owners of its pins.
    let names_owners = caller.may(Scope::Admin);
    let query = Query::parse(query.as_deref().unwrap_or_default());
    match query.bool("stream", false) {
        Err(error) => return answer::bad_request(error),
        Ok(true) => return import_stream(cluster, names_owners, body),
        Ok(false) => {}
    }
    let Ok(body) = timeout(BODY_WAIT, to_bytes(body, BODY_MAX)).await else {
        let why = format!("the body did not arrive within {BODY_WAIT:?}: send fewer pins");
        let mut refusal = answer::error(StatusCode::REQUEST_TIMEOUT, why);
        close_after(&mut refusal);
        return refusal;
    };
    let Ok(body) = body else {
        let why =
            format!("the body did not arrive whole, or has more than {BODY_MAX} bytes: send fewer pins");
        return answer::error(StatusCode::PAYLOAD_TOO_LARGE, why);
    };
    let mut pins = Vec::new();
    for pin in serde_json::Deserializer::from_slice(&body).into_iter::<Pin>() {
        match pin {
            Ok(pin) if pins.len() < PINS_MAX => pins.push(pin),
            Ok(_) => return answer::bad_request(format!("at most {PINS_MAX} pins in one request")),
            Err(error) => return answer::bad_request(format!("error decoding pins: {error}")),
        }
    }
    match cluster.import(&pins, names_owners).await {
        Ok(()) => answer::no_content(),
        Err(failure) => answer::failed(&failure),
    }
}

/// Imports any number of pins while they arrive, and answers each line with one, in the same order.
fn import_stream(cluster: Cluster, names_owners: bool, body: Body) -> Response<Body> {
    let pins = lines_of(body).map(|line| parse(line?.as_bytes()));
    let groups = pins.ready_chunks(GROUP).map(move |pins| {
        let cluster = cluster.clone();
        async move { import_group(&cluster, names_owners, pins).await }
    });
    answer::streamed(groups.buffered(GROUPS_AT_ONCE).map(Ok))
}

/// Returns the lines of a body that are not empty. After an error there are no more.
fn lines_of(body: Body) -> impl Stream<Item = Result<String, ImportedPin>> {
    let reader = StreamReader::new(body.into_data_stream().map_err(io::Error::other));
    let lines = FramedRead::new(reader, LinesCodec::new_with_max_length(LINE_MAX));
    let lines = lines.map_err(|error| {
        let why = match error {
            LinesCodecError::MaxLineLengthExceeded => format!("a line has more than {LINE_MAX} bytes"),
            LinesCodecError::Io(error) => format!("the body did not arrive whole: {error}"),
        };
        ImportedPin::refused(String::new(), StatusCode::BAD_REQUEST.as_u16(), why)
    });
    lines.try_filter(|line| std::future::ready(!line.trim().is_empty()))
}

fn parse(line: &[u8]) -> Result<Pin, ImportedPin> {
    serde_json::from_slice(line).map_err(|error| {
        let why = format!("error decoding the pin: {error}");
        ImportedPin::refused(String::new(), StatusCode::BAD_REQUEST.as_u16(), why)
    })
}

/// Imports a group of pins and returns the lines that answer them.
async fn import_group(cluster: &Cluster, names_owners: bool, pins: Vec<Result<Pin, ImportedPin>>) -> Bytes {
    let valid: Vec<Pin> = pins.iter().flatten().cloned().collect();
    let mut results = cluster.import_each(&valid, names_owners).await.into_iter();
    let mut lines = Vec::with_capacity(pins.len() * 128);
    for pin in pins {
        let answer = pin.map(|pin| match results.next().expect("each valid pin has a result") {
            Ok(()) => ImportedPin::committed(pin.cid),
            Err(failure) => {
                ImportedPin::refused(pin.cid, answer::status(&failure).as_u16(), failure.to_string())
            }
        });
        answer::push(&mut lines, &answer.unwrap_or_else(|refused| refused));
    }
    lines.into()
}
