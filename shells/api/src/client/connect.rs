//! Pooled HTTP connections to endpoints.

use super::early_response::EarlyResponse;
use super::endpoint::{Endpoint, Family};
use super::tls::Tls;
use super::upload::UploadError;
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty};
use hyper::header::LOCATION;
use hyper::{Request, Uri};
use hyper_util::client::legacy::{Client, ResponseFuture};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;
use url::{Position, Url};

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

/// Redirects followed by `fetch`, as in Go's client.
const REDIRECTS_MAX: usize = 10;

/// Requests a URL, following redirects, and returns the body. The error is for people.
pub(super) async fn fetch(url: &str) -> Result<hyper::body::Incoming, String> {
    let mut url = Url::parse(url).map_err(|e| e.to_string())?;
    for _ in 0..=REDIRECTS_MAX {
        let response = get(&url).await?;
        let location = response.headers().get(LOCATION).filter(|_| {
            // 304 and 305 have no target to follow.
            matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308)
        });
        if let Some(location) = location {
            let location = String::from_utf8_lossy(location.as_bytes());
            let next = url
                .join(&location)
                .map_err(|e| format!("redirects to {location:?}: {e}"))?;
            if !matches!(next.scheme(), "http" | "https") {
                return Err(format!("redirects to {next}, which is neither http nor https"));
            }
            url = next;
            continue;
        }
        if !response.status().is_success() {
            return Err(format!("answered {}", response.status()));
        }
        return Ok(response.into_body());
    }
    Err(format!("redirects more than {REDIRECTS_MAX} times"))
}

async fn get(url: &Url) -> Result<hyper::Response<hyper::body::Incoming>, String> {
    let host = url.host_str().ok_or("it names no host")?;
    let secure = url.scheme() == "https";
    let endpoint = Endpoint::Tcp {
        host: host.trim_matches(['[', ']']).to_owned(),
        port: url.port_or_known_default().unwrap_or(80),
        family: Family::Any,
        tls: secure,
    };
    let tls = secure
        .then(|| Tls::new(true))
        .transpose()
        .map_err(|e| e.to_string())?;
    let body = Empty::new().map_err(|e| match e {}).boxed_unsync();
    let request = Request::get(&url[..Position::AfterQuery]);
    let request = request.body(body).map_err(|e| e.to_string())?;
    let answered = Connection::new(&endpoint, tls).send(request).await;
    answered.map_err(|e| super::chain(&e))
}
