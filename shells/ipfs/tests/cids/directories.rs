//! Directories: nested, wrapped, sharded.

use super::drng::Drng;
use super::*;

#[tokio::test]
async fn empty_directories() {
    let empty = |options| async { add(options, vec![Directory("d")]).await.remove(0) };
    let (name, cid, size) = empty(default()).await;
    assert_eq!(
        (name.as_str(), cid.as_str(), size),
        ("d", "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn", 4)
    );
    let expected = "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354";
    assert_eq!(empty(v1()).await.1, expected);
}

#[tokio::test]
async fn nested_directories_with_every_option() {
    let planets = |options| async {
        let mars = File("planets/mars.txt", b"Hello Mars!\n".to_vec());
        let venus = File("planets/venus.txt", b"Hello Venus!\n".to_vec());
        let added = add(options, vec![mars, venus]).await;
        assert_eq!(added[2].0, "planets");
        added
            .into_iter()
            .map(|(_, cid, size)| (cid, size))
            .collect::<Vec<_>>()
    };
    let cids = |added: Vec<(String, u64)>| added.into_iter().map(|(cid, _)| cid).collect::<Vec<_>>();
    let added = planets(default()).await;
    assert_eq!(added[2].1, 146);
    assert_eq!(
        cids(added),
        [
            "QmPrrHqJzto9m7SyiRzarwkqPcCSsKR2EB1AyqJfe8L8tN",
            "QmU5kp3BH3B8tnWUU2Pikdb2maksBNkb92FHRr56hyghh4",
            "QmWSgS32xQEcXMeqd3YPJLrNBLSdsfYCep2U7CFkyrjXwY",
        ]
    );
    let raw = AddOptions {
        raw_leaves: Some(true),
        ..default()
    };
    let leaves = [
        "bafkreibmlvvgdyihetgocpof6xk64kjjzdeq2e4c7hqs3krdheosk4tgj4",
        "bafkreihfsphazrk2ilejpekyltjeh5k4yvwgjuwg26ueafohqioeo3sdca",
    ];
    let root = "QmfWfQfKCY5Ukv9peBbxM5vqWM9BzmqUSXvdCgjT2wsiBT";
    assert_eq!(cids(planets(raw).await), [leaves[0], leaves[1], root]);
    let root = "bafybeih7e5dmkyk25up5vxug4q3hrg2fxbzf23dfrac2fns5h7z4aa7ioi";
    assert_eq!(cids(planets(v1()).await), [leaves[0], leaves[1], root]);
    assert_eq!(
        cids(
            planets(AddOptions {
                raw_leaves: Some(false),
                ..v1()
            })
            .await
        ),
        [
            "bafybeiawta2ntdmsy24aro35w3homzl4ak7svr3si7l7gesvq4erglyye4",
            "bafybeicvkvhs2fr75ynebtdjqpgm4g2fc63abqbmysupwpmcjl4gx7mzrm",
            "bafybeif5tuep5ap2d7zyhbktucey75aoacxufgt6i3v4gebmixyipnyp7y",
        ]
    );
    assert_eq!(
        cids(
            planets(AddOptions {
                hash: HashKind::BLAKE2B_256,
                ..default()
            })
            .await
        ),
        [
            "bafk2bzaceaqcxw46uzkyd2jmczoogof6pnkqt4dpiv3pwkunsv4g5rkkmecie",
            "bafk2bzacebxnke2fb5mgzxyjuuavvcfht4fd3gvn4klkujz6k72wboynhuvfw",
            "bafykbzaceaptbcs7ik5mdfpot3b4ackvxlwh7loc5jcrtkayf64ukl7zyk46e",
        ]
    );
}

#[tokio::test]
async fn wrapped_upload_has_an_unnamed_root() {
    let mars = File("planets/mars.txt", b"Hello Mars!\n".to_vec());
    let venus = File("planets/venus.txt", b"Hello Venus!\n".to_vec());
    let options = AddOptions {
        wrap: true,
        ..default()
    };
    let wrapped = add(options, vec![mars, venus]).await.pop().unwrap();
    let root = "QmcgF3bEc3q9G9YfxCXWYaV5H7bDyDD1CrsmUDgSQPdY4n".to_owned();
    assert_eq!(wrapped, (String::new(), root, 200));
}

#[tokio::test]
async fn directories_are_reported_deepest_first() {
    let entries = vec![
        File("moons/jupiter/europa.txt", b"Hello Europa!\n".to_vec()),
        File("moons/mercury.txt", b"hey you are no moon!\n".to_vec()),
        File("moons/saturn/titan.txt", b"Hello Titan!\n".to_vec()),
    ];
    let added = add(default(), entries).await;
    let added: Vec<_> = added
        .iter()
        .map(|(name, cid, _)| (name.as_str(), cid.as_str()))
        .collect();
    assert_eq!(
        added,
        [
            (
                "moons/jupiter/europa.txt",
                "Qmbjg7zWdqdMaK2BucPncJQDxiALExph5k3NkQv5RHpccu"
            ),
            (
                "moons/mercury.txt",
                "QmRsTB5CpEUvDUpDgHCzb3VftZ139zrk9zs5ZcgYh9TMPJ"
            ),
            (
                "moons/saturn/titan.txt",
                "QmZzppb9WHn552rmRqpPfgU5FEiHH6gDwi3MrB9cTdPwdb"
            ),
            ("moons/jupiter", "QmS5mZddhFPLWFX3w6FzAy9QxyYkaxvUpsWCtZ3r7jub9J"),
            ("moons/saturn", "QmaMagZT4rTE7Nonw8KGSK4oe1bh533yhZrCo1HihSG8FK"),
            ("moons", "QmbGoaQZm8kjYfCiN1aBsgwhqfUBGDYTrDb91Mz7Dvq81B"),
        ]
    );
}

#[tokio::test]
async fn directory_of_two_thousand_names_sharded_and_not() {
    let many = |options| async {
        let (blocks, mut receiver) = mpsc::channel(16);
        tokio::spawn(async move { while receiver.recv().await.is_some() {} });
        let mut adder = Adder::new(options, blocks).unwrap();
        for i in 1..=2000 {
            let content = format!("{i}\n");
            let path = format!("d/file{i}");
            adder
                .file(&path, Metadata::default(), content.as_bytes(), |_| {})
                .await
                .unwrap();
        }
        finish(adder).await.unwrap().0[0].cid.to_string()
    };
    let basic = AddOptions {
        hamt_threshold: 1 << 30,
        ..default()
    };
    assert_eq!(
        many(basic).await,
        "QmavrTrQG4VhoJmantURAYuw3bowq3E2WcvP36NRQDAC1N"
    );
    let sharded = AddOptions {
        hamt_threshold: 1,
        ..default()
    };
    assert_eq!(
        many(sharded).await,
        "QmSCJD1KYLhVVHqBK3YyXuoEqHt7vggyJhzoFYbT8v1XYL"
    );
    let sharded = AddOptions {
        hamt_threshold: 1,
        ..v1()
    };
    assert_eq!(
        many(sharded).await,
        "bafybeibiemewfzzdyhq2l74wrd6qj2oz42usjlktgnlqv4yfawgouaqn4u"
    );
}

/// Adds files whose names are drawn from the generator, each containing `x`.
async fn drawn_names(options: AddOptions, seed: &str, lengths: impl Iterator<Item = usize>) -> String {
    const ALPHABET: &[u8; 39] = b"abcdefghijklmnopqrstuvwxyz01234567890-_";
    let (blocks, mut receiver) = mpsc::channel(16);
    tokio::spawn(async move { while receiver.recv().await.is_some() {} });
    let mut adder = Adder::new(options, blocks).unwrap();
    let mut drng = Drng::new(seed);
    for length in lengths {
        let name: String = drng
            .bytes(length)
            .iter()
            .map(|b| char::from(ALPHABET[usize::from(b % 39)]))
            .collect();
        adder
            .file(&format!("d/{name}"), Metadata::default(), &b"x"[..], |_| {})
            .await
            .unwrap();
    }
    finish(adder).await.unwrap().0[0].cid.to_string()
}

#[tokio::test]
async fn directories_are_sharded_only_above_the_threshold() {
    let seed = "hamt-unixfs-v0-2015";
    let at = drawn_names(default(), seed, std::iter::repeat_n(30, 4096)).await;
    assert_eq!(at, "QmX5GtRk3TSSEHtdrykgqm4eqMEn3n2XhfkFAis5fjyZmN");
    let above = drawn_names(default(), seed, std::iter::repeat_n(31, 4033)).await;
    assert_eq!(above, "QmeMiJzmhpJAUgynAcxTQYek5PPKgdv3qEvFsdV3XpVnvP");
    let lengths = |last| std::iter::repeat_n(11, 4765).chain([last]);
    let seed = "hamt-unixfs-v1-2025";
    let at = drawn_names(v1_2025(), seed, lengths(21)).await;
    assert_eq!(at, "bafybeic3h7rwruealwxkacabdy45jivq2crwz6bufb5ljwupn36gicplx4");
    let above = drawn_names(v1_2025(), seed, lengths(22)).await;
    assert_eq!(
        above,
        "bafybeiegvuterwurhdtkikfhbxcldohmxp566vpjdofhzmnhv6o4freidu"
    );
}

/// Names and link targets that are not UTF-8 keep their bytes. The CID is that of Kubo's `ipfs add -r`.
#[tokio::test]
async fn names_and_targets_keep_bytes_that_are_not_utf8() {
    let (blocks, mut receiver) = mpsc::channel(16);
    tokio::spawn(async move { while receiver.recv().await.is_some() {} });
    let mut adder = Adder::new(default(), blocks).unwrap();
    let none = Metadata::default();
    for (name, content) in [
        (&b"d/caf\xe9"[..], "one"),
        (b"d/caf\xe8", "two"),
        ("d/café".as_bytes(), "three"),
    ] {
        let added = adder.file(name, none, content.as_bytes(), |_| {}).await.unwrap();
        assert_eq!(added.name.as_bytes(), name);
    }
    let target = adder.symlink(b"t/l\xe9", none, b"targ\xe9t").await.unwrap();
    assert_eq!(
        target.cid.to_string(),
        "QmRqhyBizyZpR6pKufPBQtBaCF4PZVaHmd8qNJbmGwY8Ko"
    );
    let (roots, _) = finish(adder).await.unwrap();
    let roots: Vec<_> = roots.iter().map(|root| root.cid.to_string()).collect();
    assert_eq!(
        roots,
        [
            "QmSC6vUiZs2LMccNMzM9WbN2REDhPGDTHaJvrBMZ6xcPQL",
            "QmQ6zN63xndzGwDMGo2LFFuDw58fuFvMrwFQTWdJMMV2FY"
        ]
    );
}
