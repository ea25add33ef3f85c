//! Private keys of IPNS names: the node's own, called `self`, and those that users create or import, one per
//! file in the folder `keys` of the node's folder. Functions block the thread for disk access.

mod private;

pub(crate) use private::{PrivateKey, RSA_SIZE};

use crate::Error;
use libp2p::PeerId;
use libp2p::identity::Keypair;
use multibase::Base;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Name of the node's own key.
pub(crate) const SELF: &str = "self";

/// Maximum number of keys: each is republished several times a day.
const KEYS_MAX: usize = 4096;
/// Maximum length of a key's name, in bytes: its encoding is a file name.
const NAME_MAX: usize = 128;
/// Maximum length of a key file, in bytes: an RSA key of 8192 bits has fewer than 5,000.
pub(crate) const KEY_MAX: usize = 16 * 1024;

/// A key, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedKey {
    /// Name given by the user.
    pub name: String,
    /// The IPNS name that belongs to the key.
    pub id: PeerId,
}

/// The keys of a node.
#[derive(Debug)]
pub(crate) struct Keys {
    folder: PathBuf,
    own: Keypair,
    /// Held while files change.
    changing: Mutex<()>,
}

impl Keys {
    pub(crate) fn new(node_folder: &Path, own: Keypair) -> Keys {
        Keys {
            folder: node_folder.join("keys"),
            own,
            changing: Mutex::new(()),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        // Names may contain any character; in base32 they are valid on any file system.
        self.folder.join(Base::Base32Lower.encode(name))
    }

    /// Lists the own key, then the others sorted by name.
    pub(crate) fn list(&self) -> Result<Vec<NamedKey>, Error> {
        let mut names = Vec::new();
        match std::fs::read_dir(&self.folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(self.failed("reading", error)),
            Ok(files) => {
                for file in files {
                    let file = file.map_err(|error| self.failed("reading", error))?.file_name();
                    let name = file.to_str().and_then(|file| Base::Base32Lower.decode(file).ok());
                    names.extend(name.and_then(|name| String::from_utf8(name).ok()));
                }
            }
        }
        names.sort_unstable();
        let id = |key: &Keypair| key.public().to_peer_id();
        let mut keys = vec![NamedKey {
            name: SELF.to_owned(),
            id: id(&self.own),
        }];
        for name in names {
            // Removed in between, if it is not found.
            if let Some(key) = self.find(&name)? {
                keys.push(NamedKey { name, id: id(&key) });
            }
        }
        Ok(keys)
    }

    fn failed(&self, what: &str, error: std::io::Error) -> Error {
        Error::io(format!("{what} the keys in {}", self.folder.display()), error)
    }

    /// Reads a key by its name.
    pub(crate) fn find(&self, name: &str) -> Result<Option<Keypair>, Error> {
        if name == SELF {
            return Ok(Some(self.own.clone()));
        }
        Ok(self.read(name)?.map(|key| key.pair))
    }

    /// Reads the file of a key.
    fn read(&self, name: &str) -> Result<Option<PrivateKey>, Error> {
        let path = self.path(name);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.failed("reading", error)),
        };
        let key = PrivateKey::from_protobuf(bytes);
        let key =
            key.map_err(|error| Error::Damaged(format!("{} is not a private key: {error}", path.display())));
        key.map(Some)
    }

    /// Reads a key by its name or by the IPNS name that belongs to it.
    pub(crate) fn find_by_name_or_id(&self, text: &str) -> Result<Keypair, Error> {
        if let Some(key) = self.find(text)? {
            return Ok(key);
        }
        if let Some(id) = crate::ipns::parse_name(text) {
            let known = self.list()?.into_iter().find(|key| key.id == id);
            if let Some(known) = known
                && let Some(key) = self.find(&known.name)?
            {
                return Ok(key);
            }
        }
        Err(Error::invalid(format!(
            "no key by the given name was found: {text:?}"
        )))
    }

    /// Stores a new key.
    pub(crate) fn add(&self, name: &str, key: &PrivateKey) -> Result<NamedKey, Error> {
        let _changing = crate::store::lock(&self.changing);
        if self.find(name)?.is_some() {
            return Err(Error::invalid(format!("key with name '{name}' already exists")));
        }
        if self.list()?.len() > KEYS_MAX {
            return Err(Error::invalid(format!("there are {KEYS_MAX} keys, the maximum")));
        }
        self.save(name, key)
    }

    fn save(&self, name: &str, key: &PrivateKey) -> Result<NamedKey, Error> {
        if name.is_empty() || name.len() > NAME_MAX {
            return Err(Error::invalid(format!(
                "the name of a key has 1 to {NAME_MAX} bytes, not {}",
                name.len()
            )));
        }
        std::fs::create_dir_all(&self.folder).map_err(|error| self.failed("writing", error))?;
        let saved = crate::swarm::save_private(&self.folder, &self.path(name), key.as_protobuf());
        saved.map_err(|error| self.failed("writing", error))?;
        Ok(NamedKey {
            name: name.to_owned(),
            id: key.id(),
        })
    }

    /// Renames a key; returns it, and whether another was overwritten, which only `force` allows.
    pub(crate) fn rename(&self, old: &str, new: &str, force: bool) -> Result<(NamedKey, bool), Error> {
        if old == SELF {
            return Err(Error::invalid("cannot rename key with name 'self'"));
        }
        if new == SELF {
            return Err(Error::invalid("cannot overwrite key with name 'self'"));
        }
        let _changing = crate::store::lock(&self.changing);
        let key = self.read(old)?.ok_or_else(|| unknown(old))?;
        let id = key.id();
        let overwrites = old != new && self.find(new)?.is_some();
        if overwrites && !force {
            return Err(Error::invalid(format!("key with name '{new}' already exists")));
        }
        let name = new.to_owned();
        if old != new {
            // The new file first: a crash in between leaves the key under both names.
            self.save(new, &key)?;
            self.delete(old)?;
        }
        Ok((NamedKey { name, id }, overwrites))
    }

    /// Removes a key and returns it.
    pub(crate) fn remove(&self, name: &str) -> Result<NamedKey, Error> {
        if name == SELF {
            return Err(Error::invalid("cannot remove key with name 'self'"));
        }
        let _changing = crate::store::lock(&self.changing);
        let key = self.read(name)?.ok_or_else(|| unknown(name))?;
        self.delete(name)?;
        Ok(NamedKey {
            name: name.to_owned(),
            id: key.id(),
        })
    }

    fn delete(&self, name: &str) -> Result<(), Error> {
        std::fs::remove_file(self.path(name)).map_err(|error| self.failed("writing", error))
    }
}

fn unknown(name: &str) -> Error {
    Error::invalid(format!("no key named {name} was found"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> (tempfile::TempDir, Keys) {
        let folder = tempfile::tempdir().unwrap();
        let keys = Keys::new(folder.path(), Keypair::generate_ed25519());
        (folder, keys)
    }

    #[test]
    fn keys_are_kept_renamed_and_removed() {
        let (folder, keys) = keys();
        let key = PrivateKey::generate_ed25519().unwrap();
        let added = keys.add("a/b ä", &key).unwrap();
        assert!(keys.add("a/b ä", &key).is_err());
        let again = Keys::new(folder.path(), keys.own.clone());
        let names: Vec<String> = again.list().unwrap().into_iter().map(|key| key.name).collect();
        assert_eq!(names, [SELF, "a/b ä"]);
        let other = keys
            .add("other", &PrivateKey::generate_ed25519().unwrap())
            .unwrap();
        assert!(keys.rename("other", "a/b ä", false).is_err());
        let (renamed, overwrote) = keys.rename("other", "a/b ä", true).unwrap();
        assert_eq!((renamed.id, overwrote), (other.id, true));
        assert_eq!(keys.remove("a/b ä").unwrap().id, other.id);
        assert_eq!(keys.list().unwrap().len(), 1);
        assert_ne!(added.id, other.id);
    }

    #[test]
    fn the_own_key_is_neither_renamed_nor_removed() {
        let (_folder, keys) = keys();
        for refused in [keys.rename(SELF, "x", true), keys.rename("x", SELF, true)] {
            assert!(refused.unwrap_err().to_string().contains("'self'"));
        }
        assert!(keys.remove(SELF).unwrap_err().to_string().contains("'self'"));
        let (long, key) = ("n".repeat(NAME_MAX + 1), PrivateKey::generate_ed25519().unwrap());
        assert!(keys.add(&long, &key).is_err());
    }
}
