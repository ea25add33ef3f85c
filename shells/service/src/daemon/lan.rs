//! Discovery on the local network: peers with the same secret find each other by multicast DNS
//! ([RFC 6762](https://www.rfc-editor.org/rfc/rfc6762), [RFC 6763](https://www.rfc-editor.org/rfc/rfc6763)),
//! and form one cluster without any configured address.
//!
//! Each peer announces its id, its addresses and a tag, and looks for others with the same tag. The tag is
//! derived from the secret, so that peers of other clusters are not dialled; anyone who learns it can
//! announce addresses, but fails the handshake. Members that are found are dialled. A stranger is invited
//! into this peer's cluster, which it accepts only while it is the only member of an empty cluster of its
//! own. Of two such peers, the one with the smaller id invites.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use cluster_core::{ClusterId, PeerId};
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use mdns_sd::{IfKind, IfPredicate, ResolvedService, ServiceDaemon, ServiceEvent, ServiceInfo};
use tokio::time::MissedTickBehavior;

use crate::config::{Address, Config};
use crate::discovery::{self, InviteError, Question};
use crate::driver::Handle;
use crate::net::Net;

/// Service type.
const SERVICE: &str = "_ipfs-cluster._tcp.local.";
/// Key of the tag.
const TAG: &str = "tag";
/// Prefix of the keys of addresses; a number follows.
const ADDRESS: &str = "addr";
/// Key derivation context of the tag, which separates it from other uses of the secret.
const TAG_CONTEXT: &str = "ipfs-cluster 2026-11-30 tag of peers on the local network";
/// Maximum number of addresses that are announced or taken of one peer.
const ADDRESSES_MAX: usize = 4;
/// Maximum number of peers that are remembered; more are ignored until some disappear.
const FOUND_MAX: usize = 256;
/// Interval at which the interfaces of this machine are read, in seconds.
const INTERFACES_INTERVAL: u32 = 30;

/// Search of the local network.
pub(super) struct LanSearch {
    pub(super) net: Net,
    pub(super) handle: Handle,
    /// Returns whether the pinset is empty; it reads the disk.
    pub(super) is_empty: Arc<dyn Fn() -> bool + Send + Sync>,
    /// Interval at which found peers are asked for their clusters.
    pub(super) interval: Duration,
    /// Addresses that this peer listens on, which select the interfaces.
    pub(super) listening: Vec<Multiaddr>,
    pub(super) tag: String,
    /// False with `init_peerset`, which names all members.
    pub(super) invites: bool,
}

/// This peer's cluster, at one moment.
struct OwnCluster {
    members: BTreeSet<PeerId>,
    has_leader: bool,
    is_empty: bool,
}

/// Returns the search that the configuration asks for; `None` without an interval or a secret.
pub(super) fn search(
    config: &Config,
    net: &Net,
    handle: &Handle,
    is_empty: impl Fn() -> bool + Send + Sync + 'static,
) -> Option<LanSearch> {
    let interval = config.cluster.mdns_interval.0;
    let secret = config.cluster.secret.0.filter(|_| !interval.is_zero())?;
    let listening = config.cluster.listen_multiaddress.0.iter();
    Some(LanSearch {
        net: net.clone(),
        handle: handle.clone(),
        is_empty: Arc::new(is_empty),
        interval,
        listening: listening.map(|Address(address)| address.clone()).collect(),
        tag: tag(&secret),
        invites: config.consensus.raft.init_peerset.is_empty(),
    })
}

fn tag(secret: &[u8; 32]) -> String {
    let derived = blake3::derive_key(TAG_CONTEXT, secret);
    derived[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

impl LanSearch {
    /// Announces this peer and looks for others, until the task is aborted.
    pub(super) async fn run(self) {
        let mdns = match self.announce() {
            Ok(mdns) => Announced(mdns),
            Err(error) => {
                tracing::warn!(
                    "the local network is not searched for peers: {error} (cluster.mdns_interval)"
                );
                return;
            }
        };
        let events = match mdns.0.browse(SERVICE) {
            Ok(events) => events,
            Err(error) => {
                tracing::warn!("the local network is not searched for peers: {error}");
                return;
            }
        };
        tracing::info!(
            "peers with this secret are found on the local network; cluster.mdns_interval 0s turns that off"
        );
        let mut found = BTreeMap::new();
        let mut refused = BTreeSet::new();
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = events.recv_async() => match event {
                    Ok(ServiceEvent::ServiceResolved(service)) => {
                        if let Some((peer, addresses)) = self.stranger_of(&service)
                            && (found.len() < FOUND_MAX || found.contains_key(&peer))
                        {
                            self.meet(&peer, &addresses, &mut refused).await;
                            found.insert(peer, addresses);
                        }
                    }
                    Ok(ServiceEvent::ServiceRemoved(_, name)) => {
                        found.retain(|peer: &PeerId, _| !name.starts_with(&peer.to_string()));
                    }
                    Ok(_) => {}
                    Err(_) => return,
                },
                _ = ticks.tick() => {
                    for (peer, addresses) in &found {
                        self.meet(peer, addresses, &mut refused).await;
                    }
                }
            }
        }
    }

    fn announce(&self) -> mdns_sd::Result<ServiceDaemon> {
        let mdns = ServiceDaemon::new()?;
        mdns.set_ip_check_interval(INTERFACES_INTERVAL)?;
        mdns.disable_interface(IfKind::All)?;
        mdns.enable_interface(interfaces(&self.listening))?;
        let addresses = self.net.addresses();
        let texts = addresses.iter().take(ADDRESSES_MAX).map(ToString::to_string);
        let numbered = (0..)
            .zip(texts)
            .map(|(number, text)| (format!("{ADDRESS}{number}"), text));
        let properties: Vec<(String, String)> = [(TAG.to_owned(), self.tag.clone())]
            .into_iter()
            .chain(numbered)
            .collect();
        let me = self.net.peer_id().to_string();
        let port = addresses.iter().find_map(tcp_port).unwrap_or_default();
        let host = format!("{me}.local.");
        let service = ServiceInfo::new(SERVICE, &me, &host, (), port, &properties[..])?;
        mdns.register(service.enable_addr_auto())?;
        Ok(mdns)
    }

    /// Returns the other peer that announces itself, if it has this peer's secret.
    fn stranger_of(&self, service: &ResolvedService) -> Option<(PeerId, Vec<Multiaddr>)> {
        if service.get_property_val_str(TAG) != Some(&self.tag) {
            return None;
        }
        let keys = (0..ADDRESSES_MAX).map(|number| format!("{ADDRESS}{number}"));
        let texts = keys.filter_map(|key| service.get_property_val_str(&key).map(str::to_owned));
        let parsed: Vec<Multiaddr> = texts.filter_map(|text| text.parse().ok()).collect();
        let peer = Address(parsed.first()?.clone()).peer()?;
        let peer = crate::config::core_peer(&peer);
        (peer != *self.net.peer_id()).then_some((peer, parsed))
    }

    async fn own_cluster(&self) -> Option<OwnCluster> {
        let read = |view: cluster_core::View<'_>, _| {
            let members = view.members().peer_ids().cloned().collect::<BTreeSet<_>>();
            (members, view.leader().is_some())
        };
        let (members, has_leader) = self.handle.view(read).await?;
        let is_empty = self.is_empty.clone();
        let is_empty = tokio::task::spawn_blocking(move || is_empty()).await.ok()?;
        Some(OwnCluster {
            members,
            has_leader,
            is_empty,
        })
    }

    /// Dials a found peer; invites it, if it is in another cluster.
    async fn meet(&self, peer: &PeerId, addresses: &[Multiaddr], refused: &mut BTreeSet<PeerId>) {
        let Some(own) = self.own_cluster().await else {
            return;
        };
        let is_member = own.members.contains(peer);
        if self.net.connected().contains(peer) && is_member {
            return;
        }
        let is_new = self.net.known_addresses(peer).is_empty();
        self.net.add_addresses(peer, addresses.to_vec()).await;
        if is_member || !self.invites {
            return;
        }
        let answer = match discovery::ask(&self.net, peer, &Question::Identify).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::debug!(%peer, %error, "a peer of the local network does not answer");
                if is_new {
                    self.net.forget_addresses(peer);
                }
                return;
            }
        };
        let cluster = answer.cluster;
        if cluster == ClusterId::UNKNOWN || cluster == self.net.cluster() || answer.knows_asker() {
            return;
        }
        if !own.has_leader || !own.invites(self.net.peer_id(), peer) {
            return;
        }
        match discovery::invite(&self.net, peer).await {
            Ok(()) => tracing::info!("{peer}, found on the local network, is invited into this cluster"),
            Err(InviteError::Unreachable { error, .. }) => {
                tracing::debug!(%peer, %error, "a peer of the local network could not be invited");
            }
            Err(InviteError::Refused(error)) => {
                if refused.len() < FOUND_MAX && refused.insert(peer.clone()) {
                    tracing::info!("{peer}, found on the local network, does not join this cluster: {error}");
                }
            }
        }
    }
}

impl OwnCluster {
    /// Returns whether this peer invites another one. Of two peers alone in empty clusters, only one does.
    fn invites(&self, me: &PeerId, other: &PeerId) -> bool {
        self.members.len() > 1 || !self.is_empty || me < other
    }
}

/// Running responder; leaves the network when it is dropped.
struct Announced(ServiceDaemon);

impl Drop for Announced {
    fn drop(&mut self) {
        // Others notice by the expiry of the records, if the queue of commands is full.
        let _ = self.0.shutdown();
    }
}

/// Returns the interfaces of the addresses; all but loopback for an unspecified address.
fn interfaces(listening: &[Multiaddr]) -> Vec<IfKind> {
    let ip = |address: &Multiaddr| match address.iter().next() {
        Some(Protocol::Ip4(ip)) => Some(IpAddr::V4(ip)),
        Some(Protocol::Ip6(ip)) => Some(IpAddr::V6(ip)),
        Some(_) | None => None,
    };
    let kind = |ip: IpAddr| match ip {
        IpAddr::V4(ip) if ip.is_loopback() => IfKind::LoopbackV4,
        IpAddr::V6(ip) if ip.is_loopback() => IfKind::LoopbackV6,
        IpAddr::V4(ip) if ip.is_unspecified() => IfKind::Predicate(IfPredicate::new(|interface| {
            !interface.is_loopback() && interface.ip().is_ipv4()
        })),
        IpAddr::V6(ip) if ip.is_unspecified() => IfKind::Predicate(IfPredicate::new(|interface| {
            !interface.is_loopback() && interface.ip().is_ipv6()
        })),
        IpAddr::V4(_) | IpAddr::V6(_) => IfKind::Addr(ip),
    };
    listening.iter().filter_map(ip).map(kind).collect()
}

fn tcp_port(address: &Multiaddr) -> Option<u16> {
    address.iter().find_map(|part| {
        if let Protocol::Tcp(port) = part {
            Some(port)
        } else {
            None
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u8) -> PeerId {
        PeerId::from_bytes(&[0x12, 1, number]).unwrap()
    }

    #[test]
    fn of_two_empty_peers_one_invites_and_larger_clusters_invite_all() {
        let own = |members: u8, is_empty| OwnCluster {
            members: (0..members).map(peer).collect(),
            has_leader: true,
            is_empty,
        };
        let (small, large) = (peer(1), peer(2));
        assert!(own(1, true).invites(&small, &large));
        assert!(!own(1, true).invites(&large, &small));
        assert!(own(1, false).invites(&large, &small));
        assert!(own(2, true).invites(&large, &small));
    }

    #[test]
    fn tags_differ_by_secret_and_do_not_contain_it() {
        assert_eq!(tag(&[1; 32]), tag(&[1; 32]));
        assert_ne!(tag(&[1; 32]), tag(&[2; 32]));
        assert_eq!(tag(&[0; 32]).len(), 16);
    }

    #[test]
    fn loopback_listeners_are_not_announced_elsewhere() {
        let of = |address: &str| interfaces(&[address.parse().unwrap()]);
        assert!(matches!(of("/ip4/127.0.0.1/tcp/9096")[..], [IfKind::LoopbackV4]));
        assert!(matches!(of("/ip4/0.0.0.0/tcp/9096")[..], [IfKind::Predicate(_)]));
        assert!(matches!(of("/ip4/10.1.2.3/tcp/9096")[..], [IfKind::Addr(_)]));
    }
}
