//! Content routing: who has a block, where a peer is, and values under keys.
//!
//! [`ContentRouting`] asks the DHTs (`libp2p-kad` in [`crate::swarm`]) and the delegated routers
//! ([`delegated`]) in parallel and passes on what either finds, as it arrives. It decides nothing about
//! blocks: which content is looked up, and how many providers are enough, is decided by [`crate::retrieval`].

mod delegated;

use crate::settings::PublicNetwork;
use crate::steps::Recorder;
use crate::swarm::Network;
use crate::swarm::addresses::{Scope, dialable};
use crate::swarm::dht::{FoundPeer, Lookup, sender};
use crate::{Cid, Error};
use delegated::Delegated;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use libp2p::{Multiaddr, PeerId};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Transport of providers that serve blocks over HTTP.
pub(crate) const HTTP_TRANSPORT: &str = "transport-ipfs-gateway-http";

/// Time limit of a lookup.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(60);
/// Capacity of the channel of found peers.
const FOUND_MAX: usize = 64;
/// Concurrent sends of records.
const SENDS: usize = 20;
/// Limit on the keys of one message exchange with a server.
const KEYS_MAX: usize = 1000;

/// A peer that has the content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    /// The peer.
    pub peer: PeerId,
    /// Addresses at which this node may dial it; for HTTP, those of its servers. May be empty.
    pub addresses: Vec<Multiaddr>,
    /// Names of the transfer protocols, if known: `transport-bitswap`, `transport-ipfs-gateway-http`.
    pub protocols: Vec<String>,
}

/// Lookups in the DHTs and at the delegated routers.
#[derive(Debug)]
pub(crate) struct ContentRouting {
    network: Arc<Network>,
    settings: Arc<PublicNetwork>,
    delegated: Option<Delegated>,
    local: PeerId,
}

impl ContentRouting {
    /// Creates the client of the routers that the settings name.
    pub(crate) fn new(
        network: Arc<Network>,
        settings: Arc<PublicNetwork>,
        local: PeerId,
    ) -> Result<ContentRouting, Error> {
        let routing = settings.effective_routing();
        let delegated = (routing.uses_delegated() && !settings.delegated_routers.is_empty())
            .then(|| Delegated::new(&settings.delegated_routers, network.local_scope()))
            .transpose();
        let delegated = delegated.map_err(|error| Error::io("starting the http client", error))?;
        Ok(ContentRouting {
            network,
            settings,
            delegated,
            local,
        })
    }

    /// Returns whether lookups can find anything beyond the connected peers.
    pub(crate) fn is_on(&self) -> bool {
        self.settings.effective_routing().uses_dht() || self.delegated.is_some()
    }

    /// Returns whether a DHT has been joined.
    pub(crate) fn is_in_dht(&self) -> bool {
        self.network.dhts().iter().any(|dht| dht.peers > 0)
    }

    /// Searches providers of a block. The search ends after `limit` of them, after a minute, or when the
    /// receiver is dropped.
    pub(crate) fn providers(
        self: &Arc<Self>,
        cid: Cid,
        limit: usize,
        recorder: &Recorder,
    ) -> mpsc::Receiver<Provider> {
        let (found, receiver) = mpsc::channel(FOUND_MAX);
        let (routing, recorder) = (self.clone(), recorder.clone());
        tokio::spawn(async move {
            let (each, mut all) = mpsc::channel(FOUND_MAX);
            let search = async {
                tokio::join!(
                    routing.search_dht(&cid, each.clone(), &recorder),
                    routing.search_delegated(&cid, each.clone(), &recorder),
                );
                drop(each);
                std::future::pending::<()>().await;
            };
            let collect = async {
                let mut seen = HashSet::new();
                while seen.len() < limit
                    && let Some(provider) = all.recv().await
                {
                    let provider: Provider = provider;
                    if provider.peer == routing.local || !seen.insert(provider.peer) {
                        continue;
                    }
                    if found.send(provider).await.is_err() {
                        return;
                    }
                }
            };
            tokio::select! {
                () = collect => {}
                () = search => {}
                () = found.closed() => {}
                () = tokio::time::sleep(LOOKUP_TIMEOUT) => {}
            }
        });
        receiver
    }

    async fn search_dht(&self, cid: &Cid, each: mpsc::Sender<Provider>, recorder: &Recorder) {
        if !self.settings.effective_routing().uses_dht() {
            return;
        }
        let step = recorder.begin("routing.dht");
        let mut seen = HashSet::new();
        let (found, mut results) = mpsc::channel(FOUND_MAX);
        if let Err(error) = self
            .network
            .find(Lookup::Providers(cid.hash().to_bytes(), found))
            .await
        {
            tracing::debug!(%cid, %error, "no search of providers in the dht");
            step.fail(&error);
            return;
        }
        while let Some(FoundPeer { peer, addresses }) = results.recv().await {
            let provider = Provider {
                peer,
                addresses,
                protocols: vec!["transport-bitswap".to_owned()],
            };
            // Several servers know the same provider.
            if !seen.insert(peer) {
                continue;
            }
            step.set_number("ipfs.providers", seen.len() as u64);
            if each.send(provider).await.is_err() {
                return;
            }
        }
    }

    async fn search_delegated(&self, cid: &Cid, each: mpsc::Sender<Provider>, recorder: &Recorder) {
        if let Some(delegated) = &self.delegated {
            delegated.providers(cid, &each, recorder).await;
        }
    }

    /// Returns the addresses of a peer: those of a connection, or what the DHTs and routers know.
    ///
    /// # Errors
    /// [`Error::Busy`] if too many lookups run.
    pub(crate) async fn find_peer(&self, peer: PeerId) -> Result<Vec<Multiaddr>, Error> {
        if let Some(identity) = self.network.identified(&peer) {
            return Ok(identity.addresses);
        }
        let (found, mut results) = mpsc::channel(FOUND_MAX);
        let asked = async {
            match &self.delegated {
                Some(delegated) => delegated.peer(&peer).await,
                None => Vec::new(),
            }
        };
        if self.settings.effective_routing().uses_dht() {
            self.network.find(Lookup::Peer(peer, found)).await?;
        } else {
            drop(found);
        }
        let looked_up = async {
            let first = tokio::time::timeout(LOOKUP_TIMEOUT, results.recv()).await;
            first
                .ok()
                .flatten()
                .map(|found| found.addresses)
                .unwrap_or_default()
        };
        // The first answer with addresses is enough.
        let mut answers = FuturesUnordered::new();
        answers.push(futures::future::Either::Left(asked));
        answers.push(futures::future::Either::Right(looked_up));
        while let Some(addresses) = answers.next().await {
            if !addresses.is_empty() {
                return Ok(addresses);
            }
        }
        Ok(Vec::new())
    }

    /// Returns the DHT servers closest to a key: those of the public DHT, or without it of the local one.
    ///
    /// # Errors
    /// [`Error::Busy`] if too many lookups run.
    pub(crate) async fn closest(&self, key: Vec<u8>) -> Result<Vec<FoundPeer>, Error> {
        self.servers(|found| Lookup::Closest(key, found)).await
    }

    /// As [`ContentRouting::closest`], without waiting for servers that do not answer: closer ones may be
    /// among them.
    async fn settled(&self, key: Vec<u8>) -> Result<Vec<FoundPeer>, Error> {
        self.servers(|found| Lookup::Settled(key, found)).await
    }

    async fn servers(
        &self,
        lookup: impl FnOnce(mpsc::Sender<FoundPeer>) -> Lookup,
    ) -> Result<Vec<FoundPeer>, Error> {
        if !self.settings.effective_routing().uses_dht() {
            return Ok(Vec::new());
        }
        let (found, mut results) = mpsc::channel(FOUND_MAX);
        self.network.find(lookup(found)).await?;
        let mut closest = Vec::new();
        while let Some(peer) = results.recv().await {
            closest.push(peer);
        }
        Ok(closest)
    }

    /// Returns the scope of a DHT server by its addresses.
    fn scope_of(&self, server: &FoundPeer) -> Scope {
        let is_public = server
            .addresses
            .iter()
            .any(|address| Scope::Public.contains(address));
        if is_public {
            Scope::Public
        } else {
            self.network.local_scope()
        }
    }

    /// Announces to the servers closest to a block that this node has it. Returns the number of servers that
    /// accepted the record.
    ///
    /// # Errors
    /// [`Error::Busy`] if too many lookups run.
    pub(crate) async fn provide(&self, cid: &Cid) -> Result<usize, Error> {
        let key = cid.hash().to_bytes();
        let servers = self.settled(key.clone()).await?;
        let keys = [key];
        // Collected first: a stream of borrowing closures is not `Send`.
        let sends: Vec<_> = servers
            .iter()
            .map(|server| self.provide_to(server, &keys))
            .collect();
        let sent = futures::stream::iter(sends).buffer_unordered(SENDS);
        Ok(sent.filter(|sent| std::future::ready(*sent)).count().await)
    }

    /// Announces keys to one server. Returns whether it accepted the records.
    pub(crate) async fn provide_to(&self, server: &FoundPeer, keys: &[Vec<u8>]) -> bool {
        let scope = self.scope_of(server);
        let addresses = self.network.announced(scope);
        if addresses.is_empty() {
            return false;
        }
        let dialled = self
            .network
            .dial(server.peer, dialable(server.addresses.clone(), &[scope]))
            .await;
        if dialled.is_err() {
            return false;
        }
        for keys in keys.chunks(KEYS_MAX) {
            let to = (server.peer, scope);
            let sent = sender::add_providers(self.network.streams(), to, keys, self.local, &addresses).await;
            if let Err(error) = sent {
                tracing::debug!(server = %server.peer, %error, "a dht server refused provider records");
                return false;
            }
        }
        true
    }

    /// Searches copies of a value. The caller chooses among them; the search ends when the receiver is
    /// dropped.
    ///
    /// # Errors
    /// [`Error::Busy`] if too many lookups run.
    pub(crate) async fn values(self: &Arc<Self>, key: Vec<u8>) -> Result<mpsc::Receiver<Vec<u8>>, Error> {
        let (found, receiver) = mpsc::channel(FOUND_MAX);
        if self.settings.effective_routing().uses_dht() {
            self.network
                .find(Lookup::Values(key.clone(), found.clone()))
                .await?;
        }
        let routing = self.clone();
        tokio::spawn(async move {
            if let Some(delegated) = &routing.delegated {
                delegated.value(&key, &found).await;
            }
        });
        Ok(receiver)
    }

    /// Stores a value that its key allows at the closest servers and the routers, and among the records that
    /// this node serves. Returns the number of servers that accepted it.
    ///
    /// # Errors
    /// [`Error::Busy`] if too many lookups run.
    pub(crate) async fn put_value(&self, key: Vec<u8>, value: Vec<u8>) -> Result<usize, Error> {
        self.network.store_value(key.clone(), value.clone()).await?;
        let servers = self.settled(key.clone()).await?;
        let puts: Vec<_> = servers
            .iter()
            .map(|server| self.put_to(server, &key, &value))
            .collect();
        let stored = futures::stream::iter(puts).buffer_unordered(SENDS);
        let stored = stored.filter(|stored| std::future::ready(*stored)).count();
        let delegated = async {
            match &self.delegated {
                Some(delegated) => delegated.put_value(&key, &value).await,
                None => 0,
            }
        };
        let (stored, delegated) = tokio::join!(stored, delegated);
        Ok(stored + delegated)
    }

    /// Stores a value at one server. Returns whether it was accepted.
    async fn put_to(&self, server: &FoundPeer, key: &[u8], value: &[u8]) -> bool {
        let scope = self.scope_of(server);
        let addresses = dialable(server.addresses.clone(), &[scope]);
        if self.network.dial(server.peer, addresses).await.is_err() {
            return false;
        }
        let to = (server.peer, scope);
        let put = sender::put_value(self.network.streams(), to, key, value).await;
        if let Err(error) = &put {
            tracing::debug!(server = %server.peer, %error, "a dht server refused a value");
        }
        put.is_ok()
    }
}
