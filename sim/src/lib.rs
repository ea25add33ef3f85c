//! Whole clusters of the real core in one process, from one seed: simulated disks, networks, clocks, IPFS
//! daemons and clients, and faults in all of them. The same seed and options give the same run, step by step.

#[cfg(not(madsim))]
compile_error!(
    "the simulator needs `--cfg madsim`, which .cargo/config.toml sets: run cargo inside the repository, and \
     without RUSTFLAGS in the environment, which replaces it"
);

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "a fault is aimed at few kinds of events and effects"
)]
mod aim;
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "a check looks at few kinds of events and effects; the model applies all"
)]
mod checks;
mod clients;
mod clock;
mod coverage;
mod disk;
mod driver;
#[expect(clippy::wildcard_enum_match_arm, reason = "each file has some of the faults")]
mod faults;
mod history;
mod ipfs;
mod members;
mod model;
mod mutants;
mod net;
mod options;
mod outbox;
mod owners;
mod panics;
mod peer;
mod planting;
mod releases;
mod report;
mod rng;
mod run;
mod runner;
mod scenario;
mod scrub;
mod shrink;
mod soak;
mod store;
mod trace;
pub mod twin;
mod world;

pub use checks::Violation;
pub use coverage::Counts;
pub use mutants::{Mutant, mutant};
pub use options::Options;
pub use planting::bugs;
pub use report::{Class, Report, Stats};
pub use run::run;
pub use scenario::{Scenario, run_scenario};
pub use shrink::shrink;
pub use soak::{Sum, soak};
