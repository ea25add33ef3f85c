//! Content routing of the node: providers, peers, values.

use super::Node;
use crate::steps::Recorder;
use crate::{Cid, DhtState, Duty, Error, ProvideStat, Provider, PublicNetwork};
use futures::stream::{BoxStream, StreamExt, unfold};
use libp2p::{Multiaddr, PeerId};
use std::time::SystemTime;
use tokio::sync::mpsc;

fn stream<T: Send + 'static>(receiver: mpsc::Receiver<T>) -> BoxStream<'static, T> {
    unfold(receiver, |mut receiver| async {
        let next = receiver.recv().await?;
        Some((next, receiver))
    })
    .boxed()
}

impl Node {
    /// Returns the state of each DHT in use, the public one first. A few seconds old at most.
    pub fn dhts(&self) -> Vec<DhtState> {
        self.inner.network.dhts()
    }

    /// Searches providers of a block in the DHTs and at the delegated routers, and streams them as they are
    /// found. Ends after `limit` different ones, or after a minute; dropping the stream ends the search.
    pub fn find_providers(&self, cid: &Cid, limit: usize) -> BoxStream<'static, Provider> {
        stream(self.inner.routing.providers(*cid, limit, &Recorder::default()))
    }

    /// Searches the addresses of a peer. Empty if nobody knows it.
    ///
    /// # Errors
    /// [`Error::Busy`] if too many lookups run; [`Error::Closed`] after a shutdown.
    pub async fn find_peer(&self, peer: PeerId) -> Result<Vec<Multiaddr>, Error> {
        self.inner.routing.find_peer(peer).await
    }

    /// Searches the DHT servers closest to a key, which is the binary form of a multihash or a peer id.
    ///
    /// # Errors
    /// As [`Node::find_peer`].
    pub async fn closest_peers(&self, key: Vec<u8>) -> Result<Vec<(PeerId, Vec<Multiaddr>)>, Error> {
        let closest = self.inner.routing.closest(key).await?;
        Ok(closest
            .into_iter()
            .map(|found| (found.peer, found.addresses))
            .collect())
    }

    /// Sets who decides which roots this node announces again and again. Without, it announces all of them.
    pub fn set_duty(&self, duty: Duty) {
        self.inner.provider.set_duty(duty);
    }

    /// Returns the state of announcing content.
    pub fn provide_stat(&self) -> ProvideStat {
        self.inner.provider.stat()
    }

    /// Adds a CID to the queue of announcements, waiting for room.
    pub(crate) async fn provide_later(&self, cid: Cid) {
        self.inner.provider.announce_later(cid).await;
    }

    /// Empties the queue of new pins that wait for their announcement; returns their number.
    pub(crate) fn clear_provide_queue(&self) -> usize {
        self.inner.provider.clear_queue()
    }

    /// Announces all content again, in the background.
    pub(crate) fn reprovide(&self) {
        self.inner.provider.reprovide();
    }

    /// Returns the settings of contact with others.
    pub(crate) fn network_settings(&self) -> &PublicNetwork {
        &self.inner.settings
    }

    /// Returns the time at which this node last announced a root, as far as it knows.
    pub fn announced_at(&self, cid: &Cid) -> Option<SystemTime> {
        self.inner.provider.announced_at(cid)
    }

    /// Announces to the DHT that this node has a block. Returns the number of servers that stored the record.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the block is not local; as [`Node::find_peer`].
    pub async fn provide(&self, cid: &Cid) -> Result<usize, Error> {
        if !self.has(cid)? {
            return Err(Error::NotFound(*cid));
        }
        self.inner.routing.provide(cid).await
    }

    /// Streams the copies of a value that DHT servers and delegated routers have, as they are found. The
    /// caller verifies them and chooses among them; dropping the stream ends the search.
    ///
    /// # Errors
    /// As [`Node::find_peer`].
    pub async fn get_values(&self, key: Vec<u8>) -> Result<BoxStream<'static, Vec<u8>>, Error> {
        Ok(stream(self.inner.routing.values(key).await?))
    }

    /// Stores a value, which the caller has verified, at the DHT servers closest to its key and at the
    /// delegated routers. Returns the number of servers that accepted it.
    ///
    /// # Errors
    /// As [`Node::find_peer`].
    pub async fn put_value(&self, key: Vec<u8>, value: Vec<u8>) -> Result<usize, Error> {
        self.inner.routing.put_value(key, value).await
    }
}
