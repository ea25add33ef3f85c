//! Pooled HTTP connections to endpoints.

use super::early_response::EarlyResponse;
use super::endpoint::{Endpoint, Family};
use super::tls::Tls;
use super::upload::UploadError;
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::{Request, Uri};
use hyper_util::client::legacy::{Client, ResponseFuture};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

/// Time to connect before the next host is tried. A peer on another continent answers within a second.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Body of a request.
pub(super) type Body = UnsyncBoxBody<Bytes, UploadError>;

/// Pool of connections to one endpoint.
#[derive(Clone)]
pub(super) struct Connection(Arc<dyn Fn(Request<Body>) -> ResponseFuture + Send + Sync>);

impl Connection {
    /// Creates an empty pool. With `tls`, TCP connections are encrypted.
    pub(super) fn new(endpoint: &Endpoint, tls: Option<Tls>) -> Self {
        let builder = Client::builder(TokioExecutor::new());
        match endpoint.clone() {
            Endpoint::Tcp {
                host, port, family, ..
            } => match tls {
                None => {
                    let service = tower::service_fn(move |_: Uri| {
                        let host = host.clone();
                        Box::pin(async move { Ok::<_, io::Error>(wrap(tcp(&host, port, family).await?)) })
                    });
                    let client = builder.build::<_, Body>(service);
                    Self(Arc::new(move |request| client.request(request)))
                }
                Some(tls) => {
                    let service = tower::service_fn(move |_: Uri| {
                        let (host, tls) = (host.clone(), tls.clone());
                        Box::pin(
                            async move { Ok::<_, io::Error>(wrap(secure(&host, port, family, &tls).await?)) },
                        )
                    });
                    let client = builder.build::<_, Body>(service);
                    Self(Arc::new(move |request| client.request(request)))
                }
            },
            Endpoint::Unix(path) => {
                let service = tower::service_fn(move |_: Uri| {
                    let path = path.clone();
                    Box::pin(async move { Ok::<_, io::Error>(wrap(UnixStream::connect(path).await?)) })
                });
                let client = builder.build::<_, Body>(service);
                Self(Arc::new(move |request| client.request(request)))
            }
        }
    }

    pub(super) fn send(&self, request: Request<Body>) -> ResponseFuture {
        (self.0)(request)
    }
}

fn wrap<T>(stream: T) -> EarlyResponse<TokioIo<T>> {
    EarlyResponse::new(TokioIo::new(stream))
}

async fn secure(host: &str, port: u16, family: Family, tls: &Tls) -> io::Result<TlsStream<TcpStream>> {
    let stream = tcp(host, port, family).await?;
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no answer to the TLS handshake");
    tokio::time::timeout(CONNECT_TIMEOUT, tls.connect(host, stream))
        .await
        .map_err(late)?
}

/// Connects to the first address of the host that accepts; returns the error of the last.
async fn tcp(host: &str, port: u16, family: Family) -> io::Result<TcpStream> {
    let mut last = io::Error::new(
        io::ErrorKind::NotFound,
        format!("{host} has no address of this kind"),
    );
    for address in tokio::net::lookup_host((host, port))
        .await?
        .filter(|a| fits(a, family))
    {
        match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = io::Error::new(io::ErrorKind::TimedOut, "no answer to the attempt to connect"),
        }
    }
    Err(last)
}

fn fits(address: &SocketAddr, family: Family) -> bool {
    match family {
        Family::Any => true,
        Family::V4 => address.is_ipv4(),
        Family::V6 => address.is_ipv6(),
    }
}
