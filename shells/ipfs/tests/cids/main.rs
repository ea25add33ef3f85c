//! CIDs of uploads compared with Kubo's, option by option. The expected ones come from Kubo's own tests.

mod directories;
mod drng;
mod files;
mod metadata;

use cluster_ipfs::unixfs::{AddOptions, Added, Adder, Chunker, HamtSize, HashKind, Layout, Metadata};
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
) -> Result<(Vec<Added>, Vec<Added>), Error> {
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
    let directories = finish(adder).await?.1;
    drain.await.unwrap();
    Ok((added, directories))
}

/// Returns the roots, and the directories.
async fn finish(adder: Adder) -> Result<(Vec<Added>, Vec<Added>), Error> {
    let (sender, mut lines) = mpsc::channel(1);
    let directories = tokio::spawn(async move {
        let mut directories = Vec::new();
        while let Some(added) = lines.recv().await {
            directories.push(added);
        }
        directories
    });
    let roots = adder.finish(sender).await?;
    Ok((roots, directories.await.unwrap()))
}

async fn add(options: AddOptions, entries: Vec<Entry>) -> Vec<(String, String, u64)> {
    let entries = entries
        .into_iter()
        .map(|entry| (entry, Metadata::default()))
        .collect();
    let (added, directories) = add_with(options, entries).await.unwrap();
    let all = added.into_iter().chain(directories);
    all.map(|added| (added.name.to_string(), added.cid.to_string(), added.size))
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

#[tokio::test]
async fn contradictory_options_and_invalid_paths_are_refused() {
    let refused = |options: AddOptions| Adder::new(options, mpsc::channel(1).0).unwrap_err().to_string();
    let sha512_v0 = AddOptions {
        hash: HashKind::SHA2_512,
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
    for refused in [
        "rabin-40",
        "rabin-100-100-200",
        "rabin-15-20-30",
        "rabin-min:100-max:200-300",
        "rabin-1000-2000-3000000",
        "rabin-x",
        "fastcdc",
    ] {
        assert!(refused.parse::<Chunker>().is_err(), "{refused}");
    }
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
