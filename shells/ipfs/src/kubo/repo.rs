//! Identity, storage, peers, configuration and name resolution of the node.

use crate::Cid;
use futures::{Stream, stream};
use libp2p::{Multiaddr, PeerId};
use serde::Deserialize;

use super::query::Query;
use super::transport::Limit;
use super::{Client, parse_cid};
use crate::backend::{Cause, Collected, Error, Identity, RepoStat};
use crate::unixfs::Name;

#[derive(Deserialize)]
struct IdAnswer {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Addresses", default)]
    addresses: Option<Vec<String>>,
    #[serde(rename = "AgentVersion", default)]
    agent: String,
}

#[derive(Deserialize)]
struct RepoStatAnswer {
    #[serde(rename = "RepoSize", deserialize_with = "number")]
    size: u64,
    #[serde(rename = "StorageMax", deserialize_with = "number")]
    storage_max: u64,
}

/// Parses a number, or one written as a string: js-ipfs does that because JavaScript's numbers are too small.
fn number<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(u64),
        Text(String),
    }
    match Written::deserialize(deserializer)? {
        Written::Number(number) => Ok(number),
        Written::Text(text) => text.parse().map_err(serde::de::Error::custom),
    }
}

#[derive(Deserialize)]
struct Link {
    #[serde(rename = "/")]
    cid: String,
}

#[derive(Deserialize)]
struct GcLine {
    #[serde(rename = "Key", default)]
    key: Option<Link>,
    #[serde(rename = "Error", default)]
    error: String,
}

#[derive(Deserialize)]
struct ObjectsAnswer {
    #[serde(rename = "NumObjects")]
    objects: u64,
}

#[derive(Deserialize)]
struct PeersAnswer {
    #[serde(rename = "Peers", default)]
    peers: Option<Vec<PeerLine>>,
}

#[derive(Deserialize)]
struct PeerLine {
    #[serde(rename = "Peer")]
    peer: String,
}

#[derive(Deserialize)]
struct ResolveAnswer {
    #[serde(rename = "Path")]
    path: String,
}

#[derive(Deserialize)]
struct ConnectAnswer {}

impl Client {
    /// Returns the node's identity. Addresses of unknown form are left out.
    ///
    /// # Errors
    /// The node cannot be reached, does not answer in time, or its answer is invalid.
    pub async fn id(&self) -> Result<Identity, Error> {
        let answer: IdAnswer = self
            .transport
            .object("id", "", self.config.request_timeout)
            .await?;
        let addresses = answer.addresses.unwrap_or_default();
        Ok(Identity {
            id: parse_peer("id", &answer.id)?,
            addresses: addresses
                .iter()
                .filter_map(|address| address.parse().ok())
                .collect(),
            agent: answer.agent,
        })
    }

    /// Asks the node to connect to the peer at `address`, which ends in `/p2p/…`.
    ///
    /// # Errors
    /// The node cannot be reached, or cannot connect.
    pub async fn connect(&self, address: &Multiaddr) -> Result<(), Error> {
        let query = Query::new().with("arg", address.to_string());
        let limit = self.config.request_timeout;
        let ConnectAnswer {} = self
            .transport
            .object("swarm/connect", query.as_str(), limit)
            .await?;
        Ok(())
    }

    /// Returns the peers the node is connected to.
    ///
    /// # Errors
    /// The node cannot be reached, does not answer in time, or its answer is invalid.
    pub async fn swarm_peers(&self) -> Result<Vec<PeerId>, Error> {
        let answer: PeersAnswer = self
            .transport
            .object("swarm/peers", "", self.config.request_timeout)
            .await?;
        let peers = answer.peers.unwrap_or_default();
        peers
            .iter()
            .map(|line| parse_peer("swarm/peers", &line.peer))
            .collect()
    }

    /// Returns one value of the node's configuration; `path` is separated by slashes, as in
    /// `Datastore/StorageMax`.
    ///
    /// # Errors
    /// [`Cause::Refused`] if there is no such key; the node cannot be reached or its answer is invalid.
    pub async fn config_value(&self, path: &str) -> Result<serde_json::Value, Error> {
        let limit = self.config.request_timeout;
        let mut value: serde_json::Value = self.transport.object("config/show", "", limit).await?;
        for key in path.split('/') {
            value = match value.get_mut(key) {
                Some(inner) => inner.take(),
                None => {
                    let message = format!("the configuration of the node has no key {path:?}");
                    return Err(Error::new(Cause::Refused, "config/show", message));
                }
            };
        }
        Ok(value)
    }

    /// Returns the storage used and available.
    ///
    /// # Errors
    /// The node cannot be reached, does not answer in time, or its answer is invalid.
    pub async fn repo_stat(&self) -> Result<RepoStat, Error> {
        let limit = self.config.request_timeout;
        let answer: RepoStatAnswer = self
            .transport
            .object("repo/stat", "?size-only=true", limit)
            .await?;
        Ok(RepoStat {
            size: answer.size,
            storage_max: answer.storage_max,
        })
    }

    /// Returns the number of stored blocks.
    ///
    /// # Errors
    /// The node cannot be reached, or does not answer within `repo_gc_timeout`.
    pub async fn repo_objects(&self) -> Result<u64, Error> {
        // Kubo walks through all blocks for this, as a collection does: hence the same time limit.
        let limit = self.config.repo_gc_timeout;
        let answer: ObjectsAnswer = self.transport.object("repo/stat", "", limit).await?;
        Ok(answer.objects)
    }

    /// Collects garbage and streams every key removed. Failures of single blocks are items, not errors.
    ///
    /// # Errors
    /// An item is an error when the call fails as a whole; it is the last item.
    pub fn repo_gc(&self) -> impl Stream<Item = Result<Collected, Error>> + Send + 'static {
        stream::try_unfold((self.clone(), None), |(client, open)| async move {
            let mut lines = match open {
                Some(lines) => lines,
                None => {
                    let limit = Limit::Total(client.config.repo_gc_timeout);
                    client
                        .transport
                        .lines("repo/gc", "?stream-errors=true", limit)
                        .await?
                }
            };
            let Some(line) = lines.next::<GcLine>().await? else {
                return Ok(None);
            };
            let item = match line.key {
                Some(link) => Collected::Removed(parse_cid("repo/gc", &link.cid)?),
                None => Collected::Failed(line.error),
            };
            Ok(Some((item, (client, Some(lines)))))
        })
    }

    /// Resolves `path` (a CID, `/ipfs/…` or `/ipns/…`) to a CID. A bare CID costs no request.
    ///
    /// # Errors
    /// The node cannot be reached or cannot resolve the path, or it resolves to a mutable name.
    pub async fn resolve(&self, path: &Name) -> Result<Cid, Error> {
        let text = path.as_text();
        if let Some(Ok(cid)) = text.map(|text| Cid::try_from(text.strip_prefix("/ipfs/").unwrap_or(text))) {
            return Ok(cid);
        }
        let query = Query::new().with("arg", path);
        let limit = self.config.request_timeout;
        let answer: ResolveAnswer = self.transport.object("resolve", query.as_str(), limit).await?;
        let root = answer
            .path
            .strip_prefix("/ipfs/")
            .and_then(|rest| rest.split('/').next());
        match root {
            Some(root) => parse_cid("resolve", root),
            None => {
                let message = format!("{path} resolves to {}, which may change", answer.path);
                Err(Error::new(Cause::Refused, "resolve", message))
            }
        }
    }
}

fn parse_peer(command: &str, id: &str) -> Result<PeerId, Error> {
    id.parse().map_err(|error| {
        Error::new(
            Cause::BadAnswer,
            command,
            format!("not a peer id: {id:?} ({error})"),
        )
    })
}
