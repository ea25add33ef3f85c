//! The `api` section: this peer's HTTP servers.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::sections::{address, is_default};
use super::values::{Address, HIDDEN, Period, Strings};

/// `api`. An absent API is off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Api {
    /// The IPFS proxy, which imitates a Kubo daemon.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipfsproxy: Option<IpfsProxy>,
    /// The pinning service API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pinsvcapi: Option<HttpApi<PinSvc>>,
    /// The REST API, used by `ipfs-cluster-ctl`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restapi: Option<HttpApi<Rest>>,
}

impl Default for Api {
    fn default() -> Self {
        Self {
            ipfsproxy: Some(IpfsProxy::default()),
            pinsvcapi: Some(HttpApi::default()),
            restapi: Some(HttpApi::default()),
        }
    }
}

/// Defaults in which the REST API and the pinning service API differ.
pub trait Defaults: Clone + fmt::Debug + PartialEq + Eq {
    /// Listen address.
    const LISTEN: &str;
    /// Methods allowed to web pages of other origins.
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
    /// Listen addresses.
    pub http_listen_multiaddress: Strings<Address>,
    /// *Hidden*: the certificate in PEM, relative to the configuration folder.
    #[serde(skip_serializing_if = "is_default")]
    pub ssl_cert_file: String,
    /// *Hidden*: its key.
    #[serde(skip_serializing_if = "is_default")]
    pub ssl_key_file: String,
    /// Time limit of receiving a request; 0 for none.
    pub read_timeout: Period,
    /// Time limit of receiving the headers.
    pub read_header_timeout: Period,
    /// Time limit of the answer; 0 for none.
    pub write_timeout: Period,
    /// Maximum idle time of a connection.
    pub idle_timeout: Period,
    /// Maximum size of the headers, in bytes.
    pub max_header_bytes: u32,
    /// *Hidden*: kept for the Go peer, which serves HTTP over libp2p there.
    #[serde(skip_serializing_if = "is_default")]
    pub libp2p_listen_multiaddress: Strings<Address>,
    /// Users and passwords; `null` for no authentication.
    pub basic_auth_credentials: Option<Credentials>,
    /// *Hidden*: demand credentials, tokens of the cluster's included, also without users.
    #[serde(skip_serializing_if = "is_default")]
    pub require_credentials: bool,
    /// File for the log of requests, instead of the general log.
    pub http_log_file: String,
    /// Headers added to each answer.
    pub headers: BTreeMap<String, Vec<String>>,
    /// Origins of web pages that may use it (CORS).
    pub cors_allowed_origins: Vec<String>,
    /// Methods that they may use.
    pub cors_allowed_methods: Vec<String>,
    /// Request headers that they may send.
    pub cors_allowed_headers: Vec<String>,
    /// Answer headers that they may read.
    pub cors_exposed_headers: Vec<String>,
    /// They may send credentials.
    pub cors_allow_credentials: bool,
    /// Time for which a browser may cache these rules.
    pub cors_max_age: Period,
    #[serde(skip)]
    defaults: std::marker::PhantomData<D>,
}

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

/// The answer headers that the Go peer exposes.
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
            require_credentials: false,
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
    /// Listen addresses.
    pub listen_multiaddress: Strings<Address>,
    /// The IPFS node behind the proxy.
    pub node_multiaddress: Address,
    /// *Hidden*: demand tokens of the cluster's credentials.
    #[serde(skip_serializing_if = "is_default")]
    pub require_credentials: bool,
    /// *Hidden*: reach that node over TLS.
    #[serde(skip_serializing_if = "is_default")]
    pub node_https: bool,
    /// File for the log of requests, instead of the general log.
    pub log_file: String,
    /// Time limit of receiving a request; 0 for none.
    pub read_timeout: Period,
    /// Time limit of receiving the headers.
    pub read_header_timeout: Period,
    /// Time limit of the answer; 0 for none.
    pub write_timeout: Period,
    /// Maximum idle time of a connection.
    pub idle_timeout: Period,
    /// Maximum size of the headers, in bytes.
    pub max_header_bytes: u32,
    /// *Hidden*: headers of the node to copy into every answer.
    #[serde(skip_serializing_if = "is_default")]
    pub extract_headers_extra: Vec<String>,
    /// *Hidden*: the request whose answer has them.
    #[serde(skip_serializing_if = "is_extract_path")]
    pub extract_headers_path: String,
    /// *Hidden*: time for which they are cached.
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
            require_credentials: false,
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
