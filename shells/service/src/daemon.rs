//! A running peer: opens its folder, starts the components, and stops them in order.

mod auto_gc;
mod bootstrap;
mod calls;
mod ipfs_swarm;
mod lan;
mod listen;
mod members;
mod node_runtime;
mod parts;
mod provide_duty;
mod ready;
mod systemd;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context;
use cluster_core::{Event, PeerId, Recovered, Refusal, Request};
use cluster_ipfs::{Backend, Node};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::bootstrap::{Bootstrap, how_to_come_back};
use self::members::MembershipWatch;
use self::node_runtime::NodeRuntime;
use self::ready::Readiness;
use crate::config::{Address, Config, Folder, Peerstore, core_peer};
use crate::discovery::{DiscoveryServer, Invitation};
use crate::driver::{Driver, Handle, stage};
use crate::events::EventLog;
use crate::http::Server;
use crate::metrics::Observer;
use crate::net::{CoreEvent, CoreEvents, Net};
use crate::state::backups;
use crate::store::{OpenOptions, Reader, Store};
use crate::trace;

/// Added to the time to wait for a leader, for the steps that precede it. As in the Go peer.
const READY_SLACK: Duration = Duration::from_secs(5);

/// Shortest time between two saves of the peerstore.
const PEERSTORE_PAUSE: Duration = Duration::from_secs(10);

/// Time limit of requests in progress at a shutdown.
const DRAIN: Duration = Duration::from_secs(5);

/// Time limit of the own removal: the core's own deadline for a request, and a margin.
const LEAVE: Duration = Duration::from_secs(20);

/// Time for which a removed peer keeps running, to deliver replies and cast its last votes: a voter that
/// has not learned of the removal may need this peer's vote (Ongaro's thesis, 4.2.2). Two elections fit.
const REMOVED_GRACE: Duration = Duration::from_secs(3);

/// Options of the `daemon` command.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Peers of the cluster to join.
    pub bootstrap: Vec<Address>,
    /// Leave the cluster at the end.
    pub leave: bool,
    /// Serve metrics for Prometheus.
    pub stats: bool,
    /// Export spans of requests.
    pub tracing: bool,
}

/// Reason for a running peer to end on its own.
#[derive(Debug)]
enum Ending {
    /// It is no longer a member.
    Removed,
    /// It gives up the empty cluster that it founded, to join another one.
    Invited(Invitation),
}

/// Runs the peer whose configuration is in `folder` until `shutdown` is cancelled, or it is removed from
/// its cluster.
///
/// # Errors
/// A component cannot be started, or the peer does not become ready in time: the error says which, and why.
pub async fn run(folder: &Path, options: Options, shutdown: CancellationToken) -> anyhow::Result<()> {
    let mut folder = Folder::open(folder, &crate::config::environment()?)?;
    folder.config.observations.metrics.enable_stats |= options.stats;
    folder.config.observations.tracing.enable_tracing |= options.tracing;
    for warning in &folder.warnings {
        tracing::warn!("{warning}");
    }
    for notice in &folder.notices {
        tracing::info!("{notice}");
    }
    let exports = trace::start(&folder.config, &folder.identity)?;
    let ended = run_peer(&folder, options, shutdown).await;
    exports.stop().await;
    ended
}

/// Runs the peer, again when it joins another cluster.
async fn run_peer(folder: &Folder, options: Options, shutdown: CancellationToken) -> anyhow::Result<()> {
    let mut bootstrap = options.bootstrap;
    if bootstrap.is_empty() && folder.config.consensus.raft.init_peerset.is_empty() {
        // As in the Go peer, the founders of `init_peerset` need no other peer to join through.
        bootstrap.clone_from(&folder.config.bootstrap);
    }
    let leave = options.leave || folder.config.cluster.leave_on_shutdown;
    listen::check(&folder.config, &folder.path).await?;
    loop {
        let (ending, mut endings) = mpsc::channel(1);
        let running = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            running = Running::start(folder, &bootstrap, ending) => running?,
        };
        if let Backend::Embedded(node) = &running.backend {
            end_on_request(node, &shutdown);
        }
        let limit = start_limit(&folder.config);
        let mut is_ready = false;
        let outcome = tokio::select! {
            () = shutdown.cancelled() => Ok(None),
            ready = running.ready(limit) => ready.map(|()| {
                is_ready = true;
                None
            }),
            ending = endings.recv() => Ok(ending),
        };
        let outcome = match outcome {
            Ok(None) if is_ready => tokio::select! {
                () = shutdown.cancelled() => Ok(None),
                ending = endings.recv() => Ok(ending),
            },
            outcome => outcome,
        };
        let is_removed = match &outcome {
            Ok(Some(Ending::Removed)) => true,
            Ok(None) if leave && is_ready => running.leave().await,
            Ok(None | Some(Ending::Invited(_))) | Err(_) => false,
        };
        if is_removed {
            tokio::time::sleep(REMOVED_GRACE).await;
        }
        let me = running.me.clone();
        running.stop(folder).await;
        match outcome? {
            None => return Ok(()),
            Some(Ending::Removed) => {
                let come_back = how_to_come_back(&me);
                let why = format!("this peer ({me}) is not a member of its cluster any more. {come_back}");
                // A peer that is removed while it runs ends with success; one that starts as removed fails.
                anyhow::ensure!(is_ready, why);
                tracing::warn!("{why}");
                return Ok(());
            }
            Some(Ending::Invited(invitation)) => {
                tracing::info!("{} invites this peer into its cluster", invitation.from);
                if give_up_empty_cluster(folder)? {
                    bootstrap = addresses_of(&invitation);
                } else {
                    tracing::warn!(
                        "a pin was made or a peer was added meanwhile: this peer keeps its cluster"
                    );
                }
            }
        }
    }
}

/// Ends the peer when a client of its IPFS node's API asks for it, as `ipfs shutdown` ends a Kubo daemon.
fn end_on_request(node: &Node, shutdown: &CancellationToken) {
    let (requested, shutdown) = (node.shutdown_requested(), shutdown.clone());
    tokio::spawn(async move {
        requested.await;
        tracing::info!("a client of the IPFS node's API asked this peer to end");
        shutdown.cancel();
    });
}

fn start_limit(config: &Config) -> Duration {
    let raft = &config.consensus.raft;
    // A follower starts an election after up to twice its timeout; the first election may be undecided.
    let elections = raft.heartbeat_timeout.max(raft.election_timeout).0 * 4;
    raft.wait_for_leader_timeout.0.max(elections) + READY_SLACK
}

fn addresses_of(invitation: &Invitation) -> Vec<Address> {
    // Addresses come with the id of their peer; those of other peers are of no use.
    let is_of_sender = |address: &Address| {
        address
            .peer()
            .is_some_and(|peer| core_peer(&peer) == invitation.from)
    };
    let addresses = invitation.addresses.iter().cloned().map(Address);
    addresses.filter(is_of_sender).collect()
}

/// Removes the data of an empty cluster. Returns `false` if it has pins or other members meanwhile.
fn give_up_empty_cluster(folder: &Folder) -> anyhow::Result<bool> {
    let data = folder.config.data_folder(&folder.path);
    let mut store = Store::open(&data, &OpenOptions::default())?;
    let members = store
        .recovered()?
        .map_or(0, |recovered| recovered.members.peers.len());
    let is_free = is_empty(&store.reader()) && members <= 1;
    store.close()?;
    if is_free {
        std::fs::remove_dir_all(&data).with_context(|| format!("cannot remove {}", data.display()))?;
    }
    Ok(is_free)
}

fn is_empty(reader: &Reader) -> bool {
    reader.listing().pins(None).next().is_none()
}

/// The components of a running peer.
struct Running {
    driver: Driver,
    net: Net,
    backend: Backend,
    node_runtime: NodeRuntime,
    tasks: JoinSet<()>,
    servers: Vec<Server>,
    events: EventLog,
    stop: CancellationToken,
    me: PeerId,
}

impl Running {
    async fn start(
        folder: &Folder,
        bootstrap: &[Address],
        ending: mpsc::Sender<Ending>,
    ) -> anyhow::Result<Self> {
        let config = &folder.config;
        let me = core_peer(&folder.identity.peer);
        let node_runtime = NodeRuntime::start().context("cannot start threads")?;
        let (backend, (mut store, recovered)) = open(folder, &node_runtime).await?;
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        if let Backend::Embedded(node) = &backend {
            listen::serve_node(config, node, &stop, &mut tasks, node_runtime.handle()).await?;
        }
        let known = parts::known_peers(folder, bootstrap);
        let (net, arriving) = parts::start_net(folder, known.clone(), recovered.as_ref()).await?;
        let (invitations, invited) = mpsc::channel(1);
        let emptiness = store.reader();
        let without_pins = move || is_empty(&emptiness);
        let discovery = DiscoveryServer::new(net.clone(), invitations, without_pins.clone());
        let operations = Arc::new(OnceLock::new());
        let calls = calls::serve_calls(arriving.calls, discovery.clone(), Arc::clone(&operations));
        tasks.spawn(calls);
        let known: Vec<PeerId> = known.into_keys().collect();
        let inputs = bootstrap_inputs(folder, bootstrap, &known, &net);
        let start = inputs?.run(&mut store, recovered).await?;
        let (reader, stager, events) = (store.reader(), store.stager(), EventLog::default());
        let driven = parts::driven(folder, store, &net, &backend, events.clone());
        let driver = Driver::start(driven, start.recovered);
        let handle = driver.handle.clone();
        tasks.spawn(provide_duty::decide(config, &backend, &handle, &reader, &me));
        let cluster = parts::cluster(folder, &handle, &reader, &net, &backend, &events);
        discovery.set_handle(handle.clone());
        // Set once.
        let _ = operations.set(cluster.clone());
        tasks.spawn(forward_core_events(arriving.core, handle.clone()));
        tasks.spawn(handle.delays().clone().probe_network());
        tasks.spawn(stage(arriving.snapshots, stager, handle.clone()));
        let peerstore = config.peerstore_file(&folder.path);
        let saving = save_peerstore_on_change(arriving.addresses, peerstore, net.clone());
        tasks.spawn(saving);
        let watch = MembershipWatch::new(net.clone(), handle.clone(), known, start.seed_members);
        tasks.spawn(watch.clone().run(ending.clone()));
        tasks.spawn(watch.query_others());
        tasks.spawn(forward_invitations(invited, ending));
        if let Some(search) = lan::search(config, &net, &handle, without_pins) {
            tasks.spawn(search.run());
        }
        let observer = Observer::new(&handle, &net, reader, &backend, &cluster);
        observe(config, &mut tasks, &observer, &events);
        tasks.spawn(auto_gc::run(config, &backend, &handle));
        let peering = ipfs_swarm::connect(backend.clone(), handle, me.clone(), swarm_delay(config));
        tasks.spawn(peering);
        tasks.spawn(cluster.clone().watch_broken_pins());
        tasks.spawn(cluster.clone().scrub_in_cycles());
        tasks.spawn(cluster.clone().share_contexts());
        tasks.spawn(cluster.clone().follow_statuses());
        let servers = listen::serve(folder, cluster, &backend, observer, &events).await?;
        Ok(Self {
            driver,
            net,
            backend,
            node_runtime,
            tasks,
            servers,
            events,
            stop,
            me,
        })
    }

    /// Waits for a leader, and for this peer to be part of its cluster.
    async fn ready(&self, limit: Duration) -> anyhow::Result<()> {
        let readiness = Readiness {
            net: &self.net,
            handle: &self.driver.handle,
            me: &self.me,
            limit,
        };
        let members = readiness.wait().await?;
        tracing::info!("Cluster Peers (without including ourselves):");
        let others: Vec<&PeerId> = members.peer_ids().filter(|peer| **peer != self.me).collect();
        for peer in &others {
            tracing::info!("    - {peer}");
        }
        if others.is_empty() {
            tracing::info!("    - No other peers");
        }
        tracing::info!("** IPFS Cluster is READY **");
        systemd::notify_ready();
        Ok(())
    }

    /// Ends this peer's membership, if possible. Returns `true` when it has ended.
    async fn leave(&self) -> bool {
        tracing::info!("leaving the cluster");
        let request = Request::RemovePeer {
            peer: self.me.clone(),
        };
        let left = tokio::time::timeout(LEAVE, self.driver.handle.request(request)).await;
        match &left {
            Ok(Ok(_)) => tracing::info!("left the cluster. {}", how_to_come_back(&self.me)),
            // The last peer of a cluster cannot leave it.
            Ok(Err(Refusal::Conflict(why))) => tracing::warn!("not leaving the cluster: {why}"),
            Ok(Err(refusal)) => self.log_not_left(&refusal.to_string()),
            Err(_) => self.log_not_left(&format!("no answer within {LEAVE:?}")),
        }
        matches!(left, Ok(Ok(_)))
    }

    fn log_not_left(&self, why: &str) {
        tracing::error!(
            "the cluster could not be left: {why}. Run `ipfs-cluster-ctl peers rm {}` at another peer",
            self.me
        );
    }

    /// Stops the components, those that others call first.
    async fn stop(mut self, folder: &Folder) {
        systemd::notify_stopping();
        self.events.close();
        let down = self.servers.into_iter().map(|server| server.shutdown(DRAIN));
        futures::future::join_all(down).await;
        self.stop.cancel();
        save_peerstore(&folder.config.peerstore_file(&folder.path), &self.net);
        let delays = self.driver.handle.delays().worst();
        tracing::info!(
            "longest delays of consensus: {:.1?} of its timer, {:.1?} of its network",
            delays.timer,
            delays.network
        );
        let store = tokio::task::spawn_blocking(move || self.driver.stop()).await;
        self.net.shutdown().await;
        self.tasks.shutdown().await;
        self.backend.shutdown().await;
        drop(self.node_runtime);
        if let Ok(Some(store)) = store {
            tokio::task::block_in_place(|| backups::at_shutdown(folder, &store.reader()));
            if let Err(error) = store.close() {
                tracing::error!("the state could not be synced at the end: {error}");
            }
        }
        tracing::info!("IPFS Cluster peer stopped");
    }
}

/// Opens the IPFS node and the store. Opening reads much of both, in separate threads: the node's opening has
/// started when the store's begins.
async fn open(
    folder: &Folder,
    threads: &NodeRuntime,
) -> anyhow::Result<(Backend, (Store, Option<Recovered>))> {
    let opening = async { tokio::task::block_in_place(|| parts::open_store(folder)) };
    let backend = parts::open_backend(folder, threads.handle());
    tokio::try_join!(backend, opening)
}

/// Starts the tasks that watch the peer for its operators.
fn observe(config: &Config, tasks: &mut JoinSet<()>, observer: &Observer, events: &EventLog) {
    let interval = config.observations.metrics.reporting_interval.0;
    tasks.spawn(observer.clone().watch_pins(interval));
    tasks.spawn(observer.clone().watch_changes(events.clone()));
    tasks.spawn(observer.clone().watch_history());
    tasks.spawn(systemd::watch(observer.clone()));
    observer.enable_samples();
}

/// Collects the inputs of the bootstrap from the configuration.
fn bootstrap_inputs<'a>(
    folder: &Folder,
    bootstrap: &[Address],
    known: &[PeerId],
    net: &'a Net,
) -> anyhow::Result<Bootstrap<'a>> {
    let Folder { config, identity, .. } = folder;
    let named = bootstrap.iter().map(|address| {
        let peer = address.peer().with_context(|| {
            format!(
                "--bootstrap: {} names no peer: it must end in /p2p/<peer id>",
                address.0
            )
        })?;
        let peer = core_peer(&peer);
        anyhow::ensure!(
            peer != *net.peer_id(),
            "--bootstrap: {} is this peer itself",
            address.0
        );
        Ok(peer)
    });
    let mut named: Vec<PeerId> = named.collect::<anyhow::Result<_>>()?;
    named.sort();
    named.dedup();
    Ok(Bootstrap {
        net,
        bootstrap: named,
        known: known.to_vec(),
        founders: config.init_peerset(identity),
        is_static: !config.consensus.raft.init_peerset.is_empty(),
        limit: start_limit(config),
        data: config.data_folder(&folder.path),
    })
}

/// The embedded node needs its neighbours at once: it finds no content without them.
fn swarm_delay(config: &Config) -> Duration {
    let kubo = config.ipfs_connector.ipfshttp.as_ref();
    kubo.map_or(Duration::ZERO, |kubo| kubo.connect_swarms_delay.0)
}

async fn forward_core_events(mut events: CoreEvents, handle: Handle) {
    while let Some(event) = events.recv().await {
        match event {
            CoreEvent::Received { from, envelope } => handle.received(from, envelope).await,
            CoreEvent::Unreachable { peer } => handle.event(Event::Unreachable { peer }),
        }
    }
}

async fn forward_invitations(mut invited: mpsc::Receiver<Invitation>, ending: mpsc::Sender<Ending>) {
    if let Some(invitation) = invited.recv().await {
        // A full channel means that the peer ends already.
        let _ = ending.try_send(Ending::Invited(invitation));
    }
}

/// Saves the peers' addresses for the next start, each time that they change.
async fn save_peerstore_on_change(mut changes: watch::Receiver<u64>, path: PathBuf, net: Net) {
    while changes.changed().await.is_ok() {
        save_peerstore(&path, &net);
        tokio::time::sleep(PEERSTORE_PAUSE).await;
    }
}

/// Best effort: peers announce their addresses again.
fn save_peerstore(path: &Path, net: &Net) {
    let addresses: Vec<_> = net.peerstore().into_values().flatten().map(Address).collect();
    if !addresses.is_empty()
        && let Err(error) = Peerstore::save(path, &addresses)
    {
        tracing::warn!("the peerstore could not be saved: {error}");
    }
}
