//! Kademlia in the swarm: one behaviour for the public DHT, and one for that of the local networks.
//!
//! [`Dht`] wraps `libp2p-kad` with this node's policy. Only addresses of its scope are dialled or enter its
//! routing table, whatever peers report. Peers enter the table when identify has shown that they serve the
//! protocol, at most [`GROUP_MAX`] of one network, and leave it when they cannot be dialled. Received records
//! are stored within the limits of [`Records`]. Nothing is republished or replicated: that is decided by the
//! provider of this node, which sends its records itself ([`sender`]).

mod provider_records;
mod queries;
mod record_database;
mod records;
pub(crate) mod sender;

pub(super) use queries::Queries;
pub(crate) use queries::{FoundPeer, Lookup};
pub(crate) use record_database::RecordDatabase;
pub(super) use records::Records;

use super::addresses::{ADDRESSES_MAX, Scope, dialable, ip_of, is_relayed};
use super::delegation::delegate_connections;
use crate::settings::PublicNetwork;
use libp2p::core::Endpoint;
use libp2p::kad::store::RecordStore;
use libp2p::kad::{self, BucketInserts, Caching, Mode, QueryId, StoreInserts};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, StreamProtocol, THandlerInEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};
use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::path::Path;
use std::task::{Context, Poll};
use std::time::Duration;

/// Protocol of the public DHT.
pub(crate) const PUBLIC_PROTOCOL: &str = "/ipfs/kad/1.0.0";
/// Protocol of the DHT of the local networks.
pub(crate) const LAN_PROTOCOL: &str = "/ipfs/lan/kad/1.0.0";

/// Limit on a message, in bytes: replies of 26 to 43 KB with many addresses are observed, and go-libp2p
/// accepts 4 MiB.
const PACKET_MAX: usize = 1 << 20;
/// Concurrent requests of one query, as in go-libp2p-kad-dht.
const PARALLELISM: NonZeroUsize = NonZeroUsize::new(10).unwrap();
/// Time limit of one query.
const QUERY_TIMEOUT: Duration = Duration::from_secs(60);
/// Time limit of one request, from opening its stream.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Validity of received provider and value records.
const RECORD_TTL: Duration = Duration::from_secs(48 * 3600);
/// Limit on peers of one IPv4 /16 or IPv6 /32 network in the public routing table: one party must not fill
/// it.
const GROUP_MAX: usize = 3;

/// Records that other peers store at this node, in both DHTs.
pub(crate) struct StoredRecords {
    pub(crate) database: RecordDatabase,
    pub(super) public: Records,
    pub(super) local: Records,
}

impl StoredRecords {
    /// Opens the stored records, if the settings use a DHT. Blocks the thread.
    pub(crate) fn open(node_folder: &Path, settings: &PublicNetwork) -> StoredRecords {
        let database = match settings.effective_routing().uses_dht() {
            true => RecordDatabase::open(node_folder),
            false => RecordDatabase::default(),
        };
        StoredRecords {
            public: Records::load(database.clone(), Scope::Public),
            local: Records::load(database.clone(), Scope::Local),
            database,
        }
    }
}

/// Kademlia with the policy of one scope.
pub(super) struct Dht {
    inner: kad::Behaviour<Records>,
    scope: Scope,
    /// Peers that a lookup searches, with the addresses reported so far.
    watched: HashMap<PeerId, Vec<Multiaddr>>,
}

/// Returns the settings of `libp2p-kad`.
fn config(protocol: &'static str) -> kad::Config {
    let mut config = kad::Config::new(StreamProtocol::new(protocol));
    config
        .set_max_packet_size(PACKET_MAX)
        .set_parallelism(PARALLELISM)
        .set_query_timeout(QUERY_TIMEOUT)
        .set_substreams_timeout(REQUEST_TIMEOUT)
        .set_kbucket_inserts(BucketInserts::Manual)
        .set_record_filtering(StoreInserts::FilterBoth)
        .set_replication_interval(None)
        .set_publication_interval(None)
        .set_provider_publication_interval(None)
        .set_provider_record_ttl(Some(RECORD_TTL))
        .set_record_ttl(Some(RECORD_TTL))
        .set_periodic_bootstrap_interval(None)
        .set_caching(Caching::Disabled);
    config
}

/// Returns the network that an address belongs to for the limit [`GROUP_MAX`].
fn group_of(address: &Multiaddr) -> Option<u32> {
    Some(match ip_of(address)? {
        IpAddr::V4(address) => address.to_bits() >> 16,
        IpAddr::V6(address) => (address.to_bits() >> 96) as u32,
    })
}

impl Dht {
    /// Creates the behaviour of one scope, as a client.
    pub(super) fn new(local: PeerId, scope: Scope, records: Records) -> Dht {
        let protocol = match scope {
            Scope::Public => PUBLIC_PROTOCOL,
            Scope::Local | Scope::Machine => LAN_PROTOCOL,
        };
        let mut inner = kad::Behaviour::with_config(local, records, config(protocol));
        inner.set_mode(Some(Mode::Client));
        Dht {
            inner,
            scope,
            watched: HashMap::new(),
        }
    }

    pub(super) fn scope(&self) -> Scope {
        self.scope
    }

    /// Returns the name of the protocol.
    pub(super) fn protocol(&self) -> &'static str {
        match self.scope {
            Scope::Public => PUBLIC_PROTOCOL,
            Scope::Local | Scope::Machine => LAN_PROTOCOL,
        }
    }

    pub(super) fn is_server(&self) -> bool {
        self.inner.mode() == Mode::Server
    }

    /// Starts or stops serving the requests of others.
    pub(super) fn serve(&mut self, serve: bool) {
        if self.is_server() != serve {
            let mode = if serve { Mode::Server } else { Mode::Client };
            self.inner.set_mode(Some(mode));
        }
    }

    pub(super) fn kad(&mut self) -> &mut kad::Behaviour<Records> {
        &mut self.inner
    }

    /// Adds a peer that serves the protocol to the routing table, if its addresses belong to the scope.
    pub(super) fn add_server(&mut self, peer: &PeerId, addresses: &[Multiaddr]) {
        let direct = addresses.iter().filter(|address| !is_relayed(address)).cloned();
        let usable = dialable(direct, &[self.scope]);
        let Some(first) = usable.first() else { return };
        if self.scope == Scope::Public && !self.is_known(peer) && self.is_group_full(first) {
            return;
        }
        for address in usable {
            self.inner.add_address(peer, address);
        }
    }

    fn is_known(&mut self, peer: &PeerId) -> bool {
        let bucket = self.inner.kbucket(*peer);
        bucket.is_some_and(|bucket| bucket.iter().any(|entry| entry.node.key.preimage() == peer))
    }

    fn is_group_full(&mut self, address: &Multiaddr) -> bool {
        let Some(group) = group_of(address) else {
            return false;
        };
        let peers = self.table();
        let same = peers.iter().filter(|(_, addresses)| {
            let first = addresses.first();
            first.and_then(group_of) == Some(group)
        });
        same.count() >= GROUP_MAX
    }

    /// Removes a peer that cannot be dialled or does not serve the protocol any more.
    pub(super) fn remove(&mut self, peer: &PeerId) {
        self.inner.remove_peer(peer);
    }

    /// Starts lookups that find living peers for all parts of the routing table, if it has any.
    pub(super) fn refresh(&mut self) {
        if let Err(error) = self.inner.bootstrap() {
            tracing::debug!(protocol = self.protocol(), %error, "the routing table is not refreshed");
        }
    }

    /// Returns the peers of the routing table.
    pub(super) fn table(&mut self) -> Vec<(PeerId, Vec<Multiaddr>)> {
        let mut peers = Vec::new();
        for bucket in self.inner.kbuckets() {
            for entry in bucket.iter() {
                let addresses = entry.node.value.iter().cloned().collect();
                peers.push((*entry.node.key.preimage(), addresses));
            }
        }
        peers
    }

    /// Returns the number of peers in the routing table.
    pub(super) fn table_len(&mut self) -> usize {
        self.inner.kbuckets().map(|bucket| bucket.num_entries()).sum()
    }

    /// Returns the addresses of a peer in the routing table and in the running queries.
    pub(super) fn addresses_of(&mut self, peer: PeerId) -> Vec<Multiaddr> {
        // `libp2p-kad` has no other access to the addresses of its queries.
        let id = ConnectionId::new_unchecked(0);
        let known = self
            .inner
            .handle_pending_outbound_connection(id, Some(peer), &[], Endpoint::Dialer);
        dialable(known.unwrap_or_default(), &[self.scope])
    }

    /// Returns the addresses in a provider record that is stored here.
    pub(super) fn recorded_addresses(&mut self, key: &[u8], provider: &PeerId) -> Vec<Multiaddr> {
        let records = self.inner.store_mut().providers(&kad::RecordKey::new(&key));
        let record = records.into_iter().find(|record| record.provider == *provider);
        record.map(|record| record.addresses).unwrap_or_default()
    }

    /// Starts to collect the addresses of a peer that queries report.
    pub(super) fn watch(&mut self, peer: PeerId) {
        self.watched.entry(peer).or_default();
    }

    /// Returns the collected addresses.
    pub(super) fn watched(&self, peer: &PeerId) -> Vec<Multiaddr> {
        self.watched.get(peer).cloned().unwrap_or_default()
    }

    /// Stops to collect the addresses of a peer.
    pub(super) fn unwatch(&mut self, peer: &PeerId) {
        self.watched.remove(peer);
    }

    /// Ends a query, which then reports its result.
    pub(super) fn finish(&mut self, id: QueryId) {
        if let Some(mut query) = self.inner.query_mut(&id) {
            query.finish();
        }
    }
}

impl NetworkBehaviour for Dht {
    type ConnectionHandler = <kad::Behaviour<Records> as NetworkBehaviour>::ConnectionHandler;
    type ToSwarm = kad::Event;

    delegate_connections!(self, |id, remote| self.inner, |id| self.inner);

    fn handle_pending_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        let reported = self
            .inner
            .handle_pending_outbound_connection(id, peer, addresses, role)?;
        let usable = dialable(reported, &[self.scope]);
        if let Some(found) = peer.and_then(|peer| self.watched.get_mut(&peer)) {
            found.extend(usable.iter().cloned());
            found.truncate(ADDRESSES_MAX);
        }
        Ok(usable)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        // For `libp2p-kad` a new listen address is a reason to refresh the routing table; that of a node that
        // has just started is empty, which that crate logs as a warning.
        if matches!(event, FromSwarm::NewListenAddr(_)) && self.table_len() == 0 {
            return;
        }
        self.inner.on_swarm_event(event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<kad::Event, THandlerInEvent<Self>>> {
        self.inner.poll(cx)
    }
}
