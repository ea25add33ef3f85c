//! Files: their size, their hash, their form.

use super::drng::Drng;
use super::*;

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
