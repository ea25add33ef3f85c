//! Handler of `POST /add`.

use axum::body::Body;
use axum::extract::RawQuery;
use axum::http::header::{CACHE_CONTROL, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Response, StatusCode};
use bytes::Bytes;
use cluster_api::{AddFormat, AddParams, AddedOutput, Query, Time};
use cluster_http::multipart::PartKind;
use futures::stream::{self, StreamExt};
use opentelemetry::trace::FutureExt;
use tokio::sync::mpsc;

use super::answer;
use super::auth::Acting;
use super::multipart::{Parts, boundary, display_path};
use super::refusals;
use super::server::{Service, close_after};
use crate::cluster::{AddFailure, Cluster, Upload};

/// Bytes of output lines held back, so that most failures can still be reported as an HTTP status. With
/// `progress` nothing is held back: progress lines are worthless later.
const BUFFER_MAX: usize = 64 << 10;

/// Maximum size of the answer with `stream-channels=false`, which is held until the end: some 300,000
/// files.
const ARRAY_MAX: usize = 64 << 20;

/// Capacity of the channel of answer pieces, and of those of output lines.
const CHANNEL_CAPACITY: usize = 16;

pub(super) async fn add(
    Acting(cluster): Acting,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Response<Body> {
    let query = Query::parse(query.as_deref().unwrap_or_default());
    let asked = boundary(&headers).and_then(|boundary| {
        Ok((
            boundary,
            AddParams::from_query(&query, Time::now()).map_err(|e| e.to_string())?,
        ))
    });
    let mut response = match asked {
        Err(why) => answer::bad_request(why),
        Ok((boundary, params)) => {
            let parts = Parts::new(body, &boundary);
            start(cluster, params, parts).await
        }
    };
    // The unread rest of the upload would be parsed as the next request.
    close_after(&mut response);
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

async fn start(cluster: Cluster, params: AddParams, parts: Parts) -> Response<Body> {
    let upload = match cluster.add(&params).await {
        Ok(upload) => upload,
        Err(failure) => return failed(&failure),
    };
    let (out, mut pieces) = mpsc::channel(CHANNEL_CAPACITY);
    let array = !params.stream_channels;
    tokio::spawn(run(upload, params, parts, out).with_current_context());
    match pieces.recv().await {
        Some(Ok(first)) if array => answer::of_bytes(first),
        Some(Ok(first)) => {
            let rest = stream::unfold(pieces, |mut pieces| async move {
                let piece: Result<Bytes, AddFailure> = pieces.recv().await?;
                let piece = piece.map_err(|failure| {
                    if let AddFailure::Cluster(failure) = &failure {
                        refusals::note_limit(Service::Rest, failure);
                    }
                    failure.to_string()
                });
                Some((piece, pieces))
            });
            let mut response = answer::streamed(stream::iter([Ok(first)]).chain(rest));
            let chunked = HeaderName::from_static("x-chunked-output");
            response
                .headers_mut()
                .insert(chunked, HeaderValue::from_static("1"));
            response
        }
        Some(Err(failure)) => failed(&failure),
        None => answer::error(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the upload ended without a result",
        ),
    }
}

fn failed(failure: &AddFailure) -> Response<Body> {
    match failure {
        AddFailure::Input(why) => answer::bad_request(why),
        AddFailure::Cluster(failure) => answer::failed(failure),
    }
}

type Out = mpsc::Sender<Result<Bytes, AddFailure>>;

/// Reads the upload until it ends, fails, or the client disconnects.
async fn run(upload: Upload, params: AddParams, mut parts: Parts, out: Out) {
    let gone = out.clone();
    let lines = OutputLines {
        buffer: Vec::new(),
        array: !params.stream_channels,
        at_once: params.progress,
        out: out.clone(),
    };
    let done = tokio::select! {
        done = read_parts(upload, &params, &mut parts, lines) => done,
        () = gone.closed() => return,
    };
    if let Err(failure) = done {
        let _ = out.send(Err(failure)).await;
    }
}

async fn read_parts(
    mut upload: Upload,
    params: &AddParams,
    parts: &mut Parts,
    mut lines: OutputLines,
) -> Result<(), AddFailure> {
    while let Some(head) = parts.next().await.map_err(AddFailure::Input)? {
        let path = head.path();
        let (output, waiting) = mpsc::channel(CHANNEL_CAPACITY);
        let (made, added) = tokio::join!(upload.make_room(&path, output), lines.add_all(waiting));
        made.and(added)?;
        match head.kind() {
            PartKind::File if params.format == AddFormat::Car => {
                upload.car(&path, parts.content()).await?;
            }
            PartKind::File => {
                upload.check_source(head.source.as_deref())?;
                let progress = lines.progress(&path);
                let added = upload.file(&path, parts.content(), progress).await?;
                lines.add(&added).await?;
            }
            PartKind::Directory => upload.directory(&path)?,
            PartKind::Symlink => {
                let target = parts.target().await.map_err(AddFailure::Input)?;
                let added = upload.symlink(&path, &target).await?;
                lines.add(&added).await?;
            }
        }
    }
    let (output, waiting) = mpsc::channel(CHANNEL_CAPACITY);
    let (finished, added) = tokio::join!(upload.finish(output), lines.add_all(waiting));
    finished.and(added)?;
    lines.finish().await;
    Ok(())
}

/// Output lines of an upload, buffered on their way to the client.
struct OutputLines {
    buffer: Vec<u8>,
    array: bool,
    at_once: bool,
    out: Out,
}

impl OutputLines {
    /// Adds lines as they come. After an error the receiver is dropped, so that the sender can end.
    async fn add_all(&mut self, mut lines: mpsc::Receiver<AddedOutput>) -> Result<(), AddFailure> {
        while let Some(line) = lines.recv().await {
            self.add(&line).await?;
        }
        Ok(())
    }

    async fn add(&mut self, added: &AddedOutput) -> Result<(), AddFailure> {
        if self.array {
            self.buffer.push(if self.buffer.is_empty() { b'[' } else { b',' });
            answer::push(&mut self.buffer, added);
            // Drops the line feed: elements of an array are separated by commas.
            self.buffer.pop();
            if self.buffer.len() > ARRAY_MAX {
                let why = format!("the answer has over {ARRAY_MAX} bytes: leave out stream-channels=false");
                return Err(AddFailure::Input(why));
            }
            return Ok(());
        }
        answer::push(&mut self.buffer, added);
        if self.at_once || self.buffer.len() > BUFFER_MAX {
            self.at_once = true;
            self.flush().await;
        }
        Ok(())
    }

    async fn flush(&mut self) {
        // `run` notices a client that has disconnected.
        let _ = self.out.send(Ok(std::mem::take(&mut self.buffer).into())).await;
    }

    /// Returns a callback that reports the bytes read of a file, if `progress` is on. A slow client misses
    /// some lines.
    fn progress(&self, path: &[u8]) -> impl FnMut(u64) + Send + use<> {
        let out = (self.at_once && !self.array).then(|| self.out.clone());
        let mut line = AddedOutput {
            name: display_path(path),
            ..AddedOutput::default()
        };
        move |bytes| {
            if let Some(out) = &out {
                line.bytes = bytes;
                let mut output = Vec::new();
                answer::push(&mut output, &line);
                let _ = out.try_send(Ok(output.into()));
            }
        }
    }

    async fn finish(mut self) {
        if self.array {
            if self.buffer.is_empty() {
                self.buffer.push(b'[');
            }
            self.buffer.extend_from_slice(b"]\n");
        }
        if !self.buffer.is_empty() {
            self.flush().await;
        }
    }
}
