//! A running peer: opens what it keeps, starts its parts, and ends them in order.

mod listen;
mod swarm;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use cluster_core::{Event, Incarnation, Members, PeerId, Recovered};
use cluster_ipfs::{Backend, Node as IpfsNode, kubo};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cluster::{self, Cluster};
use crate::config::{Address, Config, Folder, Peerstore, core_peer};
use crate::driver::{Disk, Driver, Handle, Informer, Measured, Parts, stage};
use crate::http::Server;
use crate::net::{CoreEvent, CoreEvents, Multiaddr, Net, NetConfig, NetEvents};
use crate::store::{OpenOptions, Store};

/// How often changes of the membership are passed on to the network.
const WATCH_INTERVAL: Duration = Duration::from_millis(200);

/// On top of the time to wait for a leader: what goes before must have its time too. As in the Go peer.
const READY_SLACK: Duration = Duration::from_secs(5);

/// The peerstore is saved no more often than this.
const PEERSTORE_PAUSE: Duration = Duration::from_secs(10);

/// Requests that are being answered have this long to end at a shutdown.
const DRAIN: Duration = Duration::from_secs(5);

/// How often a peer that is not ready says what it waits for.
const WAITING_INTERVAL: Duration = Duration::from_secs(5);

/// What the command line says of a run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Peers to join the cluster of.
    pub bootstrap: Vec<Address>,
    /// Whether to leave the cluster at the end.
    pub leave: bool,
    /// Whether to serve counters.
    pub stats: bool,
}

/// Runs the peer whose configuration is in `folder` until `shutdown` is cancelled.
///
/// # Errors
/// A part cannot be started, or the peer does not become ready in time: the error says which, and why.
pub async fn run(folder: &Path, options: Options, shutdown: CancellationToken) -> anyhow::Result<()> {
    if !options.bootstrap.is_empty() || options.leave {
        anyhow::bail!(
            "joining and leaving a running cluster is not supported by this release: list all peers with \
             `init --peers`"
        );
    }
    let folder = Folder::open(folder, &crate::config::environment())?;
    for warning in &folder.warnings {
        tracing::warn!("{warning}");
    }
    let running = Running::start(&folder).await?;
    let outcome = tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        ready = running.ready(&folder.config) => match ready {
            Ok(()) => {
                shutdown.cancelled().await;
                Ok(())
            }
            Err(error) => Err(error),
        },
    };
    running.stop(&folder).await;
    outcome
}

/// All parts of a peer that runs.
struct Running {
    driver: Driver,
    net: Net,
    backend: Backend,
    tasks: JoinSet<()>,
    http: Option<Server>,
    stop: CancellationToken,
    me: PeerId,
}

impl Running {
    async fn start(folder: &Folder) -> anyhow::Result<Self> {
        let config = &folder.config;
        let me = core_peer(&folder.identity.peer);
        // Both read much of what they have, each on a thread of its own: the node's open has started when
        // the store's begins.
        let opening = async { tokio::task::block_in_place(|| open_store(folder)) };
        let (backend, (store, recovered)) = tokio::try_join!(open_backend(folder), opening)?;
        let members = recovered.members.clone();
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        if let Backend::Embedded(node) = &backend {
            listen::serve_ipfs_api(config, node, &stop, &mut tasks).await?;
        }
        let (net, events) = start_net(folder, &members).await?;
        let informer = Informer::new(backend.clone(), measured(config));
        let (reader, stager) = (store.reader(), store.stager());
        let parts = Parts {
            config: config.core(&folder.identity),
            store,
            net: net.clone(),
            backend: backend.clone(),
            informer,
        };
        let driver = Driver::start(parts, recovered);
        let handle = driver.handle.clone();
        let settings = cluster::Config {
            peer: me.clone(),
            peername: config.cluster.peername.clone(),
            default_replicas: config.core(&folder.identity).default_replicas,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: String::new(),
        };
        let world = world::world(handle.clone(), reader, net.clone());
        let cluster = Cluster::new(settings, world, backend.clone());
        let NetEvents {
            core,
            calls,
            snapshots,
            addresses,
        } = events;
        tasks.spawn(pump(core, handle.clone()));
        tasks.spawn(stage(snapshots, stager, handle.clone()));
        let peerstore = config.peerstore_file(&folder.path);
        tasks.spawn(keep_peerstore(addresses, peerstore, net.clone()));
        tasks.spawn(watch_members(net.clone(), handle.clone()));
        tasks.spawn(swarm::connect(
            backend.clone(),
            handle.clone(),
            me.clone(),
            swarm_delay(config),
        ));
        tasks.spawn(world::serve_calls(calls, cluster.clone()));
        let http = listen::serve_rest(config, cluster).await?;
        Ok(Self {
            driver,
            net,
            backend,
            tasks,
            http,
            stop,
            me,
        })
    }

    /// Waits for a leader and for this peer to be a part of what it leads.
    async fn ready(&self, config: &Config) -> anyhow::Result<()> {
        let limit = config.consensus.raft.wait_for_leader_timeout.0 + READY_SLACK;
        let waiting = async {
            let mut waited = Duration::ZERO;
            loop {
                let follows = |view: cluster_core::View<'_>, _| {
                    view.leader().is_some() && view.applied().term == view.term()
                };
                if self.driver.handle.view(follows).await == Some(true) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
                waited += Duration::from_millis(50);
                if waited.as_millis().is_multiple_of(WAITING_INTERVAL.as_millis()) {
                    self.say_what_is_missing().await;
                }
            }
        };
        let Ok(()) = tokio::time::timeout(limit, waiting).await else {
            self.say_what_is_missing().await;
            anyhow::bail!(
                "no leader within {limit:?} (consensus.raft.wait_for_leader_timeout and {READY_SLACK:?}): a \
                 majority of the cluster's voters must be running and reachable. Start the others, or check \
                 their addresses in the peerstore, and start this peer again"
            );
        };
        let members = self.driver.handle.view(|view, _| view.members().clone()).await;
        let peers: Vec<String> = members
            .iter()
            .flat_map(Members::peer_ids)
            .map(ToString::to_string)
            .collect();
        tracing::info!("Cluster Peers (without including ourselves):");
        for peer in peers.iter().filter(|peer| **peer != self.me.to_string()) {
            tracing::info!("    - {peer}");
        }
        if peers.len() < 2 {
            tracing::info!("    - No other peers");
        }
        tracing::info!("** IPFS Cluster is READY **");
        Ok(())
    }

    async fn say_what_is_missing(&self) {
        let Some(members) = self.driver.handle.view(|view, _| view.members().clone()).await else {
            return;
        };
        let connected = self.net.connected();
        for peer in members
            .peer_ids()
            .filter(|peer| **peer != self.me && !connected.contains(*peer))
        {
            let known: Vec<String> = self
                .net
                .known_addresses(peer)
                .iter()
                .map(ToString::to_string)
                .collect();
            let known = if known.is_empty() {
                "no address of it is known: add one to the peerstore".to_owned()
            } else {
                format!("tried at {}", known.join(", "))
            };
            tracing::info!("waiting for {peer}: not connected, {known}");
        }
        let (here, others) = (connected.len(), members.peers.len() - 1);
        tracing::info!("waiting for a leader: {here} of {others} members are connected");
    }

    /// Ends the parts, those first that others speak to.
    async fn stop(mut self, folder: &Folder) {
        if let Some(http) = self.http {
            http.shutdown(DRAIN).await;
        }
        self.stop.cancel();
        save_peerstore(&folder.config.peerstore_file(&folder.path), &self.net);
        let store = tokio::task::spawn_blocking(move || self.driver.stop()).await;
        self.net.shutdown().await;
        self.tasks.shutdown().await;
        self.backend.shutdown().await;
        if let Ok(Some(store)) = store
            && let Err(error) = store.close()
        {
            tracing::error!("the state could not be synced at the end: {error}");
        }
        tracing::info!("IPFS Cluster peer stopped");
    }
}

fn open_store(folder: &Folder) -> anyhow::Result<(Store, Recovered)> {
    let Folder { config, identity, .. } = folder;
    let data = config.data_folder(&folder.path);
    let mut store = Store::open(&data, &OpenOptions::default())?;
    if let Some(recovered) = store.recovered()? {
        let me = core_peer(&identity.peer);
        if recovered.members.raft_id(&me).is_none() {
            anyhow::bail!(
                "the data in {} belongs to the cluster {}, of which {me} is not a member: this folder is \
                 another peer's, or this peer was removed. To start anew, move the folder away",
                data.display(),
                recovered.members.cluster,
            );
        }
        return Ok((store, recovered));
    }
    let members = Members::initial(config.init_peerset(identity));
    let recovered = Recovered::founding(Incarnation(rand::random()), members);
    store.found(&recovered)?;
    let (cluster, peers) = (recovered.members.cluster, recovered.members.peers.len());
    tracing::info!("founding the cluster {cluster} of {peers} peers");
    Ok((store, recovered))
}

async fn open_backend(folder: &Folder) -> anyhow::Result<Backend> {
    let config = &folder.config;
    if let Some(kubo) = config.kubo() {
        return Ok(Backend::Kubo(kubo::Client::new(kubo)?));
    }
    let embedded = config
        .embedded(&folder.path)
        .context("no section of ipfs_connector is configured")?;
    let path = embedded.path.clone();
    let node = IpfsNode::open(embedded)
        .await
        .with_context(|| format!("cannot open the embedded IPFS node in {}", path.display()))?;
    Ok(Backend::Embedded(node))
}

async fn start_net(folder: &Folder, members: &Members) -> anyhow::Result<(Net, NetEvents)> {
    let Folder {
        config,
        identity,
        peerstore,
        ..
    } = folder;
    let mut known_peers: BTreeMap<PeerId, Vec<Multiaddr>> = BTreeMap::new();
    for address in peerstore.addresses.iter().chain(&config.cluster.peer_addresses) {
        if let Some(peer) = address.peer() {
            known_peers
                .entry(core_peer(&peer))
                .or_default()
                .push(address.0.clone());
        }
    }
    let addresses = |configured: &[Address]| configured.iter().map(|address| address.0.clone()).collect();
    let net = NetConfig {
        keypair: identity.keypair.clone(),
        secret: config.cluster.secret.0,
        accepted_secrets: config
            .cluster
            .accepted_secrets
            .iter()
            .map(|secret| secret.0)
            .collect(),
        listen: addresses(&config.cluster.listen_multiaddress.0),
        announce: addresses(&config.cluster.announce_multiaddress.0),
        cluster: members.cluster,
        known_peers,
        open_methods: BTreeSet::new(),
    };
    let (net, events) = Net::start(net).await?;
    net.set_members(members.peer_ids().cloned().collect()).await;
    Ok((net, events))
}

fn measured(config: &Config) -> Measured {
    let ping_ttl = config.cluster.monitor_ping_interval.0 * 2;
    let informer = &config.informer;
    // Everything is measured as often as a `ping` is sent, and must count until the next time.
    let ttl = |ttl: Duration| ttl.max(ping_ttl);
    let disk = informer.disk.as_ref().map(|disk| {
        let kind = if disk.metric_type.name() == "reposize" {
            Disk::RepoSize
        } else {
            Disk::FreeSpace
        };
        (kind, ttl(disk.metric_ttl.0))
    });
    let tags = informer.tags.iter().flat_map(|tags| {
        tags.tags
            .iter()
            .map(|(name, value)| (name.clone(), value.clone(), ttl(tags.metric_ttl.0)))
    });
    Measured {
        peername: config.cluster.peername.clone(),
        ping_ttl,
        disk,
        tags: tags.collect(),
    }
}

/// The embedded node needs its neighbours at once: without them it finds nothing.
fn swarm_delay(config: &Config) -> Duration {
    let kubo = config.ipfs_connector.ipfshttp.as_ref();
    kubo.map_or(Duration::ZERO, |kubo| kubo.connect_swarms_delay.0)
}

async fn pump(mut events: CoreEvents, handle: Handle) {
    while let Some(event) = events.recv().await {
        match event {
            CoreEvent::Received { from, envelope } => handle.received(from, envelope).await,
            CoreEvent::Unreachable { peer } => handle.event(Event::Unreachable { peer }),
        }
    }
}

/// Passes changes of the membership on to the network, and of the leadership to whoever reads the log.
async fn watch_members(net: Net, handle: Handle) {
    let (mut last, mut last_leader) = (BTreeSet::new(), None);
    loop {
        let read = |view: cluster_core::View<'_>, _| -> (BTreeSet<PeerId>, Option<PeerId>) {
            (
                view.members().peer_ids().cloned().collect(),
                view.leader().cloned(),
            )
        };
        let Some((members, leader)) = handle.view(read).await else {
            return;
        };
        if members != last {
            net.set_members(members.clone()).await;
            last = members;
        }
        if leader != last_leader {
            match &leader {
                Some(leader) => tracing::info!("the cluster's leader is {leader}"),
                None => tracing::warn!("the cluster has no leader: writes wait for one"),
            }
            last_leader = leader;
        }
        tokio::time::sleep(WATCH_INTERVAL).await;
    }
}

/// Keeps where the others are, for the next start, each time that it changes.
async fn keep_peerstore(mut changes: watch::Receiver<u64>, path: PathBuf, net: Net) {
    while changes.changed().await.is_ok() {
        save_peerstore(&path, &net);
        tokio::time::sleep(PEERSTORE_PAUSE).await;
    }
}

/// They tell again, so a failure is no harm.
fn save_peerstore(path: &Path, net: &Net) {
    let addresses: Vec<_> = net.peerstore().into_values().flatten().map(Address).collect();
    if !addresses.is_empty()
        && let Err(error) = Peerstore::save(path, &addresses)
    {
        tracing::warn!("the peerstore could not be saved: {error}");
    }
}
