//! Addresses of this node that other peers can reach.
//!
//! Candidates are the addresses that other peers observe, public addresses of this machine's interfaces, and
//! those that a router forwards. AutoNAT v2 asks servers to dial them back, and what answers becomes an
//! external address. `libp2p-autonat` would test any candidate and remembers all of them: this behaviour
//! passes on public, direct ones only, at most [`CANDIDATES_MAX`], since peers can report any number of
//! addresses.

use super::addresses::{Reach, is_relayed, reach};
use super::delegation::delegate_connections;
use super::port_mapping::{Mapping, PortMapping};
use libp2p::Multiaddr;
use libp2p::autonat::v2::client;
use libp2p::swarm::behaviour::NewExternalAddrCandidate;
use libp2p::swarm::{FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, ToSwarm};
use std::collections::{HashMap, HashSet};
use std::task::{Context, Poll};

/// Limit on addresses tested in the lifetime of a node.
const CANDIDATES_MAX: usize = 64;
/// Number of connections on which an address must be observed before it is tested. A test by dialling back
/// follows, so that a liar gains nothing but its cost.
const OBSERVATIONS_MIN: usize = 2;
/// Limit on addresses that wait for further observations.
const OBSERVED_MAX: usize = 256;

/// AutoNAT v2 client for public candidates.
pub(super) struct Reachability {
    inner: client::Behaviour,
    tested: HashSet<Multiaddr>,
    /// Observations of addresses that are not tested yet.
    observed: HashMap<Multiaddr, usize>,
    /// `None` if no router is asked.
    router: Option<PortMapping>,
    /// Confirmed addresses.
    confirmed: HashSet<Multiaddr>,
}

impl Reachability {
    /// Creates the client, with the forwarding of ports if a router may be asked for it.
    pub(super) fn new(router: Option<PortMapping>) -> Reachability {
        Reachability {
            inner: client::Behaviour::default(),
            tested: HashSet::new(),
            observed: HashMap::new(),
            router,
            confirmed: HashSet::new(),
        }
    }

    /// Applies a change of what the router forwards. Returns what it means for addresses that were confirmed:
    /// `libp2p-autonat` tests none of them again.
    fn forwarded<T>(&mut self, mapping: Mapping) -> Option<ToSwarm<client::Event, T>> {
        match mapping {
            Mapping::Added(address) if self.confirmed.contains(&address) => {
                Some(ToSwarm::ExternalAddrConfirmed(address))
            }
            Mapping::Added(address) => {
                self.test(&address);
                None
            }
            Mapping::Removed(address) => self
                .confirmed
                .contains(&address)
                .then_some(ToSwarm::ExternalAddrExpired(address)),
        }
    }

    /// Counts an observation; identify reports one per connection.
    fn observe(&mut self, address: &Multiaddr) {
        if self.tested.contains(address) || !is_candidate(address) {
            return;
        }
        if self.observed.len() >= OBSERVED_MAX && !self.observed.contains_key(address) {
            self.observed.clear();
        }
        let count = self.observed.entry(address.clone()).or_default();
        *count += 1;
        if *count >= OBSERVATIONS_MIN {
            self.observed.remove(address);
            self.test(address);
        }
    }

    fn test(&mut self, address: &Multiaddr) {
        if is_candidate(address) && self.tested.len() < CANDIDATES_MAX && self.tested.insert(address.clone())
        {
            let event = NewExternalAddrCandidate { addr: address };
            self.inner
                .on_swarm_event(FromSwarm::NewExternalAddrCandidate(event));
        }
    }
}

fn is_candidate(address: &Multiaddr) -> bool {
    reach(address) == Reach::Public && !is_relayed(address)
}

impl NetworkBehaviour for Reachability {
    type ConnectionHandler = THandler<client::Behaviour>;
    type ToSwarm = client::Event;

    delegate_connections!(self, |id, remote| self.inner, |id| self.inner);

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "libp2p's events; all others are passed on"
    )]
    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if let Some(router) = &mut self.router {
            router.on_swarm_event(event);
        }
        match event {
            FromSwarm::NewExternalAddrCandidate(candidate) => self.observe(candidate.addr),
            FromSwarm::NewListenAddr(new) => {
                self.test(new.addr);
                self.inner.on_swarm_event(event);
            }
            other => self.inner.on_swarm_event(other),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<client::Event, THandlerInEvent<Self>>> {
        while let Some(Poll::Ready(mapping)) = self.router.as_mut().map(|router| router.poll(cx)) {
            if let Some(event) = self.forwarded(mapping) {
                return Poll::Ready(event);
            }
        }
        let next = self.inner.poll(cx);
        if let Poll::Ready(ToSwarm::ExternalAddrConfirmed(address)) = &next
            && self.confirmed.len() < CANDIDATES_MAX
        {
            self.confirmed.insert(address.clone());
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_addresses_are_tested_after_two_observations_and_their_number_is_limited() {
        let mut reachability = Reachability::new(None);
        let public: Multiaddr = "/ip4/1.2.3.4/tcp/4001".parse().unwrap();
        let private: Multiaddr = "/ip4/10.0.0.1/tcp/4001".parse().unwrap();
        reachability.observe(&public);
        assert!(reachability.tested.is_empty());
        for _ in 0..OBSERVATIONS_MIN {
            reachability.observe(&private);
            reachability.observe(&public);
        }
        assert_eq!(reachability.tested, HashSet::from([public]));
        for port in 1..10_000 {
            let address: Multiaddr = format!("/ip4/1.2.3.4/udp/{port}/quic-v1").parse().unwrap();
            reachability.observe(&address);
            if port % 2 == 0 {
                reachability.observe(&address);
            }
        }
        assert!(reachability.observed.len() <= OBSERVED_MAX);
        assert_eq!(reachability.tested.len(), CANDIDATES_MAX);
    }

    #[test]
    fn forwarded_addresses_are_tested_and_confirmed_ones_follow_the_router() {
        let mut reachability = Reachability::new(None);
        let [first, second]: [Multiaddr; 2] =
            ["/ip4/1.2.3.4/tcp/4001", "/ip4/1.2.3.4/tcp/4002"].map(|text| text.parse().unwrap());
        let mut forwarded = |mapping| reachability.forwarded::<()>(mapping);
        assert!(forwarded(Mapping::Added(first.clone())).is_none());
        assert!(forwarded(Mapping::Removed(second)).is_none());
        assert_eq!(reachability.tested, HashSet::from([first.clone()]));
        reachability.confirmed.insert(first.clone());
        let gone = reachability.forwarded::<()>(Mapping::Removed(first.clone()));
        assert!(matches!(gone, Some(ToSwarm::ExternalAddrExpired(address)) if address == first));
        let back = reachability.forwarded::<()>(Mapping::Added(first.clone()));
        assert!(matches!(back, Some(ToSwarm::ExternalAddrConfirmed(address)) if address == first));
    }
}
