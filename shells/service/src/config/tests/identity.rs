//! Reading and writing of identities.

use super::*;

#[test]
fn an_identity_round_trips_through_its_file_and_the_environment() {
    let folder = tempfile::tempdir().unwrap();
    let identity = Identity::generate();
    identity.save(folder.path()).unwrap();
    let read = Identity::load(folder.path(), &Environment::new()).unwrap();
    assert_eq!(read.peer, identity.peer);
    let text = std::fs::read_to_string(folder.path().join(IDENTITY_FILE)).unwrap();
    let file: BTreeMap<String, String> = serde_json::from_str(&text).unwrap();

    let other = Identity::generate();
    other.save(folder.path()).unwrap();
    let variables = environment(&[
        ("CLUSTER_ID", &file["id"]),
        ("CLUSTER_PRIVATEKEY", &file["private_key"]),
    ]);
    assert_eq!(
        Identity::load(folder.path(), &variables).unwrap().peer,
        identity.peer
    );
    let half = environment(&[("CLUSTER_ID", &file["id"])]);
    let error = Identity::load(folder.path(), &half).unwrap_err().to_string();
    assert_eq!(
        error,
        "environment variable CLUSTER_PRIVATEKEY: must be set when CLUSTER_ID is"
    );
}

#[test]
fn an_invalid_identity_is_refused_without_showing_the_key() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, other) = (Identity::generate(), Identity::generate());
    ours.save(folder.path()).unwrap();
    let path = folder.path().join(IDENTITY_FILE);
    let text = std::fs::read_to_string(&path).unwrap();
    let key = serde_json::from_str::<Value>(&text).unwrap()["private_key"]
        .as_str()
        .unwrap()
        .to_owned();
    for (content, expected) in [
        (
            text.replace(&ours.peer.to_base58(), &other.peer.to_base58()),
            "does not belong to the private key",
        ),
        (text.replace(&key, "%%%"), "private_key: not base64"),
        (text.replace(&key, "AAAA"), "private_key: no libp2p private key"),
        (
            text.replace("private_key", "privatekey"),
            "expected {\"id\": \"…\", \"private_key\": \"…\"}",
        ),
        (text[..40].to_owned(), "is not valid JSON"),
    ] {
        std::fs::write(&path, content).unwrap();
        let error = Identity::load(folder.path(), &Environment::new())
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{error}\n  should say: {expected}");
        assert!(!error.contains(&key), "{error}");
    }
}
