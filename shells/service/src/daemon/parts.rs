//! Construction of a peer's components from its configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;
use std::time::Duration;

use anyhow::Context;
use cluster_core::{ClusterId, FIRST_VERSION, LogEntry, PeerId, READABLE_VERSION, Recovered, VERSION};
use cluster_ipfs::{Backend, Node as IpfsNode, kubo};
use tokio::runtime::Handle;

use super::listen;
use crate::cluster::{self, Cluster};
use crate::config::{Address, Folder, core_peer};
use crate::discovery;
use crate::driver::{self, Disk, Informer, Measured, MeasuredDisk, Parts};
use crate::events::EventLog;
use crate::net::{Multiaddr, Net, NetConfig, NetEvents};
use crate::store::{OpenError, OpenOptions, Reader, Store};

/// File in the configuration folder that keeps the progress of the scrub.
const SCRUB_FILE: &str = "scrub.json";

/// Highest protocol version that this process reads and writes. In debug builds the environment can make it
/// that of the first or the next release, for tests of upgrades.
fn protocol_version() -> u8 {
    let pretends = |name: &str| cfg!(debug_assertions) && std::env::var_os(name).is_some();
    if pretends("PRETEND_NEXT_RELEASE") {
        READABLE_VERSION
    } else if pretends("PRETEND_FIRST_RELEASE") {
        FIRST_VERSION
    } else {
        VERSION
    }
}

pub(super) fn open_store(folder: &Folder) -> anyhow::Result<(Store, Option<Recovered>)> {
    let data = folder.config.data_folder(&folder.path);
    let mut store = Store::open(&data, &OpenOptions::default())?;
    let recovered = store.recovered()?;
    // The log may have entries of a version that all members had, and that is not in their record yet.
    let written = recovered.iter().flat_map(|recovered| {
        let log = recovered.log.iter().map(LogEntry::min_version);
        log.chain([recovered.members.version])
    });
    let (found, known) = (written.max().unwrap_or_default(), protocol_version());
    if found > known {
        let newer = OpenError::Newer {
            folder: data,
            found: u32::from(found),
            known: u32::from(known),
        };
        return Err(newer.into());
    }
    Ok((store, recovered))
}

/// Addresses of other peers from the configuration, the peerstore and the command line.
pub(super) fn known_peers(folder: &Folder, bootstrap: &[Address]) -> BTreeMap<PeerId, Vec<Multiaddr>> {
    let mut known: BTreeMap<PeerId, Vec<Multiaddr>> = BTreeMap::new();
    let configured = folder.peerstore.addresses.iter();
    for address in configured
        .chain(&folder.config.cluster.peer_addresses)
        .chain(bootstrap)
    {
        if let Some(peer) = address.peer() {
            known.entry(core_peer(&peer)).or_default().push(address.0.clone());
        }
    }
    known
}

pub(super) async fn open_backend(folder: &Folder, node_threads: &Handle) -> anyhow::Result<Backend> {
    let config = &folder.config;
    if let Some(kubo) = config.kubo() {
        return Ok(Backend::Kubo(kubo::Client::new(kubo)?));
    }
    let embedded = config
        .embedded(&folder.path)
        .context("no section of ipfs_connector is configured")?;
    let path = embedded.path.clone();
    let node = node_threads
        .spawn(IpfsNode::open(embedded))
        .await?
        .with_context(|| format!("cannot open the embedded IPFS node in {}", path.display()))?;
    Ok(Backend::Embedded(node))
}

pub(super) async fn start_net(
    folder: &Folder,
    known_peers: BTreeMap<PeerId, Vec<Multiaddr>>,
    recovered: Option<&Recovered>,
) -> anyhow::Result<(Net, NetEvents)> {
    let Folder { config, identity, .. } = folder;
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
        no_announce: addresses(&config.cluster.no_announce_multiaddress.0),
        version: protocol_version(),
        cluster: ClusterId::UNKNOWN,
        known_peers,
        open_methods: BTreeSet::from([discovery::METHOD.to_owned()]),
    };
    listen::warn_of_open_cluster(&config.cluster);
    let (net, events) = Net::start(net).await?;
    if let Some(recovered) = recovered {
        // Sets the members first: callers in between are asked to wait, instead of being refused as
        // non-members.
        net.set_members(recovered.members.peer_ids().cloned().collect())
            .await;
        net.set_cluster(recovered.members.cluster);
    }
    Ok((net, events))
}

/// Components that the loop drives.
pub(super) fn driven(folder: &Folder, store: Store, net: &Net, backend: &Backend, events: EventLog) -> Parts {
    let mut config = folder.config.core(&folder.identity);
    config.version = protocol_version();
    Parts {
        config,
        informer: Informer::new(backend.clone(), store.reader(), measured(folder)),
        store,
        net: net.clone(),
        backend: backend.clone(),
        events,
    }
}

fn measured(folder: &Folder) -> Measured {
    let Folder { config, identity, .. } = folder;
    let ping_ttl = config.cluster.monitor_ping_interval.0 * 2;
    let informer = &config.informer;
    // All metrics are measured as often as a `ping` is sent, and must stay valid until the next time.
    let ttl = |ttl: Duration| ttl.max(ping_ttl);
    let disk = informer.disk.as_ref().map(|disk| {
        let kind = if disk.metric_type.name() == "reposize" {
            Disk::RepoSize
        } else {
            Disk::FreeSpace
        };
        MeasuredDisk {
            kind,
            ttl: ttl(disk.metric_ttl.0),
            high_water: disk.high_water_percent.into(),
            low_water: disk.low_water_percent.into(),
        }
    });
    let tags = informer.tags.iter().flat_map(|tags| {
        tags.tags
            .iter()
            .map(|(name, value)| (name.clone(), value.clone(), ttl(tags.metric_ttl.0)))
    });
    let queue = informer.pinqueue.as_ref().and_then(|queue| {
        let bucket = NonZeroU64::new(queue.weight_bucket_size)?;
        Some((bucket, ttl(queue.metric_ttl.0)))
    });
    Measured {
        peer: core_peer(&identity.peer),
        peername: config.cluster.peername.clone(),
        ping_ttl,
        disk,
        queue,
        tags: tags.collect(),
    }
}

/// Returns the operations for clients and other peers.
pub(super) fn cluster(
    folder: &Folder,
    handle: &driver::Handle,
    reader: &Reader,
    net: &Net,
    backend: &Backend,
    events: &EventLog,
) -> Cluster {
    let Folder { config, identity, .. } = folder;
    let settings = cluster::Config {
        peer: core_peer(&identity.peer),
        peername: config.cluster.peername.clone(),
        default_replicas: config.cluster.default_replicas(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        protocol: protocol_version(),
        scrub: cluster::ScrubSettings {
            file: folder.path.join(SCRUB_FILE),
            config: config.scrub(),
        },
        high_water: config.informer.high_water(),
    };
    let parts = cluster::Parts {
        handle: handle.clone(),
        reader: reader.clone(),
        net: net.clone(),
        backend: backend.clone(),
        events: events.clone(),
    };
    Cluster::new(settings, parts)
}
