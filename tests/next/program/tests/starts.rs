//! That there is this test has `cargo test` build the program, with the features of the whole workspace: the
//! tests of upgrades find it, and build nothing while others run.

use std::process::Command;

#[test]
fn the_next_release_says_its_version() {
    let program = env!("CARGO_BIN_EXE_ipfs-cluster-service-next");
    let output = Command::new(program).arg("version").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let version = String::from_utf8(output.stdout).unwrap();
    assert_eq!(version.trim(), env!("CARGO_PKG_VERSION"), "{version}");
}
