//! The access log: one line for each request, in the Common Log Format, when its response has been sent.

use std::fs::File;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use jiff::Zoned;

/// Destination of the access log: a file, or the peer's own log.
#[derive(Debug, Clone, Default)]
pub(super) struct AccessLog {
    file: Option<Arc<LogFile>>,
}

#[derive(Debug)]
struct LogFile {
    file: File,
    /// Set once a failed write has been logged: only the first is, because the disk is likely full.
    failed: AtomicBool,
}

impl AccessLog {
    /// Appends to this file instead of the peer's log.
    pub(super) fn to_file(path: &Path) -> io::Result<Self> {
        let file = File::options().create(true).append(true).open(path)?;
        let failed = AtomicBool::new(false);
        Ok(Self {
            file: Some(Arc::new(LogFile { file, failed })),
        })
    }

    /// Begins the line of a request, unless it would be discarded. The peer's own log has requests at level
    /// debug: at level info, where the Go peer has them, a busy peer's log would hold nothing else.
    pub(super) fn begin<B>(&self, client: Option<SocketAddr>, request: &Request<B>) -> Option<LogLine> {
        let wanted = self.file.is_some() || tracing::enabled!(target: "restapilog", tracing::Level::DEBUG);
        wanted.then(|| LogLine {
            log: self.clone(),
            client: client.map(|client| client.ip()),
            user: None,
            at: Zoned::now(),
            request: format!("{} {} {:?}", request.method(), request.uri(), request.version()),
            status: 0,
            bytes: 0,
        })
    }

    fn write(&self, line: &str) {
        let Some(target) = &self.file else {
            tracing::debug!(target: "restapilog", "{}", line.trim_end());
            return;
        };
        // A single write in append mode, so that lines are not interleaved.
        if let Err(error) = (&target.file).write_all(line.as_bytes())
            && !target.failed.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(target: "restapilog", "http_log_file cannot be written: {error}");
        }
    }
}

/// A line that is being collected. It is written on drop.
pub(super) struct LogLine {
    log: AccessLog,
    /// `None` on a Unix socket.
    client: Option<IpAddr>,
    user: Option<String>,
    at: Zoned,
    request: String,
    status: u16,
    bytes: u64,
}

impl LogLine {
    /// Sets the authenticated user.
    pub(super) fn set_user(&mut self, user: &str) {
        self.user = Some(user.to_owned());
    }

    /// Records the response's status, and counts its bytes; the line is written when the body is dropped.
    pub(super) fn track(mut self, response: Response<Body>) -> Response<Body> {
        self.status = response.status().as_u16();
        response.map(|body| Body::new(Counted { body, line: self }))
    }
}

impl Drop for LogLine {
    fn drop(&mut self) {
        let user = self.user.as_deref().map_or("-".to_owned(), escaped);
        let at = self.at.strftime("%d/%b/%Y:%H:%M:%S %z");
        let client = self.client.map_or("-".to_owned(), |client| client.to_string());
        let (request, status, bytes) = (escaped(&self.request), self.status, self.bytes);
        let line = format!("{client} - {user} [{at}] \"{request}\" {status} {bytes}\n");
        self.log.write(&line);
    }
}

/// Escapes text of a client, so that it cannot forge another field or another line.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '"' | '\\' => safe.extend(['\\', character]),
            control if control.is_control() => safe.extend(control.escape_default()),
            other => safe.push(other),
        }
    }
    safe
}

/// A body that counts the bytes that are sent.
struct Counted {
    body: Body,
    line: LogLine,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.line.bytes += data.len() as u64;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_name_user_request_status_and_size() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let log = AccessLog::to_file(&path).unwrap();
        let request = Request::builder().uri("/pins?a=1").body(()).unwrap();
        let mut line = log.begin(Some(([127, 0, 0, 1], 5).into()), &request).unwrap();
        line.set_user("ann \"x\"\n");
        let response = line.track(Response::new(Body::from("hello")));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "", "it is not sent yet");
        axum::body::to_bytes(response.into_body(), 100).await.unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let (start, rest) = text.split_once('[').unwrap();
        let (_, end) = rest.split_once(']').unwrap();
        assert_eq!(start, "127.0.0.1 - ann \\\"x\\\"\\n ");
        assert_eq!(end, " \"GET /pins?a=1 HTTP/1.1\" 200 5\n");
    }
}
