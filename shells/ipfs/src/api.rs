//! The HTTP API of the embedded node, in the shape of Kubo's `/api/v0`.
//!
//! The `ipfs` command line, Kubo's client libraries and a cluster peer's own [`crate::kubo::Client`] use it
//! as they use a Kubo daemon. Everything streams: uploads, downloads and listings of any size pass in
//! constant memory.

mod add;
mod blocks;
mod commands;
mod config;
mod dags;
mod files;
mod gate;
mod gzip;
mod info;
mod intake;
pub mod multipart;
mod pins;
mod reply;
mod repo;
mod request;
mod server;
mod shapes;

pub use self::intake::{Intake, Silent, WasSilent};
pub use self::reply::Body;
pub use self::request::{RequestBody, base_named};
pub use self::server::{Api, serve};
pub use self::shapes::{ErrorBody, PIN_NAME_MAX, PinKey, PinKinds, PinLine, Pins};

/// The version of the API that is spoken here: clients choose their behaviour by it, and the `ipfs` command
/// line accepts nothing but strict semver.
pub const API_VERSION: &str = "0.43.0";

/// This program, where Kubo names its commit.
const PROGRAM: &str = concat!("ipfs-cluster-embedded/", env!("CARGO_PKG_VERSION"));
