//! The configuration folder: `service.json`, `identity.json` and `peerstore`, in the Go peer's formats.
//!
//! Absent keys have their defaults. An absent section is as `init` writes it; in a section that is present,
//! an absent API, informer or IPFS connector is off.

mod check;
mod components;
mod convert;
mod environment;
mod files;
mod folder;
mod identity;
mod ipfs;
mod layers;
mod legacy;
mod listeners;
mod peerstore;
mod sections;
mod values;

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use self::components::{
    Allocator, Balanced, Disk, DiskMetric, Informers, Metrics, Monitor, Observations, PinQueue, PinTracker,
    Pubsubmon, Stateless, Tags, Tracing,
};
pub use self::convert::core_peer;
pub use self::environment::environment;
pub use self::files::write_private;
pub use self::folder::Folder;
pub use self::identity::Identity;
pub(crate) use self::ipfs::parse_bytes;
pub use self::ipfs::{Embedded, IpfsConnector, IpfsHttp, StorageMax};
pub use self::layers::Environment;
pub use self::listeners::{Api, Credentials, Defaults, HttpApi, IpfsProxy, PinSvc, Rest};
pub use self::peerstore::Peerstore;
pub use self::sections::{Cluster, ConnectionManager, Consensus, Pubsub, Raft, ResourceManager};
pub use self::values::{Address, HIDDEN, Peer, Period, Secret, Strings};

/// Name of the configuration file.
pub const SERVICE_FILE: &str = "service.json";
/// Name of the file with this peer's key.
pub const IDENTITY_FILE: &str = "identity.json";

/// Maximum size of a configuration file, in bytes: a hundred times what `init` writes.
const FILE_MAX: u64 = 1 << 20;

/// Keys whose values are never printed.
const SECRET_KEYS: [&str; 4] = [
    "secret",
    "accepted_secrets",
    "private_key",
    "basic_auth_credentials",
];

/// Errors of the configuration folder.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The folder does not exist.
    #[error("{} does not exist: `ipfs-cluster-service init` makes a configuration", .0.display())]
    Missing(PathBuf),
    /// A file cannot be read or written.
    #[error("cannot {doing} {}: {error}", .path.display())]
    Io {
        /// The failed action, as a verb.
        doing: &'static str,
        /// File of the action.
        path: PathBuf,
        /// The system's error.
        error: std::io::Error,
    },
    /// A file is larger than 1 MiB.
    #[error("{} has more than {FILE_MAX} bytes, which no configuration needs", .0.display())]
    TooLarge(PathBuf),
    /// A file is not JSON.
    #[error("{} is not valid JSON: {error}", .path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Position and reason.
        error: serde_json::Error,
    },
    /// A key has an invalid value.
    #[error("{}: {key}: {problem}", .path.display())]
    Key {
        /// File that has the key.
        path: PathBuf,
        /// The path of the key, with dots.
        key: String,
        /// The value, and what is expected.
        problem: String,
    },
    /// An environment variable has an invalid value.
    #[error("environment variable {name}: {problem}")]
    Variable {
        /// Name of the variable.
        name: String,
        /// The value, and what is expected.
        problem: String,
    },
}

impl ConfigError {
    fn io(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |error| Self::Io { doing, path, error }
    }

    fn key(path: &Path, key: &str, problem: impl Into<String>) -> Self {
        Self::Key {
            path: path.to_owned(),
            key: key.to_owned(),
            problem: problem.into(),
        }
    }
}

/// All of `service.json`. `Display` is the file as it would be saved, with secrets hidden; `Debug` hides
/// them too.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// The peer as a whole.
    pub cluster: Cluster,
    /// Agreement of the peers.
    pub consensus: Consensus,
    /// HTTP servers.
    pub api: Api,
    /// The IPFS node.
    pub ipfs_connector: IpfsConnector,
    /// Pinning at the IPFS node.
    pub pin_tracker: PinTracker,
    /// Detection of failed peers.
    pub monitor: Monitor,
    /// Choice of peers for pins.
    pub allocator: Allocator,
    /// Metrics of this peer.
    pub informer: Informers,
    /// Metrics and traces of the process.
    pub observations: Observations,
    /// `bootstrap` of Go ipfs-cluster 0.0.12: peers to join through, when this peer is not in a cluster.
    #[serde(skip)]
    pub bootstrap: Vec<Address>,
    /// The identity in files before `identity.json`: `id` and `private_key`.
    #[serde(skip)]
    pub legacy_identity: Option<(String, String)>,
    /// Environment variables that set something.
    #[serde(skip)]
    pub variables: BTreeSet<String>,
}

/// A configuration with its warnings.
#[derive(Debug)]
pub struct Loaded {
    /// The checked configuration, with the environment applied.
    pub config: Config,
    /// One sentence each: unknown keys, keys without effect, and the like.
    pub warnings: Vec<String>,
    /// Notices of what is new for an older file, and how to switch it off.
    pub notices: Vec<String>,
}

impl Config {
    /// Reads and checks `service.json` in `folder`, and applies `environment`.
    ///
    /// # Errors
    /// The file is missing, unreadable or invalid, or a variable is.
    pub fn load(folder: &Path, environment: &Environment) -> Result<Loaded, ConfigError> {
        let path = folder.join(SERVICE_FILE);
        let text = files::read_small(&path)?;
        Self::parse(&path, &text, environment)
    }

    /// As [`Self::load`], for the content of a file; `path` is for errors only.
    ///
    /// # Errors
    /// As for [`Self::load`].
    pub fn parse(path: &Path, text: &str, environment: &Environment) -> Result<Loaded, ConfigError> {
        let json: Value = serde_json::from_str(text).map_err(|error| ConfigError::Syntax {
            path: path.to_owned(),
            error,
        })?;
        let Value::Object(mut json) = json else {
            let problem = "the whole file must be an object {…}, as `init` writes it";
            return Err(ConfigError::key(path, "root", problem));
        };
        let wrong = |(key, problem): (String, String)| ConfigError::key(path, &key, problem);
        let mut warnings = Vec::new();
        let bootstrap = if legacy::is_flat(&json) {
            let flat = legacy::convert(json).map_err(wrong)?;
            json = flat.json;
            warnings.extend(flat.warnings);
            flat.bootstrap
        } else {
            Vec::new()
        };
        refuse_other_modes(&json, &mut warnings).map_err(wrong)?;
        let legacy_identity = take_identity(&mut json);
        complete(&mut json);
        let embedded = json
            .get("ipfs_connector")
            .and_then(|connector| connector.get("embedded"));
        let is_older = embedded.is_some_and(|embedded| {
            embedded.is_object() && embedded.get("private").is_none() && embedded.get("routing").is_none()
        });

        let layered = layers::read(&Value::Object(json), environment).map_err(|wrong| match wrong {
            layers::Wrong::Key(key, problem) => ConfigError::key(path, &key, problem),
            layers::Wrong::Variable(name, problem) => ConfigError::Variable { name, problem },
        })?;
        let unknown = layered.unknown.iter();
        warnings.extend(unknown.map(|key| format!("{}: {key}: no such setting, ignored", path.display())));
        warnings.extend(unknown_variables(environment, &layered.variables));
        let config = Self {
            bootstrap,
            legacy_identity,
            variables: layered.variables,
            ..layered.value
        };
        check::check(&config).map_err(wrong)?;
        refuse_unused_kubo(&config, environment, path)?;
        warnings.extend(check::without_effect(&config));
        let mut notices = Vec::new();
        if let Some(embedded) = config.ipfs_connector.embedded.as_ref().filter(|_| is_older)
            && !config.variables.contains("CLUSTER_EMBEDDED_PRIVATE")
        {
            notices.push(format!(
                "new: {}. This service.json is older than these settings; add them to it, \"private\": false \
                 for example, and this notice disappears",
                embedded.contacts()
            ));
        }
        Ok(Loaded {
            config,
            warnings,
            notices,
        })
    }

    /// Returns the configuration of a new peer: the defaults with a random secret.
    pub fn fresh() -> Self {
        let mut config = Self::default();
        config.cluster.secret = Secret::random();
        config
    }

    /// Writes `service.json` into `folder`, atomically, readable by its owner only.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn save(&self, folder: &Path) -> Result<(), ConfigError> {
        let mut text = serde_json::to_string_pretty(self).expect("a configuration is plain JSON");
        text.push('\n');
        write_private(&folder.join(SERVICE_FILE), text.as_bytes())
    }

    /// Returns the data folder of the peer with this configuration `folder`.
    pub fn data_folder(&self, folder: &Path) -> PathBuf {
        match self.consensus.raft.data_folder.as_str() {
            "" => folder.join("raft"),
            // An absolute path replaces the folder's.
            named => folder.join(named),
        }
    }

    /// Returns the folder of the embedded IPFS node of the peer with this configuration `folder`.
    pub fn ipfs_folder(&self, folder: &Path) -> PathBuf {
        folder.join("ipfs")
    }

    /// Returns the file with the addresses of other peers.
    pub fn peerstore_file(&self, folder: &Path) -> PathBuf {
        folder.join(&self.cluster.peerstore_file)
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut json = serde_json::to_value(self).map_err(|_| fmt::Error)?;
        hide(&mut json);
        write!(f, "{json:#}")
    }
}

/// Replaces the values of all secret keys that have one.
fn hide(json: &mut Value) {
    if let Value::Object(object) = json {
        for (key, value) in object {
            let empty = value.is_null() || *value == "" || value.as_object().is_some_and(Map::is_empty);
            if SECRET_KEYS.contains(&key.as_str()) && !empty {
                *value = HIDDEN.into();
            } else {
                hide(value);
            }
        }
    }
}

/// Removes `cluster.id` and `cluster.private_key`, which have their own file now.
fn take_identity(json: &mut Map<String, Value>) -> Option<(String, String)> {
    let cluster = json.get_mut("cluster")?.as_object_mut()?;
    let id = cluster.remove("id");
    let key = cluster.remove("private_key");
    Some((id?.as_str()?.to_owned(), key?.as_str()?.to_owned()))
}

/// Checks the sections that only the Go peer uses: refuses modes that are not supported, warns of the
/// others.
fn refuse_other_modes(json: &Map<String, Value>, warnings: &mut Vec<String>) -> Result<(), (String, String)> {
    if let Some(source) = json.get("source").and_then(Value::as_str)
        && !source.is_empty()
    {
        let problem = format!(
            "{source:?}: a configuration is not fetched from elsewhere: download it and put it in place of \
             this file"
        );
        return Err(("source".to_owned(), problem));
    }
    let consensus = json.get("consensus").and_then(Value::as_object);
    let has = |kind: &str| consensus.is_some_and(|consensus| consensus.contains_key(kind));
    if has("crdt") && !has("raft") {
        let problem = "peers agree through Raft here: write `\"raft\": {}` in its place, keep the rest of \
                       the file, and move the pinset over with `state export` and `state import`";
        return Err(("consensus.crdt".to_owned(), problem.to_owned()));
    }
    if json.contains_key("datastore") {
        warnings.push("datastore: ignored, the state has its own database in raft/".to_owned());
    }
    Ok(())
}

/// Adds the sections and components that are never off as empty objects, so that they get their defaults
/// and the environment; removes those that other functions have handled.
fn complete(json: &mut Map<String, Value>) {
    json.remove("datastore");
    json.remove("source");
    if !json.contains_key("allocator") {
        // The Go peer's fallback.
        json.insert(
            "allocator".to_owned(),
            serde_json::json!({"balanced": {"allocate_by": ["freespace"]}}),
        );
    }
    let whole: [(&str, &[&str]); 3] = [
        ("api", &["ipfsproxy", "pinsvcapi", "restapi"]),
        ("ipfs_connector", &["ipfshttp"]),
        ("informer", &["disk", "pinqueue", "tags"]),
    ];
    for (section, components) in whole {
        let absent = json.get(section).is_none_or(Value::is_null);
        let nothing_chosen =
            section == "ipfs_connector" && json.get(section) == Some(&Value::Object(Map::new()));
        if absent || nothing_chosen {
            let empty = components
                .iter()
                .map(|name| ((*name).to_owned(), Map::new().into()));
            json.insert(section.to_owned(), Value::Object(empty.collect()));
        }
    }
    let always: [(&str, &[&str]); 6] = [
        ("cluster", &["connection_manager", "resource_manager", "pubsub"]),
        ("consensus", &["raft"]),
        ("pin_tracker", &["stateless"]),
        ("monitor", &["pubsubmon"]),
        ("allocator", &["balanced"]),
        ("observations", &["metrics", "tracing"]),
    ];
    for (section, components) in always {
        let section = json.entry(section).or_insert(Value::Null);
        if section.is_null() {
            *section = Map::new().into();
        }
        // Anything but an object is refused when it is read.
        if let Some(section) = section.as_object_mut() {
            for component in components {
                let component = section.entry(*component).or_insert(Value::Null);
                if component.is_null() {
                    *component = Map::new().into();
                }
            }
        }
    }
}

/// Variable with the address of the Kubo daemon to use.
pub const KUBO_VARIABLE: &str = "CLUSTER_IPFSHTTP_NODEMULTIADDRESS";

/// Refuses a variable with a Kubo daemon's address where the embedded node is configured: the operator
/// would look for the content in the wrong node.
fn refuse_unused_kubo(config: &Config, environment: &Environment, path: &Path) -> Result<(), ConfigError> {
    let named = environment.get(KUBO_VARIABLE).map(|address| address.trim());
    let Some(address) = named.filter(|address| !address.is_empty()) else {
        return Ok(());
    };
    if config.ipfs_connector.embedded.is_none() {
        return Ok(());
    }
    let problem = format!(
        "names the Kubo daemon at {address}, and {} configures the embedded IPFS node: to use Kubo, put \
         \"ipfshttp\": {{}} in place of ipfs_connector.embedded, or run `init --force` with the variable set \
         (pins already held by the embedded node are fetched again); to use the embedded node, unset the \
         variable",
        path.display()
    );
    Err(ConfigError::Variable {
        name: KUBO_VARIABLE.to_owned(),
        problem,
    })
}

/// Prefixes of variables for other programs, other modes and components that may be off.
const OTHER_VARIABLES: [&str; 17] = [
    "CLUSTER_ID",
    "CLUSTER_PRIVATEKEY",
    "CLUSTER_AUTH_TOKEN",
    "CLUSTER_CREDENTIALS",
    "CLUSTER_CRDT_",
    "CLUSTER_PEBBLE_",
    "CLUSTER_BADGER_",
    "CLUSTER_BADGER3_",
    "CLUSTER_LEVELDB_",
    "CLUSTER_NUMPIN_",
    "CLUSTER_IPFSPROXY_",
    "CLUSTER_PINSVCAPI_",
    "CLUSTER_RESTAPI_",
    "CLUSTER_IPFSHTTP_",
    "CLUSTER_EMBEDDED_",
    "CLUSTER_DISK_",
    "CLUSTER_TAGS_",
];

fn unknown_variables<'a>(
    environment: &'a Environment,
    read: &'a std::collections::BTreeSet<String>,
) -> impl Iterator<Item = String> + 'a {
    let known =
        |name: &String| read.contains(name) || OTHER_VARIABLES.iter().any(|start| name.starts_with(start));
    let unknown = environment
        .iter()
        .filter(move |(name, value)| !value.trim().is_empty() && !known(name));
    unknown.map(|(name, _)| format!("environment variable {name}: no such setting, ignored"))
}

#[cfg(test)]
mod tests;
