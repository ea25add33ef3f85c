//! Peers of one cluster as processes on this machine.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::Context;
use cluster_api::Client;

use crate::config::{
    Address, Config, Embedded, Identity, IpfsConnector, Peer, Peerstore, Period, Secret, Strings,
};
use crate::ports;

/// One peer and its ports.
#[derive(Debug)]
pub(super) struct Process {
    /// Name for people.
    pub(super) name: String,
    /// Peer id.
    pub(super) id: String,
    /// Port of its REST API.
    pub(super) rest: u16,
    /// Port of its IPFS node's API.
    pub(super) ipfs: u16,
    /// Folder of its configuration and data.
    pub(super) folder: PathBuf,
    child: Option<Child>,
}

/// The ports of one peer.
struct Ports {
    cluster: u16,
    rest: u16,
    ipfs: u16,
    swarm: u16,
}

impl Ports {
    /// Picks ports for `count` peers, all different. They are free again when this returns, so another
    /// program could take one before the peer does, which then reports it.
    fn free(count: usize) -> anyhow::Result<Vec<Self>> {
        let mut sockets = Vec::new();
        let mut port = || -> anyhow::Result<u16> {
            let socket = ports::take_free().context("no free port")?;
            let port = socket.local_addr()?.port();
            sockets.push(socket);
            Ok(port)
        };
        let mut peer = || {
            anyhow::Ok(Self {
                cluster: port()?,
                rest: port()?,
                ipfs: port()?,
                swarm: port()?,
            })
        };
        (0..count).map(|_| peer()).collect()
    }
}

fn address(port: u16) -> Address {
    Address(
        format!("/ip4/127.0.0.1/tcp/{port}")
            .parse()
            .expect("is a multiaddress"),
    )
}

/// Writes the folders of `count` peers that know each other under `root`, and starts none.
pub(super) fn prepare(root: &Path, count: usize) -> anyhow::Result<Vec<Process>> {
    let identities: Vec<Identity> = (0..count).map(|_| Identity::generate()).collect();
    let ports = Ports::free(count)?;
    let secret = Secret::random();
    let addresses: Vec<Address> = identities
        .iter()
        .zip(&ports)
        .map(|(identity, ports)| {
            let address = format!("/ip4/127.0.0.1/tcp/{}/p2p/{}", ports.cluster, identity.peer);
            Address(address.parse().expect("is a multiaddress"))
        })
        .collect();
    let mut peers = Vec::new();
    for (number, (identity, ports)) in identities.iter().zip(&ports).enumerate() {
        let name = format!("peer{}", number + 1);
        let folder = root.join(&name);
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let mut config = settings(&name, ports);
        config.cluster.secret = secret.clone();
        config.consensus.raft.init_peerset = identities.iter().map(|identity| Peer(identity.peer)).collect();
        config.save(&folder)?;
        identity.save(&folder)?;
        Peerstore::save(&config.peerstore_file(&folder), &addresses)?;
        let id = identity.peer.to_string();
        peers.push(Process {
            name,
            id,
            rest: ports.rest,
            ipfs: ports.ipfs,
            folder,
            child: None,
        });
    }
    Ok(peers)
}

/// Returns the default settings, except for the ports and for shorter intervals that suit a spectator.
fn settings(name: &str, ports: &Ports) -> Config {
    let mut config = Config::fresh();
    config.cluster.peername = name.to_owned();
    config.cluster.mdns_interval = Period::secs(0);
    config.cluster.listen_multiaddress = Strings(vec![address(ports.cluster)]);
    config.cluster.monitor_ping_interval = Period::secs(1);
    config.cluster.repinning_grace = Period::secs(2);
    config.cluster.disable_repinning = false;
    if let Some(rest) = &mut config.api.restapi {
        rest.http_listen_multiaddress = Strings(vec![address(ports.rest)]);
    }
    config.api.ipfsproxy = None;
    config.ipfs_connector = IpfsConnector {
        embedded: Some(Embedded {
            api_listen_multiaddress: Strings(vec![address(ports.ipfs)]),
            // Three peers cannot share the usual port.
            gateway_listen_multiaddress: Strings(Vec::new()),
            swarm_listen_multiaddress: vec![address(ports.swarm)],
            // A demonstration contacts no other machine.
            private: true,
            ..Embedded::default()
        }),
        ipfshttp: None,
    };
    config
}

impl Process {
    /// Starts the process, with its log in its folder.
    pub(super) fn start(&mut self, program: &Path) -> anyhow::Result<()> {
        let log = File::options().create(true).append(true).open(self.log())?;
        let child = Command::new(program)
            .arg("--config")
            .arg(&self.folder)
            .args(["--logformat", "nocolor", "daemon"])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        self.child = Some(child);
        Ok(())
    }

    /// Returns the path of its log.
    pub(super) fn log(&self) -> PathBuf {
        self.folder.join("daemon.log")
    }

    /// Kills the process by SIGKILL.
    pub(super) fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Fails if the process has ended by itself, with the end of its log.
    pub(super) fn check(&mut self) -> anyhow::Result<()> {
        if let Some(child) = &mut self.child
            && let Some(status) = child.try_wait()?
        {
            let log = std::fs::read_to_string(self.log()).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let end = lines[lines.len().saturating_sub(10)..].join("\n");
            anyhow::bail!(
                "{} ended by itself ({status}). The end of {}:\n{end}",
                self.name,
                self.log().display()
            );
        }
        Ok(())
    }

    /// Returns a client of its REST API.
    pub(super) fn client(&self) -> anyhow::Result<Client> {
        let options = cluster_api::client::Options::default();
        Ok(Client::new(
            &format!("/ip4/127.0.0.1/tcp/{}", self.rest),
            options,
        )?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Failure cannot be reported here.
        let _ = self.kill();
    }
}
