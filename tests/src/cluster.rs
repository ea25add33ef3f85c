//! Test clusters: peers in a temporary folder, on free ports.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::peer::Peer;
use crate::process::wait_until;

/// Options of a test cluster.
#[derive(Debug)]
pub struct Options {
    /// Number of peers.
    pub peers: usize,
    /// Edits each peer's `service.json`, after all other changes.
    pub edit: fn(&mut Value),
    /// Parent of its folders; `None` for the system's temporary folder.
    pub inside: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            peers: 3,
            edit: |_| {},
            inside: None,
        }
    }
}

/// Peers that know each other's addresses.
#[derive(Debug)]
pub struct Cluster {
    /// Peers, by number.
    pub peers: Vec<Peer>,
    folder: TempDir,
}

impl Cluster {
    /// Starts three peers and waits until they are connected.
    pub fn start() -> Self {
        Self::start_with(&Options::default())
    }

    /// Starts peers and waits until they are connected.
    pub fn start_with(options: &Options) -> Self {
        let mut cluster = Self::prepare(options);
        for peer in &mut cluster.peers {
            peer.start();
        }
        cluster.wait_ready();
        // Peers may be connected a moment before they report that they are ready.
        for peer in &mut cluster.peers {
            peer.wait_ready(1);
        }
        cluster
    }

    /// Writes the folders of peers that know each other, without starting them.
    ///
    /// # Panics
    /// If `init` fails.
    pub fn prepare(options: &Options) -> Self {
        let folder = match &options.inside {
            Some(inside) => TempDir::new_in(inside),
            None => TempDir::new(),
        };
        let folder = folder.expect("a temporary folder");
        let peers: Vec<Peer> = (0..options.peers)
            .map(|number| Peer::init(folder.path(), &format!("peer{number}")))
            .collect();
        let ids: Vec<&str> = peers.iter().map(|peer| peer.id.as_str()).collect();
        let addresses: Vec<String> = peers
            .iter()
            .map(|peer| format!("/ip4/127.0.0.1/tcp/{}/p2p/{}\n", peer.cluster_port, peer.id))
            .collect();
        for peer in &peers {
            peer.edit(|config| {
                config["consensus"]["raft"]["init_peerset"] = json!(ids);
                (options.edit)(config);
            });
            std::fs::write(peer.folder.join("peerstore"), addresses.concat()).expect("the peerstore");
        }
        Self { peers, folder }
    }

    /// Waits until all running peers are connected and know each other's free space, by which pins are
    /// allocated.
    ///
    /// # Panics
    /// If one of them ends, or they do not find each other.
    pub fn wait_ready(&mut self) {
        let running = self.peers.iter().filter(|peer| peer.is_started()).count();
        for at in 0..self.peers.len() {
            if !self.peers[at].is_started() {
                continue;
            }
            wait_until("all peers see each other", || {
                self.peers.iter_mut().for_each(Peer::check);
                let peer = &self.peers[at];
                let seen = peer.try_get("/peers")?.values();
                let seen = seen
                    .iter()
                    .filter(|id| id["error"].as_str().unwrap_or("").is_empty());
                let known = peer.try_get("/monitor/metrics/freespace")?.json();
                let known = known.as_array().map_or(0, Vec::len);
                let seen = seen.count();
                if seen < running || known < running {
                    return Err(format!(
                        "{} sees {seen} peers and the space of {known}",
                        peer.name
                    ));
                }
                Ok(())
            });
        }
    }

    /// Writes the folder of one more peer, which knows no addresses, and returns its number.
    ///
    /// # Panics
    /// If `init` fails.
    pub fn newcomer(&mut self) -> usize {
        let number = self.peers.len();
        let peer = Peer::init(self.folder.path(), &format!("peer{number}"));
        self.peers.push(peer);
        number
    }

    /// Returns the parent of the peers' folders.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the number of the leader, according to the log of a running peer.
    ///
    /// # Panics
    /// If no peer runs, or no leader is logged.
    pub fn leader(&self) -> usize {
        let running = self
            .peers
            .iter()
            .find(|peer| peer.is_started())
            .expect("one runs");
        wait_until("the log says who leads", || {
            let log = running.log();
            let named = |line: &str| {
                line.split_once("the cluster's leader is ")
                    .map(|(_, id)| id.to_owned())
            };
            let id = log.lines().rev().find_map(named).ok_or("it does not")?;
            let leader = self.peers.iter().position(|peer| id.starts_with(&peer.id));
            leader.ok_or_else(|| format!("{id} is not a peer of this cluster"))
        })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for peer in &self.peers {
                let log = peer.log();
                let lines: Vec<&str> = log.lines().collect();
                let end = lines[lines.len().saturating_sub(15)..].join("\n  ");
                eprintln!("the end of {}'s log:\n  {end}", peer.name);
            }
        }
    }
}
