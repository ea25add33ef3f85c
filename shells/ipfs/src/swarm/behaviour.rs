//! The behaviours and the transport of the swarm.

use super::addresses::Scope;
use super::admission::Admission;
use super::dht::Dht;
use super::dial_back::DialBack;
use super::hole_punching::HolePunching;
use super::identify::Identify;
use super::muxer;
use super::peer_budget::Pool;
use super::port_mapping::PortMapping;
use super::reachability::Reachability;
use super::security::Security;
use super::traffic::{Traffic, count};
use super::{RoutingTable, Setup};
use crate::Error;
use crate::bitswap::{self, Bitswap};
use crate::handshakes::LimitedTransport;
use libp2p::core::Transport;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::Boxed;
use libp2p::core::transport::timeout::TransportTimeout;
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{PeerId, Swarm, dns, mdns, ping, quic, relay, tcp};
use std::sync::Arc;
use std::time::Duration;

/// Limit on concurrent incoming handshakes: as many as connections from strangers. Each costs some 70 KiB.
const HANDSHAKES_MAX: usize = 128;
/// Time limit from the first packet to a connection on which streams can be opened.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time limit of connecting a socket, before the handshake: a lost packet is repeated after one second and
/// after three. A lookup in the DHT waits for the slowest of the closest servers, some of which are gone.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);
/// Timeout of idle connections. Bitswap keeps its connections alive; the task of the swarm closes the others.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
/// Bytes that a QUIC connection may have received and not processed: the share of one of 128 strangers in the
/// memory of all peers, see [`super::peer_budget`].
const QUIC_CONNECTION_BYTES: u32 = 4 << 20;
/// Bytes that a QUIC stream may have received and not processed; yamux grants as many.
const QUIC_STREAM_BYTES: u32 = 256 << 10;

/// Behaviours of the swarm.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    pub(super) admission: Admission,
    pub(super) identify: Identify,
    ping: ping::Behaviour,
    pub(super) bitswap: bitswap::Behaviour,
    pub(super) public_dht: Toggle<Dht>,
    pub(super) local_dht: Toggle<Dht>,
    pub(super) streams: libp2p_stream::Behaviour,
    reachability: Toggle<Reachability>,
    dial_back: Toggle<DialBack>,
    relay: relay::client::Behaviour,
    hole_punching: Toggle<HolePunching>,
    mdns: Toggle<mdns::tokio::Behaviour>,
}

impl Behaviour {
    /// Returns the DHTs that are in use.
    pub(super) fn dhts(&mut self) -> impl Iterator<Item = &mut Dht> {
        let local = self.local_dht.as_mut();
        self.public_dht.as_mut().into_iter().chain(local)
    }

    /// Returns the peers in the routing table of each DHT.
    pub(super) fn routing_tables(&mut self) -> Vec<RoutingTable> {
        let table = |dht: &mut Dht| {
            let peers = dht.table().into_iter().map(|(peer, _)| peer);
            (dht.protocol(), peers.collect())
        };
        self.dhts().map(table).collect()
    }
}

/// Returns the transport: relays, QUIC, and TCP with encryption and multiplexing whose buffers are charged to
/// the peer. Those of QUIC have fixed limits.
fn transport(
    keypair: &Keypair,
    pool: Arc<Pool>,
    relay: relay::client::Transport,
    traffic: Arc<Traffic>,
) -> std::io::Result<Boxed<(PeerId, StreamMuxerBox)>> {
    let security = Security::new(keypair)?;
    let (tcp_pool, relay_pool) = (pool.clone(), pool);
    let tcp = tcp::tokio::Transport::new(tcp::Config::new().nodelay(true));
    let tcp = TransportTimeout::with_outgoing_timeout(tcp, CONNECT_TIMEOUT)
        .upgrade(Version::V1Lazy)
        .authenticate(security.clone())
        .multiplex_ext(move |peer, _| muxer::Upgrade(tcp_pool.account(*peer)))
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    let relay = relay
        .upgrade(Version::V1Lazy)
        .authenticate(security)
        .multiplex_ext(move |peer, _| muxer::Upgrade(relay_pool.account(*peer)))
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    let mut config = quic::Config::new(keypair);
    config.max_connection_data = QUIC_CONNECTION_BYTES;
    config.max_stream_data = QUIC_STREAM_BYTES;
    let quic = quic::tokio::Transport::new(config).map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    let direct = quic.or_transport(tcp).map(|either, _| either.into_inner());
    let direct = direct.map(move |(peer, muxer), _| (peer, count(muxer, &traffic, peer)));
    let all = relay.or_transport(direct).map(|either, _| either.into_inner());
    let named = dns::tokio::Transport::system(all.boxed())?;
    Ok(LimitedTransport::new(TransportTimeout::new(named, HANDSHAKE_TIMEOUT), HANDSHAKES_MAX).boxed())
}

/// Creates the swarm with the behaviours that the settings ask for.
pub(super) fn build(
    setup: Setup,
    pool: &Arc<Pool>,
    bitswap: Bitswap,
    local_scope: Scope,
) -> Result<Swarm<Behaviour>, Error> {
    let Setup {
        keypair,
        settings,
        records,
        traffic,
        ..
    } = setup;
    let peer = keypair.public().to_peer_id();
    let failed = |error| Error::io("starting the ipfs network", error);
    let (relay_transport, relay) = relay::client::new(peer);
    let transport = transport(&keypair, pool.clone(), relay_transport, traffic).map_err(failed)?;
    let uses_dht = settings.effective_routing().uses_dht();
    // Nobody outside of this machine can reach a node that listens on loopback addresses only.
    let reachable = !settings.private && local_scope != Scope::Machine;
    let mdns = (reachable && settings.lan_discovery)
        .then(|| mdns::tokio::Behaviour::new(mdns::Config::default(), peer))
        .transpose();
    let behaviour = Behaviour {
        admission: Admission::default(),
        identify: Identify::new(&keypair),
        ping: ping::Behaviour::default(),
        bitswap: bitswap::Behaviour::new(bitswap),
        public_dht: uses_dht
            .then(|| Dht::new(peer, Scope::Public, records.public))
            .into(),
        local_dht: uses_dht
            .then(|| Dht::new(peer, local_scope, records.local))
            .into(),
        streams: libp2p_stream::Behaviour::new(),
        reachability: reachable
            .then(|| Reachability::new(settings.lan_discovery.then(PortMapping::start)))
            .into(),
        dial_back: reachable.then(DialBack::default).into(),
        relay,
        hole_punching: reachable.then(|| HolePunching::new(peer)).into(),
        mdns: mdns.map_err(failed)?.into(),
    };
    let config = libp2p::swarm::Config::with_tokio_executor().with_idle_connection_timeout(IDLE_TIMEOUT);
    Ok(Swarm::new(transport, behaviour, peer, config))
}
