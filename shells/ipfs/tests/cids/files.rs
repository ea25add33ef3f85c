//! CIDs of files by size, hash function, chunker and layout.

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
        hash: HashKind::SHA2_512,
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
async fn short_file_is_inlined_into_its_cid() {
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

/// Returns 3,000,000 bytes of Marsaglia's xorshift generator.
fn noise() -> Vec<u8> {
    let mut state = 2_463_534_242_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()
    };
    (0..750_000).flat_map(|_| next()).collect()
}

/// The expected CIDs are those of Kubo 0.44's `ipfs add --chunker`.
#[tokio::test]
async fn content_defined_chunks_equal_those_of_kubo() {
    let (zeros, noise) = (vec![0; 700_000], noise());
    for (chunker, of_zeros, of_noise) in [
        (
            "rabin",
            "QmZpdH3A1Ctqk9tx5cu9EXTxpkvvpYFT8E8YJCXeqSqSUq",
            "QmUXA7nGbSSupsJCAASr3crYDkA98pnbNZTYHpLwFNfutf",
        ),
        (
            "rabin-1000",
            "QmTvZmgTgHruw2YAyXDcakQpShfuk3MevTjfHmQB2dvDbz",
            "QmVKtB92WsLotyDF1LTas7F1vdmEzuTMMeguV6FE4VAVBL",
        ),
        (
            "rabin-min:100-avg:2000-max:40000",
            "QmUzfupWFtG94UQYXE3fmYYo1ZCMGTadPpftGRv8bkJb6Y",
            "QmQ6YUWmNnNALszaU32A85wSHX1owQG3yXExXGzKjbUU4f",
        ),
        (
            "buzhash",
            "QmQpink5wg2Lfj7reTBN3Fgt7DmAuRqqK8BrT8zgjxkFDy",
            "QmU68RqVZAbbHaFUCie4MnVHX7ewLQSz82Mk94kP9ug8BP",
        ),
        (
            "size-1000",
            "QmXeEwFW3FqTPxXm9Xd6MP72MvCNjNiZXmoHbUdUirCaC4",
            "QmXLdYESVJDWf4sJo5CybJaia9MasMBxmsvcikJjkgf3uv",
        ),
    ] {
        let options = AddOptions {
            chunker: chunker.parse().unwrap(),
            ..default()
        };
        assert_eq!(
            file(options.clone(), zeros.clone()).await.0,
            of_zeros,
            "{chunker}"
        );
        assert_eq!(file(options, noise.clone()).await.0, of_noise, "{chunker}");
    }
}

/// The expected CIDs are those of Kubo 0.44's `ipfs add --hash`.
#[tokio::test]
async fn every_hash_function_of_kubo_is_supported() {
    for (hash, cid) in [
        ("sha1", "bafkrcfbkvzwdlskpz62blw7jl5aixhhjd3uen3i"),
        (
            "sha3-224",
            "bafkrohg7w7yyy57jfc5vn6xlfwrhfen5pef4cbc43zc7giilw3cq",
        ),
        (
            "sha3-256",
            "bafkrmidejpgh4vsdomcatgnkzcphmixtzjy7xiozol6zjiy4hp57etrzha",
        ),
        (
            "sha3-384",
            "bafkrkmedx7zi3xq3dp2ycadryzsdychfwbn5xa3o77lqwqb6vdvauy2nysmx5mifhkrvsp2zb6oggyyn3efq",
        ),
        (
            "SHA3-512",
            "bafkriqeeaadgkpu2zhuvcf5blsivzkvyczrjdduslxu6abhxot7yfvyhtjanjut3dm3smv6gdvdni4bqjsempcfturjhvudu2\
             homx3s5xkuzu",
        ),
        (
            "shake-256",
            "bafkrsqbws5y3wlfz2kyeyhkuzssipy3s3hyyp5z7por7mw4vzdxhpggfe72phqwvlqwuniu7f2kf2ru4hxzhqu5ionjhd5omf\
             wpirfkegvyrm",
        ),
        (
            "keccak-256",
            "bafkrwichc4zilkgxgqpf5fzpyz3sqy4e7abpr32cuxwf6a537isuzma7vu",
        ),
        (
            "keccak-512",
            "bafkr2qb64k2aar5yayhwrrtsiilvmyhuc5gqv5oadvdrndwcb3lbtmfxyqqyd5akuecg6opc56ppy2iqpavjtdqacpixermjk\
             6kx7leuaw3h2",
        ),
        (
            "blake3",
            "bafkr4igxjga67jykbseaxdmmdgc5a5o3zp3htom2l6mrjznk7fvyggu6eq",
        ),
        (
            "dbl-sha2-256",
            "bafkvmif4mlklqdm6g3nctqlmlvgz6eltd43akldsianhnqr4b622tn2eem",
        ),
        ("blake2b-160", "bafkzjzaccryor3hf4kj6dpnamtpo62yib3o6gvybb4"),
        (
            "blake2b-384",
            "bafk3bzacgcggkp4mtsnkef37w34m6w5zcsbi7kqdfv5uq3ebkbtd2p3fesyim6cprzrgsmlrvri7zafx2lf3cky",
        ),
        (
            "blake2s-256",
            "bafk6bzacecnoy2agpfcwced6lffr62uknmgjfiglvgwplzpjhtfan54bqe5qw",
        ),
        ("identity", "bafkqac3imvwgy3zao5xxe3de"),
    ] {
        let options = AddOptions {
            hash: hash.parse().unwrap(),
            ..default()
        };
        assert_eq!(file(options, "hello world").await.0, cid, "{hash}");
    }
    for refused in [
        "md5",
        "shake-128",
        "blake2b-152",
        "blake2b-520",
        "murmur3-x64-64",
        "rot13",
    ] {
        assert!(refused.parse::<HashKind>().is_err(), "{refused}");
    }
}
