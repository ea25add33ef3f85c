//! Tests of tokens, TLS and the access log.

use std::sync::Arc;

use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::*;
use crate::http::Tls;

/// `Basic` credentials of `ann` with the password `secret`.
const ANN: &str = "Authorization: Basic YW5uOnNlY3JldA==\r\n";

async fn with_ann() -> Api {
    let users = BTreeMap::from([("ann".to_owned(), "secret".to_owned())]);
    Api::with(|config| config.credentials = Some(users)).await
}

#[tokio::test]
async fn tokens_replace_the_password() {
    let api = with_ann().await;
    let token = |answer: Answer| -> String {
        let value: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        value["token"].as_str().unwrap().to_owned()
    };
    let first = token(api.send("POST", "/token", ANN, "").await);
    let bearer = format!("Authorization: Bearer {first}\r\n");
    assert_eq!(api.send("GET", "/id", &bearer, "").await.status, 200);
    // A token can be exchanged for another.
    let second = token(api.send("POST", "/token", &bearer, "").await);
    assert_eq!(second, first);
    let wrong = api.send("GET", "/id", &bearer.replace("\r\n", "x\r\n"), "").await;
    assert_eq!(
        (wrong.status, wrong.error()),
        (401, "unauthorized: invalid token")
    );
    assert_eq!(
        wrong.header("www-authenticate"),
        [r#"bearer realm="restricted ipfs cluster api", error="invalid_token""#]
    );
    assert_eq!(api.post("/token").await.status, 401);
    // Without configured users, no token can be issued.
    let open = Api::new().await.send("POST", "/token", ANN, "").await;
    assert_eq!((open.status, open.error()), (401, "unauthorized"));
}

/// Writes a self-signed certificate to files, and returns a client that trusts it.
fn certificate(folder: &std::path::Path) -> (Tls, TlsConnector) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.key_pair.serialize_pem()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (
        Tls::load(&cert, &key).unwrap(),
        TlsConnector::from(Arc::new(client)),
    )
}

#[tokio::test]
async fn tls_serves_the_api_and_plain_http_gets_a_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    let (tls, connector) = certificate(folder.path());
    let api = Api::with(|config| config.tls = Some(tls)).await;
    let socket = TcpStream::connect(api.address()).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = connector.connect(name, socket).await.unwrap();
    let request = "GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = Answer::parse(&answer);
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (200, "{\"version\":\"1.2.3\"}\n")
    );
    let plain = api.raw(request).await;
    let text = String::from_utf8_lossy(&plain);
    assert!(text.starts_with("HTTP/1.0 400 "), "{text}");
    assert!(
        text.ends_with("Client sent an HTTP request to an HTTPS server.\n"),
        "{text}"
    );
}

#[test]
fn invalid_certificate_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    certificate(folder.path());
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let other = rcgen::generate_simple_self_signed(["x".to_owned()]).unwrap();
    let foreign = folder.path().join("foreign.pem");
    std::fs::write(&foreign, other.key_pair.serialize_pem()).unwrap();
    let missing = folder.path().join("missing.pem");
    for (cert, key, named) in [
        (&missing, &key, "the certificate"),
        (&cert, &missing, "the private key"),
        (&key, &key, "the file contains no certificate"),
        (&cert, &cert, "the private key"),
        (&cert, &foreign, "with the key"),
    ] {
        let error = Tls::load(cert, key).unwrap_err();
        assert!(error.contains(named), "{error}");
    }
}

#[tokio::test]
async fn access_log_file_names_the_user() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let users = BTreeMap::from([("ann".to_owned(), "secret".to_owned())]);
    let api = Api::with(|config| {
        config.log_file = Some(path.clone());
        config.credentials = Some(users);
    })
    .await;
    assert_eq!(api.send("GET", "/version?a=%22", ANN, "").await.status, 200);
    assert_eq!(api.get("/id").await.status, 401);
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("127.0.0.1 - ann ["), "{text}");
    assert!(
        lines[0].ends_with("] \"GET /version?a=%22 HTTP/1.1\" 200 20"),
        "{text}"
    );
    assert!(lines[1].starts_with("127.0.0.1 - - ["), "{text}");
    assert!(lines[1].contains("] \"GET /id HTTP/1.1\" 401 "), "{text}");
    assert!(!text.contains("YW5u"), "no secrets: {text}");
}
