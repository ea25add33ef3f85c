//! A configuration folder as a whole, from which the daemon starts.

use std::path::{Path, PathBuf};

use super::{Config, ConfigError, Environment, IDENTITY_FILE, Identity, Loaded, Peerstore};

/// Contents of a configuration folder.
#[derive(Debug)]
pub struct Folder {
    /// Path of the folder.
    pub path: PathBuf,
    /// The checked settings.
    pub config: Config,
    /// Identity of the peer.
    pub identity: Identity,
    /// Known addresses of other peers.
    pub peerstore: Peerstore,
    /// Warnings for the operator, one sentence each.
    pub warnings: Vec<String>,
    /// Notices of what is new for an older file, and how to switch it off.
    pub notices: Vec<String>,
}

impl Folder {
    /// Reads `service.json`, `identity.json` and the peerstore in `path`, with `environment` applied. An
    /// identity inside `service.json`, as before there was `identity.json`, is moved out.
    ///
    /// # Errors
    /// One of them is missing (except for the peerstore), unreadable or invalid.
    pub fn open(path: &Path, environment: &Environment) -> Result<Self, ConfigError> {
        let Loaded {
            config,
            mut warnings,
            notices,
        } = Config::load(path, environment)?;
        let identity = match Identity::load(path, environment) {
            Err(ConfigError::Missing(_)) if config.legacy_identity.is_some() => {
                warnings.push(format!(
                    "the identity in service.json has been copied to {IDENTITY_FILE}, where it belongs"
                ));
                adopt(path, &config)
            }
            found => found,
        }?;
        let mut peerstore = Peerstore::load(&config.peerstore_file(path))?;
        warnings.append(&mut peerstore.warnings);
        Ok(Self {
            path: path.to_owned(),
            config,
            identity,
            peerstore,
            warnings,
            notices,
        })
    }
}

/// Writes the identity inside `service.json` to its own file.
fn adopt(path: &Path, config: &Config) -> Result<Identity, ConfigError> {
    let (id, key) = config.legacy_identity.as_ref().expect("asked for by the caller");
    let identity = Identity::decode(id, key)
        .map_err(|(field, problem)| ConfigError::key(&path.join(super::SERVICE_FILE), field, problem))?;
    identity.save(path)?;
    Ok(identity)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_needs_an_identity_but_no_peerstore() {
        let folder = tempfile::tempdir().unwrap();
        Config::fresh().save(folder.path()).unwrap();
        let error = Folder::open(folder.path(), &Environment::new())
            .unwrap_err()
            .to_string();
        assert!(error.contains("identity.json does not exist"), "{error}");
        let identity = Identity::generate();
        identity.save(folder.path()).unwrap();
        let opened = Folder::open(folder.path(), &Environment::new()).unwrap();
        assert_eq!(
            (opened.identity.peer, opened.warnings),
            (identity.peer, Vec::new())
        );
    }

    #[test]
    fn an_identity_inside_service_json_is_moved_to_its_own_file() {
        let folder = tempfile::tempdir().unwrap();
        let identity = Identity::generate();
        identity.save(folder.path()).unwrap();
        let path = folder.path().join(IDENTITY_FILE);
        let file = std::fs::read_to_string(&path).unwrap();
        std::fs::write(
            folder.path().join("service.json"),
            format!("{{\"cluster\": {file}}}"),
        )
        .unwrap();
        std::fs::remove_file(&path).unwrap();
        for _ in 0..2 {
            let opened = Folder::open(folder.path(), &Environment::new()).unwrap();
            assert_eq!(opened.identity.peer, identity.peer);
            assert_eq!(std::fs::read_to_string(&path).unwrap(), file);
        }
    }
}
