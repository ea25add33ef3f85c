//! Addresses of DHT servers through which this node joins the DHT: those of its last routing table, saved in
//! the file `dht_servers`, and the bootstrap peers of the settings.

use super::split;
use crate::settings::PublicNetwork;
use libp2p::{Multiaddr, PeerId};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Name of the file.
const FILE: &str = "dht_servers";
/// Limit on saved servers: enough that some are alive after a week.
const SAVED_MAX: usize = 256;
/// Limit on the bytes of the file that are read.
const FILE_MAX: u64 = 1 << 20;
/// Number of peers in a routing table below which known servers are dialled.
const TABLE_MIN: usize = 10;
/// Number of servers dialled together.
const DIALS: usize = 16;
/// Pause after dialling; it doubles up to the maximum while the table stays nearly empty.
const PAUSE_MIN: Duration = Duration::from_secs(2);
const PAUSE_MAX: Duration = Duration::from_secs(120);
/// Interval of saving the routing table.
const SAVE_INTERVAL: Duration = Duration::from_secs(300);
/// Time after the start at which it is saved first.
const FIRST_SAVE: Duration = Duration::from_secs(30);

/// Known servers and the schedule of dialling them.
pub(super) struct KnownServers {
    /// The saved servers, then the bootstrap peers.
    servers: Vec<(PeerId, Vec<Multiaddr>)>,
    /// Number of saved servers.
    saved: usize,
    is_on: bool,
    /// Position of the next server to dial.
    position: usize,
    next: Instant,
    pause: Duration,
    next_save: Instant,
    path: PathBuf,
}

/// Groups addresses by their peer ids.
fn by_peer(addresses: impl Iterator<Item = Multiaddr>) -> BTreeMap<PeerId, Vec<Multiaddr>> {
    let mut peers: BTreeMap<PeerId, Vec<Multiaddr>> = BTreeMap::new();
    for address in addresses {
        if let Ok((peer, plain)) = split(address.clone()) {
            // The DNS transport needs the id to choose among the entries of a dnsaddr.
            let named = address.to_string().starts_with("/dnsaddr/");
            peers
                .entry(peer)
                .or_default()
                .push(if named { address } else { plain });
        }
    }
    peers
}

fn read(path: &Path) -> Vec<Multiaddr> {
    use std::io::Read;
    let mut text = String::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(FILE_MAX).read_to_string(&mut text));
    match read {
        Ok(_) => text.lines().filter_map(|line| line.parse().ok()).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            // The bootstrap peers replace it.
            tracing::warn!(path = %path.display(), %error, "the saved dht servers cannot be read");
            Vec::new()
        }
    }
}

impl KnownServers {
    /// Reads the saved servers.
    pub(super) fn load(folder: &Path, settings: &PublicNetwork, bootstrap: &[Multiaddr]) -> KnownServers {
        let path = folder.join(FILE);
        let is_on = settings.effective_routing().uses_dht();
        let saved = if is_on { read(&path) } else { Vec::new() };
        let servers: Vec<_> = by_peer(saved.into_iter()).into_iter().collect();
        let now = Instant::now();
        let mut known = KnownServers {
            saved: servers.len(),
            servers,
            is_on,
            position: 0,
            next: now,
            pause: PAUSE_MIN,
            next_save: now + FIRST_SAVE,
            path,
        };
        known.use_bootstrap(bootstrap);
        known
    }

    /// Replaces the bootstrap peers. Those of a node that joins no DHT are not dialled.
    pub(super) fn use_bootstrap(&mut self, peers: &[Multiaddr]) {
        if self.is_on {
            self.servers.truncate(self.saved);
            self.servers.extend(by_peer(peers.iter().cloned()));
            self.position = 0;
            self.pause = PAUSE_MIN;
            self.next = Instant::now();
        }
    }

    /// Returns the servers to dial now, while a routing table has `table` peers.
    pub(super) fn due(&mut self, table: usize, now: Instant) -> Vec<(PeerId, Vec<Multiaddr>)> {
        if table >= TABLE_MIN {
            self.pause = PAUSE_MIN;
            return Vec::new();
        }
        if now < self.next || self.servers.is_empty() {
            return Vec::new();
        }
        self.next = now + self.pause;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        let count = DIALS.min(self.servers.len());
        let chosen = self.servers.iter().cycle().skip(self.position).take(count);
        let chosen = chosen.cloned().collect();
        self.position = (self.position + count) % self.servers.len();
        chosen
    }

    /// Returns whether the routing table should be saved now.
    pub(super) fn is_save_due(&mut self, now: Instant) -> bool {
        let is_due = now >= self.next_save;
        if is_due {
            self.next_save = now + SAVE_INTERVAL;
        }
        is_due
    }

    /// Saves the routing table on another thread. An empty one does not replace a saved one.
    pub(super) fn save(&self, table: Vec<(PeerId, Vec<Multiaddr>)>) {
        if table.is_empty() {
            return;
        }
        let path = self.path.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = write(&path, &table) {
                tracing::warn!(path = %path.display(), %error, "the dht servers could not be saved");
            }
        });
    }
}

fn write(path: &Path, table: &[(PeerId, Vec<Multiaddr>)]) -> std::io::Result<()> {
    let mut text = String::new();
    for (peer, addresses) in table.iter().take(SAVED_MAX) {
        for address in addresses {
            if let Ok(address) = address.clone().with_p2p(*peer) {
                text.push_str(&address.to_string());
                text.push('\n');
            }
        }
    }
    let partial = path.with_extension("partial");
    std::fs::write(&partial, text)?;
    std::fs::rename(&partial, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Routing;

    #[test]
    fn saved_servers_are_dialled_first_and_again_after_growing_pauses() {
        let folder = tempfile::tempdir().unwrap();
        let (saved, bootstrap) = (PeerId::random(), PeerId::random());
        let addresses: Vec<Multiaddr> = vec!["/ip4/1.2.3.4/tcp/1".parse().unwrap()];
        write(&folder.path().join(FILE), &[(saved, addresses.clone())]).unwrap();
        let named: Multiaddr = format!("/dnsaddr/example.com/p2p/{bootstrap}").parse().unwrap();
        let settings = PublicNetwork {
            private: false,
            routing: Routing::Dht,
            ..PublicNetwork::default()
        };
        let mut known = KnownServers::load(folder.path(), &settings, std::slice::from_ref(&named));
        let now = known.next;
        let expected = vec![(saved, addresses.clone()), (bootstrap, vec![named.clone()])];
        assert_eq!(known.due(0, now), expected);
        assert_eq!(known.due(0, now), []);
        assert_eq!(known.due(0, now + PAUSE_MIN), expected);
        assert_eq!(known.due(0, now + 2 * PAUSE_MIN), [], "the pause has doubled");
        assert_eq!(known.due(TABLE_MIN, now + PAUSE_MAX), []);
        known.use_bootstrap(&[]);
        assert_eq!(known.due(0, Instant::now()), [(saved, addresses)]);
        let private = PublicNetwork {
            private: true,
            ..settings
        };
        let known = KnownServers::load(folder.path(), &private, &[named]);
        assert!(known.servers.is_empty());
    }
}
