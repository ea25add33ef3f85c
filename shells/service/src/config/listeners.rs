//! The `api` section: what this peer serves over HTTP.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::sections::{address, is_default};
use super::values::{Address, HIDDEN, Period, Strings};

/// `api`. What is absent is off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Api {
    /// Looks like a Kubo daemon.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipfsproxy: Option<IpfsProxy>,
    /// The pinning service API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pinsvcapi: Option<HttpApi<PinSvc>>,
    /// What `ipfs-cluster-ctl` talks to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restapi: Option<HttpApi<Rest>>,
}

impl Default for Api {
    fn default() -> Self {
        Self {
            ipfsproxy: Some(IpfsProxy::default()),
            pinsvcapi: None,
            restapi: Some(HttpApi::default()),
        }
    }
}

/// What sets the two HTTP APIs apart before anything is configured.
pub trait Defaults: Clone + fmt::Debug + PartialEq + Eq {
    /// Where it listens.
    const LISTEN: &str;
    /// Methods that web pages of other origins may use.
    const METHODS: &[&str];
}

/// The REST API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rest;

impl Defaults for Rest {
    const LISTEN: &str = "/ip4/127.0.0.1/tcp/9094";
    const METHODS: &[&str] = &["GET"];
}

/// The pinning service API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinSvc;

impl Defaults for PinSvc {
    const LISTEN: &str = "/ip4/127.0.0.1/tcp/9097";
    const METHODS: &[&str] = &["GET", "POST", "DELETE"];
}

/// User names and their passwords, which `Debug` does not show.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Credentials(pub BTreeMap<String, String>);

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.0.keys().map(|user| (user, HIDDEN)))
            .finish()
    }
}

/// `api.restapi` or `api.pinsvcapi`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, bound = "")]
pub struct HttpApi<D: Defaults> {
    /// Where it listens.
    pub http_listen_multiaddress: Strings<Address>,
    /// *Hidden*: the certificate, PEM, from the configuration folder on.
    #[serde(skip_serializing_if = "is_default")]
    pub ssl_cert_file: String,
    /// *Hidden*: its key.
    #[serde(skip_serializing_if = "is_default")]
    pub ssl_key_file: String,
    /// How long a request may take to arrive; 0 for as long as it takes.
    pub read_timeout: Period,
    /// How long its headers may take to arrive.
    pub read_header_timeout: Period,
    /// How long the answer may take; 0 for as long as it takes.
    pub write_timeout: Period,
    /// How long a connection may be idle.
    pub idle_timeout: Period,
    /// The most bytes of headers.
    pub max_header_bytes: u32,
    /// *Hidden*: kept for the Go peer, which serves HTTP over libp2p there.
    #[serde(skip_serializing_if = "is_default")]
    pub libp2p_listen_multiaddress: Strings<Address>,
    /// Who may use it; `null` for everybody.
    pub basic_auth_credentials: Option<Credentials>,
    /// Where to log requests instead of with everything else.
    pub http_log_file: String,
    /// Added to each answer.
    pub headers: BTreeMap<String, Vec<String>>,
    /// Web pages that may use it.
    pub cors_allowed_origins: Vec<String>,
    /// With which methods.
    pub cors_allowed_methods: Vec<String>,
    /// With which headers.
    pub cors_allowed_headers: Vec<String>,
    /// What they may see of the answer's.
    pub cors_exposed_headers: Vec<String>,
    /// Whether they may send credentials.
    pub cors_allow_credentials: bool,
    /// How long a browser may remember all that.
    pub cors_max_age: Period,
    #[serde(skip)]
    defaults: std::marker::PhantomData<D>,
}

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

/// What the Go peer lets web pages see.
const EXPOSED: [&str; 4] = [
    "Content-Type",
    "X-Stream-Output",
    "X-Chunked-Output",
    "X-Content-Length",
];

impl<D: Defaults> Default for HttpApi<D> {
    fn default() -> Self {
        Self {
            http_listen_multiaddress: Strings(vec![address(D::LISTEN)]),
            ssl_cert_file: String::new(),
            ssl_key_file: String::new(),
            read_timeout: Period::default(),
            read_header_timeout: Period::secs(5),
            write_timeout: Period::default(),
            idle_timeout: Period::secs(120),
            max_header_bytes: 4096,
            libp2p_listen_multiaddress: Strings::default(),
            basic_auth_credentials: None,
            http_log_file: String::new(),
            headers: BTreeMap::new(),
            cors_allowed_origins: texts(&["*"]),
            cors_allowed_methods: texts(D::METHODS),
            cors_allowed_headers: Vec::new(),
            cors_exposed_headers: texts(&EXPOSED),
            cors_allow_credentials: true,
            cors_max_age: Period::default(),
            defaults: std::marker::PhantomData,
        }
    }
}

/// `api.ipfsproxy`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IpfsProxy {
    /// Where it listens.
    pub listen_multiaddress: Strings<Address>,
    /// The IPFS node behind it.
    pub node_multiaddress: Address,
    /// *Hidden*: whether that node is reached over TLS.
    #[serde(skip_serializing_if = "is_default")]
    pub node_https: bool,
    /// Where to log requests instead of with everything else.
    pub log_file: String,
    /// How long a request may take to arrive; 0 for as long as it takes.
    pub read_timeout: Period,
    /// How long its headers may take to arrive.
    pub read_header_timeout: Period,
    /// How long the answer may take; 0 for as long as it takes.
    pub write_timeout: Period,
    /// How long a connection may be idle.
    pub idle_timeout: Period,
    /// The most bytes of headers.
    pub max_header_bytes: u32,
    /// *Hidden*: headers of the node to copy into every answer.
    #[serde(skip_serializing_if = "is_default")]
    pub extract_headers_extra: Vec<String>,
    /// *Hidden*: the request whose answer has them.
    #[serde(skip_serializing_if = "is_extract_path")]
    pub extract_headers_path: String,
    /// *Hidden*: how long they hold.
    #[serde(skip_serializing_if = "is_extract_ttl")]
    pub extract_headers_ttl: Period,
}

const EXTRACT_PATH: &str = "/api/v0/version";
const EXTRACT_TTL: Period = Period::secs(5 * 60);

fn is_extract_path(path: &str) -> bool {
    path == EXTRACT_PATH
}

fn is_extract_ttl(ttl: &Period) -> bool {
    *ttl == EXTRACT_TTL
}

impl Default for IpfsProxy {
    fn default() -> Self {
        Self {
            listen_multiaddress: Strings(vec![address("/ip4/127.0.0.1/tcp/9095")]),
            node_multiaddress: address("/ip4/127.0.0.1/tcp/5001"),
            node_https: false,
            log_file: String::new(),
            read_timeout: Period::default(),
            read_header_timeout: Period::secs(5),
            write_timeout: Period::default(),
            idle_timeout: Period::secs(60),
            max_header_bytes: 4096,
            extract_headers_extra: Vec::new(),
            extract_headers_path: EXTRACT_PATH.to_owned(),
            extract_headers_ttl: EXTRACT_TTL,
        }
    }
}
