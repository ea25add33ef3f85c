//! Small DHT servers of rust-libp2p.

use crate::Outcome;
use cluster_ipfs::{Multiaddr, PeerId};
use futures::StreamExt;
use libp2p::kad::store::{MemoryStore, RecordStore, Result};
use libp2p::kad::{self, ProviderRecord, QueryResult, Record, RecordKey};
use libp2p::swarm::{NetworkBehaviour, StreamProtocol, SwarmEvent};
use libp2p::{Swarm, SwarmBuilder, identify, noise, ping, tcp, yamux};
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Announcements of one key, at all servers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Announced {
    pub(crate) records: usize,
    pub(crate) last: Instant,
    /// Maximum time without a new record.
    pub(crate) gap: Duration,
}

/// Provider records that all servers of a network receive: they are counted, not stored.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    keys: Mutex<HashMap<RecordKey, Announced>>,
}

impl Tally {
    fn note(&self, key: RecordKey) {
        let now = Instant::now();
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let announced = keys.entry(key).or_insert(Announced {
            records: 0,
            last: now,
            gap: Duration::ZERO,
        });
        announced.records += 1;
        announced.gap = announced.gap.max(now - announced.last);
        announced.last = now;
    }

    /// Returns the state of each key, and resets the counts of records and gaps.
    pub(crate) fn take(&self) -> Vec<Announced> {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = keys.values().copied().collect();
        for announced in keys.values_mut() {
            announced.records = 0;
            announced.gap = Duration::ZERO;
        }
        taken
    }
}

/// Store of a server.
pub(crate) struct Store {
    memory: MemoryStore,
    tally: Option<Arc<Tally>>,
}

impl RecordStore for Store {
    type RecordsIter<'a> = <MemoryStore as RecordStore>::RecordsIter<'a>;
    type ProvidedIter<'a> = <MemoryStore as RecordStore>::ProvidedIter<'a>;

    fn get(&self, key: &RecordKey) -> Option<Cow<'_, Record>> {
        self.memory.get(key)
    }

    fn put(&mut self, record: Record) -> Result<()> {
        self.memory.put(record)
    }

    fn remove(&mut self, key: &RecordKey) {
        self.memory.remove(key);
    }

    fn records(&self) -> Self::RecordsIter<'_> {
        self.memory.records()
    }

    fn add_provider(&mut self, record: ProviderRecord) -> Result<()> {
        match &self.tally {
            Some(tally) => tally.note(record.key),
            None => self.memory.add_provider(record)?,
        }
        Ok(())
    }

    fn providers(&self, key: &RecordKey) -> Vec<ProviderRecord> {
        self.memory.providers(key)
    }

    fn provided(&self) -> Self::ProvidedIter<'_> {
        self.memory.provided()
    }

    fn remove_provider(&mut self, key: &RecordKey, provider: &PeerId) {
        self.memory.remove_provider(key, provider);
    }
}

#[derive(NetworkBehaviour)]
pub(crate) struct Server {
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    kad: kad::Behaviour<Store>,
}

/// Creates a server that listens on loopback.
pub(crate) async fn server(tally: Option<Arc<Tally>>) -> Outcome<(Swarm<Server>, Multiaddr)> {
    let mut swarm = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(
            tcp::Config::new().nodelay(true),
            noise::Config::new,
            yamux::Config::default,
        )?
        .with_behaviour(|key| {
            let id = key.public().to_peer_id();
            let config = kad::Config::new(StreamProtocol::new("/ipfs/lan/kad/1.0.0"));
            let memory = MemoryStore::new(id);
            let mut kad = kad::Behaviour::with_config(id, Store { memory, tally }, config);
            kad.set_mode(Some(kad::Mode::Server));
            let identify = identify::Config::new("/ipfs/id/1.0.0".into(), key.public());
            Server {
                identify: identify::Behaviour::new(identify),
                ping: ping::Behaviour::default(),
                kad,
            }
        })?
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(3600)))
        .build();
    swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse()?)?;
    loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            return Ok((swarm, address));
        }
    }
}

/// Runs a server until the process ends. Returns the end of its first refresh of the routing table, which
/// follows the first entry.
pub(crate) fn run(mut swarm: Swarm<Server>) -> oneshot::Receiver<()> {
    let (refreshed, refresh) = oneshot::channel();
    tokio::spawn(async move {
        let mut refreshed = Some(refreshed);
        loop {
            if let SwarmEvent::Behaviour(ServerEvent::Kad(kad::Event::OutboundQueryProgressed {
                result: QueryResult::Bootstrap(_),
                step,
                ..
            })) = swarm.select_next_some().await
                && step.last
                && let Some(refreshed) = refreshed.take()
            {
                let _ = refreshed.send(());
            }
        }
    });
    refresh
}

/// Runs a network in which each server knows some others and some dead ones. Returns addresses of a few once
/// all have refreshed their routing tables, which takes most of this machine's CPU for a while.
pub(crate) async fn network(
    count: usize,
    dead_percent: usize,
    tally: Option<&Arc<Tally>>,
) -> Outcome<Vec<Multiaddr>> {
    let mut servers = Vec::new();
    for _ in 0..count {
        servers.push(server(tally.cloned()).await?);
    }
    let known: Vec<(PeerId, Multiaddr)> = servers
        .iter()
        .map(|(swarm, address)| (*swarm.local_peer_id(), address.clone()))
        .collect();
    let dead: Vec<(PeerId, Multiaddr)> = (0..count * dead_percent / 100)
        .map(|number| {
            let address = format!("/ip4/127.0.0.1/tcp/{}", 1 + number % 9);
            Ok((PeerId::random(), address.parse()?))
        })
        .collect::<Outcome<_>>()?;
    let (start, mut refreshes) = (Instant::now(), Vec::new());
    for (mut swarm, _) in servers {
        for (peer, address) in known.iter().chain(&dead) {
            if peer != swarm.local_peer_id() {
                swarm.behaviour_mut().kad.add_address(peer, address.clone());
            }
        }
        refreshes.push(run(swarm));
    }
    futures::future::try_join_all(refreshes).await?;
    eprintln!("{count} servers have joined within {:?}", start.elapsed());
    let entries = known.iter().take(4);
    let address = |(peer, address): &(PeerId, Multiaddr)| address.clone().with_p2p(*peer);
    let entries: std::result::Result<_, Multiaddr> = entries.map(address).collect();
    entries.map_err(|_| "an address of another peer".into())
}
