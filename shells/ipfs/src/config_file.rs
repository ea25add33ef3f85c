//! Settings that clients of the API change at run time, saved in the file `config.json` of the node's folder:
//! the bootstrap peers, which replace those of the node's settings, peers that stay connected, and the size
//! above which directories are sharded.
//!
//! The file has the shape of Kubo's configuration. Everything else is configured where the node is started.

use crate::Error;
use crate::store::lock;
use crate::swarm::{addresses, save_private, split};
use libp2p::{Multiaddr, PeerId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Name of the file.
const FILE: &str = "config.json";
/// Limit on the bytes of the file: bootstrap peers and peerings at their limits.
const FILE_MAX: u64 = 4 << 20;
/// Limit on bootstrap peers. A node dials 16 at once.
pub(crate) const BOOTSTRAP_MAX: usize = 256;
/// Limit on peers that stay connected by request, of those that the node keeps at all.
pub(crate) const PEERINGS_MAX: usize = 256;
/// Limit on the bytes of one address.
const ADDRESS_BYTES_MAX: usize = 1024;

/// Default size of a directory above which it is sharded, and limit on that size, in bytes: the block of a
/// larger directory might be too large to be exchanged.
const HAMT_THRESHOLD: u64 = 256 << 10;
const HAMT_THRESHOLD_MAX: u64 = 1 << 20;

/// Peers that stay connected, with their addresses.
pub(crate) type Peerings = BTreeMap<PeerId, Vec<Multiaddr>>;

/// Content of the file.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Saved {
    #[serde(skip_serializing_if = "Option::is_none")]
    bootstrap: Option<Vec<Multiaddr>>,
    #[serde(skip_serializing_if = "SavedPeering::is_empty")]
    peering: SavedPeering,
    #[serde(skip_serializing_if = "SavedImport::is_empty")]
    import: SavedImport,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct SavedImport {
    /// Size with a unit, as the client wrote it.
    #[serde(rename = "UnixFSHAMTDirectorySizeThreshold")]
    hamt_threshold: Option<String>,
}

impl SavedImport {
    fn is_empty(&self) -> bool {
        self.hamt_threshold.is_none()
    }

    /// Returns the size in bytes.
    fn hamt_threshold(&self) -> Result<u64, Error> {
        let Some(text) = &self.hamt_threshold else {
            return Ok(HAMT_THRESHOLD);
        };
        parse_size(text)
            .filter(|size| *size <= HAMT_THRESHOLD_MAX)
            .ok_or_else(|| {
                Error::invalid(format!(
                    "invalid size {text:?}: directories can be sharded above at most \"1MiB\""
                ))
            })
    }
}

/// Parses a whole number of bytes with an optional unit, decimal like `kB` or binary like `KiB`.
fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let scale: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1_000,
        "ki" | "kib" => 1 << 10,
        "m" | "mb" => 1_000_000,
        "mi" | "mib" => 1 << 20,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(scale)
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct SavedPeering {
    peers: Vec<PeerAddresses>,
}

impl SavedPeering {
    fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }
}

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
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    saved: Saved,
    /// Bootstrap peers of the node's settings.
    configured: Vec<Multiaddr>,
    /// Peers that stay connected: saved ones, and those of this run.
    peerings: Peerings,
    /// Size of a directory above which it is sharded, in bytes.
    hamt_threshold: u64,
}

fn read(path: &Path) -> Result<Saved, Error> {
    use std::io::Read;
    let mut text = String::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(FILE_MAX).read_to_string(&mut text));
    match read {
        Ok(_) => serde_json::from_str(&text).map_err(|error| {
            let advice = "correct it, or remove it to use the settings that the node is started with";
            Error::Damaged(format!("{} is invalid ({error}); {advice}", path.display()))
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Saved::default()),
        Err(error) => Err(Error::io(format!("reading {}", path.display()), error)),
    }
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

impl ConfigFile {
    /// Reads the saved settings; `configured` are the bootstrap peers of the node's settings.
    ///
    /// # Errors
    /// [`Error::Damaged`] if the file is invalid; it cannot be read.
    pub(crate) fn open(folder: &Path, configured: Vec<Multiaddr>) -> Result<ConfigFile, Error> {
        let saved = read(&folder.join(FILE))?;
        let hamt_threshold = saved.import.hamt_threshold().map_err(|error| {
            Error::Damaged(format!("{} is invalid: {error}", folder.join(FILE).display()))
        })?;
        let peers = saved.peering.peers.iter();
        let peerings = peers.map(|it| (it.peer, it.addresses.clone())).collect();
        if saved.bootstrap.as_ref().is_some_and(|list| *list != configured) {
            tracing::info!(
                "the bootstrap peers are those in {}, which were changed by `ipfs bootstrap`",
                folder.join(FILE).display()
            );
        }
        Ok(ConfigFile {
            folder: folder.to_owned(),
            state: Mutex::new(State {
                saved,
                configured,
                peerings,
                hamt_threshold,
            }),
        })
    }

    /// Returns the bootstrap peers: the saved ones, otherwise those of the node's settings.
    pub(crate) fn bootstrap(&self) -> Vec<Multiaddr> {
        let state = lock(&self.state);
        let saved = state.saved.bootstrap.as_ref();
        saved.unwrap_or(&state.configured).clone()
    }

    /// Replaces the bootstrap peers by the result of `change`, and saves them. Blocks the thread.
    ///
    /// # Errors
    /// An address names no peer; there are too many; the file cannot be written.
    pub(crate) fn change_bootstrap<T>(
        &self,
        change: impl FnOnce(Vec<Multiaddr>) -> (Vec<Multiaddr>, T),
    ) -> Result<T, Error> {
        let mut state = lock(&self.state);
        let saved = state.saved.bootstrap.as_ref();
        let (list, result) = change(saved.unwrap_or(&state.configured).clone());
        if list.len() > BOOTSTRAP_MAX {
            return Err(Error::invalid(format!(
                "the list of bootstrap peers may have {BOOTSTRAP_MAX} addresses"
            )));
        }
        for address in &list {
            check_bootstrap_address(address)?;
        }
        let saved = Saved {
            bootstrap: Some(list),
            ..state.saved.clone()
        };
        self.write(&saved)?;
        state.saved = saved;
        Ok(result)
    }

    /// Returns the peers that stay connected.
    pub(crate) fn peerings(&self) -> Peerings {
        lock(&self.state).peerings.clone()
    }

    /// Returns the saved peers that stay connected.
    pub(crate) fn saved_peerings(&self) -> Vec<PeerAddresses> {
        lock(&self.state).saved.peering.peers.clone()
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

    /// Replaces the saved peers that stay connected. Returns those that were connected by the earlier list
    /// only. Blocks the thread.
    ///
    /// # Errors
    /// As [`ConfigFile::add_peerings`]; the file cannot be written.
    pub(crate) fn save_peerings(&self, peers: Vec<PeerAddresses>) -> Result<Vec<PeerId>, Error> {
        let mut state = lock(&self.state);
        let mut peerings = state.peerings.clone();
        for old in &state.saved.peering.peers {
            peerings.remove(&old.peer);
        }
        peerings.extend(peers.iter().map(|it| (it.peer, it.addresses.clone())));
        check_peerings(&peerings)?;
        let saved = Saved {
            peering: SavedPeering { peers },
            ..state.saved.clone()
        };
        self.write(&saved)?;
        let dropped = state.peerings.keys().filter(|peer| !peerings.contains_key(*peer));
        let dropped = dropped.copied().collect();
        state.saved = saved;
        state.peerings = peerings;
        Ok(dropped)
    }

    /// Returns the size of a directory above which it is sharded, in bytes.
    pub(crate) fn hamt_threshold(&self) -> u64 {
        lock(&self.state).hamt_threshold
    }

    /// Returns that size as a client has set it.
    pub(crate) fn saved_hamt_threshold(&self) -> Option<String> {
        lock(&self.state).saved.import.hamt_threshold.clone()
    }

    /// Sets that size, or with `None` the default, and saves it. Blocks the thread.
    ///
    /// # Errors
    /// The text is not a size, or one above the limit; the file cannot be written.
    pub(crate) fn save_hamt_threshold(&self, text: Option<String>) -> Result<(), Error> {
        let import = SavedImport { hamt_threshold: text };
        let bytes = import.hamt_threshold()?;
        let mut state = lock(&self.state);
        let saved = Saved {
            import,
            ..state.saved.clone()
        };
        self.write(&saved)?;
        state.saved = saved;
        state.hamt_threshold = bytes;
        Ok(())
    }

    fn write(&self, saved: &Saved) -> Result<(), Error> {
        let path = self.folder.join(FILE);
        let text = serde_json::to_vec_pretty(saved).map_err(|error| Error::Damaged(error.to_string()))?;
        save_private(&self.folder, &path, &text)
            .map_err(|error| Error::io(format!("writing {}", path.display()), error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16, peer: PeerId) -> Multiaddr {
        format!("/ip4/127.0.0.1/tcp/{port}/p2p/{peer}").parse().unwrap()
    }

    #[test]
    fn changed_bootstrap_peers_replace_the_configured_ones_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let [first, second] = [1, 2].map(|port| address(port, PeerId::random()));
        let file = ConfigFile::open(folder.path(), vec![first.clone()]).unwrap();
        assert_eq!(file.bootstrap(), std::slice::from_ref(&first));
        let add = |mut list: Vec<Multiaddr>| {
            list.push(second.clone());
            (list, ())
        };
        file.change_bootstrap(add).unwrap();
        let file = ConfigFile::open(folder.path(), Vec::new()).unwrap();
        assert_eq!(file.bootstrap(), [first, second]);
        file.change_bootstrap(|_| (Vec::new(), ())).unwrap();
        let other = vec![address(3, PeerId::random())];
        let file = ConfigFile::open(folder.path(), other).unwrap();
        assert_eq!(file.bootstrap(), []);
        std::fs::write(folder.path().join(FILE), "{").unwrap();
        let damaged = ConfigFile::open(folder.path(), Vec::new()).unwrap_err();
        assert!(damaged.to_string().contains("remove it"), "{damaged}");
    }

    #[test]
    fn bootstrap_peers_and_peerings_are_limited() {
        let folder = tempfile::tempdir().unwrap();
        let file = ConfigFile::open(folder.path(), Vec::new()).unwrap();
        let peer = PeerId::random();
        let many = (0..=BOOTSTRAP_MAX as u16)
            .map(|port| address(port, peer))
            .collect();
        assert!(file.change_bootstrap(|_| (many, ())).is_err());
        for bad in ["/ip4/127.0.0.1/tcp/1".to_owned(), format!("/p2p/{peer}")] {
            let list = vec![bad.parse().unwrap()];
            assert!(file.change_bootstrap(|_| (list, ())).is_err(), "{bad}");
        }
        assert_eq!(file.bootstrap(), []);
        let peers = |count| (0..count).map(|_| (PeerId::random(), Vec::new())).collect();
        file.add_peerings(peers(PEERINGS_MAX)).unwrap();
        assert!(file.add_peerings(peers(1)).is_err());
        assert_eq!(file.peerings().len(), PEERINGS_MAX);
    }

    #[test]
    fn saved_peerings_return_after_a_restart_and_others_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = ConfigFile::open(folder.path(), Vec::new()).unwrap();
        let [saved, added] = [PeerId::random(), PeerId::random()];
        let entry = PeerAddresses {
            addresses: vec!["/ip4/127.0.0.1/tcp/1".parse().unwrap()],
            peer: saved,
        };
        assert_eq!(file.save_peerings(vec![entry.clone()]).unwrap(), []);
        file.add_peerings(Peerings::from([(added, Vec::new())])).unwrap();
        assert_eq!(file.peerings().len(), 2);
        assert!(file.remove_peering(&saved) && !file.remove_peering(&saved));
        let file = ConfigFile::open(folder.path(), Vec::new()).unwrap();
        assert_eq!(file.peerings(), Peerings::from([(saved, entry.addresses)]));
        assert_eq!(file.save_peerings(Vec::new()).unwrap(), [saved]);
        assert_eq!(file.saved_peerings(), []);
    }

    #[test]
    fn the_size_of_unsharded_directories_is_saved_and_limited() {
        let folder = tempfile::tempdir().unwrap();
        let file = ConfigFile::open(folder.path(), Vec::new()).unwrap();
        assert_eq!(file.hamt_threshold(), HAMT_THRESHOLD);
        for (text, bytes) in [("1B", 1), ("7", 7), ("1 MiB", 1 << 20), ("2kB", 2000)] {
            file.save_hamt_threshold(Some(text.to_owned())).unwrap();
            assert_eq!(file.hamt_threshold(), bytes, "{text}");
        }
        for text in ["", "KiB", "-1", "1 MiB 1", "2MiB", "99999999999999999999"] {
            assert!(file.save_hamt_threshold(Some(text.to_owned())).is_err(), "{text}");
        }
        let file = ConfigFile::open(folder.path(), Vec::new()).unwrap();
        assert_eq!(file.hamt_threshold(), 2000);
        assert_eq!(file.saved_hamt_threshold().as_deref(), Some("2kB"));
        file.save_hamt_threshold(None).unwrap();
        let file = ConfigFile::open(folder.path(), Vec::new()).unwrap();
        assert_eq!(file.hamt_threshold(), HAMT_THRESHOLD);
    }
}
