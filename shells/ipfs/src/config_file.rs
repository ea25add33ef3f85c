//! Settings that clients of the API change at run time, saved in the file `config.json` of the node's folder.
//!
//! The file has the shape of Kubo's configuration, with the keys that were set. Some take effect at once: the
//! bootstrap peers, peers that stay connected, and the size above which directories are sharded. Others
//! replace, at the next start, settings that the node is started with, but not those that the environment
//! fixes. All other keys of Kubo are kept for clients that read them again, and do nothing; the log says so.

mod document;
mod effective;
mod keys;
mod profiles;

pub(crate) use self::document::{find, merge};
pub use self::effective::changeable_settings;
pub(crate) use self::profiles::Profile;

use self::effective::Effective;
use self::keys::KeyError;
use crate::store::lock;
use crate::swarm::{addresses, save_private, split};
use crate::{Config, Error};
use libp2p::{Multiaddr, PeerId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Name of the file.
const FILE: &str = "config.json";
/// Limit on the bytes of the file: bootstrap peers and peerings at their limits.
pub(crate) const FILE_MAX: usize = 4 << 20;
/// Limit on bootstrap peers. A node dials 16 at once.
pub(crate) const BOOTSTRAP_MAX: usize = 256;
/// Limit on peers that stay connected by request, of those that the node keeps at all.
pub(crate) const PEERINGS_MAX: usize = 256;
/// Limit on the bytes of one address.
const ADDRESS_BYTES_MAX: usize = 1024;

/// Content of the file.
pub(crate) type Document = Map<String, Value>;

/// Settings of `service.json` that the environment sets, with the variable.
pub(crate) type FixedSettings = BTreeMap<String, String>;

/// Peers that stay connected, with their addresses.
pub(crate) type Peerings = BTreeMap<PeerId, Vec<Multiaddr>>;

/// A peer with its addresses, in Kubo's shape.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PeerAddresses {
    #[serde(rename = "Addrs", default)]
    pub(crate) addresses: Vec<Multiaddr>,
    #[serde(rename = "ID", with = "peer_id_text")]
    pub(crate) peer: PeerId,
}

mod peer_id_text {
    use libp2p::PeerId;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(peer: &PeerId, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(peer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<PeerId, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// The saved settings and the peerings in use.
#[derive(Debug)]
pub(crate) struct ConfigFile {
    folder: PathBuf,
    /// Settings that the node is started with, without those of the file.
    configured: Config,
    /// Settings that the node uses until its end.
    started: Config,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    document: Document,
    effective: Effective,
    /// Peers that stay connected: saved ones, and those of this run.
    peerings: Peerings,
}

fn read(path: &Path) -> Result<Document, Error> {
    use std::io::Read;
    let mut text = String::new();
    let read =
        std::fs::File::open(path).and_then(|file| file.take(FILE_MAX as u64).read_to_string(&mut text));
    match read {
        Ok(_) => serde_json::from_str(&text).map_err(|error| damaged(path, error)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Document::new()),
        Err(error) => Err(Error::io(format!("reading {}", path.display()), error)),
    }
}

fn damaged(path: &Path, why: impl std::fmt::Display) -> Error {
    let advice = "correct it, or remove it to use the settings that the node is started with";
    Error::Damaged(format!("{} is invalid ({why}); {advice}", path.display()))
}

/// Checks that the address of a bootstrap peer fits into the file and names a peer and a transport.
pub(crate) fn check_bootstrap_address(address: &Multiaddr) -> Result<(), Error> {
    if address.len() > ADDRESS_BYTES_MAX {
        return Err(Error::invalid(format!(
            "an address has {} bytes, but may have {ADDRESS_BYTES_MAX}",
            address.len()
        )));
    }
    match split(address.clone()) {
        Ok((_, plain)) if !plain.is_empty() => Ok(()),
        Ok(_) => Err(Error::invalid(format!(
            "bootstrap address without a transport: {address}"
        ))),
        Err(_) => Err(Error::invalid(format!("invalid bootstrap address: {address}"))),
    }
}

/// Checks the number and the sizes of peerings.
fn check_peerings(peerings: &Peerings) -> Result<(), Error> {
    if peerings.len() > PEERINGS_MAX {
        return Err(Error::invalid(format!(
            "at most {PEERINGS_MAX} peers can be added to the peering subsystem"
        )));
    }
    let is_too_much = |known: &[Multiaddr]| {
        known.len() > addresses::ADDRESSES_MAX || known.iter().any(|it| it.len() > ADDRESS_BYTES_MAX)
    };
    match peerings.iter().find(|(_, known)| is_too_much(known)) {
        Some((peer, _)) => Err(Error::invalid(format!(
            "{peer} has more than {} addresses, or one of more than {ADDRESS_BYTES_MAX} bytes",
            addresses::ADDRESSES_MAX
        ))),
        None => Ok(()),
    }
}

/// Change of the saved settings.
#[derive(Debug)]
pub(crate) struct Changed {
    /// Peers that stayed connected by the earlier list only.
    pub(crate) dropped: Vec<PeerId>,
    /// Peers that stay connected by the new list.
    pub(crate) kept: Vec<PeerAddresses>,
    /// Keys that are set now, were not before, and do nothing in this node.
    pub(crate) without_effect: Vec<String>,
}

/// Treatment of keys that only `service.json` or the environment can set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unchangeable {
    Refuse,
    /// They are stored, and reported as keys without effect.
    Keep,
}

impl ConfigFile {
    /// Reads the saved settings, and replaces those of `config` by them.
    ///
    /// # Errors
    /// [`Error::Damaged`] if the file is invalid; it cannot be read.
    pub(crate) fn open(config: &mut Config) -> Result<ConfigFile, Error> {
        let (configured, path) = (config.clone(), config.path.join(FILE));
        let document = read(&path)?;
        let effective = Effective::parse(&document).map_err(|error| damaged(&path, error))?;
        effective.apply(config);
        effective::check(config).map_err(|error| damaged(&path, error))?;
        let replaced = effective::replaced(&document, config);
        if !replaced.is_empty() {
            tracing::warn!(
                "{}, set through the API and kept in {}, replace the settings that the node is started with",
                replaced.join(", "),
                path.display()
            );
        }
        let peers = effective.peerings.iter();
        let peerings = peers.map(|it| (it.peer, it.addresses.clone())).collect();
        Ok(ConfigFile {
            folder: config.path.clone(),
            configured,
            started: config.clone(),
            state: Mutex::new(State {
                document,
                effective,
                peerings,
            }),
        })
    }

    /// Returns the settings that the node uses until its end.
    pub(crate) fn started(&self) -> &Config {
        &self.started
    }

    /// Returns the saved settings.
    pub(crate) fn document(&self) -> Document {
        lock(&self.state).document.clone()
    }

    /// Returns the bootstrap peers: the saved ones, otherwise those of the node's settings.
    pub(crate) fn bootstrap(&self) -> Vec<Multiaddr> {
        self.bootstrap_of(&lock(&self.state).effective)
    }

    fn bootstrap_of(&self, effective: &Effective) -> Vec<Multiaddr> {
        let is_fixed = self.configured.fixed.contains_key("bootstrap");
        let saved = effective.bootstrap.as_ref().filter(|_| !is_fixed);
        saved.unwrap_or(&self.configured.network.bootstrap).clone()
    }

    /// Replaces the bootstrap peers by the result of `change`, and saves them. Blocks the thread.
    ///
    /// # Errors
    /// An address names no peer; there are too many; the environment sets them; the file cannot be written.
    pub(crate) fn change_bootstrap<T>(
        &self,
        change: impl FnOnce(Vec<Multiaddr>) -> (Vec<Multiaddr>, T),
    ) -> Result<T, Error> {
        let mut state = lock(&self.state);
        let (list, result) = change(self.bootstrap_of(&state.effective));
        if list.len() > BOOTSTRAP_MAX {
            return Err(Error::invalid(format!(
                "the list of bootstrap peers may have {BOOTSTRAP_MAX} addresses"
            )));
        }
        let mut document = state.document.clone();
        let list = list.iter().map(|address| Value::from(address.to_string()));
        document.insert("Bootstrap".to_owned(), list.collect());
        self.save(&mut state, document, Unchangeable::Refuse)?;
        Ok(result)
    }

    /// Returns the peers that stay connected.
    pub(crate) fn peerings(&self) -> Peerings {
        lock(&self.state).peerings.clone()
    }

    /// Adds peers that stay connected until the end of the process, as in Kubo.
    ///
    /// # Errors
    /// There are too many, or too many addresses of one.
    pub(crate) fn add_peerings(&self, added: Peerings) -> Result<(), Error> {
        let mut state = lock(&self.state);
        let mut peerings = state.peerings.clone();
        peerings.extend(added);
        check_peerings(&peerings)?;
        state.peerings = peerings;
        Ok(())
    }

    /// Removes a peer that stays connected; returns whether it was one. A saved one returns with the next
    /// start, as in Kubo.
    pub(crate) fn remove_peering(&self, peer: &PeerId) -> bool {
        lock(&self.state).peerings.remove(peer).is_some()
    }

    /// Returns the size of a directory above which it is sharded, in bytes.
    pub(crate) fn hamt_threshold(&self) -> u64 {
        let saved = lock(&self.state).effective.hamt_threshold;
        saved.unwrap_or(effective::HAMT_THRESHOLD)
    }

    /// Replaces the saved settings by the result of `change`. Blocks the thread.
    ///
    /// # Errors
    /// A key or its value is invalid, or cannot be changed; the file cannot be written.
    pub(crate) fn change(
        &self,
        unchangeable: Unchangeable,
        change: impl FnOnce(&mut Document) -> Result<(), Error>,
    ) -> Result<Changed, Error> {
        let mut state = lock(&self.state);
        let mut document = state.document.clone();
        change(&mut document)?;
        self.save(&mut state, document, unchangeable)
    }

    fn save(
        &self,
        state: &mut State,
        document: Document,
        unchangeable: Unchangeable,
    ) -> Result<Changed, Error> {
        if unchangeable == Unchangeable::Refuse {
            effective::check_changeable(&state.document, &document, &self.configured.fixed)?;
        }
        let effective = Effective::parse(&document)?;
        let mut next = self.configured.clone();
        effective.apply(&mut next);
        effective::check(&next)?;
        let mut peerings = state.peerings.clone();
        let mut kept = Vec::new();
        // The list is left alone by changes of other keys: a saved peer may be removed for this run.
        if effective.peerings != state.effective.peerings {
            for old in &state.effective.peerings {
                peerings.remove(&old.peer);
            }
            kept.clone_from(&effective.peerings);
            peerings.extend(kept.iter().map(|it| (it.peer, it.addresses.clone())));
            check_peerings(&peerings)?;
        }
        self.write(&document)?;
        let dropped = state.peerings.keys().filter(|peer| !peerings.contains_key(*peer));
        let dropped = dropped.copied().collect();
        let before = effective::without_effect(&state.document, &self.configured.fixed);
        let mut without_effect = effective::without_effect(&document, &self.configured.fixed);
        without_effect.retain(|key| !before.contains(key));
        *state = State {
            document,
            effective,
            peerings,
        };
        Ok(Changed {
            dropped,
            kept,
            without_effect,
        })
    }

    fn write(&self, document: &Document) -> Result<(), Error> {
        let path = self.folder.join(FILE);
        let text = serde_json::to_vec_pretty(document).map_err(|error| Error::Damaged(error.to_string()))?;
        if text.len() >= FILE_MAX {
            return Err(Error::invalid(format!(
                "the configuration has {} bytes, but may have {FILE_MAX}",
                text.len()
            )));
        }
        save_private(&self.folder, &path, &text)
            .map_err(|error| Error::io(format!("writing {}", path.display()), error))
    }
}

/// Checks that a key is one of Kubo's and its value of the right type.
pub(crate) fn set(document: &mut Document, key: &str, value: Value) -> Result<(), KeyError> {
    // Kubo's older name of the same setting.
    let key = match key {
        "Internal.UnixFSShardingSizeThreshold" => effective::HAMT,
        key => key,
    };
    let path: Vec<&str> = key.split('.').collect();
    keys::check(&path, &value)?;
    document::set(document, &path, value)
}

/// Replaces a document by the one that a client sends. Keys that it lacks get the values that Kubo has for
/// unset ones.
pub(crate) fn replace(document: &mut Document, mut by: Document) -> Result<(), KeyError> {
    // The identity is not a part of the file.
    by.remove("Identity");
    for (name, value) in &by {
        keys::check(&[name], value)?;
    }
    *document = keys::empty();
    merge(document, by);
    Ok(())
}

#[cfg(test)]
mod tests;
