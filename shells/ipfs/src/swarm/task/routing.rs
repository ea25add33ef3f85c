//! The DHTs: their mode, their routing tables, lookups, and the records that peers send.

use super::Task;
use crate::store::lock;
use crate::swarm::addresses::{Reach, Scope, dialable, is_relayed, reach};
use crate::swarm::dht::{Dht, Lookup, Records};
use crate::swarm::{DhtState, split};
use crate::{Error, Identity, ipns};
use jiff::Timestamp;
use libp2p::kad::store::RecordStore;
use libp2p::kad::{Event as DhtEvent, InboundRequest, Record, RecordKey};
use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, PeerId, identify};
use std::time::Instant;

impl Task {
    pub(super) fn start_lookup(&mut self, lookup: Lookup) -> Result<(), Error> {
        if !self.queries.has_room() {
            return Err(Error::Busy("too many lookups are running in the dht"));
        }
        for dht in self.swarm.behaviour_mut().dhts() {
            // Without others, a server may still have the records itself.
            let is_local = dht.is_server() && matches!(lookup, Lookup::Providers(..) | Lookup::Values(..));
            if dht.table_len() > 0 || is_local {
                self.queries.start(dht, lookup.clone());
                // Records are stored in the local DHT only while there is no public one, as by Kubo.
                if matches!(lookup, Lookup::Closest(..) | Lookup::Settled(..)) {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Dials known DHT servers while a routing table is nearly empty.
    pub(super) fn join_dht(&mut self, now: Instant) {
        let sizes: Vec<usize> = self.swarm.behaviour_mut().dhts().map(Dht::table_len).collect();
        let Some(smallest) = sizes.iter().copied().min() else {
            return;
        };
        for (peer, addresses) in self.servers.due(smallest, now) {
            self.try_dial(peer, addresses);
        }
        if self.servers.is_save_due(now) {
            let mut table = Vec::new();
            for dht in self.swarm.behaviour_mut().dhts() {
                table.extend(dht.table());
            }
            self.servers.save(table);
        }
    }

    /// Serves the public DHT while an address is confirmed that strangers can reach directly, and the local
    /// one always, unless the settings forbid it.
    pub(super) fn choose_modes(&mut self) {
        let may_serve = self.settings.effective_routing().may_serve();
        let direct = |address: &&Multiaddr| reach(address) == Reach::Public && !is_relayed(address);
        let is_reachable = self.swarm.external_addresses().any(|address| direct(&address));
        let behaviour = self.swarm.behaviour_mut();
        if let Some(dht) = behaviour.public_dht.as_mut() {
            dht.serve(may_serve && is_reachable);
        }
        if let Some(dht) = behaviour.local_dht.as_mut() {
            dht.serve(may_serve);
        }
        self.publish_dht_state();
    }

    pub(super) fn publish_dht_state(&mut self) {
        let state = |dht: &mut Dht| {
            let (provider_records, value_records) = dht.kad().store_mut().len();
            DhtState {
                protocol: dht.protocol(),
                is_public: dht.scope() == Scope::Public,
                peers: dht.table_len(),
                is_server: dht.is_server(),
                provider_records,
                value_records,
            }
        };
        let dhts = self.swarm.behaviour_mut().dhts().map(state).collect();
        let local = *self.swarm.local_peer_id();
        // Relayed addresses end in this node's id, others do not.
        let plain = |address: &Multiaddr| match split(address.clone()) {
            Ok((peer, plain)) if peer == local => plain,
            Ok(_) | Err(_) => address.clone(),
        };
        let external = self.swarm.external_addresses().map(plain).collect();
        let mut shared = lock(&self.shared);
        shared.dhts = dhts;
        shared.external = external;
    }

    /// Records an identify message, and updates the routing tables.
    pub(super) fn identified(&mut self, peer: PeerId, connection: ConnectionId, info: identify::Info) {
        if let Some(remote) = self.remotes.get(&connection) {
            for dht in self.swarm.behaviour_mut().dhts() {
                let serves = info.protocols.iter().any(|name| name.as_ref() == dht.protocol());
                // A peer of the public network must not name targets in the local one.
                if serves && dht.scope().contains(&remote.address) {
                    dht.add_server(&peer, &info.listen_addrs);
                } else if !serves {
                    dht.remove(&peer);
                }
            }
        }
        lock(&self.shared)
            .identified
            .insert(peer, identity_of(peer, info));
    }

    /// Stores a record that a peer sends, if it is valid.
    pub(super) fn handle_dht(&mut self, scope: Scope, event: DhtEvent) {
        let Some(dht) = self.swarm.behaviour_mut().dhts().find(|dht| dht.scope() == scope) else {
            return;
        };
        let DhtEvent::InboundRequest { request } = event else {
            return self.queries.handle(dht, event);
        };
        match request {
            InboundRequest::AddProvider {
                record: Some(mut record),
            } => {
                record.addresses = dialable(std::mem::take(&mut record.addresses), &[scope]);
                // Without room it is refused; the provider sends it to 19 others as well.
                let _ = dht.kad().store_mut().add_provider(record);
            }
            InboundRequest::PutRecord {
                record: Some(record), ..
            } => {
                if is_newer_name(&record, dht.kad().store_mut()) {
                    // Without room it is refused, as above.
                    let _ = dht.kad().store_mut().put(record);
                }
            }
            InboundRequest::AddProvider { record: None }
            | InboundRequest::PutRecord { record: None, .. }
            | InboundRequest::FindNode { .. }
            | InboundRequest::GetProvider { .. }
            | InboundRequest::GetRecord { .. } => {}
        }
    }
}

/// Converts a peer's identify message to the type of this node's own identity.
fn identity_of(peer_id: PeerId, info: identify::Info) -> Identity {
    let addresses = info.listen_addrs.into_iter();
    let mut protocols: Vec<String> = info.protocols.iter().map(ToString::to_string).collect();
    protocols.sort();
    Identity {
        peer_id,
        public_key: info.public_key,
        addresses: addresses
            .filter_map(|address| address.with_p2p(peer_id).ok())
            .collect(),
        agent_version: info.agent_version,
        protocols,
    }
}

/// Returns whether a received value is a valid IPNS record that replaces the stored one.
fn is_newer_name(received: &Record, stored: &Records) -> bool {
    let name = received.key.as_ref().strip_prefix(b"/ipns/");
    let Some(name) = name.and_then(|bytes| PeerId::from_bytes(bytes).ok()) else {
        return false;
    };
    let Ok(new) = ipns::Record::verified(&name, &received.value, Timestamp::now()) else {
        return false;
    };
    let old = stored.get(&received.key);
    let old = old.and_then(|old| ipns::Record::parse(&old.value).ok());
    old.is_none_or(|old| new.replaces(&old))
}

/// Stores a value among those that this node serves.
pub(super) fn store_value(dht: &mut Dht, key: Vec<u8>, value: Vec<u8>) {
    let record = Record::new(RecordKey::from(key), value);
    if let Err(error) = dht.kad().store_mut().put(record) {
        tracing::warn!(%error, "a value was not stored among the records of the dht");
    }
}
