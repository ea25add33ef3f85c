//! Twin tests: the simulator's disk and IPFS daemon get the same operations as the real ones, the store on
//! fjall and the embedded node, and must end in the same state.

#[path = "twins/disk.rs"]
mod disk;
#[path = "twins/ipfs.rs"]
mod ipfs;

use proptest::test_runner::{Config as ProptestConfig, FileFailurePersistence};

/// Settings of property tests with slow cases; failing ones are kept in the file `regressions`.
fn few_cases(regressions: &'static str) -> ProptestConfig {
    ProptestConfig {
        cases: 12,
        max_shrink_iters: 100,
        ..ProptestConfig::with_failure_persistence(FileFailurePersistence::Direct(regressions))
    }
}
