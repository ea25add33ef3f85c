//! Test clusters of real processes on this machine.
//!
//! [`Cluster`] writes the folders of peers with the program's own `init`, starts and kills them.
//! Tests send them requests over HTTP with [`http`], which can also send invalid ones, and through
//! `ipfs-cluster-ctl` with [`Peer::ctl`]. [`program`] finds the two programs, and builds them first if they
//! are missing or older than their sources.

pub mod cids;
mod cluster;
pub mod http;
pub mod links;
pub mod memory;
mod peer;
mod process;
mod programs;

pub use cluster::{Cluster, Options};
pub use peer::{Peer, Release, service};
pub use process::{PATIENCE, Said, closed_port, run, wait_until};
pub use programs::{profile_folder, program, root};
