//! Commands of the node: dials, kept peers and disconnections.

use super::Task;
use super::routing::store_value;
use crate::Error;
use crate::swarm::trimming::Purpose;
use crate::swarm::{Command, Done, split};
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::{Multiaddr, PeerId};
use std::time::Instant;

/// Limit on dials that callers wait for.
const DIALS_MAX: usize = 256;

impl Task {
    pub(super) fn handle_command(&mut self, command: Command) {
        match command {
            Command::Connect(peer, address, done) => {
                if self.swarm.is_connected(&peer) {
                    self.keep(peer, vec![address]);
                    let _ = done.send(Ok(()));
                    return;
                }
                let options = DialOpts::peer_id(peer).addresses(vec![address.clone()]);
                let options = options.condition(PeerCondition::NotDialing).build();
                let id = options.connection_id();
                if self.dial(options, peer, Purpose::Asked, done) {
                    self.kept_peers.add_candidate(id, peer, address);
                }
            }
            Command::Keep(peer, addresses) => self.keep(peer, addresses),
            Command::Disconnect(peer, address, done) => {
                let _ = done.send(self.disconnect(peer, address));
            }
            Command::Dial(peer, addresses, done) => {
                if self.swarm.is_connected(&peer) {
                    let _ = done.send(Ok(()));
                    return;
                }
                let options = DialOpts::peer_id(peer).addresses(addresses);
                let options = options.condition(PeerCondition::Always).build();
                self.dial(options, peer, Purpose::Provider, done);
            }
            Command::Find(lookup, done) => {
                let _ = done.send(self.start_lookup(lookup));
            }
            Command::StoreValue(key, value) => {
                for dht in self.swarm.behaviour_mut().dhts() {
                    store_value(dht, key.clone(), value.clone());
                }
            }
            Command::Release(peer) => self.release(peer),
            Command::Bootstrap(peers) => self.servers.use_bootstrap(&peers),
            Command::Tables(tables) => {
                let _ = tables.send(self.swarm.behaviour_mut().routing_tables());
            }
        }
    }

    /// Starts a dial; returns `false` if it cannot start.
    fn dial(&mut self, options: DialOpts, peer: PeerId, purpose: Purpose, done: Done) -> bool {
        if self.dialling.len() >= DIALS_MAX {
            let _ = done.send(Err(Error::Busy("too many ipfs peers are being dialled")));
            return false;
        }
        let id = options.connection_id();
        match self.swarm.dial(options) {
            Ok(()) => {
                self.dialling.insert(id, (peer, purpose, done));
                true
            }
            Err(error) => {
                let why = error.to_string();
                let _ = done.send(Err(Error::Dial { peer, why }));
                false
            }
        }
    }

    fn disconnect(&mut self, peer: PeerId, address: Option<Multiaddr>) -> Result<(), Error> {
        if let Some(address) = address
            && !self
                .remotes
                .values()
                .any(|remote| remote.peer == peer && remote.address == address)
        {
            return Err(Error::NoConnection(address));
        }
        self.release(peer);
        let closed = self.swarm.disconnect_peer_id(peer);
        closed.map_err(|()| Error::NotConnected(peer))
    }

    /// Stops keeping a peer.
    fn release(&mut self, peer: PeerId) {
        self.kept_peers.drop_peer(&peer);
        self.swarm.behaviour_mut().admission.release(&peer);
        self.bitswap.set_trusted(peer, false);
        self.pool.set_exempt(peer, false);
    }

    pub(super) fn keep(&mut self, peer: PeerId, addresses: Vec<Multiaddr>) {
        if peer == *self.swarm.local_peer_id() {
            return;
        }
        let plain = addresses.into_iter().map(|address| match split(address.clone()) {
            Ok((_, rest)) => rest,
            Err(_) => address,
        });
        if self.kept_peers.keep(peer, plain.collect(), Instant::now()) {
            // Strangers must not be able to use up the places of kept peers.
            self.swarm.behaviour_mut().admission.keep(peer);
            self.bitswap.set_trusted(peer, true);
            self.pool.set_exempt(peer, true);
        }
    }

    pub(super) fn redial_due(&mut self) {
        for (peer, addresses) in self.kept_peers.due(Instant::now()) {
            self.try_dial(peer, addresses);
        }
    }

    /// Dials a peer without a caller that waits for it. A dial that cannot start is retried later, like one
    /// that fails.
    pub(super) fn try_dial(&mut self, peer: PeerId, addresses: Vec<Multiaddr>) {
        if self.swarm.is_connected(&peer) || peer == *self.swarm.local_peer_id() {
            return;
        }
        let options = DialOpts::peer_id(peer).addresses(addresses);
        let options = options
            .condition(PeerCondition::DisconnectedAndNotDialing)
            .build();
        if let Err(error) = self.swarm.dial(options) {
            tracing::debug!(%peer, %error, "dialling an ipfs peer failed");
        }
    }
}
