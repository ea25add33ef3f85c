//! Agreement on credentials: creation, revocation, snapshots, and clusters of two releases.

use super::harness::{Harness, persist};
use super::*;
use crate::testing::credential;

/// First release that has credentials.
const NEW: u8 = POLICY_VERSION;

fn create(credential: &Credential) -> Request {
    let credential = credential.clone();
    Request::CreateCredential { credential }
}

/// Has the only peer of a cluster agree on a request; returns its writes to the credentials and the reply.
fn agree(
    harness: &mut Harness,
    ticket: u64,
    request: Request,
) -> (Vec<Vec<Credential>>, Result<Reply, Refusal>) {
    let effects = harness.request(ticket, request);
    let batch = persist(&effects).id;
    let effects = harness.handle(Event::Persisted { batch });
    let written = persist(&effects).ops.iter().filter_map(|op| {
        if let StoreOp::SetPolicy { policy } = op {
            Some(policy.credentials.clone())
        } else {
            None
        }
    });
    let replies = effects.iter().filter_map(|effect| {
        if let Effect::Reply { ticket: to, reply } = effect {
            assert_eq!(*to, Ticket(ticket));
            Some(reply.clone())
        } else {
            None
        }
    });
    let mut replies: Vec<_> = replies.collect();
    assert_eq!(replies.len(), 1, "{effects:?}");
    (written.collect(), replies.remove(0))
}

#[test]
fn creation_and_revocation_write_the_whole_list_and_reply_once_applied() {
    let mut harness = Harness::new(1);
    harness.lead();
    let (first, second) = (credential(1, "ci"), credential(2, "page"));
    let (written, reply) = agree(&mut harness, 1, create(&second));
    assert_eq!(written, [vec![second.clone()]]);
    assert_eq!(reply, Ok(Reply::CredentialCreated(second.clone())));
    let (written, reply) = agree(&mut harness, 2, create(&first));
    assert_eq!(written, [vec![first.clone(), second.clone()]]);
    assert_eq!(reply, Ok(Reply::CredentialCreated(first.clone())));

    let (written, reply) = agree(&mut harness, 3, create(&credential(3, "ci")));
    let exists = CredentialError::Exists("ci".to_owned());
    assert_eq!((written, reply), (Vec::new(), Err(Refusal::Credential(exists))));

    let revoke = || Request::RevokeCredential { id: CredentialId(1) };
    let (written, reply) = agree(&mut harness, 4, revoke());
    assert_eq!(written, [vec![second]]);
    assert_eq!(reply, Ok(Reply::CredentialRevoked(first)));
    let (written, reply) = agree(&mut harness, 5, revoke());
    let missing = Err(Refusal::Credential(CredentialError::Missing));
    assert_eq!((written, reply), (Vec::new(), missing));
}

#[test]
fn credential_with_a_long_name_is_refused_before_it_is_proposed() {
    let mut harness = Harness::new(1);
    harness.lead();
    let long = credential(1, &"n".repeat(CREDENTIAL_NAME_MAX + 1));
    let effects = harness.request(1, create(&long));
    let [
        Effect::Reply {
            reply: Err(Refusal::TooLarge(why)),
            ..
        },
    ] = &effects[..]
    else {
        panic!("{effects:?}");
    };
    assert_eq!(
        why.to_string(),
        "the name of the credential has 65 bytes, at most 64 are allowed"
    );
}

#[test]
fn all_peers_have_the_credentials_also_from_a_snapshot_and_after_a_restart() {
    let mut cluster = TestCluster::new(3);
    cluster.run(5 * SECOND);
    let (kept, revoked) = (credential(1, "kept"), credential(2, "revoked"));
    cluster.request(1, create(&kept));
    cluster.request(2, create(&revoked));
    cluster.run(SECOND);
    let ticket = cluster.request(3, Request::RevokeCredential { id: revoked.id });
    cluster.run(SECOND);
    assert_eq!(cluster.replies[&ticket], Ok(Reply::CredentialRevoked(revoked)));
    let wiped = (1..=3).find(|number| *number != leader(&cluster)).unwrap();
    cluster.wipe(wiped, 3);
    cluster.run(15 * SECOND);
    cluster.restart(leader(&cluster));
    cluster.run(10 * SECOND);
    for (peer, (_, disk)) in &cluster.nodes {
        assert_eq!(disk.policy.credentials, std::slice::from_ref(&kept), "{peer}");
    }
}

/// Returns a cluster of the release before credentials, of which peers 1 and 2 run this release already.
fn half_upgraded() -> TestCluster {
    let mut cluster = TestCluster::new(3);
    for (id, (node, disk)) in &mut cluster.nodes {
        let recovered = disk.recovered.as_mut().unwrap();
        recovered.members.version = NEW - 1;
        let mut config = Config::new(id.clone());
        config.version = if *id == peer(3) { NEW - 1 } else { NEW };
        *node = Node::new(config, recovered.clone(), 1, cluster.now);
    }
    cluster.run(5 * SECOND);
    cluster
}

#[test]
fn credential_is_refused_until_all_peers_can_read_it() {
    let mut cluster = half_upgraded();
    let ticket = cluster.request(1, create(&credential(1, "ci")));
    cluster.run(Duration::from_millis(100));
    let Err(Refusal::Unreadable(why)) = &cluster.replies[&ticket] else {
        panic!("{:?}", cluster.replies[&ticket]);
    };
    let named = format!("an older release runs on {}, which", peer(3));
    assert!(why.starts_with(&named), "{why}");

    // The last peer is upgraded.
    let now = cluster.now;
    let (node, disk) = cluster.nodes.get_mut(&peer(3)).unwrap();
    *node = Node::new(Config::new(peer(3)), disk.recover(), 2, now);
    cluster.run(20 * SECOND);
    let (node, _) = &cluster.nodes[&peer(1)];
    assert_eq!(node.view().members().version, VERSION);
    let ticket = cluster.request(1, create(&credential(1, "ci")));
    cluster.run(SECOND);
    assert!(cluster.replies[&ticket].is_ok(), "{:?}", cluster.replies[&ticket]);
    assert!(
        cluster
            .nodes
            .values()
            .all(|(_, disk)| disk.policy.credentials.len() == 1)
    );
}

#[test]
fn new_cluster_raises_its_version_before_the_first_interval_of_metrics() {
    let mut cluster = TestCluster::new(1);
    let (node, disk) = cluster.nodes.get_mut(&peer(1)).unwrap();
    let recovered = disk.recovered.as_mut().unwrap();
    recovered.members.version = FIRST_VERSION;
    *node = Node::new(Config::new(peer(1)), recovered.clone(), 1, cluster.now);
    let ticket = cluster.request(1, create(&credential(1, "ci")));
    cluster.run(5 * SECOND);
    assert!(cluster.replies[&ticket].is_ok(), "{:?}", cluster.replies[&ticket]);
}
