//! TLS for connections to the REST API.

use super::ClientError;
use std::io;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::client::{WebPkiServerVerifier, verify_server_name};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{
    self, AlertDescription, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};

/// Encrypts connections and, unless disabled, verifies the server's certificate.
#[derive(Clone)]
pub(super) struct Tls(TlsConnector);

impl Tls {
    /// Loads the trusted certificates. Without `check`, any certificate is accepted.
    pub(super) fn new(check: bool) -> Result<Self, ClientError> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| ClientError::Tls(error.to_string()))?;
        let trust = check.then(|| Trust::load(provider.clone())).transpose()?;
        let config = builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Verifier { trust, provider }))
            .with_no_client_auth();
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    /// Performs the TLS handshake on a new connection.
    pub(super) async fn connect(&self, host: &str, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| io::Error::other(format!("{host} is no name that a certificate can be for")))?;
        self.0.connect(name, stream).await.map_err(explain)
    }
}

/// Certificates that this machine trusts; `SSL_CERT_FILE` names another file of certificates.
#[derive(Debug)]
struct Trust {
    chains: Arc<WebPkiServerVerifier>,
    own: Vec<CertificateDer<'static>>,
}

impl Trust {
    fn load(provider: Arc<CryptoProvider>) -> Result<Self, ClientError> {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(found.certs.iter().cloned());
        let none = || {
            let why = found.errors.first().map(|error| format!(" ({error})"));
            ClientError::Tls(format!(
                "no trusted certificates are installed on this machine{}: install them, name a file of them \
                 with SSL_CERT_FILE, or use --no-check-certificate",
                why.unwrap_or_default()
            ))
        };
        let chains = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|_| none())?;
        Ok(Self {
            chains,
            own: found.certs,
        })
    }
}

/// Certificate verifier. The server must always prove that it has the key of its certificate.
#[derive(Debug)]
struct Verifier {
    /// `None` to accept any certificate.
    trust: Option<Trust>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    /// Accepts a certificate that is itself trusted, for the names in it. `openssl req -x509` marks a
    /// self-signed certificate as an authority, which strict verification does not accept for a server; Go's
    /// library does.
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(Trust { chains, own }) = &self.trust else {
            return Ok(ServerCertVerified::assertion());
        };
        let chained = chains.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        if chained.is_err() && own.iter().any(|own| own == end_entity) {
            verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
            return Ok(ServerCertVerified::assertion());
        }
        chained
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// Adds advice to the error of a failed handshake.
fn explain(error: io::Error) -> io::Error {
    let cause = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let text = match cause {
        Some(rustls::Error::InvalidCertificate(why)) => format!(
            "the server's certificate is not trusted ({why}): if it is your own, name it with \
             SSL_CERT_FILE, or use --no-check-certificate"
        ),
        Some(rustls::Error::InvalidMessage(_)) => {
            "the server does not speak TLS there: leave --https out (with credentials, add --force-http)"
                .to_owned()
        }
        Some(rustls::Error::AlertReceived(alert)) => refused(*alert),
        Some(other) => format!("no TLS connection: {other}"),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the server ended the TLS handshake: does it speak TLS there?".to_owned()
        }
        None => return error,
    };
    io::Error::other(text)
}

fn refused(alert: AlertDescription) -> String {
    format!("the server refuses the TLS connection: {alert:?}")
}
