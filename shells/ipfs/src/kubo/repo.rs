//! What the node is, what it stores, whom it knows.

use crate::Cid;
use futures::{Stream, stream};
use libp2p::{Multiaddr, PeerId};
use serde::Deserialize;

use super::query::Query;
use super::transport::Limit;
use super::{Client, parse_cid};
use crate::backend::{Cause, Collected, Error, Identity, RepoStat};

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

/// A number, or one written as text: js-ipfs does that because JavaScript's own numbers are too small.
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
    /// Who the node is. Addresses in a form unknown here are left out.
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

    /// Asks the node to connect to the peer that `address` ends with.
    pub async fn connect(&self, address: &Multiaddr) -> Result<(), Error> {
        let query = Query::new().with("arg", &address.to_string());
        let limit = self.config.request_timeout;
        let ConnectAnswer {} = self
            .transport
            .object("swarm/connect", query.as_str(), limit)
            .await?;
        Ok(())
    }

    /// The peers the node is connected to.
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

    /// One value of the node's configuration; `path` is as in `Datastore/StorageMax`.
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

    /// How much the node stores and may store.
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

    /// How many blocks the node stores.
    pub async fn repo_objects(&self) -> Result<u64, Error> {
        // It walks through all of them, so it has the time of a collection, which does the same.
        let limit = self.config.repo_gc_timeout;
        let answer: ObjectsAnswer = self.transport.object("repo/stat", "", limit).await?;
        Ok(answer.objects)
    }

    /// Collects garbage and tells every key it removes. Ends after the first error of the whole call;
    /// failures of single blocks are items.
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

    /// The CID that `path` (a CID, `/ipfs/…` or `/ipns/…`) stands for. A bare CID costs no request.
    pub async fn resolve(&self, path: &str) -> Result<Cid, Error> {
        if let Ok(cid) = Cid::try_from(path.strip_prefix("/ipfs/").unwrap_or(path)) {
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
