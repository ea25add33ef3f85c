//! Contact with other nodes that clients of the API ask for: bootstrap peers, peers that stay connected,
//! pings, traffic, routing tables.

use super::Node;
use crate::config_file::{BOOTSTRAP_MAX, Document, PeerAddresses, Peerings, Unchangeable};
use crate::reader::blocking;
use crate::swarm::{RoutingTable, TrafficStat};
use crate::{Config, Error, settings};
use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::swarm::{Stream, StreamProtocol};
use libp2p::{Multiaddr, PeerId};
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// Protocol of pings.
const PING: StreamProtocol = StreamProtocol::new("/ipfs/ping/1.0.0");
/// Bytes of a ping.
const PING_BYTES: usize = 32;
/// Attempts of one ping.
const PING_ATTEMPTS: u32 = 3;
/// Time limit of one ping with its dial; Kubo's.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Sends one ping over a new stream; returns the time until its answer.
async fn ping_over(mut stream: Stream) -> std::io::Result<Duration> {
    let sent: [u8; PING_BYTES] = rand::random();
    let began = Instant::now();
    stream.write_all(&sent).await?;
    stream.flush().await?;
    let mut received = [0; PING_BYTES];
    stream.read_exact(&mut received).await?;
    let time = began.elapsed();
    // The answer has arrived: a failure to close loses nothing.
    let _ = stream.close().await;
    match received == sent {
        true => Ok(time),
        false => Err(std::io::Error::other("ping packet was incorrect")),
    }
}

impl Node {
    /// Returns the peers through which the DHT is joined.
    pub fn bootstrap(&self) -> Vec<Multiaddr> {
        self.inner.config.bootstrap()
    }

    /// Returns the well-known bootstrap peers of the public network.
    pub fn default_bootstrap() -> Vec<Multiaddr> {
        let all = settings::BOOTSTRAP.iter();
        all.filter_map(|address| address.parse().ok()).collect()
    }

    /// Adds bootstrap peers before the known ones. They are saved, and used from now on.
    ///
    /// # Errors
    /// [`Error::Invalid`] if an address does not end in a peer id, or there are too many; the settings cannot
    /// be saved.
    pub async fn add_bootstrap(&self, added: Vec<Multiaddr>) -> Result<(), Error> {
        if added.len() > BOOTSTRAP_MAX {
            return Err(Error::invalid(format!(
                "the list of bootstrap peers may have {BOOTSTRAP_MAX} addresses"
            )));
        }
        self.change_bootstrap(move |known| {
            let mut list: Vec<Multiaddr> = Vec::with_capacity(added.len() + known.len());
            for address in added.into_iter().chain(known) {
                if !list.contains(&address) {
                    list.push(address);
                }
            }
            (list, ())
        })
        .await
    }

    /// Removes bootstrap peers; returns the removed addresses. `None` removes all. An address that is only a
    /// peer id removes all addresses of that peer.
    ///
    /// # Errors
    /// The settings cannot be saved.
    pub async fn remove_bootstrap(&self, removed: Option<Vec<Multiaddr>>) -> Result<Vec<Multiaddr>, Error> {
        let is_removed = move |address: &Multiaddr| {
            let Some(removed) = &removed else { return true };
            let peer = address.iter().last().map(Multiaddr::from);
            removed
                .iter()
                .any(|removed| removed == address || Some(removed) == peer.as_ref())
        };
        self.change_bootstrap(move |known| {
            let (gone, kept) = known.into_iter().partition(is_removed);
            (kept, gone)
        })
        .await
    }

    async fn change_bootstrap<T: Send + 'static>(
        &self,
        change: impl FnOnce(Vec<Multiaddr>) -> (Vec<Multiaddr>, T) + Send + 'static,
    ) -> Result<T, Error> {
        let config = self.inner.config.clone();
        let changed = blocking(move || config.change_bootstrap(change)).await?;
        self.inner.network.use_bootstrap(self.bootstrap()).await?;
        Ok(changed)
    }

    /// Returns the size of a directory above which the node shards it, in bytes.
    pub(crate) fn hamt_threshold(&self) -> u64 {
        self.inner.config.hamt_threshold()
    }

    /// Returns the saved settings, in the shape of Kubo's configuration.
    pub(crate) fn saved_config(&self) -> Document {
        self.inner.config.document()
    }

    /// Returns the settings that the node uses until its end.
    pub(crate) fn started_with(&self) -> &Config {
        self.inner.config.started()
    }

    /// Changes the saved settings. Returns the keys that were set and do nothing in this node.
    ///
    /// # Errors
    /// A key or its value is invalid, or cannot be changed; they cannot be saved.
    pub(crate) async fn change_config(
        &self,
        unchangeable: Unchangeable,
        change: impl FnOnce(&mut Document) -> Result<(), Error> + Send + 'static,
    ) -> Result<Vec<String>, Error> {
        let config = self.inner.config.clone();
        let bootstrap = self.bootstrap();
        let changed = blocking(move || config.change(unchangeable, change)).await?;
        if self.bootstrap() != bootstrap {
            self.inner.network.use_bootstrap(self.bootstrap()).await?;
        }
        for peer in changed.dropped {
            self.inner.network.release(peer).await?;
        }
        for PeerAddresses { peer, addresses } in changed.kept {
            self.inner.network.keep(peer, addresses).await?;
        }
        Ok(changed.without_effect)
    }

    /// Returns the peers that stay connected because a client asked for it.
    pub(crate) fn peerings(&self) -> Peerings {
        self.inner.config.peerings()
    }

    /// Keeps connections to peers until the end of the process.
    ///
    /// # Errors
    /// [`Error::Invalid`] if there are too many.
    pub(crate) async fn add_peerings(&self, added: Peerings) -> Result<(), Error> {
        self.inner.config.add_peerings(added.clone())?;
        for (peer, addresses) in added {
            self.inner.network.keep(peer, addresses).await?;
        }
        Ok(())
    }

    /// Stops keeping a connection to a peer, which stays open. Nothing happens to one that was not added.
    ///
    /// # Errors
    /// [`Error::Closed`] after a shutdown.
    pub(crate) async fn remove_peering(&self, peer: PeerId) -> Result<(), Error> {
        match self.inner.config.remove_peering(&peer) {
            true => self.inner.network.release(peer).await,
            false => Ok(()),
        }
    }

    /// Returns the bytes exchanged with other nodes.
    pub fn traffic(&self) -> TrafficStat {
        self.inner.network.traffic()
    }

    /// Returns the bytes exchanged with one other node; they are forgotten an hour after the last ones.
    pub fn traffic_of(&self, peer: &PeerId) -> TrafficStat {
        self.inner.network.traffic_of(peer)
    }

    /// Returns the peers in the routing table of each DHT, the public one first.
    ///
    /// # Errors
    /// [`Error::Closed`] after a shutdown.
    pub(crate) async fn routing_tables(&self) -> Result<Vec<RoutingTable>, Error> {
        self.inner.network.routing_tables().await
    }

    /// Pings a peer, connecting to it first; returns the time until its answer.
    ///
    /// # Errors
    /// [`Error::Dial`] if the peer cannot be reached, or does not answer in time.
    pub(crate) async fn ping(&self, peer: PeerId, addresses: Vec<Multiaddr>) -> Result<Duration, Error> {
        let failed = |why: String| Error::Dial { peer, why };
        let network = &self.inner.network;
        let exchange = async {
            network.dial(peer, addresses).await?;
            let mut attempt = 1;
            loop {
                let stream = network.streams().open_stream(peer, PING).await;
                let stream = stream.map_err(|error| failed(error.to_string()))?;
                match ping_over(stream).await {
                    Ok(time) => return Ok(time),
                    // rust-libp2p answers one stream of a peer at a time: one that the swarm's own pings have
                    // just opened ends this one.
                    Err(_) if attempt < PING_ATTEMPTS => attempt += 1,
                    Err(error) => return Err(failed(error.to_string())),
                }
            }
        };
        match timeout(PING_TIMEOUT, exchange).await {
            Ok(time) => time,
            Err(_) => Err(failed(format!("no answer within {PING_TIMEOUT:?}"))),
        }
    }
}
