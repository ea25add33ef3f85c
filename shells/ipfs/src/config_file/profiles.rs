//! Profiles: named sets of changes to the configuration. They change the keys that this node uses; Kubo's
//! profiles of the same names change others beside them.

use super::{Document, KeyError, document, set};
use serde_json::{Value, json};

/// Networks that are not public, which a server does not announce.
const PRIVATE_NETWORKS: [&str; 19] = [
    "/ip4/10.0.0.0/ipcidr/8",
    "/ip4/100.64.0.0/ipcidr/10",
    "/ip4/127.0.0.0/ipcidr/8",
    "/ip4/169.254.0.0/ipcidr/16",
    "/ip4/172.16.0.0/ipcidr/12",
    "/ip4/192.0.0.0/ipcidr/24",
    "/ip4/192.0.2.0/ipcidr/24",
    "/ip4/192.168.0.0/ipcidr/16",
    "/ip4/198.18.0.0/ipcidr/15",
    "/ip4/198.51.100.0/ipcidr/24",
    "/ip4/203.0.113.0/ipcidr/24",
    "/ip4/240.0.0.0/ipcidr/4",
    "/ip6/::/ipcidr/3",
    "/ip6/::1/ipcidr/128",
    "/ip6/100::/ipcidr/64",
    "/ip6/2001:2::/ipcidr/48",
    "/ip6/2001:db8::/ipcidr/32",
    "/ip6/fc00::/ipcidr/7",
    "/ip6/fe80::/ipcidr/10",
];

/// A named set of changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// For hosts with public addresses: no discovery in the local network.
    Server,
    /// The opposite.
    LocalDiscovery,
    /// No contact with other nodes of its own accord.
    Test,
    /// The opposite: what `service.json` says.
    DefaultNetworking,
    /// Few connections, no service for the DHT.
    LowPower,
    /// Announces nothing.
    AnnounceOff,
    /// The opposite.
    AnnounceOn,
}

impl Profile {
    /// Names of all profiles, Kubo's.
    pub(crate) const ALL: [(&str, Profile); 7] = [
        ("announce-off", Profile::AnnounceOff),
        ("announce-on", Profile::AnnounceOn),
        ("default-networking", Profile::DefaultNetworking),
        ("local-discovery", Profile::LocalDiscovery),
        ("lowpower", Profile::LowPower),
        ("server", Profile::Server),
        ("test", Profile::Test),
    ];

    /// Returns the profile of this name.
    pub(crate) fn parse(name: &str) -> Option<Profile> {
        let found = Profile::ALL.iter().find(|(known, _)| *known == name);
        found.map(|(_, profile)| *profile)
    }

    /// Changes a document; `shown` has the settings in use beside those of the document.
    ///
    /// # Errors
    /// The document has something else than an object where a key has its parent.
    pub(crate) fn apply(self, document: &mut Document, shown: &Document) -> Result<(), KeyError> {
        let no_announce = |with: bool| {
            let listed = document::find(shown, "Addresses.NoAnnounce").ok();
            let listed = listed.and_then(Value::as_array).into_iter().flatten();
            let others = listed.filter(|it| !PRIVATE_NETWORKS.iter().any(|network| *it == network));
            let networks = PRIVATE_NETWORKS.iter().filter(|_| with);
            let list: Vec<Value> = others.cloned().chain(networks.map(|it| json!(it))).collect();
            ("Addresses.NoAnnounce", json!(list))
        };
        let discovery = |is_on: bool| ("Discovery.MDNS.Enabled", json!(is_on));
        let changes = match self {
            Profile::Server => vec![no_announce(true), discovery(false)],
            Profile::LocalDiscovery => vec![no_announce(false), discovery(true)],
            Profile::Test => vec![
                ("Addresses.Swarm", json!(["/ip4/127.0.0.1/tcp/0"])),
                ("Bootstrap", json!([])),
                discovery(false),
                ("Routing.DelegatedRouters", json!([])),
            ],
            Profile::DefaultNetworking => vec![
                ("Addresses.Swarm", Value::Null),
                ("Bootstrap", Value::Null),
                ("Discovery.MDNS.Enabled", Value::Null),
                ("Routing.DelegatedRouters", Value::Null),
            ],
            Profile::LowPower => vec![
                ("Routing.Type", json!("autoclient")),
                ("Swarm.ConnMgr.LowWater", json!(20)),
                ("Swarm.ConnMgr.HighWater", json!(40)),
            ],
            Profile::AnnounceOff => vec![("Provide.Enabled", json!(false))],
            Profile::AnnounceOn => vec![("Provide.Enabled", json!(true))],
        };
        changes
            .into_iter()
            .try_for_each(|(key, value)| set(document, key, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(profile: &str, document: &Document) -> Document {
        let mut changed = document.clone();
        let profile = Profile::parse(profile).unwrap();
        profile.apply(&mut changed, document).unwrap();
        changed
    }

    #[test]
    fn opposite_profiles_restore_the_lists() {
        let mut document = Document::new();
        set(
            &mut document,
            "Addresses.NoAnnounce",
            json!(["/ip4/1.2.3.4/tcp/1"]),
        )
        .unwrap();
        let server = applied("server", &document);
        let listed = document::find(&server, "Addresses.NoAnnounce").unwrap();
        assert_eq!(listed.as_array().map(Vec::len), Some(20));
        assert_eq!(applied("server", &server), server);
        let restored = applied("local-discovery", &server);
        assert_eq!(restored["Addresses"], document["Addresses"]);
        assert_eq!(restored["Discovery"], json!({"MDNS": {"Enabled": true}}));
        assert!(Profile::parse("badgerds").is_none());
    }
}
