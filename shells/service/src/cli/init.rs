//! `init`: creates a configuration folder.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use cluster_api::terminal;
use ipfs_cluster_service::config::{
    self, Address, Config, ConfigError, Embedded, Environment, IDENTITY_FILE, Identity, IpfsConnector,
    IpfsHttp, KUBO_VARIABLE, Peer, Peerstore, SERVICE_FILE, Secret,
};
use ipfs_cluster_service::ports;
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;

use super::{Doing, Failure, Global, List, elements, note, prompt};

const LONG: &str = "\
Makes a configuration folder: service.json with all settings and a random secret, identity.json (unless \
there is one), and peerstore with the addresses given by --peers.

Environment variables named CLUSTER_… override single settings (CLUSTER_SECRET, CLUSTER_PEERNAME, \
CLUSTER_RESTAPI_HTTPLISTENMULTIADDRESS=…) both here, where they are written down, and at every start.

The embedded IPFS node stores, serves and pins content. It finds content through the public DHT, delegated \
routers and the nodes of the cluster's peers, and announces what it pins; init says whom it contacts. \
CLUSTER_EMBEDDED_PRIVATE=true keeps it to the cluster's peers, pins' origins and nodes that `swarm connect` \
names. It has no pubsub and no filestore (`nocopy`): use Kubo (--ipfs http) where you need these.

To change the secret of a running cluster, restart its peers twice, one after the other: first with the new \
secret in cluster.accepted_secrets (a list; CLUSTER_ACCEPTEDSECRETS), then with the new secret as \
cluster.secret and no longer in that list. Peers that share any of these secrets work together.";

const EXAMPLES: &str = "\
Examples:
  ipfs-cluster-service init
  ipfs-cluster-service init --ipfs embedded --randomports -c /tmp/peer1
  ipfs-cluster-service init --custom-secret --peers /ip4/10.0.0.1/tcp/9096/p2p/12D3Koo…,/ip4/10.0.0.2/…";

/// Contents of the folder.
#[derive(Debug, Args)]
#[command(long_about = LONG, after_help = EXAMPLES)]
pub(super) struct Options {
    /// The consensus component
    #[arg(long, value_name = "NAME", default_value = "raft")]
    consensus: ConsensusKind,
    /// The IPFS node to use: `http` is a Kubo daemon, `embedded` runs inside this program [default: http when
    /// CLUSTER_IPFSHTTP_NODEMULTIADDRESS names a daemon or one answers at /ip4/127.0.0.1/tcp/5001, embedded
    /// otherwise]
    #[arg(long, value_name = "NODE")]
    ipfs: Option<IpfsKind>,
    /// Ask for the cluster's secret instead of making a random one
    #[arg(long, short = 's')]
    custom_secret: bool,
    /// The other first members of the cluster: multiaddresses that end in /p2p/<peer id>
    #[arg(long, value_name = "MULTIADDRS")]
    peers: Vec<List<Address>>,
    /// Do not ask before something is overwritten
    #[arg(long, short)]
    force: bool,
    /// Listen on free ports instead of 9094 to 9096, 4001 and 5001
    #[arg(long)]
    randomports: bool,
    /// Accepted for the Go peer's sake; the state has its own database
    #[arg(long, value_name = "NAME", hide = true)]
    datastore: Option<String>,
    /// A configuration to fetch at each start, which this program does not do
    #[arg(value_name = "URL", hide = true)]
    source: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ConsensusKind {
    Raft,
    #[value(hide = true)]
    Crdt,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum IpfsKind {
    Http,
    Embedded,
}

pub(super) fn run(global: &Global, options: &Options) -> Result<(), Failure> {
    refuse(options).doing("reading the command line")?;
    let folder = global.folder()?;
    let environment = config::environment().doing("reading the environment")?;
    if !global.force && !options.force && !may_overwrite(&folder, options).doing("asking")? {
        note("Nothing was changed.");
        return Ok(());
    }
    let config = configuration(options, &environment).doing("making the configuration")?;
    make_folder(&folder).doing("making the configuration folder")?;
    config.save(&folder).doing("saving the configuration")?;
    note(format_args!(
        "configuration written to {}",
        folder.join(SERVICE_FILE).display()
    ));
    if let Some(embedded) = &config.ipfs_connector.embedded {
        note(embedded.contacts());
    }
    identity(&folder, &environment).doing("saving the identity")?;
    let peerstore = config.peerstore_file(&folder);
    let peers = elements(&options.peers);
    Peerstore::save(&peerstore, &peers).doing("saving the peerstore")?;
    match peers.len() {
        0 => note(format_args!(
            "new empty peerstore written to {}",
            peerstore.display()
        )),
        count => note(format_args!(
            "peerstore written to {} with {count} entries",
            peerstore.display()
        )),
    }
    Ok(())
}

/// Refuses unsupported options, before anything is written.
fn refuse(options: &Options) -> anyhow::Result<()> {
    if let Some(source) = &options.source {
        bail!(
            "{source:?}: a configuration is not fetched from elsewhere: download it and put it into the \
             configuration folder as {SERVICE_FILE}"
        );
    }
    if options.consensus == ConsensusKind::Crdt {
        bail!(
            "crdt is not offered: its peers may disagree for any length of time without notice. Use \
             raft, which also serves clusters of hundreds of peers here; a pinset moves over with `state \
             export` and `state import`"
        );
    }
    let peers = elements(&options.peers);
    if let Some(nameless) = peers.iter().find(|address| address.peer().is_none()) {
        bail!("--peers: {nameless:?} names no peer: it must end in /p2p/<peer id>");
    }
    if let Some(datastore) = &options.datastore {
        note(format_args!(
            "--datastore {datastore} is ignored: the state has its own database"
        ));
    }
    Ok(())
}

/// Returns whether the folder is empty, or may be overwritten.
fn may_overwrite(folder: &Path, options: &Options) -> anyhow::Result<bool> {
    let mut old = vec![folder.join(SERVICE_FILE)];
    if !elements(&options.peers).is_empty() {
        old.push(folder.join(config::Config::default().cluster.peerstore_file));
    }
    for path in old {
        if path.try_exists()? {
            let question = format!("{} will be overwritten. Continue?", path.display());
            let answer = prompt::confirm(&question);
            if !answer.context("there is a configuration already: --force overwrites it")? {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Concurrent pins of an embedded node, by default. All that complete at the same time share one sync of
/// its store, which is most of the cost of a small pin. With 64 nothing is pinned sooner, and fewer pins
/// are committed meanwhile; a Kubo daemon gains nothing from more than ten.
const EMBEDDED_PINS: u32 = 32;

fn configuration(options: &Options, environment: &Environment) -> anyhow::Result<Config> {
    let mut config = Config::fresh();
    if options.custom_secret && !environment.contains_key("CLUSTER_SECRET") {
        let secret = prompt::ask("Enter the cluster's secret (64 hexadecimal digits):")?;
        config.cluster.secret = Secret::try_from(secret).map_err(anyhow::Error::msg)?;
    }
    let peers = elements(&options.peers);
    config.consensus.raft.init_peerset = peers.iter().filter_map(Address::peer).map(Peer).collect();
    config.ipfs_connector = connector(options.ipfs, environment)?;
    if config.ipfs_connector.embedded.is_some() {
        config.pin_tracker.stateless.concurrent_pins = EMBEDDED_PINS;
    }
    if options.randomports {
        random_ports(&mut config)?;
    }
    // As at every start: reading it back applies the environment and checks the result.
    let text = serde_json::to_string(&config)?;
    let loaded = Config::parse(Path::new("the new configuration"), &text, environment)?;
    loaded.warnings.iter().for_each(note);
    Ok(loaded.config)
}

/// Time limit of a daemon on this machine to identify itself. Without one the system refuses the connection
/// at once, and a busy one must not be mistaken for none.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// Returns the section of the chosen IPFS node. Prints the choice if the operator did not make it.
fn connector(chosen: Option<IpfsKind>, environment: &Environment) -> anyhow::Result<IpfsConnector> {
    let named = environment.get(KUBO_VARIABLE).map(|address| address.trim());
    let named = named.filter(|address| !address.is_empty());
    let kind = match (chosen, named) {
        (Some(IpfsKind::Embedded), Some(address)) => bail!(
            "--ipfs embedded, but {KUBO_VARIABLE} names the Kubo daemon at {address}: unset the variable to \
             use the embedded node, or leave --ipfs out to use that daemon"
        ),
        (Some(kind), _) => kind,
        (None, Some(address)) => {
            note(format_args!(
                "IPFS node: http, because {KUBO_VARIABLE} names {address}"
            ));
            IpfsKind::Http
        }
        (None, None) => choose_by_probe(&IpfsHttp::default().node_multiaddress, probe),
    };
    Ok(match kind {
        // The address in the variable is applied on top of this one.
        IpfsKind::Http => IpfsConnector {
            ipfshttp: Some(IpfsHttp::default()),
            embedded: None,
        },
        IpfsKind::Embedded => IpfsConnector {
            ipfshttp: None,
            embedded: Some(Embedded::default()),
        },
    })
}

/// Chooses the kind of node by probing `address`, on which a daemon listens by default.
fn choose_by_probe(address: &Address, probe: impl FnOnce(&Address) -> anyhow::Result<String>) -> IpfsKind {
    match probe(address) {
        Ok(agent) if agent.starts_with(cluster_ipfs::AGENT_NAME) => {
            note(format_args!(
                "IPFS node: embedded. Another peer's embedded node listens at {address:?} already: give this \
                 one ports of its own (--randomports, or the listen addresses in service.json)"
            ));
            IpfsKind::Embedded
        }
        Ok(agent) => {
            let agent = terminal::line(agent);
            note(format_args!(
                "IPFS node: http, because {agent} answers at {address:?}"
            ));
            IpfsKind::Http
        }
        Err(why) => {
            note(format_args!(
                "IPFS node: embedded, because no daemon answers at {address:?}: {why:#}"
            ));
            IpfsKind::Embedded
        }
    }
}

/// Returns the agent version of the Kubo daemon at `address`.
fn probe(address: &Address) -> anyhow::Result<String> {
    let client = cluster_ipfs::kubo::Client::new(cluster_ipfs::kubo::Config {
        node_multiaddress: address.0.clone(),
        request_timeout: PROBE_TIMEOUT,
        ..Default::default()
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let identity = runtime.block_on(async { tokio::time::timeout(PROBE_TIMEOUT, client.id()).await });
    let agent = identity.context("no answer in time")??.agent;
    Ok(if agent.is_empty() {
        "a daemon".to_owned()
    } else {
        agent
    })
}

fn make_folder(folder: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(folder)
}

/// Writes an identity unless there is one.
fn identity(folder: &Path, environment: &Environment) -> Result<(), ConfigError> {
    let path = folder.join(IDENTITY_FILE);
    if path.exists() {
        let kept = Identity::load(folder, &Environment::new())?;
        note(format_args!(
            "identity of {} kept in {}",
            kept.peer,
            path.display()
        ));
        return Ok(());
    }
    let new = match Identity::from_environment(environment)? {
        Some(given) => given,
        None => Identity::generate(),
    };
    new.save(folder)?;
    note(format_args!(
        "new identity of {} written to {}",
        new.peer,
        path.display()
    ));
    Ok(())
}

/// Gives every listener a port that is free now.
fn random_ports(config: &mut Config) -> anyhow::Result<()> {
    // Held until all have one, so that no two get the same.
    let mut held = Vec::new();
    let mut randomise = |addresses: &mut [Address]| -> anyhow::Result<()> {
        for address in addresses {
            let listener = ports::take_free().context("cannot find a free port")?;
            address.0 = with_port(&address.0, listener.local_addr()?.port());
            held.push(listener);
        }
        Ok(())
    };
    randomise(&mut config.cluster.listen_multiaddress.0)?;
    if let Some(rest) = &mut config.api.restapi {
        randomise(&mut rest.http_listen_multiaddress.0)?;
    }
    if let Some(pinning) = &mut config.api.pinsvcapi {
        randomise(&mut pinning.http_listen_multiaddress.0)?;
    }
    if let Some(proxy) = &mut config.api.ipfsproxy {
        randomise(&mut proxy.listen_multiaddress.0)?;
    }
    if let Some(embedded) = &mut config.ipfs_connector.embedded {
        randomise(&mut embedded.api_listen_multiaddress.0)?;
        randomise(&mut embedded.gateway_listen_multiaddress.0)?;
        randomise(&mut embedded.swarm_listen_multiaddress)?;
        // The proxy forwards to this node.
        if let (Some(proxy), [node, ..]) =
            (&mut config.api.ipfsproxy, &embedded.api_listen_multiaddress.0[..])
        {
            proxy.node_multiaddress = node.clone();
        }
    }
    Ok(())
}

/// Replaces the port of an address that has one.
fn with_port(address: &Multiaddr, port: u16) -> Multiaddr {
    let parts = address.iter().map(|part| {
        if let Protocol::Tcp(_) = part {
            return Protocol::Tcp(port);
        }
        if let Protocol::Udp(_) = part {
            return Protocol::Udp(port);
        }
        part
    });
    parts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_peers_embedded_node_is_not_a_kubo_daemon() {
        let address = IpfsHttp::default().node_multiaddress;
        let answers = |agent: &'static str| choose_by_probe(&address, move |_| Ok(agent.to_owned()));
        assert_eq!(answers("kubo/0.42.0/"), IpfsKind::Http);
        assert_eq!(answers("a daemon"), IpfsKind::Http);
        assert_eq!(answers(cluster_ipfs::AGENT), IpfsKind::Embedded);
        assert_eq!(answers("cluster-ipfs/99.0"), IpfsKind::Embedded);
        assert_eq!(
            choose_by_probe(&address, |_| bail!("refused")),
            IpfsKind::Embedded
        );
    }

    #[test]
    fn the_kubo_in_the_variable_is_used_or_refused() {
        let named = Environment::from([(KUBO_VARIABLE.to_owned(), "/ip4/127.0.0.2/tcp/5001".to_owned())]);
        // It need not run yet.
        assert!(connector(None, &named).unwrap().ipfshttp.is_some());
        assert!(
            connector(Some(IpfsKind::Http), &named)
                .unwrap()
                .ipfshttp
                .is_some()
        );
        let error = connector(Some(IpfsKind::Embedded), &named).unwrap_err();
        assert!(error.to_string().contains("/ip4/127.0.0.2/tcp/5001"), "{error}");
        let empty = Environment::from([(KUBO_VARIABLE.to_owned(), " ".to_owned())]);
        assert!(
            connector(Some(IpfsKind::Embedded), &empty)
                .unwrap()
                .embedded
                .is_some()
        );
    }
}
