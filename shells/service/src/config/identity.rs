//! `identity.json`: this peer's id and key.

use std::fmt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use libp2p::PeerId;
use libp2p::identity::Keypair;
use serde::{Deserialize, Serialize};

use super::{ConfigError, Environment, HIDDEN, IDENTITY_FILE, files};

/// A peer's key and its id. `Debug` does not show the key.
#[derive(Clone)]
pub struct Identity {
    /// Id derived from the key.
    pub peer: PeerId,
    /// The key, Ed25519 or RSA.
    pub keypair: Keypair,
    /// The key as in the file. RSA keys cannot be encoded again.
    encoded: String,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Identity");
        debug.field("peer", &self.peer).field("keypair", &HIDDEN).finish()
    }
}

#[derive(Serialize, Deserialize)]
struct File {
    id: String,
    private_key: String,
}

impl Identity {
    /// Generates an identity with an Ed25519 key.
    pub fn generate() -> Self {
        let keypair = Keypair::generate_ed25519();
        let bytes = keypair
            .to_protobuf_encoding()
            .expect("an ed25519 key can be encoded");
        Self {
            peer: keypair.public().to_peer_id(),
            keypair,
            encoded: STANDARD.encode(bytes),
        }
    }

    /// Decodes the two fields of the file; the error has the name of the invalid field, and the problem.
    ///
    /// # Errors
    /// The key is no libp2p private key in base64, of an unsupported kind, or does not belong to the id.
    pub fn decode(id: &str, private_key: &str) -> Result<Self, (&'static str, String)> {
        let key = |problem: String| ("private_key", problem);
        let encoded = private_key.trim();
        let bytes = STANDARD
            .decode(encoded)
            .map_err(|error| key(format!("not base64: {error}")))?;
        let keypair = Keypair::from_protobuf_encoding(&bytes).map_err(|error| {
            key(format!(
                "no libp2p private key: {error}: it must be an Ed25519 or an RSA key"
            ))
        })?;
        let peer = keypair.public().to_peer_id();
        if id.trim() != peer.to_base58() {
            return Err((
                "id",
                format!("{id:?} does not belong to the private key, {peer} does"),
            ));
        }
        Ok(Self {
            peer,
            keypair,
            encoded: encoded.to_owned(),
        })
    }

    /// Reads `identity.json` in `folder`, or `CLUSTER_ID` and `CLUSTER_PRIVATEKEY` instead, where both are
    /// set.
    ///
    /// # Errors
    /// There is no identity, or it is invalid.
    pub fn load(folder: &Path, environment: &Environment) -> Result<Self, ConfigError> {
        if let Some(identity) = Self::from_environment(environment)? {
            return Ok(identity);
        }
        let path = folder.join(IDENTITY_FILE);
        let text = files::read_small(&path)?;
        // serde's message about a wrong value would show the key.
        let file: File = serde_json::from_str(&text).map_err(|error| match error.classify() {
            serde_json::error::Category::Data => {
                ConfigError::key(&path, "root", "expected {\"id\": \"…\", \"private_key\": \"…\"}")
            }
            serde_json::error::Category::Io
            | serde_json::error::Category::Syntax
            | serde_json::error::Category::Eof => ConfigError::Syntax {
                path: path.clone(),
                error,
            },
        })?;
        Self::decode(&file.id, &file.private_key)
            .map_err(|(field, problem)| ConfigError::key(&path, field, problem))
    }

    /// Returns the identity in the environment, if there is one.
    ///
    /// # Errors
    /// Only one of the two variables is set, or the key does not belong to the id.
    pub fn from_environment(environment: &Environment) -> Result<Option<Self>, ConfigError> {
        let (id, key) = ("CLUSTER_ID", "CLUSTER_PRIVATEKEY");
        let get = |name: &str| environment.get(name).filter(|value| !value.trim().is_empty());
        let wrong = |name: &str, problem: String| ConfigError::Variable {
            name: name.to_owned(),
            problem,
        };
        match (get(id), get(key)) {
            (None, None) => Ok(None),
            (Some(_), None) => Err(wrong(key, format!("must be set when {id} is"))),
            (None, Some(_)) => Err(wrong(id, format!("must be set when {key} is"))),
            (Some(peer), Some(private_key)) => {
                let identity = Self::decode(peer, private_key);
                identity.map(Some).map_err(|(field, problem)| {
                    let name = if field == "id" { id } else { key };
                    wrong(name, problem)
                })
            }
        }
    }

    /// Writes `identity.json` into `folder`, atomically, readable by its owner only.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn save(&self, folder: &Path) -> Result<(), ConfigError> {
        let file = File {
            id: self.peer.to_base58(),
            private_key: self.encoded.clone(),
        };
        let mut text = serde_json::to_string_pretty(&file).expect("an identity is plain JSON");
        text.push('\n');
        files::write_private(&folder.join(IDENTITY_FILE), text.as_bytes())
    }
}
