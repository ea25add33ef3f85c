//! The CIDs of uploads are Kubo's, option by option. The expected ones come from Kubo's own tests.

use cluster_ipfs::unixfs::{
    AddOptions, Added, Adder, Chunker, Finished, HamtSize, HashKind, Layout, Metadata,
};
use cluster_ipfs::{Block, Error};
use tokio::sync::mpsc;

/// An entry of an upload.
enum Entry {
    File(&'static str, Vec<u8>),
    Directory(&'static str),
    Symlink(&'static str, &'static str),
}

use Entry::{Directory, File, Symlink};

async fn add_with(
    options: AddOptions,
    entries: Vec<(Entry, Metadata)>,
) -> Result<(Vec<Added>, Finished), Error> {
    let (blocks, mut receiver) = mpsc::channel::<Block>(16);
    let drain = tokio::spawn(async move { while receiver.recv().await.is_some() {} });
    let mut adder = Adder::new(options, blocks)?;
    let mut added = Vec::new();
    for (entry, meta) in entries {
        match entry {
            File(path, content) => added.push(adder.file(path, meta, content.as_slice(), |_| {}).await?),
            Directory(path) => adder.directory(path, meta)?,
            Symlink(path, target) => added.push(adder.symlink(path, meta, target).await?),
        }
    }
    let finished = adder.finish().await?;
    drain.await.unwrap();
    Ok((added, finished))
}

async fn add(options: AddOptions, entries: Vec<Entry>) -> Vec<(String, String, u64)> {
    let entries = entries
        .into_iter()
        .map(|entry| (entry, Metadata::default()))
        .collect();
    let (added, finished) = add_with(options, entries).await.unwrap();
    let all = added.into_iter().chain(finished.directories);
    all.map(|added| (added.name, added.cid.to_string(), added.size))
        .collect()
}

async fn file(options: AddOptions, content: impl Into<Vec<u8>>) -> (String, u64) {
    let (_, cid, size) = add(options, vec![File("f", content.into())]).await.remove(0);
    (cid, size)
}

fn default() -> AddOptions {
    AddOptions::default()
}

fn v1() -> AddOptions {
    AddOptions {
        cid_version: Some(cid::Version::V1),
        ..default()
    }
}

fn v1_2025() -> AddOptions {
    AddOptions {
        chunker: Chunker::Size(1 << 20),
        max_file_links: 1024,
        hamt_size: HamtSize::Block,
        ..v1()
    }
}

/// The byte stream of Kubo's tests: ChaCha20's keystream, its key the SHA-256 of a seed.
struct Drng {
    state: [u32; 16],
    block: Vec<u8>,
}

impl Drng {
    fn new(seed: &str) -> Drng {
        use multihash_codetable::{Code, MultihashDigest};
        let key = Code::Sha2_256.digest(seed.as_bytes());
        let mut state = [0; 16];
        state[..4].copy_from_slice(&[0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574]);
        for (word, bytes) in state[4..12].iter_mut().zip(key.digest().chunks(4)) {
            *word = u32::from_le_bytes(bytes.try_into().unwrap());
        }
        Drng {
            state,
            block: Vec::new(),
        }
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.block.len() < count {
            let mut x = self.state;
            for _ in 0..10 {
                for [a, b, c, d] in [[0, 4, 8, 12], [1, 5, 9, 13], [2, 6, 10, 14], [3, 7, 11, 15]] {
                    quarter(&mut x, a, b, c, d);
                }
                for [a, b, c, d] in [[0, 5, 10, 15], [1, 6, 11, 12], [2, 7, 8, 13], [3, 4, 9, 14]] {
                    quarter(&mut x, a, b, c, d);
                }
            }
            for (word, start) in x.iter().zip(self.state) {
                self.block
                    .extend_from_slice(&word.wrapping_add(start).to_le_bytes());
            }
            self.state[12] = self.state[12].wrapping_add(1);
        }
        let rest = self.block.split_off(count);
        std::mem::replace(&mut self.block, rest)
    }
}

fn quarter(x: &mut [u32; 16], a: usize, b: usize, c: usize, d: usize) {
    for (first, second, third, turn) in [(a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)] {
        x[first] = x[first].wrapping_add(x[second]);
        x[third] = (x[third] ^ x[first]).rotate_left(turn);
    }
}

#[tokio::test]
async fn hello_world_with_every_version_and_hash() {
    let plain = "hello world";
    let (cid, size) = file(default(), plain).await;
    assert_eq!(
        (cid.as_str(), size),
        ("Qmf412jQZiuVUtdgnB36FXFX7xg5V6KEbSJ4dpQuhkLyfD", 19)
    );
    let (cid, size) = file(v1(), plain).await;
    assert_eq!(
        (cid.as_str(), size),
        ("bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e", 11)
    );
    let no_raw = AddOptions {
        raw_leaves: Some(false),
        ..v1()
    };
    let expected = "bafybeihykld7uyxzogax6vgyvag42y7464eywpf55gxi5qpoisibh3c5wa";
    assert_eq!(file(no_raw, plain).await.0, expected);
    let sha512 = AddOptions {
        hash: HashKind::Sha2_512,
        ..default()
    };
    let expected = "bafkrgqbqt3gerhas23vuzrapkdeqf4vu2dwxp3srdj6hvg6nhsug2tgyn6mj3u23yx7utftq3i2ckw2f\
                    wdh5qmhid5qf3t35yvkc5e5ottlw6";
    assert_eq!(file(sha512, plain).await.0, expected);
}

#[tokio::test]
async fn small_files() {
    for (content, cid, size) in [
        (
            "Hello Worlds!\n",
            "QmVr26fY1tKyspEJBniVhqxQeEjhF78XerGiqWAwraVLQH",
            22,
        ),
        ("", "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH", 6),
        ("hi\n", "QmZLRFWaz9Kypt2ACNMDzA5uzACDRiCqwdkNSP1UZsu56D", 11),
        ("x", "QmULKig5Fxrs2sC4qt9nNduucXfb92AFYQ6Hi3YRqDmrYC", 9),
    ] {
        assert_eq!(
            file(default(), content).await,
            (cid.to_owned(), size),
            "{content:?}"
        );
    }
    let expected = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku";
    assert_eq!(file(v1(), "").await, (expected.to_owned(), 0));
    let unnamed = add(
        default(),
        vec![File("", b"Hello Neptune!\nHello Pluton!".to_vec())],
    )
    .await;
    let expected = "QmZDhWpi8NvKrekaYYhxKCdNVGWsFFe1CREnAjP1QbPaB3";
    assert_eq!(
        (unnamed[0].0.as_str(), unnamed[0].1.as_str()),
        (expected, expected)
    );
}

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
async fn planets_in_every_form() {
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
                hash: HashKind::Blake2b256,
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
    let wrapped = planets_wrapped().await;
    assert_eq!(
        wrapped,
        (
            String::new(),
            "QmcgF3bEc3q9G9YfxCXWYaV5H7bDyDD1CrsmUDgSQPdY4n".to_owned(),
            200
        )
    );
}

async fn planets_wrapped() -> (String, String, u64) {
    let mars = File("planets/mars.txt", b"Hello Mars!\n".to_vec());
    let venus = File("planets/venus.txt", b"Hello Venus!\n".to_vec());
    let options = AddOptions {
        wrap: true,
        ..default()
    };
    add(options, vec![mars, venus]).await.pop().unwrap()
}

#[tokio::test]
async fn moons_come_with_their_directories_deepest_first() {
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

#[tokio::test]
async fn modes_and_times() {
    let options = AddOptions {
        preserve: true,
        ..default()
    };
    let one = |entry, mode, mtime| {
        let options = options.clone();
        async move {
            let (added, finished) = add_with(options, vec![(entry, Metadata { mode, mtime })])
                .await
                .unwrap();
            added
                .into_iter()
                .chain(finished.directories)
                .next()
                .unwrap()
                .cid
                .to_string()
        }
    };
    let early = Some((1_603_539_720, 0));
    let exact = Some((1_603_539_720, 54_321));
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
        (None, exact, "QmaKH8H5rXBUBCX4vdxi7ktGQEL7wejV7L9rX2qpZjwncz"),
        (
            Some(0o764),
            exact,
            "QmUkxrtBA8tPjwCYz1HrsoRfDz6NgKut3asVeHVQNH4C8L",
        ),
    ] {
        assert_eq!(
            one(File("f", Vec::new()), mode, mtime).await,
            cid,
            "file {mode:?} {mtime:?}"
        );
    }
    for (mtime, cid) in [
        (
            Some((1_604_320_482, 0)),
            "QmbJwotgtr84JxcnjpwJ86uZiyMoxbZuNH4YrdJMypkYaB",
        ),
        (exact, "QmPHYCxYvvHj6VxiPNJ3kXxcPsnJLDYUJqsDJWjvytmrmY"),
    ] {
        assert_eq!(
            one(Symlink("l", "nothing"), Some(0o777), mtime).await,
            cid,
            "link {mtime:?}"
        );
    }
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
        (None, exact, "QmZFdCLJay31hT3Tx1LygJ7XfiLEs3qLCXtbeBfhf38aZg"),
    ] {
        assert_eq!(
            one(Directory("d"), mode, mtime).await,
            cid,
            "directory {mode:?} {mtime:?}"
        );
    }
}

#[tokio::test]
async fn a_short_file_becomes_its_own_cid() {
    let options = AddOptions {
        inline: Some(32),
        raw_leaves: Some(true),
        ..default()
    };
    assert_eq!(
        file(options, "jkD98jkD975hkD8\n").await.0,
        "bafkqaedknncdsodknncdsnzvnbvuioak"
    );
}

#[tokio::test]
async fn two_thousand_names_sharded_and_not() {
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
        adder.finish().await.unwrap().roots[0].cid.to_string()
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

/// Adds files whose names are drawn from the generator, each holding `x`.
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
    adder.finish().await.unwrap().roots[0].cid.to_string()
}

#[tokio::test]
async fn directories_are_sharded_above_the_threshold_and_not_at_it() {
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

#[tokio::test]
async fn files_around_the_size_of_a_chunk_and_of_a_node() {
    let drawn = |seed, count| Drng::new(seed).bytes(count);
    let chunk = 262_144;
    let one = file(default(), drawn("chunk-v0-seed", chunk)).await.0;
    assert_eq!(one, "QmWmRj3dFDZdb6ABvbmKhEL6TmPbAfBZ1t5BxsEyJrcZhE");
    let two = file(default(), drawn("chunk-v0-seed", chunk + 1)).await.0;
    assert_eq!(two, "QmYyLxtzZyW22zpoVAtKANLRHpDjZtNeDjQdJrcQNWoRkJ");
    let mut node = drawn("v0-seed", 174 * chunk + 1);
    let deeper = file(default(), node.clone()).await.0;
    assert_eq!(deeper, "QmV81WL765sC8DXsRhE5fJv2rwhS4icHRaf3J9Zk5FdRnW");
    node.pop();
    assert_eq!(
        file(default(), node).await.0,
        "QmUbBALi174SnogsUzLpYbD4xPiBSFANF4iztWCsHbMKh2"
    );
    let one = file(v1_2025(), drawn("chunk-v1-seed", 1 << 20)).await.0;
    assert_eq!(one, "bafkreiacndfy443ter6qr2tmbbdhadvxxheowwf75s6zehscklu6ezxmta");
    let two = file(v1_2025(), drawn("chunk-v1-seed", (1 << 20) + 1)).await.0;
    assert_eq!(two, "bafybeigmix7t42i6jacydtquhet7srwvgpizfg7gjbq7627d35mjomtu64");
}

#[tokio::test]
async fn zeros_and_letters() {
    let zeros = |count| vec![0; count];
    let (cid, size) = file(default(), zeros(262_144)).await;
    assert_eq!(
        (cid.as_str(), size),
        ("QmRk1rduJvo5DfEYAaLobS2za9tDszk35hzaNSDCJ74DA7", 262_158)
    );
    let (cid, size) = file(default(), zeros(262_145)).await;
    assert_eq!(
        (cid.as_str(), size),
        ("QmbVuw4C4vcmVKqxoWtgDVobvcHrSn51qsmQmyxjk4sB2Q", 262_267)
    );
    let (cid, size) = file(default(), zeros(1_048_577)).await;
    assert_eq!(
        (cid.as_str(), size),
        ("Qmeb988ZjF9Ui6AVPR8Sjg5sAv1B6DauS5rUjCoNs7ftZ1", 1_048_885)
    );
    let raw = AddOptions {
        raw_leaves: Some(true),
        ..default()
    };
    assert_eq!(
        file(raw, zeros(1_048_577)).await.0,
        "QmdvSLhTBGEb8mGPsa7TkHUwbXPM89LAjvD59ayBfptpP5"
    );
    let expected = "bafybeihhq4imxfkfucfxjbnqvrvzdknmfbzvxaivz7jzdnumfkabdbq3yq";
    assert_eq!(file(v1(), zeros(1_048_577)).await.0, expected);
    let expected = "bafybeihd4yzq7n5umhjngdum4r6k2to7egxfkf2jz6thvwzf6djus22cmq";
    assert_eq!(
        file(v1_2025(), zeros(1_048_577)).await,
        (expected.to_owned(), 1_048_681)
    );
    let small = AddOptions {
        chunker: Chunker::Size(1024),
        ..default()
    };
    let letters = vec![b'a'; 1_000_000];
    let (cid, size) = file(small.clone(), letters.clone()).await;
    assert_eq!(
        (cid.as_str(), size),
        ("QmbXs6AJvsWun2u3o4TU7kyLyYzuaSdyxm3Po12Uvr9EPG", 1_056_039)
    );
    let trickle = AddOptions {
        layout: Layout::Trickle,
        ..small
    };
    let (cid, size) = file(trickle, letters).await;
    assert_eq!(
        (cid.as_str(), size),
        ("QmZbEeMjcVfwBwDD32J6mdmkqUGYeE4stZN8py5UxwMmH4", 1_055_983)
    );
}

#[tokio::test]
async fn contradicting_options_and_bad_paths_are_refused() {
    let refused = |options: AddOptions| Adder::new(options, mpsc::channel(1).0).unwrap_err().to_string();
    let sha512_v0 = AddOptions {
        hash: HashKind::Sha2_512,
        cid_version: Some(cid::Version::V0),
        ..default()
    };
    assert!(refused(sha512_v0).contains("CIDv0 only supports sha2-256"));
    let raw_mode = AddOptions {
        raw_leaves: Some(true),
        preserve: true,
        ..default()
    };
    assert!(refused(raw_mode).contains("raw-leaves"));
    assert!(
        refused(AddOptions {
            inline: Some(129),
            ..default()
        })
        .contains("inline-limit")
    );
    assert!(
        refused(AddOptions {
            max_file_links: 1,
            ..default()
        })
        .contains("max-file-links")
    );
    assert!(
        refused(AddOptions {
            hamt_fanout: 100,
            ..default()
        })
        .contains("max-hamt-fanout")
    );
    assert!(
        "rabin"
            .parse::<Chunker>()
            .unwrap_err()
            .to_string()
            .contains("not supported")
    );
    assert!("size-0".parse::<Chunker>().is_err());
    assert!("size-2097152".parse::<Chunker>().is_err());

    let entries = |paths: [&'static str; 2]| {
        paths
            .map(|path| (File(path, vec![1]), Metadata::default()))
            .into()
    };
    for paths in [["a", "a"], ["a", "a/b"], ["a/b", "a"], ["a", "../b"]] {
        assert!(add_with(default(), entries(paths)).await.is_err(), "{paths:?}");
    }
}
