//! Connections to endpoints, pooled.

use super::endpoint::{Endpoint, Family};
use super::hear::HearAnswer;
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

/// A peer across the world answers within a second; one that does not within ten is taken for gone, and
/// the next host gets its turn.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The body of a request.
pub(super) type Body = UnsyncBoxBody<Bytes, UploadError>;

/// Sends requests over connections of its own to one endpoint.
#[derive(Clone)]
pub(super) struct Connection(Arc<dyn Fn(Request<Body>) -> ResponseFuture + Send + Sync>);

impl Connection {
    pub(super) fn new(endpoint: &Endpoint) -> Self {
        let builder = Client::builder(TokioExecutor::new());
        match endpoint.clone() {
            Endpoint::Tcp { host, port, family } => {
                let service = tower::service_fn(move |_: Uri| Box::pin(tcp(host.clone(), port, family)));
                let client = builder.build::<_, Body>(service);
                Self(Arc::new(move |request| client.request(request)))
            }
            Endpoint::Unix(path) => {
                let service = tower::service_fn(move |_: Uri| {
                    let path = path.clone();
                    Box::pin(async move {
                        Ok::<_, io::Error>(HearAnswer::new(TokioIo::new(UnixStream::connect(path).await?)))
                    })
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

/// Tries every address of the host in turn; the error is that of the last.
async fn tcp(host: String, port: u16, family: Family) -> io::Result<HearAnswer<TokioIo<TcpStream>>> {
    let mut last = io::Error::new(
        io::ErrorKind::NotFound,
        format!("{host} has no address of this kind"),
    );
    for address in tokio::net::lookup_host((host.as_str(), port))
        .await?
        .filter(|a| fits(a, family))
    {
        match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true)?;
                return Ok(HearAnswer::new(TokioIo::new(stream)));
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

/// The body of what lies at a URL. The error is for a person.
pub(super) async fn fetch(url: &str) -> Result<hyper::body::Incoming, String> {
    use http_body_util::{BodyExt, Empty};
    let client = Client::builder(TokioExecutor::new())
        .build::<_, Body>(hyper_util::client::legacy::connect::HttpConnector::new());
    let body = Empty::new().map_err(|e| match e {}).boxed_unsync();
    let request = Request::get(url).body(body).map_err(|e| e.to_string())?;
    let response = client.request(request).await.map_err(|e| super::chain(&e))?;
    if !response.status().is_success() {
        return Err(format!("answered {}", response.status()));
    }
    Ok(response.into_body())
}
