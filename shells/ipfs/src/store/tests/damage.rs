//! Damage to the files by disks and crashes.

use super::*;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

fn segments(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder.join("segments")).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// Fills some segments and closes the store.
fn filled(folder: &Path) -> BTreeMap<u64, Block> {
    let store = open(folder);
    let model: BTreeMap<u64, Block> = (0..20).map(|number| (number, block(number, 9000))).collect();
    runtime()
        .block_on(store.put(model.values().cloned().collect()))
        .unwrap();
    store.close();
    model
}

fn refused(folder: &Path) -> String {
    match try_open(folder) {
        Err(Error::Damaged(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn torn_tail_is_truncated_and_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let mut model = filled(folder.path());
    let paths = segments(folder.path());
    let last = paths.last().unwrap();
    let whole = std::fs::metadata(last).unwrap().len();
    let mut file = OpenOptions::new().append(true).open(last).unwrap();
    file.write_all(&[0xaa; 5000]).unwrap();
    // A segment that was created, but is not recorded in the database.
    let next = folder.path().join("segments/0000000099.seg");
    std::fs::write(&next, b"ips").unwrap();
    let store = open(folder.path());
    assert_eq!(std::fs::metadata(last).unwrap().len(), whole);
    assert!(!next.exists());
    check(&store, &model);
    let more = block(100, 6000);
    runtime().block_on(store.put(vec![more.clone()])).unwrap();
    model.insert(100, more);
    store.close();
    let store = open(folder.path());
    check(&store, &model);
    store.close();
}

/// A full disk or a power cut tears a write at any byte; the preallocated journal has zeros after it.
#[test]
fn torn_journal_is_truncated() {
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("blocks/0.jnl");
    let used = || {
        std::fs::read(&journal)
            .unwrap()
            .iter()
            .rposition(|byte| *byte != 0)
    };
    let model: BTreeMap<u64, Block> = [(1, block(1, 300))].into();
    let put = |number: u64| {
        let store = open(folder.path());
        runtime().block_on(store.put(vec![block(number, 300)])).unwrap();
        store.close();
        used().unwrap() + 1
    };
    let (before, after) = (put(1), put(2));
    let mut whole = std::fs::read(&journal).unwrap();
    for at in (before..after).rev() {
        whole[at] = 0;
        std::fs::write(&journal, &whole).unwrap();
        let store = open(folder.path());
        for (number, block) in &model {
            assert_eq!(
                store.get(&block.cid).unwrap().as_ref(),
                Some(&block.data),
                "{number}, torn at {at}"
            );
        }
        store.close();
    }
}

#[test]
fn missing_short_or_foreign_segments_are_refused_by_name() {
    for (damage, said) in [
        (0, "has"),
        (1, "No such file"),
        (2, "is not segment"),
        (3, "is not segment"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        filled(folder.path());
        let paths = segments(folder.path());
        match damage {
            0 => {
                let file = OpenOptions::new().write(true).open(&paths[0]).unwrap();
                let length = file.metadata().unwrap().len();
                file.set_len(length - 1).unwrap();
            }
            1 => std::fs::remove_file(&paths[0]).unwrap(),
            2 => std::fs::rename(&paths[1], &paths[0]).unwrap(),
            _ => std::fs::write(&paths[0], b"").unwrap(),
        }
        let text = refused(folder.path());
        assert!(
            text.contains(said) && text.contains("move it away"),
            "{damage}: {text}"
        );
        assert!(text.contains(".seg"), "{damage}: {text}");
    }
}

#[test]
fn flipped_bit_is_reported_and_damages_only_its_block() {
    let folder = tempfile::tempdir().unwrap();
    let mut model = filled(folder.path());
    let paths = segments(folder.path());
    let file = OpenOptions::new().read(true).write(true).open(&paths[0]).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 16 + 9000 + 4321).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], 16 + 9000 + 4321).unwrap();
    let store = open(folder.path());
    let damaged: Vec<u64> = model
        .iter()
        .filter_map(|(number, block)| match store.get(&block.cid) {
            Ok(Some(data)) => {
                assert_eq!(data, block.data);
                None
            }
            Err(Error::DamagedBlock { cid, why }) => {
                assert_eq!(cid, block.cid, "{why}");
                Some(*number)
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(damaged.len(), 1);
    assert!(!store.has(&model[&damaged[0]].cid).unwrap());
    // Rewriting its segment neither loses the others nor hides the damage.
    let runtime = runtime();
    let spared: Vec<u64> = model.keys().copied().filter(|number| *number % 3 == 0).collect();
    let gone = model
        .keys()
        .copied()
        .filter(|number| *number % 3 != 0 && *number != damaged[0]);
    for number in gone.collect::<Vec<_>>() {
        let block = model.remove(&number).unwrap();
        runtime
            .block_on(store.delete(vec![super::super::key_of(&block.cid)], false))
            .unwrap();
    }
    store.compact().unwrap();
    let bad = model[&damaged[0]].clone();
    assert!(matches!(store.get(&bad.cid), Err(Error::DamagedBlock { .. })));
    // Putting a copy replaces it.
    runtime.block_on(store.put(vec![bad])).unwrap();
    assert!(spared.iter().all(|number| model.contains_key(number)));
    check(&store, &model);
    store.close();
}

/// Writes raw records into the database.
fn write(folder: &Path, records: &[(&str, &[u8], &[u8])]) {
    let db = fjall::Database::builder(folder.join("blocks")).open().unwrap();
    for (keyspace, key, value) in records {
        let keyspace = db.keyspace(keyspace, fjall::KeyspaceCreateOptions::default);
        keyspace.unwrap().insert(*key, *value).unwrap();
    }
    db.persist(fjall::PersistMode::SyncAll).unwrap();
}

#[test]
fn other_formats_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &[("meta", b"format", b"1")]);
    let text = refused(folder.path());
    assert!(text.contains("\"1\"") && text.contains("\"2\""), "{text}");
}

/// Every record of format 2, byte for byte: a changed record needs a new first byte or a new format.
#[test]
fn records_of_format_2_are_read_and_written_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let (small, large) = (block(1, 300), block(2, 1000));
    let (small_key, large_key) = (super::super::key_of(&small.cid), super::super::key_of(&large.cid));
    let inline = [&[0], &small.data[..]].concat();
    let crc = crc32fast::hash(&large.data).to_be_bytes();
    let place = [&[1, 0, 0, 0, 7, 0, 0, 0, 16, 0, 0, 3, 0xe8], &crc[..]].concat();
    let pinned = large.cid.to_bytes();
    write(
        folder.path(),
        &[
            ("meta", b"format", b"2"),
            ("meta", b"counters", &[2, 0x94, 0x0a, 1]),
            ("meta", b"next", &[0, 0, 0, 8]),
            ("segments", &[0, 0, 0, 7], &[1, 0xf8, 0x07, 0xe8, 0x07]),
            ("blocks", &small_key, &inline),
            ("blocks", &large_key, &place),
            ("pins", &pinned, b"\x01\x00a name"),
        ],
    );
    let segment = [b"ipfsseg1", &[0, 0, 0, 0, 0, 0, 0, 7], &large.data[..]].concat();
    std::fs::create_dir(folder.path().join("segments")).unwrap();
    std::fs::write(folder.path().join("segments/0000000007.seg"), segment).unwrap();
    let store = open(folder.path());
    check(&store, &[(1, small), (2, large.clone())].into());
    assert_eq!(store.counters().pins, 1);
    let expected = Pin {
        cid: large.cid,
        mode: PinMode::Recursive,
        name: "a name".to_owned(),
    };
    assert_eq!(store.pin_of(&large.cid).unwrap(), Some(expected));
    store.close();
}

#[test]
fn records_of_unknown_layout_are_refused() {
    let usage = [1, 0xf8, 0x07, 0xe8, 0x07];
    let damage: [(&str, &[u8], &[u8], &str); 6] = [
        ("meta", b"counters", &[2, 1], "counters"),
        ("meta", b"counters", &[2, 1, 1, 1], "counters"),
        ("meta", b"next", &[7], "next segment"),
        ("segments", &[0, 0, 0, 7], &usage[..4], "record of a segment"),
        (
            "segments",
            &[0, 0, 0, 7],
            &[&usage[..], &[0]].concat(),
            "record of a segment",
        ),
        (
            "segments",
            &[0, 0, 0, 7],
            &[&[2], &usage[1..]].concat(),
            "record of a segment",
        ),
    ];
    for (keyspace, key, value, said) in damage {
        let folder = tempfile::tempdir().unwrap();
        write(
            folder.path(),
            &[("meta", b"format", b"2"), (keyspace, key, value)],
        );
        let text = refused(folder.path());
        assert!(
            text.contains(said) && text.contains("move it away"),
            "{value:02x?}: {text}"
        );
    }
    let folder = tempfile::tempdir().unwrap();
    let block = block(1, 300);
    let key = super::super::key_of(&block.cid);
    let pin = block.cid.to_bytes();
    write(
        folder.path(),
        &[
            ("meta", b"format", b"2"),
            ("blocks", &key, b"\x02later"),
            ("pins", &pin, b"\x02\x00later"),
        ],
    );
    let store = open(folder.path());
    let texts = [
        store.get(&block.cid).unwrap_err().to_string(),
        store.pin_of(&block.cid).unwrap_err().to_string(),
    ];
    for text in texts {
        assert!(text.contains("not readable by this version"), "{text}");
    }
    store.close();
}

#[test]
fn full_disk_is_reported_as_such() {
    let full = std::io::Error::from(ErrorKind::StorageFull);
    let error = super::super::segments::write_error(Path::new("/x/1.seg"), full);
    let text = error.to_string();
    assert!(text.contains("is full") && text.contains("/x/1.seg"), "{text}");
}

/// Environment variable with the repository of the process with few open files.
const FOLDER: &str = "CLUSTER_IPFS_TEST_LIMITED";

#[test]
#[ignore = "the process of `open_file_limit_is_reported_as_such_and_not_as_damage`"]
fn limited() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    match Store::open_with(Path::new(&folder), None, SEGMENT) {
        Ok(store) => {
            println!("opened");
            store.close();
        }
        Err(error) => println!("refused: {error}"),
    }
}

#[test]
fn open_file_limit_is_reported_as_such_and_not_as_damage() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path());
    let mut reported = 0;
    // From too few to start at all, up to enough.
    for limit in 5..=14 {
        let output = std::process::Command::new("sh")
            .args([
                "-c",
                r#"ulimit -n "$1" && exec "$2" --ignored --exact --nocapture "$3""#,
                "sh",
            ])
            .arg(limit.to_string())
            .arg(std::env::current_exe().unwrap())
            .arg("store::tests::damage::limited")
            .env(FOLDER, folder.path())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let text = text.into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(
            text.contains("opened") || text.contains("refused") || text.contains("Too many"),
            "{limit}: {text}"
        );
        assert!(!text.contains("move it away"), "{limit}: {text}");
        reported += usize::from(text.contains("limit of open files"));
    }
    assert!(reported > 0);
    let store = open(folder.path());
    store.close();
}
