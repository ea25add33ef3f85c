//! Locates the programs that tests start, and builds them if necessary.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

/// Returns the root folder of the workspace.
///
/// # Panics
/// Never: this package is below the root.
pub fn root() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().expect("this package is below the root")
}

/// Returns `target/<profile>`, where this test's executable was built.
///
/// # Panics
/// If the test runs from elsewhere.
pub fn profile_folder() -> PathBuf {
    let executable = std::env::current_exe().expect("a process knows its executable");
    let deps = executable.parent().expect("an executable is in a folder");
    let folder = deps.parent().expect("tests are built in target/<profile>/deps");
    folder.to_owned()
}

/// Returns the path of the program called `name`, built from the current sources with the profile of the
/// tests; or of the one in the folder `PROGRAMS`, if that variable is set.
///
/// # Panics
/// If it cannot be built; the compiler's output says why.
pub fn program(name: &str) -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    let names = ["ipfs-cluster-service", "ipfs-cluster-ctl"];
    assert!(names.contains(&name), "no program is called {name}");
    if let Some(folder) = std::env::var_os("PROGRAMS") {
        let program = Path::new(&folder).join(name);
        assert!(program.exists(), "PROGRAMS: there is no {}", program.display());
        return program;
    }
    BUILT.get_or_init(|| {
        if !names.iter().all(|name| is_fresh(name)) {
            build(&names);
        }
    });
    profile_folder().join(name)
}

/// Returns whether the program is newer than all of its sources. `cargo test --workspace` has just built it,
/// with the features of the workspace; building it again without them would take minutes.
fn is_fresh(name: &str) -> bool {
    let changed = |path: &Path| -> Option<SystemTime> { path.metadata().ok()?.modified().ok() };
    let program = profile_folder().join(name);
    let (Some(built), Ok(sources)) = (
        changed(&program),
        std::fs::read_to_string(program.with_extension("d")),
    ) else {
        return false;
    };
    // Format: `program: source source …`, with escaped blanks in names.
    let escaped = sources.replace("\\ ", "\0");
    let sources = escaped
        .split_whitespace()
        .skip(1)
        .map(|name| name.replace('\0', " "));
    let manifest = root().join("Cargo.lock").display().to_string();
    sources
        .chain([manifest])
        .all(|source| changed(Path::new(&source)).is_some_and(|changed| changed <= built))
}

fn build(names: &[&str]) {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.arg("build").current_dir(root());
    for name in names {
        command.args(["-p", name]);
    }
    let profile = profile_folder();
    match profile.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => {}
        Some(other) => {
            command.args(["--profile", other]);
        }
    }
    if let Some(target) = profile.parent() {
        command.arg("--target-dir").arg(target);
    }
    let status = command.status().expect("cargo starts");
    assert!(status.success(), "{command:?}: {status}");
}
