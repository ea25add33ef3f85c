//! Known advisories against the versions in `Cargo.lock`, without a network: `tests/advisories.txt` is
//! RustSec's database, cut down to our crates, as of the day in its first line. What was published later is
//! found by `.ci/advisories` and `cargo deny check advisories`, which are part of each release.

use std::collections::BTreeSet;

use semver::{Version, VersionReq};

use super::root;

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

/// Returns the name and version of each package in `Cargo.lock`.
fn locked() -> Vec<(String, Version)> {
    let value = |line: &str, key: &str| Some(line.strip_prefix(key)?.trim_matches('"').to_owned());
    let (mut name, mut found) = (String::new(), Vec::new());
    for line in read("Cargo.lock").lines() {
        if let Some(this) = value(line, "name = ") {
            name = this;
        } else if let Some(version) = value(line, "version = ").filter(|_| !name.is_empty()) {
            found.push((std::mem::take(&mut name), version.parse().unwrap()));
        }
    }
    found
}

/// Advisories that affect a locked version, as `id crate version`.
fn affecting(advisories: &str, locked: &[(String, Version)]) -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    for line in advisories.lines().filter(|line| !line.starts_with('#')) {
        let columns: Vec<&str> = line.split('|').map(str::trim).collect();
        let [id, name, _, safe] = columns[..] else {
            panic!("not four columns: {line:?}");
        };
        let safe = safe
            .split(';')
            .map(str::trim)
            .filter(|versions| !versions.is_empty());
        let safe: Vec<VersionReq> = safe.map(|versions| versions.parse().unwrap()).collect();
        for (_, version) in locked.iter().filter(|(locked, _)| locked == name) {
            if !safe.iter().any(|versions| versions.matches(version)) {
                found.insert((id.to_owned(), format!("{name} {version}")));
            }
        }
    }
    found
}

/// Returns the advisories that `deny.toml` accepts.
fn accepted() -> BTreeSet<String> {
    let text = read("deny.toml");
    let ids = text.split("{ id = \"").skip(1);
    ids.map(|rest| rest.split('"').next().unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn every_known_advisory_that_affects_a_locked_version_is_argued_in_deny_toml() {
    let affecting = affecting(&read("tests/advisories.txt"), &locked());
    let ids: BTreeSet<String> = affecting.iter().map(|(id, _)| id.clone()).collect();
    assert_eq!(ids, accepted(), "affecting: {affecting:?}");
}

#[test]
fn versions_are_compared_as_rustsec_means_them() {
    let list = "# head\nR-1 | a | vulnerability | >= 1.2.3; ^0.9.5\nR-2 | b | unmaintained |";
    let locked = |name: &str, version: &str| vec![(name.to_owned(), version.parse().unwrap())];
    for (name, version, affected) in [
        ("a", "1.2.2", true),
        ("a", "1.2.3", false),
        ("a", "0.9.4", true),
        ("a", "0.9.6", false),
        ("b", "7.0.0", true),
        ("c", "1.0.0", false),
    ] {
        let found = affecting(list, &locked(name, version));
        assert_eq!(!found.is_empty(), affected, "{name} {version}: {found:?}");
    }
}
