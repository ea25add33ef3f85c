//! Listening sockets of the HTTP APIs: TCP and Unix domain.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;
use tokio_util::either::Either;

/// Pause after a failed accept: the usual cause is that no file descriptor is free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Address that an HTTP API listens on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    /// IP address and port.
    Tcp(SocketAddr),
    /// Path of a Unix domain socket.
    Unix(PathBuf),
}

impl ListenAddress {
    /// Returns whether only programs on this machine can connect.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().is_loopback(),
            Self::Unix(_) => true,
        }
    }

    /// Returns the IP address and port of a TCP socket.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// Returns the TCP port.
    pub fn port(&self) -> Option<u16> {
        self.tcp().map(|address| address.port())
    }

    /// Returns the address as a multiaddress.
    pub fn to_multiaddr(&self) -> String {
        match self {
            Self::Tcp(SocketAddr::V4(address)) => format!("/ip4/{}/tcp/{}", address.ip(), address.port()),
            Self::Tcp(SocketAddr::V6(address)) => format!("/ip6/{}/tcp/{}", address.ip(), address.port()),
            Self::Unix(path) => format!("/unix{}", path.display()),
        }
    }
}

impl From<SocketAddr> for ListenAddress {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// A connection of a client.
pub type Stream = Either<TcpStream, UnixStream>;

/// A connection that was accepted.
#[derive(Debug)]
pub struct Accepted {
    /// The connection, with `TCP_NODELAY` set.
    pub stream: Stream,
    /// Address of the client; `None` on a Unix socket.
    pub client: Option<SocketAddr>,
    /// Its place among the connections, to be held until it ends.
    pub place: OwnedSemaphorePermit,
}

/// A bound socket. A Unix socket's file is removed when this is dropped.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    address: ListenAddress,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// Binds the address. A Unix socket that no process listens on any more is replaced.
    ///
    /// # Errors
    /// The address is in use, is not one of this machine, or may not be used.
    pub async fn bind(address: &ListenAddress) -> io::Result<Self> {
        match address {
            ListenAddress::Tcp(address) => Self::try_from(TcpListener::bind(address).await?),
            ListenAddress::Unix(path) => Ok(Self {
                socket: Socket::Unix(bind_unix(path).await?),
                address: address.clone(),
            }),
        }
    }

    /// Returns the address that is bound, with the port that the system chose if 0 was asked for.
    pub fn address(&self) -> &ListenAddress {
        &self.address
    }

    /// Waits for a free place and then for a connection. `api` names the API in warnings about failed
    /// accepts, after which it pauses and tries again.
    pub async fn accept(&self, places: &Arc<Semaphore>, api: &str) -> Accepted {
        loop {
            let place = match places.clone().acquire_owned().await {
                Ok(place) => place,
                // Nobody closes the semaphore.
                Err(_) => std::future::pending().await,
            };
            match self.try_accept().await {
                Ok((stream, client)) => {
                    return Accepted {
                        stream,
                        client,
                        place,
                    };
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection to the {api}");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn try_accept(&self) -> io::Result<(Stream, Option<SocketAddr>)> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, client) = listener.accept().await?;
                // Answers are written whole; waiting for more to send with them only delays them.
                let _ = stream.set_nodelay(true);
                Ok((Either::Left(stream), Some(client)))
            }
            Socket::Unix(listener) => Ok((Either::Right(listener.accept().await?.0), None)),
        }
    }
}

impl TryFrom<TcpListener> for Listener {
    type Error = io::Error;

    fn try_from(listener: TcpListener) -> io::Result<Self> {
        let address = ListenAddress::Tcp(listener.local_addr()?);
        Ok(Self {
            socket: Socket::Tcp(listener),
            address,
        })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let ListenAddress::Unix(path) = &self.address {
            // Whoever starts next replaces it anyway.
            let _ = std::fs::remove_file(path);
        }
    }
}

async fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    let in_use = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => error,
        bound => return bound,
    };
    let is_socket = std::fs::symlink_metadata(path)?.file_type().is_socket();
    let refused = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    if is_socket
        && UnixStream::connect(path)
            .await
            .is_err_and(|error| refused(&error))
    {
        std::fs::remove_file(path)?;
        return UnixListener::bind(path);
    }
    Err(in_use)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn abandoned_unix_socket_is_replaced_and_a_live_one_or_a_file_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let address = ListenAddress::Unix(path.clone());
        // The standard library leaves the file behind, like a process that was killed.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let live = Listener::bind(&address).await.unwrap();
        let error = Listener::bind(&address).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        drop(live);
        assert!(!path.exists());
        std::fs::write(&path, "precious").unwrap();
        assert!(Listener::bind(&address).await.is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }

    #[tokio::test]
    async fn connections_beyond_the_places_wait() {
        let listener = Listener::bind(&ListenAddress::Tcp(([127, 0, 0, 1], 0).into()))
            .await
            .unwrap();
        let ListenAddress::Tcp(address) = *listener.address() else {
            unreachable!("bound to TCP");
        };
        let places = Arc::new(Semaphore::new(1));
        let _clients = [
            TcpStream::connect(address).await.unwrap(),
            TcpStream::connect(address).await.unwrap(),
        ];
        let first = listener.accept(&places, "test").await;
        assert!(futures::poll!(std::pin::pin!(listener.accept(&places, "test"))).is_pending());
        drop(first);
        listener.accept(&places, "test").await;
    }
}
