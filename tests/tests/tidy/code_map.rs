//! The code map of ARCHITECTURE.md: names every folder and module, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::{assert_none, folders, name, packages, root, shown};

/// Parses the code map: each folder with the modules that it names.
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
        // Two blanks separate names and description.
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
    // Written by failing property tests.
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
    assert_none(&wrong);
}

/// Lists the modules of the crate in `folder`.
fn modules(folder: &Path) -> BTreeSet<String> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return BTreeSet::new();
    };
    let files = entries.map(|entry| entry.unwrap().path());
    let modules = files.filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    let names = modules.filter_map(|path| path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
    names.filter(|name| name != "lib" && name != "main").collect()
}
