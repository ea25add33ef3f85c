//! Dependencies between packages, and between modules of a package.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::{assert_none, cargo, name, packages, root, shown, sources};

/// Packages of the workspace with the packages of the workspace that they may use, tests excepted.
const MAY_USE: [(&str, &[&str]); 9] = [
    ("cluster-core", &[]),
    ("cluster-core-planted", &[]),
    ("cluster-http", &[]),
    ("cluster-api", &["cluster-http"]),
    ("cluster-ipfs", &["cluster-http"]),
    ("sim", &["cluster-core", "cluster-core-planted"]),
    (
        "ipfs-cluster-service",
        &["cluster-core", "cluster-http", "cluster-api", "cluster-ipfs"],
    ),
    ("ipfs-cluster-ctl", &["cluster-http", "cluster-api"]),
    ("tests", &[]),
];

#[test]
fn packages_use_only_lower_packages() {
    let packages = packages();
    let ours: BTreeSet<&str> = packages
        .iter()
        .filter_map(|package| package["name"].as_str())
        .collect();
    let mut wrong = Vec::new();
    for package in &packages {
        let package_name = package["name"].as_str().unwrap();
        let Some((_, may)) = MAY_USE.iter().find(|(name, _)| *name == package_name) else {
            wrong.push(format!("{package_name}: a new package: add it to `MAY_USE`"));
            continue;
        };
        // Dependencies of tests and build scripts have a kind.
        let uses = package["dependencies"].as_array().unwrap().iter();
        let uses = uses
            .filter(|used| used["kind"].is_null())
            .filter_map(|used| used["name"].as_str());
        for used in uses.filter(|used| ours.contains(used) && !may.contains(used)) {
            wrong.push(format!("{package_name} uses {used}"));
        }
    }
    assert_none(&wrong);
}

#[test]
fn the_core_has_no_runtime_no_network_and_no_database() {
    let tree = [
        "tree",
        "-p",
        "cluster-core",
        "-e",
        "normal",
        "--prefix",
        "none",
        "--offline",
    ];
    let tree = cargo(&tree);
    let crates: BTreeSet<&str> = tree
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(crates.contains("raft"), "{crates:?}");
    // Not rand, which raft depends on: the core requests nothing random from it.
    let banned = ["tokio", "libp2p", "fjall", "futures", "hyper", "mio", "madsim"].iter();
    let wrong: Vec<String> = banned
        .filter(|name| crates.contains(**name))
        .map(|name| format!("cluster-core depends on {name}"))
        .collect();
    assert_none(&wrong);
}

/// Returns the modules that `text` names after `crate::`, in groups too.
fn imported(text: &str) -> BTreeSet<String> {
    let identifier = |text: &str| -> String {
        text.chars()
            .take_while(|character| character.is_alphanumeric() || *character == '_')
            .collect()
    };
    let mut found = BTreeSet::new();
    for (at, path) in text.match_indices("crate::") {
        // `cluster_crate::` and the like are other crates.
        let before = text[..at].chars().next_back();
        let part_of_a_name = |character: char| character.is_alphanumeric() || "_$".contains(character);
        if before.is_some_and(part_of_a_name) {
            continue;
        }
        let rest = &text[at + path.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            found.insert(identifier(rest));
            continue;
        };
        let mut depth = 0;
        let mut start = true;
        for (at, character) in group.char_indices() {
            match character {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => start = true,
                _ if start && character.is_alphanumeric() => {
                    found.insert(identifier(&group[at..]));
                    start = false;
                }
                _ => {}
            }
        }
    }
    found
}

#[test]
fn imports_are_found_in_paths_and_groups() {
    let text = "use crate::{config::{Config, net}, store};\nuse crate::http::S;\nuse other_crate::driver;";
    let expected = ["config", "http", "store"].map(str::to_owned);
    assert_eq!(imported(text), BTreeSet::from(expected));
}

/// Modules that may not import each other: the folder, these modules, and others that they may not import.
const SEPARATE: [(&str, &[&str], &[&str]); 2] = [
    (
        "shells/service/src",
        &["config", "http", "net", "store"],
        &["daemon", "demo", "driver"],
    ),
    // Only `node` imports them all, and routes between them.
    (
        "core/src",
        &[
            "failover",
            "membership",
            "monitor",
            "pinset",
            "raft",
            "requests",
            "tracker",
        ],
        &["node"],
    ),
];

/// Returns the imports of a module and its submodules, tests excepted: those may combine modules.
fn imports_of(folder: &Path, module: &str) -> Vec<(PathBuf, BTreeSet<String>)> {
    let mut files = vec![folder.join(format!("{module}.rs"))];
    if folder.join(module).is_dir() {
        files.extend(sources(&folder.join(module)));
    }
    let test = |path: &Path| shown(path).contains("/tests/") || name(path) == "tests.rs";
    let files = files.into_iter().filter(|path| path.exists() && !test(path));
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let found = imported(&code.collect::<Vec<&str>>().join("\n"));
        (path, found)
    };
    files.map(read).collect()
}

/// The modules of the core form layers: records and their encoding below, `node` above all.
#[test]
fn modules_of_the_core_import_each_other_in_no_circle() {
    let folder = root().join("core/src");
    let modules = sources(&folder);
    let names = modules.iter().filter(|path| path.parent() == Some(&folder));
    let names: Vec<String> = names
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .filter(|name| name != "lib" && name != "testing")
        .collect();
    let mut left: Vec<(String, BTreeSet<String>)> = names
        .iter()
        .map(|name| {
            let files = imports_of(&folder, name).into_iter();
            let mut imports: BTreeSet<String> = files.flat_map(|(_, imports)| imports).collect();
            imports.retain(|import| import != name && names.contains(import));
            (name.clone(), imports)
        })
        .collect();
    // Takes away what imports nothing that is left, until a circle is.
    loop {
        let before = left.len();
        let still: BTreeSet<String> = left.iter().map(|(name, _)| name.clone()).collect();
        left.retain(|(_, imports)| !imports.is_disjoint(&still));
        if left.len() == before {
            break;
        }
    }
    let shown: Vec<String> = left
        .iter()
        .map(|(name, imports)| format!("{name} imports {imports:?}"))
        .collect();
    assert_none(&shown);
}

#[test]
fn separate_modules_do_not_import_each_other() {
    let mut wrong = Vec::new();
    for (folder, parts, above) in SEPARATE {
        for part in parts {
            for (path, found) in imports_of(&root().join(folder), part) {
                let others = parts.iter().chain(above).filter(|other| *other != part);
                for other in others.filter(|other| found.contains(**other)) {
                    wrong.push(format!("{} uses crate::{other}", shown(&path)));
                }
            }
        }
    }
    assert_none(&wrong);
}
