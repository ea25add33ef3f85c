//! Connecting over a Unix socket; TCP is hyper-util's own connector.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

/// A daemon on the same machine or network that takes longer than this to accept is down.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Connects every request to the same socket, whatever host its URI names.
#[derive(Debug, Clone)]
pub(super) struct UnixConnector {
    path: PathBuf,
}

impl UnixConnector {
    pub(super) fn new(path: PathBuf) -> Self {
        UnixConnector { path }
    }
}

impl tower::Service<Uri> for UnixConnector {
    type Response = TokioIo<UnixStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let path = self.path.clone();
        Box::pin(async move {
            match tokio::time::timeout(CONNECT_TIMEOUT, UnixStream::connect(&path)).await {
                Ok(connected) => connected.map(TokioIo::new),
                Err(_) => Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the socket does not accept",
                )),
            }
        })
    }
}
