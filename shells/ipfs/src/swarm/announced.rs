//! The addresses that this node announces.

use super::addresses::{ADDRESSES_MAX, Reach, Scope, is_relayed, reach};
use crate::settings::PublicNetwork;
use libp2p::Multiaddr;

/// Returns the addresses that are announced to peers of a scope: to the public confirmed, relayed and
/// configured ones, in the local networks also those that this node listens on.
pub(super) fn announced(
    settings: &PublicNetwork,
    listening: &[Multiaddr],
    external: &[Multiaddr],
    scope: Scope,
) -> Vec<Multiaddr> {
    let found = listening.iter().filter(|address| match (scope, reach(address)) {
        // Not confirmed, but an address of this machine.
        (Scope::Public | Scope::Local | Scope::Machine, Reach::Public) => true,
        (Scope::Local | Scope::Machine, Reach::Private) | (Scope::Machine, Reach::Loopback) => true,
        (Scope::Public, Reach::Private) | (Scope::Public | Scope::Local, Reach::Loopback) => false,
        (_, Reach::Nowhere) => false,
    });
    let confirmed = external.iter().filter(|address| reach(address) == Reach::Public);
    let mut all: Vec<Multiaddr> = Vec::new();
    let candidates: Vec<&Multiaddr> = match settings.announce.is_empty() {
        true => confirmed.chain(found).collect(),
        false => settings.announce.iter().collect(),
    };
    for address in candidates {
        let is_refused = settings.no_announce.iter().any(|filter| filter.matches(address));
        if !is_refused && !all.contains(address) {
            all.push(address.clone());
        }
    }
    all.sort_by_key(is_relayed);
    all.truncate(ADDRESSES_MAX);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_learn_public_addresses_only_and_filters_apply_everywhere() {
        let parse =
            |texts: &[&str]| -> Vec<Multiaddr> { texts.iter().map(|text| text.parse().unwrap()).collect() };
        let listening = parse(&[
            "/ip4/127.0.0.1/tcp/4001",
            "/ip4/10.1.2.3/tcp/4001",
            "/ip4/192.168.1.2/tcp/4001",
        ]);
        let external = parse(&["/ip4/1.2.3.4/tcp/4001"]);
        let mut settings = PublicNetwork {
            no_announce: vec!["/ip4/10.0.0.0/ipcidr/8".parse().unwrap()],
            ..PublicNetwork::default()
        };
        let shown = |settings: &PublicNetwork, scope| -> Vec<String> {
            let all = announced(settings, &listening, &external, scope);
            all.iter().map(ToString::to_string).collect()
        };
        assert_eq!(shown(&settings, Scope::Public), ["/ip4/1.2.3.4/tcp/4001"]);
        assert_eq!(
            shown(&settings, Scope::Local),
            ["/ip4/1.2.3.4/tcp/4001", "/ip4/192.168.1.2/tcp/4001"]
        );
        assert_eq!(shown(&settings, Scope::Machine).len(), 3);
        settings.announce = parse(&["/dns4/node.example.com/tcp/4001"]);
        assert_eq!(
            shown(&settings, Scope::Public),
            ["/dns4/node.example.com/tcp/4001"]
        );
    }
}
