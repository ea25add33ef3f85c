//! The house rules that no compiler checks: who may import whom, how long lines and files are, and that
//! the code map of ARCHITECTURE.md is true.

#[path = "tidy/advisories.rs"]
mod advisories;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Columns of a line, so that two files fit side by side.
const COLUMNS_MAX: usize = 110;
/// Lines of a file: one that is longer is two.
const LINES_MAX: usize = 800;

fn root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package
        .parent()
        .expect("this package is below the root")
        .to_owned()
}

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .current_dir(root())
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo {arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// Fails with all that was found.
fn none(of: &[String]) {
    assert!(of.is_empty(), "\n{}\n", of.join("\n"));
}

/// Folders directly below `folder`, without hidden ones and what cargo makes.
fn folders(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir() && !name(path).starts_with('.') && name(path) != "target")
        .collect();
    found.sort();
    found
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or("")
}

/// All Rust files below `folder`.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = folders(folder).iter().flat_map(|below| sources(below)).collect();
    let here = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    found.extend(here.filter(|path| path.extension().is_some_and(|extension| extension == "rs")));
    found.sort();
    found
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

fn packages() -> Vec<Value> {
    let metadata = cargo(&["metadata", "--format-version", "1", "--no-deps", "--offline"]);
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

/// What each package of ours may use of ours, outside of its tests.
const MAY_USE: [(&str, &[&str]); 11] = [
    ("cluster-core", &[]),
    ("cluster-core-planted", &[]),
    ("cluster-api", &[]),
    ("cluster-ipfs", &[]),
    ("sim", &["cluster-core", "cluster-core-planted"]),
    (
        "ipfs-cluster-service",
        &["cluster-core", "cluster-api", "cluster-ipfs"],
    ),
    ("ipfs-cluster-ctl", &["cluster-api"]),
    ("tests", &[]),
    ("cluster-core-next", &[]),
    (
        "cluster-service-next",
        &["cluster-core-next", "cluster-api", "cluster-ipfs"],
    ),
    (
        "ipfs-cluster-service-next",
        &[
            "cluster-core-next",
            "cluster-service-next",
            "cluster-api",
            "cluster-ipfs",
        ],
    ),
];

#[test]
fn packages_use_only_those_below_them() {
    let packages = packages();
    let ours: BTreeSet<&str> = packages
        .iter()
        .filter_map(|package| package["name"].as_str())
        .collect();
    let mut wrong = Vec::new();
    for package in &packages {
        let package_name = package["name"].as_str().unwrap();
        let Some((_, may)) = MAY_USE.iter().find(|(name, _)| *name == package_name) else {
            wrong.push(format!(
                "{package_name}: a new package: say in tidy.rs what it may use"
            ));
            continue;
        };
        // Those for tests and build scripts have a kind.
        let uses = package["dependencies"].as_array().unwrap().iter();
        let uses = uses
            .filter(|used| used["kind"].is_null())
            .filter_map(|used| used["name"].as_str());
        for used in uses.filter(|used| ours.contains(used) && !may.contains(used)) {
            wrong.push(format!("{package_name} uses {used}"));
        }
    }
    none(&wrong);
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
    // Not rand: raft brings it along, and is asked for nothing random.
    let banned = ["tokio", "libp2p", "fjall", "futures", "hyper", "mio", "madsim"].iter();
    let wrong: Vec<String> = banned
        .filter(|name| crates.contains(**name))
        .map(|name| format!("cluster-core depends on {name}"))
        .collect();
    none(&wrong);
}

/// The modules of this crate that `text` names after `crate::`, in groups too.
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
fn imports_are_found_in_paths_and_in_groups() {
    let text = "use crate::{config::{Config, net}, store};\nuse crate::http::S;\nuse other_crate::driver;";
    let expected = ["config", "http", "store"].map(str::to_owned);
    assert_eq!(imported(text), BTreeSet::from(expected));
}

/// What parts of a package may not use of each other: where, which parts, and what else none of them may.
const APART: [(&str, &[&str], &[&str]); 2] = [
    (
        "shells/service/src",
        &["config", "http", "net", "store"],
        &["daemon", "demo", "driver"],
    ),
    // `node` alone knows them all and routes between them.
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

/// What a module and those below it import, tests left out: those may bring parts together.
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

#[test]
fn parts_of_a_package_do_not_reach_into_each_other() {
    let mut wrong = Vec::new();
    for (folder, parts, above) in APART {
        for part in parts {
            for (path, found) in imports_of(&root().join(folder), part) {
                let others = parts.iter().chain(above).filter(|other| *other != part);
                for other in others.filter(|other| found.contains(**other)) {
                    wrong.push(format!("{} uses crate::{other}", shown(&path)));
                }
            }
        }
    }
    none(&wrong);
}

fn is_test_or_example(path: &Path) -> bool {
    path.components().any(|part| {
        let part = part.as_os_str().to_string_lossy();
        matches!(&*part, "tests" | "examples" | "tests.rs" | "testing.rs")
    })
}

#[test]
fn lines_and_files_are_not_too_long() {
    let mut wrong = Vec::new();
    for path in sources(&root()) {
        let text = std::fs::read_to_string(&path).unwrap();
        let lines = text.lines().count();
        if lines > LINES_MAX {
            wrong.push(format!("{}: {lines} lines, at most {LINES_MAX}", shown(&path)));
        }
        for (number, line) in text.lines().enumerate() {
            let columns = line.chars().count();
            // Tests and examples quote answers, which rustfmt does not break.
            let quotes = line.contains('"') && is_test_or_example(&path);
            if columns > COLUMNS_MAX && !quotes {
                let at = format!("{}:{}", shown(&path), number + 1);
                wrong.push(format!("{at}: {columns} columns, at most {COLUMNS_MAX}"));
            }
        }
    }
    none(&wrong);
}

/// The code map of ARCHITECTURE.md: each folder with the modules that it names.
fn code_map() -> BTreeMap<String, BTreeSet<String>> {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let (_, map) = text.split_once("## Code map").expect("a section `Code map`");
    let map = map.split("```").nth(1).expect("the map is in a code block");
    let mut folders: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut folder = String::new();
    for line in map
        .lines()
        .filter(|line| !line.trim().is_empty() && *line != "text")
    {
        // Two blanks end the names.
        let names = line.trim_start().split("  ").next().unwrap_or("");
        if line.starts_with(' ') {
            let modules = names.split(',').map(|module| module.trim().to_owned());
            folders.entry(folder.clone()).or_default().extend(modules);
        } else {
            folder = names.trim_end_matches('/').to_owned();
            folders.entry(folder.clone()).or_default();
        }
    }
    folders
}

#[test]
fn the_code_map_names_every_folder_and_module_and_nothing_else() {
    let map = code_map();
    let mut wrong = Vec::new();
    let mut top: BTreeSet<String> = folders(&root())
        .iter()
        .map(|path| name(path).to_owned())
        .collect();
    // Made by a property test that fails, for as long as it does.
    top.remove("proptest-regressions");
    for folder in &top {
        let named = map
            .keys()
            .any(|path| path == folder || path.starts_with(&format!("{folder}/")));
        if !named {
            wrong.push(format!("ARCHITECTURE.md: the code map lacks {folder}/"));
        }
    }
    for package in packages() {
        let manifest = PathBuf::from(package["manifest_path"].as_str().unwrap());
        let folder = manifest.parent().unwrap();
        let path = shown(folder);
        let modules = modules(&folder.join("src"));
        let named = map.get(&path).cloned().unwrap_or_default();
        if !map.contains_key(&path) {
            wrong.push(format!("ARCHITECTURE.md: the code map lacks {path}/"));
        }
        wrong.extend(
            modules
                .difference(&named)
                .map(|module| format!("ARCHITECTURE.md: {path}/ lacks {module}")),
        );
        wrong.extend(
            named
                .difference(&modules)
                .map(|module| format!("ARCHITECTURE.md: {path}/ has no {module}")),
        );
    }
    wrong.extend(
        map.keys()
            .filter(|path| !root().join(path).is_dir())
            .map(|path| format!("ARCHITECTURE.md: the code map has {path}/, which does not exist")),
    );
    none(&wrong);
}

/// The modules of the crate in `folder`, by name.
fn modules(folder: &Path) -> BTreeSet<String> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return BTreeSet::new();
    };
    let files = entries.map(|entry| entry.unwrap().path());
    let modules = files.filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    let names = modules.filter_map(|path| path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
    names.filter(|name| name != "lib" && name != "main").collect()
}
