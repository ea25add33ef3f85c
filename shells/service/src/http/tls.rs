//! TLS for the REST API.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::server::TlsStream;

/// Time limit of a handshake, which takes a few round trips. The time limit of the headers begins only after
/// it, and a client that stays silent before must not keep its connection.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// First byte of a TLS connection: a handshake record.
const HANDSHAKE_RECORD: u8 = 0x16;

/// Response to a client that speaks plain HTTP, in the words of Go's library.
const NOT_TLS: &[u8] = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";

/// A certificate chain with its key, for TLS 1.2 and 1.3.
#[derive(Clone)]
pub struct Tls(TlsAcceptor);

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    /// Loads both from PEM files: the certificate with its intermediates, and the private key.
    ///
    /// # Errors
    /// A file cannot be read or has the wrong content, or the key does not fit the certificate; the message
    /// names the file.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, String> {
        let failed =
            |path: &Path, what: &str, error: &dyn fmt::Display| format!("{what} {}: {error}", path.display());
        let chain = CertificateDer::pem_file_iter(certificate)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| failed(certificate, "the certificate", &error))?;
        if chain.is_empty() {
            return Err(failed(
                certificate,
                "the certificate",
                &"the file contains no certificate",
            ));
        }
        let secret =
            PrivateKeyDer::from_pem_file(key).map_err(|error| failed(key, "the private key", &error))?;
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, secret))
            .map_err(|error| {
                let both = format!("{} with the key {}", certificate.display(), key.display());
                format!("the certificate {both}: {error}")
            })?;
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    /// Performs the handshake on a new connection. A client that speaks plain HTTP gets [`NOT_TLS`].
    pub(super) async fn accept(&self, mut stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let handshake = async {
            let mut first = [0];
            if stream.peek(&mut first).await? == 1 && first[0] != HANDSHAKE_RECORD {
                stream.write_all(NOT_TLS).await?;
                stream.shutdown().await?;
                return Err(io::Error::other("the client does not speak TLS"));
            }
            self.0.accept(stream).await
        };
        tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake)
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }
}
