//! CIDs of symbolic links, and of entries with modes and times.

use super::*;

#[tokio::test]
async fn symbolic_links() {
    let link = |target| async move { add(default(), vec![Symlink("l", target)]).await.remove(0).1 };
    assert_eq!(
        link("files/foo/baz").await,
        "QmdocmZeF7qwPT9Z8SiVhMSyKA2KKoA2J7jToW6z6WBmxR"
    );
    assert_eq!(
        link("files/does/not/exist").await,
        "QmWYN8SEXCgNT2PSjB6BnxAx6NJQtazWoBkTRH9GRfPFFQ"
    );
    let tree = |options| async {
        let entries = vec![
            File("files/foo/baz", b"some text\n".to_vec()),
            Symlink("files/bar/baz", "files/foo/baz"),
            Symlink("files/bad", "files/does/not/exist"),
        ];
        add(options, entries).await.pop().unwrap().1
    };
    assert_eq!(
        tree(default()).await,
        "QmWdiHKoeSW8G1u7ATCgpx4yMoUhYaJBQGkyPLkS9goYZ8"
    );
    assert_eq!(
        tree(v1()).await,
        "bafybeibyhlx64cklod6isy3h7tsmr4qvam3ae3b74n3hfes5bythjrwyua"
    );
}

const EXACT: Option<(i64, u32)> = Some((1_603_539_720, 54_321));

/// Adds one entry with its metadata preserved; returns its CID.
async fn cid_with(entry: Entry, mode: Option<u32>, mtime: Option<(i64, u32)>) -> String {
    let options = AddOptions {
        preserve: true,
        ..default()
    };
    let entries = vec![(entry, Metadata { mode, mtime })];
    let (added, directories) = add_with(options, entries).await.unwrap();
    let first = added.into_iter().chain(directories).next().unwrap();
    first.cid.to_string()
}

#[tokio::test]
async fn files_with_modes_and_times() {
    let early = Some((1_603_539_720, 0));
    for (mode, mtime, cid) in [
        (
            Some(0o640),
            None,
            "QmQLgxypSNGNFTuUPGCecq6dDEjb6hNB5xSyVmP3cEuNtq",
        ),
        (
            None,
            Some((1_604_320_482, 0)),
            "QmQ6kErEW8kztQFV8vbwNU8E4dmtGsYpRiboiLxUEwibvj",
        ),
        (
            Some(0o640),
            Some((1_604_320_482, 0)),
            "QmYkvboLsvLFcSYmqVJRxvBdYRQLroLv9kELf3LRiCqBri",
        ),
        (
            Some(0o764),
            None,
            "QmchD3BN8TQ3RW6jPLxSaNkqvfuj7syKhzTRmL4EpyY1Nz",
        ),
        (None, early, "QmT3aY4avDcYXCWpU8CJzqUkW7YEuEsx36S8cTNoLcuK1B"),
        (None, EXACT, "QmaKH8H5rXBUBCX4vdxi7ktGQEL7wejV7L9rX2qpZjwncz"),
        (
            Some(0o764),
            EXACT,
            "QmUkxrtBA8tPjwCYz1HrsoRfDz6NgKut3asVeHVQNH4C8L",
        ),
    ] {
        assert_eq!(
            cid_with(File("f", Vec::new()), mode, mtime).await,
            cid,
            "file {mode:?} {mtime:?}"
        );
    }
}

#[tokio::test]
async fn symbolic_links_with_times() {
    for (mtime, cid) in [
        (
            Some((1_604_320_482, 0)),
            "QmbJwotgtr84JxcnjpwJ86uZiyMoxbZuNH4YrdJMypkYaB",
        ),
        (EXACT, "QmPHYCxYvvHj6VxiPNJ3kXxcPsnJLDYUJqsDJWjvytmrmY"),
    ] {
        assert_eq!(
            cid_with(Symlink("l", "nothing"), Some(0o777), mtime).await,
            cid,
            "link {mtime:?}"
        );
    }
}

#[tokio::test]
async fn directories_with_modes_and_times() {
    for (mode, mtime, cid) in [
        (
            Some(0o755),
            None,
            "QmRviohgafvCsbkiTgfQFipbuXJ6k1YtoiaQW4quttJPKu",
        ),
        (
            None,
            Some((1_655_158_722, 0)),
            "QmYMy7CZGb498QFSQBF5ZFwv1FYbrAtYZMe4VxhDXxAcvf",
        ),
        (
            Some(0o713),
            None,
            "QmQ1ABnw2iip7sj23EzzBZ9T77KyyfESP6SUboiXPyzNQe",
        ),
        (None, EXACT, "QmZFdCLJay31hT3Tx1LygJ7XfiLEs3qLCXtbeBfhf38aZg"),
    ] {
        assert_eq!(
            cid_with(Directory("d"), mode, mtime).await,
            cid,
            "directory {mode:?} {mtime:?}"
        );
    }
}
