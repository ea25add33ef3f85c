//! Repository rules that no compiler checks: dependencies between packages and modules, the code map and the
//! paths in documents, style of code and documentation, known advisories.

#[path = "tidy/advisories.rs"]
mod advisories;
#[path = "tidy/code_map.rs"]
mod code_map;
#[path = "tidy/dependencies.rs"]
mod dependencies;
#[path = "tidy/documents.rs"]
mod documents;
#[path = "tidy/style.rs"]
mod style;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Returns the root folder of the workspace.
fn root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package
        .parent()
        .expect("this package is below the root")
        .to_owned()
}

/// Runs cargo and returns its standard output.
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

/// Asserts that no rule is violated; lists all violations.
fn assert_none(violations: &[String]) {
    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
}

/// Lists the folders directly below `folder`, without hidden ones and cargo's output.
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

/// Lists all Rust files below `folder`.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = folders(folder).iter().flat_map(|below| sources(below)).collect();
    let here = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    found.extend(here.filter(|path| path.extension().is_some_and(|extension| extension == "rs")));
    found.sort();
    found
}

/// Returns a path relative to the root of the workspace.
fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// Returns the packages of the workspace, from `cargo metadata`.
fn packages() -> Vec<Value> {
    let metadata = cargo(&["metadata", "--format-version", "1", "--no-deps", "--offline"]);
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}
