//! A full disk: a small tmpfs in its own mount namespace.

use super::*;
use std::fs::File;
use std::io::Write;
use std::process::{Command, Stdio};

/// Environment variable with the path of the small disk inside the namespace.
const DISK: &str = "CLUSTER_IPFS_TEST_DISK";
/// Size of the blocks that fill the disk, in bytes.
const BLOCK: usize = 20_000;
const SEGMENTS: u64 = 4 << 20;

fn open(folder: &Path) -> Store {
    Store::open_with(&folder.join("repo"), None, SEGMENTS).unwrap()
}

/// Runs one of the ignored tests below; `None` if it was killed.
fn run(test: &str, disk: &Path, kill_after: Option<std::time::Duration>) -> Option<bool> {
    let name = format!("store::tests::full::{test}");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", &name])
        .env(DISK, disk)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    if let Some(after) = kill_after {
        std::thread::sleep(after);
        child.kill().unwrap();
    }
    child.wait().unwrap().code().map(|code| code == 0)
}

fn keys_of(numbers: impl Iterator<Item = u64>) -> Vec<Vec<u8>> {
    numbers
        .map(|number| super::super::key_of(&block(number, BLOCK).cid))
        .collect()
}

/// Returns whether the block with this number is kept; all others are garbage.
fn is_kept(number: u64) -> bool {
    number.is_multiple_of(3)
}

/// Puts blocks until they are refused; returns their number.
fn fill(store: &Store) -> u64 {
    let runtime = runtime();
    let mut number = 0;
    loop {
        let blocks = (number..number + 16).map(|number| block(number, BLOCK)).collect();
        match runtime.block_on(store.put(blocks)) {
            Ok(()) => number += 16,
            Err(error) => {
                let text = error.to_string();
                assert!(
                    text.contains("is full") && text.contains("collect garbage"),
                    "{text}"
                );
                runtime.block_on(store.sync()).unwrap();
                return number;
            }
        }
    }
}

/// Fills the rest of the disk, like another program.
fn fill_by_others(disk: &Path) {
    let mut file = File::create(disk.join("filler")).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
}

/// Collects garbage like the node, keeping the blocks that [`is_kept`] names.
fn collect(store: &Store, count: u64) {
    store.release_reserve().unwrap();
    let garbage = keys_of((0..count).filter(|number| !is_kept(*number)));
    for batch in garbage.chunks(256) {
        runtime().block_on(store.delete(batch.to_vec(), false)).unwrap();
    }
    store.compact().unwrap();
    store.fill_reserve().unwrap();
}

fn kept(count: u64) -> BTreeMap<u64, Block> {
    let numbers = (0..count).filter(|number| is_kept(*number));
    numbers.map(|number| (number, block(number, BLOCK))).collect()
}

fn count_of(disk: &Path) -> u64 {
    std::fs::read_to_string(disk.join("repo/count"))
        .unwrap()
        .parse()
        .unwrap()
}

#[test]
#[ignore = "a process of `full_disk_is_freed_without_room_and_across_kills`, which kills it"]
fn killed() {
    let Some(disk) = std::env::var_os(DISK).map(PathBuf::from) else {
        return;
    };
    let store = open(&disk);
    collect(&store, count_of(&disk));
    store.close();
}

#[test]
#[ignore = "the process of `full_disk_is_freed_without_room_and_across_kills` on the small disk"]
fn inside() {
    let Some(disk) = std::env::var_os(DISK).map(PathBuf::from) else {
        return;
    };
    std::fs::create_dir(disk.join("repo")).unwrap();
    let store = open(&disk);
    let count = fill(&store);
    assert!(count > 1000, "{count}");
    store.close();
    std::fs::write(disk.join("repo/count"), count.to_string()).unwrap();
    fill_by_others(&disk);
    // After a kill at any moment the repository opens and has the blocks to keep.
    for millis in [150, 200, 250, 300, 400] {
        run("killed", &disk, Some(std::time::Duration::from_millis(millis)));
        let store = open(&disk);
        for block in kept(count).values() {
            assert_eq!(store.get(&block.cid).unwrap().as_ref(), Some(&block.data));
        }
        store.close();
    }
    let store = open(&disk);
    collect(&store, count);
    let occupied = store.occupied().unwrap();
    let live = kept(count).len() as u64 * BLOCK as u64;
    assert!(occupied < live * 3 / 2, "{occupied} for {live}");
    check(&store, &kept(count));
    // The freed space can be used.
    std::fs::remove_file(disk.join("filler")).unwrap();
    let more = block(count + 1, BLOCK);
    runtime().block_on(store.put(vec![more.clone()])).unwrap();
    assert_eq!(store.get(&more.cid).unwrap(), Some(more.data));
    store.close();
}

#[test]
fn full_disk_is_freed_without_room_and_across_kills() {
    let disk = tempfile::tempdir().unwrap();
    let name = "store::tests::full::inside";
    let script = r#"mount -t tmpfs -o size=144m tmpfs "$1" && exec "$2" --ignored --exact --nocapture "$3""#;
    let output = Command::new("unshare")
        .args(["--mount", "--map-root-user", "sh", "-c", script, "sh"])
        .arg(disk.path())
        .arg(std::env::current_exe().unwrap())
        .arg(name)
        .env(DISK, disk.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{output:?}");
}
