//! Ports of the local network's router that are forwarded to this node, by UPnP.
//!
//! A task searches the router at the start, when listen addresses change, and every [`INTERVAL`], which also
//! renews the leases. What the router forwards is only a candidate, which other nodes test
//! ([`super::reachability`]): a router may be behind another one, or lie.

use super::addresses::{Reach, ip_of, is_relayed, reach_of_ip};
use crate::outbound_http::HttpClient;
use crate::upnp::{Forwarding, Router, Transport, UpnpError};
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::FromSwarm;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddrV4};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

/// Time for which the router is asked to forward a port.
const LEASE: Duration = Duration::from_secs(3600);
/// Interval of searching the router and renewing the leases.
const INTERVAL: Duration = Duration::from_secs(1800);
/// Time in which further listen addresses are awaited.
const SETTLE: Duration = Duration::from_millis(500);
/// Limit on forwarded ports: TCP and QUIC on a few ports.
const PORTS_MAX: usize = 8;
/// Number of ports that are tried at the router: the peers of a cluster in one local network all listen on
/// the same one.
const TRIED_MAX: u16 = 8;
/// Capacity of the channel of changes.
const CHANGES_MAX: usize = 16;

/// Change of the addresses that the router forwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mapping {
    /// The router forwards this address now.
    Added(Multiaddr),
    /// It does not any more.
    Removed(Multiaddr),
}

/// Handle of the task, which ends the forwarding when the handle is dropped.
pub(super) struct PortMapping {
    listening: watch::Sender<BTreeSet<Multiaddr>>,
    changes: mpsc::Receiver<Mapping>,
}

impl PortMapping {
    /// Starts the task. Needs the tokio runtime.
    pub(super) fn start() -> PortMapping {
        let (listening, wanted) = watch::channel(BTreeSet::new());
        let (sender, changes) = mpsc::channel(CHANGES_MAX);
        tokio::spawn(run(wanted, sender));
        PortMapping { listening, changes }
    }

    /// Notes the listen addresses.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "libp2p's events; the others are not about listen addresses"
    )]
    pub(super) fn on_swarm_event(&self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::NewListenAddr(new) if target_of(new.addr).is_some() => {
                self.listening.send_modify(|listening| {
                    listening.insert(new.addr.clone());
                });
            }
            FromSwarm::ExpiredListenAddr(expired) => {
                self.listening
                    .send_if_modified(|listening| listening.remove(expired.addr));
            }
            _ => {}
        }
    }

    /// Returns the next change.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Mapping> {
        match self.changes.poll_recv(cx) {
            Poll::Ready(Some(change)) => Poll::Ready(change),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

/// Returns the target of forwarding to a listen address; `None` unless it is of IPv4 in a local network.
fn target_of(address: &Multiaddr) -> Option<(Transport, SocketAddrV4)> {
    let IpAddr::V4(ip) = ip_of(address).filter(|ip| reach_of_ip(*ip) == Reach::Private)? else {
        return None;
    };
    if is_relayed(address) {
        return None;
    }
    match address.iter().nth(1) {
        Some(Protocol::Tcp(port)) => Some((Transport::Tcp, SocketAddrV4::new(ip, port))),
        Some(Protocol::Udp(port)) => Some((Transport::Udp, SocketAddrV4::new(ip, port))),
        _ => None,
    }
}

/// Returns the address under which others reach a listen address.
fn external_of(listening: &Multiaddr, transport: Transport, external: SocketAddrV4) -> Multiaddr {
    let port = match transport {
        Transport::Tcp => Protocol::Tcp(external.port()),
        Transport::Udp => Protocol::Udp(external.port()),
    };
    let start = [Protocol::Ip4(*external.ip()), port];
    start.into_iter().chain(listening.iter().skip(2)).collect()
}

/// A listen address that the router forwards to.
struct Forwarded {
    router: Router,
    forwarding: Forwarding,
    external: Multiaddr,
}

/// Forwards the ports of the listen addresses until the handle is dropped.
async fn run(mut listening: watch::Receiver<BTreeSet<Multiaddr>>, changes: mpsc::Sender<Mapping>) {
    let client = match HttpClient::new(None) {
        Ok(client) => client,
        Err(error) => {
            tracing::debug!(%error, "no router is searched");
            return;
        }
    };
    let mut forwarded = BTreeMap::new();
    loop {
        if listening.wait_for(|wanted| !wanted.is_empty()).await.is_err() {
            return;
        }
        sleep(SETTLE).await;
        let wanted = listening.borrow_and_update().clone();
        let renewed = renew(&client, wanted, &forwarded).await;
        if report(&forwarded, &renewed, &changes).await.is_err() {
            forwarded = renewed;
            break;
        }
        forwarded = renewed;
        tokio::select! {
            changed = listening.changed() => if changed.is_err() { break },
            () = sleep(INTERVAL) => {}
        }
    }
    for Forwarded {
        router, forwarding, ..
    } in forwarded.values()
    {
        if let Err(error) = router.stop(&client, *forwarding).await {
            tracing::debug!(%error, "the router forwards a port until the end of its lease");
        }
    }
}

/// Asks the router to forward the ports of these addresses, the same ports as before where there are some.
/// Returns those that it forwards.
async fn renew(
    client: &HttpClient,
    wanted: BTreeSet<Multiaddr>,
    before: &BTreeMap<Multiaddr, Forwarded>,
) -> BTreeMap<Multiaddr, Forwarded> {
    let mut renewed = BTreeMap::new();
    let router = match Router::find(client).await {
        Ok(router) => router,
        Err(error) => {
            tracing::debug!(%error, "no router forwards ports (UPnP)");
            return renewed;
        }
    };
    let public = match router.external_address(client).await {
        Ok(public) => public,
        Err(error) => {
            tracing::debug!(%error, "the router does not say its public address (UPnP)");
            return renewed;
        }
    };
    if reach_of_ip(public.into()) != Reach::Public {
        tracing::debug!("the router has no public address, but {public}: it forwards no ports (UPnP)");
        return renewed;
    }
    for listening in wanted {
        let Some((transport, internal)) = target_of(&listening) else {
            continue;
        };
        // The router reaches this machine in its own network only.
        if *internal.ip() != router.local_address() || renewed.len() >= PORTS_MAX {
            continue;
        }
        let known = before.get(&listening).map(|known| known.forwarding.external);
        let first = known.unwrap_or(internal.port());
        match forward(client, &router, (transport, internal), first).await {
            Ok(forwarding) => {
                let external = SocketAddrV4::new(public, forwarding.external);
                let external = external_of(&listening, transport, external);
                let router = router.clone();
                let forwarded = Forwarded {
                    router,
                    forwarding,
                    external,
                };
                renewed.insert(listening, forwarded);
            }
            Err(error) => tracing::info!("the router does not forward a port to {listening} (UPnP): {error}"),
        }
    }
    renewed
}

/// Forwards a port, the first one that is free at the router.
async fn forward(
    client: &HttpClient,
    router: &Router,
    (transport, internal): (Transport, SocketAddrV4),
    first: u16,
) -> Result<Forwarding, UpnpError> {
    let mut tried = 0;
    loop {
        let forwarding = Forwarding {
            transport,
            external: first.saturating_add(tried),
            internal,
        };
        match router.forward(client, forwarding, LEASE).await {
            Ok(()) => return Ok(forwarding),
            Err(error) if error.is_conflict() && tried + 1 < TRIED_MAX => tried += 1,
            Err(error) => return Err(error),
        }
    }
}

/// Reports the differences.
///
/// # Errors
/// The handle was dropped.
async fn report(
    before: &BTreeMap<Multiaddr, Forwarded>,
    now: &BTreeMap<Multiaddr, Forwarded>,
    changes: &mpsc::Sender<Mapping>,
) -> Result<(), mpsc::error::SendError<Mapping>> {
    let has = |all: &BTreeMap<Multiaddr, Forwarded>, listening: &Multiaddr, external: &Multiaddr| {
        all.get(listening)
            .is_some_and(|known| known.external == *external)
    };
    for (listening, Forwarded { external, .. }) in before {
        if !has(now, listening, external) {
            tracing::info!("the router does not forward {external} to {listening} any more (UPnP)");
            changes.send(Mapping::Removed(external.clone())).await?;
        }
    }
    for (listening, Forwarded { external, .. }) in now {
        if !has(before, listening, external) {
            tracing::info!("the router forwards {external} to {listening} (UPnP)");
            changes.send(Mapping::Added(external.clone())).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_direct_addresses_in_local_networks_are_forwarded_to() {
        let relayed =
            "/ip4/10.0.0.1/tcp/1/p2p/12D3KooWKnDdG3iXw9eTFijk3EWSunZcFi54Zka4wmtqtt6rPxc8/p2p-circuit";
        for (address, expected) in [
            ("/ip4/10.0.0.1/tcp/4001", Some((Transport::Tcp, "10.0.0.1:4001"))),
            (
                "/ip4/192.168.1.2/udp/4001/quic-v1",
                Some((Transport::Udp, "192.168.1.2:4001")),
            ),
            ("/ip4/127.0.0.1/tcp/4001", None),
            ("/ip4/1.2.3.4/tcp/4001", None),
            ("/ip6/fd00::1/tcp/4001", None),
            (relayed, None),
        ] {
            let found = target_of(&address.parse().unwrap());
            let expected = expected.map(|(transport, target)| (transport, target.parse().unwrap()));
            assert_eq!(found, expected, "{address}");
        }
        let listening = "/ip4/10.0.0.1/udp/4001/quic-v1".parse().unwrap();
        let external = external_of(&listening, Transport::Udp, "1.2.3.4:4003".parse().unwrap());
        assert_eq!(external.to_string(), "/ip4/1.2.3.4/udp/4003/quic-v1");
    }
}
